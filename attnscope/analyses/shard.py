"""Spec and mesh -> ShardingReport: the same attention on several ranks, without a run. No torch."""

import math
from collections.abc import Sequence

from attnscope.attentions.spec import Spec
from attnscope.core.errors import UsageError
from attnscope.plan.links import Device, Link
from attnscope.plan.mesh import KINDS, Mesh, MeshAxis, check_mesh, parse_mesh, ranks_of, spell_mesh
from attnscope.plan.plan import SizedStep
from attnscope.plan.roofline import moved_bytes
from attnscope.plan.sharding import LocalStep, ShardedPlan, live_bytes
from attnscope.reports.sharding import OtherPlan, ShardedStep, ShardedTotals, ShardingReport


def plan_shards(
    spec: Spec,
    plan: str | Mesh,
    *,
    link: Link | None = None,
    device: Device | None = None,
    backward: bool = False,
    command: str | None = None,
) -> ShardingReport:
    """Plan an attention on several ranks.

    Args:
        spec: the attention.
        plan: what the ranks cut, such as "tp=4" or "tp=2,windows=2x2".
        link: the link between ranks, for the time of the collectives.
        device: the peak rates of a rank, for the roofline lower bound of the steps.
        backward: also show the bytes of the backward.
        command: the command line, for the record.

    Raises:
        UsageError: the plan is illegal for this attention.

    Example:
        >>> import attnscope
        >>> report = attnscope.plan_shards(attnscope.SwinSpec(shift=True), "windows=4")
        >>> report.totals.bytes_sent  # two rolls, each a halo of 3 rows
        129024
    """
    mesh = parse_mesh(plan) if isinstance(plan, str) else plan
    sharded = sharded_plan(spec, mesh)
    rows = _rows(sharded, device)
    totals = _totals(sharded, rows, link, device)
    others = other_plans(spec, mesh)
    return ShardingReport(
        command=command,
        title=" · ".join([spec.title, *spec.headline(), f"{spell_mesh(mesh)}: {_ranks(ranks_of(mesh))}"]),
        attention=spec.name,
        spec=spec.as_dict(),
        plan=spell_mesh(mesh),
        ranks=ranks_of(mesh),
        backward=backward,
        steps=rows,
        totals=totals,
        others=others,
        link=link,
        device=device,
        notes=notes_of(sharded),
        next=_next(spec, mesh, totals.bytes_sent, others),
    )


def shard_totals(spec: Spec, mesh: Mesh, *, link: Link | None = None, device: Device | None = None) -> ShardedTotals:
    """Return the sums over the steps of the rank that sends the most.

    Raises:
        UsageError: the plan is illegal for this attention.
    """
    check_mesh(mesh)
    sharded = sharded_plan(spec, mesh)
    return _totals(sharded, _rows(sharded, device), link, device)


def _rows(sharded: ShardedPlan, device: Device | None) -> list[ShardedStep]:
    """Return the steps of the rank that sends the most."""
    live = live_bytes(sharded.busiest, sharded.plan.holds)
    return [
        ShardedStep(
            name=step.whole.name,
            doc=step.whole.step.doc,
            pattern=step.whole.step.pattern,
            outputs=list(step.whole.outputs),
            local_outputs=_distinct(sharded, number),
            before=[each for each in step.before if each.kind != "slice"],
            after=list(step.after),
            rounds=step.rounds,
            macs=step.macs,
            params=step.params,
            bytes_live=live[number],
            bytes_sent=step.bytes_sent,
            backward_bytes_sent=step.backward_bytes_sent,
            gradient_bytes_sent=step.gradient_bytes_sent,
            bound_s=None if device is None else bound_s(step.local, device),
        )
        for number, step in enumerate(sharded.busiest)
    ]


def _totals(
    sharded: ShardedPlan, rows: Sequence[ShardedStep], link: Link | None, device: Device | None
) -> ShardedTotals:
    """Return the sums over the steps."""
    live = [row.bytes_live for row in rows]
    return ShardedTotals(
        bytes_sent=sum(row.bytes_sent for row in rows),
        backward_bytes_sent=sum(row.backward_bytes_sent for row in rows),
        gradient_bytes_sent=sum(row.gradient_bytes_sent for row in rows),
        macs=sum(row.macs for row in rows),
        whole_macs=sharded.plan.macs,
        params=sum(row.params for row in rows),
        whole_params=sharded.plan.params,
        peak_bytes=None if None in live else max(size for size in live if size is not None),
        collectives=sum(len(step.transfers) for step in sharded.busiest),
        communication_s=None if link is None else communication_s(sharded.busiest, link),
        bound_s=None if device is None else sum(row.bound_s or 0.0 for row in rows),
    )


