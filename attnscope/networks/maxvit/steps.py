"""Steps of MaxViT.

Axis letters:

- b batch; i image channels; s channels of the stem; c embedding dimension; k classes; p q sides of a kernel.
- Before an MBConv: c channels, v w grid, t u padded grid. After it: o channels, y x grid.
- Within an MBConv: e hidden channels; r channels of squeeze-and-excitation.
"""

from dataclasses import replace

from attnscope.networks.block.steps import block_plan
from attnscope.networks.hierarchy import steps as hierarchy
from attnscope.networks.maxvit.spec import KERNEL, MaxViTNetworkSpec, MBConv
from attnscope.networks.stages import Stage
from attnscope.networks.steps import gelu
from attnscope.ops import elementwise, movement, reduction
from attnscope.ops import recipes as op
from attnscope.ops.recipes import Operands, Result
from attnscope.ops.tape import Tape
from attnscope.plan.plan import Part, Plan
from attnscope.plan.step import Step, name_steps


def mean_of_planes(tape: Tape, given: Operands) -> Result:
    """Average each channel over the grid."""
    return movement.view(tape, reduction.mean(tape, given.x, (2, 3)), given.shapes[0])


def gated(tape: Tape, given: Operands) -> Result:
    """Multiply each channel by the sigmoid of its gate."""
    planes, gate = given.inputs
    return elementwise.multiply(tape, planes, elementwise.activate(tape, "sigmoid", gate, saves="output"))


def tanh(tape: Tape, given: Operands) -> Result:
    """Compute tanh of each element, which keeps its result for the backward."""
    return elementwise.activate(tape, "tanh", given.x, saves="output")


# Before the stages.

pad_image = Step(
    "image: b i v w -> image: b i t u",
    op=op.pad,
    doc="pad the image with a row and a column of zeros, at the bottom and on the right",
    why="the convolution with stride 2 then has an output for each 2×2 pixels, as in TensorFlow",
)
embed = Step(
    "image: b i t u -> planes: b s y x",
    op=op.convolution,
    weights={"conv1.weight": "s i p q", "conv1.bias": "s"},
    doc="convolve overlapping patches of 3×3 pixels with stride 2",
    why="convolutions are better at the first, local features than attention, and far cheaper on so many places",
)
normalize_stem = Step(
    "planes: b s y x -> planes: b s y x",
    op=op.batch_norm,
    weights={"norm1.weight": "s", "norm1.bias": "s"},
    doc="batch norm: normalize each channel by running statistics, then scale and shift it",
    why="the next convolution gets inputs of a fixed scale",
)
gelu_stem = replace(
    gelu,
    pattern="planes: b s y x -> planes: b s y x",
    why="without a nonlinearity, two convolutions would be one linear map",
)
refine = Step(
    "planes: b s y x -> x: b s y x",
    op=op.convolution,
    weights={"conv2.weight": "s s p q", "conv2.bias": "s"},
    doc="convolve by 3×3 again",
    why="each place then knows the pixels around it",
)

# MBConv.

