"""The peak memory of a run, step by step: in inference, in the forward of training, and in its backward.

A tensor lives from the step that makes it to the last step that uses it or a view of it. If a module's forward holds it
in a variable, it lives until the module returns. In training, saved tensors live until their backward has run. A
checkpointed call saves its inputs alone; its backward first runs it again, as the forward of training of a plan of its
own.

The bytes exclude the input and the parameters, and apply to the CPU with one thread. They are a lower bound if a kernel
or a library has a workspace of unknown size.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

from attnscope.core.optional import most, sum_of
from attnscope.plan.owners import Owner, RunOwners, owners_of
from attnscope.plan.plan import Call, Plan


class AtLeast(NamedTuple):
    """A number of bytes, which is either exact (`is_all`) or a lower bound."""

    size: int
    is_all: bool

    @property
    def known(self) -> int | None:
        """Return the bytes if they are exact, else None."""
        return self.size if self.is_all else None


class Recomputation(NamedTuple):
    """A checkpointed call in the backward.

    It runs again when the backward first reads a tensor that it would have saved. It ends when it has saved all of them,
    before the last operators if these save nothing. Its inputs are saved until all of these tensors are freed.

    Args:
        call: the call.
        memory: the memory of its runs alone; all that they save is recomputed. Identical calls share it.
        inputs: the owners of its inputs, without those of the plan.
    """

    call: Call
    memory: "Memory"
    inputs: list[Owner]

    @property
    def last(self) -> int | None:
        """Return the number of the last run, from 0, that saves a tensor; None if none does."""
        forwards = [self.memory.plan.steps[number].forward for number in self.memory.plan.runs]
        return max([run for run, forward in enumerate(forwards) if forward.last_save], default=None)

    @property
    def macs(self) -> list[int]:
        """Return the MACs of each run of the call that are computed again."""
        forwards = [self.memory.plan.steps[number].forward for number in self.memory.plan.runs]
        if self.last is None:
            return [0] * len(forwards)
        after = [0] * (len(forwards) - self.last - 1)
        last = forwards[self.last].last_save
        assert last is not None
        return [*[forward.macs for forward in forwards[: self.last]], last.macs, *after]

    @property
    def peak(self) -> AtLeast:
        """Return the peak memory of the recomputation, in addition to what was in use before."""
        if self.last is None:
            return AtLeast(0, True)
        *before, whole = self.memory.of_training[: self.last + 1]
        step = self.memory.plan.steps[self.memory.plan.runs[self.last]].forward
        assert step.last_save is not None
        size = whole.size - sum(step.sizes.values()) - step.training_scratch + step.last_save.peak
        return AtLeast(max([size, *[held.size for held in before]]), all([held.is_all for held in (*before, whole)]))


class Memory:
    """The memory that the steps of a plan use. If a step runs several times, the largest value counts.

    Args:
        plan: the plan.
        is_recomputed: the backward runs the plan again, so that nothing holds its outputs.
    """

    def __init__(self, plan: Plan, is_recomputed: bool = False) -> None:
        self.plan = plan
        self.is_recomputed = is_recomputed

    @cached_property
    def live(self) -> tuple[int | None, ...]:
        """Return the peak memory of the forward during each step; None if only a lower bound is known."""
        return self._most_by_step([held.known for held in self._live])

    @cached_property
    def live_at_least(self) -> tuple[int, ...]:
        """Return `live` with lower bounds in place of None."""
        return self._largest(self._live)

    @property
    def peak(self) -> int | None:
        """Return the peak memory of the forward; None if only a lower bound is known."""
        return most(self.live)

    @property
    def least_peak(self) -> int:
        """Return the peak memory of the forward, or a lower bound of it if the exact value is unknown."""
        return max([held.size for held in self._live])

    @cached_property
    def saved(self) -> tuple[int | None, ...]:
        """Return the bytes that each step saves for the backward in one run; None if unknown.

        A tensor that several steps save counts once, in the first of them. The input of the plan does not count, so
        that the first of several identical blocks may save less.
        """
        return self._most_by_step([saved.known for saved in self.saved_by_runs])

    @cached_property
    def saved_together(self) -> tuple[int | None, ...]:
        """Return the bytes that each step saves for the backward, summed over its runs; None if unknown."""
        return tuple(map(sum_of, self.plan.by_step([saved.known for saved in self.saved_by_runs])))

    @cached_property
    def saved_at_least(self) -> tuple[int, ...]:
        """Return `saved` with lower bounds in place of None."""
        return self._largest(self.saved_by_runs)

    @cached_property
    def saved_together_at_least(self) -> tuple[int, ...]:
        """Return `saved_together` with lower bounds in place of None."""
        return tuple(map(sum, self.plan.by_step([saved.size for saved in self.saved_by_runs])))

    @property
    def kept(self) -> int | None:
        """Return the bytes that all steps save for the backward; None if only a lower bound is known."""
        return sum_of([saved.known for saved in self.saved_by_runs])

    @property
    def least_kept(self) -> int:
        """Return the bytes that all steps save for the backward, or a lower bound if the exact value is unknown."""
        return sum([saved.size for saved in self.saved_by_runs])

    @cached_property
    def training(self) -> tuple[int | None, ...]:
        """Return the peak memory of the forward of training during each step; None if only a lower bound is known.

        It differs from `live` in that saved tensors are not freed.
        """
        return self._most_by_step([held.known for held in self.of_training])

    @cached_property
    def training_at_least(self) -> tuple[int, ...]:
        """Return `training` with lower bounds in place of None."""
        return self._largest(self.of_training)

    @property
    def least_training_peak(self) -> int:
        """Return the peak memory of the forward of training, or a lower bound if the exact value is unknown."""
        return max([held.size for held in self.of_training])

    @cached_property
    def _live(self) -> list[AtLeast]:
        """Return the peak memory during each run: the live tensors, and the temporaries of the step."""
        tensors, live = 0, []
        for number, owned in zip(self.plan.runs, self.owners, strict=True):
            forward = self.plan.steps[number].forward
            tensors += owned.made
            live.append(AtLeast(tensors + forward.scratch, not forward.holds_more))
            tensors -= owned.done
        return live

    @cached_property
    def of_training(self) -> list[AtLeast]:
        """Return the peak memory during each run in training: that of inference, and the tensors saved so far."""
        held, is_all, live = 0, True, []
        # a checkpoint with dropout also holds the states of the random number generators
        unknown = {again.call.first for again in self.recomputations if again.memory.kept is None}
        for run, (number, owned) in enumerate(zip(self.plan.runs, self.owners, strict=True)):
            forward = self.plan.steps[number].forward
            is_all &= not forward.keeps_unknown and run not in unknown
            held += owned.made
            scratch = forward.scratch if owned.is_recomputed else forward.training_scratch
            live.append(AtLeast(held + scratch, is_all and not forward.holds_more))
            held += forward.kept_numbers - owned.done_in_training  # no hook of autograd sees the numbers
            held += 0 if owned.is_recomputed else forward.kept
        return live

    @cached_property
    def saved_by_runs(self) -> list[AtLeast]:
        """Return the bytes that each run is the first to save for the backward."""
        forwards = [self.plan.steps[number].forward for number in self.plan.runs]
        return [
            AtLeast(owned.saved, True)
            if owned.is_recomputed
            else AtLeast(forward.kept + owned.saved, not (forward.keeps_unknown or owned.saves_others))
            for forward, owned in zip(forwards, self.owners, strict=True)
        ]

    @property
    def end_of_training(self) -> int:
        """Return the bytes in use between forward and backward: saved tensors, the output and its gradient.

        It is a lower bound if a kernel saves tensors that depend on the device.
        """
        numbers = sum([self.plan.steps[number].forward.kept_numbers for number in self.plan.runs])
        outputs = {id(owner): owner for owned in self.owners for owner in owned.by_key.values() if owner.is_output}
        unsaved = sum([owner.size for owner in outputs.values() if not owner.savers])
        return self.least_kept + numbers + unsaved + self.plan.steps[self.plan.runs[-1]].output_bytes

    @cached_property
    def recomputations(self) -> "list[Recomputation]":
        """Return the checkpointed calls, in their order; calls with the same runs share one memory."""
        found: list[Recomputation] = []
        alike: dict[object, Memory] = {}
        for call in self.plan.checkpoints:
            part = self.plan.part(call)
            memory = alike.setdefault((part.runs, part.calls), Memory(part, is_recomputed=True))
            found.append(Recomputation(call, memory, self.owners[call.first].kept_inputs))
        return found

    def _most_by_step(self, of_runs: Sequence[int | None]) -> tuple[int | None, ...]:
        """Return the largest value among the runs of each step; None if one of them is unknown."""
        return tuple(map(most, self.plan.by_step(of_runs)))

    def _largest(self, of_runs: Sequence[AtLeast]) -> tuple[int, ...]:
        return tuple([max(sizes) for sizes in self.plan.by_step([held.size for held in of_runs])])

    @cached_property
    def owners(self) -> list[RunOwners]:
        """Return the owners of the tensors of each run, and the bytes that it allocates and frees."""
        return owners_of(self.plan, self.is_recomputed)
