"""The table of the steps of one rank, of an attention on several devices."""

from collections.abc import Sequence

from attnscope.core.sizes import plural
from attnscope.render.columns import Column
from attnscope.render.explorer.changes import signed, with_differences
from attnscope.render.explorer.lines import Line, folded, labelled_lines, plain, table
from attnscope.render.explorer.tables import filled
from attnscope.render.screen import Screen, labelled
from attnscope.render.sharding import collectives, sharding_columns, sharding_lines, spell_all
from attnscope.reports.sharding import ShardedStep, ShardingReport


def shards(report: ShardingReport, pinned: ShardingReport | None, of: str, command: str, screen: Screen) -> list[Line]:
    """Return the steps of one rank with their collectives, the other plans, and the command.

    Args:
        report: the attention of the current state on several ranks, B.
        pinned: that of the pinned state, A.
        of: what is on these ranks: "the attention of a block"; empty for the whole state.
        command: the command that gives this plan.
        screen: the screen.
    """
    what = f"{of} by {report.plan}" if of else report.plan
    above = folded(f"{what} on {plural(report.ranks, 'rank')}; d types another plan", screen, "dim")
    columns: Sequence[Column[ShardedStep]] = [
        column for column in sharding_columns(report) if any(map(column.words, report.steps))
    ]
    if pinned is not None:
        columns = with_differences(columns, report.steps, sharding_columns(pinned), pinned.steps)
    steps = table(columns, report.steps, screen, _topic_of_shard, _style_of_shard)
    lines = sharding_lines(report)
    if pinned is not None:
        sent = signed(report.totals.bytes_sent, pinned.totals.bytes_sent, lambda size: f"{size:,} B")
        plans = report.plan if report.plan == pinned.plan else f"{report.plan} and {pinned.plan}"
        lines += labelled("Δ", [f"bytes sent by B − A on {plans}: {'equal' if sent == '=' else sent}"])
    return [*above, *steps, plain("", screen), *labelled_lines([*lines, ("command", command, "")], screen)]


def _style_of_shard(row: ShardedStep) -> str:
    return "bold" if row.bytes_sent else ""


def _topic_of_shard(row: ShardedStep) -> str:
    """Return what explains a step of a rank: its meaning, its shapes, its collectives and its exact counts."""
    said = [
        f"{row.name}: {row.doc}",
        row.pattern,
        f"on one device {spell_all([row.outputs])}",
        f"on a rank {spell_all(row.local_outputs)}",
        f"before it: {collectives(row.before)}" if collectives(row.before) else "",
        f"after it: {collectives(row.after)}" if collectives(row.after) else "",
    ]
    counts = {"bytes sent by one rank": row.bytes_sent, "MACs of one rank": row.macs, "parameters": row.params}
    return "\n".join(filled([*said, *(f"{count:,} {name}" for name, count in counts.items())]))