pool_shortcut = Step(
    "x: b c v w -> shortcut: b c y x",
    op=op.adaptive_pool,
    doc="average each 2×2 places: the shortcut of a block that halves the grid",
    why="the shortcut must have the grid of the output",
)
widen_shortcut = Step(
    "shortcut: b c y x -> shortcut: b o y x",
    op=op.convolution,
    weights={"shortcut.expand.weight": "o c 1 1", "shortcut.expand.bias": "o"},
    doc="project the shortcut to the channels of the output",
    why="the shortcut must have the channels of the output",
)
pre_norm = Step(
    "x: b c v w -> planes: b c v w",
    op=op.batch_norm,
    weights={"pre_norm.weight": "c", "pre_norm.bias": "c"},
    doc="batch norm: normalize each channel by running statistics, then scale and shift it",
    why="the convolutions get inputs of a fixed scale",
)
expand = Step(
    "planes: b c v w -> planes: b e v w",
    op=op.convolution,
    weights={"conv1_1x1.weight": "e c 1 1"},
    doc="MBConv: project each place to four times the output channels",
    why="the depthwise convolution is cheap, so that it can have many channels",
)
norm_expanded = replace(
    pre_norm,
    pattern="planes: b e v w -> planes: b e v w",
    weights={"norm1.weight": "e", "norm1.bias": "e"},
    why="the next convolution gets inputs of a fixed scale",
)
gelu_expanded = replace(gelu, pattern="planes: b e v w -> planes: b e v w", why=gelu_stem.why)
pad = Step(
    "planes: b e v w -> planes: b e t u",
    op=op.pad,
    doc="pad the grid with a row and a column of zeros, at the bottom and on the right",
    why="the convolution with stride 2 then has an output for each 2×2 places, as in TensorFlow",
)
mix = Step(
    "planes: b e t u -> planes: b e y x",
    op=op.convolution,
    weights={"conv2_kxk.weight": f"e 1 {KERNEL} {KERNEL}"},
    doc="convolve each channel by 3×3; with stride 2 in the first block of a stage",
    why="neighbours exchange information, and the zeros at the border tell each place its position",
)
norm_mixed = replace(
    norm_expanded,
    pattern="planes: b e y x -> planes: b e y x",
    weights={"norm2.weight": "e", "norm2.bias": "e"},
)
gelu_mixed = replace(gelu, pattern="planes: b e y x -> planes: b e y x", why=gelu_stem.why)
squeeze = Step(
    "planes: b e y x -> gate: b e 1 1",
    op=mean_of_planes,
    doc="squeeze-and-excitation (Hu et al., arXiv 1709.01507): average each channel over the grid",
    why="the average says how strong each feature is in the whole image",
)
reduce = Step(
    "gate: b e 1 1 -> gate: b r 1 1",
    op=op.convolution,
    weights={"se.fc1.weight": "r e 1 1", "se.fc1.bias": "r"},
    doc="apply the first layer of squeeze-and-excitation",
    why="few channels keep it cheap",
)
silu = Step(
    "gate: b r 1 1 -> gate: b r 1 1",
    op=op.silu,
    doc="apply SiLU, x·σ(x)",
    why="without a nonlinearity, the two layers would be one linear map",
)
restore = Step(
    "gate: b r 1 1 -> gate: b e 1 1",
    op=op.convolution,
    weights={"se.fc2.weight": "e r 1 1", "se.fc2.bias": "e"},
    doc="apply the second layer of squeeze-and-excitation",
    why="each channel needs a gate",
)
excite = Step(
    "planes: b e y x, gate: b e 1 1 -> planes: b e y x",
    op=gated,
    doc="multiply each channel by its gate after a sigmoid",
    why="the image as a whole selects the features that matter in it",
)
project = Step(
    "planes: b e y x -> planes: b o y x",
    op=op.convolution,
    weights={"conv3_1x1.weight": "o e 1 1", "conv3_1x1.bias": "o"},
    doc="project each place to the output channels",
    why="the residual has fewer channels than the depthwise convolution",
)
add_shortcut = Step(
    "planes: b o y x, shortcut: b o y x -> x: b o y x",
    op=op.add,
    doc="add the shortcut to the output of the MBConv",
    why="gradients reach the first blocks through the sum",
)

# Around the attentions.

to_grid = Step(
    "x: b c y x -> tokens: b y x c",
    op=op.rearrange,
    doc="move the channels to the last axis, so that each token is contiguous in memory",
    why="attention and MLP operate on the channels of each token",
)
to_planes = Step(
    "tokens: b y x c -> x: b c y x",
    op=op.view,
    doc="move the channels before the grid",
    why="the next MBConv takes channels first; this is a view, which moves no data",
)

# After the stages.

pool = Step("x: b c y x -> pooled: b c", op=op.mean, doc="average all tokens", why="the average represents the image")
norm = Step(
    "pooled: b c -> pooled: b c",
    op=op.layer_norm,
    weights={"norm.weight": "c", "norm.bias": "c"},
    doc="normalize the average",
    why="the residual stream is not normalized by the last block",
)
hide = Step(
    "pooled: b c -> pooled: b c",
    op=op.linear,
    weights={"pre_logits.fc.weight": "c c", "pre_logits.fc.bias": "c"},
    doc="apply a linear layer before the classifier",
    why="the head has a hidden layer",
)
bend = Step(
    "pooled: b c -> pooled: b c",
    op=tanh,
    doc="apply tanh",
    why="without a nonlinearity, the head would be one linear map",
)
classify = replace(hierarchy.head, weights={"fc.weight": "k c", "fc.bias": "k"})
name_steps(globals())

STREAM = {"x": "x"}
"""The name of the planes between the parts of a network."""


