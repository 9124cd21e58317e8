"""The Report of a command as plain data in base units. Its JSON is the file format, schema 1.

Counts are integers, times are in seconds and sizes in bytes. A value that was not measured is None, never 0.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from attnscope.core import neighbourhood as core
from attnscope.core.axes import Shape
from attnscope.core.formula import Expression
from attnscope.core.interval import Interval
from attnscope.core.shown import Shown
from attnscope.core.text import in_json
from attnscope.plan.kernels import Alone
from attnscope.plan.peaks import Peaks, Raised
from attnscope.plan.roofline import Bound, Roofline
from attnscope.reports.gate import GateResult
from attnscope.reports.gpu import GpuState

SCHEMA = 1


@dataclass(frozen=True)
class StepTime:
    """Time of one step, in seconds.

    `interquartile_mean_s` is the mean over the middle half of the runs, ordered by their total time. It is as robust as
    a median, and the times of the steps add up exactly to their sum. `iqr_s` is the interquartile range of the samples.
    `median_s` equals `interquartile_mean_s`, which it was called in version 0.1; the next release removes it.

    `yardstick` is the name of the one for this kind of step. `normalized_s` is the time of the step if the host ran at its
    best speed, by that yardstick. Both are None if the step has none, as a view.
    """

    interquartile_mean_s: float
    iqr_s: float
    samples_s: list[float]
    yardstick: str | None = None
    normalized_s: float | None = None
    median_s: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "median_s", self.interquartile_mean_s)


@dataclass(frozen=True)
class StepRow:
    """One step: its description, input and output shapes, costs and time.

    `bytes_live` is the peak activation memory of the forward during this step. A byte count that is not known exactly is
    None; the field with the suffix `_at_least` then holds a lower bound. Otherwise both are equal. The lower bound is
    None if nothing is known.
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
    """The part of the network that contains the step."""
    stage: int | None = field(default=None, kw_only=True)
    """The stage of that part, counted from 1; None outside of the stages."""
    bytes_saved_together: int | None = field(default=None, kw_only=True)
    """Bytes that all instances of the row save for backward; `bytes_saved` is the largest number of a single instance."""
    bytes_training: int | None = field(default=None, kw_only=True)
    """Peak activation memory of the training forward during this step."""
    bytes_backward: int | None = field(default=None, kw_only=True)
    """Peak memory of the backward during this step; 0 if no gradient flows through the step."""
    bytes_saved_at_least: int | None = field(default=None, kw_only=True)
    bytes_live_at_least: int | None = field(default=None, kw_only=True)
    bytes_saved_together_at_least: int | None = field(default=None, kw_only=True)
    bytes_training_at_least: int | None = field(default=None, kw_only=True)
    bytes_backward_at_least: int | None = field(default=None, kw_only=True)
    bytes_allocated: int | None = field(default=None, kw_only=True)
    """Peak memory during this step as reported by the device's allocator (CUDA only)."""
    roofline: Roofline | None = field(default=None, kw_only=True)
    """The roofline lower bound of the step's time on this machine."""
    alone: Alone | None = field(default=None, kw_only=True)
    """The best measured time of the step's matmuls and softmax, each kernel alone."""
    bound: Bound | None = field(default=None, kw_only=True)
    """The bound of version 0.1, which mixes both; the next release removes it."""
    backward: "StepBackward | None" = field(default=None, kw_only=True)
    """The costs of the step's backward, if the backward was requested."""


@dataclass(frozen=True)
class StepBackward:
    """The backward of one step: its MACs, None if they are unknown, and its time, None if it was not measured.

    `macs` counts one instance of the row, `macs_together` all of them. The first of several identical blocks needs fewer
    MACs than the others if its input needs no gradient. In this case, `macs` counts one of the others.
    `macs_together_at_least` is the known part of `macs_together`.
    """

    macs: int | None
    time: StepTime | None
    macs_together: int | None = None
    macs_together_at_least: int | None = None


