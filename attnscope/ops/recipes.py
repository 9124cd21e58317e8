"""The operations of steps, each composed of torch's operators.

    score = Step("q: b h n d, k: b h m d -> attn: b h n m", op=scaled_matmul())

An operation takes a tape and the operands of the step, and returns the outputs of the step. An attention that needs
another operation defines a function of the same form in its `steps.py`, from the functions of this package.
"""

from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from math import nan, prod
from typing import NamedTuple

from attnscope.core.axes import Pattern, Sizes
from attnscope.ops import attention as kernels
from attnscope.ops import convolution as convolutions
from attnscope.ops import elementwise, movement, normalization, reduction
from attnscope.ops import matmul as products
from attnscope.ops.tape import Tape
from attnscope.ops.tensor import Shape, Tensor


class Operands(NamedTuple):
    """The operands of an operation.

    Args:
        inputs: the input tensors of the step.
        weights: the parameters of the step, in the order of its declaration.
        shapes: the shapes of its outputs.
        letters: its pattern.
        sizes: the sizes of the letters.
    """

    inputs: Sequence[Tensor]
    weights: Sequence[Tensor]
    shapes: Sequence[Shape]
    letters: Pattern
    sizes: Sizes

    @property
    def x(self) -> Tensor:
        """Return the first input."""
        return self.inputs[0]

    def exactly(self, count: int) -> Sequence[Tensor]:
        """Return the inputs after a check of their number.

        Raises:
            ValueError: the step has another number of inputs.
        """
        if len(self.inputs) != count:
            raise ValueError(f"the pattern must have {count} input tensors for this operation (got {len(self.inputs)})")
        return self.inputs


Result = Tensor | tuple[Tensor, ...]
Op = Callable[[Tape, Operands], Result]


def linear(tape: Tape, given: Operands) -> Result:
    """Compute x·Wᵀ + b; the weights are W and, if there is a bias, b."""
    return products.linear(tape, given.x, *given.weights)


def linear_without_key_bias(tape: Tape, given: Operands) -> Result:
    """Compute x·Wᵀ + (b_q, 0, b_v), where each call concatenates the biases with zeros for the keys."""
    weight, *biases = given.weights
    if not biases:
        return products.linear(tape, given.x, weight)
    of_queries, of_values = biases
    of_keys = tape.external(of_values.shape)
    return products.linear(tape, given.x, weight, movement.cat(tape, [of_queries, of_keys, of_values], axis=0))


def matmul(scale: bool = False) -> Op:
    """Return an operation that multiplies two tensors over the letter that the result lacks.

    Args:
        scale: multiply the result by a number, in place.
    """

    def op(tape: Tape, given: Operands) -> Result:
        first, second = given.exactly(2)
        contracted = given.letters.inputs[0].axes[-1].letters
        if given.letters.inputs[1].axes[-1].letters == contracted:
            second = movement.transpose(tape, second)
        made = products.matmul(tape, first, second)
        return elementwise.scale(tape, made, in_place=True) if scale else made

    return op


@cache
def scaled_matmul(scale: float = nan) -> Op:
    """Return an operation that computes x·yᵀ·scale in one kernel, torch's `baddbmm`, over the last letter of both.

    Args:
        scale: the number, by default an unknown one. Only 1 makes a difference, since the kernel omits it.
    """

    def op(tape: Tape, given: Operands) -> Result:
        x, y = given.exactly(2)
        return products.scaled_product(tape, x, y, scale)

    return op


def softmax(tape: Tape, given: Operands) -> Result:
    """Compute the softmax along the last axis."""
    return normalization.softmax(tape, given.x)


def layer_norm(tape: Tape, given: Operands) -> Result:
    """Normalize the last axis to mean 0 and variance 1; the weights are scale and shift."""
    return normalization.layer_norm(tape, given.x, *given.weights)


def batch_norm(tape: Tape, given: Operands) -> Result:
    """Normalize each channel of a grid over the batch and the tokens; the weights are scale and shift."""
    return normalization.batch_norm(tape, given.x, *given.weights)


def group_norm(tape: Tape, given: Operands) -> Result:
    """Normalize all channels and tokens of an image together; the weights are scale and shift of each channel."""
    return normalization.group_norm(tape, given.x, *given.weights)


def normalize(tape: Tape, given: Operands) -> Result:
    """Normalize the last axis of each tensor to length 1; the last tensor is normalized first."""
    return tuple(reversed([normalization.normalize(tape, each) for each in reversed(given.inputs)]))


def add(tape: Tape, given: Operands) -> Result:
    """Add two tensors, or a weight and a tensor."""
    one, other = [*given.weights, *given.inputs]
    return elementwise.add(tape, one, other)


def multiply(tape: Tape, given: Operands) -> Result:
    """Multiply two tensors, or a tensor and a weight."""
    one, other = [*given.inputs, *given.weights]
    return elementwise.multiply(tape, one, other)


