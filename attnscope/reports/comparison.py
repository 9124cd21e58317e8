"""The Comparison of attentions at each point of a range, as plain data in base units. Its JSON holds the same data.

Counts are integers, times are in seconds and sizes in bytes. A value that is unknown or was not measured is None, never 0.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

from attnscope.core.shown import Shown
from attnscope.core.sizes import Pair
from attnscope.core.text import in_json

Number = int | None

SCHEMA = 1


@dataclass
class Contender:
    """An attention in a comparison.

    `label` is the attention as it was typed, `attention` its registered name, `words` its description, and `name` what
    screens call it. By default, `name` is the label. Plain global attention is named by its description instead, because
    it is not the network ViT.
    """

    label: str
    attention: str
    words: str
    name: str = ""

    def __post_init__(self) -> None:
        self.name = self.name or self.label


@dataclass
class Axis:
    """An axis of the range: a field and its values, or the numbers of the stages of a network."""

    field: str
    values: list[int]


@dataclass
class Measured:
    """Time of one forward, in seconds: the median and the lower and upper quartile of the runs."""

    median_s: float
    low_s: float
    high_s: float
    samples_s: list[float]


@dataclass
class Point:
    """One point of the range.

    Args:
        at: the value on each axis.
        grid: height and width in tokens.
        costs: the requested quantity for each contender.
        ratio: cost of the first contender divided by that of each other one; None if it is unknown.
        padding: the share of padding in the tokens of each contender that pads.
        times: the time of each contender that was measured.
        measured_ratio: median time of the first contender divided by that of each other one.
        measured_interval: the ends of the interval of this ratio, from the ratios in each round.
    """

    at: dict[str, int]
    grid: Pair
    costs: dict[str, Number]
    ratio: dict[str, float | None]
    padding: dict[str, float]
    times: dict[str, Measured] = field(default_factory=dict)
    measured_ratio: dict[str, float] = field(default_factory=dict)
    measured_interval: dict[str, tuple[float, float]] = field(default_factory=dict)

    def can_tell(self, other: str) -> bool:
        """Return whether the interval of the measured ratio of the first contender to this one excludes 1."""
        low, high = self.measured_interval.get(other, (1.0, 1.0))
        return low > 1 or high < 1

    def to_dict(self) -> dict[str, Any]:
        """Return the point as plain dictionaries, lists and numbers; without the keys of times if it has no times."""
        plain = dict(vars(self))
        if self.times:
            plain["times"] = {label: asdict(time) for label, time in self.times.items()}
        else:
            del plain["times"], plain["measured_ratio"], plain["measured_interval"]
        return plain


@dataclass
class Crossover:
    """The break-even of a contender and the first one: equal MACs on grids without padding, solved in integers.

    Args:
        first, other: labels of the contenders.
        scope: "layer", the attention alone, or "block", with an MLP whose hidden size is 4 times the embedding dimension.
        tokens: the number of tokens at the break-even, or a pair of consecutive numbers if it is between them; None if
            they never break even.
        always: MACs of the other divided by those of the first, if this ratio is the same at any size; otherwise None.
        formula: MACs of the other divided by those of the first for hw tokens of embedding dimension C. A letter is the
            number of keys of each query (hw, or M² in windows).
        values: the formula with the numbers of this point.
        padded_from: the smallest side of a square grid from which on the other needs fewer MACs, padding included. It is
            None if it does not exist or is unknown.
        balance: the number of tokens above which the quadratic term of the first exceeds all of its other terms: hw = 2C
            in a layer.
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
    """The break-even as an equation, such as `hw = M²`; None without a formula."""
    pads: bool = False
    """True if the comparison pads grids for one of the two, so that the break-even holds only for some grids."""
    first_padded_from: int | None = None
    """The same as `padded_from` if the first one needs fewer MACs on large grids."""


@dataclass
class TimeCrossover:
    """The interval in which a contender overtakes the first one in measured time.

    Args:
        first, other: labels of the contenders.
        axis: the field that varies.
        low, high: consecutive measured values between which the faster contender changes; None if it never changes.
        leader: the faster contender from `high` on, or at all values; None if every interval of the ratio includes 1.
        unclear: values between `low` and `high` at which the interval of the ratio includes 1.
        bisected: values that were measured by bisection.
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
    """A point that was left out or not timed, with the reason; it is the first of `count` points with this reason."""

    at: dict[str, int]
    reason: str
    count: int = 1


@dataclass(repr=False)
class Comparison(Shown):
    """The result of `compare`. `Comparison.to_json` writes the file format."""

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
    """The index of the point that the result describes; the crossovers are solved for it."""
    crossovers: list[Crossover]
    agree: bool
    """True if the closed form of every contender equals the sum of its steps at the reference point."""
    left_out: list[LeftOut]
    bisected: list[Point] = field(default_factory=list)
    """Points outside of the requested values that were measured to find where the faster contender changes."""
    time_crossovers: list[TimeCrossover] = field(default_factory=list)
    not_timed: list[LeftOut] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    interrupted: bool = False
    reference_reason: str | None = None
    """Why the result describes the reference point, such as "a common size"; None if it is the only one."""
    next: tuple[str, str] | None = None
    """The suggested next command and its reason; None if the comparison was called from Python."""
    schema: int = SCHEMA

    @property
    def labels(self) -> list[str]:
        """Return the labels of the contenders in their order."""
        return [each.label for each in self.contenders]

    @property
    def names(self) -> dict[str, str]:
        """Return the names of the contenders on screens, by label."""
        return {each.label: each.name for each in self.contenders}

    @property
    def timed(self) -> bool:
        """Return whether any point has times."""
        return any(point.times for point in self.points)

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as plain dictionaries, lists and numbers."""
        plain = {name: value for name, value in vars(self).items() if name not in ("schema", "points", "bisected")}
        for name, value in plain.items():
            if isinstance(value, list):
                plain[name] = [item if isinstance(item, str) else asdict(item) for item in value]
        bisected, points = ([point.to_dict() for point in points] for points in (self.bisected, self.points))
        return {"schema": self.schema, **plain, "bisected": bisected, "points": points}

    def to_json(self) -> str:
        """Return the comparison as JSON, one line a point, without NaN and infinity, which JSON does not have."""
        plain = self.to_dict()
        points = ",\n    ".join([in_json(point, indent=None) for point in plain.pop("points")])
        head = in_json(plain)
        return f'{head.removesuffix("}").rstrip()},\n  "points": [\n    {points}\n  ]\n}}'
