"""Read from the axes of an attention how its queries are arranged: heads, images, windows, and the sides of a window."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby
from math import prod

from attnscope.core.axes import Shape
from attnscope.tracing.flow.axes import BATCH, FEATURE, TOKEN, UNKNOWN, Atom, Axis, Root, joined, size_of
from attnscope.tracing.flow.rules import EXPANDED


@dataclass(frozen=True)
class Places:
    """The arrangement of the queries of an attention.

    Args:
        heads: number of heads; None if unknown.
        images: number of images.
        windows: number of groups of queries in an image that have keys of their own.
        sides: sizes of a window along each axis of the image; None if unknown, or if there is one window.
        grid: whether the tokens of a window are not neighbours, but at a regular distance.
        padding: number of padding tokens in all windows of an image.
        more: number of tokens of a window that are not from the image, such as registers.
        sequence_first: whether the first axis of the input counts tokens and the second one images.
        plane: sizes of the grid of queries of an image, without padding; None if unknown. It does not tell attentions
            apart.
        key_plane: sizes of the grid of the keys of a query; None if unknown.
    """

    heads: int | None
    images: int
    windows: int
    sides: Shape | None = None
    grid: bool = False
    padding: int = 0
    more: int = 0
    sequence_first: bool = False
    plane: Shape | None = field(default=None, compare=False)
    key_plane: Shape | None = field(default=None, compare=False)


def places_of(batch: Axis, rows: Axis, contracted: Axis, images: int, keys: Axis = ()) -> Places:
    """Return the arrangement of an attention.

    Args:
        batch: the axes that queries and keys share.
        rows: the axes of the queries of one window.
        keys: the axes of its keys, whose places show the window if all windows share their queries.
        contracted: the axis over which q·kᵀ sums.
        images: number of images in the inputs of the forward.
    """
    heads, counted, groups = _sorted(batch, rows, contracted, images)
    second = [atom for atom in groups if atom.root.how == "input" and atom.root.start == 1]
    is_first = any(atom.root.how == "input" and atom.root.start == 0 for atom in rows)
    sequence_first = bool(not counted and second and (is_first or size_of(second) == images))
    if sequence_first:
        counted, groups = second, [atom for atom in groups if atom not in second]
    is_known = all(atom.root.kind != UNKNOWN for atom in groups)
    count, windows = size_of(counted), size_of(groups)
    # as many images as in other inputs, of whose windows, frames or rows nothing is known
    are_of_images = any(_is_first(atom) for atom in groups)
    if are_of_images and not counted and windows % images == 0:
        count, windows = images, windows // images
    rows, more = _within_image(rows, groups)
    sides, grid = window_of(rows, groups) if groups else (None, False)
    if groups and sides is None and size_of(keys) == size_of(rows):
        sides, grid = window_of(keys, groups)
    return Places(
        size_of(heads) if heads or is_known else None,
        count,
        windows,
        sides,
        grid,
        _padding([*rows, *groups]) if groups else 0,
        more,
        sequence_first,
        None if are_of_images else _pooled_plane(rows, keys) or plane_of(rows, groups),
        plane_of(keys, ()),
    )


def _sorted(batch: Axis, rows: Axis, contracted: Axis, images: int) -> tuple[list[Atom], list[Atom], list[Atom]]:
    """Return the Atoms of the shared axes that count heads, images, and windows."""
    projected = {atom.root for atom in contracted}
    as_given = bool(projected) and all(root.how == "input" for root in projected)
    heads: list[Atom] = []
    counted: list[Atom] = []
    groups: list[Atom] = []
    for atom in batch:
        # without projections, an axis of the input between images and tokens counts heads; queries may have no images
        is_head = atom.root.kind == FEATURE or atom.root in projected
        is_given = as_given and atom.root.how == "input" and atom.root.kind == TOKEN
        is_head |= is_given and (atom.root.start == 1 or (atom.root.start, atom.root.rank) == (0, 3))
        (heads if is_head else counted if atom.root.kind == BATCH else groups).append(atom)
    if heads:  # queries and keys that are equal along an axis differ in their values alone, as heads that share them do
        heads += [atom for atom in groups if _is_repeated(atom)]
        groups = [atom for atom in groups if not _is_repeated(atom)]
    unknown = [atom for atom in groups if atom.root.kind == UNKNOWN]
    if not counted and unknown and size_of(unknown) == images:
        return heads, unknown, [atom for atom in groups if atom not in unknown]
    return heads, counted, groups


def _is_repeated(atom: Atom) -> bool:
    """Return whether the positions of an Atom are copies of one, of an unknown kind."""
    return atom.root.kind == UNKNOWN and atom.root.how == EXPANDED


def _within_image(rows: Axis, groups: Iterable[Atom]) -> tuple[Axis, int]:
    """Return the tokens of a window that are of the image which the windows divide, and the number of the others.

    Others are joined with them, such as registers, or a token for the window. Without any, the rows stay as they are. So
    do those of one axis: the parts of a sequence may be frames as well.
    """
    divided = {atom.root for atom in groups}
    if len(rows) != 1 or rows[0].size != rows[0].root.size:
        return rows, 0
    parts = [part for part in rows[0].root.parts if len(part) > 1]
    own = [part for part in parts if divided.issuperset([atom.root for atom in part])]
    return (own[0], rows[0].size - size_of(own[0])) if len(own) == 1 else (rows, 0)


Part = tuple[Atom, int]
"""Positions of a Root, and the side of a window along them; 0 if they count windows."""


def window_of(rows: Axis, groups: Iterable[Atom]) -> tuple[Shape | None, bool]:
    """Return the sides of a window, None if unknown, and whether it is dilated.

    Along an axis of the image, the tokens of a window are neighbours if the windows are its outer part. They are at a
    distance if the windows are its inner part. The first axis of an input may count windows of any shape.
    """
    if any(_is_first(atom) for atom in groups):
        return None, False
    parts = _parts(rows, groups)
    if any(atom.root.how == "cat" and len(parts.get(atom.root, ())) == 1 for atom in rows):
        return None, False  # windows with tokens from elsewhere
    sides: list[int] = []
    dilated = False
    for root in sorted(parts, key=_age):
        found = _sides_along(root, parts[root])
        if root.kind != TOKEN or found is None:
            return None, False
        sides += found[0]
        dilated |= found[1]
    while len(sides) > 2 and sides[0] == 1:
        del sides[0]  # frames, or groups of images
    return (tuple(sides) or None), dilated


def _is_first(atom: Atom) -> bool:
    """Return whether an Atom is of the first axis of an input."""
    return atom.root.how == "input" and atom.root.start == 0


def _parts(rows: Axis, groups: Iterable[Atom]) -> dict[Root, list[Part]]:
    """Return the parts of each Root that windows and the tokens of a window count."""
    parts: dict[Root, list[Part]] = defaultdict(list)
    for atom in groups:
        parts[atom.root].append((atom, 0))
    for atom in rows:
        origin = atom.root.origin
        is_pooled = len(origin) == 1 and atom.root.how != "cat" and atom.size == atom.root.size
        if is_pooled and origin[0].root in parts:  # inside of windows
            parts[origin[0].root].append((origin[0], atom.size))
        else:
            parts[atom.root].append((atom, atom.size))
    return parts


def _age(root: Root) -> tuple[int, int, int]:
    """Return a key that sorts Roots in the order of the axes that they came from.

    Padded axes may come from one sequence that was viewed as a grid. The outer one has the larger stride in it.
    """
    stride = max([atom.stride for atom in root.origin], default=1)
    return min(each.number for each in root.line), -stride, root.number


def plane_of(rows: Axis, groups: Iterable[Atom]) -> Shape | None:
    """Return the sizes of the grid of all queries, without padding; None if some of them are not on a grid."""
    parts = _parts(rows, groups)
    sides = []
    for root in sorted(parts, key=_age):
        runs = _runs(root, parts[root])
        if root.kind != TOKEN or runs is None:
            return None
        sizes = [size for _, size in runs]
        # a sequence may be viewed as a grid: each side has windows, and the tokens of a window
        found = [prod(sizes[place : place + 2]) for place in range(0, len(sizes), 2)][::-1]
        is_whole = root.how == "pad" and found == [root.size]
        sides += [size_of(root.origin)] if is_whole else found
    return tuple(sides) or None


def _pooled_plane(rows: Axis, keys: Axis) -> Shape | None:
    """Return the sizes of the grid that pooled keys come from, if its tokens are the queries; else None.

    The queries may be a sequence, of which only the keys show the sides.
    """
    origins = [atom.root.origin for atom in keys if atom.root.how == "pooled" and atom.size == atom.root.size]
    if len(origins) != len(keys) or joined(atom for origin in origins for atom in origin) != rows:
        return None
    return tuple(map(size_of, origins)) or None


def _sides_along(root: Root, parts: list[Part]) -> tuple[list[int], bool] | None:
    """Return the sides of a window along one Root, and whether it is dilated; None if the parts are not all of the Root."""
    runs = _runs(root, parts)
    if runs is None:
        return None
    if len(runs) == 1:
        inside, size = runs[0]
        if not inside and min(atom.stride for atom, _ in parts) > 1:
            return None  # the tokens inside of these windows are not the queries
        return [size] if inside else [] if root.how == "windows" else [1], False
    return [size for inside, size in runs if inside][::-1], not runs[0][0]


def _runs(root: Root, parts: list[Part]) -> list[tuple[bool, int]] | None:
    """Return the sizes of the runs of parts inside of a window (True) and of windows (False), the innermost run first.

    It is None if the parts are not all of the Root. The innermost positions may be missing, if neighbours were merged into
    one token.
    """
    parts = sorted(parts, key=lambda part: part[0].stride)
    stride = parts[0][0].stride
    for atom, _ in parts:
        if atom.stride != stride:
            return None
        stride *= atom.size
    if stride != root.size:
        return None
    return [
        (inside, prod(side or atom.size for atom, side in run))
        for inside, run in groupby(parts, lambda part: part[1] > 0)
    ]


def _padding(atoms: Iterable[Atom]) -> int:
    """Return the number of padding tokens among the positions of these Atoms.

    A merging before the attention may have padded an axis, of which the tokens are then every second position. That
    padding is inside of the tokens, and none of them is padding.
    """
    counts: dict[Root, int] = {}
    for atom in atoms:
        counts[atom.root] = counts.get(atom.root, 1) * atom.size
    real = [
        size_of(root.origin) if root.how == "pad" and count == root.size else count for root, count in counts.items()
    ]
    return prod(counts.values()) - prod(real)
