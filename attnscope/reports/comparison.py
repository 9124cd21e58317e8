"""The Comparison of attentions at each point of a range, as plain data in base units. Its JSON holds the same data.

Counts are integers, times are in seconds and sizes in bytes. A value that is unknown or was not measured is None, never 0.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

from attnscope.core.shown import Shown
from attnscope.core.sizes import Pair
from attnscope.core.text import in_json
from attnscope.reports.gate import GateResult

Number = int | float | None
LAYER, BLOCK, NETWORK, MODULE, RANK = "layer", "block", "network", "module", "rank"
"""The compared part: an attention layer, a block with its MLP, a whole network, a module, or one of several ranks."""

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
class Adaptation:
    """A shared setting that a contender cannot take, and the nearest value that it has instead.

    Args:
        contender: its label.
        field: the setting.
        value: the value that the contender has.
        instead_of: the value of the other contenders.
        reason: the rule that this value breaks.
    """

    contender: str
    field: str
    value: Any
    instead_of: Any
    reason: str


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
        grid: height and width in tokens; None for networks and modules, whose tokens differ.
        costs: the requested quantity for each contender; None if it is unknown, or if the contender is in `refused`.
        ratio: cost of the first contender divided by that of each other one; None if it is unknown.
        padding: the share of padding in the tokens of each contender that pads.
        times: the time of each contender that was measured.
        measured_ratio: median time of the first contender divided by that of each other one.
        measured_interval: the ends of the interval of this ratio, from the ratios in each round.
        refused: the reason of each contender that cannot take this point.
        at_least: a lower bound of each cost that is unknown, if there is one.
    """

    at: dict[str, int]
    grid: Pair | None
    costs: dict[str, Number]
    ratio: dict[str, float | None]
    padding: dict[str, float]
    times: dict[str, Measured] = field(default_factory=dict)
    measured_ratio: dict[str, float] = field(default_factory=dict)
    measured_interval: dict[str, tuple[float, float]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    at_least: dict[str, int] = field(default_factory=dict)

    def can_tell(self, other: str) -> bool:
        """Return whether the interval of the measured ratio of the first contender to this one excludes 1."""
        low, high = self.measured_interval.get(other, (1.0, 1.0))
        return low > 1 or high < 1

    def to_dict(self) -> dict[str, Any]:
        """Return the point as plain dictionaries, lists and numbers; without keys of what it lacks."""
        plain = dict(vars(self))
        for name in ("refused", "at_least"):
            if not plain[name]:
                del plain[name]
        if self.times:
            plain["times"] = {label: asdict(time) for label, time in self.times.items()}
        else:
            del plain["times"], plain["measured_ratio"], plain["measured_interval"]
        return plain


@dataclass
class Crossover:
    """The break-even of two contenders: equal MACs, solved in integers.

    It holds on square grids without padding. It is searched in steps of `unit` up to `searched_to`, with padding, for
    networks and if MACs are not a quadratic polynomial.

    Args:
        first, other: labels of the contenders.
        scope: "layer", "block" or "network".
        tokens: the number of tokens at the break-even; None if they never break even, and for networks. A pair of
            consecutive numbers, or of the tokens at consecutive `sides`, has the break-even between them.
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
    fewer: str | None = None
    """The label of the one that needs fewer MACs above the break-even, or at any size without one; None if both need the
    same."""
    unit: int = 1
    """The break-even holds on square grids whose sides are multiples of this number."""
    sides: Pair | None = None
    """Two consecutive sides between which the one with fewer MACs changes, if it was searched. They are in tokens, and for
    networks in pixels."""
    is_last_of_several: bool = False
    """True if the search found more than one break-even; `sides` is the one with the largest sides."""
    searched_to: int | None = None
    """The largest side of the search; None if the break-even was solved."""


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
    """A point that was left out or not timed, with the reason; it is the first of `count` points with this reason.

    `contender` is the label of the one that cannot take the point; None if the reason holds for all. Where at least two
    others can, the point has their results.
    """

    at: dict[str, int]
    reason: str
    count: int = 1
    contender: str | None = None


@dataclass
class Entry:
    """A contender at a point, with several quantities, as a row of a sorted or filtered table.

    Args:
        at: the value on each axis.
        contender: its label.
        values: the value of each quantity; None if it is unknown.
        at_least: lower bounds of the unknown ones.
    """

    at: dict[str, int]
    contender: str
    values: dict[str, Number]
    at_least: dict[str, int]


@dataclass
class Fit:
    """The largest sizes with which a contender fits in a memory; None if no size fits.

    Args:
        contender: its label.
        batch: the largest batch of inference at the reference point.
        side: the largest side of a square grid in tokens, or of an image in pixels for networks, with that point's batch.
        training_batch, training_side: the same for the forward and the backward of training.
        is_exact: whether the memory is known exactly; otherwise these sizes are upper bounds, and these bytes lower ones.
        needs, training_needs: the bytes that a single image needs at the reference point.
    """

    contender: str
    batch: int | None
    side: int | None
    training_batch: int | None
    training_side: int | None
    is_exact: bool
    needs: int
    training_needs: int

    @property
    def fits(self) -> bool:
        """Return whether any size fits."""
        return any(size is not None for size in (self.batch, self.side, self.training_batch, self.training_side))


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
    adaptations: list[Adaptation] = field(default_factory=list)
    """The shared settings that a contender cannot take, and its values instead."""
    entries: list[Entry] | None = None
    """The rows of `--sort` and `--where`, and those of modules; None without them."""
    unknown_entries: int = 0
    """The number of entries that `--where` left out because a value is unknown."""
    fits: list[Fit] = field(default_factory=list)
    """The largest sizes that fit in `memory_limit`."""
    memory_limit: int | None = None
    """The bytes of `--memory-limit`; None without it."""
    same_outputs: dict[str, float | None] = field(default_factory=dict)
    """The largest difference of a module's output to that of the first one with the same weights, over its largest value.
    It is None if their parameters or outputs have other names or shapes."""
    gate: GateResult | None = None
    """The result of `--fail-above`; None without it."""
    part: str = LAYER
    """The kind of the contenders: "layer", "network", "module", or "rank" for one of several ranks."""
    communication_from: dict[str, int | None] = field(default_factory=dict)
    """The number of ranks from which on the collectives take longer than the lower bound of the steps, for each contender.
    It is None if they never do. The dictionary is empty without the rates of a link and of a device."""
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
        plain["gate"] = None if self.gate is None else asdict(self.gate)
        bisected, points = ([point.to_dict() for point in points] for points in (self.bisected, self.points))
        return {"schema": self.schema, **plain, "bisected": bisected, "points": points}

    def to_json(self) -> str:
        """Return the comparison as JSON, one line a point, without NaN and infinity, which JSON does not have."""
        plain = self.to_dict()
        points = ",\n    ".join([in_json(point, indent=None) for point in plain.pop("points")])
        head = in_json(plain)
        return f'{head.removesuffix("}").rstrip()},\n  "points": [\n    {points}\n  ]\n}}'
