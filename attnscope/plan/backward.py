"""MACs and memory of the backward of each step, whose nodes run in reverse as in autograd."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

from attnscope.ops.kernels import RECOMPUTING
from attnscope.ops.tensor import Shape, contiguous_strides, elementwise_strides, is_contiguous, is_dense
from attnscope.plan.effects import RELEASES, RETURNS, UNPACKS, BackwardEffects, backward_of
from attnscope.plan.memory import AtLeast, Memory, Recomputation
from attnscope.plan.owners import Owner, RunOwners
from attnscope.plan.plan import Plan, SizedStep


def backward_macs(
    plan: Plan, kernel: str = "eager", input_grad: bool = True, devices: Sequence[str] = ("cpu",)
) -> tuple[int | None, ...]:
    """Count the MACs of the backward of each run of a step; None if the count is unknown.

    The backward of a matmul is one matmul of the same size for each operand that needs a gradient. A fused kernel that
    recomputes the scores has two matmuls in the forward and five in the backward. A checkpointed call adds the MACs that
    it computes again. Dropout is off, as in the timed backward.

    Args:
        plan: the steps of the forward.
        kernel: the attention kernel.
        input_grad: whether the input of the plan needs a gradient.
        devices: the devices on which it may run: cpu, cuda, mps or meta. A count that differs between them is unknown.
    """
    needs_grad: dict[str, bool] = {}
    counted: dict[tuple[int, tuple[bool, ...]], int | None] = {}
    macs = []
    for number in plan.runs:
        step = plan.steps[number]
        needs = _needs(step, needs_grad, input_grad)
        if (number, needs) not in counted:
            counted[number, needs] = _macs(step, needs, kernel, devices)
        macs.append(counted[number, needs])
        needs_grad |= dict.fromkeys(step.makes, any(needs) or bool(step.weights))
    again = recomputed_macs(Memory(plan))
    return tuple([None if own is None else own + more for own, more in zip(macs, again, strict=True)])


def recomputed_macs(memory: Memory) -> tuple[int, ...]:
    """Count the MACs of each run of a step that the backward computes again with gradient checkpointing.

    The last operators of a checkpointed call are not computed again if no later one saves a tensor for the backward.
    """
    macs = [0] * len(memory.plan.runs)
    for again in memory.recomputations:
        macs[again.call.first : again.call.last + 1] = again.macs
    return tuple(macs)


def recomputes_scores(step: SizedStep, kernel: str, device: str) -> bool | None:
    """Return whether a fused kernel recomputes the scores in the backward instead of saving them; None if unknown.

    FlashAttention (Dao et al., arXiv 2205.14135, algorithm 4) and memory-efficient attention do. The math kernel saves
    the scores. scaled_dot_product_attention falls back to it on the CPU for a learned bias, on CUDA for float64, and
    always on other devices. If the head size on CUDA is not a multiple of 16 bytes, the kernel depends on the GPU
    generation.

    Args:
        step: the step that runs the kernel.
        kernel: its name.
        device: cpu, cuda, mps or meta.
    """
    if kernel not in RECOMPUTING:
        return False if kernel == "math" else None
    if device not in ("cpu", "cuda"):
        return False
    if kernel != "sdpa":
        return True
    if device == "cpu":
        return not step.weights and len(step.inputs) == 3
    if step.itemsize == 8:
        return False
    return None if step.sizes["d"] * step.itemsize % 16 else True


def _needs(step: SizedStep, needs_grad: dict[str, bool], input_grad: bool) -> tuple[bool, ...]:
    return tuple(
        [
            tensor.name not in step.step.constants and needs_grad.get(name, input_grad)
            for name, tensor in zip(step.takes, step.step.letters.inputs, strict=True)
        ]
    )


def _macs(step: SizedStep, needs: tuple[bool, ...], kernel: str, devices: Sequence[str]) -> int | None:
    grads = [made.strides for made in step.forward.outputs]
    macs = backward_of(step.forward, step.outputs, needs, grads, step.itemsize).macs
    if not step.is_fused:
        return macs
    recomputes = {recomputes_scores(step, kernel, device) for device in devices}
    if recomputes == {True}:
        return macs + 5 * step.forward.fused_macs // 2
    return macs + 2 * step.forward.fused_macs if recomputes == {False} else None


def backward_held(memory: Memory, input_grad: bool = True) -> tuple[AtLeast, ...]:
    """Return the peak memory during the backward of each step; 0 if the step has no backward.

    It excludes the input and the parameters, and is the sum of:

    * saved tensors that are not freed yet;
    * the output and its gradient, which the loss holds;
    * gradients of parameters, which stay;
    * gradients of other tensors, until autograd has used them.

    If a step runs several times, the largest value counts. The value is a lower bound in a fused kernel and in a
    convolution. If the tensors saved for the backward depend on the device, all values are lower bounds.

    Args:
        memory: the memory of the forward.
        input_grad: whether the input of the plan needs a gradient.
    """
    runs = memory.plan.by_step(_go_back(memory, input_grad))
    return tuple([AtLeast(max([held.size for held in each]), all([held.is_all for held in each])) for each in runs])


def least_backward_peak(memory: Memory, input_grad: bool = True) -> int:
    """Return the peak memory of the backward, or a lower bound of it if the exact value is unknown."""
    return max([held.size for held in _go_back(memory, input_grad)])


def _go_back(memory: Memory, input_grad: bool) -> list[AtLeast]:
    """Return the peak memory of the backward of each run, in the order of the forward; 0 if the run has no backward."""
    plan = memory.plan
    is_exact = None not in (memory.kept, *[again.memory.kept for again in memory.recomputations])
    runs = _runs(memory, input_grad)
    replay = _Replay(memory.end_of_training)
    peaks = [replay.go_back(plan.steps[number], run) for number, run in zip(plan.runs[::-1], runs[::-1], strict=True)]
    return [AtLeast(held.size, not held.size or (held.is_all and is_exact)) for held in peaks[::-1]]


@dataclass(slots=True, eq=False)
class _Gradient:
    """The memory of a gradient, and the number of tensors whose gradient uses it."""

    size: int
    users: int = 0


class _Buffer(NamedTuple):
    """The gradient accumulated for a tensor so far: its memory and strides, and whether it is a view."""

    memory: _Gradient
    strides: Shape
    is_view: bool = False


@dataclass(slots=True, eq=False)
class _Value:
    """A tensor of the forward.

    Args:
        shape: its shape.
        size: its bytes.
        needs_grad: it needs a gradient.
        grad: its gradient so far.
        is_input: it is an input of the plan.
        pending: the number of its uses whose backward has not run yet.
    """

    shape: Shape
    size: int
    needs_grad: bool
    grad: _Buffer | None = None
    is_input: bool = False
    pending: int = 0


@dataclass(slots=True, eq=False)
class _Recomputed:
    """A checkpointed call that the backward runs again, once.

    Args:
        again: the call.
        pending: the number of its runs that read a saved tensor in the backward, and whose backward has not run yet.
        has_run: it has run again.
    """

    again: Recomputation
    pending: int = 0
    has_run: bool = False


class _Run(NamedTuple):
    """The inputs and outputs of one run, the owners of the memory that it saves, and what recomputes these tensors."""

    takes: list[_Value]
    needs: tuple[bool, ...]
    makes: list[_Value]
    owners: RunOwners
    recomputed: "_Recomputed | None" = None


def _runs(memory: Memory, input_grad: bool) -> list[_Run]:
    """Return the tensors of each run, distinct from later ones of the same name.

    The outputs of the last run have the gradient of the loss.
    """
    values: dict[str, _Value] = {}
    runs: list[_Run] = []
    recomputed: dict[int, tuple[_Recomputed, RunOwners]] = {}
    for again in memory.recomputations:
        calls = _Recomputed(again)
        recomputed |= {again.call.first + run: (calls, owners) for run, owners in enumerate(again.memory.owners)}
    for number, owners in zip(memory.plan.runs, memory.owners, strict=True):
        step = memory.plan.steps[number]
        takes = [
            values.setdefault(name, _Value(shape, step.itemsize * prod(shape), input_grad, is_input=True))
            for name, shape in zip(step.takes, step.inputs, strict=True)
        ]
        needs = tuple(
            [
                value.needs_grad and tensor.name not in step.step.constants
                for value, tensor in zip(takes, step.step.letters.inputs, strict=True)
            ]
        )
        needed = any(needs) or bool(step.weights)
        makes = [_Value(shape, step.itemsize * prod(shape), needed) for shape in step.outputs]
        values.update(zip(step.makes, makes, strict=True))
        for value in takes:
            value.pending += 1
        call, owners = recomputed.get(len(runs), (None, owners))
        if call is not None:
            call.pending += needed and step.forward.last_save is not None
        runs.append(_Run(takes, needs, makes, owners, call))
    for last in runs[-1].makes:
        last.grad = _Buffer(_Gradient(0, users=2), contiguous_strides(last.shape))  # the loss holds it too
    return runs


class _Replay:
    """The memory in use while the backward runs, from the last run to the first.

    Args:
        held: bytes in use before the backward.
    """

    def __init__(self, held: int) -> None:
        self.held = self.peak = held
        self.is_all = True
        self.effects: dict[object, BackwardEffects] = {}
        self.savers: dict[tuple[Owner, _Recomputed | None], int] = {}
        """The number of nodes that still refer to each saved storage, of the forward or of a call that runs again."""

    def go_back(self, step: SizedStep, run: _Run) -> AtLeast:
        """Run the backward of one run; return the peak memory during it."""
        incoming = [value.grad for value in run.makes]
        if not any(value.needs_grad for value in run.makes) or not any(incoming):
            self._leave(run)
            return AtLeast(0, True)
        effects = self._effects(step, run.needs, incoming)
        self.peak, self.is_all = self.held, not (effects.holds_more or step.forward.keeps_unknown)
        made: dict[int, _Gradient] = {}
        drops = RELEASES if run.recomputed is None else RETURNS
        for key, nbytes, kind in effects.events:
            if kind == UNPACKS:
                self._recompute(run.recomputed)
            elif kind == drops:
                self._forget(run, key, step)
            elif kind:
                continue
            elif key < 0:
                self._release(incoming[-key - 1])
            elif key in made:
                self.held -= made.pop(key).size
            else:
                self._hold(nbytes)
                made[key] = _Gradient(nbytes, users=1)
        if run.recomputed is not None and step.forward.last_save is not None:
            self._done_with(run.recomputed)
        users: dict[int, int] = {}
        for key in [*effects.stays, *[each.key for each in effects.gradients if each is not None]]:
            users[key] = users.get(key, 0) + 1
        for key, count in users.items():
            self._memory(key, made, incoming).users += count - 1
        for value in run.makes:
            value.grad = None
        for value, gradient in zip(run.takes, effects.gradients, strict=True):
            if gradient is not None:
                is_view = gradient.is_view or (gradient.key < 0 and self._incoming(gradient.key, incoming).is_view)
                self._accumulate(value, _Buffer(self._memory(gradient.key, made, incoming), gradient.strides, is_view))
        self._leave(run)
        return AtLeast(self.peak, self.is_all)

    def _effects(self, step: SizedStep, needs: tuple[bool, ...], incoming: list[_Buffer | None]) -> BackwardEffects:
        strides = tuple([None if grad is None else grad.strides for grad in incoming])
        key = id(step.forward), needs, strides  # identical steps share one Forward
        if key not in self.effects:
            self.effects[key] = backward_of(step.forward, step.outputs, needs, strides, step.itemsize)
        return self.effects[key]

    def _hold(self, nbytes: int) -> None:
        self.held += nbytes
        self.peak = max(self.peak, self.held)

    def _recompute(self, recomputed: _Recomputed | None) -> None:
        """Run a checkpointed call again if this is the first of its saved tensors that the backward reads."""
        if recomputed is None or recomputed.has_run:
            return
        recomputed.has_run = True
        peak = recomputed.again.peak
        self.peak = max(self.peak, self.held + peak.size)
        self.is_all &= peak.is_all
        self._hold(recomputed.again.memory.least_kept)

    def _done_with(self, recomputed: _Recomputed) -> None:
        """Release the inputs of a checkpointed call after the last of its runs that read a saved tensor."""
        recomputed.pending -= 1
        if not recomputed.pending:
            for owner in recomputed.again.inputs:
                self._drop(owner)

    def _forget(self, run: _Run, key: int, step: SizedStep) -> None:
        """Drop the reference of one node to a saved storage."""
        owners = run.owners
        owner = owners.of(key)
        if owner is None and key in step.forward.bytes_of:
            size, savers = step.forward.bytes_of[key], step.forward.savers[key]
            owner = owners.by_key[key] = Owner(size, 0, 0, savers)
        if owner is None:
            return  # an input of the plan, or a parameter
        self._drop(owner, run.recomputed)

    def _drop(self, owner: Owner, recomputed: _Recomputed | None = None) -> None:
        """Drop one reference to a saved storage, of the forward or of a call that runs again."""
        saved = owner, recomputed
        self.savers[saved] = self.savers.get(saved, owner.savers) - 1
        if not self.savers[saved] and not owner.is_output:
            self.held -= owner.size

    def _memory(self, key: int, made: dict[int, _Gradient], incoming: list[_Buffer | None]) -> _Gradient:
        return made[key] if key > 0 else self._incoming(key, incoming).memory

    def _incoming(self, key: int, incoming: list[_Buffer | None]) -> _Buffer:
        buffer = incoming[-key - 1]
        assert buffer is not None
        return buffer

    def _accumulate(self, value: _Value, grad: _Buffer) -> None:
        """Set the gradient of a tensor, or add to it; in place if it is not a view and does not share its memory."""
        before = value.grad
        if before is None:
            value.grad = grad
            return
        if before.memory.users == 1 and not before.is_view and is_dense(value.shape, before.strides):
            self._release(grad)
            return
        strides = elementwise_strides(value.shape, [(value.shape, before.strides), (value.shape, grad.strides)])
        # the memory of a view may be larger than its tensor
        sizes = [each.memory.size for each in (before, grad) if not each.is_view]
        total = _Buffer(_Gradient(max([value.size, *sizes]), users=1), strides)
        self._hold(total.memory.size)
        self._release(before)
        self._release(grad)
        value.grad = total

    def _leave(self, run: _Run) -> None:
        """Assign the final gradient to each input of the plan whose uses have all been processed."""
        for value in run.takes:
            value.pending -= 1
            if value.is_input and value.grad is not None and not value.pending:
                value.grad = self._own(value, value.grad)

    def _own(self, value: _Value, grad: _Buffer) -> _Buffer:
        """Copy the gradient of an input if it is not contiguous like the input, or if it has other references."""
        is_shared = grad.memory.users > 1 and not grad.is_view
        if is_contiguous(value.shape, grad.strides) and not is_shared:
            return grad
        self._hold(value.size)
        self._release(grad)
        return _Buffer(_Gradient(value.size, users=1), contiguous_strides(value.shape))

    def _release(self, grad: _Buffer | None) -> None:
        assert grad is not None
        grad.memory.users -= 1
        if not grad.memory.users:
            self.held -= grad.memory.size
