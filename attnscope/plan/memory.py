"""The peak memory of a run, step by step: in inference, in the forward of training, and in its backward.

A tensor lives from the step that makes it to the last step that uses it or a view of it. If a module's forward holds it
in a variable, it lives until the module returns. In training, saved tensors live until their backward has run. A
checkpointed call saves its inputs alone; its backward first runs it again, as the forward of training of a plan of its
own.

The bytes exclude the input and the parameters, and apply to the CPU with one thread. They are a lower bound if a kernel
or a library has a workspace of unknown size.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from attnscope.core.optional import most, sum_of
from attnscope.plan.plan import Call, Plan


class AtLeast(NamedTuple):
    """A number of bytes, which is either exact (`is_all`) or a lower bound."""

    size: int
    is_all: bool

    @property
    def known(self) -> int | None:
        """Return the bytes if they are exact, else None."""
        return self.size if self.is_all else None


@dataclass(slots=True, eq=False)
class Owner:
    """The memory of one or more tensors.

    Args:
        size: its bytes.
        born: the run that allocates it.
        dies: the last run that holds it.
        savers: the number of autograd nodes that save it.
        is_output: it belongs to an output of the plan.
        is_replaced: another tensor takes its place in training, as with dropout.
        may_be_saved: a step whose saved tensors are unknown takes it.
    """

    size: int
    born: int
    dies: int
    savers: int = 0
    is_output: bool = False
    is_replaced: bool = False
    may_be_saved: bool = False


@dataclass(slots=True)
class RunOwners:
    """The owners of the memory that one run uses, and the bytes that it allocates and frees.

    Args:
        takes: the owner of each input; None for an input of the plan.
        by_key: the owners of the storages that the run allocates, by their keys in its forward.
        made: bytes of its outputs.
        done: bytes that are freed after the run in inference.
        done_in_training: bytes that are freed after the run in training.
        saved: bytes of inputs and outputs that it is the first to save for the backward.
        saves_others: `saved` is a lower bound. In training, another tensor may replace one that it saves, or an earlier
            step whose saved tensors are unknown may have saved it.
        is_recomputed: it is in a checkpointed call, so that it saves nothing itself.
        kept_inputs: the tensors that the checkpointed call that begins here saves.
    """

    takes: list[Owner | None]
    by_key: dict[int, Owner] = field(default_factory=dict)
    made: int = 0
    done: int = 0
    done_in_training: int = 0
    saved: int = 0
    saves_others: bool = False
    is_recomputed: bool = False
    kept_inputs: list[Owner] = field(default_factory=list)

    def of(self, key: int) -> Owner | None:
        """Return the owner of a storage of the forward; None for an input of the plan or a parameter."""
        return self.takes[-key - 1] if key < 0 else self.by_key.get(key)


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
        runs = self.plan.runs
        found: list[RunOwners] = []
        tensors: list[Owner] = []
        owner_of: dict[str, Owner | None] = {}
        starting = sorted(self.plan.calls, key=lambda call: (-call.first, call.last))  # the next call is the last item
        running: list[Call] = []  # the outermost call is the first item
        checkpoints = iter(self.plan.checkpoints)
        checkpoint = next(checkpoints, None)

        def returns(call: Call) -> None:
            for name in call.holds:
                if owner := owner_of.get(name):
                    owner.dies = max(owner.dies, call.last)

        for now, number in enumerate(runs):
            step = self.plan.steps[number]
            while running and running[-1].last < now:
                returns(running.pop())
            while starting and starting[-1].first == now:
                running.append(starting.pop())
            if checkpoint is not None and checkpoint.last < now:
                checkpoint = next(checkpoints, None)
            owned = RunOwners([owner_of.get(name) for name in step.takes])
            owned.is_recomputed = checkpoint is not None and checkpoint.first <= now
            for owner in owned.takes:
                if owner is not None:
                    # a running call holds its arguments until it returns
                    given = [call.last for call in running if owner.born < call.first]
                    owner.dies = max(owner.dies, given[0] if given else now)
            forward = step.forward
            for key, size in forward.sizes.items():
                owned.by_key[key] = owner = Owner(size, now, now)
                tensors.append(owner)
                owned.made += size
            for name, made in zip(step.makes, forward.outputs, strict=True):
                owner_of[name] = owned.of(made.key)
            if forward.drops:
                for owner in owned.by_key.values():
                    owner.is_replaced = True
            found.append(owned)
            if checkpoint is not None and owned.is_recomputed:
                kept = found[checkpoint.first].kept_inputs
                for owner in owned.takes:
                    if owner is not None and owner.born < checkpoint.first and owner not in kept:
                        kept.append(owner)
                        # the checkpoint saves it before its first step runs
                        found[checkpoint.first - 1].saved += 0 if owner.savers else owner.size
                        owner.savers += 1
                continue
            for key in forward.saved:
                saved_by = owned.of(key)
                if saved_by is not None:
                    is_unsure = saved_by.may_be_saved and not saved_by.savers
                    owned.saves_others |= saved_by.is_replaced or is_unsure
                    owned.saved += 0 if saved_by.savers or is_unsure else saved_by.size
                    saved_by.savers += forward.savers[key]
            for owner in owned.takes:
                if owner is not None:
                    owner.may_be_saved |= forward.keeps_unknown
        for call in reversed([Call(0, len(runs) - 1, self.plan.holds), *running]):
            returns(call)
        for name in step.makes:
            output = owner_of[name]
            if output is not None:
                output.is_output = not self.is_recomputed
        for owner in tensors:
            found[owner.dies].done += owner.size
            found[owner.dies].done_in_training += 0 if owner.savers else owner.size
        return found
