"""What the backward of each step costs, from the letters of the forward."""

from attnscope.axes import parse_count
from attnscope.spec import RECOMPUTING
from attnscope.steps import Plan, SizedStep


def backward_macs(
    plan: Plan, kernel: str = "eager", input_grad: bool = True, device: str = "cpu"
) -> tuple[int | None, ...]:
    """For each step, the multiply-accumulates of its backward, once; None where not known.

    A matmul has one more of its size for each of its operands that needs a gradient: a linear layer for its weights, and
    for its input unless that is the image itself. A fused kernel has two matmuls in the forward and five in the backward,
    since it computes the scores anew (Dao et al., arXiv 2205.14135, algorithm 4). On the CPU no fused kernel gives a
    learned bias its gradient: there scaled_dot_product_attention falls back to its math kernel, which keeps them.

    Args:
        plan: the steps of the forward.
        kernel: how attention is computed.
        input_grad: whether what comes from outside needs a gradient.
        device: where it runs: cpu, cuda or mps.
    """
    wanted: set[str] = set()
    made: set[str] = set()
    macs = []
    for step in plan.steps:
        needs = [
            tensor.name not in step.step.constants and (name in wanted if name in made else input_grad)
            for name, tensor in zip(step.takes, step.step.letters.inputs, strict=True)
        ]
        macs.append(_macs(step, needs, kernel, device))
        made.update(step.makes)
        if any(needs) or step.weights:
            wanted.update(step.makes)
        else:
            wanted.difference_update(step.makes)
    return tuple(macs)


def _macs(step: SizedStep, needs: list[bool], kernel: str, device: str) -> int | None:
    if step.step.fused:
        learned_bias = bool(step.weights) or len(needs) > 3
        if kernel == "math" or (kernel == "sdpa" and device == "cpu" and learned_bias):
            return 2 * step.macs
        if kernel in RECOMPUTING:
            return 5 * step.macs // 2
        return None
    if not step.weights:
        return step.macs * sum(needs)
    if len(needs) > 1:  # the weights scale what the operands make
        return step.macs * sum(needs)
    # of several layers only the first has the input for its operand
    first = parse_count(step.step.macs)[0].size(step.sizes) if step.macs else 0
    return 2 * step.macs - (0 if needs[0] else first)
