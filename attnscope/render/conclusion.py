"""The conclusion: the distribution of the work of a report in one sentence."""

from itertools import accumulate

from attnscope.render import words
from attnscope.render.steps import seconds_of, weight
from attnscope.reports.report import Report, StepRow

NOTABLE = 0.2
"""From this share on, the time of steps without MACs is the conclusion."""


def conclusion(report: Report) -> str:
    """Return the distribution of the MACs, or of the time if much of it is spent in steps without MACs."""
    if report.time and (share := idle_share(report)) >= NOTABLE:
        names = leading(report)
        return f"{words.rough_percent(share)} of the time is spent in steps without MACs" + (
            f", most in {names[0]}" if names else ""
        )
    return macs_sentence(report)


def macs_sentence(report: Report) -> str:
    """Return `89% of the MACs are in the projections; attention itself is 11%`, the largest share first."""
    total = report.totals.macs
    if not total:
        return "no step has MACs"
    macs: dict[str, int] = {}
    for row in report.steps:
        if row.macs:
            kind = _kind(row, has_parts=bool(report.parts))
            macs[kind] = macs.get(kind, 0) + row.times * row.macs
    ranked = sorted(macs, key=lambda kind: macs[kind], reverse=True)
    (largest, share), *others = [(kind, words.rough_percent(macs[kind] / total)) for kind in ranked]
    rest = ", ".join(f"{kind} {'are' if kind in PLURAL else 'is'} {share}" for kind, share in others)
    return f"{share} of the MACs are in {largest}" + (f"; {rest}" if rest else "")


ATTENTION, MLPS, PROJECTIONS = "attention itself", "the MLPs", "the projections"
MBCONVS = "the MBConvs"
PLURAL = (MLPS, PROJECTIONS, MBCONVS)
KINDS = {
    "mlp": MLPS,
    "attn": PROJECTIONS,
    "conv": MBCONVS,
    "local_module": MBCONVS,
    "local_mp": "local patch interaction",
}
"""The kind of work of steps that multiply a weight, by the name of a module that has them."""


def _kind(row: StepRow, has_parts: bool) -> str:
    """Return the kind of work of a step with MACs; attention itself multiplies activations, the others a weight.

    In a network with parts, a step outside blocks belongs to its part. In a block, what is outside of the modules in KINDS
    is the projection of a shortcut.
    """
    if len(row.inputs) > 1:
        return ATTENTION
    found = (KINDS[home] for home in reversed(row.path.split(".")) if home in KINDS)
    return next(found, row.part if has_parts and row.part and "block" not in row.part else PROJECTIONS)


def idle_share(report: Report) -> float:
    """Return the share of the measured time that is spent in steps without MACs; 0.0 if no step took longer than 0 s."""
    assert report.time is not None
    return report.time.share_of_steps(sum(seconds_of(row) for row in report.steps if not row.macs)) or 0.0


def leading(report: Report) -> list[str]:
    """Return the steps without MACs that take the most time: four fifths of their time together, at most three."""
    amounts: dict[str, float] = {}
    for row in report.steps:
        if not row.macs and row.time:
            amounts[row.name] = amounts.get(row.name, 0.0) + weight(row)
    total = sum(amounts.values())
    if not total:
        return []
    names = sorted(amounts, key=lambda name: amounts[name], reverse=True)
    sums = accumulate(amounts[name] for name in names)
    enough = next((count for count, reached in enumerate(sums, 1) if reached >= 0.8 * total), len(names))
    return names[: min(enough, 3)]
