"""The Report: everything that was found, as plain data in base units. Its JSON is the file format, schema 1.

Counts are whole numbers, times are seconds, sizes are bytes. What was not measured is None, never 0.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from attnscope.core import neighbourhood as core
from attnscope.core.axes import Shape
from attnscope.core.formula import Expression
from attnscope.plan.roofline import Bound, Peaks
from attnscope.reports.shown import Shown

SCHEMA = 1


@dataclass(frozen=True)
class StepTime:
    """Time of one step, in seconds.

    `interquartile_mean_s` is the mean over the middle half of the runs, ordered by their total: as robust as a median, and
    the steps add up to their sum exactly. `iqr_s` is the interquartile range of the samples. `median_s` is the same
    as `interquartile_mean_s`, by the name of 0.1; the next release removes it.
    """

    interquartile_mean_s: float
    iqr_s: float
    samples_s: list[float]
    median_s: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "median_s", self.interquartile_mean_s)


@dataclass(frozen=True)
class StepRow:
    """One step: what it means, takes, makes and costs. `bytes_live` is what the forward holds at its fullest moment.

    Bytes that are not known exactly are None; the field of the same name that ends in `_at_least` is a lower bound then,
    and equal to them otherwise. It is None where nothing is known.
    """

    name: str
    path: str
    doc: str
    pattern: str
    inputs: list[Shape]
    outputs: list[Shape]
    macs: int
    flops: int
    other_flops: int
    params: int
    bytes_read: int
    bytes_written: int
    bytes_saved: int | None
    bytes_live: int | None
    time: StepTime | None
    times: int
    why: str = field(default="", kw_only=True)
    """The reason why the step is there, in a line."""
    part: str = field(default="", kw_only=True)
    """The part of a network that the step belongs to."""
    stage: int | None = field(default=None, kw_only=True)
    """The stage of that part, from 1; None outside the stages."""
    bytes_saved_together: int | None = field(default=None, kw_only=True)
    """What training keeps of all that the row stands for; `bytes_saved` is of one run, the one that keeps most."""
    bytes_training: int | None = field(default=None, kw_only=True)
    """What the forward of training holds at its fullest moment, in this step."""
    bytes_backward: int | None = field(default=None, kw_only=True)
    """What the backward of training holds at its fullest moment, in this step; 0 where nothing goes back through it."""
    bytes_saved_at_least: int | None = field(default=None, kw_only=True)
    bytes_live_at_least: int | None = field(default=None, kw_only=True)
    bytes_saved_together_at_least: int | None = field(default=None, kw_only=True)
    bytes_training_at_least: int | None = field(default=None, kw_only=True)
    bytes_backward_at_least: int | None = field(default=None, kw_only=True)
    bytes_allocated: int | None = field(default=None, kw_only=True)
    """What the device's own allocator held at the fullest moment of this step; CUDA tells."""
    bound: Bound | None = field(default=None, kw_only=True)
    """The roofline lower bound of its time on this machine."""
    backward: "StepBackward | None" = field(default=None, kw_only=True)
    """The cost of its backward, if that was requested."""


@dataclass(frozen=True)
class StepBackward:
    """The backward of one step: its MACs, None where they are not known, and its time where it was measured.

    `macs` are of one run, `macs_together` of all that the row stands for. The first of several blocks that are alike may
    have fewer than the others, if what comes to it needs no gradient; then `macs` are those of the others.
    """

    macs: int | None
    time: StepTime | None
    macs_together: int | None = None


@dataclass(frozen=True)
class PartRow:
    """A part of a network, or a stage with all its parts; counts, saved bytes and seconds are of all that it stands for.

    `stage` is its number, from 1, or None. `bytes_live` is the fullest moment in inference, `bytes_training` that of the
    forward in training, `bytes_backward` of the backward, `bytes_saved` what training keeps for it. `sees` is how many
    patches of the image one token can see at most, down and across. `backward_macs` and `backward_s` are None where the
    backward was not asked for, or not measured. Bytes have lower bounds as in a StepRow.
    """

    name: str
    stage: int | None
    is_stage: bool
    path: str
    times: int
    outputs: list[Shape]
    macs: int
    flops: int
    other_flops: int
    params: int
    bytes_live: int | None
    bytes_training: int | None
    bytes_backward: int | None
    bytes_saved: int | None
    sees: tuple[int, int] | None
    time_s: float | None
    backward_macs: int | None = None
    backward_s: float | None = None
    bytes_live_at_least: int | None = None
    bytes_training_at_least: int | None = None
    bytes_backward_at_least: int | None = None
    bytes_saved_at_least: int | None = None


