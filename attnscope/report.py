"""The Report: everything that was found, as plain data in base units. Its JSON is the file format, schema 1.

Counts are whole numbers, times are seconds, sizes are bytes. What was not measured is None, never 0.
"""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from attnscope.axes import Shape

SCHEMA = 1


@dataclass
class StepTime:
    """Time of one step, in seconds.

    `median_s` is the mean over the middle half of the runs, ordered by their total: as robust as a median, and the steps
    add up to their sum exactly. `iqr_s` is the interquartile range of the samples.
    """

    median_s: float
    iqr_s: float
    samples_s: list[float]


@dataclass
class StepRow:
    """One step: what it means, takes, makes and costs. `bytes_live` is what the forward holds at its fullest moment."""

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
    part: str = ""
    """The part of a network that the step belongs to."""


@dataclass
class PartRow:
    """A part of a network, or a stage with all its parts; counts, saved bytes and seconds are of all that it stands for.

    `stage` is its number, from 1, or None. `bytes_live` is the fullest moment in inference, `bytes_saved` what training
    keeps for the backward. `sees` is how many patches of the image one token can see at most, down and across.
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
    bytes_saved: int
    sees: tuple[int, int] | None
    time_s: float | None


@dataclass
class PublishedFigure:
    """A figure that somebody printed, what it counts, and the conventions that give it."""

    figure: str
    source: str
    explained_by: list[str]


@dataclass
class Published:
    """What others print for a network: figures with their source, and what each convention comes to, in MACs."""

    figures: list[PublishedFigure]
    conventions: dict[str, int]


@dataclass
class Totals:
    """Sums over the steps; `peak_bytes` is the most that the forward holds at once, beyond its input and parameters."""

    macs: int
    flops: int
    other_flops: int
    params: int
    bytes_read: int
    bytes_written: int
    peak_bytes: int | None


@dataclass
class Time:
    """Time of the untouched forward beside the sum of its steps, in seconds.

    `whole_median_s` is a mean over the middle half of the runs, as for a step. `remainder_s` is the whole less the steps:
    what the steps do not explain.
    """

    whole_median_s: float
    whole_iqr_s: float
    whole_samples_s: list[float]
    steps_sum_s: float
    remainder_s: float
    runs: int
    clean_runs: int
    stamp_s: float
    """What watching one step costs; it is taken off each."""


@dataclass
class StepAudit:
    """MACs of one step by each way of counting; None where that way was not used or not available."""

    name: str
    declared: int
    closed_form: int
    fvcore: int | None
    torch: int | None


@dataclass
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


@dataclass
class Formula:
    """One Ω of the paper with this input's values."""

    name: str
    formula: str
    values: str
    macs: int


@dataclass
class Complexity:
    """Global attention beside windowed attention on the same tokens, in MACs, and in seconds where both ran."""

    global_macs: int
    windowed_macs: int
    ratio: float
    formulas: list[Formula]
    global_s: float | None
    windowed_s: float | None
    saving: str = "in windows"


@dataclass
class Report:
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
    parameter_bytes: int = 0
    parts: list[PartRow] = field(default_factory=list)
    published: Published | None = None
    schema: int = field(default=SCHEMA)

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries, lists and numbers."""
        plain = asdict(self)
        return {"schema": plain.pop("schema"), **plain}

    def to_json(self) -> str:
        """The report as JSON, without NaN or infinity, which JSON does not have."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False, indent=2)
