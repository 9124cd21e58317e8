"""Single operators in torch and on a tape: the layout of the result, and the bytes of forward and backward."""

import gc

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from attnscope.ops import elementwise, matmul, movement, normalization, reduction
from attnscope.plan.backward import backward_held
from attnscope.plan.memory import Memory
from attnscope.plan.plan import Plan
from attnscope.plan.step import Step
from attnscope.profiling.building import settled
from attnscope.testing.backward import held_backward_bytes
from attnscope.testing.memory import held_bytes, kept_bytes

SIZES = {"a": 2, "b": 3, "c": 5, "d": 7, "i": 8}  # i = b + c
both_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


@pytest.fixture(autouse=True)
def uncollected():
    """Prevent that garbage of earlier tests is freed while a test counts freed bytes."""
    gc.disable()
    yield
    gc.enable()


class Chain(nn.Module):
    """A sequence of steps in torch, which frees each tensor after the last step that takes it."""

    def __init__(self, steps):
        super().__init__()
        self.steps = steps
        made = set()
        self.given = {}
        for step in steps:
            self.given |= {tensor.name: tensor for tensor in step.letters.inputs if tensor.name not in made}
            made |= {tensor.name for tensor in step.letters.outputs}
            for name, axes in step.weight_shapes.items():
                self.register_parameter(name, nn.Parameter(torch.rand(axes.shape(SIZES))))

    def forward(self, *x):
        tensors = dict(zip(self.given, x, strict=True))
        del x
        for index, step in enumerate(self.steps):
            made = getattr(self, step.name)(*[tensors[name] for name in names(step.letters.inputs)])
            tensors |= zip(names(step.letters.outputs), made if isinstance(made, tuple) else (made,), strict=True)
            del made
            needed = {name for later in self.steps[index + 1 :] for name in names(later.letters.inputs)}
            tensors = {name: tensors[name] for name in tensors if name in (needed or names(step.letters.outputs))}
        (result,) = tensors.values()
        return result


def names(tensors):
    return [tensor.name for tensor in tensors]


def chain(*steps_and_calls):
    """Return a Chain of steps, each with the torch function that computes it from its inputs and its weights."""

    def method(step, call):
        return step(lambda self, *x: call(*x, *[self.get_parameter(name) for name in step.weights]))

    methods = {step.name: method(step, call) for step, call in steps_and_calls}
    return type("Chain", (Chain,), methods)([step for step, _ in steps_and_calls])


def on_tape(operator, *arguments, **settings):
    """Return the operation of a step that runs one operator on its inputs and weights."""
    return lambda tape, given: operator(tape, *given.inputs, *given.weights, *arguments, **settings)


def step(pattern, op, name="run", **fields):
    return Step(pattern, op=op, name=name, **fields)


def hold(module, dtype=torch.float32):
    """Assert that every figure of the plan of a Chain equals torch's."""
    module = module.to(dtype)
    plan = Plan.of(module.steps, SIZES, dtype.itemsize)
    memory = Memory(plan)
    constants = {name for step in module.steps for name in step.constants}

    def real(figures):
        return tuple([figures.get(step.name, 0) for step in plan.steps])

    with settled(threads=1, seed=0, device=torch.device("cpu")):
        x = [torch.rand(tensor.shape(SIZES), dtype=dtype) for tensor in module.given.values()]
        with torch.no_grad():
            made, (planned,) = module(*x), plan.steps[-1].forward.outputs
        assert of_long_axes(planned.strides, made.shape) == of_long_axes(made.stride(), made.shape)
        assert memory.live == real(held_bytes(module.eval(), *x))
        for name, tensor in zip(module.given, x, strict=True):
            tensor.requires_grad_(name not in constants)
        assert memory.training == real(held_bytes(module.train(), *x))
        assert memory.saved == real(kept_bytes(module, *x))
        assert tuple([held.known for held in backward_held(memory)]) == real(held_backward_bytes(module, *x))


def of_long_axes(strides, shape):
    """Return the strides of axes with more than one element; others have no effect."""
    return [stride for stride, size in zip(strides, shape, strict=True) if size > 1]


def gelu(tape, x):
    return elementwise.activate(tape, "gelu", x)


def exp(tape, x):
    return elementwise.activate(tape, "exp", x, saves="output")