def plan(spec: MaxViTNetworkSpec) -> Plan:
    """Return the steps of the whole network, of one stage, or of one block; identical blocks share their rows."""
    if spec.is_block:
        return plan_of_block(spec, spec.opened, (spec.block or 1) - 1)
    if not spec.is_whole:
        return stage_plan(spec, spec.opened)
    (v, w), (y, x), b, last = spec.image, spec.half_grid, spec.batch, spec.stages[-1]
    first = {"b": b, "i": 3, "v": v, "w": w, "t": v + 1, "u": w + 1, "y": y, "x": x, "s": spec.stem}
    first |= {"p": KERNEL, "q": KERNEL}
    final = {"b": b, "c": last.dim, "y": last.grid[0], "x": last.grid[1], "k": spec.classes}
    return Plan.join(
        [
            Plan.of([pad_image, embed, normalize_stem, gelu_stem, refine], first, spec.itemsize).inside(
                "stem", makes=STREAM, part=Part("stem")
            ),
            *(
                stage_plan(spec, stage).inside(f"stages.{stage.index}", takes=STREAM, makes=STREAM)
                for stage in spec.stages
            ),
            Plan.of([pool, norm, hide, bend, classify], final, spec.itemsize).inside(
                "head", part=Part("head"), takes=STREAM
            ),
        ]
    )


def stage_plan(spec: MaxViTNetworkSpec, stage: Stage) -> Plan:
    """Return the plan of a stage: the first block, which halves the grid, and the others, which are alike."""
    number, pieces, attentions = stage.index + 1, [], attentions_plan(spec, stage)
    for title, blocks in (("first block", [0]), ("block", list(range(1, stage.depth)))):
        if blocks:
            paths = [f"blocks.{block}" for block in blocks]
            part = Part(title, number)
            block = Plan.join([_within_block(spec, stage, blocks[0]), attentions])
            pieces.append(block.inside(*paths, part=part, takes=STREAM, makes=STREAM))
    return Plan.join(pieces, order=[0, *[1] * (stage.depth - 1)])


def plan_of_block(spec: MaxViTNetworkSpec, stage: Stage, block: int) -> Plan:
    """Return the plan of a block: an MBConv, block attention and grid attention, each of these with an MLP."""
    return Plan.join([_within_block(spec, stage, block), attentions_plan(spec, stage)])


def attentions_plan(spec: MaxViTNetworkSpec, stage: Stage) -> Plan:
    """Return the plan of what the blocks of a stage have in common: block attention and grid attention with MLPs."""
    (y, x), tokens = stage.grid, {"x": "tokens"}
    sizes = {"b": spec.batch, "c": stage.dim, "y": y, "x": x}
    within, sparse = spec.attentions_of(stage)
    return Plan.join(
        [
            Plan.of([to_grid], sizes, spec.itemsize),
            block_plan(spec, within).inside("attn_block", takes=tokens, makes=tokens),
            block_plan(spec, sparse).inside("attn_grid", takes=tokens, makes=tokens),
            Plan.of([to_planes], sizes, spec.itemsize),
        ]
    )


def _within_block(spec: MaxViTNetworkSpec, stage: Stage, block: int) -> Plan:
    """Return the plan of a block's MBConv as a piece of the block."""
    own = convolution_plan(spec, spec.convolution_of(stage, block))
    return own.inside("conv", takes={"x": "x", "shortcut": "x"}, makes=STREAM)


def convolution_plan(spec: MaxViTNetworkSpec, convolution: MBConv) -> Plan:
    """Return the plan of an MBConv."""
    (v, w), (y, x), extra = convolution.before, convolution.after, int(convolution.halves)
    sizes = {"b": spec.batch, "v": v, "w": w, "t": v + extra, "u": w + extra, "y": y, "x": x}
    sizes |= {"c": convolution.channels, "o": convolution.dim, "e": convolution.expanded, "r": convolution.squeezed}
    shortcut = [pool_shortcut, *([widen_shortcut] if convolution.widens_shortcut else [])]
    steps = [
        *(shortcut if convolution.halves else []),
        pre_norm,
        expand,
        norm_expanded,
        gelu_expanded,
        *([pad] if convolution.halves else []),
        mix,
        norm_mixed,
        gelu_mixed,
        squeeze,
        reduce,
        silu,
        restore,
        excite,
        project,
        add_shortcut,
    ]
    return Plan.of(steps, sizes, spec.itemsize)
