"""Spec -> Costs: the plan, and the costs that follow from it without a run. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass

from attnscope.attentions.spec import Spec
from attnscope.ops.kernels import RECOMPUTING
from attnscope.plan.backward import backward_held, backward_macs, recomputed_macs
from attnscope.plan.memory import AtLeast, Memory
from attnscope.plan.plan import Plan
from attnscope.profiling.options import RunOptions

UNKNOWN = AtLeast(0, is_all=False)
"""A number of bytes that was not computed."""


@dataclass(frozen=True)
class Costs:
    """The costs of a Spec's steps.

    Args:
        plan: the steps, with their sizes, MACs and bytes.
        memory: the activation memory of the steps in inference and in training.
        backward_held: peak bytes of each step in the backward.
        backward_macs: MACs of the backward of each run of a step; empty if the backward was not requested.
        recomputed_macs: MACs of the forward that the backward repeats, with gradient checkpointing.
        notes: what the backward repeats, and the costs that are unknown, with the reason.
    """

    plan: Plan
    memory: Memory
    backward_held: Sequence[AtLeast]
    backward_macs: Sequence[int | None] = ()
    recomputed_macs: int = 0
    notes: tuple[str, ...] = ()


def costs_of(spec: Spec, options: RunOptions, with_backward_memory: bool = True) -> Costs:
    """Return the costs of a Spec's steps, those of the backward if the options request it.

    Args:
        spec: the Spec.
        options: the options of the run.
        with_backward_memory: whether to compute the memory of the backward, which takes as long as all other costs;
            otherwise it is unknown.
    """
    plan = spec.plan()
    memory = Memory(plan)
    held = backward_held(memory, options.input_grad) if with_backward_memory else [UNKNOWN] * len(plan.steps)
    again = sum(recomputed_macs(memory))
    notes: tuple[str, ...] = ()
    if plan.checkpoints:
        notes = (
            f"gradient checkpointing: the backward repeats {again:,} MACs, {again / plan.macs:.0%} of the forward",
        )
    if not options.backward:
        return Costs(plan, memory, held, recomputed_macs=again, notes=notes)
    macs = backward_macs(plan, spec.kernel, options.input_grad, options.possible_devices)
    if None in macs:
        notes = (*notes, _why_backward_is_unknown(spec.kernel, options.possible_devices))
    return Costs(plan, memory, held, macs, again, notes)


def _why_backward_is_unknown(kernel: str, devices: Sequence[str]) -> str:
    """Return why a kernel's backward has no MACs, and the remedy if there is one."""
    if kernel not in RECOMPUTING:
        why = f"{kernel} does not expose what it computes"
    elif len(devices) == 1:
        why = f"the GPU chooses the kernel behind {kernel}"
    else:
        why = f"{' and '.join(devices)} use different kernels for it; choose one with --device"
    return f"the MACs of the backward are unknown: {why}"
