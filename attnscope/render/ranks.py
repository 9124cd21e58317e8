"""A Comparison over numbers of ranks in words: the smallest cost, and where communication exceeds computation."""

from collections.abc import Sequence

from attnscope.render import words
from attnscope.reports.comparison import Comparison


def rank_finding(comparison: Comparison, noun: str) -> str:
    """Return the smallest and the largest cost of one rank at the reference point, and where communication takes longer.

    Args:
        comparison: a comparison over numbers of ranks.
        noun: the quantity in words.
    """
    point = comparison.points[comparison.reference]
    known = {label: cost for label, cost in point.costs.items() if cost is not None}
    ranks = point.at["ranks"]
    text = f"On {ranks} rank{'s' if ranks > 1 else ''}, {noun}: "
    if not known:
        return f"{text}unknown.{_communication(comparison)}"
    least, most = min(known, key=lambda label: known[label]), max(known, key=lambda label: known[label])
    text += f"{_spelled(known[least], comparison.unit)} with {comparison.names[least]}"
    if known[least] < known[most]:
        ratio = f"{words.times(known[most] / known[least])}" if known[least] else _spelled(known[most], comparison.unit)
        text += f", the lowest, and {ratio} with {comparison.names[most]}"
    return f"{text}.{_communication(comparison)}"


def _spelled(value: float, unit: str) -> str:
    if unit == "s":
        return words.seconds(value)
    return f"{value:,}{f' {unit}' if unit else ''}" if isinstance(value, int) else words.times(value)


def _communication(comparison: Comparison) -> str:
    """Return from which number of ranks on the collectives take longer than the lower bound of the steps."""
    labels: dict[int | None, list[str]] = {}
    for label, ranks in comparison.communication_from.items():
        labels.setdefault(ranks, []).append(comparison.names[label])
    parts = [
        f"from {ranks} ranks on with {_listed(labels[ranks])}"
        for ranks in sorted([each for each in labels if each is not None])
    ]
    if None in labels:
        largest = max(point.at["ranks"] for point in comparison.points)
        parts.append(f"not up to {largest} ranks with {_listed(labels[None])}")
    return f" Communication exceeds computation {', '.join(parts)}." if parts else ""


def _listed(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
