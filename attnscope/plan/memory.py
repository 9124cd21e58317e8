"""The memory that a run holds, step by step: in inference, in the forward of training, and in its backward.

Tensors live by their names: from the step that makes one to the last that takes it, or a view of it, or until the module
returns whose forward holds it; in training what the backward needs lives until the backward has been there. Everything is
beyond the input and the parameters, and as on the processor with one thread. Where a kernel or a library holds more than is
known, the bytes are a lower bound.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from attnscope.core.optional import most, sum_of
from attnscope.plan.plan import Call, Plan


class AtLeast(NamedTuple):
    """Bytes, and whether they are all: otherwise they are a lower bound."""

    size: int
    is_all: bool

    @property
    def known(self) -> int | None:
        """The bytes, if they are all."""
        return self.size if self.is_all else None


@dataclass(slots=True, eq=False)
class Owner:
    """Memory of one or several tensors: its bytes, the run that makes it and the last that holds it, how many nodes of the
    graph have saved it, and whether another tensor takes its place in training.
    """

    size: int
    born: int
    dies: int
    savers: int = 0
    is_output: bool = False
    is_replaced: bool = False


@dataclass(slots=True)
class RunOwners:
    """The owners of what one run takes (None: it comes from outside), makes and saves, by the keys of its forward."""

    takes: list[Owner | None]
    by_key: dict[int, Owner] = field(default_factory=dict)
    made: int = 0
    done: int = 0
    done_in_training: int = 0
    saved: int = 0
    saves_others: bool = False

    def of(self, key: int) -> Owner | None:
        """The owner of a storage of the forward; None for one from outside."""
        return self.takes[-key - 1] if key < 0 else self.by_key.get(key)


class Memory:
    """The bytes that the steps of a plan hold. Of several runs of a step the fullest counts."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    @cached_property
    def live(self) -> tuple[int | None, ...]:
        """For each step, what the forward holds at its fullest moment; None where that is a lower bound."""
        return self.fullest([held.known for held in self._live])

    @cached_property
    def live_at_least(self) -> tuple[int, ...]:
        """The same, as a lower bound where it is not known."""
        return self._largest(self._live)

    @property
    def peak(self) -> int | None:
        """The most that the forward holds at once; None where that is a lower bound."""
        return most(self.live)

    @property
    def least_peak(self) -> int:
        """The most that the forward holds at once, as a lower bound where it is not known."""
        return max([held.size for held in self._live])

    @cached_property
    def saved(self) -> tuple[int | None, ...]:
        """For each step, what training keeps for its backward, each time that it runs.

        A tensor that several steps need counts once, with the first of them; the input from outside counts nowhere, so that
        of identical blocks the first may keep less.
        """
        return self.fullest([saved.known for saved in self.saved_by_runs])

    @cached_property
    def saved_together(self) -> tuple[int | None, ...]:
        """For each step, what training keeps of all its runs together."""
        return tuple(map(sum_of, self.plan.by_step([saved.known for saved in self.saved_by_runs])))

    @cached_property
    def saved_at_least(self) -> tuple[int, ...]:
        """For each step, what training keeps each time that it runs, as a lower bound where it is not known."""
        return self._largest(self.saved_by_runs)

    @cached_property
    def saved_together_at_least(self) -> tuple[int, ...]:
        """For each step, what training keeps of all its runs, as a lower bound where it is not known."""
        return tuple(map(sum, self.plan.by_step([saved.size for saved in self.saved_by_runs])))

    @property
    def kept(self) -> int | None:
        """All bytes that training keeps for the backward."""
        return sum_of([saved.known for saved in self.saved_by_runs])

    @property
    def least_kept(self) -> int:
        """All bytes that training keeps for the backward, as a lower bound where they are not known."""
        return sum([saved.size for saved in self.saved_by_runs])

    @cached_property
    def training(self) -> tuple[int | None, ...]:
        """For each step, what the forward of training holds at its fullest moment; None where that is a lower bound.

        As `live`, but what the backward needs stays.
        """
        return self.fullest([held.known for held in self._training])

    @cached_property
    def training_at_least(self) -> tuple[int, ...]:
        """The same, as a lower bound where it is not known."""
        return self._largest(self._training)

    @property
    def least_training_peak(self) -> int:
        """The most that the forward of training holds at once, as a lower bound where it is not known."""
        return max([held.size for held in self._training])

    @cached_property
    def _live(self) -> list[AtLeast]:
        """For each run, the tensors that live while it runs, and what the step itself holds in addition."""
        tensors, live = 0, []
        for number, owned in zip(self.plan.runs, self.owners, strict=True):
            forward = self.plan.steps[number].forward
            tensors += owned.made
            live.append(AtLeast(tensors + forward.scratch, not forward.holds_more))
            tensors -= owned.done
        return live

    @cached_property
    def _training(self) -> list[AtLeast]:
        """For each run, the same in training, and what is kept so far."""
        held, is_all, live = 0, True, []
        for number, owned in zip(self.plan.runs, self.owners, strict=True):
            forward = self.plan.steps[number].forward
            is_all &= not forward.keeps_unknown
            held += owned.made
            live.append(AtLeast(held + forward.training_scratch, is_all and not forward.holds_more))
            held += forward.kept + forward.kept_numbers - owned.done_in_training
        return live

    @cached_property
    def saved_by_runs(self) -> list[AtLeast]:
        """For each run, what it is the first to keep for the backward."""
        forwards = [self.plan.steps[number].forward for number in self.plan.runs]
        return [
            AtLeast(forward.kept + owned.saved, not (forward.keeps_unknown or owned.saves_others))
            for forward, owned in zip(forwards, self.owners, strict=True)
        ]

    @property
    def end_of_training(self) -> int:
        """Bytes that are held between the forward and the backward: what is kept, the output and the output's gradient.

        At the least, where a kernel keeps what only it knows.
        """
        numbers = sum([self.plan.steps[number].forward.kept_numbers for number in self.plan.runs])
        outputs = {id(owner): owner for owned in self.owners for owner in owned.by_key.values() if owner.is_output}
        unsaved = sum([owner.size for owner in outputs.values() if not owner.savers])
        return self.least_kept + numbers + unsaved + self.plan.steps[self.plan.runs[-1]].output_bytes

    def fullest(self, of_runs: Sequence[int | None]) -> tuple[int | None, ...]:
        """For each step the most of its runs; None where one is not known."""
        return tuple(map(most, self.plan.by_step(of_runs)))

    def _largest(self, of_runs: Sequence[AtLeast]) -> tuple[int, ...]:
        return tuple([max(sizes) for sizes in self.plan.by_step([held.size for held in of_runs])])

    @cached_property
    def owners(self) -> list[RunOwners]:
        """For each run, who owns its tensors, and the bytes that come and go with it."""
        runs = self.plan.runs
        found: list[RunOwners] = []
        tensors: list[Owner] = []
        owner_of: dict[str, Owner | None] = {}
        starting = sorted(self.plan.calls, key=lambda call: (-call.first, call.last))  # the next one last
        running: list[Call] = []  # the outermost first

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
            owned = RunOwners([owner_of.get(name) for name in step.takes])
            for owner in owned.takes:
                if owner is not None:
                    given = [call.last for call in running if owner.born < call.first]  # to modules that still run
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
            for key in forward.saved:
                saved_by = owned.of(key)
                if saved_by is not None:
                    owned.saves_others |= saved_by.is_replaced
                    owned.saved += 0 if saved_by.savers else saved_by.size
                    saved_by.savers += forward.savers[key]
            found.append(owned)
        for call in reversed([Call(0, len(runs) - 1, self.plan.holds), *running]):
            returns(call)
        for name in step.makes:
            output = owner_of[name]
            if output is not None:
                output.is_output = True
        for owner in tensors:
            found[owner.dies].done += owner.size
            found[owner.dies].done_in_training += 0 if owner.savers else owner.size
        return found