def cat(tape, *parts):
    return movement.cat(tape, parts, axis=1)


X, BOTH, ROW = "x: a b c -> made: a b c", "x: a b c, y: a b c -> made: a b c", "x: a b c, y: b 1 -> made: a b c"
AFFINE = {"weight": "c", "bias": "c"}
NEW = {
    "multiply": (BOTH, on_tape(elementwise.multiply), torch.mul),
    "multiply by a row": (ROW.replace("y: b 1", "y: 1 b 1"), on_tape(elementwise.multiply), torch.mul),
    "divide": (BOTH, on_tape(elementwise.divide), torch.div),
    "divide by a row": (ROW, on_tape(elementwise.divide), torch.div),
    "scale": (X, on_tape(elementwise.scale), lambda x: x * 0.5),
    "gelu": (X, on_tape(gelu), F.gelu),
    "exp": (X, on_tape(exp), torch.exp),
    "clamp": (X, on_tape(elementwise.clamp), lambda x: x.clamp(max=0.5)),
    "softmax": (X, on_tape(normalization.softmax), lambda x: x.softmax(-1)),
    "layer_norm": (X, on_tape(normalization.layer_norm), lambda x: F.layer_norm(x, (5,))),
    "layer_norm with weights": (
        X, on_tape(normalization.layer_norm), lambda x, *weights: F.layer_norm(x, (5,), *weights), AFFINE),
    "layer_norm without a bias": (
        X, on_tape(normalization.layer_norm), lambda x, weight: F.layer_norm(x, (5,), weight), {"weight": "c"}),
    "length": ("x: a b c -> made: a b 1", on_tape(normalization.length), lambda x: x.norm(dim=-1, keepdim=True)),
    "normalize": (X, on_tape(normalization.normalize), lambda x: F.normalize(x, dim=-1)),
    "mean": ("x: a b c -> made: a c", on_tape(reduction.mean, (1,)), lambda x: x.mean(1)),
    "mean over two axes": ("x: a b c -> made: b", on_tape(reduction.mean, (0, 2)), lambda x: x.mean((0, 2))),
    "permute": ("x: a b c -> made: c a b", on_tape(movement.permute, (2, 0, 1)), lambda x: x.permute(2, 0, 1)),
    "select": ("x: a b c -> made: a c", on_tape(movement.select, 1, 2), lambda x: x[:, 2]),
    "pad": ("x: a b c -> made: a c d", on_tape(movement.pad, (2, 5, 7)), lambda x: F.pad(x, (0, 2, 0, 2))),
    "cut": ("x: a c d -> made: a b c", on_tape(movement.pad, (2, 3, 5)), lambda x: F.pad(x, (0, -2, 0, -2))),
    "roll": (X, on_tape(movement.roll, 2), lambda x: x.roll((1, 2), (1, 2))),
    "a copy of a permuted tensor": (
        "x: a b c -> made: c a b",
        on_tape(lambda tape, x: movement.contiguous(tape, movement.permute(tape, x, (2, 0, 1)))),
        lambda x: x.permute(2, 0, 1).contiguous()),
}  # fmt: skip
"""Operators that allocate a new gradient: the letters of the step, its operation on a tape and in torch, its weights."""
PASSING = {
    "add": (BOTH, on_tape(elementwise.add), torch.add),
    "add a row": (ROW, on_tape(elementwise.add), torch.add),
    "shift": (X, on_tape(elementwise.shift), lambda x: x + 0.5),
    "shift by an integer": (X, on_tape(elementwise.shift, is_whole=True), lambda x: x + 1),
    "clone": (X, on_tape(movement.clone), torch.clone),
    "reshape": ("x: a b c -> made: a (b c)", on_tape(movement.reshape, (2, 15)), lambda x: x.reshape(2, 15)),
    "cat": ("x: a b d, y: a c d -> made: a i d", on_tape(cat), lambda *parts: torch.cat(parts, 1)),
}
"""The same for operators that return the incoming gradient or a view of it."""


@both_dtypes
@pytest.mark.parametrize("name", NEW)
def test_a_single_operator_agrees_with_torch(name, dtype):
    pattern, op, call, *weights = NEW[name]
    hold(chain((step(pattern, op, weights=weights[0] if weights else {}), call)), dtype)


