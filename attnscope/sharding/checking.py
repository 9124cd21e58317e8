"""The comparison of one rank's run with its plan: local shapes, collectives, bytes and MACs, and values if it has any."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from attnscope.core.axes import Shape, spell
from attnscope.plan.sharding import LocalStep
from attnscope.sharding.module import ShardedAttention
from attnscope.sharding.recording import Recorded, Recorder

RUNS_AS = {"halo": "all-to-all", "ring": "all-to-all"}
"""The operator that runs a collective of a plan, if it has another name."""


@dataclass
class RankCheck:
    """The result on one rank: the differences from the plan, and from the values on one device.

    Args:
        rank: the number of the rank.
        problems: the differences, one line each.
        output_error, gradient_error: the largest absolute differences; None without values.
    """

    rank: int
    problems: list[str] = field(default_factory=list)
    output_error: float | None = None
    gradient_error: float | None = None


def check_rank(
    sharded: ShardedAttention, inputs: Sequence[Tensor], rank: int, grad: Tensor | None = None
) -> tuple[RankCheck, Tensor]:
    """Run forward and backward of a rank's part, and compare what ran with the plan.

    Args:
        sharded: the part of the rank.
        inputs: its parts of the inputs, which require a gradient.
        rank: the number of the rank.
        grad: the gradient of its part of the output; ones by default.

    Returns:
        The differences, and the output.
    """
    found = RankCheck(rank)
    shapes: dict[str, list[Shape]] = {}

    def watch(name: str, made: tuple[Tensor, ...]) -> None:
        shapes.setdefault(name, []).append(tuple(made[0].shape))

    sharded.watcher = watch
    recorder = Recorder()
    with recorder:
        y = sharded(*inputs)
    sharded.watcher = None
    forward, flops = recorder.found, recorder.flops
    recorder = Recorder()
    with recorder:
        (y if grad is None else y * grad).sum().backward()  # `y.backward(grad)` would import sympy
    steps = sharded.steps
    found.problems += _shapes(steps, shapes)
    wider = (
        inputs[0].element_size() // steps[0].whole.itemsize
    )  # values are compared in float64, and the plan has another dtype
    found.problems += _collectives("forward", planned(steps), forward, wider)
    found.problems += _collectives("backward", planned_backward(steps), recorder.found, wider)
    macs = 2 * sum(step.macs for step in steps)
    if flops != macs:
        found.problems.append(f"the plan has {macs // 2:,} MACs, and torch counted {flops // 2:,}")
    return found, y.detach()


def _shapes(steps: Sequence[LocalStep], shapes: dict[str, list[Shape]]) -> list[str]:
    problems = []
    for step in steps:
        name, planned = step.whole.places[0], step.shapes[0]
        ran = shapes.get(name, [])
        if step.rounds > 1:
            if step.whole.name == "score" and (sum(each[-1] for each in ran) != planned[-1] or len(ran) != step.rounds):
                problems.append(f"{name}: the plan has {spell(planned)} in {step.rounds} blocks, and the run {ran}")
        elif ran != [planned]:
            problems.append(
                f"{name}: the plan has {spell(planned)}, and the run {', '.join(map(spell, ran)) or 'nothing'}"
            )
    return problems


def planned(steps: Sequence[LocalStep]) -> list[Recorded]:
    """Return the collectives that the plan of a rank has in the forward, a ring as each of its messages."""
    found = []
    for step in steps:
        for each in step.transfers:
            count = each.messages if each.kind == "ring" else 1
            found += [Recorded(RUNS_AS.get(each.kind, each.kind), each.bytes_sent // max(count, 1))] * count
    return found


def planned_backward(steps: Sequence[LocalStep]) -> list[Recorded]:
    """Return the collectives that the plan of a rank has in the backward, with those of the gradients of parameters."""
    found = []
    for step in steps:
        for each in (*step.before, *step.after):
            count = each.messages if each.backward == "ring" else 1
            if each.backward:
                kind = RUNS_AS.get(each.backward, each.backward)
                found += [Recorded(kind, each.backward_bytes_sent // max(count, 1))] * count
        found += [Recorded("all-reduce", size) for size in step.gradients]
    return found


def _collectives(which: str, planned: Sequence[Recorded], ran: Sequence[Recorded], wider: int) -> list[str]:
    planned = [Recorded(kind, wider * size) for kind, size in planned]
    missing, extra = Counter(planned) - Counter(ran), Counter(ran) - Counter(planned)
    return [
        f"{which}: the plan {has} {each.kind} of {each.bytes_sent:,} B {count}× {than}"
        for differences, has, than in ((missing, "has", "more"), (extra, "lacks", "of the run"))
        for each, count in differences.items()
    ]


def compare_values(
    check: RankCheck,
    sharded: ShardedAttention,
    whole: nn.Module,
    outputs: tuple[Tensor, Tensor],
    inputs: Sequence[tuple[Tensor, Tensor]],
) -> None:
    """Compare the output and the gradients of a rank with its parts of those on one device.

    Args:
        check: the result, which gets the differences.
        sharded: the part of the rank, after its backward.
        whole: the attention on one device, after its backward.
        outputs: the output of the rank, and its part of that on one device.
        inputs: the gradient of each input of the rank, and its part of that on one device.
    """
    from attnscope.sharding.parameters import keep_own

    check.output_error = float((outputs[0] - outputs[1]).detach().abs().max())
    gradients = {name: each.grad for name, each in whole.named_parameters() if each.grad is not None}
    for name, each in whole.named_parameters():
        each.data = gradients.get(name, torch.zeros_like(each))
    keep_own(whole, sharded.steps, sharded.plan, sharded.place)
    parts = dict(whole.named_parameters())
    errors = [float((own - part).abs().max()) for own, part in inputs]
    for name, each in sharded.own_parameters().items():
        grad = torch.zeros_like(each) if each.grad is None else each.grad
        errors.append(float((grad - parts[name]).detach().abs().max()))
    check.gradient_error = largest(errors)


def largest(errors: Sequence[float]) -> float:
    """Return the largest difference, or NaN if there is one, which `max` would skip."""
    return max(errors, key=lambda error: (math.isnan(error), error))
