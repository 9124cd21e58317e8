"""Fused attention kernels, whose counts are those of the steps that they replace, and whose memory is different."""

from math import prod
from typing import Any, NamedTuple

from attnscope.ops.normalization import SOFTMAX
from attnscope.ops.operation import Arguments, argument, register, without_statistics
from attnscope.ops.tape import Back, Gradients, Tape
from attnscope.ops.tensor import FLOAT32_BYTES, Shape, Tensor, broadcast, elementwise_strides

SCALE = MASK = 1
"""FLOPs of one query-key pair: one to multiply by the scale, and one to add a mask or a bias."""


class Attend(NamedTuple):
    """The sizes of one fused attention.

    Args:
        rows: number of images times windows.
        heads: number of attention heads.
        queries: number of queries of a head.
        keys: number of keys of a head.
        head_dim: channels of a head.
        macs: MACs of q·kᵀ and of the weighted sum of the values.
    """

    rows: int
    heads: int
    queries: int
    keys: int
    head_dim: int
    macs: int

    @property
    def pairs(self) -> int:
        """Return the number of query-key pairs in all heads."""
        return self.rows * self.heads * self.queries * self.keys


def attend(query: Any, key: Any, value: Any) -> Attend:
    """Describe scaled_dot_product_attention of its query, key and value.

    Args:
        query: (…, heads, queries, head_dim); a tensor with fewer than four axes has one head.
        key: (…, heads, keys, head_dim); it may have fewer heads than the query, which then share them.
        value: (…, heads, keys, channels). The leading axes of all three are broadcast.
    """
    queries, width = query.shape[-2:]
    keys, channels = value.shape[-2:]
    scored = broadcast(query.shape[:-2], key.shape[:-2])
    rows = list(broadcast(scored, value.shape[:-2]))
    macs = queries * keys * (prod(scored) * width + prod(rows) * channels)
    heads = rows.pop() if len(rows) > 1 else 1
    return Attend(prod(rows), heads, queries, keys, width, macs)


