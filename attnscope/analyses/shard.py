"""Spec and mesh -> ShardingReport: the same attention on several ranks, without a run. No torch."""

import math
import platform
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from attnscope.attentions.spec import Spec
from attnscope.core.errors import UsageError
from attnscope.core.version import __version__
from attnscope.networks.spec import NetworkSpec
from attnscope.plan.links import Device, Link, spell_device, spell_link, usual_device
from attnscope.plan.mesh import (
    KINDS,
    CountError,
    Mesh,
    MeshAxis,
    UncuttableError,
    check_mesh,
    mesh_of,
    ranks_of,
    spell_mesh,
)
from attnscope.plan.plan import Plan, SizedStep
from attnscope.plan.roofline import moved_bytes
from attnscope.plan.sharding import ShardedPlan, Transfer, live_bytes
from attnscope.reports.sharding import OtherPlan, ShardedStep, ShardedTotals, ShardingReport

if TYPE_CHECKING:
    from attnscope.analyses.network_shards import ShardedNetwork

KEPT = 8
"""Plans that are kept: those of one attention, which a report needs again for the other plans."""
FEW = 16
"""The most ranks for which a plan is proposed instead of an illegal one that has any number of ranks."""
MOST_MORE = 7
"""The most ranks that a proposed plan has more, or fewer, than an illegal one."""


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
    mesh = mesh_of(plan)
    try:
        sharded = sharded_plan(spec, mesh)
    except UncuttableError as error:
        raise _with_legal_plans(error.args[0], spec, mesh) from None
    except CountError as error:
        raise _with_legal_counts(error, spec, mesh) from None
    rows, totals = rows_and_totals(sharded, link, device)
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
        next=_next(spec, mesh, totals.bytes_sent, others, _flags(spec, link, device, backward)),
        environment={"attnscope": __version__, "python": platform.python_version()},
    )


def shard_totals(spec: Spec, mesh: Mesh, *, link: Link | None = None, device: Device | None = None) -> ShardedTotals:
    """Return the sums over the steps of the rank that sends the most.

    Raises:
        UsageError: the plan is illegal for this attention.
    """
    check_mesh(mesh)
    return rows_and_totals(sharded_plan(spec, mesh), link, device)[1]


def rows_and_totals(
    sharded: "ShardedPlan | ShardedNetwork", link: Link | None, device: Device | None
) -> tuple[list[ShardedStep], ShardedTotals]:
    """Return the steps, or the parts of a network, of the rank that sends the most, and their sums."""
    if isinstance(sharded, ShardedPlan):
        rows = _rows(sharded, device)
        transfers = [each for step in sharded.busiest for each in step.transfers]
    else:
        rows = _part_rows(sharded, device)
        transfers = [each for part in sharded.busiest for each in part.transfers]
    return rows, _totals(sharded.plan, rows, transfers, link, device)


def _rows(sharded: ShardedPlan, device: Device | None) -> list[ShardedStep]:
    """Return the steps of the rank that sends the most."""
    live = live_bytes(sharded.busiest, sharded.plan)
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
            bytes_live=held.known,
            bytes_sent=step.bytes_sent,
            backward_bytes_sent=step.backward_bytes_sent,
            gradient_bytes_sent=step.gradient_bytes_sent,
            bound_s=None if device is None else bound_s(step.local, device),
            bytes_live_at_least=held.size,
        )
        for number, (step, held) in enumerate(zip(sharded.busiest, live, strict=True))
    ]


