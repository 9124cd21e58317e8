"""Softmax, normalization over channels, and lengths: operations that reduce over a row and give it back."""

from math import prod
from typing import Any

from attnscope.ops.elementwise import clamp, divide
from attnscope.ops.movement import contiguous, expand
from attnscope.ops.operation import Arguments, argument, each_in, each_out, register
from attnscope.ops.tape import Back, Gradients, Tape
from attnscope.ops.tensor import Tensor, elementwise_strides

SOFTMAX = 5  # compare for the maximum, subtract it, exponentiate, add to the sum, divide by the sum
NORM = 4  # add to the mean, add to the variance, subtract, divide
AFFINE = 1  # scale and shift at once: fvcore's convention for a LayerNorm is 5 in all


def _norm(weight_at: int) -> Any:
    def flops(arguments: Arguments, out: Any) -> int:
        return (NORM + AFFINE * (argument(arguments, weight_at) is not None)) * arguments[0].numel()

    return flops


def _rms_norm(arguments: Arguments, out: Any) -> int:
    """Square, add to the sum, divide; multiply by the weight where there is one."""
    return (3 + (argument(arguments, 2) is not None)) * arguments[0].numel()


register("_softmax softmax _safe_softmax _log_softmax log_softmax", flops=each_out(SOFTMAX))
register("native_layer_norm layer_norm", flops=_norm(2), by_products=True)
register("native_group_norm group_norm", flops=_norm(1), by_products=True)
register("_fused_rms_norm rms_norm", flops=_rms_norm, by_products=True)
# in evaluation mean and variance are known in advance: a product and a sum
register(
    """native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training cudnn_batch_norm
    _batch_norm_no_update batch_norm""",
    flops=each_in(2),
    by_products=True,
)
register("linalg_vector_norm norm", flops=each_in(2))  # square, add to the sum


def softmax(tape: Tape, x: Tensor) -> Tensor:
    """Turn each row into weights that sum to 1."""
    laid = x if x.is_contiguous() else tape.tensor(x.shape)  # torch copies it inside the operator
    made = tape.tensor(x.shape)
    tape.ran("_softmax", [x], made)
    tape.remember(_softmax_back, [x], [made], saved=[made])
    del laid
    return made


def layer_norm(tape: Tape, x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """Bring each row of channels to mean 0 and variance 1, then scale and shift."""
    laid = x if x.is_contiguous() else tape.tensor(x.shape)  # torch copies it inside the operator
    made = tape.tensor(x.shape)
    mean, deviation = (tape.tensor((*x.shape[:-1], 1)) for _ in range(2))
    tape.ran("native_layer_norm", [x, x.shape[-1:], weight, bias], (made, mean, deviation))
    taken = [each for each in (weight, bias) if each is not None]
    tape.remember(_layer_norm_back, [x, *taken], [made], saved=[x, mean, deviation])
    del laid
    return made


def normalize(tape: Tape, x: Tensor) -> Tensor:
    """Bring each row to length 1 (torch's `F.normalize`)."""
    return divide(tape, x, expand(tape, clamp(tape, length(tape, x), "clamp_min"), x.shape))


def length(tape: Tape, x: Tensor) -> Tensor:
    """Take the length of each row (torch's `linalg.vector_norm`), which stays an axis of one element."""
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
    workspace = tape.tensor((2 * prod(channels),)) if back.needs[1:] else None  # sums for the gradients of the weights
    of_weights = [tape.tensor(channels) for _ in back.needs[1:]]
    del workspace, laid
    return [of_x, *of_weights]


def _length_back(back: Back) -> Gradients:
    """Return gradient · (x / length), 0 where the length is 0."""
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