def sharded_plan(spec: Spec, mesh: Mesh) -> ShardedPlan:
    """Return the plan of a Spec on a mesh.

    Raises:
        UsageError: the plan is illegal for this attention.
    """
    return ShardedPlan.of(spec.plan(), mesh, spec.neighbourhood)


def communication_s(steps: Sequence[LocalStep], link: Link) -> float:
    """Return the seconds that the collectives of the forward take on a link, one after another."""
    transfers = [each for step in steps for each in step.transfers]
    return sum(each.bytes_sent / link.bytes_per_s + each.messages * link.latency_s for each in transfers)


def bound_s(step: SizedStep, device: Device) -> float:
    """Return the roofline lower bound of a step, in seconds."""
    if step.is_view:
        return 0.0
    return max(step.flops / device.flops_per_s, moved_bytes(step) / device.bytes_per_s)


def usual_plan(spec: Spec, ranks: int = 2) -> str:
    """Return the legal plan for a number of ranks whose ranks send the fewest bytes; tp if none is legal."""
    legal = [(plan.bytes_sent, plan.plan) for plan in plans_for(spec, ranks) if plan.bytes_sent is not None]
    return min(legal)[1] if legal else f"tp={ranks}"


def other_plans(spec: Spec, mesh: Mesh) -> list[OtherPlan]:
    """Return the other plans for as many ranks, with the bytes that one rank sends, or why they are illegal."""
    return [plan for plan in plans_for(spec, ranks_of(mesh)) if plan.plan != spell_mesh(mesh)]


def plans_for(spec: Spec, ranks: int) -> list[OtherPlan]:
    """Return a plan of each kind for a number of ranks, with the bytes that one rank sends, or why it is illegal."""
    found = []
    enters = "grid" if len(spec.input_shape) > 3 else "tokens"
    for other in _same_ranks(ranks):
        if other[0].kind.enters not in ("", enters):
            continue
        try:
            sent = sum(step.bytes_sent for step in sharded_plan(spec, other).busiest)
        except UsageError as error:
            found.append(OtherPlan(spell_mesh(other), None, _why(error)))
        else:
            found.append(OtherPlan(spell_mesh(other), sent))
    return found


def _why(error: UsageError) -> str:
    """Return the rule of an illegal plan, without the name of the plan and the fix."""
    return error.in_flags().removeprefix("--plan ").partition("; ")[0].partition(" ")[2]


def _same_ranks(ranks: int) -> list[Mesh]:
    """Return a mesh of each kind with this number of ranks, and windows in the squarest grid."""
    meshes: list[Mesh] = [(MeshAxis(name, ranks),) for name in KINDS if name != "rows"]
    down = next(count for count in range(math.isqrt(ranks), 0, -1) if ranks % count == 0)
    if down > 1:
        meshes.append((MeshAxis("windows", down, 1), MeshAxis("windows", ranks // down, 2)))
    return meshes


def _distinct(sharded: ShardedPlan, number: int) -> list[list[tuple[int, ...]]]:
    """Return the distinct shapes of the outputs of a step among ranks, the largest first."""
    found = {steps[number].shapes for steps in sharded.candidates}
    return [list(shapes) for shapes in sorted(found, reverse=True)]


def notes_of(sharded: ShardedPlan) -> list[str]:
    """Return what a user may not expect of a plan."""
    notes = []
    macs = [sum(step.macs for step in steps) for steps in sharded.candidates]
    if min(macs) < max(macs):
        notes.append(f"ranks do not have equal work: at most {max(macs):,} MACs, at least {min(macs):,}")
    if any(step.rounds > 1 for step in sharded.busiest):
        notes.append("live bytes are unknown: the steps between queries and keys run for one block of keys at a time")
    if sharded.ranks == 1:
        notes.append("a single rank has no one to send to")
    return notes


def _next(spec: Spec, mesh: Mesh, sent: int, others: Sequence[OtherPlan]) -> tuple[str, str]:
    own = spec.command().removeprefix("attnscope ")
    less = [other for other in others if other.bytes_sent is not None and other.bytes_sent < sent]
    if less:
        best = min(less, key=lambda other: other.bytes_sent or 0)
        return f"attnscope shard {own} --plan {best.plan}", "sends fewer bytes"
    return f"attnscope shard {own} --plan {spell_mesh(mesh)} --link 50GB/s,5us --peak h100", "the time that it takes"


def _ranks(count: int) -> str:
    return f"{count:,} rank" + ("s" if count != 1 else "")
