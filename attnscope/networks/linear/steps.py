"""Steps of EfficientViT's block.

Axis letters: b batch, c embedding dimension, y x grid of tokens, e hidden size of the MBConv.
"""

from dataclasses import replace

from attnscope.networks import steps as shared
from attnscope.networks.block.steps import attention_plan
from attnscope.networks.linear.spec import KERNEL, EfficientViTBlockSpec
from attnscope.ops import convolution, elementwise, normalization
from attnscope.ops import recipes as op
from attnscope.ops.recipes import Operands, Result
from attnscope.ops.tape import Tape
from attnscope.plan.plan import Plan
from attnscope.plan.step import Step, name_steps


def hardswish(tape: Tape, given: Operands) -> Result:
    """Compute x·min(max(x + 3, 0), 6)/6."""
    return elementwise.activate(tape, "hardswish", given.x)


def convolve_and_normalize(tape: Tape, given: Operands) -> Result:
    """Convolve without a bias, then normalize each channel."""
    kernel, scale, shift = given.weights
    made = convolution.convolution(tape, given.x, kernel, None, given.shapes[0])
    return normalization.batch_norm(tape, made, scale, shift)


residual1 = replace(shared.residual1, pattern="x: b c y x, branch: b c y x -> x: b c y x")
expand = Step(
    "x: b c y x -> hidden: b e y x",
    op=op.convolution,
    weights={"inverted_conv.conv.weight": "e c 1 1", "inverted_conv.conv.bias": "e"},
    doc="apply the first layer of the MBConv to each token, by a convolution of 1×1: c channels to e",
    why="more channels give the depthwise convolution more patterns; it costs little for each of them",
)
activate = Step(
    "hidden: b e y x -> hidden: b e y x",
    op=hardswish,
    doc="apply Hardswish, x·min(max(x + 3, 0), 6)/6",
    why="a nonlinearity without an exponential, for devices on which that is slow",
)
mix_neighbours = Step(
    "hidden: b e y x -> hidden: b e y x",
    op=op.convolution,
    weights={"depth_conv.conv.weight": f"e 1 {KERNEL} {KERNEL}", "depth_conv.conv.bias": "e"},
    doc="convolve each hidden channel by 3×3, padded with zeros",
    why="linear attention is weak at local patterns; the convolution adds them",
)
activate_again = replace(activate, why="without a nonlinearity, the two convolutions would be one linear map")
contract = Step(
    "hidden: b e y x -> branch: b c y x",
    op=convolve_and_normalize,
    weights={"point_conv.conv.weight": "c e 1 1", "point_conv.norm.weight": "c", "point_conv.norm.bias": "c"},
    doc="apply the last layer, by a convolution of 1×1 from e channels to c, and a batch norm",
    why="the residual needs c channels of a fixed scale; in inference the norm can be part of the weights",
)
residual2 = replace(residual1, doc="add the output of the MBConv to each token")
name_steps(globals())


def plan(spec: EfficientViTBlockSpec) -> Plan:
    """Return the steps of a block: attention, residual, MBConv, residual."""
    b, c, y, x = spec.attention().input_shape
    sizes = {"b": b, "c": c, "y": y, "x": x, "e": spec.hidden(c)}

    def of(*steps: Step) -> Plan:
        return Plan.of(steps, sizes, spec.itemsize)

    mbconv = of(expand, activate, mix_neighbours, activate_again, contract)
    whole = Plan.join(
        [
            attention_plan(spec, spec.attention(), spec.PATH, takes="x"),
            of(residual1),
            mbconv.inside("local_module.main", takes={"x": "x"}, makes={"branch": "branch"}),
            of(residual2),
        ]
    )
    return spec.checkpointed("block", whole)
