"""The columns of a comparison: those of its points, and those of its entries, one for each contender at a point."""

from collections.abc import Callable, Sequence

from attnscope.core.axes import spell
from attnscope.core.interval import Interval
from attnscope.render import words
from attnscope.render.columns import Column, Value
from attnscope.render.findings import MEASURED
from attnscope.reports.comparison import Comparison, Entry, Point

ENTRY_TITLES = {
    "macs": "MACs",
    "block": "block MACs",
    "flops": "FLOPs",
    "attention": "attention",
    "peak": "peak",
    "params": "params",
    "bytes": "moved",
    "training": "training",
    "latency": "time",
    "throughput": "images/s",
    "latency-per-mac": "time/MAC",
    "sent": "sent",
    "link": "link",
    "bound": "bound",
    "link-per-bound": "link/bound",
}
"""Heads of the columns of several quantities."""
ENTRY_KEYS = {
    "attention": "bytes_attention",
    "peak": "bytes_peak",
    "bytes": "bytes_moved",
    "training": "bytes_training",
    "latency": "median_s",
    "throughput": "images_per_s",
    "latency-per-mac": "s_per_mac",
    "sent": "bytes_sent",
    "link": "link_s",
    "bound": "bound_s",
    "link-per-bound": "link_over_bound",
}
"""Keys of the columns in CSV, with their units."""
IN_BYTES = ("attention", "peak", "bytes", "training", "sent")
IN_SECONDS = ("latency", "latency-per-mac", "link", "bound")
UNCLEAR = "≈"
"""The sign of a measured ratio if it is unclear which contender is faster."""


def entry_columns(comparison: Comparison, entries: Sequence[Entry]) -> list[Column[Entry]]:
    """Return the axes, the contender, the quantities of the entries, and the measured ratio to the first contender."""
    heads, first = heads_of(comparison), comparison.labels[0]
    points = {tuple(point.at.items()): point for point in comparison.points}
    axes = list(dict.fromkeys(name for entry in entries for name in entry.at))
    columns = [
        Column[Entry](name, heading(name), lambda row, name=name: row.at.get(name), str, 0)  # type: ignore[misc]
        for name in axes
    ]
    columns.append(
        Column[Entry](
            "contender",
            "contender",
            lambda row: row.contender,
            lambda label: heads[label],
            0,
            right=False,
            is_long=True,
        )
    )
    names = list(dict.fromkeys(name for entry in entries for name in entry.values))
    columns += [
        Column[Entry](
            ENTRY_KEYS.get(name, name),
            ENTRY_TITLES[name],
            lambda row, name=name: row.values.get(name),  # type: ignore[misc]
            lambda value, name=name: spelled(name, value),  # type: ignore[misc]
            0 if name == comparison.quantity else 2 + index,
            at_least=lambda row, name=name: row.at_least.get(name),  # type: ignore[misc]
        )
        for index, name in enumerate(names)
    ]
    if comparison.timed:
        columns.append(
            Column[Entry](
                f"measured_{first}_over",
                "baseline/this",
                lambda row: points[tuple(row.at.items())].measured_ratio.get(row.contender),
                words.times,
                1,
                text=lambda row: (
                    "" if row.contender == first else ratio_cell(points[tuple(row.at.items())], row.contender)
                ),
            )
        )
    return columns


def point_columns(comparison: Comparison) -> list[Column[Point]]:
    """Return the columns for which this comparison has values."""
    first, *others = comparison.labels
    points, timed, heads = comparison.points, comparison.timed, heads_of(comparison)
    measured = comparison.quantity in MEASURED
    names = list(dict.fromkeys(name for point in points for name in point.at))
    columns = [
        Column[Point](name, heading(name), lambda p, name=name: p.at.get(name), str, rank=0 if index < 2 else 20)  # type: ignore[misc]
        for index, name in enumerate(names)
    ]
    if len({point.grid for point in points}) > 1 and names != ["resolution"]:
        columns.append(Column("grid", "tokens", lambda point: spell(point.grid or ()), rank=11))
    for index, label in enumerate([first, *others]):
        columns.append(
            Column(
                f"{label}_{comparison.quantity}",
                heads[label],
                lambda p, label=label: p.costs[label],  # type: ignore[misc]
                lambda size: spelled(comparison.quantity, size),
                12 + index if timed and not measured else index and 5 + index / len(others),
                text=lambda p, label=label: words.NONE if label in p.refused else None,  # type: ignore[misc]
                at_least=lambda p, label=label: p.at_least.get(label),  # type: ignore[misc]
            )
        )
    for index, label in enumerate(others if comparison.quantity != "latency" else []):
        columns.append(
            Column(
                f"{first}_over_{label}",
                f"{heads[first]}/{heads[label]}",
                lambda p, label=label: p.ratio[label],  # type: ignore[misc]
                words.times,
                index and 7 + index,
                text=lambda p, label=label: words.NONE if {first, label} & p.refused.keys() else None,  # type: ignore[misc]
            )
        )
    columns += _padding_columns(comparison)
    return columns + (_time_columns(comparison) if timed else [])


