"""Attention among the calls of a module that is not ours: a score, a softmax and a weighted sum, or one fused call.

The score is the last matmul in front of a softmax that made as many elements, and the weighted sum the first behind it
that takes them. What they multiplied for each pair of tokens is the width of a head.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from attnscope.core.axes import Shape
from attnscope.core.sizes import Pair

if TYPE_CHECKING:
    from attnscope.tracing.calls import Call, Mark

LOOK_BACK = 200
"""Calls in front of an attention among which its windows are looked for."""


@dataclass(frozen=True)
class Attention:
    """One attention: `first` and `last` are the indices of the calls from the score to the weighted sum, and `macs`
    are those of the two.

    `windows` is how many windows an image is cut into: 1 is global attention. `window` is their size where it is known.
    `padding` is how many tokens of an image's windows are padding, and `batch` the images.
    """

    path: str
    kind: str
    first: int
    last: int
    tokens: int
    keys: int
    heads: int
    head_dim: int
    windows: int
    window: Pair | None
    grid: bool
    macs: int
    padding: int
    batch: int

    @property
    def likeness(self) -> tuple[object, ...]:
        """Attentions that are alike in this are told together."""
        return (
            self.kind,
            self.tokens,
            self.keys,
            self.heads,
            self.head_dim,
            self.windows,
            self.window,
            self.grid,
            self.padding,
        )


def find_attention(calls: "Sequence[Call]", batch: int) -> list[Attention]:
    """The attentions among the calls of a forward, in their order.

    Args:
        calls: all calls of the forward.
        batch: images in the input, which tells windows from images.
    """
    marks = [(index, mark) for index, call in enumerate(calls) for mark in call.marks]
    return [*_found(calls, marks, batch)]


def _found(calls: "Sequence[Call]", marks: "list[tuple[int, Mark]]", batch: int) -> Iterator[Attention]:
    for at, (index, mark) in enumerate(marks):
        if mark.attend is not None:
            fused = mark.attend
            sizes = (fused.queries, fused.keys, fused.heads, fused.head_dim)
            yield _attention(calls, "fused", (index, index), sizes, fused.rows, batch, fused.macs)
        elif mark.kind == "softmax" and (pattern := _pattern(marks, at)) is not None:
            first, last, score, mix = pattern
            *outer, queries, keys = mark.output
            heads = _heads(outer, mark.heads, batch)
            sizes = (queries, keys, heads, score.macs // math.prod(mark.output))
            kind = "score-softmax-value" if first < last else "fused"
            yield _attention(calls, kind, (first, last), sizes, math.prod(outer) // heads, batch, score.macs + mix.macs)


def _pattern(marks: "list[tuple[int, Mark]]", at: int) -> "tuple[int, int, Mark, Mark] | None":
    """The calls of the score and of the weighted sum around a softmax, and both operators."""
    weights = marks[at][1].output
    elements = math.prod(weights)
    if len(weights) < 2 or not elements:
        return None
    for first, score in reversed(marks[:at]):  # noqa: B007 # it is used below
        if score.kind == "softmax":
            return None
        if score.kind == "mix" and math.prod(score.output) == elements and {*weights[-2:]} <= {*score.output, 1}:
            break
    else:
        return None
    for last, mix in marks[at + 1 :]:
        if mix.kind == "softmax":
            return None
        taken = [shape for shape in mix.inputs if math.prod(shape) == elements and weights[-1] in shape]
        if mix.kind == "mix" and taken and mix.macs % elements == 0:
            return first, last, score, mix
    return None


def _heads(outer: list[int], hint: int | None, batch: int) -> int:
    """The heads among the axes in front of queries and keys; `hint` is what the module says.

    Where all are one axis it is the hint that tells heads from images, unless there are but as many rows as images.
    """
    if hint and hint in outer[1:]:
        return hint
    if len(outer) > 1:
        return outer[-1]
    rows = math.prod(outer)
    if not hint or rows % hint:
        return 1
    return hint if rows % (hint * batch) == 0 or rows % batch else 1


def _attention(
    calls: "Sequence[Call]",
    kind: str,
    span: tuple[int, int],
    sizes: tuple[int, int, int, int],
    rows: int,
    batch: int,
    macs: int,
) -> Attention:
    tokens, keys, heads, head_dim = sizes
    windows = rows // batch if rows % batch == 0 else 1
    window, grid = _window(calls, span[0], tokens, windows, batch) if windows > 1 else (None, False)
    padding = _padding(calls, span[0], windows * tokens, batch * heads * head_dim) if windows > 1 else 0
    return Attention(
        path=_around(calls, *span),
        kind=kind,
        first=span[0],
        last=span[1],
        tokens=tokens,
        keys=keys,
        heads=heads,
        head_dim=head_dim,
        windows=windows,
        window=window,
        grid=grid,
        macs=macs,
        padding=padding,
        batch=batch,
    )


def _around(calls: "Sequence[Call]", first: int, last: int) -> str:
    """The module that an attention stands in."""
    ends = [calls[first].path.split("."), calls[last].path.split(".")]
    shared = 0
    while shared < min(map(len, ends)) and ends[0][shared] == ends[1][shared]:
        shared += 1
    return ".".join(ends[0][:shared])


def _window(calls: "Sequence[Call]", first: int, tokens: int, windows: int, batch: int) -> tuple[Pair | None, bool]:
    """Sides of the windows, from the partition in front of the attention, and whether they are a dilated grid."""
    for call in reversed(calls[max(0, first - LOOK_BACK) : first]):
        for shape in call.outputs:
            if found := _partition(shape, tokens, windows, batch):
                return found
    side = math.isqrt(tokens)
    return ((side, side) if side * side == tokens else None), False


def _padding(calls: "Sequence[Call]", first: int, tokens: int, width: int) -> int:
    """Tokens of an image that are padding, from the call in front of the attention that made as many tokens by padding.

    Args:
        calls: all calls of the forward.
        first: the index of the attention's first call.
        tokens: tokens of all windows of an image.
        width: numbers of a token in all images.
    """
    for call in reversed(calls[max(0, first - LOOK_BACK) : first]):
        if call.name == "pad" and [math.prod(shape) for shape in call.outputs] == [tokens * width]:
            real = sum(map(math.prod, call.inputs[:1])) // width
            return max(tokens - real, 0)
    return 0


def _partition(shape: Shape, tokens: int, windows: int, batch: int) -> tuple[Pair, bool] | None:
    """Read `b (r p) (s q) c` in one of the orders that a partition has it in."""
    if len(shape) != 6 or shape[0] != batch:
        return None
    _, a, b, c, d, _ = shape
    if a * c == windows and b * d == tokens:  # b r p s q c
        return (b, d), False
    if a * b == windows and c * d == tokens:  # b r s p q c
        return (c, d), False
    if b * d == windows and a * c == tokens:  # b p r q s c
        return (a, c), True
    return None
