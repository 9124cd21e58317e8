"""The largest batch and resolution of each contender that fit in a memory of a given size. No torch."""

from collections.abc import Callable
from dataclasses import replace

from attnscope.analyses.contenders import Meeting, Place
from attnscope.analyses.crossovers import Grower
from attnscope.attentions.spec import Spec
from attnscope.core.errors import UsageError, quoted
from attnscope.core.units import read_size
from attnscope.plan.memory import Memory
from attnscope.profiling.building import FORWARD, needed_bytes
from attnscope.profiling.options import RunOptions
from attnscope.reports.comparison import Comparison, Fit

TRAINING = replace(FORWARD, backward=True)
"""The options of a run with a backward."""
LARGEST_BATCH, LARGEST_SIDE = 2**24, 2**16
"""The ends of a search."""


def read_limit(text: str) -> int:
    """Parse the size of a memory, such as `16GiB`, into bytes.

    Raises:
        UsageError: the text is not a size of at least one byte.
    """
    size = read_size(text)
    if size is None or size < 1:
        raise UsageError(f"{{memory_limit}} must be a size, such as 16GiB or 800MB (got {quoted(text)})")
    return int(size)


def set_fits(comparison: Comparison, meeting: Meeting, limit: int) -> None:
    """Find the largest batch, and the largest side of a square grid, with which each contender fits in `limit` bytes.

    The batch is searched at the reference point, and the side with the batch of that point. A contender that cannot take
    that point has no results.
    """
    place = meeting.place(comparison.points[comparison.reference].at)
    comparison.memory_limit = limit
    specs = meeting.specs(place)
    comparison.fits = [
        _fit(Grower(contender, place, specs[contender.label]), place, limit)
        for contender in meeting.contenders
        if contender.label in specs
    ]


def _fit(grower: Grower, place: Place, limit: int) -> Fit:
    memory = Memory(grower.spec.plan())

    def largest(of: Callable[[int], Spec], options: RunOptions, unit: int, most: int) -> int | None:
        return _largest(lambda size: needed_bytes(of(size).plan(), options) <= limit, unit, most)

    def of_batch(batch: int) -> Spec:
        return grower.contender.at(place.grid, {**place.values, "batch": batch})

    def of_side(side: int) -> Spec:
        return grower.contender.at((side, side), place.values)

    return Fit(
        grower.label,
        largest(of_batch, FORWARD, 1, LARGEST_BATCH),
        largest(of_side, FORWARD, grower.unit, LARGEST_SIDE),
        largest(of_batch, TRAINING, 1, LARGEST_BATCH),
        largest(of_side, TRAINING, grower.unit, LARGEST_SIDE),
        is_exact=memory.peak is not None and None not in memory.training,
        needs=needed_bytes(of_batch(1).plan(), FORWARD),
        training_needs=needed_bytes(of_batch(1).plan(), TRAINING),
    )


def _largest(fits: Callable[[int], bool], unit: int, most: int) -> int | None:
    """Return the largest multiple of a unit that fits, by bisection; None if none does.

    A size that a Spec refuses does not fit, unless it is below the first one that it takes.
    """

    def does(times: int) -> bool | None:
        try:
            return fits(times * unit)
        except UsageError:
            return None

    low = next((times for times in range(1, 65) if does(times) is not None), None)
    if low is None or not does(low):
        return None
    high = 2 * low
    while high * unit <= most and does(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if does(middle) else (low, middle)
    return low * unit