def _padding_columns(comparison: Comparison) -> list[Column[Point]]:
    """Return columns with the padding of each contender that pads; contenders with equal padding share a column."""
    alike: dict[tuple[float, ...], list[str]] = {}
    for label in comparison.labels:
        alike.setdefault(tuple(point.padding.get(label, 0.0) for point in comparison.points), []).append(label)
    padded = [labels for shares, labels in alike.items() if any(shares)]
    return [
        Column(
            "padding" if len(padded) == 1 else f"{labels[0]}_padding",
            "padding" if len(padded) == 1 else f"padding {', '.join(heads_of(comparison)[label] for label in labels)}",
            lambda p, label=labels[0]: p.padding.get(label, 0.0),  # type: ignore[misc]
            words.percent,
            9,
        )
        for labels in padded
    ]


def _time_columns(comparison: Comparison) -> list[Column[Point]]:
    first, *others = comparison.labels
    heads = heads_of(comparison)

    def time(label: str, key: str) -> Callable[[Point], Value]:
        return lambda point: getattr(point.times[label], key) if label in point.times else None

    columns = [
        Column(f"{label}_median_s", f"{heads[label]} time", time(label, "median_s"), words.seconds, 1 + index)
        for index, label in enumerate([first, *others])
    ]
    for label in [first, *others]:
        columns.append(Column(f"{label}_low_s", "", time(label, "low_s"), words.seconds, None))
        columns.append(Column(f"{label}_high_s", "", time(label, "high_s"), words.seconds, None))
    for index, label in enumerate(others):
        columns.append(
            Column(
                f"measured_{first}_over_{label}",
                f"{heads[first]}/{heads[label]} time",
                lambda p, label=label: p.measured_ratio.get(label),  # type: ignore[misc]
                words.times,
                index and 7 + index,
                text=lambda p, label=label: ratio_cell(p, label),  # type: ignore[misc]
            )
        )
        for end, name in enumerate(("low", "high")):
            columns.append(
                Column(
                    f"measured_{first}_over_{label}_{name}",
                    "",
                    lambda p, label=label, end=end: p.measured_interval.get(label, (None, None))[end],  # type: ignore[misc]
                    words.times,
                    None,
                )
            )
    return columns


def heads_of(comparison: Comparison) -> dict[str, str]:
    """Return the names of the contenders in a table, with `global` for global attention."""
    return {label: name.replace("global attention", "global") for label, name in comparison.names.items()}


def ratio_cell(point: Point, other: str) -> str | None:
    """Return the interval of a measured ratio, with a sign if it is unclear which contender is faster."""
    ratio = point.measured_ratio.get(other)
    if ratio is None:
        return None
    if other not in point.measured_interval:
        return f"{UNCLEAR} {float(f'{ratio:.1g}'):g}×"
    found = words.ratio_range(Interval(*point.measured_interval[other]))
    return found if point.can_tell(other) else f"{UNCLEAR} {found}"


def spelled(quantity: str, value: float | None) -> str:
    if quantity in IN_BYTES:
        return words.binary(None if value is None else int(value))
    if quantity == "link-per-bound":
        return words.times(value)
    return words.metric(value, "s" if quantity in IN_SECONDS else "")


def _unit(field: str) -> str:
    return "px" if field in ("image", "patch") else ""


def heading(field: str) -> str:
    return _unit(field) or field if field == "image" else field