@dataclass(frozen=True)
class PublishedFigure:
    """A figure that somebody printed, what it counts, and the conventions that give it."""

    figure: str
    source: str
    explained_by: list[str]


@dataclass(frozen=True)
class Published:
    """What others print for a network: figures with their source, and what each convention comes to, in MACs."""

    figures: list[PublishedFigure]
    conventions: dict[str, int]


@dataclass(frozen=True)
class Totals:
    """Sums over the steps; `peak_bytes` is the most that the forward holds at once, beyond its input and parameters.

    `training_peak_bytes` is the same in the forward of training, `kept_bytes` what of it stays for the backward, and
    `backward_peak_bytes` the most that the backward holds, gradients included. They have lower bounds as in a StepRow.
    """

    macs: int
    flops: int
    other_flops: int
    params: int
    bytes_read: int
    bytes_written: int
    peak_bytes: int | None
    training_peak_bytes: int | None = None
    kept_bytes: int | None = None
    backward_peak_bytes: int | None = None
    peak_bytes_at_least: int | None = None
    training_peak_bytes_at_least: int | None = None
    kept_bytes_at_least: int | None = None
    backward_peak_bytes_at_least: int | None = None


@dataclass(frozen=True)
class Time:
    """Time of the untouched forward beside the sum of its steps, in seconds.

    `whole_interquartile_mean_s` is the mean over the middle half of the runs, and `steps_sum_s` the mean of the sum of the
    steps over the middle half of the watched runs. `remainder_s` is the whole less the steps: what they do not explain.
    `whole_median_s` is the same as `whole_interquartile_mean_s`, by the name of 0.1; the next release removes it.
    """

    whole_interquartile_mean_s: float
    whole_iqr_s: float
    whole_samples_s: list[float]
    steps_sum_s: float
    remainder_s: float
    runs: int
    clean_runs: int
    stamp_s: float
    """What watching one step costs; it is subtracted from each step."""
    tried: int | None = None
    """All pairs that were run; of these `clean_runs` had the processor to themselves, and `runs` are kept."""
    clock: str = "wall"
    """"thread" if other processes were so busy that the times are this thread's processor time."""
    cpu_share: float | None = None
    """The share of the runs for which the process had the processors that it asked for."""
    page_faults: float | None = None
    """Of one run of the whole, the median."""
    eager_s: float | None = None
    """On a GPU, seconds of the clock with all launches; the other times are the device's own."""
    graph_s: float | None = None
    """On a GPU, the whole replayed as a graph, without launches."""
    others: float | None = None
    """How many processors other processes kept busy meanwhile."""
    pressure: float | None = None
    """The share of the time in which some process waited for a processor; known on Linux."""
    whole_median_s: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "whole_median_s", self.whole_interquartile_mean_s)


@dataclass(frozen=True)
class Backward:
    """The backward of the whole: its MACs, None where they are not known, and whether the input needed a gradient.

    `torch` is what FlopCounterMode counted of the real backward, in MACs, where it was asked to.
    """

    macs: int | None
    input_grad: bool
    torch: int | None
    time: Time | None


@dataclass(frozen=True)
class KernelRow:
    """A kernel on the same weights and input: the time of the whole forward, and the error of its output against float64.

    `time_s` is the interquartile mean of the runs, and `iqr_s` their interquartile range. `error` is the largest difference
    over the largest value. `why` is the reason if the kernel does not run here.
    """

    name: str
    time_s: float | None
    iqr_s: float | None
    error: float | None
    why: str | None


@dataclass(frozen=True)
class StepAudit:
    """MACs of one step by each way of counting; None where that way was not used or not available."""

    name: str
    declared: int
    closed_form: int
    fvcore: int | None
    torch: int | None


