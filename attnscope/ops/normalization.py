"""Softmax, normalization layers and vector norms: operations that reduce over a row."""

from math import prod
from typing import Any

from attnscope.ops.elementwise import clamp, divide
from attnscope.ops.formats import format_strides, has_format, in_format, is_channels_last
from attnscope.ops.movement import contiguous, expand
from attnscope.ops.operation import Arguments, argument, each_in, each_out, register, without_statistics
from attnscope.ops.tape import Back, Gradients, Tape
from attnscope.ops.tensor import FLOAT32_BYTES, Tensor, elementwise_strides

SOFTMAX = 5
"""FLOPs of one element of a softmax: compare for the maximum, subtract it, exponentiate, add to the sum, divide."""
NORM = 4
"""FLOPs of one element of a normalization: add to the mean, add to the variance, subtract, divide."""
AFFINE = 1
"""FLOPs of scale and shift together, so that an element of a LayerNorm counts 5, as in fvcore."""


def _norm(weight_at: int) -> Any:
    def flops(arguments: Arguments, out: Any) -> int:
        return (NORM + AFFINE * (argument(arguments, weight_at) is not None)) * arguments[0].numel()

    return flops


def _rms_norm(arguments: Arguments, out: Any) -> int:
    """Count the FLOPs of each element: square, add to the sum, divide, and multiply by the weight if there is one."""
    return (3 + (argument(arguments, 2) is not None)) * arguments[0].numel()


register(
    "_softmax softmax _safe_softmax _log_softmax log_softmax _sparse_softmax _sparse_log_softmax",
    flops=each_out(SOFTMAX),
)
register("native_layer_norm layer_norm", flops=_norm(2), moves=without_statistics)
register("native_group_norm", flops=_norm(1), moves=without_statistics)
register("group_norm", flops=_norm(2), moves=without_statistics)
register("_fused_rms_norm rms_norm", flops=_rms_norm, moves=without_statistics)
# in evaluation mode, mean and variance are constants, so that a product and a sum remain
register(
    """native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training cudnn_batch_norm
    _batch_norm_no_update batch_norm""",
    flops=each_in(2),
    moves=without_statistics,
)
register("linalg_vector_norm norm", flops=each_in(2))  # square, add to the sum
register("_weight_norm_interface", flops=each_in(3))  # the norm of a row, and a product with its scale


def softmax(tape: Tape, x: Tensor) -> Tensor:
    """Compute the softmax of each row."""
    laid = x if x.is_contiguous() else tape.tensor(x.shape)  # torch makes this copy inside the operator
    made = tape.tensor(x.shape)
    tape.ran("_softmax", [x], made)
    tape.remember(_softmax_back, [x], [made], saved=[made])
    del laid
    return made


