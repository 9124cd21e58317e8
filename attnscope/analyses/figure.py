"""A figure that someone has seen, compared with what each counting convention gives."""

import re
from collections.abc import Mapping, Sequence
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal, localcontext
from typing import TYPE_CHECKING

from attnscope.core.errors import UsageError, quoted
from attnscope.reports.report import CountedFigure, ExplainedFigure, TraceReport

if TYPE_CHECKING:
    from attnscope.networks.conventions import Count

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "B": 10**9, "T": 10**12}
"""The factor of each unit."""
_FIGURE = re.compile(
    r"(?P<number>\d{1,3}(?:,\d{3})+(?:\.\d+)?|[\d_]*\.?\d+)(?:e\+?(?P<zeros>\d{1,2}))?"
    r"\s*(?P<unit>[KMGBT]?)\s*(?:MACS?|FLOPS?|OPS)?",
    re.IGNORECASE | re.ASCII,
)
_DECIMAL_COMMA = re.compile(r"(\d+),(\d+)(\s*[KMGBT].*)?", re.IGNORECASE | re.ASCII)
_DIGITS = 40
"""Maximum length of a figure."""


def parse_figure(text: str) -> tuple[Decimal, int]:
    """Return the number that a figure prints, such as 3.13G, 4.49e9 or 4,490,566,656, and the factor of its unit.

    Raises:
        UsageError: it is not a positive number, or is a fraction without a unit.
    """
    written = text.strip()
    match = _FIGURE.fullmatch(written) if len(written) <= _DIGITS else None
    number = Decimal(re.sub("[,_]", "", match["number"])) if match else Decimal()
    is_whole = number == number.to_integral_value()
    got = f"(got {quoted(text)})"
    if comma := _DECIMAL_COMMA.fullmatch(written) if match is None else None:
        whole, fraction, unit = comma.groups()
        raise UsageError(
            f"{{explain_figure}} must have a decimal point instead of a comma {got}; "
            f"write {whole}.{fraction}{'G' if unit is None else unit.strip()}"
        )
    if match is None or number <= 0:
        raise UsageError(f"{{explain_figure}} must be a positive number with a unit, such as 3.13G {got}")
    if zeros := match["zeros"]:
        number = number.scaleb(int(zeros))
    elif not match["unit"] and not is_whole:
        raise UsageError(f"{{explain_figure}} must have a unit if it is a fraction {got}; write {number}G")
    return number, UNITS[match["unit"].upper()]


def conventions_that_give(
    printed: Decimal, unit: int, counts: Mapping[str, int]
) -> tuple[Sequence[str], Sequence[str]]:
    """Return the names of the counts that give a printed number if they are rounded, then those if they are truncated.

    Args:
        printed: the number, with the digits that the source prints.
        unit: factor of its unit.
        counts: the counts, by name.
    """

    def given(rounding: str) -> list[str]:
        return [
            name for name, count in counts.items() if (Decimal(count) / unit).quantize(printed, rounding) == printed
        ]

    with localcontext(prec=3 * _DIGITS):  # the digits of a count and those of a figure
        return given(ROUND_HALF_UP), given(ROUND_DOWN)


def explain_figure(
    text: str, counts: Sequence["Count"], params: int | None = None, of: str = "one image"
) -> ExplainedFigure:
    """Return the conventions that give a figure: those that round to it, then those that sources cut off.

    Args:
        text: the figure, such as 3.13G.
        counts: what the conventions give.
        params: the number of parameters, which the figure may be instead; None if unknown.
        of: what they count.

    Raises:
        UsageError: the text is not a figure.
    """
    printed, unit = parse_figure(text)
    seen = printed * unit
    nearest = min(counts, key=lambda each: abs(each.figure - seen), default=None)
    if params:
        from attnscope.networks.conventions import Count

        counts = [*counts, Count("parameters", "their number, not an amount of computation", params, printed=True)]
    rounded, truncated = conventions_that_give(printed, unit, {each.name: each.figure for each in counts})
    found = [_counted(each, "exact" if each.figure == seen else "rounded") for each in counts if each.name in rounded]
    found += [
        _counted(each, "truncated")
        for each in counts
        if each.name in truncated and each.name not in rounded and each.printed
    ]
    return ExplainedFigure(
        figure=text.strip(),
        explained_by=found,
        nearest=_counted(nearest) if nearest else None,
        off=float(nearest.figure / seen - 1) if nearest else None,
        tried=len(counts),
        of=of,
    )


def counts_of_trace(report: TraceReport) -> list["Count"]:
    """Return what the conventions that need no plan give for a traced module and its input."""
    from attnscope.networks.conventions import Count

    macs, elementwise = report.totals.macs, report.totals.other_flops
    attended = sum([found.core_macs for found in report.attentions])
    counts = [
        Count("MACs", "multiply-accumulates of matmuls and convolutions", macs, printed=True),
        Count("FLOPs", "2 for each MAC, as FlopCounterMode", 2 * macs, printed=False),
        Count("FLOPs with elementwise", "2 for each MAC, and elementwise FLOPs", 2 * macs + elementwise, printed=False),
    ]
    if attended:
        says = "hooks of modules and counters without fused attention miss q·kᵀ and attn·v"
        counts += [
            Count("MACs without the products in attention", says, macs - attended, printed=False),
            Count("FLOPs without the products in attention", says, 2 * (macs - attended), printed=False),
        ]
    return counts


def _counted(count: "Count", how: str | None = None) -> CountedFigure:
    return CountedFigure(count.name, count.says, count.figure, how)