@dataclass(frozen=True)
class PartRow:
    """A part of a network, or a stage with all of its parts; counts, saved bytes and seconds cover all instances.

    `stage` is the number of the stage, counted from 1, or None. `bytes_live` is the peak activation memory in inference,
    `bytes_training` that of the training forward and `bytes_backward` that of the backward. `bytes_saved` is the number
    of bytes saved for backward. `sees` is the largest number of image patches that one token can see, vertically and
    horizontally. `backward_macs` and `backward_s` are None if the backward was not requested or not measured. Byte counts
    have lower bounds as in a StepRow.
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
    """A published figure, its source, and the counting conventions that reproduce it.

    `others` are the conventions that give the other rows of the source, if none of them gives this figure.
    """

    figure: str
    source: str
    explained_by: list[str]
    others: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Published:
    """Published figures of a network with their sources, and the MACs of the network by each counting convention.

    Published figures are those of one image, as is `per_image`; `conventions` has the counts of the whole batch.
    """

    figures: list[PublishedFigure]
    conventions: dict[str, int]
    per_image: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class CountedFigure:
    """The figure of a counting convention for one image: its name, what it counts, and the count.

    `how` is "exact", "rounded" or "truncated" if it gives a figure that someone has seen, and None otherwise.
    """

    name: str
    says: str
    figure: int
    how: str | None = None


@dataclass(frozen=True)
class ExplainedFigure:
    """A figure that someone has seen, and the counting conventions that give it.

    `nearest` is the convention with the nearest count, and `off` how much larger it is than the figure, as a fraction.
    `tried` is the number of counts that were compared with the figure, and `of` what they count, such as "one image".
    """

    figure: str
    explained_by: list[CountedFigure]
    nearest: CountedFigure | None
    off: float | None
    tried: int = 0
    of: str = "one image"


@dataclass(frozen=True)
class Totals:
    """Sums of the counts over all steps, and peaks of memory.

    `peak_bytes` is the peak activation memory of the forward, without its input and parameters. `training_peak_bytes` is
    that of the training forward, and `kept_bytes` is the part of it that is saved for backward. `backward_peak_bytes` is
    the peak memory of the backward, gradients included. These have lower bounds as in a StepRow.
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
class Yardstick:
    """Fixed work that was interleaved with the forward: it shows how fast the host was during the measurement.

    `samples_s` has its seconds in each kept pair of runs. `share` is the fraction of the steps' time in steps of its kind.
    `best_s` is the best median of this machine up to this run, and `best_on` the day of it, such as "2026-11-26".
    """

    name: str
    samples_s: list[float]
    share: float
    best_s: float
    best_on: str