def layer_norm(tape: Tape, x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """Normalize each row of channels to mean 0 and variance 1, then scale and shift it."""
    laid = x if x.is_contiguous() else tape.tensor(x.shape)  # torch makes this copy inside the operator
    made = tape.tensor(x.shape)
    mean, deviation = (tape.tensor((*x.shape[:-1], 1)) for _ in range(2))
    tape.ran("native_layer_norm", [x, x.shape[-1:], weight, bias], (made, mean, deviation))
    taken = [each for each in (weight, bias) if each is not None]
    tape.remember(_layer_norm_back, [x, *taken], [made], saved=[x, mean, deviation])
    del laid
    return made


def batch_norm(tape: Tape, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Normalize each channel of (b, c, height, width), then scale and shift it.

    In training the statistics are those of the batch, which are saved for the backward; else they are running ones.
    """
    running = [tape.external(weight.shape) for _ in range(2)]
    made = tape.tensor(x.shape, elementwise_strides(x.shape, [(x.shape, x.strides)]))
    statistics = [tape.tensor(weight.shape if tape.records else (0,)) for _ in range(2)]
    tape.holds_more = True  # in training, means and partial sums of each thread; else as much as the statistics
    tape.ran("native_batch_norm", [x, weight, bias, *running], (made, *statistics))
    tape.remember(_batch_norm_back, [x, weight, bias], [made], saved=[x, *statistics])
    return made


def group_norm(tape: Tape, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Normalize all numbers of an image, (b, c, height, width), in one group, then scale and shift each channel."""
    channels_last = is_channels_last(x.shape, x.strides)
    laid = in_format(tape, x, channels_last)
    made = tape.tensor(x.shape, format_strides(x.shape, channels_last))
    mean, deviation = (tape.tensor(x.shape[:1]) for _ in range(2))
    if channels_last:
        tape.hold(2 * prod(x.shape[:2]) * summed_bytes(tape))
    tape.ran("native_group_norm", [x, weight, bias], (made, mean, deviation))
    tape.remember(_group_norm_back, [x, weight, bias], [made], saved=[laid, mean, deviation])
    return made


def summed_bytes(tape: Tape) -> int:
    """Return the bytes of an element in sums over the dtype of the tape: float32 for narrower dtypes."""
    return max(tape.itemsize, FLOAT32_BYTES)


def normalize(tape: Tape, x: Tensor) -> Tensor:
    """Normalize each row to length 1, like torch's `F.normalize`."""
    return divide(tape, x, expand(tape, clamp(tape, length(tape, x), "clamp_min"), x.shape))


def length(tape: Tape, x: Tensor) -> Tensor:
    """Compute the length of each row, (…, c) -> (…, 1), like torch's `linalg.vector_norm`."""
    made = tape.tensor((*x.shape[:-1], 1))
    tape.ran("linalg_vector_norm", [x], made)
    tape.remember(_length_back, [x], [made], saved=[x, made])
    return made


def _softmax_back(back: Back) -> Gradients:
    laid = contiguous(back.tape, back.grad)
    made = back.tape.tensor(laid.shape)
    return [made]


def _layer_norm_back(back: Back) -> Gradients:
    tape, (x, *_) = back.tape, back.saved
    laid = contiguous(tape, back.grad), contiguous(tape, x)
    of_x = tape.tensor(x.shape) if back.needs[0] else None
    channels = x.shape[-1:]
    workspace = tape.tensor((2 * prod(channels),)) if back.needs[1:] else None  # partial sums of the weight gradients
    of_weights = [tape.tensor(channels) for _ in back.needs[1:]]
    del workspace, laid
    return [of_x, *of_weights]


def _batch_norm_back(back: Back) -> Gradients:
    tape, (x, *_) = back.tape, back.saved
    channels = x.shape[1:2]
    channels_last = is_channels_last(x.shape, x.strides)
    of_x = tape.tensor(x.shape, format_strides(x.shape, channels_last)) if back.needs[0] else None
    of_weights = [tape.tensor(channels) for _ in back.needs[1:]]
    grad = back.grad
    has_no_gaps = has_format(grad, channels_last=False) or has_format(grad, channels_last=True)
    if not has_no_gaps or is_channels_last(grad.shape, grad.strides) != channels_last:
        tape.hold(channels[0] * tape.itemsize)  # torch then sums over each channel by itself
    elif of_x is not None:
        tape.hold(of_x.nbytes)  # torch allocates the gradient of the input twice
    tape.holds_more |= channels_last  # partial sums of each thread
    return [of_x, *of_weights]


def _group_norm_back(back: Back) -> Gradients:
    tape, (x, *_) = back.tape, back.saved
    channels_last = is_channels_last(x.shape, x.strides)
    laid = in_format(tape, back.grad, channels_last)
    of_x = tape.tensor(x.shape, format_strides(x.shape, channels_last)) if back.needs[0] else None
    of_weights = [tape.tensor(x.shape[1:2]) for _ in back.needs[1:]]
    tape.hold(2 * prod(x.shape[:2]) * summed_bytes(tape))  # two sums over each channel of each image
    del laid
    return [of_x, *of_weights]


def _length_back(back: Back) -> Gradients:
    """Return gradient · (x / length), or 0 for a row of length 0."""
    tape, (x, lengths) = back.tape, back.saved
    strides = elementwise_strides(x.shape, [(x.shape, x.strides), (lengths.shape, lengths.strides)])
    quotient = tape.tensor(x.shape, strides)
    zero = tape.number(), tape.cast(is_double=False)
    mask = tape.tensor(lengths.shape, itemsize=1)
    del zero
    grad = back.grad
    made = tape.tensor(x.shape, elementwise_strides(x.shape, [(grad.shape, grad.strides), (x.shape, strides)]))
    del quotient, mask
    return [made]