@dataclass(frozen=True)
class Audit:
    """MACs counted in independent ways: from the letters, the paper's closed form, fvcore, torch's FlopCounterMode."""

    declared: int
    closed_form: int
    fvcore: int | None
    torch: int | None
    agree: bool
    uncounted: list[str]
    steps: list[StepAudit]
    notes: list[str]

    @property
    def ways(self) -> list[str]:
        """The ways that counted."""
        counted = {
            "letters": self.declared,
            "closed form": self.closed_form,
            "fvcore": self.fvcore,
            "torch": self.torch,
        }
        return [way for way, macs in counted.items() if macs is not None]


@dataclass(frozen=True)
class Letter:
    """A letter of a formula: its value, or one for each stage of a network, and both in words, `M² = 7×7`."""

    name: str
    value: int | list[int]
    words: str


@dataclass(frozen=True)
class Formula:
    """One Ω of the paper with this input's values: put into `formula`, the values of its letters give `macs`.

    `letters` is empty in a run that an earlier version saved.
    """

    name: str
    formula: str
    values: str
    macs: int
    letters: list[Letter] = field(default_factory=list, kw_only=True)

    @classmethod
    def of(cls, name: str, cost: Expression) -> "Formula":
        """Return a cost in letters and as a number."""
        symbols = cost.symbols
        letters = [
            Letter(each.name, list(each.values) if len(each.values) > 1 else each.values[0], each.words)
            for each in symbols
        ]
        return cls(name, str(cost), ", ".join(each.words for each in symbols), cost.value, letters=letters)


def formula_values(formulas: Iterable[Formula]) -> str:
    """Return the values of the letters of several formulas, each once: `hw = 3136, C = 96, M² = 7×7`."""
    formulas = list(formulas)
    told = dict.fromkeys(letter.words for formula in formulas for letter in formula.letters)
    return ", ".join(told) or formulas[-1].values


@dataclass(frozen=True)
class Neighbourhood:
    """What a query attends to, in words and in numbers.

    `kind` is "global", "windowed", "cross", or what an attention declares; `tokens` are the queries of one image, `padding`
    of them padding, and `keys` the keys that each is scored against, None where attention does not score tokens.
    """

    kind: str
    words: str
    tokens: int
    padding: int
    keys: int | None

    @classmethod
    def of(cls, look: core.Neighbourhood) -> "Neighbourhood":
        """Return the words and the numbers of a neighbourhood."""
        return cls(look.kind, look.describe(), look.tokens, look.padding_tokens, look.keys)


@dataclass(frozen=True)
class Complexity:
    """An attention beside global attention on the same tokens: MACs by the papers' formulas, and seconds where both ran.

    `own_*` is what was explored and `reference_*` global attention. `formulas` are those that are printed, the reference's
    first, and `ratio` is how many times the MACs of the last those of the first are. `neighbourhood` is None for a whole
    network. `global_*` and `windowed_*` are kept for one release: the figures of the first and of the last formula.
    """

    global_macs: int
    windowed_macs: int
    ratio: float
    formulas: list[Formula]
    global_s: float | None
    windowed_s: float | None
    saving: str = "in windows"
    own_macs: int | None = field(default=None, kw_only=True)
    reference_macs: int | None = field(default=None, kw_only=True)
    own_s: float | None = field(default=None, kw_only=True)
    reference_s: float | None = field(default=None, kw_only=True)
    neighbourhood: Neighbourhood | None = field(default=None, kw_only=True)

    def timed(self, own_s: float, reference_s: float | None) -> "Complexity":
        """Return the same with the seconds of both; `reference_s` is None where global attention did not run beside it."""
        is_global = self.neighbourhood is not None and self.neighbourhood.kind == "global"
        return replace(
            self,
            own_s=own_s,
            reference_s=reference_s,
            global_s=own_s if is_global and reference_s is None else reference_s,
            windowed_s=None if is_global else own_s,
        )