@both_dtypes
@pytest.mark.parametrize("name", NEW | PASSING)
def test_an_operator_between_two_steps_agrees_with_torch(name, dtype):
    """A step computes its input, and another step its incoming gradient."""
    pattern, op, call, *weights = (NEW | PASSING)[name]
    run = step(pattern, op, weights=weights[0] if weights else {})
    made = run.letters.outputs[0]
    after = step(f"made: {made} -> after: {made}", on_tape(gelu), "leave"), F.gelu
    hold(chain(*map(before, run.letters.inputs), (run, call), after), dtype)


def before(tensor):
    """Return a step whose output has the same name as its input."""
    name = tensor.name
    return step(f"{name}: {tensor} -> {name}: {tensor}", on_tape(exp), f"enter_{name}"), torch.exp


@both_dtypes
@pytest.mark.parametrize("name", ["multiply", "divide", "scale", "clamp", "shift", "shift by an integer"])
def test_an_operator_on_one_element_agrees_with_torch(name, dtype):
    """At peak memory, torch then only holds the scalars that it converts to tensors."""
    pattern, op, call = (NEW | PASSING)[name]
    pattern = pattern.replace("a b c", "1")
    run = step(pattern, op)
    after = step("made: 1 -> after: 1", on_tape(gelu), "leave"), F.gelu
    hold(chain(*map(before, run.letters.inputs), (run, call), after), dtype)


@both_dtypes
def test_the_gradient_of_a_matrix_has_the_layout_of_the_matrix(dtype):
    permute = step("x: a b -> permuted: b a", on_tape(movement.permute, (1, 0)), "permute"), lambda x: x.permute(1, 0)
    enter, leave = (
        before(permute[0].letters.inputs[0]),
        (step("made: b c -> after: b c", on_tape(gelu), "leave"), F.gelu),
    )
    hold(
        chain(
            enter, permute, (step("permuted: b a, y: a c -> made: b c", on_tape(matmul.matmul)), torch.matmul), leave
        ),
        dtype,
    )


@both_dtypes
def test_two_used_parts_of_a_split_agree_with_torch(dtype):
    apart = step("x: a i d -> one: a b d, two: a c d", on_tape(movement.split, (3, 5), 1), "apart")
    enter = [(step(f"{name}: {axes} -> {name}: {axes}", on_tape(gelu), name), F.gelu)
             for name, axes in (("one", "a b d"), ("two", "a c d"))]  # fmt: skip
    join = step("one: a b d, two: a c d -> made: a i d", on_tape(cat))
    hold(chain((apart, lambda x: x.split((3, 5), 1)), *enter, (join, lambda *parts: torch.cat(parts, 1))), dtype)


@both_dtypes
def test_an_inplace_function_on_a_view_agrees_with_torch(dtype):
    """This occurs after a linear layer; the gradient needs a copy of the base and one of the view."""
    run = step("x: a b c -> made: (a b) c", on_tape(view_in_place))
    after = step("made: (a b) c -> after: (a b) c", on_tape(gelu), "leave"), F.gelu
    hold(chain(before(run.letters.inputs[0]), (run, lambda x: F.gelu(x).view(6, 5).relu_()), after), dtype)


def view_in_place(tape, x):
    return elementwise.activate_(tape, "relu", movement.view(tape, gelu(tape, x), (6, 5)))