def _part_rows(network: "ShardedNetwork", device: Device | None) -> list[ShardedStep]:
    """Return the parts of a network on the rank that sends the most, with what moves the tokens between them."""
    rows = []
    for number, (part, steps, moves) in enumerate(network.busiest):
        held = live_bytes(steps, part.sharded.plan)
        shapes = {parts[number].steps[-1].shapes[:1] for parts in network.candidates}
        inside = [each for step in steps for each in (*step.before, *step.after)]
        rows.append(
            ShardedStep(
                name=part.title,
                doc="",
                pattern="",
                outputs=list(part.sharded.plan.sized[-1].outputs[:1]),
                local_outputs=[list(each) for each in sorted(shapes, reverse=True)],
                before=[each for each in moves if each.kind != "slice"],
                after=[each for each in inside if each.kind != "slice"],
                rounds=max(step.rounds for step in steps),
                macs=part.times * sum(step.macs for step in steps),
                params=part.times * sum(step.params for step in steps),
                bytes_live=None,  # a network holds further tensors around its parts
                bytes_sent=network.busiest[number].bytes_sent,
                backward_bytes_sent=sum(each.backward_bytes_sent for each in moves)
                + part.times * sum(step.backward_bytes_sent for step in steps),
                gradient_bytes_sent=part.times * sum(step.gradient_bytes_sent for step in steps),
                bound_s=None if device is None else part.times * sum(bound_s(step.local, device) for step in steps),
                bytes_live_at_least=max(each.size for each in held),
                times=part.times,
                whole="; ".join(dict.fromkeys(part.whole.values())),
            )
        )
    return rows


def _totals(
    plan: Plan, rows: Sequence[ShardedStep], transfers: Sequence[Transfer], link: Link | None, device: Device | None
) -> ShardedTotals:
    """Return the sums over the steps."""
    live = [row.bytes_live for row in rows]
    return ShardedTotals(
        bytes_sent=sum(row.bytes_sent for row in rows),
        backward_bytes_sent=sum(row.backward_bytes_sent for row in rows),
        gradient_bytes_sent=sum(row.gradient_bytes_sent for row in rows),
        macs=sum(row.macs for row in rows),
        whole_macs=plan.macs,
        params=sum(row.params for row in rows),
        whole_params=plan.params,
        peak_bytes=None if None in live else max(size for size in live if size is not None),
        collectives=len(transfers),
        communication_s=None if link is None else communication_s(transfers, link),
        bound_s=None if device is None else sum(row.bound_s or 0.0 for row in rows),
        peak_bytes_at_least=max(row.bytes_live_at_least for row in rows),
    )


@lru_cache(maxsize=KEPT)
def sharded_plan(spec: Spec, mesh: Mesh) -> "ShardedPlan | ShardedNetwork":
    """Return the plan of a Spec on a mesh, or the parts of a network.

    Raises:
        UsageError: the plan is illegal for this attention.
    """
    if isinstance(spec, NetworkSpec) and spec.scope == "model" and spec.block is None:  # the network, or a stage of it
        from attnscope.analyses.network_shards import ShardedNetwork

        return ShardedNetwork(spec, mesh)
    return ShardedPlan.of(spec.plan(), mesh, spec.neighbourhood)


def communication_s(transfers: Sequence[Transfer], link: Link) -> float:
    """Return the seconds that the collectives of the forward take on a link, one after another."""
    return sum(each.bytes_sent / link.bytes_per_s + each.messages * link.latency_s for each in transfers)


def bound_s(step: SizedStep, device: Device) -> float:
    """Return the roofline lower bound of a step, in seconds."""
    if step.is_view:
        return 0.0
    return max(step.flops / device.flops_per_s, moved_bytes(step) / device.bytes_per_s)


def usual_plan(spec: Spec, ranks: int = 2) -> str:
    """Return the legal plan for a number of ranks whose ranks send the fewest bytes.

    If none is legal, it is that for the next larger number of ranks that has one, and tp without any.
    """
    for count in range(ranks, ranks + MOST_MORE):
        if legal := legal_plans(spec, count):
            return legal[0]
    return f"tp={ranks}"


def legal_plans(spec: Spec, ranks: int) -> list[str]:
    """Return the legal plans for a number of ranks, from that whose ranks send the fewest bytes."""
    legal = [(plan.bytes_sent, plan.plan) for plan in plans_for(spec, ranks) if plan.bytes_sent is not None]
    return [plan for _, plan in sorted(legal)]


def _with_legal_counts(error: CountError, spec: Spec, mesh: Mesh) -> UsageError:
    """Return the error of a number of ranks with those numbers that are legal for all steps."""
    legal = []
    for count in error.legal.counts:
        try:
            sharded_plan(spec, tuple([replace(each, ranks=count) if each == error.axis else each for each in mesh]))
        except UsageError:
            continue
        legal.append(count)
    if not legal:
        return _with_legal_plans(error.rule, spec, mesh)
    return CountError(error.rule, error.axis, error.legal._replace(counts=tuple(legal)))