def average(tape: Tape, given: Operands) -> Result:
    """Average two tensors."""
    return elementwise.scale(tape, elementwise.add(tape, *given.inputs), in_place=True)


def gelu(tape: Tape, given: Operands) -> Result:
    """Compute the GELU x·Φ(x)."""
    return elementwise.activate(tape, "gelu", given.x)


def silu(tape: Tape, given: Operands) -> Result:
    """Compute the SiLU x·σ(x)."""
    return elementwise.activate(tape, "silu", given.x)


def swiglu(tape: Tape, given: Operands) -> Result:
    """Compute SiLU(gate)·value of two tensors, or of the first and the second half of the channels of one."""
    if len(given.inputs) == 2:
        gate, value = given.inputs
    else:
        width = given.shapes[0][-1]
        gate, value = movement.split(tape, given.x, (width, width), axis=given.x.dim() - 1)
    return elementwise.multiply(tape, elementwise.activate(tape, "silu", gate), value)


def convolution(tape: Tape, given: Operands) -> Result:
    """Convolve with a stride equal to the kernel size; the weights are the kernel and, if there is one, the bias."""
    weight, *bias = given.weights
    return convolutions.convolution(tape, given.x, weight, bias[0] if bias else None, given.shapes[0])


def mean(tape: Tape, given: Operands) -> Result:
    """Average over the axes that the result lacks."""
    kept = given.letters.outputs[0].letters
    axes = [place for place, axis in enumerate(given.letters.inputs[0].axes) if axis.letters[0] not in kept]
    return reduction.mean(tape, given.x, tuple(axes))


def adaptive_pool(tape: Tape, given: Operands) -> Result:
    """Average over patches, to the grid of the result."""
    return reduction.adaptive_pool(tape, given.x, given.shapes[0])


def dropout(op: Op) -> Op:
    """Return an operation followed by dropout; the tensors that dropout saves in training depend on the device."""

    def dropped(tape: Tape, given: Operands) -> Result:
        made = op(tape, given)
        tape.keeps_unknown = tape.drops = True
        return made

    return dropped


def heads_apart(op: Op) -> Op:
    """Return an operation whose kernel lays its heads out one after another in memory."""

    def made_apart(tape: Tape, given: Operands) -> Result:
        tape.heads_apart = True
        return op(tape, given)

    return made_apart


def view(tape: Tape, given: Operands) -> Result:
    """Arrange the letters in the order of the output, as a view, or as a copy if no view has the shape."""
    return _arranged(tape, given)


def rearrange(tape: Tape, given: Operands) -> Result:
    """Arrange the letters into a contiguous tensor: a view if their order stays the same, else a copy."""
    return movement.contiguous(tape, _arranged(tape, given))


def unbind(tape: Tape, given: Operands) -> Result:
    """Return views of the parts of an axis such as (3 h d); its number is the number of parts."""
    atoms, order = _parts_of(given.letters)
    shape = tuple([number * prod([given.sizes[letter] for letter in letters]) for number, letters in atoms])
    return movement.unbind(tape, movement.permute(tape, movement.view(tape, given.x, shape), order))


def split_heads(tape: Tape, given: Operands) -> Result:
    """Split the last axis, which holds the heads of queries, keys and values one after another, into views."""
    heads = [shape[1] for shape in given.shapes]
    apart = movement.view(tape, given.x, (*given.x.shape[:-1], sum(heads), given.shapes[0][-1]))
    return movement.split(tape, movement.transpose(tape, apart, 1, 2), heads, axis=1)