@dataclass(frozen=True)
class Time:
    """Time of the whole forward without step timers, and the sum of the times of its steps, in seconds.

    `whole_interquartile_mean_s` is the mean over the middle half of the runs. `steps_sum_s` is the mean of the sum of the
    steps, over the middle half of the runs with step timers. `remainder_s` is the former minus the latter: the time that
    the steps do not explain. `whole_median_s` equals `whole_interquartile_mean_s`, which it was called in version 0.1;
    the next release removes it.
    """

    whole_interquartile_mean_s: float
    whole_iqr_s: float
    whole_samples_s: list[float]
    steps_sum_s: float
    remainder_s: float
    runs: int
    clean_runs: int
    stamp_s: float
    """Overhead of timing one step; it is subtracted from each step."""
    tried: int | None = None
    """Number of measured pairs, each of a forward without step timers and one with them.

    `clean_runs` of the pairs had the processor to themselves, and `runs` of the pairs are kept.
    """
    clock: str = "wall"
    """"thread" if the times are this thread's processor time, because other processes kept the processor too busy."""
    cpu_share: float | None = None
    """Processor time used in a run as a share of the time that its threads could have used; median over the runs."""
    page_faults: float | None = None
    """Page faults in one run of the whole forward; median over the runs."""
    eager_s: float | None = None
    """Wall-clock time on a GPU, including all kernel launches; the other times are by the device's clock."""
    graph_s: float | None = None
    """Time of the whole forward on a GPU, replayed as a CUDA graph, without kernel launches."""
    others: float | None = None
    """Number of processors that other processes kept busy during the runs."""
    pressure: float | None = None
    """Share of the time in which some process waited for a processor (Linux only)."""
    yardsticks: list[Yardstick] = field(default_factory=list)
    """The yardsticks that were interleaved with the runs; empty in a run of an earlier version."""
    normalized_s: float | None = None
    """Time of the whole forward if the host ran at its best speed, by the yardsticks; None without them."""
    host_speed: float | None = None
    """Speed of the host during the runs over its best speed, by the yardsticks; None without them."""
    process_runs: list[int] = field(default_factory=list)
    """Number of kept runs of each process, in the order of all samples; empty if one process measured all runs."""
    gpu: GpuState | None = None
    """The clock of the GPU during the runs, and what slowed it down; None if it is not known."""
    whole_median_s: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "whole_median_s", self.whole_interquartile_mean_s)

    def share_of_steps(self, seconds: float) -> float | None:
        """Return a time as a fraction of the sum of all steps; None if that is 0, since each step is below its overhead."""
        return seconds / self.steps_sum_s if self.steps_sum_s else None


@dataclass(frozen=True)
class Backward:
    """The whole backward: its MACs, None if they are unknown, its time, and whether the input needed a gradient.

    `torch` is FlopCounterMode's count of the real backward, in MACs, if an audit was requested. `macs_at_least` is the
    known part of the MACs of a third-party module. `recomputed_macs` is the part of the MACs with which gradient
    checkpointing repeats the forward, None for a third-party module.
    """

    macs: int | None
    input_grad: bool
    torch: int | None
    time: Time | None
    macs_at_least: int | None = None
    over_forward: Interval | None = None
    """The interval of its time over that of the forward, which was timed before it."""
    recomputed_macs: int | None = None


@dataclass(frozen=True)
class KernelRow:
    """A kernel with the same weights and input: the time of the whole forward and the error of its output.

    `time_s` is the interquartile mean of the runs, and `iqr_s` their interquartile range. `error` is the largest absolute
    difference from the output in float64, divided by the largest absolute value of that output. `why` is the reason if
    the kernel does not run here. `finite` is False if its output has NaN or infinite values.
    """

    name: str
    time_s: float | None
    iqr_s: float | None
    error: float | None
    why: str | None
    finite: bool = True
    over_eager: Interval | None = None
    """The interval of its time over that of the eager steps, from interleaved runs."""


@dataclass(frozen=True)
class StepAudit:
    """MACs of one step by each method of counting; None if a method was not used or is not available."""

    name: str
    declared: int
    closed_form: int
    fvcore: int | None
    torch: int | None


@dataclass(frozen=True)
class Audit:
    """MACs counted by independent methods: declared shapes, the paper's closed form, fvcore, torch's FlopCounterMode."""

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
        """Return the names of the methods that were used."""
        counted = {
            "letters": self.declared,
            "closed form": self.closed_form,
            "fvcore": self.fvcore,
            "torch": self.torch,
        }
        return [way for way, macs in counted.items() if macs is not None]


@dataclass(frozen=True)
class Letter:
    """A letter of a formula: its value, or one for each stage of a network, and both as text, such as `M² = 7×7`."""

    name: str
    value: int | list[int]
    words: str


@dataclass(frozen=True)
class Formula:
    """One Ω formula of the paper with the values of this input.

    `formula` evaluates to `macs` if its letters have the values in `letters`, which is empty in a run that an earlier
    version saved.
    """

    name: str
    formula: str
    values: str
    macs: int
    letters: list[Letter] = field(default_factory=list, kw_only=True)

    @classmethod
    def of(cls, name: str, cost: Expression) -> "Formula":
        """Return the formula of a cost, with the values of its letters and its own value."""
        symbols = cost.symbols
        letters = [
            Letter(each.name, list(each.values) if len(each.values) > 1 else each.values[0], each.words)
            for each in symbols
        ]
        return cls(name, str(cost), ", ".join(each.words for each in symbols), cost.value, letters=letters)


