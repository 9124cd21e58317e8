"""Elementwise operations and activations: the convention for their FLOPs, and their gradients."""

from typing import Any

from attnscope.ops.movement import pass_back, reduce_to, sum_to
from attnscope.ops.operation import Arguments, argument, each_in, each_out, register, without_statistics
from attnscope.ops.tape import Back, Gradients, Tape
from attnscope.ops.tensor import Tensor, broadcast, elementwise_strides

ACTIVATIONS = {
    "gelu": 5,  # Divide by √2, error function, add 1, multiply by x, halve.
    "relu": 1,  # Compare.
    "sigmoid": 4,  # Negate, exponentiate, add 1, divide.
    "silu": 5,  # A sigmoid, multiply by x.
    "tanh": 1,  # An elementary function, like exp and erf.
    "leaky_relu": 2,  # Compare, multiply.
    "prelu": 2,
    "_prelu_kernel": 2,
    "elu": 3,  # Compare, exponentiate, subtract 1.
    "selu": 4,  # An elu, scale.
    "celu": 4,  # Divide, an elu.
    "hardtanh": 2,  # Compare with both bounds.
    "relu6": 2,
    "hardsigmoid": 4,  # Add, compare twice, divide.
    "hardswish": 5,  # A hardsigmoid, multiply by x.
    "softplus": 3,  # Exponentiate, add 1, logarithm.
    "log_sigmoid": 4,  # Negate, a softplus.
    "mish": 5,  # A softplus, tanh, multiply by x.
    "glu": 5,  # A sigmoid, multiply.
}
"""FLOPs of one element of an activation. An elementary function counts 1, like an addition."""


def _elu(arguments: Arguments, out: Any) -> int:
    """Count the FLOPs of an elu, or of a selu, which torch runs as an elu with a scale."""
    is_scaled = argument(arguments, 2) not in (None, 1)
    return ACTIVATIONS["selu" if is_scaled else "elu"] * out.numel()


for _name in ACTIVATIONS.keys() - {"elu"}:
    register(_name, flops=each_out(ACTIVATIONS[_name]))
register("elu", flops=_elu)
register("log_sigmoid_forward", flops=each_in(ACTIVATIONS["log_sigmoid"]), moves=without_statistics)
register("add sub rsub mul div floor_divide exp sin cos clamp clamp_min clamp_max erfinv neg", flops=each_out())
# divide, round, add the zero point; and subtract it, multiply
register("quantize_per_tensor quantize_per_channel quantize_per_tensor_dynamic", flops=each_out(3))
register("dequantize", flops=each_out(2))


def add(tape: Tape, x: Tensor, other: Tensor) -> Tensor:
    """Add two tensors with broadcasting."""
    made = _new(tape, x, other)
    tape.ran("add", [x, other], made)
    tape.remember(_add_back, [x, other], [made], meta=(x.shape, other.shape))
    return made


def add_(tape: Tape, x: Tensor, other: Tensor) -> Tensor:
    """Add a tensor in place."""
    made = tape.view(x, x.shape, x.strides)
    tape.ran("add", [x, other], made)
    tape.remember(_add_back, [x, other], [made], meta=(x.shape, other.shape))
    return made


def multiply(tape: Tape, x: Tensor, other: Tensor, is_constant: bool = False) -> Tensor:
    """Multiply two tensors with broadcasting.

    Args:
        tape: the tape that records the operation.
        x: any shape.
        other: any shape.
        is_constant: `other` never needs a gradient, so that the backward does not need `x`.
    """
    made = _new(tape, x, other)
    tape.ran("mul", [x, other], made)
    if is_constant:
        tape.remember(_scaled_back, [x], [made], saved=[other], meta=x.shape)
    else:
        tape.remember(_multiply_back, [x, other], [made], saved=[x, other])
    return made


def negate(tape: Tape, x: Tensor) -> Tensor:
    """Compute −x for each element."""
    made = _new(tape, x)
    tape.ran("neg", [x], made)
    tape.remember(_negate_back, [x], [made])
    return made


def cosine(tape: Tape, x: Tensor) -> Tensor:
    """Compute the cosine of each angle."""
    made = _new(tape, x)
    tape.ran("cos", [x], made)
    tape.remember(_cosine_back, [x], [made], saved=[x])
    return made


def sine(tape: Tape, x: Tensor) -> Tensor:
    """Compute the sine of each angle."""
    made = _new(tape, x)
    tape.ran("sin", [x], made)
    tape.remember(_sine_back, [x], [made], saved=[x])
    return made


def scale(tape: Tape, x: Tensor, in_place: bool = False) -> Tensor:
    """Multiply by a Python number, which torch saves as a float64 tensor for the backward.

    While the operator runs, torch also holds the number as a tensor in the dtype of `x`.

    Args:
        tape: the tape that records the operation.
        x: any shape.
        in_place: overwrite `x`.
    """
    number = tape.number()
    cast = tape.cast(is_double=True)
    made = tape.view(x, x.shape, x.strides) if in_place else _new(tape, x)
    del cast
    tape.ran("mul", [x], made)
    tape.remember(_scale_back, [x], [made], saved=[number])
    return made


