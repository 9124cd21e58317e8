"""What one aten operator costs, by a formula of our own for each: MACs, elementwise FLOPs, bytes.

MACs are matmul-class work. Elementwise FLOPs are counted apart, by these conventions: an operator that makes each element
by itself is 1 FLOP an element (an activation too), softmax 5, a normalisation 5 and its affine part 2, a reduction 1 for
each element that goes in. A view costs nothing. An operator without a formula has no cost here: it is unknown, not free.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any

import torch
from torch import Tensor

from attnscope.core.axes import Shape
from attnscope.plan.step import ELEMENTWISE_FLOPS

aten = torch.ops.aten
Arguments = tuple[Any, ...]
Formula = Callable[[Arguments, Any], int]

SOFTMAX = ELEMENTWISE_FLOPS["softmax"]
NORM, AFFINE = 5, 2  # add to the mean, subtract it, square, add to the variance, scale; then weight and bias
LINEAR_INTERPOLATION, CUBIC_INTERPOLATION = 7, 31  # of 4 and of 16 neighbours: a product for each, and their sum


@dataclass(frozen=True, slots=True)
class Attend:
    """One fused attention: `rows` are images times windows. `macs` is q·kᵀ and the weighted sum."""

    rows: int
    heads: int
    queries: int
    keys: int
    head_dim: int
    macs: int


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of one operator. MACs and FLOPs are None where there is no formula for it."""

    macs: int | None
    other_flops: int | None
    bytes_read: int
    bytes_written: int
    is_view: bool = False


FREE = Cost(0, 0, 0, 0, is_view=True)


def cost_of(operator: Any, args: Arguments, kwargs: Mapping[str, Any], out: Any) -> Cost:
    """The cost of one call of an aten operator (an OpOverload) with these arguments and this result."""
    is_view, macs, flops, reads_all = _formulas(operator)
    if is_view:
        return FREE
    written = sum([bytes_of(tensor) for tensor in tensors_in(out)])
    read = sum([bytes_of(tensor) for tensor in tensors_in((args, kwargs))]) if reads_all else written
    if macs is None and flops is None:
        return Cost(None, None, read, written)
    return Cost(macs(args, out) if macs else 0, flops(args, out) if flops else 0, read, written)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in nested tuples, lists and dictionaries."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)


def bytes_of(tensor: Tensor) -> int:
    """The size of its elements."""
    return tensor.numel() * tensor.element_size()


@cache
def _formulas(operator: Any) -> tuple[bool, Formula | None, Formula | None, bool]:
    """Whether it is a view, its MACs, its elementwise FLOPs, and whether it reads all of its inputs."""
    packet = operator.overloadpacket
    name = str(packet).removeprefix("aten.")
    if operator.is_view or name.removesuffix("_") in VIEWS:
        return True, None, None, False
    macs, flops = MACS.get(name), FLOPS.get(name)
    if macs is None and flops is None:
        base = name.removesuffix("_")  # relu_ is relu
        if base in FLOPS:
            flops = FLOPS[base]
        elif base in MOVES:
            flops = _nothing
        elif torch.Tag.pointwise in operator.tags:
            flops = _each_out
    return False, macs, flops, name not in GATHERS


# MACs


def _mm(args: Arguments, out: Any) -> int:
    return args[0].numel() * args[1].shape[-1]


def _added_mm(args: Arguments, out: Any) -> int:
    return args[1].numel() * args[2].shape[-1]


def _vector(args: Arguments, out: Any) -> int:
    return args[0].numel()


def _added_vector(args: Arguments, out: Any) -> int:
    return args[1].numel()


def _linear_macs(args: Arguments, out: Any) -> int:
    return out.numel() * args[1].shape[-1]


def _matmul_macs(args: Arguments, out: Any) -> int:
    return out.numel() * args[0].shape[-1]


def _convolution(args: Arguments, out: Any) -> int:
    """Each output takes the kernel's window of the channels of its group; transposed, each input gives it."""
    weight, transposed = args[1], bool(args[6])
    return (args[0] if transposed else out).numel() * prod(weight.shape[1:])


def _plain_convolution(args: Arguments, out: Any) -> int:
    return out.numel() * prod(args[1].shape[1:])


def _deformable_convolution(args: Arguments, out: Any) -> int:
    return out.numel() * prod(args[1].shape[1:])


def _attention_macs(args: Arguments, out: Any) -> int:
    return attend(*args[:3]).macs


def _native_multi_head_attention(args: Arguments, out: Any) -> int:
    query, key, value, dim = args[:4]
    projections = query.numel() * dim + key.numel() * dim + value.numel() * dim + query.numel() * dim
    return projections + _native_attend(query, key, args[4]).macs


def _transformer_encoder_layer(args: Arguments, out: Any) -> int:
    x, dim, heads, linear_1, linear_2 = args[0], args[1], args[2], args[14], args[16]
    return (
        4 * x.numel() * dim
        + _native_attend(x, x, heads).macs
        + x.numel() // dim * (linear_1.numel() + linear_2.numel())
    )


