"""Columns of a network's parts, with a subtotal for each stage."""

from attnscope.core.axes import spell
from attnscope.render import words
from attnscope.render.columns import SHARE_OF_MACS, SHARE_OF_TIME, Column
from attnscope.render.held import LAST_TO_GO, held_column, lower_bounds
from attnscope.reports.report import PartRow, Report

RANKS = {"bytes_live": 6, "bytes_saved": 5, "bytes_training": 8, "bytes_backward": 8}
"""Ranks of the memory columns without --memory, by key."""


def part_columns(report: Report) -> list[Column[PartRow]]:
    """Return the columns for which this report has values, in their order on the screen."""
    rows, totals = report.parts, report.totals
    parts = [row for row in rows if not row.is_stage]
    blocks = sum([row.times for row in parts])
    ranks = LAST_TO_GO if "memory" in report.focus else RANKS
    columns = [
        Column[PartRow]("part", "part", lambda row: row.name, rank=0, total=f"{blocks} parts", right=False, text=_name),
        Column[PartRow]("outputs", "output shape", lambda row: ", ".join(map(spell, row.outputs)), rank=1, right=False),
        Column[PartRow]("macs", "MACs", lambda row: row.macs, words.metric, 0, totals.macs),
        Column[PartRow]("macs_share", SHARE_OF_MACS, lambda row: row.macs / (totals.macs or 1), words.percent, 4),
        *([] if report.time else [_macs_bar(parts)]),
        Column[PartRow]("other_flops", "elementwise", lambda row: row.other_flops, words.metric, 9, totals.other_flops),
        Column[PartRow]("params", "params", lambda row: row.params, words.metric, 2, totals.params),
    ]
    if any(row.sees for row in rows):
        columns.append(Column[PartRow]("sees", "sees", lambda row: spell(row.sees) if row.sees else None, _seen, 3))
    columns += [
        held_column("bytes_live", "live", ranks["bytes_live"], totals, "peak_bytes"),
        held_column("bytes_training", "training", ranks["bytes_training"], totals, "training_peak_bytes"),
        held_column("bytes_backward", "bwd live", ranks["bytes_backward"], totals, "backward_peak_bytes"),
        held_column("bytes_saved", "saved", ranks["bytes_saved"], totals, "kept_bytes"),
    ]
    if report.time:
        time = report.time
        longest = max([row.time_s or 0.0 for row in parts]) or 1.0
        columns += [
            Column[PartRow]("time_s", "time", lambda row: row.time_s, words.seconds, 0, time.steps_sum_s),
            Column[PartRow](
                "time_share", SHARE_OF_TIME, lambda row: time.share_of_steps(row.time_s or 0.0), words.percent, 7
            ),
            Column[PartRow](
                "time_bar",
                "",
                lambda row: None if row.is_stage else (row.time_s or 0.0) / longest,
                words.bar,
                10,
                right=False,
                drawn=True,
            ),
        ]
    if report.backward:
        back = report.backward
        columns.append(
            Column[PartRow]("backward_macs", "bwd MACs", lambda row: row.backward_macs, words.metric, 1, back.macs)
        )
        if back.time:
            columns.append(
                Column[PartRow](
                    "backward_s", "bwd time", lambda row: row.backward_s, words.seconds, 1, back.time.steps_sum_s
                )
            )
    return [*columns, *lower_bounds(columns)]


def _macs_bar(parts: list[PartRow]) -> Column[PartRow]:
    """Declare a column with bars of MACs for a network without times."""
    most = max([row.macs for row in parts]) or 1

    def share(row: PartRow) -> float | None:
        return None if row.is_stage else row.macs / most

    return Column("macs_bar", "", share, words.bar, 10, right=False, drawn=True)


def part_style(row: PartRow) -> str:
    """Return the style of a row: bold for a stage, which is the sum of its parts."""
    return "bold" if row.is_stage else ""


def _name(row: PartRow) -> str:
    indent = "  " if row.stage is not None and not row.is_stage else ""
    return f"{indent}{row.name} ×{row.times}" if row.times > 1 else f"{indent}{row.name}"


def _seen(sees: str | None) -> str:
    return words.NONE if sees is None else sees
