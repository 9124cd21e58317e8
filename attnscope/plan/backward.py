"""The cost of the backward of each step, in MACs and in memory: its nodes run in reverse, as autograd runs them."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

from attnscope.ops.kernels import RECOMPUTING
from attnscope.ops.tensor import Shape, contiguous_strides, elementwise_strides, is_contiguous, is_dense
from attnscope.plan.effects import BackwardEffects, backward_of
from attnscope.plan.memory import AtLeast, Memory, Owner, RunOwners
from attnscope.plan.plan import Plan, SizedStep


def backward_macs(
    plan: Plan, kernel: str = "eager", input_grad: bool = True, devices: Sequence[str] = ("cpu",)
) -> tuple[int | None, ...]:
    """Count, for each run of a step, the multiply-accumulates of its backward; None where they are not known.

    A matmul has one more of its size for each of its operands that needs a gradient. A fused kernel has two matmuls in the
    forward and five in the backward, where it computes the scores again. Dropout is off, as in the timed backward.

    Args:
        plan: the steps of the forward.
        kernel: how attention is computed.
        input_grad: whether what comes from outside needs a gradient.
        devices: where it may run: cpu, cuda, mps or meta. What is not the same on all of them is not known.
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
    return tuple(macs)


def computes_scores_anew(step: SizedStep, kernel: str, device: str) -> bool | None:
    """Return whether a fused kernel keeps no scores and computes them again in the backward; None where that is not known.

    So do flash attention (Dao et al., arXiv 2205.14135, algorithm 4) and its like. The math kernel keeps them, and
    scaled_dot_product_attention takes it where no other will do: on the CPU for a learned bias, on CUDA for float64, on
    others always. What CUDA takes for heads that are no multiples of 16 bytes depends on the GPU's generation.
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
    again = {computes_scores_anew(step, kernel, device) for device in devices}
    if again == {True}:
        return macs + 5 * step.forward.fused_macs // 2
    return macs + 2 * step.forward.fused_macs if again == {False} else None


def backward_held(memory: Memory, input_grad: bool = True) -> tuple[AtLeast, ...]:
    """Return, for each step, what training holds at the fullest moment of its backward; 0 where nothing goes back.

    Beyond the input and the parameters: what is still kept, the output and its gradient, which the loss holds, and the
    gradients, those of parameters for good and those of tensors until autograd has taken them further. Of several runs the
    fullest counts. It is a lower bound in a fused kernel or a convolution, and everywhere if something is kept that only
    the device knows.

    Args:
        memory: of the forward.
        input_grad: whether what comes from outside needs a gradient.
    """
    runs = memory.plan.by_step(_go_back(memory, input_grad))
    return tuple([AtLeast(max([held.size for held in each]), all([held.is_all for held in each])) for each in runs])


def least_backward_peak(memory: Memory, input_grad: bool = True) -> int:
    """The most that the backward holds at once, as a lower bound where it is not known."""
    return max([held.size for held in _go_back(memory, input_grad)])


def _go_back(memory: Memory, input_grad: bool) -> list[AtLeast]:
    """For each run, in the order of the forward, what its backward holds; 0 where nothing goes back."""
    plan = memory.plan
    is_known = memory.kept is not None
    runs = _runs(memory, input_grad)
    replay = _Replay(memory.end_of_training)
    fullest = [replay.go_back(plan.steps[number], run) for number, run in zip(plan.runs[::-1], runs[::-1], strict=True)]
    return [AtLeast(held.size, not held.size or (held.is_all and is_known)) for held in fullest[::-1]]


@dataclass(slots=True, eq=False)
class _Gradient:
    """Memory of a gradient, and how many tensors have it for theirs."""

    size: int
    users: int = 0


class _Buffer(NamedTuple):
    """The gradient that a tensor has so far: its memory and strides, and whether it is a view."""

    memory: _Gradient
    strides: Shape
    is_view: bool = False


@dataclass(slots=True, eq=False)
class _Value:
    """A tensor of the forward: its shape and bytes, whether it needs a gradient, and the one that it has so far.

    `pending` are the takings through which the backward has not gone yet.
    """

    shape: Shape
    size: int
    needs_grad: bool
    grad: _Buffer | None = None
    is_input: bool = False
    pending: int = 0


class _Run(NamedTuple):
    """The tensors that one run took and made, and the owners of the memory that it saved."""

    takes: list[_Value]
    needs: tuple[bool, ...]
    makes: list[_Value]
    owners: RunOwners


def _runs(memory: Memory, input_grad: bool) -> list[_Run]:
    """Return the tensors of each run, distinguished from later ones of the same name. The last ones have a gradient."""
    values: dict[str, _Value] = {}
    runs: list[_Run] = []
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
        runs.append(_Run(takes, needs, makes, owners))
    for last in runs[-1].makes:
        last.grad = _Buffer(_Gradient(0, users=2), contiguous_strides(last.shape))  # the loss has it too
    return runs


class _Replay:
    """The bytes that are held while the backward goes from the last run to the first."""

    def __init__(self, held: int) -> None:
        self.held = self.fullest = held
        self.effects: dict[object, BackwardEffects] = {}
        self.savers: dict[Owner, int] = {}
        """The number of nodes that still refer to what the forward saved."""

    def go_back(self, step: SizedStep, run: _Run) -> AtLeast:
        """Go back through one run; return the most that is held while it does."""
        came = [value.grad for value in run.makes]
        if not any(value.needs_grad for value in run.makes) or not any(came):
            self._leave(run)
            return AtLeast(0, True)
        effects = self._effects(step, run.needs, came)
        self.fullest = self.held
        made: dict[int, _Gradient] = {}
        for key, nbytes, saved in effects.events:
            if saved:
                self._forget(run.owners, key, step)
            elif key < 0:
                self._release(came[-key - 1])
            elif key in made:
                self.held -= made.pop(key).size
            else:
                self._hold(nbytes)
                made[key] = _Gradient(nbytes, users=1)
        users: dict[int, int] = {}
        for key in [*effects.stays, *[each.key for each in effects.gradients if each is not None]]:
            users[key] = users.get(key, 0) + 1
        for key, count in users.items():
            self._memory(key, made, came).users += count - 1
        for value in run.makes:
            value.grad = None
        for value, gradient in zip(run.takes, effects.gradients, strict=True):
            if gradient is not None:
                is_view = gradient.is_view or (gradient.key < 0 and self._came(gradient.key, came).is_view)
                self._accumulate(value, _Buffer(self._memory(gradient.key, made, came), gradient.strides, is_view))
        self._leave(run)
        return AtLeast(self.fullest, not (effects.holds_more or step.forward.keeps_unknown))

    def _effects(self, step: SizedStep, needs: tuple[bool, ...], came: list[_Buffer | None]) -> BackwardEffects:
        strides = tuple([None if grad is None else grad.strides for grad in came])
        key = id(step.forward), needs, strides  # steps that are alike have the same one
        if key not in self.effects:
            self.effects[key] = backward_of(step.forward, step.outputs, needs, strides, step.itemsize)
        return self.effects[key]

    def _hold(self, nbytes: int) -> None:
        self.held += nbytes
        self.fullest = max(self.fullest, self.held)

    def _forget(self, owners: RunOwners, key: int, step: SizedStep) -> None:
        """Drop one node's reference to what the forward saved."""
        owner = owners.of(key)
        if owner is None and key in step.forward.bytes_of:
            size, savers = step.forward.bytes_of[key], step.forward.savers[key]
            owner = owners.by_key[key] = Owner(size, 0, 0, savers)
        if owner is None:
            return  # it comes from outside, or is a parameter
        self.savers[owner] = self.savers.get(owner, owner.savers) - 1
        if not self.savers[owner] and not owner.is_output:
            self.held -= owner.size

    def _memory(self, key: int, made: dict[int, _Gradient], came: list[_Buffer | None]) -> _Gradient:
        return made[key] if key > 0 else self._came(key, came).memory

    def _came(self, key: int, came: list[_Buffer | None]) -> _Buffer:
        buffer = came[-key - 1]
        assert buffer is not None
        return buffer

    def _accumulate(self, value: _Value, grad: _Buffer) -> None:
        """Give a tensor a gradient, or add to it: in place if it is not a view and nobody else has its memory."""
        before = value.grad
        if before is None:
            value.grad = grad
            return
        if before.memory.users == 1 and not before.is_view and is_dense(value.shape, before.strides):
            self._release(grad)
            return
        strides = elementwise_strides(value.shape, [(value.shape, before.strides), (value.shape, grad.strides)])
        total = _Buffer(_Gradient(max(before.memory.size, grad.memory.size, value.size), users=1), strides)
        self._hold(total.memory.size)
        self._release(before)
        self._release(grad)
        value.grad = total

    def _leave(self, run: _Run) -> None:
        """Give its gradient to each input whose last taking, from the end of the forward, this was."""
        for value in run.takes:
            value.pending -= 1
            if value.is_input and value.grad is not None and not value.pending:
                value.grad = self._own(value, value.grad)

    def _own(self, value: _Value, grad: _Buffer) -> _Buffer:
        """Copy the gradient of an input if it does not lie as the input does, or if that very tensor is referred to."""
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
