"""What happens to one tensor between two cuts: collectives on the axis of a letter."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from attnscope.core.axes import Factors
from attnscope.core.axes import Tensor as Letters
from attnscope.plan.halo import Needs, overlaps
from attnscope.plan.mesh import Shards
from attnscope.plan.sharding import Exchange
from attnscope.sharding.collectives import AllGather, AllReduce, AllToAll, Copy, Group, ReduceScatter


class Ranks:
    """The ranks along one axis of a mesh: their process group, their number, and the number of this one."""

    def __init__(self, group: Group, count: int, own: int) -> None:
        self.group, self.count, self.own = group, count, own


def moved(x: Tensor, exchange: Exchange, ranks: Ranks) -> Tensor:
    """Return a tensor after what happens to it before or after a step.

    Args:
        x: the tensor on this rank.
        exchange: what happens.
        ranks: the ranks along the mesh axis.
    """
    move, letters = exchange.move, exchange.tensor
    source, target = move.source, move.target
    if move.kind == "copy":
        return Copy.apply(x, ranks.group)
    if move.kind == "all-reduce":
        return AllReduce.apply(x, ranks.group)
    placed = source or target
    assert placed is not None
    if move.kind == "halo":
        axis = next(place for place, each in enumerate(letters.axes) if placed.letter in each.letters)
        return neighbours(x, axis, placed.shards, move.needs, ranks)
    at, apart = unfolded(x, letters, exchange.sizes)
    axis = at[placed.letter]
    if move.kind == "slice":
        assert target is not None
        made = cut(apart, axis, target.shards, ranks.own)
    elif move.kind == "all-gather":
        made = gathered(apart, axis, placed.shards, ranks)
    elif move.kind == "reduce-scatter":
        made = scattered(apart, axis, placed.shards, ranks)
    else:
        assert source is not None
        assert target is not None
        made = transposed(apart, axis, at[target.letter], source.shards, target.shards, ranks)
    return folded(made, letters)


def words_of(axis: Factors) -> list[str]:
    """Return the numbers and letters of an axis in their order: `["3", "h", "d"]`."""
    return axis.text.strip("()").split()


def unfolded(x: Tensor, letters: Letters, sizes: dict[str, int]) -> tuple[dict[str, int], Tensor]:
    """Return the axis of each letter, and a view in which each letter has one."""
    shape: list[int] = []
    at: dict[str, int] = {}
    for axis, size in zip(letters.axes, x.shape, strict=True):
        words = words_of(axis)
        at |= {word: len(shape) + number for number, word in enumerate(words) if word.isalpha()}
        shape += [size] if len(words) == 1 else [sizes[word] if word.isalpha() else int(word) for word in words]
    return at, x.reshape(shape)


def folded(x: Tensor, letters: Letters) -> Tensor:
    """Return a tensor with the axes of its letters, the inverse of `unfolded`."""
    for place, axis in enumerate(letters.axes):
        count = len(words_of(axis))
        if count > 1:
            x = x.flatten(place, place + count - 1)
    return x


def cut(x: Tensor, axis: int, shards: Shards, rank: int) -> Tensor:
    """Return a rank's part of an axis."""
    return x.narrow(axis, sum(shards[:rank]), shards[rank])


def gathered(x: Tensor, axis: int, shards: Shards, ranks: Ranks) -> Tensor:
    """Return the parts of all ranks along an axis; shorter parts are padded on the way."""
    most = max(shards)
    parts = AllGather.apply(padded(x, axis, most).movedim(axis, 0).contiguous(), ranks.group).movedim(0, axis)
    if len(set(shards)) == 1:
        return parts
    return torch.cat([parts.narrow(axis, rank * most, size) for rank, size in enumerate(shards)], axis)


def scattered(x: Tensor, axis: int, shards: Shards, ranks: Ranks) -> Tensor:
    """Return this rank's part along an axis of the sum over ranks."""
    most = max(shards)
    if len(set(shards)) > 1:
        x = torch.cat([padded(part, axis, most) for part in x.split(list(shards), axis)], axis)
    made = ReduceScatter.apply(x.movedim(axis, 0).contiguous(), ranks.group).movedim(0, axis)
    return made.narrow(axis, 0, shards[ranks.own])


def padded(x: Tensor, axis: int, size: int) -> Tensor:
    """Return a tensor with zeros at the end of an axis, up to a size."""
    missing = size - x.shape[axis]
    return F.pad(x, (*[0, 0] * (x.dim() - 1 - axis), 0, missing)) if missing else x


def transposed(x: Tensor, source: int, target: int, given: Shards, taken: Shards, ranks: Ranks) -> Tensor:
    """Return a tensor that is cut along another axis.

    Args:
        x: the tensor, cut along the axis `source`.
        source, target: the axes that are cut before and after.
        given: sizes of the axis `source` on the ranks.
        taken: sizes of the axis `target` on the ranks.
        ranks: the ranks.
    """
    parts = x.split(list(taken), target)
    shapes = []
    for size in given:
        shape = list(parts[ranks.own].shape)
        shape[source] = size
        shapes.append(shape)
    return torch.cat(sent(parts, shapes, ranks), source)


def neighbours(x: Tensor, axis: int, shards: Shards, needs: Needs, ranks: Ranks) -> Tensor:
    """Return the places along an axis that this rank needs, in the order of its needs.

    Args:
        x: the places that this rank has.
        axis: the axis.
        shards: the sizes of the cut letter.
        needs: the places that each rank needs; several places may belong to one value of the letter.
        ranks: the ranks.
    """
    places = x.shape[axis] // shards[ranks.own]
    first = places * sum(shards[: ranks.own])
    parts = []
    for other in range(ranks.count):
        found = overlaps(shards, places, needs[other], ranks.own)
        pieces = [x.narrow(axis, each.start - first, len(each)) for each in found]
        parts.append(torch.cat(pieces, axis) if pieces else x.narrow(axis, 0, 0))
    found_by = [overlaps(shards, places, needs[ranks.own], other) for other in range(ranks.count)]
    shapes = []
    for found in found_by:
        shape = list(x.shape)
        shape[axis] = sum(map(len, found))
        shapes.append(shape)
    received = sent(parts, shapes, ranks)
    places_of: dict[int, Tensor] = {}
    for each, found in zip(received, found_by, strict=True):
        places_of |= dict(zip([part.start for part in found], each.split(list(map(len, found)), axis), strict=True))
    ordered = [start for need in needs[ranks.own] for start in sorted(places_of) if start in need]
    return torch.cat([places_of[start] for start in ordered], axis)


def sent(parts: Sequence[Tensor], shapes: Sequence[Sequence[int]], ranks: Ranks) -> list[Tensor]:
    """Send a part to each rank, and return those that they send, of these shapes."""
    sends = [part.numel() for part in parts]
    receives = [torch.Size(shape).numel() for shape in shapes]
    flat = torch.cat([part.reshape(-1) for part in parts])
    made = AllToAll.apply(flat, sends, receives, ranks.group)
    return [piece.view(list(shape)) for piece, shape in zip(made.split(receives), shapes, strict=True)]


def passed_on(x: Tensor, ranks: Ranks) -> Tensor:
    """Send a tensor to the next rank, and return that of the previous one; all have the same shape."""
    sends, receives = [0] * ranks.count, [0] * ranks.count
    sends[(ranks.own + 1) % ranks.count] = x.numel()
    receives[(ranks.own - 1) % ranks.count] = x.numel()
    return AllToAll.apply(x.reshape(-1), sends, receives, ranks.group).view(x.shape)