def attend_natively(query: Any, key: Any, heads: int) -> Attend:
    """Describe the attention inside torch's `nn.MultiheadAttention` and `nn.TransformerEncoderLayer`.

    Args:
        query: (b, n, c).
        key: (b, m, c).
        heads: number of attention heads.
    """
    rows, queries, dim = query.shape
    return Attend(rows, heads, queries, key.shape[1], dim // heads, 2 * rows * queries * key.shape[1] * dim)


def fused_attention(name: str, arguments: Arguments) -> Attend | None:
    """Describe the attention that an operator of ATTENDING computes; return None for any other operator."""
    if name not in ATTENDING:
        return None
    if name == "_native_multi_head_attention":
        return attend_natively(arguments[0], arguments[1], arguments[4])
    if name == "_transformer_encoder_layer_fwd":
        return attend_natively(arguments[0], arguments[0], arguments[2])
    return attend(*arguments[:3])


MASK_AT = {
    "_scaled_dot_product_flash_attention": None,
    "_scaled_dot_product_flash_attention_for_cpu": 5,
    "_scaled_dot_product_efficient_attention": 3,
    "_scaled_dot_product_cudnn_attention": 3,
    "_scaled_dot_product_attention_math_for_mps": 3,
    "_scaled_dot_product_fused_attention_overrideable": 3,
    "scaled_dot_product_attention": 3,
}
"""The index of the mask or bias among the arguments of each fused operator; None if it has no such argument."""
CAUSAL_AT = {
    "_scaled_dot_product_flash_attention": 4,
    "_scaled_dot_product_flash_attention_for_cpu": 4,
    "_scaled_dot_product_efficient_attention": 6,
    "_scaled_dot_product_cudnn_attention": 6,
    "_scaled_dot_product_attention_math_for_mps": 5,
    "_scaled_dot_product_fused_attention_overrideable": 5,
    "scaled_dot_product_attention": 5,
}
"""The index of `is_causal` among the arguments of each fused operator."""
NATIVE_MASK_AT = {"_native_multi_head_attention": 9, "_transformer_encoder_layer_fwd": 18}
"""The index of the mask among the arguments of each fused operator that has the projections too."""
FUSED = tuple(MASK_AT)
ATTENDING = frozenset({*FUSED, "flex_attention", "_native_multi_head_attention", "_transformer_encoder_layer_fwd"})
"""Names of the operators that compute an attention, some of them with projections."""


def _macs(arguments: Arguments, out: Any) -> int:
    return attend(*arguments[:3]).macs


def _flops(mask_at: int | None) -> Any:
    def flops(arguments: Arguments, out: Any) -> int:
        has_mask = mask_at is not None and argument(arguments, mask_at) is not None
        return attend(*arguments[:3]).pairs * (SCALE + SOFTMAX + MASK * has_mask)

    return flops


def _native_macs(arguments: Arguments, out: Any) -> int:
    query, key, value, dim = arguments[:4]
    projections = query.numel() * dim + key.numel() * dim + value.numel() * dim + query.numel() * dim
    return projections + attend_natively(query, key, arguments[4]).macs


def _native_flops(arguments: Arguments, out: Any) -> int:
    """Count the scale and the softmax of each pair, and the biases of q, k, v and the output."""
    return (
        attend_natively(arguments[0], arguments[1], arguments[4]).pairs * (SCALE + SOFTMAX) + 4 * arguments[0].numel()
    )


def _encoder_layer_macs(arguments: Arguments, out: Any) -> int:
    x, dim, heads, linear_1, linear_2 = arguments[0], arguments[1], arguments[2], arguments[14], arguments[16]
    projections, tokens = 4 * x.numel() * dim, x.numel() // dim
    return projections + attend_natively(x, x, heads).macs + tokens * (linear_1.numel() + linear_2.numel())


def _encoder_layer_flops(arguments: Arguments, out: Any) -> int:
    """Count the elementwise FLOPs of an encoder layer.

    These are the scale and softmax of each pair, two LayerNorms of 5 for each element, five biases and two residual
    sums. The hidden layer adds its bias and activation.
    """
    x, hidden = arguments[0], arguments[14].shape[0]
    activation = 5 if arguments[7] else 1  # a GELU or a ReLU
    tokens = x.numel() // arguments[1]
    pairs = attend_natively(x, x, arguments[2]).pairs * (SCALE + SOFTMAX)
    return pairs + (2 * 5 + 5 + 2) * x.numel() + (1 + activation) * tokens * hidden


def _flex_flops(arguments: Arguments, out: Any) -> int | None:
    """Count the scale and the softmax of each pair; None with a function of the user that modifies the scores."""
    is_plain = getattr(arguments[3], "__name__", "") == "_identity"
    return attend(*arguments[:3]).pairs * (SCALE + SOFTMAX) if is_plain else None


def _backward_macs(arguments: Arguments, out: Any) -> int:
    """Count the five products of a fused backward (Dao et al., arXiv 2205.14135, algorithm 4).

    They are the scores again, the gradient of the weights, and the gradients of the query, the key and the value.
    """
    query, value = arguments[1], arguments[3]
    return attend(*arguments[1:4]).pairs * (3 * query.shape[-1] + 2 * value.shape[-1])


register(
    """_scaled_dot_product_flash_attention_backward _scaled_dot_product_flash_attention_for_cpu_backward
    _scaled_dot_product_efficient_attention_backward _scaled_dot_product_cudnn_attention_backward
    _scaled_dot_product_fused_attention_overrideable_backward""",
    macs=_backward_macs,
    flops=lambda arguments, out: None,  # kernels differ in what they recompute
)
register("flex_attention", macs=_macs, flops=_flex_flops, moves=without_statistics)
for _name, _at in MASK_AT.items():
    register(_name, macs=_macs, flops=_flops(_at), moves=without_statistics)
register("_native_multi_head_attention", macs=_native_macs, flops=_native_flops)
register("_transformer_encoder_layer_fwd", macs=_encoder_layer_macs, flops=_encoder_layer_flops)


def attention(
    tape: Tape, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None, keeps: bool = False
) -> Tensor:
    """Compute attention in one kernel: (b, h, n, d), (b, h, m, d), (b, h, m, d) -> (b, h, n, d).

    The result has the memory layout of the query. Gradients are laid out token by token, with the heads of a token side
    by side, as in torch's CPU kernel.

    If `tape.heads_apart` is set, both are laid out head by head instead. If `keeps` is False, the gradients are too,
    because torch then uses its math kernel.

    Args:
        tape: the tape that records the operation.
        query: (b, h, n, d).
        key: (b, h, m, d).
        value: (b, h, m, d).
        bias: added to the scores.
        keeps: the kernel saves its operands, its result and a float32 sum for each query, and recomputes the scores in
            the backward (Dao et al., arXiv 2205.14135, algorithm 4). The tensors that other kernels save are unknown.
    """
    b, h, n, _ = query.shape
    shape = b, h, n, value.shape[-1]
    made = tape.tensor(shape, None if tape.heads_apart else elementwise_strides(shape, [(shape, query.strides)]))
    sums = tape.tensor((b, h, n), itemsize=max(tape.itemsize, FLOAT32_BYTES)) if keeps else None
    tape.holds_more = True
    tape.keeps_unknown |= not keeps
    tape.ran("scaled_dot_product_attention", [query, key, value, bias], made)
    tape.fused_macs += tape.runs[-1].macs
    taken = [query, key, value] if bias is None else [query, key, value, bias]
    saved = [] if sums is None else [query, key, value, made, sums]
    tape.remember(
        _attention_back, taken, [made], saved, meta=([each.shape for each in taken], tape.heads_apart or not keeps)
    )
    return made


def _attention_back(back: Back) -> Gradients:
    back.tape.holds_more = True
    shapes, heads_apart = back.meta
    return [
        back.tape.tensor(shape, None if heads_apart else side_by_side(shape)) if needed else None
        for shape, needed in zip(shapes, back.needs, strict=True)
    ]


def side_by_side(shape: Shape) -> Shape:
    """Return the strides of (b, h, n, d) that is contiguous as (b, n, h, d)."""
    _, h, n, d = shape
    return n * h * d, d, h * d, 1
