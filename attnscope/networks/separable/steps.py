"""Steps of MobileViT v2's block.

Axis letters: b batch, c embedding dimension, y x grid of tokens, e hidden size of the MLP.
"""

from dataclasses import replace

from attnscope.attentions.separable.spec import SeparableSpec
from attnscope.networks import steps as shared
from attnscope.networks.block.steps import attention_plan
from attnscope.networks.separable.spec import MobileViTBlockSpec
from attnscope.ops import recipes as op
from attnscope.plan.plan import Plan
from attnscope.plan.step import Step, name_steps

norm1 = Step(
    "x: b c y x -> branch: b c y x",
    op=op.group_norm,
    weights={"norm1.weight": "c", "norm1.bias": "c"},
    doc="group norm: normalize all channels and tokens of an image together, then scale and shift each channel",
    why="one mean and one variance for each image are cheaper on a phone than two numbers for each token",
)
residual1 = replace(shared.residual1, pattern="x: b c y x, branch: b c y x -> x: b c y x")
norm2 = replace(norm1, weights={"norm2.weight": "c", "norm2.bias": "c"})
expand = Step(
    "branch: b c y x -> hidden: b e y x",
    op=op.convolution,
    weights={"fc1.weight": "e c 1 1", "fc1.bias": "e"},
    doc="apply the first layer of the MLP to each token, by a convolution of 1×1: c channels to e",
    why="the grid stays channels first, for the convolutions around the block",
)
silu = Step(
    "hidden: b e y x -> hidden: b e y x",
    op=op.silu,
    doc="apply SiLU, x·σ(x), then dropout in training",
    why="without a nonlinearity, the two layers would be one linear map",
)
contract = Step(
    "hidden: b e y x -> branch: b c y x",
    op=op.convolution,
    weights={"fc2.weight": "c e 1 1", "fc2.bias": "c"},
    doc="apply the second layer of the MLP to each token, by a convolution of 1×1: e channels to c",
    why="the residual needs c channels",
)
residual2 = replace(residual1, doc=shared.residual2.doc)
name_steps(globals())


def plan(spec: MobileViTBlockSpec) -> Plan:
    """Return the steps of a block: group norm, attention, residual, group norm, MLP, residual."""
    attention = spec.attention()
    assert isinstance(attention, SeparableSpec)
    (y, x), c = attention.resolution, attention.dim
    sizes = {"b": spec.batch, "c": c, "y": y, "x": x, "e": spec.hidden(c)}

    def of(*steps: Step) -> Plan:
        return Plan.of(steps, sizes, spec.itemsize)

    branch = {"branch": "branch"}
    mlp = of(expand, silu.dropping(spec.proj_drop), contract).inside("mlp", takes=branch, makes=branch)
    whole = Plan.join([of(norm1), attention_plan(spec, attention), of(residual1, norm2), mlp, of(residual2)])
    return spec.checkpointed("block", whole)
