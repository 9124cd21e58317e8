"""Why others print another figure for the same network: the conventions that are around, and which of them give it.

All of them say "FLOPs" or "GFLOPs" and mean MACs; what they leave out or put in differs.
"""

from dataclasses import replace
from math import prod

from attnscope.networks.spec import NetworkSpec
from attnscope.networks.swin.spec import SwinNetworkSpec
from attnscope.networks.vit.spec import ViTNetworkSpec
from attnscope.plan.plan import Plan

PER_NORM_ELEMENT = 5
"""FLOPs of one element of a LayerNorm in fvcore, which it adds to the MACs."""


def conventions(spec: NetworkSpec, plan: Plan) -> dict[str, int]:
    """What the whole network comes to by each way of counting that is around, the plain MACs first."""
    macs, norms = plan.macs, norm_elements(plan)
    attended = sum([step.times * step.macs for step in plan.steps if step.name in ("score", "mix", "attend")])
    told = {"MACs": macs, "fvcore: LayerNorm added": macs + PER_NORM_ELEMENT * norms}
    if isinstance(spec, ViTNetworkSpec):
        told["fvcore without SDPA"] = macs + PER_NORM_ELEMENT * norms - attended
        if spec.cls:
            told["MACs without the class token"] = spec.batch * replace(spec, cls=False, distilled=False).macs()
    if isinstance(spec, SwinNetworkSpec):
        bias = sum([step.times * step.macs for step in plan.steps if step.name == "bias_mlp"])
        if bias:
            told["MACs without the bias MLP"] = macs - bias
        last = spec.stages[-1]
        pooled = 3 * spec.batch * last.grid[0] * last.grid[1] * last.dim
        told["Microsoft's flops()"] = macs - bias + norms + pooled
    return told


def norm_elements(plan: Plan) -> int:
    """Count the elements that go through a LayerNorm."""
    return sum(
        [
            step.times * prod(run.output)
            for step in plan.steps
            for run in step.forward.runs
            if run.name == "native_layer_norm"
        ]
    )
