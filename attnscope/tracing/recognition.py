"""Recognize attention among the calls of a third-party module: score, softmax and weighted sum, or one fused call.

The score is the last matmul before a softmax whose output has as many elements. The weighted sum is the first matmul after
it that takes these elements. The head dimension is the number of MACs of the score per pair of query and key.
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
"""Number of calls before an attention that are searched for its window partition and its padding."""


@dataclass(frozen=True)
class Attention:
    """One recognized attention.

    `first` and `last` are the indices of the calls of the score and of the weighted sum, and `macs` their MACs together.
    `windows` is the number of windows of an image, 1 for global attention. `window` is their size, None if unknown.
    `padding` is the number of padding tokens in the windows of an image. `batch` is the number of images.
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
        """Return the key by which equal attentions are reported together."""
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


def find_attention(calls: "Sequence[Call]", batch: int, inputs: Sequence[Shape] = ()) -> list[Attention]:
    """Find the attentions among the calls of a forward, in their order.

    Args:
        calls: all calls of the forward.
        batch: size of the first axis of the input, which is the number of images if images are first.
        inputs: shapes of the inputs of the traced module.
    """
    marks = [(index, mark) for index, call in enumerate(calls) for mark in call.marks]
    return [*_found(calls, marks, _images([mark for _, mark in marks], batch, inputs))]


def _images(marks: "Sequence[Mark]", batch: int, inputs: Sequence[Shape]) -> int:
    """Return the number of images, which separates windows from images.

    Images are second in an input `n b c` or `n b` if an attention has n queries in rows of b. An input with one image may
    be broadcast to the others.
    """
    for queries, rows in filter(None, map(_queries_and_rows, marks)):
        for shape in inputs:
            if len(shape) in (2, 3) and shape[0] == queries and shape[1] == rows:
                return shape[1]
    first = inputs[0] if inputs else ()
    if first[:1] == (1,) == (batch,):
        return max(shape[0] for shape in inputs if len(shape) == len(first)) or 1
    return batch


def _queries_and_rows(mark: "Mark") -> tuple[int, int] | None:
    """Return the number of queries of an attention or softmax, and its rows without heads; None for another operator."""
    if mark.attend is not None:
        return mark.attend.queries, mark.attend.rows
    if mark.kind != "softmax" or len(mark.output) < 3:
        return None
    *outer, queries, _ = mark.output
    return queries, math.prod(outer[:-1]) if outer[1:] else outer[0] // (mark.heads or 1)


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
    """Find the score and the weighted sum around a softmax.

    Returns:
        The indices of both calls, and both operators; None if the softmax is not part of an attention.
    """
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
    """Return the number of heads among the axes before queries and keys.

    Args:
        outer: sizes of these axes.
        hint: the number of heads that the module has as an attribute, if any. If heads and images share one axis, it
            separates them, unless the axis has no more rows than images.
        batch: number of images in the input.
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
    """Return the path of the innermost module that contains an attention."""
    ends = [calls[first].path.split("."), calls[last].path.split(".")]
    shared = 0
    while shared < min(map(len, ends)) and ends[0][shared] == ends[1][shared]:
        shared += 1
    return ".".join(ends[0][:shared])


def _window(calls: "Sequence[Call]", first: int, tokens: int, windows: int, batch: int) -> tuple[Pair | None, bool]:
    """Return the sides of the windows, None if unknown, and whether they form a dilated grid.

    Both come from the partition before the attention. Without one, a square number of tokens is taken as a square window.
    """
    for call in reversed(calls[max(0, first - LOOK_BACK) : first]):
        for shape in call.outputs:
            if found := _partition(shape, tokens, windows, batch):
                return found
    side = math.isqrt(tokens)
    return ((side, side) if side * side == tokens else None), False


def _padding(calls: "Sequence[Call]", first: int, tokens: int, width: int) -> int:
    """Return the number of padding tokens of an image, from a `pad` call before the attention that returns its tokens.

    Args:
        calls: all calls of the forward.
        first: index of the first call of the attention.
        tokens: number of tokens in all windows of an image.
        width: embedding dimension times the number of images.
    """
    for call in reversed(calls[max(0, first - LOOK_BACK) : first]):
        if call.name == "pad" and [math.prod(shape) for shape in call.outputs] == [tokens * width]:
            real = sum(map(math.prod, call.inputs[:1])) // width
            return max(tokens - real, 0)
    return 0


def _partition(shape: Shape, tokens: int, windows: int, batch: int) -> tuple[Pair, bool] | None:
    """Match a shape with the axes of a window partition, `b (r p) (s q) c`, in one of their orders.

    Returns:
        The sides of a window, and whether the windows form a dilated grid; None if the shape does not match.
    """
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
