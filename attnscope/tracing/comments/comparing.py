"""Compare the axes of shape comments with the shapes of values.

The code binds a name first: a local variable, or an attribute of `self`, that is a whole number. Any other name is bound by
the comments of one call of a function. Comments may use such a name again for another size. A comment in which only such
names differ is therefore wrong only if its axes would fit in another order.
"""

import re
from collections import Counter
from collections.abc import Mapping, MutableMapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import permutations
from math import prod

from attnscope.core.axes import Shape, spell
from attnscope.tracing.comments.axes import Axis, Sizes
from attnscope.tracing.comments.reading import BATCH

Axes = tuple[Axis, ...]
LARGEST_STEP = 2
"""Largest difference between the size that a comment says and the real one that a typical mistake explains."""
LARGEST_FACTOR = 16
"""Largest factor by which a mistake makes the size that a comment says too large."""
MAJORITY = 0.75
"""Fraction of the other comments that must give a name the same size to confirm it."""
LETTER = re.compile("[HWTDhwtd]ʼ?")
PRODUCT = re.compile(f"(?:{LETTER.pattern}){{2,3}}")
"""Pattern of names that are products of extents, such as `HW`, unless something else gives them a size."""
MOST_PERMUTED = 6
"""Number of axes up to which all orders of the axes are tried."""


