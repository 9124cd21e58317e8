"""The owners of the memory that each run of a plan uses, from the run that allocates it to the last one that holds it."""

from dataclasses import dataclass, field

from attnscope.plan.effects import Forward
from attnscope.plan.plan import Call, Plan, SizedStep


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


def owners_of(plan: Plan, is_recomputed: bool = False) -> list[RunOwners]:
    """Return the owners of the tensors of each run of a plan, and the bytes that it allocates and frees.

    Args:
        plan: the plan.
        is_recomputed: nothing holds the outputs of the plan, since the backward runs it again.
    """
    lives = _Lives(plan)
    for now, number in enumerate(plan.runs):
        lives.run(now, plan.steps[number])
    return lives.ended(is_recomputed)


class _Lives:
    """The owners of a plan's tensors, which become known run by run.

    Args:
        plan: the plan.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.runs: list[RunOwners] = []
        self.owners: list[Owner] = []
        self.owner_of: dict[str, Owner | None] = {}
        self.starting = sorted(plan.calls, key=lambda call: (-call.first, call.last))  # the next call is the last item
        self.running: list[Call] = []  # the outermost call is the first item
        self.checkpoints = list(reversed(plan.checkpoints))  # the current or next one is the last item

    def run(self, now: int, step: SizedStep) -> None:
        """Run a step; `now` is the number of its run in the plan."""
        self._enter_and_leave_calls(now)
        owned = RunOwners([self.owner_of.get(name) for name in step.takes])
        self.runs.append(owned)
        self._hold(owned, now)
        self._allocate(owned, step, now)
        if self.checkpoints and self.checkpoints[-1].first <= now:
            owned.is_recomputed = True
            self._save_inputs(owned, self.checkpoints[-1])
        else:
            _save(owned, step.forward)

    def ended(self, is_recomputed: bool) -> list[RunOwners]:
        """End all calls, and return the owners of each run with the bytes that it frees."""
        last = len(self.runs) - 1
        for call in reversed([Call(0, last, self.plan.holds), *self.running]):
            self._return(call)
        for name in self.plan.steps[self.plan.runs[last]].makes:
            output = self.owner_of[name]
            if output is not None:
                output.is_output = not is_recomputed
        for owner in self.owners:
            self.runs[owner.dies].done += owner.size
            self.runs[owner.dies].done_in_training += 0 if owner.savers else owner.size
        return self.runs

    def _enter_and_leave_calls(self, now: int) -> None:
        while self.running and self.running[-1].last < now:
            self._return(self.running.pop())
        while self.starting and self.starting[-1].first == now:
            self.running.append(self.starting.pop())
        if self.checkpoints and self.checkpoints[-1].last < now:
            self.checkpoints.pop()

    def _return(self, call: Call) -> None:
        """End a call, whose forward held tensors in variables."""
        for name in call.holds:
            if owner := self.owner_of.get(name):
                owner.dies = max(owner.dies, call.last)

    def _hold(self, owned: RunOwners, now: int) -> None:
        """Hold the inputs of a run; a call that is running holds its arguments until it returns."""
        for owner in owned.takes:
            if owner is not None:
                given = [call.last for call in self.running if owner.born < call.first]
                owner.dies = max(owner.dies, given[0] if given else now)

    def _allocate(self, owned: RunOwners, step: SizedStep, now: int) -> None:
        """Give an owner to each storage that a run allocates, and to its outputs."""
        forward = step.forward
        for key, size in forward.sizes.items():
            owned.by_key[key] = owner = Owner(size, now, now, is_replaced=forward.drops)
            self.owners.append(owner)
            owned.made += size
        for name, made in zip(step.makes, forward.outputs, strict=True):
            self.owner_of[name] = owned.of(made.key)

    def _save_inputs(self, owned: RunOwners, checkpoint: Call) -> None:
        """Save those inputs of a run that its checkpointed call was given."""
        kept = self.runs[checkpoint.first].kept_inputs
        for owner in owned.takes:
            if owner is not None and owner.born < checkpoint.first and owner not in kept:
                kept.append(owner)
                # the checkpoint saves it before its first step runs
                self.runs[checkpoint.first - 1].saved += 0 if owner.savers else owner.size
                owner.savers += 1


def _save(owned: RunOwners, forward: Forward) -> None:
    """Save the inputs and outputs of a run that its backward needs."""
    for key in forward.saved:
        owner = owned.of(key)
        if owner is not None:
            is_unsure = owner.may_be_saved and not owner.savers
            owned.saves_others |= owner.is_replaced or is_unsure
            owned.saved += 0 if owner.savers or is_unsure else owner.size
            owner.savers += forward.savers[key]
    for owner in owned.takes:
        if owner is not None:
            owner.may_be_saved |= forward.keeps_unknown
