"""What a run holds in memory, step by step: in inference, in the forward of training, and in its backward.

Tensors live by their names: from the step that makes one to the last that takes it, or a view of it; in training what the
backward needs lives until the backward has been there. Everything is beyond the input and the parameters, and as on the
processor, where a fused kernel is not the same everywhere. What that takes besides for bfloat16 and float16 is not in it:
workspaces of its matmul library, and copies in float32 of what it averages or sums up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from attnscope.core.optional import most, sum_of
from attnscope.plan.plan import Plan


class Memory:
    """What the steps of a plan hold, in bytes. Of several runs of a step the fullest counts.

    What a fused kernel holds is its own and not known: None.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    @property
    def live(self) -> tuple[int | None, ...]:
        """For each step, what the forward holds at its fullest moment. What a module is given lives until it returns."""
        return self.fullest([held.known for held in self._live])

    @property
    def peak(self) -> int | None:
        """The most that the forward holds at once."""
        return most(self.live)

    @property
    def least_peak(self) -> int:
        """The most that the forward holds at once, without what a fused kernel has for itself."""
        return max([held.size for held in self._live])

    @cached_property
    def saved(self) -> tuple[int | None, ...]:
        """For each step, what training keeps for its backward, each time that it runs.

        A tensor that several steps need counts once, with the first of them; the input from outside counts nowhere, so that
        of identical blocks the first may keep less.
        """
        return self.fullest([saved.known for saved in self.saved_by_runs])

    @property
    def saved_together(self) -> tuple[int | None, ...]:
        """For each step, what training keeps of all its runs together."""
        return tuple(map(sum_of, self.plan.by_step([saved.known for saved in self.saved_by_runs])))

    @property
    def kept(self) -> int | None:
        """What training keeps for the backward in all."""
        return sum_of([saved.known for saved in self.saved_by_runs])

    @cached_property
    def training(self) -> tuple[int | None, ...]:
        """For each step, what the forward of training holds at its fullest moment.

        As `live`, but what the backward needs stays. None behind a kernel that keeps what only it knows, too.
        """
        return self.fullest([held.known for held in self._training])

    @property
    def least_training_peak(self) -> int:
        """The most that the forward of training holds at once, without what a kernel has or keeps for itself."""
        return max([held.size for held in self._training])

    @cached_property
    def _live(self) -> list["AtLeast"]:
        """For each run, the tensors that live meanwhile and the step's scratch."""
        tensors, live = 0, []
        for number, owned in zip(self.plan.runs, self._owned, strict=True):
            scratch = self.plan.steps[number].scratch_bytes
            tensors += owned.made
            live.append(AtLeast(tensors + (scratch or 0), scratch is not None))
            tensors -= owned.done
        return live

    @cached_property
    def _training(self) -> list["AtLeast"]:
        """For each run, the same in training, and what is kept so far."""
        held, is_all, live = 0, True, []
        for number, owned in zip(self.plan.runs, self._owned, strict=True):
            step = self.plan.steps[number]
            scratch, keeps = step.scratch_bytes, step.kept_bytes
            is_all &= keeps is not None
            held += owned.made
            besides = max(scratch or 0, (keeps or 0) + step.number_bytes)
            live.append(AtLeast(held + besides, is_all and scratch is not None))
            held += (keeps or 0) + step.number_kept_bytes - owned.done_in_training
        return live

    @cached_property
    def saved_by_runs(self) -> list["AtLeast"]:
        """For each run, what it is the first to keep for the backward."""
        keeps = [self.plan.steps[number].kept_bytes for number in self.plan.runs]
        return [
            AtLeast((own or 0) + owned.saved, own is not None) for own, owned in zip(keeps, self._owned, strict=True)
        ]

    @property
    def end_of_training(self) -> int:
        """What is held between the forward and the backward: what is kept, the output and the output's gradient.

        At the least, where a kernel keeps what only it knows.
        """
        kept = sum([saved.size for saved in self.saved_by_runs])
        numbers = sum([self.plan.steps[number].number_kept_bytes for number in self.plan.runs])
        gradient = self.plan.steps[self.plan.runs[-1]].output_bytes
        return kept + numbers + self._owned[-1].output + gradient

    def fullest(self, of_runs: Sequence[int | None]) -> tuple[int | None, ...]:
        """For each step the most of its runs; None where one is not known."""
        return tuple(map(most, self.plan.by_step(of_runs)))

    @cached_property
    def _owned(self) -> list["_Owned"]:
        """For each run, the bytes of the tensors that begin and end their lives with it, from their names."""
        owned = [_Owned() for _ in self.plan.runs]
        tensors: list[_Tensor] = []
        owner_of: dict[str, _Tensor | None] = {}
        starting = sorted(self.plan.calls, key=lambda call: (-call[0], call[1]))  # the next one last
        running: list[tuple[int, int]] = []  # the outermost first
        for now, number in enumerate(self.plan.runs):
            step = self.plan.steps[number]
            while running and running[-1][1] < now:
                running.pop()
            while starting and starting[-1][0] == now:
                running.append(starting.pop())
            for name in step.takes:
                owner = owner_of.get(name)
                if owner is not None:
                    given = [last for first, last in running if owner.born < first]  # to modules that still run
                    owner.dies = max(owner.dies, given[0] if given else now)
            saved_inputs, saved_outputs = step.step.saved_places
            needed = [owner_of.get(step.takes[index]) for index in saved_inputs]
            if step.is_view:
                owner = owner_of.get(step.takes[0])
                owner_of.update(dict.fromkeys(step.makes, owner))
            else:
                for name, size in zip(step.makes, step.output_sizes, strict=True):
                    owner_of[name] = owner = _Tensor(size, now, now)
                    tensors.append(owner)
                    owned[now].made += size
            needed += [owner_of[step.makes[index]] for index in saved_outputs]
            for owner in needed:
                if owner is not None and not owner.is_saved:
                    owner.is_saved = True
                    owned[now].saved += owner.size
        outputs = {id(owner): owner for owner in map(owner_of.__getitem__, step.makes) if owner}
        owned[-1].output = sum([owner.size for owner in outputs.values() if not owner.is_saved])
        for owner in tensors:
            owned[owner.dies].done += owner.size
            owned[owner.dies].done_in_training += 0 if owner.is_saved else owner.size
        return owned


class AtLeast(NamedTuple):
    """Bytes, and whether they are all: a kernel may have more, which only it knows."""

    size: int
    is_all: bool

    @property
    def known(self) -> int | None:
        """The bytes, where they are all."""
        return self.size if self.is_all else None


@dataclass(slots=True)
class _Tensor:
    """Memory that one tensor owns: its bytes, the run that makes it and the last that holds it, and whether it is saved."""

    size: int
    born: int
    dies: int
    is_saved: bool = False


@dataclass(slots=True)
class _Owned:
    """Bytes of the tensors that a run makes, that end with it (in training those that are not saved), that it saves."""

    made: int = 0
    done: int = 0
    done_in_training: int = 0
    saved: int = 0
    output: int = 0
