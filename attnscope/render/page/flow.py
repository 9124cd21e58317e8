"""The steps in order with the shapes of their tensors, letter by letter, and the paper's formula beside them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice

from attnscope.attentions.spec import Spec
from attnscope.core.axes import AxisError, Shape, Tensor, parse_pattern, spell
from attnscope.core.formula import Expression
from attnscope.plan.plan import place
from attnscope.render import words
from attnscope.render.page.document import Panel
from attnscope.reports.report import Report, StepRow


@dataclass(frozen=True)
class Sized:
    """A tensor: its axes in letters, empty if they are unknown, and its shape. The script splits both into axes."""

    letters: str
    shape: str


@dataclass(frozen=True)
class Step:
    """A step of the flow."""

    key: str
    name: str
    doc: str
    why: str
    inputs: list[Sized]
    outputs: list[Sized]
    macs: str
    exact: str
    share: float
    term: int | None


@dataclass(frozen=True)
class Group:
    """Steps of one part of a network; a single group without a title for an attention."""

    title: str
    steps: list[Step]


@dataclass(frozen=True)
class TermLine:
    """A term of the paper's formula, its value, and the steps whose MACs add up to it."""

    text: str
    value: int
    steps: list[str]


def key_of(row: StepRow) -> str:
    """Return the key of a step in links and scripts: its name, below its module."""
    return place(row.path, row.name)


def flow_panel(report: Report, spec: Spec | None) -> Panel:
    """Return the flow of the steps."""
    terms = _terms(report, spec) if spec is not None and not report.parts else []
    term_of = {key: number for number, term in enumerate(terms) for key in term.steps}
    explained: set[tuple[str, str, str]] = set()

    def step(row: StepRow) -> Step:
        """Return a step, explained unless a step before is explained alike, as in another block of a network."""
        said = (row.name, row.doc, row.why)
        is_new = said not in explained
        explained.add(said)
        return _step(row if is_new else replace(row, doc="", why=""), most, term_of.get(key_of(row)))

    most = max((row.times * row.macs for row in report.steps), default=0) or 1
    groups = [
        Group(
            _title(part),
            [step(row) for row in rows],
        )
        for part, rows in groupby(report.steps, lambda row: (row.part, row.stage))
    ]
    letters = sorted({letter for row in report.steps for letter in _letters(row)})
    name = _formula_name(spec) if terms else ""
    content = {"groups": groups, "letters": letters, "terms": terms, "formula": name}
    lead = "Point at a letter to see each place of its axis."
    if terms:
        lead = "Point at a letter to see each place of its axis, and at a step to see its term in the paper's formula."
    return Panel("flow", "Flow of the steps", lead, "flow", content)


def _title(part: tuple[str, int | None]) -> str:
    title, stage = part
    return f"{title}, stage {stage}" if stage is not None else title


def _letters(row: StepRow) -> set[str]:
    try:
        pattern = parse_pattern(row.pattern)
    except AxisError:
        return set()
    return {letter for tensor in (*pattern.inputs, *pattern.outputs) for letter in tensor.letters}


def _step(row: StepRow, most: int, term: int | None) -> Step:
    try:
        pattern = parse_pattern(row.pattern)
        inputs, outputs = _tensors(pattern.inputs, row.inputs), _tensors(pattern.outputs, row.outputs)
    except AxisError:
        inputs, outputs = ([Sized("", spell(shape)) for shape in of] for of in (row.inputs, row.outputs))
    name = f"{row.name} ×{row.times}" if row.times > 1 else row.name
    macs = row.times * row.macs
    return Step(
        key_of(row), name, row.doc, row.why, inputs, outputs, words.metric(macs), f"{macs:,} MACs",
        round(100 * macs / most, 2), term,
    )  # fmt: skip


def _tensors(tensors: Sequence[Tensor], shapes: Sequence[Shape]) -> list[Sized]:
    if [len(tensor.axes) for tensor in tensors] != [len(shape) for shape in shapes]:
        return [Sized("", spell(shape)) for shape in shapes]
    return [Sized(_letters_of(tensor), spell(shape)) for tensor, shape in zip(tensors, shapes, strict=True)]


def _letters_of(tensor: Tensor) -> str:
    """Return the axes, those of several letters in parentheses: `(b r s) n c`."""
    return " ".join(
        f"({axis.text.strip('() ')})" if " " in axis.text.strip("() ") else axis.text for axis in tensor.axes
    )


def _formula_name(spec: Spec | None) -> str:
    return spec.complexity().own.name if spec is not None else ""


def _terms(report: Report, spec: Spec) -> list[TermLine]:
    """Return the terms of the paper's formula with their steps; no terms if the MACs do not determine them.

    Each step belongs to one term, and the MACs of the steps of each term add up to it exactly. In PVT, two steps have as
    many MACs, so that each of them could belong to either term.
    """
    own = spec.complexity().own.cost
    products = own.products
    values = [spec.batch * Expression((product,)).value for product in products]
    rows = [row for row in report.steps if row.macs]
    rest = sum(row.times * row.macs for row in rows) - sum(values)
    if rest < 0 or len(products) ** len(rows) > 10**6:
        return []
    found = list(islice(_assignments([row.times * row.macs for row in rows], [*values, rest]), 2))
    if len(found) != 1:
        return []
    terms = [
        TermLine(str(product), value, [key_of(row) for row, term in zip(rows, found[0], strict=True) if term == number])
        for number, (product, value) in enumerate(zip(products, values, strict=True))
    ]
    left = [key_of(row) for row, term in zip(rows, found[0], strict=True) if term == len(terms)]
    return [*terms, TermLine("not in the formula", rest, left)] if left else terms


def _assignments(amounts: Sequence[int], sums: Sequence[int]) -> Iterator[list[int]]:
    """Yield each way to add up the amounts to the sums, as the number of the sum to which each amount belongs."""
    if not amounts:
        if not any(sums):
            yield []
        return
    first, *others = amounts
    for number, left in enumerate(sums):
        if first <= left:
            for found in _assignments(others, [*sums[:number], left - first, *sums[number + 1 :]]):
                yield [number, *found]
