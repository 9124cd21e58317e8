"""Attention in one kernel: its counts are those of the steps that it replaces; what it holds is its own."""

from math import prod
from typing import Any, NamedTuple

from attnscope.ops.normalization import SOFTMAX
from attnscope.ops.operation import Arguments, argument, register
from attnscope.ops.tape import Back, Gradients, Tape
from attnscope.ops.tensor import FLOAT32_BYTES, Shape, Tensor, elementwise_strides

SCALE = MASK = 1
"""FLOPs of one pair of tokens: a product with a number, and the sum with a mask or a bias."""


class Attend(NamedTuple):
    """One fused attention: `rows` are images times windows; `macs` are those of q·kᵀ and of the weighted sum."""

    rows: int
    heads: int
    queries: int
    keys: int
    head_dim: int
    macs: int

    @property
    def pairs(self) -> int:
        """Pairs of a query and a key, in all heads."""
        return self.rows * self.heads * self.queries * self.keys


def attend(query: Any, key: Any, value: Any) -> Attend:
    """Describe scaled_dot_product_attention of (…, heads, queries, width) against (…, heads, keys, width).

    Tensors without an axis for the heads are one head. Fewer heads of keys than of queries are shared among these.
    """
    *rows, queries, width = query.shape
    heads = rows.pop() if len(query.shape) > 3 else 1
    pairs = prod(rows) * heads * queries * key.shape[-2]
    return Attend(prod(rows), heads, queries, key.shape[-2], width, pairs * (width + value.shape[-1]))


def attend_natively(query: Any, key: Any, heads: int) -> Attend:
    """Describe the attention inside torch's own layers, (b, n, c)."""
    rows, queries, dim = query.shape
    return Attend(rows, heads, queries, key.shape[1], dim // heads, 2 * rows * queries * key.shape[1] * dim)


def fused_attention(name: str, arguments: Arguments) -> Attend | None:
    """Describe the attention that an operator of this aten name computes, None if it computes none."""
    if name in FUSED:
        return attend(*arguments[:3])
    if name == "_native_multi_head_attention":
        return attend_natively(arguments[0], arguments[1], arguments[4])
    if name == "_transformer_encoder_layer_fwd":
        return attend_natively(arguments[0], arguments[0], arguments[2])
    return None


MASK_AT = {
    "_scaled_dot_product_flash_attention": None,
    "_scaled_dot_product_flash_attention_for_cpu": 5,
    "_scaled_dot_product_efficient_attention": 3,
    "_scaled_dot_product_cudnn_attention": 3,
    "_scaled_dot_product_attention_math_for_mps": 3,
    "_scaled_dot_product_fused_attention_overrideable": 3,
    "scaled_dot_product_attention": 3,
}
"""Where each fused operator has its mask or bias among its arguments."""
FUSED = tuple(MASK_AT)


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
    """Scale and softmax of each pair, and the biases of q, k, v and the output."""
    return (
        attend_natively(arguments[0], arguments[1], arguments[4]).pairs * (SCALE + SOFTMAX) + 4 * arguments[0].numel()
    )


def _encoder_layer_macs(arguments: Arguments, out: Any) -> int:
    x, dim, heads, linear_1, linear_2 = arguments[0], arguments[1], arguments[2], arguments[14], arguments[16]
    projections, tokens = 4 * x.numel() * dim, x.numel() // dim
    return projections + attend_natively(x, x, heads).macs + tokens * (linear_1.numel() + linear_2.numel())


def _encoder_layer_flops(arguments: Arguments, out: Any) -> int:
    """Count scale and softmax, two LayerNorms of 5, five biases, two residuals; bias and activation of the hidden layer."""
    x, hidden = arguments[0], arguments[14].shape[0]
    activation = 5 if arguments[7] else 1  # a GELU or a ReLU
    tokens = x.numel() // arguments[1]
    pairs = attend_natively(x, x, arguments[2]).pairs * (SCALE + SOFTMAX)
    return pairs + (2 * 5 + 5 + 2) * x.numel() + (1 + activation) * tokens * hidden


for _name, _at in MASK_AT.items():
    register(_name, macs=_macs, flops=_flops(_at), by_products=True)
register("_native_multi_head_attention", macs=_native_macs, flops=_native_flops)
register("_transformer_encoder_layer_fwd", macs=_encoder_layer_macs, flops=_encoder_layer_flops)


def attention(
    tape: Tape, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None, keeps: bool = False
) -> Tensor:
    """Attend in one kernel: (b, h, n, d), (b, h, m, d), (b, h, m, d) -> (b, h, n, d).

    The result lies in memory as the query does, and gradients lie token by token, the heads side by side, as torch's kernel
    for the CPU has it. Where the tape says that heads lie apart, both lie head by head, and so do the gradients if what is
    kept is not known: then torch takes its math kernel.

    Args:
        tape: the tape.
        query, key, value: the operands.
        bias: added to the scores.
        keeps: it keeps its operands, its result and a float32 sum for each query, and computes the scores again in the
            backward (Dao et al., arXiv 2205.14135, algorithm 4). What other kernels keep is not known.
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
    """Return the strides of (b, h, n, d) whose heads lie side by side in memory, token by token."""
    _, h, n, d = shape
    return n * h * d, d, h * d, 1
