"""Elementwise operations and activations: their FLOPs by convention, with the reasoning, and their gradients."""

from typing import Any

from attnscope.ops.movement import pass_back, sum_to
from attnscope.ops.operation import Arguments, argument, each_in, each_out, register
from attnscope.ops.tape import Back, Gradients, Tape
from attnscope.ops.tensor import Tensor, broadcast, elementwise_strides

ACTIVATIONS = {
    "gelu": 5,  # divide by √2, error function, add 1, multiply by x, halve
    "relu": 1,  # compare
    "sigmoid": 4,  # negate, exponentiate, add 1, divide
    "silu": 5,  # a sigmoid, multiply by x
    "tanh": 1,  # an elementary function, as exp and erf are
    "leaky_relu": 2,  # compare, multiply
    "prelu": 2,
    "_prelu_kernel": 2,
    "elu": 3,  # compare, exponentiate, subtract 1
    "selu": 4,  # an elu, scale
    "celu": 4,  # divide, an elu
    "hardtanh": 2,  # compare with either end
    "relu6": 2,
    "hardsigmoid": 4,  # add, compare twice, divide
    "hardswish": 5,  # a hardsigmoid, multiply by x
    "softplus": 3,  # exponentiate, add 1, logarithm
    "log_sigmoid": 4,  # negate, a softplus
    "mish": 5,  # a softplus, tanh, multiply by x
    "glu": 5,  # a sigmoid, multiply
}
"""FLOPs of one element of an activation. Elementary functions count 1, as additions do."""


def _elu(arguments: Arguments, out: Any) -> int:
    """An elu with a scale is what torch makes of a selu."""
    is_scaled = argument(arguments, 2) not in (None, 1)
    return ACTIVATIONS["selu" if is_scaled else "elu"] * out.numel()


for _name in ACTIVATIONS.keys() - {"elu"}:
    register(_name, flops=each_out(ACTIVATIONS[_name]))
register("elu", flops=_elu)
register("log_sigmoid_forward", flops=each_in(ACTIVATIONS["log_sigmoid"]), by_products=True)
register("add sub rsub mul div exp clamp clamp_min clamp_max erfinv neg", flops=each_out())


def add(tape: Tape, x: Tensor, other: Tensor) -> Tensor:
    """Add two tensors that broadcast, into a new one."""
    made = _new(tape, x, other)
    tape.ran("add", [x, other], made)
    tape.remember(_add_back, [x, other], [made], meta=(x.shape, other.shape))
    return made


def add_(tape: Tape, x: Tensor, other: Tensor) -> Tensor:
    """Add in place."""
    made = tape.view(x, x.shape, x.strides)
    tape.ran("add", [x, other], made)
    tape.remember(_add_back, [x, other], [made], meta=(x.shape, other.shape))
    return made


def multiply(tape: Tape, x: Tensor, other: Tensor) -> Tensor:
    """Multiply two tensors that broadcast, into a new one."""
    made = _new(tape, x, other)
    tape.ran("mul", [x, other], made)
    tape.remember(_multiply_back, [x, other], [made], saved=[x, other])
    return made


def scale(tape: Tape, x: Tensor, in_place: bool = False) -> Tensor:
    """Multiply by a number, which torch makes a tensor of: a double, and the same in the dtype of x while it runs."""
    number = tape.number()
    cast = tape.cast(is_double=True)
    made = tape.view(x, x.shape, x.strides) if in_place else _new(tape, x)
    del cast
    tape.ran("mul", [x], made)
    tape.remember(_scale_back, [x], [made], saved=[number])
    return made


def shift(tape: Tape, x: Tensor, is_whole: bool = False) -> Tensor:
    """Add a number, whole or a double, which torch makes a tensor of while it runs, and of that one in the dtype of x."""
    number = tape.number(), tape.cast(is_double=not is_whole)
    made = _new(tape, x)
    del number
    tape.ran("add", [x], made)
    tape.remember(pass_back, [x], [made])
    return made


def divide(tape: Tape, x: Tensor, other: Tensor) -> Tensor:
    """Divide two tensors that broadcast, into a new one."""
    made = _new(tape, x, other)
    tape.ran("div", [x, other], made)
    tape.remember(_divide_back, [x, other], [made], saved=[x, other])
    return made


def activate(tape: Tape, name: str, x: Tensor, saves: str = "input") -> Tensor:
    """Apply a function to each element; `saves` says which of "input" and "output" its gradient is computed from."""
    made = _new(tape, x)
    tape.ran(name, [x], made)
    tape.remember(_activate_back, [x], [made], saved=[x if saves == "input" else made])
    return made


def activate_(tape: Tape, name: str, x: Tensor) -> Tensor:
    """Apply a function in place, on a view such as a linear layer makes; its gradient is computed from the result."""
    made = tape.view(x, x.shape, x.strides)
    tape.ran(name, [x], made)
    tape.remember(_activate_view_back, [x], [made], saved=[made])
    return made


def clamp(tape: Tape, x: Tensor, name: str = "clamp") -> Tensor:
    """Bring each element between bounds."""
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
        sum_to(back.tape, back.grad, shape) if needed else None
        for shape, needed in zip(back.meta, back.needs, strict=True)
    ]


def _multiply_back(back: Back) -> Gradients:
    x, other = back.saved
    grads = [_product(back, other) if back.needs[0] else None, _product(back, x) if back.needs[1] else None]
    return [
        None if grad is None else sum_to(back.tape, grad, of.shape) for grad, of in zip(grads, (x, other), strict=True)
    ]


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
    """Return the gradient as autograd's CopySlices makes it: a copy for the whole, a clone of its slice, what the function
    makes of that, and the same copied back.
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
    of_other = _divisor_back(back) if back.needs[1] else None  # torch's order: the names of the arguments
    of_x = _new(tape, back.grad, other) if back.needs[0] else None
    return [
        None if of_x is None else sum_to(tape, of_x, x.shape),
        None if of_other is None else sum_to(tape, of_other, other.shape),
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
