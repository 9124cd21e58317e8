"""Reductions, pooling and interpolation: their costs, and the mean with its backward."""

from math import prod
from typing import Any

from attnscope.ops.formats import format_strides, in_format, is_channels_last
from attnscope.ops.movement import expand
from attnscope.ops.operation import Arguments, Formula, each_in, each_out, register, tensors_in
from attnscope.ops.tape import Back, Gradients, Tape
from attnscope.ops.tensor import FLOAT32_BYTES, Shape, Tensor

INT64_BYTES = 8
LINEAR_INTERPOLATION, CUBIC_INTERPOLATION = 7, 31  # products with 4 or 16 neighbours, and their sum


def _pool(axes: int) -> Formula:
    """Return a formula that counts one FLOP for each element of the kernel, whose size may be a single number."""

    def flops(arguments: Arguments, out: Any) -> int:
        pooled, sides = next(tensors_in(out)), arguments[1]
        return pooled.numel() * (sides[0] ** axes if len(sides) == 1 else prod(sides))

    return flops


register(
    "sum mean amax amin aminmax max min argmax argmin prod cumsum any all _is_all_true _is_any_true nansum",
    flops=each_in(),
)
register("var std var_mean std_mean", flops=each_in(4))  # add to the mean, subtract it, square, add to the variance
register("logsumexp", flops=each_in(2))  # exponentiate, add to the sum
register("_adaptive_avg_pool2d adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool2d", flops=each_in())
register("avg_pool2d max_pool2d_with_indices max_pool2d", flops=_pool(2))
register("avg_pool3d max_pool3d_with_indices", flops=_pool(3))
register(
    "upsample_bilinear2d _upsample_bilinear2d_aa upsample_linear1d grid_sampler_2d",
    flops=each_out(LINEAR_INTERPOLATION),
)
register("upsample_bicubic2d _upsample_bicubic2d_aa", flops=each_out(CUBIC_INTERPOLATION))


def mean(tape: Tape, x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Average over some axes; dtypes narrower than float32 are summed in a float32 copy.

    torch 2.14 allocates a narrow result before that copy, and torch 2.5 allocates it after the copy. The tape records
    the order of 2.5, a lower bound of the peak memory in 2.14.
    """
    shape = tuple([size for axis, size in enumerate(x.shape) if axis not in axes])
    total = None
    if tape.itemsize < FLOAT32_BYTES:
        tape.holds_more = True
        wide = tape.tensor(x.shape, itemsize=FLOAT32_BYTES)
        total = tape.tensor(shape, itemsize=FLOAT32_BYTES)
        del wide
    made = tape.tensor(shape)
    divisor = tape.number(), tape.tensor((), itemsize=max(tape.itemsize, FLOAT32_BYTES))
    tape.ran("mean", [x], made)
    tape.remember(_mean_back, [x], [made], meta=x.shape)
    del total, divisor
    return made


def adaptive_pool(tape: Tape, x: Tensor, shape: Shape) -> Tensor:
    """Average over patches of (b, c, height, width), to a grid of the given shape, like torch's `adaptive_avg_pool2d`.

    A channels-last input gives a channels-last result.
    """
    channels_last = is_channels_last(x.shape, x.strides)
    laid = in_format(tape, x, channels_last)
    made = tape.tensor(shape, format_strides(shape, channels_last))
    tape.ran("_adaptive_avg_pool2d", [x], made)
    tape.remember(_adaptive_pool_back, [x], [made], saved=[x])
    del laid
    return made


def _adaptive_pool_back(back: Back) -> Gradients:
    (x,), grad = back.saved, back.grad
    channels_last = is_channels_last(x.shape, x.strides)
    laid = in_format(back.tape, grad, channels_last)
    made = back.tape.tensor(x.shape, format_strides(x.shape, channels_last))
    del laid
    return [made]


def total(tape: Tape, x: Tensor, axis: int) -> Tensor:
    """Sum over an axis, which stays with size 1."""
    made = tape.tensor((*x.shape[:axis], 1, *x.shape[axis + 1 :]))
    tape.ran("sum", [x], made)
    tape.remember(_total_back, [x], [made], meta=x.shape)
    return made


def _total_back(back: Back) -> Gradients:
    return [expand(back.tape, back.grad, back.meta)]


def maximum(tape: Tape, x: Tensor, *axes: int) -> Tensor:
    """Return the maximum along axes, like torch's `amax`."""
    made = tape.tensor(tuple([size for axis, size in enumerate(x.shape) if axis not in axes]))
    tape.ran("amax", [x], made)
    tape.remember(_maximum_back, [x], [made], saved=[x, made])
    return made


def _maximum_back(back: Back) -> Gradients:
    """Divide the gradient among the elements that equal the maximum: gradient · mask / (number of them).

    Operators of two dtypes cast one operand to the other dtype first.
    """
    tape, (x, made) = back.tape, back.saved
    mask = tape.tensor(x.shape, itemsize=1)
    cast = tape.tensor(x.shape, itemsize=INT64_BYTES)
    count = tape.tensor(made.shape, itemsize=INT64_BYTES)
    del cast
    cast = tape.tensor(x.shape)
    product = tape.tensor(x.shape)
    del cast
    cast = tape.tensor(made.shape)
    shared = tape.tensor(x.shape)
    del cast, mask, product, count
    return [shared]


def _mean_back(back: Back) -> Gradients:
    divisor = back.tape.number(), back.tape.cast(is_double=False)
    made = back.tape.tensor(back.meta)
    del divisor
    return [made]
