"""The operations of steps: functions that a page of steps names, each made of torch's operators.

    score = Step("q: b h n d, k: b h m d -> attn: b h n m", op=matmul(scale=True))

An operation takes a tape and the step's operands and returns what the step makes. A family that needs one that is not here
writes a function of the same form on its page, from the functions of this room.
"""

from collections.abc import Callable, Sequence
from functools import cache
from math import prod
from typing import NamedTuple

from attnscope.core.axes import Pattern, Sizes
from attnscope.ops import attention as kernels
from attnscope.ops import convolution as convolutions
from attnscope.ops import elementwise, movement, normalization, reduction
from attnscope.ops import matmul as products
from attnscope.ops.tape import Tape
from attnscope.ops.tensor import Shape, Tensor


class Operands(NamedTuple):
    """The operands of an operation: the tensors that the step takes, its weights in their order, the shapes that it makes,
    and its letters with their sizes.
    """

    inputs: Sequence[Tensor]
    weights: Sequence[Tensor]
    shapes: Sequence[Shape]
    letters: Pattern
    sizes: Sizes

    @property
    def x(self) -> Tensor:
        """The first tensor."""
        return self.inputs[0]

    def exactly(self, count: int) -> Sequence[Tensor]:
        """Return the tensors that the step takes.

        Raises:
            ValueError: the step takes another number of tensors.
        """
        if len(self.inputs) != count:
            raise ValueError(f"the operation takes {count} tensors, but the pattern has {len(self.inputs)}")
        return self.inputs


Result = Tensor | tuple[Tensor, ...]
Op = Callable[[Tape, Operands], Result]


def linear(tape: Tape, given: Operands) -> Result:
    """x·Wᵀ + b; weights are W and, if there is one, b."""
    return products.linear(tape, given.x, *given.weights)


def matmul(scale: bool = False) -> Op:
    """Contract the letter that both tensors have and the result has not; then multiply by a number if it is scaled."""

    def op(tape: Tape, given: Operands) -> Result:
        first, second = given.exactly(2)
        contracted = given.letters.inputs[0].axes[-1].letters
        if given.letters.inputs[1].axes[-1].letters == contracted:
            second = movement.transpose(tape, second)
        made = products.matmul(tape, first, second)
        return elementwise.scale(tape, made, in_place=True) if scale else made

    return op


def softmax(tape: Tape, given: Operands) -> Result:
    """Weights that sum to 1 along the last axis."""
    return normalization.softmax(tape, given.x)


def layer_norm(tape: Tape, given: Operands) -> Result:
    """Mean 0 and variance 1 along the last axis; weights are scale and shift."""
    return normalization.layer_norm(tape, given.x, *given.weights)


def normalize(tape: Tape, given: Operands) -> Result:
    """Length 1 along the last axis, for each tensor, the last one first."""
    return tuple(reversed([normalization.normalize(tape, each) for each in reversed(given.inputs)]))


def add(tape: Tape, given: Operands) -> Result:
    """The sum of two tensors, or of a weight and a tensor."""
    one, other = [*given.weights, *given.inputs]
    return elementwise.add(tape, one, other)


def average(tape: Tape, given: Operands) -> Result:
    """Half the sum of two tensors."""
    return elementwise.scale(tape, elementwise.add(tape, *given.inputs), in_place=True)


def gelu(tape: Tape, given: Operands) -> Result:
    """x·Φ(x)."""
    return elementwise.activate(tape, "gelu", given.x)


def convolution(tape: Tape, given: Operands) -> Result:
    """A convolution whose stride is its kernel; weights are the kernel and, if there is one, the bias."""
    weight, *bias = given.weights
    return convolutions.convolution(tape, given.x, weight, bias[0] if bias else None, given.shapes[0])


def mean(tape: Tape, given: Operands) -> Result:
    """The mean over the axes that the result does not have."""
    kept = given.letters.outputs[0].letters
    axes = [place for place, axis in enumerate(given.letters.inputs[0].axes) if axis.letters[0] not in kept]
    return reduction.mean(tape, given.x, tuple(axes))


def dropout(op: Op) -> Op:
    """The same, with dropout behind it: what that keeps in training is the device's own."""

    def dropped(tape: Tape, given: Operands) -> Result:
        made = op(tape, given)
        tape.keeps_unknown = tape.drops = True
        return made

    return dropped


def heads_apart(op: Op) -> Op:
    """The same by a kernel that makes its heads one behind the other in memory."""

    def made_apart(tape: Tape, given: Operands) -> Result:
        tape.heads_apart = True
        return op(tape, given)

    return made_apart


def view(tape: Tape, given: Operands) -> Result:
    """The letters in other places, as a view; a copy only where no view has that shape."""
    return _arranged(tape, given)


def rearrange(tape: Tape, given: Operands) -> Result:
    """The letters in other places, in memory too: a view where they keep their order, else a copy."""
    return movement.contiguous(tape, _arranged(tape, given))


def unbind(tape: Tape, given: Operands) -> Result:
    """Views of the parts that lie side by side in an axis such as (3 h d), whose number says how many."""
    atoms, order = _parts_of(given.letters)
    shape = tuple([number * prod([given.sizes[letter] for letter in letters]) for number, letters in atoms])
    return movement.unbind(tape, movement.permute(tape, movement.view(tape, given.x, shape), order))