def formula_values(formulas: Iterable[Formula]) -> str:
    """Return the values of the letters in several formulas, each once: `hw = 3136, C = 96, M² = 7×7`.

    A letter with another value in each formula has the name of its formula: `C = 192 in Ω(MSA), C = 96 in Ω(MUA)`.
    """
    formulas = list(formulas)
    values = dict.fromkeys((letter.name, letter.words) for formula in formulas for letter in formula.letters)
    counts = Counter(name for name, _ in values)
    words = [
        f"{letter.words} in {formula.name}" if counts[letter.name] > 1 else letter.words
        for formula in formulas
        for letter in formula.letters
    ]
    return ", ".join(dict.fromkeys(words)) or formulas[-1].values


@dataclass(frozen=True)
class Neighbourhood:
    """The keys that a query attends to, in words and in numbers.

    `kind` is "global", "windowed", "cross", or a name that an attention declares. `tokens` is the number of queries of
    one image, and `padding` of them are padding. `keys` is the number of keys that each query is scored against, None if
    the attention does not score tokens.
    """

    kind: str
    words: str
    tokens: int
    padding: int
    keys: int | None

    @classmethod
    def of(cls, look: core.Neighbourhood) -> "Neighbourhood":
        """Return the description and the counts of a neighbourhood."""
        return cls(look.kind, look.describe(), look.tokens, look.padding_tokens, look.keys)


@dataclass(frozen=True)
class Complexity:
    """MACs and seconds of an attention and of global attention on the same tokens.

    The MACs follow from the papers' formulas; seconds are None if that attention was not timed. `own_*` belongs to the
    explored attention and `reference_*` to global attention. `formulas` are the printed ones, that of the reference first,
    and `ratio` is the MACs of the first divided by those of the last. `neighbourhood` is None for a whole network.
    `global_*` and `windowed_*` are kept for one release and hold the figures of the first and the last formula.
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
    reference_samples_s: list[float] = field(default_factory=list, kw_only=True)
    """Seconds of each run of global attention, of which `reference_s` and `global_s` are the interquartile mean."""
    own_samples_s: list[float] = field(default_factory=list, kw_only=True)
    """Seconds of each run of this attention that was interleaved with one of global attention."""
    reference_over_own: Interval | None = field(default=None, kw_only=True)
    """The interval of the time of global attention over that of this attention."""

    def timed(
        self,
        own_s: float,
        reference_s: float | None,
        reference_samples_s: Iterable[float] = (),
        own_samples_s: Iterable[float] = (),
        reference_over_own: Interval | None = None,
    ) -> "Complexity":
        """Return a copy with the seconds of both; `reference_s` is None if global attention was not timed separately."""
        is_global = self.neighbourhood is not None and self.neighbourhood.kind == "global"
        return replace(
            self,
            own_s=own_s,
            reference_s=reference_s,
            reference_samples_s=list(reference_samples_s),
            own_samples_s=list(own_samples_s),
            reference_over_own=reference_over_own,
            global_s=own_s if is_global and reference_s is None else reference_s,
            windowed_s=None if is_global else own_s,
        )


@dataclass(frozen=True, repr=False)
class Report(Shown):
    """The result of one command. `Report.to_json` writes the file format."""

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
    figure: ExplainedFigure | None = field(default=None, kw_only=True)
    """A figure that someone has seen, if an explanation was requested."""
    backward: Backward | None = field(default=None, kw_only=True)
    kernels: list[KernelRow] = field(default_factory=list, kw_only=True)
    """The same attention with other kernels: the fused one, or all of them if they were requested."""
    about: dict[str, str] = field(default_factory=dict, kw_only=True)
    """What the attention looks at, costs and gives up, and its paper; empty for a network."""
    peaks: Peaks | None = field(default=None, kw_only=True)
    """The best rates that this machine has shown in the dtype of the run."""
    wider_peaks: list[Peaks] = field(default_factory=list, kw_only=True)
    """The same in wider dtypes, in which the machine may be faster."""
    raised_peaks: list[Raised] = field(default_factory=list, kw_only=True)
    """The peaks that this run raised, since a step was faster than its lower bound."""
    gate: GateResult | None = field(default=None, kw_only=True)
    """The result of `--max`; None without it."""
    schema: int = field(default=SCHEMA, kw_only=True)

    @property
    def floor_s(self) -> float | None:
        """Return the roofline lower bound of all steps, in seconds; None if no step has one."""
        return floor_s(self.steps)

    @property
    def other_warnings(self) -> list[str]:
        """Return the warnings that are not about noisy times."""
        return [warning for warning in self.warnings if warning not in self.noise]

    @property
    def compares_all_kernels(self) -> bool:
        """Return whether all kernels were requested; by default only the fused one is timed."""
        return len(self.kernels) > 2

    def total(self, name: str) -> tuple[int | None, int | None]:
        """Return a count of the whole run by its name among the totals, and its lower bound; None if unknown."""
        exact = getattr(self.totals, name)
        return exact, getattr(self.totals, f"{name}_at_least", exact)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain dictionaries, lists and numbers."""
        plain = asdict(self)
        return {"schema": plain.pop("schema"), **plain}

    def to_json(self) -> str:
        """Return the report as JSON, without NaN and infinity, which JSON does not have."""
        return in_json(self.to_dict())