@dataclass(frozen=True)
class Observation:
    """The shapes to one of which a comment applies, and the sizes that the code gives its names.

    `options` are the alternatives of the comment. `others` are the sizes if names are those of attributes before those of
    local variables, and `variables` the sizes of all local variables. `in_code` has those of attributes too, and `batch`
    is the number of images. `is_sure` is False if a comment of another number of
    axes may mean something else. `binds` is True if the code names the axes of the same value, which binds the comment's
    names too. `is_evidence` is True if the comment gives names sizes where it fits, and is not checked.
    """

    options: tuple[Axes, ...] = field(hash=False)
    shapes: tuple[Shape, ...]
    sizes: tuple[tuple[str, int], ...] = ()
    others: tuple[tuple[str, int], ...] = ()
    variables: frozenset[int] = frozenset()
    is_sure: bool = True
    is_evidence: bool = False
    binds: bool = False
    in_code: frozenset[int] = frozenset()
    batch: int | None = None

    @property
    def names(self) -> frozenset[str]:
        """Return the names in the axes, and the expressions."""
        return frozenset(name for axes in self.options for axis in axes for name in (*axis.names, axis.key) if name)

    def is_known(self, bound: Sizes) -> bool:
        """Return whether all axes have sizes."""
        known = {**bound, **dict(self.sizes)}
        return all(axis.tree is None or axis.sizes(known) is not None for axes in self.options for axis in axes)

    def fits(self, bound: Sizes) -> list[dict[str, int]]:
        """Return the new sizes of names under each reading that fits; empty if none does."""
        found = (
            fit(axes, shape, {**bound, **dict(sizes)})
            for sizes in dict.fromkeys((self.sizes, self.others or self.sizes))
            for axes in self.options
            for shape in self.shapes
        )
        return [fresh for fresh in found if fresh is not None]

    def supported_by_code(self, fits: Sequence[Sizes]) -> int:
        """Return how many of the names have a size that is in the code if the comment is right."""
        return max(
            (
                sum(size in self.in_code or (name in BATCH and size == self.batch) for name, size in sizes.items())
                for sizes in fits
            ),
            default=0,
        )

    def is_explained(self, by_code: Sizes, confirmed: Sizes) -> bool:
        """Return whether the comment would fit after a typical correction, so that its names mean those of the code.

        Such a correction is another order of axes, another number of them, a factor, one more or less, or another variable
        of the code. Otherwise a name may mean something else in the comment than in the code.
        """
        by_code = {**by_code, **dict(self.sizes)}
        known = {**confirmed, **by_code}
        return any(
            all(
                axis.number is not None
                or self._is_typical(axis, size, [other.sizes(known) for other in axes], known, by_code)
                for axis, size in aligned
                if fit([axis], (size,), known) is None
            )
            for axes in self.options
            for shape in self.shapes
            if (aligned := _aligned(axes, shape)) is not None
        ) or all(_aligned(axes, shape) is None for axes in self.options for shape in self.shapes)

    def _is_typical(
        self, axis: Axis, size: int, said_by_all: Sequence[range | None], known: Sizes, by_code: Sizes
    ) -> bool:
        """Return whether a size that an axis does not have is a typical mistake for one that it has."""
        said = axis.sizes(known)
        if said is None:
            return True  # a name of the axis has no size, and its arithmetic cannot give this one
        is_by_comments = axis.is_name or any(name not in known for name in axis.names)
        if is_by_comments and not by_code.keys() >= set(axis.names):  # comments may use it again for another size
            return range(size, size + 1) in said_by_all
        return size in self.variables or any(
            abs(size - each) <= LARGEST_STEP
            or (each > 0 and size % each == 0)
            or (size > 0 and each % size == 0 and each // size <= LARGEST_FACTOR)
            for each in (*said, *(known[name] for name in axis.names))
        )

    def is_comparable(self) -> bool:
        """Return whether the comment surely says a shape, and not for example what the last axis of the values holds."""
        return any(
            (self.is_sure or len(axes) == len(shape)) and not _may_list_contents(axes, shape)
            for axes in self.options
            for shape in self.shapes
        )

    def misfits(self, bound: Sizes) -> set[str]:
        """Return the names in the axes that differ from the shapes with the same number of axes."""
        known = {**bound, **dict(self.sizes)}
        pairs = [pair for axes in self.options for shape in self.shapes for pair in _aligned(axes, shape) or ()]
        return {name for axis, size in pairs if fit([axis], (size,), known) is None for name in axis.names}

    def wrong(self, bound: Sizes) -> tuple[str, Shape]:
        """Return the shape that the comment says, in text, and the shape of the value that is closest to it."""
        axes, shape = min(
            ((axes, shape) for axes in self.options for shape in reversed(self.shapes)),  # the last value first
            key=lambda pair: abs(len(pair[0]) - len(pair[1])),
        )
        return says(axes, shape, {**bound, **dict(self.sizes)}), shape


def judge(observations: Sequence[Observation]) -> list[tuple[str, Shape] | None]:
    """Return for each comment of one call of a function None, or what is wrong with it.

    Args:
        observations: the comments, in the order in which their lines ran.

    Returns:
        For each comment None if it is right or uncertain, else the shape that it says, in text, and that of the value.
    """
    results: list[tuple[str, Shape] | None] = [None] * len(observations)
    by_code: dict[str, int] = {}
    fits = [each.fits({}) for each in observations]
    votes = _votes(fits)
    evidence = [(vote, each.supported_by_code(fit)) for vote, each, fit in zip(votes, observations, fits, strict=True)]
    bound: list[tuple[int, dict[str, int]]] = []  # the comments that gave sizes, and these sizes
    for index in _most_agreed(observations, evidence):
        each = observations[index]
        confirmed = {**_confirmed(each, [*fits[:index], *fits[index + 1 :]]), **by_code}
        first = {name: size for _, sizes in reversed(bound) for name, size in sizes.items()} | by_code
        others = [known for _, sizes in bound if each.is_known(known := {**sizes, **by_code})]
        stronger = {name for giver, sizes in bound if evidence[giver] > evidence[index] for name in sizes}
        fitting = next((fresh for known in (first, *others) for fresh in each.fits(known)), None)
        if fitting is not None and (each.fits(confirmed) or not each.is_explained(by_code, confirmed)):
            if each.binds:
                by_code |= fitting
            else:
                bound += [(index, fitting)] + [(index, sizes) for sizes in fits[index][:1] if sizes != fitting]
        elif each.is_evidence:
            continue
        elif each.is_comparable() and _is_wrong(each, by_code, confirmed, [first, *others], stronger):
            results[index] = each.wrong(first)
        else:
            bound += [(index, sizes) for sizes in fits[index][:1]]
    return results


def mismatch(axes: Axes, shape: Shape, local_sizes: Sizes, bound: MutableMapping[str, int]) -> str | None:
    """Compare a shape with the axes of one comment.

    Args:
        axes: the axes of the comment.
        shape: the shape of the value.
        local_sizes: sizes of names in the code.
        bound: sizes that earlier comments gave to other names; new names are added.

    Returns:
        None if they agree, else the shape that the comment says: `(B, N, C) = 1×49×96`.
    """
    each = Observation((axes,), (shape,), tuple(local_sizes.items()))
    if fitting := each.fits(bound):
        bound.update(fitting[0])
        return None
    wrong = each.is_comparable() and _is_wrong(each, {}, {}, [bound])
    return each.wrong(bound)[0] if wrong else None


def fit(axes: Sequence[Axis], shape: Shape, known: Sizes) -> dict[str, int] | None:
    """Return the sizes of the names that have none yet if the axes may have this shape; None if they cannot."""
    aligned = _aligned(axes, shape)
    if aligned is None:
        return None
    fresh: dict[str, int] = {}
    # plain names first, so that h is known when C/h is read
    for axis, size in sorted(aligned, key=lambda pair: not pair[0].is_name):
        sizes = {**fresh, **known}
        allowed = axis.sizes(sizes)
        if allowed is not None:
            if size not in allowed:
                return None
        elif (solved := axis.solve(size, sizes)) is not None:
            name, its_size = solved
            if its_size is None:
                return None
            fresh[name] = its_size
    return fresh


def says(axes: Sequence[Axis], shape: Shape, sizes: Sizes) -> str:
    """Return the shape that a comment says, in text, with the sizes of its names that are known."""
    written = f"({', '.join(axis.text for axis in axes)})"
    if any(axis.is_ellipsis for axis in axes):
        least = sum(not axis.is_ellipsis for axis in axes)
        if len(shape) < least:
            return f"{written}, at least {least} axes"
        axes = [axis for axis in axes if not axis.is_ellipsis]
    elif len(axes) != len(shape):
        known = _known(axes, sizes)
        expected = "" if None in known else f" = {spell(tuple(size for size in known if size is not None))}"
        return f"{written}{expected}, {len(axes)} axes"
    # the names that have no size get that of their axis, as they would in the comparison
    local = dict(sizes)
    if len(axes) == len(shape):
        for axis, size in zip(axes, shape, strict=True):
            if axis.is_name:
                local.setdefault(axis.names[0], size)
    return f"{written} = {'×'.join('?' if size is None else str(size) for size in _known(axes, local))}"


def _known(axes: Sequence[Axis], sizes: Sizes) -> list[int | None]:
    return [allowed.start if (allowed := axis.sizes(sizes)) is not None else None for axis in axes]


def _aligned(axes: Sequence[Axis], shape: Shape) -> list[tuple[Axis, int]] | None:
    """Return each axis with its size, without those of an ellipsis; None if the number of axes differs."""
    dots = [index for index, axis in enumerate(axes) if axis.is_ellipsis]
    if len(dots) > 1:
        return []
    if not dots:
        return list(zip(axes, shape, strict=True)) if len(axes) == len(shape) else None
    if len(shape) < len(axes) - 1:
        return None
    after = len(axes) - dots[0] - 1
    ends = shape[: dots[0]] + shape[len(shape) - after :]
    return list(zip([axis for axis in axes if not axis.is_ellipsis], ends, strict=True))


def _may_list_contents(axes: Axes, shape: Shape) -> bool:
    """Return whether names may be those of the elements of the last axis, such as `(x1, y1, x2, y2)` of boxes."""
    return len(axes) != len(shape) and shape[-1:] == (len(axes),) and all(axis.is_name for axis in axes)


def _votes(fits: Sequence[Sequence[Mapping[str, int]]]) -> list[int]:
    """Return for each comment the number of others that share names with it and give them the same sizes."""
    return [
        sum(other != index and _agree(mine, theirs) for other, theirs in enumerate(fits))
        for index, mine in enumerate(fits)
    ]


def _most_agreed(observations: Sequence[Observation], evidence: Sequence[tuple[int, int]]) -> list[int]:
    """Return the places of the comments in the order in which they bind names: those with most evidence first."""

    def order(index: int) -> tuple[bool, int, int, int]:
        votes, supported = evidence[index]
        return not observations[index].binds, -votes, -supported, index

    return sorted(range(len(observations)), key=order)


def _confirmed(each: Observation, others: Sequence[Sequence[Mapping[str, int]]]) -> dict[str, int]:
    """Return the names of a comment to which most other comments give one size, at least two of them."""
    confirmed = {}
    for name in each.names:
        sizes = Counter(fresh[0][name] for fresh in others if fresh and name in fresh[0])
        for size, count in sizes.most_common(1):
            if count > 1 and count > MAJORITY * sizes.total():
                confirmed[name] = size
    return confirmed


def _agree(some: Sequence[Mapping[str, int]], others: Sequence[Mapping[str, int]]) -> bool:
    """Return whether two comments share names and give them the same sizes."""
    return any(
        bool(shared := mine.keys() & theirs.keys()) and all(mine[name] == theirs[name] for name in shared)
        for mine in some
        for theirs in others
    )


def _is_wrong(
    each: Observation, by_code: Sizes, confirmed: Sizes, bounds: Sequence[Sizes], stronger: Set[str] = frozenset()
) -> bool:
    """Return whether a comment that does not fit is wrong, rather than one whose names mean something else.

    Args:
        each: the comment.
        by_code: sizes of names that the code binds.
        confirmed: the same, and sizes of names on which most other comments agree.
        bounds: sizes that comments gave to names.
        stronger: names to which comments gave sizes that have more evidence than this comment.
    """
    if not each.fits(confirmed):
        return each.is_explained(by_code, confirmed) or _fits_in_another_order(each, confirmed)
    known = stronger | by_code.keys()
    return any(
        _fits_in_another_order(each, bound, moves_unknown=False)
        or (each.is_known(bound) and each.misfits(bound) <= known and each.is_explained(by_code, bound))
        for bound in [_with_products(each, bound) for bound in bounds]
    )


def _with_products(each: Observation, bound: Sizes) -> dict[str, int]:
    """Return the sizes of names, and those of names such as `HW` whose letters have sizes."""
    known = {**bound, **dict(each.sizes)}
    products = {
        name: prod(known[letter] for letter in letters)
        for name in each.names
        if PRODUCT.fullmatch(name) and known.keys() >= set(letters := LETTER.findall(name))
    }
    return {**products, **known}


def _fits_in_another_order(each: Observation, bound: Sizes, moves_unknown: bool = True) -> bool:
    """Return whether a comment would fit with its axes in another order; those of unknown size may have to keep theirs."""
    known = {**bound, **dict(each.sizes)}
    return any(
        fit(order, shape, known) is not None
        for axes in each.options
        if len(axes) <= MOST_PERMUTED
        for order in permutations(axes)
        if moves_unknown
        or all(
            axis is here or axis.tree is None or axis.sizes(known) is not None
            for axis, here in zip(order, axes, strict=True)
        )
        for shape in each.shapes
    )