def split_heads(tape: Tape, given: Operands) -> Result:
    """Views of the heads of queries, keys and values, which lie one behind the other in the last axis."""
    heads = [shape[1] for shape in given.shapes]
    apart = movement.view(tape, given.x, (*given.x.shape[:-1], sum(heads), given.shapes[0][-1]))
    return movement.split(tape, movement.transpose(tape, apart, 1, 2), heads, axis=1)


def repeat_heads(tape: Tape, given: Operands) -> Result:
    """Each head repeated for those that share it: copies."""
    made = []
    for each, shape in zip(given.inputs, given.shapes, strict=True):
        b, g, m, d = each.shape
        one = movement.view(tape, each, (b, g, 1, m, d))
        many = movement.clone(tape, movement.expand(tape, one, (b, g, shape[1] // g, m, d)))
        made.append(movement.view(tape, many, shape))
    return tuple(made)


def pad(tape: Tape, given: Operands) -> Result:
    """Zeros at the ends of axes, or elements taken away there."""
    return movement.pad(tape, given.x, given.shapes[0])


def roll(axes: int) -> Op:
    """Roll along so many axes."""
    return lambda tape, given: movement.roll(tape, given.x, axes)


def prepend(tape: Tape, given: Operands) -> Result:
    """Learned tokens in front of others: (1, 1, c) each, and (b, n, c)."""
    b, _, c = given.x.shape
    tokens = [movement.expand(tape, token, (b, 1, c)) for token in given.weights]
    return movement.cat(tape, [*tokens, given.x], axis=1)


def select(tape: Tape, given: Operands) -> Result:
    """The first tokens, a view each."""
    made = tuple([movement.select(tape, given.x, 1, place) for place in range(len(given.shapes))])
    return made if len(made) > 1 else made[0]


def add_mask(tape: Tape, given: Operands) -> Result:
    """Add a mask of each window, (r·s, n, m), to the scores of all images, (b·r·s, h, n, m)."""
    scores, mask = given.exactly(2)
    windows = mask.shape[0]
    images = movement.view(tape, scores, (scores.shape[0] // windows, windows, *scores.shape[1:]))
    masked = elementwise.add(tape, images, movement.view(tape, mask, (windows, 1, *mask.shape[1:])))
    return movement.view(tape, masked, scores.shape)


def add_table_bias(tape: Tape, given: Operands) -> Result:
    """Add the bias of each pair of a window's tokens, gathered from a table with a row for each distance."""
    table = given.weights[0] if given.weights else given.inputs[1]
    return elementwise.add(tape, given.x, table_bias(tape, table, given.x.shape[1:]))


def table_bias(tape: Tape, table: Tensor, shape: Shape) -> Tensor:
    """Gather (h, n, m) from a table of (…, h): rows of the table, then heads first, then in one run of memory."""
    h, n, m = shape
    rows = table if table.dim() == 2 else movement.view(tape, table, (prod(table.shape[:-1]), h))
    gathered = movement.gather(tape, rows, (n, m, h))
    return movement.contiguous(tape, movement.permute(tape, gathered, (2, 0, 1)))


def attention(keeps: bool) -> Op:
    """softmax(q·kᵀ·scale)·v in one kernel; `keeps` says whether it is known what it keeps for the backward."""

    def op(tape: Tape, given: Operands) -> Result:
        q, k, v = given.exactly(3)
        return kernels.attention(tape, q, k, v, keeps=keeps)

    return op


def window_bias(tape: Tape, table: Tensor, shape: Shape, mask: Tensor | None) -> Tensor:
    """Return what is added to the scores of a fused kernel: the bias of each pair of a window's tokens, (1, h, n, m).

    With a mask of (r·s, n, m) torch makes a tensor of their sum that is as large as the scores, (b·r·s, h, n, m).

    Args:
        tape: the tape.
        table: of the bias, with a row for each distance.
        shape: of the scores.
        mask: of a shifted grid.
    """
    bias = table_bias(tape, table, shape[1:])
    bias = movement.view(tape, bias, (1, *bias.shape))
    if mask is None:
        return bias
    windows = mask.shape[0]
    masked = elementwise.add(tape, bias, movement.view(tape, mask, (windows, 1, *mask.shape[1:])))
    return movement.repeat(tape, masked, shape)


@cache
def _plan_of(pattern: Pattern) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return the letters in the order of the input, and for each letter of the output its place there."""
    letters = [letter for axis in pattern.inputs[0].axes for letter in axis.letters]
    return tuple(letters), tuple([letters.index(letter) for letter in pattern.outputs[0].letters])


def _arranged(tape: Tape, given: Operands) -> Tensor:
    letters, order = _plan_of(given.letters)
    x = given.x
    if len(letters) != x.dim():
        x = movement.view(tape, x, tuple([given.sizes[letter] for letter in letters]))
    if order != tuple(range(len(order))):
        x = movement.permute(tape, x, order)
    return x if x.shape == given.shapes[0] else movement.reshape(tape, x, given.shapes[0])


@cache
def _parts_of(pattern: Pattern) -> tuple[tuple[tuple[int, tuple[str, ...]], ...], tuple[int, ...]]:
    """Return the axes of (3 h d) apart, each as a number times letters, and the order in which the number is the first and
    the rest are those of each output.

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
        raise ValueError("the operation needs a number in an axis of what it takes, such as (3 h d)")
    return tuple(atoms), (numbers[0], *[atoms.index((1, letters)) for letters in made])