PERMUTE = (
    step("x: a b c -> permuted: c b a", on_tape(movement.permute, (2, 1, 0)), "permute"),
    lambda x: x.permute(2, 1, 0),
)
ON_PERMUTED = {
    "a sum": ("permuted: c b a, y: c b a -> made: c b a", on_tape(elementwise.add), torch.add),
    "a sum, permuted second": ("y: c b a, permuted: c b a -> made: c b a", on_tape(elementwise.add), torch.add),
    "a product with a row": ("permuted: c b a, y: b 1 -> made: c b a", on_tape(elementwise.multiply), torch.mul),
    "a product with a matrix": ("y: 1 b a, permuted: c b a -> made: c b a", on_tape(elementwise.multiply), torch.mul),
    "a quotient": ("permuted: c b a, y: c b a -> made: c b a", on_tape(elementwise.divide), torch.div),
    "gelu": ("permuted: c b a -> made: c b a", on_tape(gelu), F.gelu),
    "softmax": ("permuted: c b a -> made: c b a", on_tape(normalization.softmax), lambda x: x.softmax(-1)),
    "layer_norm": ("permuted: c b a -> made: c b a", on_tape(normalization.layer_norm), lambda x: F.layer_norm(x, (2,))),
    "length": (
        "permuted: c b a -> made: c b 1", on_tape(normalization.length), lambda x: x.norm(dim=-1, keepdim=True)),
    "normalize": ("permuted: c b a -> made: c b a", on_tape(normalization.normalize), lambda x: F.normalize(x, dim=-1)),
    "reshape": ("permuted: c b a -> made: c (b a)", on_tape(movement.reshape, (5, 6)), lambda x: x.reshape(5, 6)),
    "select": ("permuted: c b a -> made: c a", on_tape(movement.select, 1, 2), lambda x: x[:, 2]),
    "roll": ("permuted: c b a -> made: c b a", on_tape(movement.roll, 1), lambda x: x.roll(1, 1)),
    "cut": ("permuted: c b a -> made: c b 1", on_tape(movement.pad, (5, 3, 1)), lambda x: F.pad(x, (0, -1))),
    "pad": ("permuted: c b a -> made: d b a", on_tape(movement.pad, (7, 3, 2)), lambda x: F.pad(x, (0, 0, 0, 0, 0, 2))),
}  # fmt: skip


@both_dtypes
@pytest.mark.parametrize("name", ON_PERMUTED)
def test_an_operator_on_a_permuted_input_agrees_with_torch(name, dtype):
    pattern, op, call = ON_PERMUTED[name]
    run = step(pattern, op)
    others = [before(each) for each in run.letters.inputs if each.name != "permuted"]
    hold(chain(*others, PERMUTE, (run, call)), dtype)


@both_dtypes
@pytest.mark.parametrize("constant", ["x", "y"])
@pytest.mark.parametrize("name", ["multiply", "multiply by a row", "divide", "divide by a row"])
def test_an_operator_with_one_constant_operand_agrees_with_torch(name, constant, dtype):
    pattern, op, call = NEW[name]
    hold(chain((step(pattern, op, constants=(constant,)), call)), dtype)


def twice(tape, x):
    return elementwise.add(tape, x, gelu(tape, x))


def twice_new(tape, x):
    return elementwise.multiply(tape, exp(tape, x), gelu(tape, x))


def square(tape, x):
    return elementwise.multiply(tape, x, x)


def triple_product(tape, x):
    return elementwise.multiply(tape, exp(tape, x), elementwise.multiply(tape, gelu(tape, x), exp(tape, x)))


WITHIN = {
    "x + gelu(x)": (X, on_tape(twice), lambda x: x + F.gelu(x)),
    "exp(x) gelu(x)": (X, on_tape(twice_new), lambda x: x.exp() * F.gelu(x)),
    "exp(x) (gelu(x) exp(x))": (X, on_tape(triple_product), lambda x: x.exp() * (F.gelu(x) * x.exp())),
    "x x": (X, on_tape(square), lambda x: x * x),
    "exp(x) + mask": (
        BOTH, on_tape(lambda tape, x, y: elementwise.add(tape, exp(tape, x), elementwise.shift(tape, y))),
        lambda x, y: x.exp() + (y + 0.5), ("y",)),
    "half the sum, in place": (
        BOTH, on_tape(lambda tape, x, y: elementwise.scale(tape, elementwise.add(tape, x, y), in_place=True)),
        lambda x, y: (x + y).mul_(0.5)),
}  # fmt: skip


@both_dtypes
@pytest.mark.parametrize("name", WITHIN)
def test_several_operators_in_one_step_agree_with_torch(name, dtype):
    pattern, op, call, *constants = WITHIN[name]
    run = step(pattern, op, constants=constants[0] if constants else ())
    others = [before(each) for each in run.letters.inputs if each.name not in run.constants]
    hold(chain(*others, (run, call)), dtype)


@both_dtypes
def test_two_steps_with_the_same_input_agree_with_torch(dtype):
    first = step("x: a b c -> y: a b c", on_tape(gelu), "first"), F.gelu
    second = step(BOTH, on_tape(elementwise.multiply), "second"), torch.mul
    hold(chain(first, second), dtype)