def floor_s(rows: Iterable[StepRow]) -> float | None:
    """Return the roofline lower bound of these steps together, in seconds; None if no step has one."""
    return sum([row.times * row.roofline.seconds for row in rows if row.roofline]) or None


@dataclass(frozen=True)
class CallRow(StepRow):
    """A row of a third-party module: one torch call, or several that are reported together.

    `path` is the module and `op` the torch function, "" if the row has several. `source` is the line of the call as
    `file:line` and `code` is its text. `calls` is the number of torch calls in one instance of the row. `uncounted` names
    the operators without a formula. `new_params` counts, over all instances, the parameters that no earlier call takes:
    shared weights count in their first call. A count that is not known exactly is None; the field with the
    suffix `_at_least` has the part that is known.

    `represents` is "call", "module" if the row is the run of the module at its path, or "calls" for several calls in that
    module. `classes` has the class of each module on the path, "" if it is unknown.
    """

    macs: int | None  # type: ignore[assignment] # a third-party operator may have no formula
    flops: int | None  # type: ignore[assignment]
    other_flops: int | None  # type: ignore[assignment]
    bytes_read: int | None  # type: ignore[assignment] # a tensor may have no storage
    bytes_written: int | None  # type: ignore[assignment]
    op: str
    module: str
    source: str | None
    code: str
    calls: int
    uncounted: list[str]
    new_params: int = field(default=0, kw_only=True)
    macs_at_least: int = field(default=0, kw_only=True)
    flops_at_least: int = field(default=0, kw_only=True)
    other_flops_at_least: int = field(default=0, kw_only=True)
    bytes_read_at_least: int = field(default=0, kw_only=True)
    bytes_written_at_least: int = field(default=0, kw_only=True)
    represents: str = field(default="", kw_only=True)
    classes: list[str] = field(default_factory=list, kw_only=True)

    @property
    def backward_macs(self) -> int | None:
        """Return the MACs of the backward of all instances; None if they are unknown or were not requested."""
        return self.backward.macs_together if self.backward else None

    @property
    def backward_macs_at_least(self) -> int | None:
        """Return the known part of the MACs of the backward of all instances."""
        return self.backward.macs_together_at_least if self.backward else None


