"""softmax(q·kᵀ·scale + bias)·v in one call, by the kernel that was asked for."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}


def fused_attention(
    kernel: str, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, drop: float = 0.0, scale: float = 1.0
) -> Tensor:
    """Attend by one kernel: (b, h, n, d), (b, h, m, d), (b, h, m, d) -> (b, h, n, d).

    Args:
        kernel: a fused one of `attnscope.spec.KERNELS`.
        q, k, v: queries, keys and values.
        bias: added to the scores, (b, h, n, m) or what broadcasts to it.
        drop: dropout of the weights.
        scale: multiplies the scores.

    Raises:
        RuntimeError: the kernel does not run here, or not on this.
    """
    if kernel in BACKENDS:
        with sdpa_kernel([BACKENDS[kernel]]):
            return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=drop, scale=scale)
    if kernel == "flex":
        if drop:
            raise RuntimeError("FlexAttention has no dropout")
        return _flex()(q, k, v, score_mod=None if bias is None else _adding(bias), scale=scale)
    if kernel == "compile":
        return _compiled()(q, k, v, bias, drop, scale)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=drop, scale=scale)


def _by_steps(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, drop: float, scale: float) -> Tensor:
    scores = q @ k.transpose(-2, -1) * scale
    if bias is not None:
        scores = scores + bias
    return F.dropout(scores.softmax(-1), drop) @ v


def _adding(bias: Tensor) -> Callable[..., Tensor]:
    batch, heads = bias.shape[0], bias.shape[1]

    def add(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return score + bias[b % batch, h % heads, i, j]

    return add


@cache
def _compiled() -> Callable[..., Any]:
    return torch.compile(_by_steps, dynamic=False)


@cache
def _flex() -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)
