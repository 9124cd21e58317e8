"""What the backward of each step costs, in MACs and in memory, from the letters of the forward."""

from collections.abc import Sequence
from dataclasses import dataclass

from attnscope.core.axes import count, parse_count
from attnscope.ops.kernels import RECOMPUTING
from attnscope.plan.memory import Memory
from attnscope.plan.plan import Plan, SizedStep


def backward_macs(
    plan: Plan, kernel: str = "eager", input_grad: bool = True, devices: Sequence[str] = ("cpu",)
) -> tuple[int | None, ...]:
    """For each run of a step, the multiply-accumulates of its backward; None where not known.

    A matmul has one more of its size for each of its operands that needs a gradient: a linear layer for its weights, and
    for its input unless that is the image itself, or what comes to the first of several blocks that are alike. A fused
    kernel has two matmuls in the forward and five in the backward, where it computes the scores anew.

    Args:
        plan: the steps of the forward.
        kernel: how attention is computed.
        input_grad: whether what comes from outside needs a gradient.
        devices: where it may run: cpu, cuda, mps or meta. What is not the same on all of them is not known.
    """
    needs_grad: dict[str, bool] = {}
    macs = []
    for step in map(plan.steps.__getitem__, plan.runs):
        needs = [
            tensor.name not in step.step.constants and needs_grad.get(name, input_grad)
            for name, tensor in zip(step.takes, step.step.letters.inputs, strict=True)
        ]
        macs.append(_macs(step, needs, kernel, devices))
        needs_grad |= dict.fromkeys(step.makes, any(needs) or bool(step.weights))
    return tuple(macs)


