"""softmax(q·kᵀ·scale + bias)·v in one call, by the kernel that was asked for."""

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
"""Whether torch asks on MPS which backend it may take. Up to 2.14 it does not, and takes math whatever was asked for."""
FLEX_KNOWS_THE_PROCESSOR = torch.__version__ >= "2.6"  # a TorchVersion: compared as a version, not as text
"""Whether FlexAttention has a kernel for the processor. In torch 2.5 it asks there for a GPU's driver instead."""


def fused_attention(
    kernel: str, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, drop: float = 0.0, scale: float = 1.0
) -> Tensor:
    """Attend by one kernel: (b, h, n, d), (b, h, m, d), (b, h, m, d) -> (b, h, n, d).

    Args:
        kernel: a fused one of `attnscope.attentions.spec.KERNELS`.
        q, k, v: queries, keys and values.
        bias: added to the scores, (b, h, n, m) or what broadcasts to it.
        drop: dropout of the weights.
        scale: multiplies the scores.

    Raises:
        RuntimeError: the kernel does not run here, or not on this.
    """
    if kernel in BACKENDS:
        if q.is_mps and not heeded_on_mps(kernel):
            raise RuntimeError("torch takes math on mps, whatever it is told")
        with sdpa_kernel([BACKENDS[kernel]]):
            return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=drop, scale=scale)
    if kernel == "flex" and drop:
        raise RuntimeError("FlexAttention has no dropout")
    if kernel in _COMPILED:
        if torch.compiler.is_compiling():
            return _COMPILED[kernel](q, k, v, bias, drop, scale)  # it is compiled with what calls it
        if kernel == "flex" and q.is_cpu and not FLEX_KNOWS_THE_PROCESSOR:
            raise RuntimeError("FlexAttention has no kernel for the processor before torch 2.6")
        modes = (torch.is_grad_enabled(), torch.is_inference_mode_enabled())
        alike = [_layout(tensor) for tensor in (q, k, v, bias)]
        return _compiled(kernel, *alike, *modes, drop, scale)(q, k, v, bias, drop, scale)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=drop, scale=scale)


def heeded_on_mps(backend: str) -> bool:
    """Whether torch takes this backend on MPS where it is told to."""
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
    """All of a tensor that a compiled kernel is compiled for."""
    if tensor is None:
        return None
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device, tensor.requires_grad, tensor.is_inference()


Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None, float, float], Tensor]

_COMPILED: dict[str, Attend] = {"flex": _by_flex, "compile": _by_steps}


@cache
def _compiled(kernel: str, *alike: object) -> Attend:
    """A kernel compiled for calls that are alike.

    torch compiles a function for eight kinds of call (sizes, strides, modes), and then runs it uncompiled for all others
    without a word. So each kind gets a function of its own, with code of its own by which torch counts.
    """
    function = _COMPILED[kernel]
    own = FunctionType(function.__code__.replace(), function.__globals__)
    return torch.compile(own, dynamic=False)
