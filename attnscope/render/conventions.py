"""Counting conventions in words, for published figures and for --details."""

from collections.abc import Mapping, Sequence

from attnscope.reports.report import PublishedFigure

CONVENTIONS = {
    "fvcore: LayerNorm added": ("fvcore", "LayerNorm"),
    "fvcore without SDPA": ("fvcore", "LayerNorm but not fused attention"),
    "Microsoft's flops()": ("Microsoft's flops()", "LayerNorm and pooling"),
}
"""The counter of a convention, and what it counts in addition to MACs; other conventions are described by their names."""

TRUNCATED = ", truncated"
WITHOUT_BIAS_MLP = "MACs without the bias MLP"
"""The convention of Swin V2 that Microsoft's flops() also follows."""


def explanation_of(printed: PublishedFigure, conventions: Mapping[str, int]) -> str:
    """Return the conventions that give a published figure: `equals MACs, rounded`.

    Args:
        printed: the figure; a convention ends in `, truncated` if the figure is not rounded.
        conventions: the MACs of one image by each convention.
    """
    ways = printed.explained_by
    if not ways:
        return "no known convention gives it"
    is_truncated = ways[0].endswith(TRUNCATED)
    named = [_parts(way.removesuffix(TRUNCATED), conventions) for way in ways]
    others = f"; other rows of this source: {_listed(printed.others, conventions)}, rounded" if printed.others else ""
    if len(named) == 1 and named[0][1]:
        ((counter, items),) = named
        return f"{_count(counter)}, which includes {items}{TRUNCATED if is_truncated else ''}{others}"
    return f"equals {_listed(ways, conventions)}{TRUNCATED if is_truncated else ', rounded'}{others}"


def _listed(ways: Sequence[str], conventions: Mapping[str, int]) -> str:
    """Return the counters of conventions: `MACs or Microsoft's flops() (with LayerNorm and pooling)`."""
    named = [_parts(way.removesuffix(TRUNCATED), conventions) for way in ways]
    counts = [f"{_count(counter)} (with {items})" if items else counter for counter, items in named]
    return " or ".join([*filter(None, [", ".join(counts[:-1])]), counts[-1]])


def counted_by(way: str, conventions: Mapping[str, int]) -> str:
    """Return the counter of a convention: `by fvcore, which also counts LayerNorm`, or `MACs without the class token`."""
    counter, items = _parts(way, conventions)
    return f"by {counter}, which also counts {items}" if items else counter


def _parts(way: str, conventions: Mapping[str, int]) -> tuple[str, str]:
    """Return the counter of a convention, and what it counts in addition to MACs, if anything."""
    counter, items = CONVENTIONS.get(way, (way, ""))
    excludes_bias = way == "Microsoft's flops()" and WITHOUT_BIAS_MLP in conventions
    return counter, f"{items} but not the bias MLP" if excludes_bias else items


def _count(counter: str) -> str:
    return f"{counter}'s count" if counter == "fvcore" else counter