def add_permuted(tape, made, other):
    return elementwise.add(tape, movement.permute(tape, made, (2, 1, 0)), other)


LEAVE = step("made: a b c -> after: a b c", on_tape(gelu), "leave"), F.gelu
TO_INPUTS = {
    "one gradient for both": [(step(BOTH, on_tape(elementwise.add)), torch.add), LEAVE],
    "the gradient of the loss for both": [(step(BOTH, on_tape(elementwise.add)), torch.add)],
    "the gradient of the loss": [(step("x: a b c, y: b 1 -> made: a b c", on_tape(elementwise.add)), torch.add)],
    "one gradient, a step apart": [
        (step(BOTH, on_tape(elementwise.add)), torch.add),
        (step("x: a b c, made: a b c -> after: a b c", on_tape(elementwise.add), "again"), torch.add),
        (step("after: a b c -> last: a b c", on_tape(gelu), "leave"), F.gelu),
    ],
    "a view of a gradient": [(step("x: a b c -> made: (a b) c", on_tape(movement.view, (6, 5))), lambda x: x.view(6, 5)),
                             (step("made: (a b) c -> after: (a b) c", on_tape(gelu), "leave"), F.gelu)],
    "a view of the gradient of the loss": [
        (step("x: a b c -> made: (a b) c", on_tape(movement.view, (6, 5))), lambda x: x.view(6, 5))],
    "a permuted gradient": [PERMUTE, (step("permuted: c b a -> after: c b a", on_tape(gelu), "leave"), F.gelu)],
    "a permuted gradient and another": [
        PERMUTE,
        (step("permuted: c b a -> made: c b a", on_tape(gelu), "first"), F.gelu),
        (step("x: a b c -> other: a b c", on_tape(gelu), "second"), F.gelu),
        (step("made: c b a, other: a b c -> last: a b c", on_tape(add_permuted), "last"),
         lambda made, other: made.permute(2, 1, 0) + other),
    ],
}  # fmt: skip


@both_dtypes
@pytest.mark.parametrize("name", TO_INPUTS)
def test_the_gradient_of_an_input_is_copied_as_in_torch(name, dtype):
    """After the sum, torch copies a gradient that is still referenced or whose layout differs from the input's."""
    hold(chain(*TO_INPUTS[name]), dtype)


def two_gelus(tape, x, y):
    return gelu(tape, x), gelu(tape, y)


@both_dtypes
def test_operators_without_an_operand_that_needs_a_gradient_have_no_backward(dtype):
    first = step("x: a b c, y: a b c -> one: a b c, two: a b c", on_tape(two_gelus), "first", constants=("y",))
    last = step("one: a b c, two: a b c -> made: a b c", on_tape(elementwise.add), "last")
    hold(chain((first, lambda x, y: (F.gelu(x), F.gelu(y))), (last, torch.add)), dtype)


APART = {
    "the first of two": ("one", lambda x: x.split((3, 5), 1), "a b d", on_tape(movement.split, (3, 5), 1)),
    "the last of two": ("two", lambda x: x.split((3, 5), 1), "a c d", on_tape(movement.split, (3, 5), 1)),
}


@both_dtypes
@pytest.mark.parametrize("name", APART)
def test_one_used_part_of_a_split_agrees_with_torch(name, dtype):
    used, call, axes, op = APART[name]
    apart = step("x: a i d -> one: a b d, two: a c d", op, "apart"), call
    hold(chain(apart, (step(f"{used}: {axes} -> made: {axes}", on_tape(gelu)), F.gelu)), dtype)


@both_dtypes
@pytest.mark.parametrize("used", [("one",), ("two",), ("one", "two")])
def test_used_parts_of_an_unbind_agree_with_torch(used, dtype):
    apart = step("x: 2 b c -> one: b c, two: b c", on_tape(movement.unbind), "apart"), lambda x: x.unbind(0)
    if len(used) == 1:
        after = step(f"{used[0]}: b c -> made: b c", on_tape(gelu)), F.gelu
    else:
        after = step("two: b c, one: b c -> made: b c", on_tape(elementwise.multiply)), torch.mul
    hold(chain(apart, after), dtype)