def _with_legal_plans(rule: str, spec: Spec, mesh: Mesh) -> UsageError:
    """Return the error of an illegal plan with the legal ones for as many ranks, or for the nearest number of ranks."""
    ranks = ranks_of(mesh)
    few, near = range(2, FEW + 1), range(max(2, ranks - MOST_MORE), ranks + MOST_MORE)
    for count in sorted({*few, *near}, key=lambda count: (abs(count - ranks), count)):
        if legal := legal_plans(spec, count):
            return UsageError(f"{rule}; use {' or '.join(legal)}")
    return UsageError(f"{rule}; no plan for 2 to {FEW} ranks is legal for this attention")


def other_plans(spec: Spec, mesh: Mesh) -> list[OtherPlan]:
    """Return the other plans for as many ranks, with the bytes that one rank sends, or why they are illegal."""
    own = spell_mesh([replace(axis, name="windows") if axis.name == "rows" else axis for axis in mesh])  # two names
    return [plan for plan in plans_for(spec, ranks_of(mesh)) if plan.plan != own]


def plans_for(spec: Spec, ranks: int) -> list[OtherPlan]:
    """Return a plan of each kind for a number of ranks, with the bytes that one rank sends, or why it is illegal."""
    found = []
    tokens = spec.attention() if isinstance(spec, NetworkSpec) else spec
    enters = "grid" if len(tokens.input_shape) > 3 else "tokens"
    for other in _same_ranks(ranks):
        if other[0].kind.enters not in ("", enters):
            continue
        try:
            sent = sum(each.bytes_sent for each in sharded_plan(spec, other).busiest)
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


def notes_of(sharded: "ShardedPlan | ShardedNetwork") -> list[str]:
    """Return what a user may not expect of a plan."""
    notes = []
    macs = [sum(each.macs for each in on_rank) for on_rank in sharded.candidates]
    if min(macs) < max(macs):
        notes.append(f"ranks do not have equal work: at most {max(macs):,} MACs, at least {min(macs):,}")
    if isinstance(sharded, ShardedPlan) and any(step.rounds > 1 for step in sharded.busiest):
        notes.append("live bytes are lower bounds: blocks of keys that travel, and sums over blocks, are not counted")
    if ranks_of(sharded.mesh) == 1:
        notes.append("a single rank has no one to send to")
    return notes


def _flags(spec: Spec, link: Link | None, device: Device | None, backward: bool) -> dict[str, str]:
    """Return the flags of a report beside its plan, with their values."""
    flags = {}
    if link is not None:
        flags["--link"] = shlex.quote(spell_link(link))
    if device is not None:
        flags["--peak"] = shlex.quote(spell_device(device, spec.dtype))
    return {**flags, "--backward": ""} if backward else flags


def _next(spec: Spec, mesh: Mesh, sent: int, others: Sequence[OtherPlan], given: Mapping[str, str]) -> tuple[str, str]:
    """Return the next command and the reason for it: a plan that sends less, or what the report does not have yet."""
    own, plan = spec.command().removeprefix("attnscope "), spell_mesh(mesh)

    def command(plan: str, flags: Mapping[str, str]) -> str:
        words = [f"{name} {value}".rstrip() for name, value in flags.items()]
        return " ".join([f"attnscope shard {own} --plan {plan}", *words])

    less = [other for other in others if other.bytes_sent is not None and other.bytes_sent < sent]
    if less:
        best = min(less, key=lambda other: other.bytes_sent or 0)
        return command(best.plan, given), "sends fewer bytes"
    rates = {"--link": "50GB/s,5us", "--peak": usual_device(spec.dtype)}
    if rates.keys() - given.keys():
        return command(plan, {**rates, **given}), "the time that it takes"
    if "--backward" not in given:
        return command(plan, {**given, "--backward": ""}), "the bytes that the backward sends"
    return command(plan, {**given, "-o": "shard.html"}), "a page of the plan"


def _ranks(count: int) -> str:
    return f"{count:,} rank" + ("s" if count != 1 else "")