def computes_scores_anew(step: SizedStep, kernel: str, device: str) -> bool | None:
    """Whether a fused kernel keeps no scores and has to compute them again, going back; None where that is not known.

    So do flash attention (Dao et al., arXiv 2205.14135, algorithm 4) and its like. The math kernel keeps them, and
    scaled_dot_product_attention takes it where no other will do: on the CPU for a learned bias, on CUDA for float64, on
    others always. What CUDA takes for heads that are no multiples of 16 bytes is for the GPU's generation to say.
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


def _macs(step: SizedStep, needs: list[bool], kernel: str, devices: Sequence[str]) -> int | None:
    if step.step.fused:
        anew = {computes_scores_anew(step, kernel, device) for device in devices}
        if anew == {True}:
            return 5 * step.macs // 2
        return 2 * step.macs if anew == {False} else None
    if not step.weights:
        return step.macs * sum(needs)
    if len(needs) > 1:  # the weights scale what the operands make
        return step.macs * sum(needs)
    # of several layers only the first has the input for its operand
    first = parse_count(step.step.macs)[0].size(step.sizes) if step.macs else 0
    return 2 * step.macs - (0 if needs[0] else first)


def backward_bytes(memory: Memory, input_grad: bool = True) -> tuple[int | None, ...]:
    """For each step, what training holds at the fullest moment of its backward; 0 where nothing goes back through it.

    Beyond the input and the parameters: what is still kept, the output and its gradient, which the loss holds, and the
    gradients, those of parameters for good and those of tensors until autograd has taken them further. Of several runs
    the fullest counts. None in a fused kernel, and everywhere where one keeps what only it knows.

    It is that of one processor thread, without what the library holds that computes convolutions. Where heads have a single
    channel, or grids or windows a single row or column, torch may copy a gradient elsewhere than is said here.

    Args:
        memory: of the forward.
        input_grad: whether what comes from outside needs a gradient.
    """
    plan, told = memory.plan, memory.kept is not None
    fullest = zip(plan.runs, _go_back(memory, input_grad), strict=True)
    return memory.fullest(
        [held if not held or (told and not plan.steps[number].step.fused) else None for number, held in fullest]
    )


def least_backward_peak(memory: Memory, input_grad: bool = True) -> int:
    """The most that the backward holds at once, without what a kernel has or keeps for itself."""
    return max(_go_back(memory, input_grad))


def _go_back(memory: Memory, input_grad: bool) -> list[int]:
    """For each run, in the order of the forward, what its backward holds at the least; 0 where nothing goes back."""
    plan, held = memory.plan, _Held(memory.end_of_training)
    runs = list(zip(plan.runs, memory.saved_by_runs, _runs(memory, input_grad), strict=True))
    fullest = [held.go_back(plan.steps[number], run, saved.size) for number, saved, run in reversed(runs)]
    return fullest[::-1]


@dataclass(slots=True)
class _Node:
    """A tensor of the forward: whether it needs a gradient, and the gradient that it has so far."""

    needs_grad: bool
    grad: "_Gradient | None" = None


@dataclass(slots=True)
class _Gradient:
    """Memory of a gradient, and how many tensors have it for theirs."""

    size: int
    users: int = 0


@dataclass(slots=True)
class _Run:
    """Tensors that one run took, where they need a gradient, with their names in the step and sizes; and what it made."""

    takes: list[tuple[str, _Node, int]]
    makes: list[_Node]


def _runs(memory: Memory, input_grad: bool) -> list[_Run]:
    """The tensors of each run, told apart where another one has their name later. The last ones have a gradient."""
    tensors: dict[str, _Node] = {}
    runs: list[_Run] = []
    for number in memory.plan.runs:
        step = memory.plan.steps[number]
        takes = []
        for name, tensor in zip(step.takes, step.step.letters.inputs, strict=True):
            taken = tensors.setdefault(name, _Node(input_grad))
            if taken.needs_grad and tensor.name not in step.step.constants:
                takes.append((tensor.name, taken, step.itemsize * tensor.elements(step.sizes)))
        makes = [_Node(bool(takes or step.weights)) for _ in step.makes]
        tensors.update(zip(step.makes, makes, strict=True))
        runs.append(_Run(takes, makes))
    for last in runs[-1].makes:
        last.grad = _Gradient(0, users=2)  # the loss has it too
    return runs


class _Held:
    """The bytes that are held while the backward goes from the last run to the first."""

    def __init__(self, held: int) -> None:
        self.held = held

    def go_back(self, step: SizedStep, run: _Run, saved: int) -> int:
        """Through one run, which saved so many bytes; the fullest moment."""
        gradients = [tensor.grad for tensor in run.makes if tensor.grad is not None]
        if not any(tensor.needs_grad for tensor in run.makes) or not gradients:
            return 0
        if len(run.takes) == len(run.makes) > 1:  # each comes from its own
            pairs = zip(run.takes, run.makes, strict=True)
            fullest = max([self.go_back(step, _Run([taken], [made]), 0) for taken, made in pairs])
            self.held -= saved
            return fullest
        of_inputs = [gradients[0] if step.passes_to(name) else _Gradient(size) for name, _, size in run.takes]
        of_weights = step.itemsize * (step.params + count(step.step.leaves, step.sizes))
        made = of_weights + sum([gradient.size for gradient in of_inputs if gradient is not gradients[0]])
        number = step.number_kept_bytes
        besides = step.itemsize * count(step.step.back, step.sizes) + ("mean" in step.step.work) * step.number_bytes
        fullest = self.held + max(step.arriving_bytes, made + besides - number)
        for gradient in of_inputs:
            gradient.users += 1
        self.held += made - number - saved
        for gradient in gradients:
            self.release(gradient)
        for (_, tensor, size), gradient in zip(run.takes, of_inputs, strict=True):
            fullest = max(fullest, self.accumulate(tensor, gradient, size))
        return fullest

    def accumulate(self, tensor: _Node, gradient: _Gradient, size: int) -> int:
        """Give a tensor a gradient, or add it to what it has; in place where nobody else has that. The fullest moment."""
        if tensor.grad is None:
            tensor.grad = gradient
            return 0
        if tensor.grad.users == 1:
            self.release(gradient)
            return 0
        total = _Gradient(size, users=1)
        self.held += size
        fullest = self.held
        self.release(tensor.grad)
        self.release(gradient)
        tensor.grad = total
        return fullest

    def release(self, gradient: _Gradient) -> None:
        gradient.users -= 1
        if not gradient.users:
            self.held -= gradient.size