def shift(tape: Tape, x: Tensor, is_whole: bool = False) -> Tensor:
    """Add a Python number.

    While the operator runs, torch holds the number as a tensor, and as another tensor in the dtype of `x`.

    Args:
        tape: the tape that records the operation.
        x: any shape.
        is_whole: the number is an integer.
    """
    number = tape.number(), tape.cast(is_double=not is_whole)
    made = _new(tape, x)
    del number
    tape.ran("add", [x], made)
    tape.remember(pass_back, [x], [made])
    return made


def divide(tape: Tape, x: Tensor, other: Tensor) -> Tensor:
    """Divide two tensors with broadcasting."""
    made = _new(tape, x, other)
    tape.ran("div", [x, other], made)
    tape.remember(_divide_back, [x, other], [made], saved=[x, other])
    return made


def activate(tape: Tape, name: str, x: Tensor, saves: str = "input") -> Tensor:
    """Apply an activation to each element.

    Args:
        tape: the tape that records the operation.
        name: the aten name of the activation.
        x: any shape.
        saves: the tensor that the backward needs, "input" or "output".
    """
    made = _new(tape, x)
    tape.ran(name, [x], made)
    tape.remember(_activate_back, [x], [made], saved=[x if saves == "input" else made])
    return made


def activate_(tape: Tape, name: str, x: Tensor) -> Tensor:
    """Apply an activation in place to a view, such as the output of a linear layer; the backward needs the output."""
    made = tape.view(x, x.shape, x.strides)
    tape.ran(name, [x], made)
    tape.remember(_activate_view_back, [x], [made], saved=[made])
    return made


def clamp(tape: Tape, x: Tensor, name: str = "clamp") -> Tensor:
    """Clip each element to bounds."""
    made = _new(tape, x)
    tape.ran(name, [x], made)
    tape.remember(_clamp_back, [x], [made], saved=[x])
    return made


def _new(tape: Tape, *operands: Tensor) -> Tensor:
    shape = broadcast(*[each.shape for each in operands])
    strides = elementwise_strides(shape, [(each.shape, each.strides) for each in operands])
    return tape.tensor(shape, strides, itemsize=operands[0].itemsize)


def _add_back(back: Back) -> Gradients:
    return [
        reduce_to(back.tape, back.grad, shape) if needed else None
        for shape, needed in zip(back.meta, back.needs, strict=True)
    ]


def _multiply_back(back: Back) -> Gradients:
    x, other = back.saved
    grads = [_product(back, other) if back.needs[0] else None, _product(back, x) if back.needs[1] else None]
    return [
        None if grad is None else reduce_to(back.tape, grad, of.shape)
        for grad, of in zip(grads, (x, other), strict=True)
    ]


def _scaled_back(back: Back) -> Gradients:
    """Return gradient · constant."""
    return [sum_to(back.tape, _product(back, back.saved[0]), back.meta)]


def _negate_back(back: Back) -> Gradients:
    return [_new(back.tape, back.grad)]


def _cosine_back(back: Back) -> Gradients:
    """Return gradient · (−sin x)."""
    sines = _new(back.tape, *back.saved)
    negative = _new(back.tape, sines)
    made = _product(back, negative)
    del sines, negative
    return [made]


def _sine_back(back: Back) -> Gradients:
    """Return gradient · cos x."""
    cosines = _new(back.tape, *back.saved)
    made = _product(back, cosines)
    del cosines
    return [made]


def _product(back: Back, other: Tensor) -> Tensor:
    made = _new(back.tape, back.grad, other)
    back.tape.ran("mul", [back.grad, other], made)
    return made


def _scale_back(back: Back) -> Gradients:
    cast = back.tape.cast(is_double=True)
    made = _new(back.tape, back.grad)
    del cast
    back.tape.ran("mul", [back.grad], made)
    return [made]


def _activate_back(back: Back) -> Gradients:
    return [_new(back.tape, back.grad, *back.saved)]


def _activate_view_back(back: Back) -> Gradients:
    """Return the gradient of an in-place operation on a view, as autograd's CopySlices computes it.

    CopySlices copies the whole gradient, clones its slice, applies the function's backward to the clone, and copies the
    result back into the whole.
    """
    whole = _new(back.tape, back.grad)
    clone = _new(back.tape, back.grad)
    made = _new(back.tape, clone, *back.saved)
    del clone, made
    return [whole]


def _clamp_back(back: Back) -> Gradients:
    (x,) = back.saved
    tape, zero = back.tape, back.tape.tensor(())
    bound = tape.number(), tape.cast(is_double=True)
    mask = tape.tensor(x.shape, itemsize=1)
    del bound
    made = _new(tape, back.grad, x)
    del mask, zero
    return [made]


def _divide_back(back: Back) -> Gradients:
    tape, (x, other) = back.tape, back.saved
    of_other = _divisor_back(back) if back.needs[1] else None  # torch computes them by argument name: other, then self
    of_x = _new(tape, back.grad, other) if back.needs[0] else None
    return [
        None if of_x is None else reduce_to(tape, of_x, x.shape),
        None if of_other is None else reduce_to(tape, of_other, other.shape),
    ]


def _divisor_back(back: Back) -> Tensor:
    """Return −gradient · ((x / other) / other)."""
    tape, (x, other) = back.tape, back.saved
    negative = _new(tape, back.grad)
    once = _new(tape, x, other)
    twice = _new(tape, once, other)
    made = _new(tape, negative, twice)
    del negative, once, twice
    return made
