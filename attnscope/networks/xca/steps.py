"""Steps of XCiT's block.

Axis letters: b batch, n = y·x tokens of a grid, c embedding dimension, e hidden size of the MLP.
"""

from dataclasses import replace

from attnscope.attentions.xca.spec import XCASpec
from attnscope.networks import steps as shared
from attnscope.networks.block.steps import attention_plan
from attnscope.networks.composed import ComposedSpec
from attnscope.networks.steps import contract, expand, gelu, norm1, norm2, residual1, residual2
from attnscope.networks.xca.spec import KERNEL, XCiTBlockSpec
from attnscope.ops import recipes as op
from attnscope.plan.plan import Plan
from attnscope.plan.step import Step, name_steps

scale1 = replace(shared.scale1, weights={"gamma1": "c"})
norm3 = replace(norm1, weights={"norm3.weight": "c", "norm3.bias": "c"})
to_planes = Step(
    "branch: b (y x) c -> planes: b c y x",
    op=op.view,
    doc="reshape the sequence of tokens to a grid, channels first",
    why="the convolutions take a grid",
)
mix_neighbours = Step(
    "planes: b c y x -> planes: b c y x",
    op=op.convolution,
    weights={"conv1.weight": f"c 1 {KERNEL} {KERNEL}", "conv1.bias": "c"},
    doc="local patch interaction: convolve each channel by 3×3, padded with zeros",
    why="attention between channels has no map between tokens; LPI is where neighbours exchange information",
)
gelu_planes = replace(
    gelu, pattern="planes: b c y x -> planes: b c y x", why="LPI has two convolutions, not one linear map"
)
normalize_planes = Step(
    "planes: b c y x -> planes: b c y x",
    op=op.batch_norm,
    weights={"bn.weight": "c", "bn.bias": "c"},
    doc="batch norm: normalize each channel by running statistics, then scale and shift it",
    why="a norm of each channel keeps the ratios between tokens, which a norm of each token would not",
)
mix_again = replace(
    mix_neighbours,
    weights={"conv2.weight": f"c 1 {KERNEL} {KERNEL}", "conv2.bias": "c"},
    doc="convolve each channel by 3×3 again",
    why="two convolutions reach the tokens of 5×5",
)
to_sequence = Step(
    "planes: b c y x -> branch: b (y x) c",
    op=op.view,
    doc="flatten the grid to a sequence: the inverse of to_planes",
    why="the residual takes the channels of each token",
)
scale3 = replace(shared.scale1, weights={"gamma3": "c"})
residual3 = replace(residual1, doc="add the output of local patch interaction to each token")
scale2 = replace(shared.scale2, weights={"gamma2": "c"})
name_steps(globals())


def plan(spec: XCiTBlockSpec) -> Plan:
    """Return the steps of a block that is not part of a network."""
    attention = spec.attention()
    assert isinstance(attention, XCASpec)
    return block_plan(spec, attention)


def block_plan(spec: ComposedSpec, attention: XCASpec) -> Plan:
    """Return the plan of a block: attention, local patch interaction, MLP, each with norm, LayerScale and residual.

    Args:
        spec: the block or the network.
        attention: the attention of the block.
    """
    (y, x), c = attention.resolution, attention.dim
    sizes = {"b": attention.batch, "n": y * x, "y": y, "x": x, "c": c, "e": spec.hidden(c)}

    def of(*steps: Step) -> Plan:
        return Plan.of(steps, sizes, spec.itemsize)

    def inside(path: str, *steps: Step) -> Plan:
        return of(*steps).inside(path, takes={"branch": "branch"}, makes={"branch": "branch"})

    interaction = to_planes, mix_neighbours, gelu_planes, normalize_planes, mix_again, to_sequence
    mlp = expand, gelu.dropping(spec.proj_drop), contract.dropping(spec.proj_drop)
    whole = Plan.join(
        [
            of(norm1),
            attention_plan(spec, attention),
            of(scale1, residual1, norm3),
            inside("local_mp", *interaction),
            of(scale3, residual3, norm2),
            inside("mlp", *mlp),
            of(scale2, residual2),
        ]
    )
    return spec.checkpointed("block", whole)
