"""Counting conventions that explain different published figures for the same network.

All sources say "FLOPs" or "GFLOPs" and mean MACs; they differ in the operations that they include.
"""

from dataclasses import replace
from math import prod

from attnscope.networks.spec import NetworkSpec
from attnscope.networks.swin.spec import SwinNetworkSpec
from attnscope.networks.vit.spec import ViTNetworkSpec
from attnscope.plan.plan import Plan

PER_NORM_ELEMENT = 5
"""FLOPs that fvcore counts for each element of a LayerNorm and adds to the MACs."""


def conventions(spec: NetworkSpec, plan: Plan) -> dict[str, int]:
    """Return the total of the whole network by each counting convention, the MACs first."""
    macs, norms = plan.macs, norm_elements(plan)
    attended = sum([step.times * step.macs for step in plan.steps if step.name in ("score", "mix", "attend")])
    totals = {"MACs": macs, "fvcore: LayerNorm added": macs + PER_NORM_ELEMENT * norms}
    if isinstance(spec, ViTNetworkSpec):
        totals["fvcore without SDPA"] = macs + PER_NORM_ELEMENT * norms - attended
        if spec.cls:
            totals["MACs without the class token"] = spec.batch * replace(spec, cls=False, distilled=False).macs()
    if isinstance(spec, SwinNetworkSpec):
        bias = sum([step.times * step.macs for step in plan.steps if step.name == "bias_mlp"])
        if bias:
            totals["MACs without the bias MLP"] = macs - bias
        last = spec.stages[-1]
        pooled = 3 * spec.batch * last.grid[0] * last.grid[1] * last.dim
        totals["Microsoft's flops()"] = macs - bias + norms + pooled
    return totals


def norm_elements(plan: Plan) -> int:
    """Count the elements that the LayerNorms of a plan normalize."""
    return sum(
        [
            step.times * prod(run.output)
            for step in plan.steps
            for run in step.forward.runs
            if run.name == "native_layer_norm"
        ]
    )
