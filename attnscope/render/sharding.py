"""A ShardingReport on a screen: the steps of one rank with their collectives, the other plans, and the times."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from rich.console import RenderableType
from rich.text import Text

from attnscope.core.axes import Shape, spell
from attnscope.core.sizes import plural
from attnscope.core.text import in_markdown
from attnscope.plan.sharding import Transfer
from attnscope.render import words
from attnscope.render.columns import Column, fit, rows_table, to_csv, to_markdown
from attnscope.render.screen import Labelled, Screen, labelled
from attnscope.reports.sharding import OtherPlan, ShardedStep, ShardingReport

Of = Column[ShardedStep]
COLLECTIVES, BETWEEN = ("before", "after"), "; "
"""Keys of the columns of collectives, and what separates the kinds in a cell."""


def render_sharding(report: ShardingReport, form: str, screen: Screen) -> str:
    """Return the report as a table, json, csv or md."""
    if form == "json":
        return report.to_json() + "\n"
    columns = sharding_columns(report)
    if form == "csv":
        return to_csv(columns, report.steps)
    if form == "md":
        return f"**{in_markdown(report.title)}**\n\n{to_markdown(columns, report.steps)}"
    return screen.draw(sharding_parts(report, screen))


def sharding_parts(report: ShardingReport, screen: Screen) -> list[RenderableType]:
    """Return the headline, the table, and the lines below it."""
    columns, hidden = fit(sharding_columns(report), report.steps, screen)
    if hidden:
        columns, hidden = fit(_in_lines(sharding_columns(report)), report.steps, screen)
    table = rows_table(columns, report.steps, screen, lambda row: "bold cyan" if row.bytes_sent else "")
    above = [screen.headline(report.title), Text(""), table, *screen.hidden(hidden), Text("")]
    return [*above, screen.lines(sharding_lines(report) + screen.suggestion(*report.next))]


def _in_lines(columns: list[Of]) -> list[Of]:
    """Return columns whose cells have a line for each kind of collective, so that more columns fit on a narrow screen."""
    return [replace(column, breaks=BETWEEN) if column.key in COLLECTIVES else column for column in columns]


def sharding_columns(report: ShardingReport) -> list[Of]:
    """Return the columns: shapes on one device and on a rank, collectives, bytes, MACs and memory."""
    totals = report.totals
    of_parts = not report.steps[0].pattern
    kind = "part" if of_parts else "step"
    columns = [
        Of("step", kind, lambda row: row.name, total=plural(len(report.steps), kind), right=False),
        *([Of("times", "runs", lambda row: row.times, str, 1)] if of_parts else []),
        Of("letters", "letters", lambda row: row.pattern, rank=None, right=False),
        Of("outputs", "on one device", lambda row: spell_all([row.outputs]), rank=4, right=False),
        Of("local_outputs", "on a rank", lambda row: spell_all(row.local_outputs), rank=2, right=False),
        Of("before", "before", lambda row: collectives(row.before), rank=1.5, right=False),
        Of("after", "after", lambda row: collectives(row.after), rank=1.5, right=False),
        Of("bytes_sent", "bytes sent", lambda row: row.bytes_sent, _exact, 0, totals.bytes_sent),
        Of("macs", "MACs", lambda row: row.macs, words.metric, 3, totals.macs),
        Of("params", "params", lambda row: row.params, words.metric, 7, totals.params),
        Of(
            "bytes_live",
            "live",
            lambda row: row.bytes_live,
            words.binary,
            5,
            totals.peak_bytes,
            at_least=lambda row: row.bytes_live_at_least,
            total_at_least=totals.peak_bytes_at_least,
        ),
    ]
    if report.backward:
        sent, shared = totals.backward_bytes_sent, totals.gradient_bytes_sent
        columns += [
            Of("bytes_backward_sent", "bwd sent", lambda row: row.backward_bytes_sent, _exact, 1, sent),
            Of("bytes_gradients_sent", "gradients", lambda row: row.gradient_bytes_sent, _exact, 2, shared),
        ]
    if totals.bound_s is not None:
        columns.append(Of("bound_s", "bound", lambda row: row.bound_s, words.seconds, 6, totals.bound_s))
    return columns


def sharding_lines(report: ShardingReport) -> list[Labelled]:
    """Return label, text and style of each line below the table."""
    totals = report.totals
    forward = f"{totals.bytes_sent:,} B by one rank in {plural(totals.collectives, 'collective')}"
    sends = labelled("sends", [f"{forward}; {share_words(report)}"], "bold")
    work, rest = evidence_lines(report)
    return [*sends, *work, *labelled("others", other_lines(report)), *rest]


def evidence_lines(report: ShardingReport) -> tuple[list[Labelled], list[Labelled]]:
    """Return the lines other than the conclusion and the other plans: those above the other plans, and those below."""
    totals = report.totals
    lines: list[Labelled] = []
    if report.backward:
        gradients = f"and {totals.gradient_bytes_sent:,} B for gradients of parameters that several ranks have"
        lines += labelled("backward", [f"{totals.backward_bytes_sent:,} B, {gradients}"])
    lines += labelled("whole", whole_lines(report))
    below = time_lines(report)
    if report.verification is not None:
        below += verification_lines(report)
    return lines, below + labelled("note", report.notes)


def share_words(report: ShardingReport) -> str:
    """Return `it has 25.0% of the MACs and 100.0% of the parameters`, of the rank of the plan."""
    totals = report.totals
    share = f"{totals.macs / totals.whole_macs:.1%} of the MACs" if totals.whole_macs else "no MACs"
    params = f"{totals.params / totals.whole_params:.1%} of the parameters" if totals.whole_params else "no parameters"
    return f"it has {share} and {params}"


def whole_lines(report: ShardingReport) -> list[str]:
    """Return the parts of a network that each rank computes as a whole, once for each reason."""
    reasons: dict[str, list[str]] = {}
    for row in report.steps:
        if row.whole:
            reasons.setdefault(row.whole, []).append(row.name)
    return [f"{'; '.join(names)}: {why}" for why, names in reasons.items()]


def by_bytes_sent(plans: Iterable[OtherPlan]) -> list[OtherPlan]:
    """Return plans, those that send the fewest bytes first, then those that are illegal."""

    def order(plan: OtherPlan) -> tuple[bool, int]:
        return plan.bytes_sent is None, plan.bytes_sent or 0

    return sorted(plans, key=order)


def other_lines(report: ShardingReport) -> list[str]:
    """Return the other plans in the order of the bytes that a rank sends."""
    found = []
    for other in by_bytes_sent(report.others):
        if other.bytes_sent is None:
            found.append(f"{other.plan}: not legal: {other.why}")
            continue
        sent, own = other.bytes_sent, report.totals.bytes_sent
        ratio = f", {words.times(sent / own)}" if own and sent else ""
        found.append(f"{other.plan}: {sent:,} B{ratio}")
    return found


def time_lines(report: ShardingReport) -> list[Labelled]:
    """Return the time of the collectives on the link beside the roofline lower bound of the steps."""
    totals, link, device = report.totals, report.link, report.device
    lines: list[Labelled] = []
    if link is not None:
        latency = f", {words.seconds(link.latency_s)} a message" if link.latency_s else ", without latency"
        source = f" ({link.source})" if link.source and link.source != "given" else ""
        rate = words.metric(link.bytes_per_s, "B/s")
        time = words.seconds(totals.communication_s) if totals.communication_s else "nothing to send"
        text = f"{time} on {rate}{latency}{source}"
        lines += labelled("link", [text])
    if device is not None:
        source = f" ({device.source})" if device.source and device.source != "given" else ""
        rates = f"{words.metric(device.flops_per_s, 'FLOP/s')} and {words.metric(device.bytes_per_s, 'B/s')}"
        lines += labelled("bound", [f"{words.seconds(totals.bound_s)} is the roofline lower bound at {rates}{source}"])
    if link is not None and device is not None and totals.communication_s and totals.bound_s:
        ratio = totals.communication_s / totals.bound_s
        text = "communication exceeds computation" if ratio > 1 else "computation exceeds communication"
        lines += labelled("verdict", [f"{text}: the link takes {words.times(ratio)} the lower bound of the steps"])
    return lines


def verification_lines(report: ShardingReport) -> list[Labelled]:
    """Return whether the sharded module agrees with the plan."""
    found = report.verification
    assert found is not None
    ranks = plural(report.ranks, "rank")
    compared = f"{ranks if found.ranks == report.ranks else f'{found.ranks} of {ranks}'} on {found.how}"
    if not found.agrees:
        return labelled("differs", [f"{compared}: {problem}" for problem in found.problems], "red")
    values = ""
    if found.output_error is not None and found.gradient_error is not None:
        values = f"; largest difference of output {found.output_error:.1e}, of gradients {found.gradient_error:.1e}"
    return labelled("verified", [f"{compared}: shapes, collectives, bytes and MACs equal the plan{values}"], "green")


def spell_all(variants: Sequence[Sequence[Shape]]) -> str:
    """Return the shapes of tensors; an axis that differs among ranks has all of its sizes: `1×99/98×768`.

    Tensors of the same shape appear once.
    """
    tensors = [shapes_of_tensor(shapes) for shapes in zip(*variants, strict=True)]
    return ", ".join(dict.fromkeys(tensors))


def shapes_of_tensor(shapes: Sequence[Shape]) -> str:
    """Return the shapes of one tensor on several ranks."""
    if len(set(shapes)) == 1:
        return spell(shapes[0])
    axes = [dict.fromkeys(sorted(sizes, reverse=True)) for sizes in zip(*shapes, strict=True)]
    return "×".join("/".join(map(str, sizes)) for sizes in axes)


def collectives(transfers: Sequence[Transfer]) -> str:
    """Return the collectives of a step, each with its tensors: `all-to-all q, k`."""
    tensors: dict[str, list[str]] = {}
    for each in transfers:
        if each.kind not in ("copy", "slice"):
            tensors.setdefault(each.kind, []).append(each.tensor)
    return BETWEEN.join(f"{kind} {', '.join(dict.fromkeys(names))}" for kind, names in tensors.items())


def plan_columns(report: ShardingReport) -> list[Column[OtherPlan]]:
    """Return the columns of plans: bytes that one rank sends with a bar, their ratio to this plan, and why not."""
    own = report.totals.bytes_sent
    most = max(own, *(other.bytes_sent or 0 for other in report.others)) or 1

    def ratio(plan: OtherPlan) -> float | None:
        return plan.bytes_sent / own if own and plan.bytes_sent else None

    columns = [
        Column[OtherPlan]("plan", "plan", lambda plan: plan.plan, right=False),
        Column[OtherPlan]("bytes_sent", "bytes sent", lambda plan: plan.bytes_sent, _sent),
        Column[OtherPlan]("bar", "", lambda plan: (plan.bytes_sent or 0) / most, words.bar, right=False, drawn=True),
        Column[OtherPlan]("ratio", "of this plan", ratio, lambda value: words.times(value) if value else words.NONE),
    ]
    if any(other.why for other in report.others):
        columns.append(Column[OtherPlan]("why", "why not", lambda plan: plan.why, right=False))
    return columns


def _sent(value: int | None) -> str:
    return "not legal" if value is None else f"{value:,}"


def _exact(value: int | None) -> str:
    return words.UNKNOWN if value is None else f"{value:,}" if value else words.NONE