def _lstm_layer(args: Arguments, out: Any) -> int:
    steps_and_batch = out[0].numel() // out[0].shape[-1]
    return steps_and_batch * (args[1].numel() + args[2].numel())


def attend(query: Tensor, key: Tensor, value: Tensor) -> Attend:
    """What scaled_dot_product_attention computes: (…, heads, queries, width) against (…, heads, keys, width).

    Tensors without an axis for the heads are one head. Fewer heads of keys than of queries are shared among these.
    """
    *rows, queries, width = query.shape
    heads = rows.pop() if len(query.shape) > 3 else 1
    pairs = prod(rows) * heads * queries * key.shape[-2]
    return Attend(prod(rows), heads, queries, key.shape[-2], width, pairs * (width + value.shape[-1]))


def _native_attend(query: Tensor, key: Tensor, heads: int) -> Attend:
    rows, queries, dim = query.shape
    return Attend(rows, heads, queries, key.shape[1], dim // heads, 2 * rows * queries * key.shape[1] * dim)


def fused_attention(operator: Any, args: Arguments) -> Attend | None:
    """The attention that one fused operator computes, or None where it computes none."""
    name = str(operator.overloadpacket).removeprefix("aten.")
    if name in FUSED:
        return attend(*args[:3])
    if name == "_native_multi_head_attention":
        return _native_attend(args[0], args[1], args[4])
    if name == "_transformer_encoder_layer_fwd":
        return _native_attend(args[0], args[0], args[2])
    return None


# Elementwise FLOPs


def _nothing(args: Arguments, out: Any) -> int:
    return 0


def _each_out(args: Arguments, out: Any) -> int:
    return sum([tensor.numel() for tensor in tensors_in(out)])


def _each_in(args: Arguments, out: Any) -> int:
    return sum([tensor.numel() for tensor in tensors_in(args[0])])


def _times(flops: int, of: Formula = _each_out) -> Formula:
    return lambda args, out: flops * of(args, out)


def _normalisation(weight_at: int) -> Formula:
    def flops(args: Arguments, out: Any) -> int:
        affine = len(args) > weight_at and args[weight_at] is not None
        return (NORM + AFFINE * affine) * args[0].numel()

    return flops


def _batch_norm(args: Arguments, out: Any) -> int:
    return args[0].numel() * AFFINE  # what is known in advance is folded: a product and a sum


def _bias(args: Arguments, out: Any) -> int:
    return _each_out(args, out)


def _convolution_bias(args: Arguments, out: Any) -> int:
    return out.numel() if args[2] is not None else 0


def _linear_bias(args: Arguments, out: Any) -> int:
    return out.numel() if len(args) > 2 and args[2] is not None else 0


def _pool(args: Arguments, out: Any) -> int:
    pooled = next(tensors_in(out))
    kernel = args[1] if isinstance(args[1], list | tuple) else [args[1]]
    sides = pooled.dim() if len(kernel) == 1 else len(kernel)
    return pooled.numel() * (prod(kernel) if len(kernel) > 1 else kernel[0] ** min(sides - 2, 2))


def _attention_flops(args: Arguments, out: Any) -> int:
    found = attend(*args[:3])
    return found.rows * found.heads * found.queries * found.keys * (SOFTMAX + ELEMENTWISE_FLOPS["scale"])


def _native_attention_flops(args: Arguments, out: Any) -> int:
    found = _native_attend(args[0], args[1], args[4])
    pairs = found.rows * found.heads * found.queries * found.keys
    return pairs * (SOFTMAX + ELEMENTWISE_FLOPS["scale"]) + 4 * args[0].numel()


def _transformer_encoder_layer_flops(args: Arguments, out: Any) -> int:
    x, hidden = args[0], args[14].shape[0]
    found = _native_attend(x, x, args[2])
    pairs = found.rows * found.heads * found.queries * found.keys
    tokens = x.numel() // args[1]
    norms, biases, residuals = 2 * (NORM + AFFINE) * x.numel(), 5 * x.numel() + tokens * hidden, 2 * x.numel()
    return pairs * (SOFTMAX + ELEMENTWISE_FLOPS["scale"]) + norms + biases + residuals + tokens * hidden


FUSED = (
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_attention_math_for_mps",
    "_scaled_dot_product_fused_attention_overrideable",
    "scaled_dot_product_attention",
)

MACS: dict[str, Formula] = {
    "mm": _mm,
    "bmm": _mm,
    "addmm": _added_mm,
    "_addmm_activation": _added_mm,
    "baddbmm": _added_mm,
    "addbmm": _added_mm,
    "mv": _vector,
    "dot": _vector,
    "vdot": _vector,
    "addmv": _added_vector,
    "linear": _linear_macs,
    "mkldnn_linear": _linear_macs,
    "matmul": _matmul_macs,
    "convolution": _convolution,
    "_convolution": _convolution,
    "convolution_overrideable": _convolution,
    "mkldnn_convolution": _plain_convolution,
    "cudnn_convolution": _plain_convolution,
    "_conv_depthwise2d": _plain_convolution,
    "torchvision.deform_conv2d": _deformable_convolution,
    "mkldnn_rnn_layer": _lstm_layer,
    "_native_multi_head_attention": _native_multi_head_attention,
    "_transformer_encoder_layer_fwd": _transformer_encoder_layer,
    **dict.fromkeys(FUSED, _attention_macs),
}

FLOPS: dict[str, Formula] = {
    **dict.fromkeys(["_softmax", "softmax", "_safe_softmax", "_log_softmax"], _times(SOFTMAX)),
    **dict.fromkeys(["addmm", "baddbmm", "addbmm", "addmv", "_addmm_activation"], _bias),
    **dict.fromkeys(["hardswish", "hardsigmoid", "hardtanh", "prelu", "softplus", "mish", "erfinv"], _each_out),
    **dict.fromkeys(["convolution", "_convolution", "mkldnn_convolution"], _convolution_bias),
    **dict.fromkeys(["linear", "mkldnn_linear"], _linear_bias),
    **dict.fromkeys(FUSED, _attention_flops),
    "_native_multi_head_attention": _native_attention_flops,
    "_transformer_encoder_layer_fwd": _transformer_encoder_layer_flops,
    "native_layer_norm": _normalisation(2),
    "native_group_norm": _normalisation(1),
    "_fused_rms_norm": _times(4, _each_in),
    **dict.fromkeys(
        [
            "native_batch_norm",
            "_native_batch_norm_legit",
            "_native_batch_norm_legit_no_training",
            "cudnn_batch_norm",
            "_batch_norm_no_update",
        ],
        _batch_norm,
    ),
    **dict.fromkeys(
        [
            "sum",
            "mean",
            "amax",
            "amin",
            "aminmax",
            "max",
            "min",
            "argmax",
            "argmin",
            "prod",
            "cumsum",
            "any",
            "all",
            "nansum",
        ],
        _each_in,
    ),
    **dict.fromkeys(["var", "std", "var_mean", "std_mean"], _times(4, _each_in)),
    **dict.fromkeys(["linalg_vector_norm", "norm", "logsumexp"], _times(2, _each_in)),
    **dict.fromkeys(["_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_max_pool2d"], _each_in),
    **dict.fromkeys(
        ["avg_pool2d", "max_pool2d_with_indices", "max_pool2d", "avg_pool3d", "max_pool3d_with_indices"], _pool
    ),
    **dict.fromkeys(
        ["upsample_bilinear2d", "_upsample_bilinear2d_aa", "upsample_linear1d", "grid_sampler_2d"],
        _times(LINEAR_INTERPOLATION),
    ),
    **dict.fromkeys(["upsample_bicubic2d", "_upsample_bicubic2d_aa"], _times(CUBIC_INTERPOLATION)),
}

VIEWS = frozenset(
    {
        *("_unsafe_view", "_reshape_alias", "detach", "alias", "lift_fresh", "lift", "_conj"),
        *("as_strided", "squeeze", "unsqueeze", "t", "transpose", "swapaxes", "view_as_real"),
    }
)
"""Views whose schema does not say that they are, and those that change a tensor's own sizes in place."""

GATHERS = frozenset({"embedding", "index", "index_select", "gather", "take", "slice_scatter"})
"""They read the elements that they give, not all there are."""

MOVES = GATHERS | frozenset(
    """
    clone copy _to_copy contiguous cat stack roll repeat repeat_interleave tile flip rot90
    constant_pad_nd reflection_pad1d reflection_pad2d replication_pad2d pixel_shuffle pixel_unshuffle channel_shuffle
    im2col col2im masked_fill where tril triu one_hot meshgrid index_put _index_put_impl scatter slice_scatter
    select_scatter upsample_nearest2d _upsample_nearest_exact2d resize set unfold_copy as_strided_copy
    empty empty_like empty_strided empty_permuted new_empty new_empty_strided new_zeros new_ones new_full scalar_tensor
    zeros zeros_like ones ones_like full full_like fill zero arange linspace eye
    rand randn rand_like randn_like randint randperm bernoulli normal uniform native_dropout
    sort topk argsort nonzero _unique2 unique_dim bucketize _local_scalar_dense _assert_async
    """.split()  # noqa: SIM905 # so many words are read better so
)
"""They move, make or choose numbers and do no arithmetic on them."""


def shapes_in(values: Iterable[Any] | Any) -> list[Shape]:
    """The shapes of the tensors in nested arguments."""
    return [tuple(tensor.shape) for tensor in tensors_in(values)]
