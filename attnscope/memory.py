"""What a run holds in memory, step by step: in inference, in the forward of training, and in its backward.

Tensors live by their names: from the step that makes one to the last that takes it, or a view of it; in training what the
backward needs lives until the backward has been there. Everything is beyond the input and the parameters. Workspaces of
the processor's matmul library, which it takes for bfloat16 and float16, are not in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from attnscope.axes import count
from attnscope.known import most, sum_of
from attnscope.steps import Plan


class Memory:
    """What the steps of a plan hold, in bytes. Of several runs of a step the fullest counts.

    What a fused kernel holds is its own and not known: None.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    @property
    def live(self) -> tuple[int | None, ...]:
        """For each step, what the forward holds at its fullest moment. What a module is given lives until it returns."""
        return self.fullest([live for _, live in self._live])

    @property
    def peak(self) -> int | None:
        """The most that the forward holds at once."""
        return most(self.live)

    @property
    def least_peak(self) -> int:
        """What the forward holds at once at the least: its tensors, without what a fused kernel takes."""
        return max([tensors for tensors, _ in self._live])

    @cached_property
    def saved(self) -> tuple[int | None, ...]:
        """For each step, what training keeps for its backward, each time that it runs.

        A tensor that several steps need counts once, with the first of them; the input from outside counts nowhere.
        """
        return self.fullest(self.saved_by_runs)

    @property
    def kept(self) -> int | None:
        """What training keeps for the backward in all."""
        return sum_of(self.saved_by_runs)

    @cached_property
    def training(self) -> tuple[int | None, ...]:
        """For each step, what the forward of training holds at its fullest moment.

        As `live`, but what the backward needs stays. None behind a kernel that keeps what only it knows, too.
        """
        held, fullest = 0, []
        for number, owned in zip(self.plan.runs, self._owned, strict=True):
            step, keeps = self.plan.steps[number], self._keeps[number]
            if keeps is None:
                break
            held += owned.made
            known = None if step.scratch_bytes is None else held + max(step.scratch_bytes, keeps + step.number_bytes)
            fullest.append(known)
            held += keeps + step.number_kept_bytes - owned.done_in_training
        return self.fullest([*fullest, *[None] * (len(self.plan.runs) - len(fullest))])

    @cached_property
    def _live(self) -> list[tuple[int, int | None]]:
        """For each run, the bytes of all tensors that live meanwhile, and these with the step's scratch, where known."""
        tensors, live = 0, []
        for number, owned in zip(self.plan.runs, self._owned, strict=True):
            scratch = self.plan.steps[number].scratch_bytes
            tensors += owned.made
            live.append((tensors, None if scratch is None else tensors + scratch))
            tensors -= owned.done
        return live

    @cached_property
    def saved_by_runs(self) -> list[int | None]:
        """For each run, what it is the first to keep for the backward."""
        each = [(self._keeps[number], owned.saved) for number, owned in zip(self.plan.runs, self._owned, strict=True)]
        return [None if keeps is None else keeps + saved for keeps, saved in each]

    @cached_property
    def _keeps(self) -> list[int | None]:
        """For each step, what it keeps for the backward besides its tensors."""
        told = [(step, step.step.keeps) for step in self.plan.steps]
        return [None if keeps is None else step.itemsize * count(keeps, step.sizes) for step, keeps in told]

    @property
    def end_of_training(self) -> int:
        """What is held between the forward and the backward: what is kept, the output and the output's gradient."""
        numbers = sum([self.plan.steps[number].number_kept_bytes for number in self.plan.runs])
        gradient = self.plan.steps[self.plan.runs[-1]].output_bytes
        return (self.kept or 0) + numbers + self._owned[-1].output + gradient

    def fullest(self, of_runs: Sequence[int | None]) -> tuple[int | None, ...]:
        """For each step the most of its runs; None where one is not known."""
        runs_of: list[list[int | None]] = [[] for _ in self.plan.steps]
        for number, value in zip(self.plan.runs, of_runs, strict=True):
            runs_of[number].append(value)
        return tuple([most(values) for values in runs_of])

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