@dataclass(frozen=True)
class Family:
    """The attention of attnscope that has the sizes and the MACs of a recognized one.

    `command` explores it, and `words` describe its keys as that command does.
    """

    name: str
    command: str
    words: str


@dataclass(frozen=True)
class AttentionFound:
    """Attention that was recognized in a module; identical ones are one entry, and `times` is their number.

    `core` is the computation from q·kᵀ to the weighted sum; `module` is the module around it, with its projections. Their
    MACs and seconds cover all instances, and each share is that of the whole forward. `window` has a side for each axis of
    the image; it is None if the attention is global or if the sides are unknown. `keys` is None if tokens have no scores
    with tokens, and `heads` if it is unknown. `mistakes` says what is likely to be a mistake. `family` is None if no
    attention of attnscope has the MACs of the module. `is_rotated` is True if queries and keys have a rotary position
    embedding. `mask` is "causal", "masked" or "masked or biased" if keys are, or may be, hidden from queries.
    """

    path: str
    kind: str
    times: int
    tokens: int
    keys: int | None
    heads: int | None
    head_dim: int
    scope: str
    windows: int
    window: tuple[int, ...] | None
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
    mistakes: list[str] = field(default_factory=list)
    core_time_shares: Interval | None = None
    module_time_shares: Interval | None = None
    """The intervals of the shares of the time."""
    family: Family | None = None
    is_rotated: bool = False
    mask: str | None = None


@dataclass(frozen=True)
class WrongShape:
    """A shape comment that differs from the tensor its line produced; `says` is the comment with sizes for its names."""

    file: str
    line: int
    comment: str
    says: str
    made: Shape


@dataclass(frozen=True)
class ShapeComments:
    """The number of shape comments that were compared with the shapes of their lines, and the wrong ones."""

    checked: int
    wrong: list[WrongShape]


@dataclass(frozen=True)
class Uncounted:
    """An operator without a formula, the number of times it ran, and the torch calls in which it ran."""

    op: str
    calls: int
    within: list[str]


@dataclass(frozen=True)
class Edge:
    """Tensors that flow from one row to another: positions in `steps`, and None for the inputs of the module."""

    source: int | None
    target: int


@dataclass(frozen=True, kw_only=True, repr=False)
class TraceReport(Report):
    """The result of `attnscope.trace`: a Report of a third-party module, which has no plan to be verified against.

    `unused_params` counts those of the parameters of the module that no call takes, and `trainable_params` those that
    require a gradient. `unused_softmaxes` are those of `other_softmaxes` on which no result depends. `sort` is the figure
    by which rows are sorted, None in the order of the calls. `edges` are the tensors that flow between rows.
    """

    steps: list[CallRow]  # type: ignore[assignment] # rows with more fields
    audit: None  # type: ignore[assignment] # a traced module declares no shapes and has no closed form
    complexity: None  # type: ignore[assignment] # each AttentionFound has its own
    group: str
    depth: int | None
    calls: int
    attentions: list[AttentionFound]
    other_softmaxes: list[str]
    comments: ShapeComments
    uncounted: list[Uncounted]
    unused_params: int = field(default=0, kw_only=True)
    trainable_params: int | None = field(default=None, kw_only=True)
    unused_softmaxes: list[str] = field(default_factory=list, kw_only=True)
    sort: str | None = field(default=None, kw_only=True)
    edges: list[Edge] = field(default_factory=list, kw_only=True)
    imported: list[str] = field(default_factory=list, kw_only=True)
    """Files of the user's modules that were imported to build the module, without installed packages."""

    def total(self, name: str) -> tuple[int | None, int | None]:
        """Return a count of the whole run and its lower bound; a count without an operator's formula is unknown."""
        exact, least = super().total(name)
        is_partial = any(getattr(row, name, exact) is None for row in self.steps)
        return None if is_partial else exact, least