@dataclass(frozen=True)
class Report(Shown):
    """What one command found. `Report.to_json` is the file format."""

    command: str | None
    title: str
    spec: dict[str, Any]
    environment: dict[str, Any]
    steps: list[StepRow]
    totals: Totals
    time: Time | None
    audit: Audit
    complexity: Complexity
    notes: list[str]
    warnings: list[str]
    next: tuple[str, str]
    focus: list[str] = field(default_factory=list, kw_only=True)
    """Parts of the result that were requested: "memory", "roofline", "details", "explain"."""
    noise: list[str] = field(default_factory=list, kw_only=True)
    """The warnings that make the times noisy; `warnings` has all."""
    parameter_bytes: int = field(default=0, kw_only=True)
    parts: list[PartRow] = field(default_factory=list, kw_only=True)
    published: Published | None = field(default=None, kw_only=True)
    backward: Backward | None = field(default=None, kw_only=True)
    kernels: list[KernelRow] = field(default_factory=list, kw_only=True)
    """The same attention in other kernels: the fused one, or all that were asked for."""
    peaks: Peaks | None = field(default=None, kw_only=True)
    """What the machine can do at its best."""
    schema: int = field(default=SCHEMA, kw_only=True)

    @property
    def floor_s(self) -> float | None:
        """The roofline lower bound of all steps, in seconds; None if no step has one."""
        return floor_s(self.steps)

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries, lists and numbers."""
        plain = asdict(self)
        return {"schema": plain.pop("schema"), **plain}

    def to_json(self) -> str:
        """The report as JSON, without NaN or infinity, which JSON does not have."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False, indent=2)


def floor_s(rows: Iterable[StepRow]) -> float | None:
    """Return the roofline lower bound of these steps together, in seconds; None if no step has one."""
    return sum([row.times * row.bound.seconds for row in rows if row.bound]) or None


@dataclass(frozen=True)
class CallRow(StepRow):
    """A row of a module that is not ours: one torch call, or several that are told together.

    `path` is the module, `op` the torch function ("" where the row has several), `source` the line that called it as
    `file:line` and `code` its text; `calls` is how many torch calls one instance of the row has. `uncounted` names the
    operators without a formula, for which counts are None.
    """

    macs: int | None  # type: ignore[assignment] # an operator of somebody else's may have no formula
    flops: int | None  # type: ignore[assignment]
    other_flops: int | None  # type: ignore[assignment]
    op: str
    module: str
    source: str | None
    code: str
    calls: int
    uncounted: list[str]


@dataclass(frozen=True)
class AttentionFound:
    """Attention that was recognised in a module, all that are alike in one entry; `times` is how many there are.

    `core` is from q·kᵀ to the weighted sum, `module` the module around it, with its projections; their MACs and seconds
    are those of all together, the shares those of the whole forward. `window` is None where attention is global, or where
    the sides of its windows are not known.
    """

    path: str
    kind: str
    times: int
    tokens: int
    keys: int
    heads: int
    head_dim: int
    scope: str
    windows: int
    window: tuple[int, int] | None
    core_macs: int
    core_macs_share: float | None
    core_s: float | None
    core_time_share: float | None
    module_macs: int | None
    module_macs_share: float | None
    module_s: float | None
    module_time_share: float | None
    complexity: list[Formula]
    neighbourhood: Neighbourhood


@dataclass(frozen=True)
class WrongShape:
    """A shape comment that is not what its line made; `says` is the comment with the sizes of its names."""

    file: str
    line: int
    comment: str
    says: str
    made: Shape


@dataclass(frozen=True)
class ShapeComments:
    """How many shape comments were held against the shapes of their lines, and which are wrong."""

    checked: int
    wrong: list[WrongShape]


@dataclass(frozen=True)
class Uncounted:
    """An operator without a formula, how often it ran, and the torch calls in which it did."""

    op: str
    calls: int
    within: list[str]


@dataclass(frozen=True, kw_only=True)
class TraceReport(Report):
    """What `attnscope.trace` found: a Report of a module that is not ours, which has no plan to be held against."""

    steps: list[CallRow]  # type: ignore[assignment] # rows that know more
    audit: None  # type: ignore[assignment] # there are no letters and no closed form
    complexity: None  # type: ignore[assignment] # that of each attention stands with it
    group: str
    depth: int | None
    calls: int
    attentions: list[AttentionFound]
    comments: ShapeComments
    uncounted: list[Uncounted]
