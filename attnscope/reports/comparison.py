"""The Comparison: attentions beside each other at each point of a range, as plain data in base units. Its JSON is the data.

Counts are whole numbers, times are seconds, sizes are bytes. What was not measured or is not known is None, never 0.
"""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from attnscope.core.sizes import Pair
from attnscope.reports.shown import Shown

Number = int | None

SCHEMA = 1


@dataclass
class Contender:
    """One attention that is compared: what was typed, which attention it is, what it is in words, and what it is called.

    It is called as it was typed, but for plain global attention, which is no ViT on any grid: its words are its name.
    """

    label: str
    attention: str
    words: str
    name: str = ""

    def __post_init__(self) -> None:
        self.name = self.name or self.label


@dataclass
class Axis:
    """What is gone over: a field and its values, or the stages of a network by their numbers."""

    field: str
    values: list[int]


@dataclass
class Measured:
    """Time of one forward, in seconds: the median and the quartiles of the runs."""

    median_s: float
    low_s: float
    high_s: float
    samples_s: list[float]

    def apart(self, other: "Measured") -> bool:
        """Whether the middle halves of the runs lie apart, so that it can be said which is faster."""
        return self.high_s < other.low_s or other.high_s < self.low_s


@dataclass
class Point:
    """One point of the range.

    Args:
        at: the value of each axis.
        grid: tokens down and across.
        costs: the quantity that was asked for, for each contender.
        ratio: how many times what each contender costs the first one costs; None where that is not known.
        padding: the share of padding among each contender's tokens, where it pads.
        times: how long each contender took, where it was measured.
        measured_ratio: how many times as long the first one took.
    """

    at: dict[str, int]
    grid: Pair
    costs: dict[str, Number]
    ratio: dict[str, float | None]
    padding: dict[str, float]
    times: dict[str, Measured] = field(default_factory=dict)
    measured_ratio: dict[str, float] = field(default_factory=dict)

    def can_tell(self, first: str, other: str) -> bool:
        """Whether both were measured, and their times lie apart."""
        return {first, other} <= self.times.keys() and self.times[first].apart(self.times[other])

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries, lists and numbers; the times only where there are any."""
        plain = dict(vars(self))
        if self.times:
            plain["times"] = {label: asdict(time) for label, time in self.times.items()}
        else:
            del plain["times"], plain["measured_ratio"]
        return plain


@dataclass
class Crossover:
    """Where a contender and the first one need the same MACs on grids without padding, solved in whole numbers.

    Args:
        first, other: their labels.
        scope: "layer", the attention alone, or "block", with an MLP four times as wide.
        tokens: the break-even; a pair of neighbouring numbers where it lies between them, None where there is none.
        always: MACs of the other over those of the first where that is the same at any size, so that none overtakes.
        formula: MACs of the other over those of the first, hw tokens of width C, each with as many keys as a letter says
            (hw, M² in windows).
        values: the same with this point's numbers.
        padded_from: the side of the square grid from which on the other one needs fewer, whatever has to be padded; None
            where that is not known.
        balance: tokens from which the first one's quadratic term is more than all else it does: hw = 2C in a layer.
    """

    first: str
    other: str
    scope: str
    tokens: int | Pair | None
    always: float | None
    formula: str | None
    values: str | None
    padded_from: int | None
    balance: float | None
    equation: str | None = None
    """The break-even in letters, `hw = M²`, where there is a formula."""


@dataclass
class TimeCrossover:
    """Where a contender overtakes the first one in measured time.

    Args:
        first, other: their labels.
        axis: the field whose values are meant.
        low, high: neighbouring measured values; between them the lead changes. None where one led all along.
        leader: who is faster from `high` on, or all along; None where nothing could be told apart.
        unclear: values in between at which the interquartile ranges overlap, so that nothing can be told.
        bisected: values that were measured to find it.
    """

    first: str
    other: str
    axis: str
    low: int | None
    high: int | None
    leader: str | None
    unclear: list[int]
    bisected: list[int]


@dataclass
class LeftOut:
    """A point that is not there, or one that was not timed, and why; the first of `count` with that reason."""

    at: dict[str, int]
    reason: str
    count: int = 1


@dataclass
class Comparison(Shown):
    """What `compare` found. `Comparison.to_json` is the file format."""

    command: str | None
    title: str
    quantity: str
    unit: str
    contenders: list[Contender]
    axes: list[Axis]
    settings: dict[str, Any]
    environment: dict[str, Any]
    points: list[Point]
    reference: int
    """The point that a reader would know; the crossovers are solved for it."""
    crossovers: list[Crossover]
    agree: bool
    """Whether the closed forms equal the sum of the steps at the reference, for every contender."""
    left_out: list[LeftOut]
    bisected: list[Point] = field(default_factory=list)
    """Points beside the range that were measured to find where the lead changes."""
    time_crossovers: list[TimeCrossover] = field(default_factory=list)
    not_timed: list[LeftOut] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    interrupted: bool = False
    next: tuple[str, str] | None = None
    """The command to type next, and why; None in Python."""
    schema: int = SCHEMA

    @property
    def labels(self) -> list[str]:
        """What the contenders are called, the first one first."""
        return [each.label for each in self.contenders]

    @property
    def names(self) -> dict[str, str]:
        """What the contenders are called on screens, by their labels."""
        return {each.label: each.name for each in self.contenders}

    @property
    def timed(self) -> bool:
        """Whether anything was measured."""
        return any(point.times for point in self.points)

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries, lists and numbers."""
        plain = {name: value for name, value in vars(self).items() if name not in ("schema", "points", "bisected")}
        for name, value in plain.items():
            if isinstance(value, list):
                plain[name] = [item if isinstance(item, str) else asdict(item) for item in value]
        bisected, points = ([point.to_dict() for point in points] for points in (self.bisected, self.points))
        return {"schema": self.schema, **plain, "bisected": bisected, "points": points}

    def to_json(self) -> str:
        """The comparison as JSON, without NaN or infinity, which JSON does not have; each point is one line."""
        plain = self.to_dict()
        encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
        points = ",\n    ".join(map(encode, plain.pop("points")))
        head = json.dumps(plain, ensure_ascii=False, allow_nan=False, indent=2)
        return f'{head.removesuffix("}").rstrip()},\n  "points": [\n    {points}\n  ]\n}}'