def repeat_heads(tape: Tape, given: Operands) -> Result:
    """Repeat each head, by copying, for the heads that share it."""
    made = []
    for each, shape in zip(given.inputs, given.shapes, strict=True):
        b, g, m, d = each.shape
        one = movement.view(tape, each, (b, g, 1, m, d))
        many = movement.clone(tape, movement.expand(tape, one, (b, g, shape[1] // g, m, d)))
        made.append(movement.view(tape, many, shape))
    return tuple(made)


def pad(tape: Tape, given: Operands) -> Result:
    """Pad axes with zeros, or crop them, at their ends."""
    return movement.pad(tape, given.x, given.shapes[0])


@cache  # plans of equal Specs are equal
def roll(axes: int) -> Op:
    """Return an operation that rolls along the given number of axes."""
    return lambda tape, given: movement.roll(tape, given.x, axes)


def prepend(tape: Tape, given: Operands) -> Result:
    """Insert learned tokens, (1, r, c) each, before the tokens, (b, n, c)."""
    b, _, c = given.x.shape
    tokens = [movement.expand(tape, token, (b, token.shape[1], c)) for token in given.weights]
    return movement.cat(tape, [*tokens, given.x], axis=1)


def select(tape: Tape, given: Operands) -> Result:
    """Return a view of each of the first tokens."""
    made = tuple([movement.select(tape, given.x, 1, place) for place in range(len(given.shapes))])
    return made if len(made) > 1 else made[0]


def add_mask(tape: Tape, given: Operands) -> Result:
    """Add the mask of each window, (r·s, n, m), to the scores of all images, (b·r·s, h, n, m)."""
    scores, mask = given.exactly(2)
    windows = mask.shape[0]
    images = movement.view(tape, scores, (scores.shape[0] // windows, windows, *scores.shape[1:]))
    masked = elementwise.add(tape, images, movement.view(tape, mask, (windows, 1, *mask.shape[1:])))
    return movement.view(tape, masked, scores.shape)


def add_table_bias(tape: Tape, given: Operands) -> Result:
    """Add a bias for each pair of tokens of a window, gathered from a table with a row for each relative position."""
    table = given.weights[0] if given.weights else given.inputs[1]
    return elementwise.add(tape, given.x, table_bias(tape, table, given.x.shape[1:]))


def table_bias(tape: Tape, table: Tensor, shape: Shape) -> Tensor:
    """Gather a contiguous bias of (h, n, m) from the rows of a table of (…, h)."""
    h, n, m = shape
    rows = table if table.dim() == 2 else movement.view(tape, table, (prod(table.shape[:-1]), h))
    gathered = movement.gather(tape, rows, (n, m, h))
    return movement.contiguous(tape, movement.permute(tape, gathered, (2, 0, 1)))


def attention(keeps: bool) -> Op:
    """Return an operation that computes softmax(q·kᵀ·scale)·v in one kernel.

    Args:
        keeps: see `attnscope.ops.attention.attention`.
    """

    def op(tape: Tape, given: Operands) -> Result:
        q, k, v = given.exactly(3)
        return kernels.attention(tape, q, k, v, keeps=keeps)

    return op


def window_bias(tape: Tape, table: Tensor, shape: Shape, mask: Tensor | None) -> Tensor:
    """Return the bias of each pair of tokens of a window, as a fused kernel adds it to the scores.

    It is (1, h, n, m). With a mask, torch expands the sum of both to the shape of the scores, by copying.

    Args:
        tape: the tape that records the operations.
        table: the table of the bias, with a row for each relative position.
        shape: the shape of the scores, (b·r·s, h, n, m).
        mask: the mask of a shifted grid, (r·s, n, m).
    """
    bias = table_bias(tape, table, shape[1:])
    bias = movement.view(tape, bias, (1, *bias.shape))
    if mask is None:
        return bias
    windows = mask.shape[0]
    masked = elementwise.add(tape, bias, movement.view(tape, mask, (windows, 1, *mask.shape[1:])))
    return movement.repeat(tape, masked, shape)


@cache
def _plan_of(pattern: Pattern) -> tuple[tuple[tuple[str, ...], ...], tuple[int, ...]]:
    """Return the letters of the input, and for each of the output its index among them.

    Letters that are next to each other in an axis of both are one, since a view keeps them together.
    """
    taken, made = pattern.inputs[0], pattern.outputs[0]
    pairs, kept = ({pair for axis in each.axes for pair in pairwise(axis.letters)} for each in (taken, made))
    groups: list[tuple[str, ...]] = []
    for axis in taken.axes:
        for before, letter in zip(("", *axis.letters), axis.letters, strict=False):
            if (before, letter) in pairs & kept:
                groups[-1] = (*groups[-1], letter)
            else:
                groups.append((letter,))
    first = {group[0]: index for index, group in enumerate(groups)}
    return tuple(groups), tuple([first[letter] for letter in made.letters if letter in first])


def _arranged(tape: Tape, given: Operands) -> Tensor:
    groups, order = _plan_of(given.letters)
    x = given.x
    if len(groups) != x.dim():
        x = movement.view(tape, x, tuple([prod([given.sizes[letter] for letter in group]) for group in groups]))
    if order != tuple(range(len(order))):
        x = movement.permute(tape, x, order)
    return x if x.shape == given.shapes[0] else movement.reshape(tape, x, given.shapes[0])


@cache
def _parts_of(pattern: Pattern) -> tuple[tuple[tuple[int, tuple[str, ...]], ...], tuple[int, ...]]:
    """Split axes such as (3 h d) into factors.

    Returns:
        The factors, each a number and letters, and a permutation of them. It moves the number to the front and gives
        the other factors the order of the output.

    Raises:
        ValueError: no axis has a number.
    """
    made = [axis.letters for axis in pattern.outputs[0].axes]
    atoms: list[tuple[int, tuple[str, ...]]] = []
    for axis in pattern.inputs[0].axes:
        if axis.number > 1:
            atoms += [(axis.number, ()), *[(1, (letter,)) for letter in axis.letters]]
        else:
            atoms.append((1, axis.letters))
    numbers = [place for place, atom in enumerate(atoms) if not atom[1]]
    if not numbers:
        raise ValueError("the input of this operation must have an axis with a number, such as (3 h d)")
    return tuple(atoms), (numbers[0], *[atoms.index((1, letters)) for letters in made])
