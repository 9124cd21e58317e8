"""Fused attention kernels: softmax(q·kᵀ·scale + bias)·v in one call."""

from collections.abc import Callable
from functools import cache
from types import FunctionType

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
MPS_HEEDS_THEM = torch._C._dispatch_has_kernel_for_dispatch_key("aten::_fused_sdp_choice", "MPS")
"""A flag: torch respects the selected backend on MPS. Up to version 2.14 it always uses math there."""
FLEX_KNOWS_THE_PROCESSOR = torch.__version__ >= "2.6"  # a TorchVersion, which compares as a version
"""A flag: FlexAttention has a CPU kernel. In torch 2.5 it requires a GPU driver even on the CPU."""


def fused_attention(
    kernel: str, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, drop: float = 0.0, scale: float = 1.0
) -> Tensor:
    """Compute attention with a fused kernel: (b, h, n, d), (b, h, m, d), (b, h, m, d) -> (b, h, n, d).

    Args:
        kernel: a fused kernel of `attnscope.attentions.spec.KERNELS`.
        q, k, v: queries, keys and values.
        bias: bias of the scores, broadcastable to (b, h, n, m).
        drop: dropout probability of the attention weights.
        scale: factor of the scores.

    Raises:
        RuntimeError: if the kernel does not support this device or these arguments.
    """
    if kernel in BACKENDS:
        if q.is_mps and not heeded_on_mps(kernel):
            raise RuntimeError("torch always uses the math kernel on mps")
        with sdpa_kernel([BACKENDS[kernel]]):
            return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=drop, scale=scale)
    if kernel == "flex" and drop:
        raise RuntimeError("FlexAttention has no dropout")
    if kernel in _COMPILED:
        if torch.compiler.is_compiling():
            return _COMPILED[kernel](q, k, v, bias, drop, scale)  # the caller is being compiled, and this with it
        if kernel == "flex" and q.is_cpu and not FLEX_KNOWS_THE_PROCESSOR:
            raise RuntimeError("FlexAttention has no CPU kernel before torch 2.6")
        modes = (torch.is_grad_enabled(), torch.is_inference_mode_enabled())
        layouts = [_layout(tensor) for tensor in (q, k, v, bias)]
        return _compiled(kernel, *layouts, *modes, drop, scale)(q, k, v, bias, drop, scale)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=drop, scale=scale)


def heeded_on_mps(backend: str) -> bool:
    """Return whether torch uses this backend on MPS if it is selected."""
    return backend == "math" or MPS_HEEDS_THEM


def _by_steps(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, drop: float, scale: float) -> Tensor:
    scores = q @ k.transpose(-2, -1) * scale
    if bias is not None:
        scores = scores + bias
    return F.dropout(scores.softmax(-1), drop) @ v


def _by_flex(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, drop: float, scale: float) -> Tensor:
    from torch.nn.attention.flex_attention import flex_attention

    return flex_attention(q, k, v, score_mod=None if bias is None else _adding(bias), scale=scale)


def _adding(bias: Tensor) -> Callable[..., Tensor]:
    batch, heads = bias.shape[0], bias.shape[1]

    def add(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return score + bias[b % batch, h % heads, i, j]

    return add


def _layout(tensor: Tensor | None) -> object:
    """Return the properties of a tensor that a compiled kernel is specialized for."""
    if tensor is None:
        return None
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device, tensor.requires_grad, tensor.is_inference()


Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None, float, float], Tensor]

_COMPILED: dict[str, Attend] = {"flex": _by_flex, "compile": _by_steps}


@cache
def _compiled(kernel: str, *combination: object) -> Attend:
    """Return a kernel compiled for one combination of layouts and modes.

    torch compiles a function for at most eight combinations of sizes, strides and modes; it silently runs all others
    uncompiled. torch counts them by code object, so each combination gets a copy of the function with its own code
    object.
    """
    function = _COMPILED[kernel]
    own = FunctionType(function.__code__.replace(), function.__globals__)
    return torch.compile(own, dynamic=False)
