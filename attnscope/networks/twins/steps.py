"""Steps of Twins.

Axis letters are those of `attnscope.networks.hierarchy.steps`.
"""

from dataclasses import replace

from attnscope.attentions.heads import Headed
from attnscope.networks.block.steps import block_plan
from attnscope.networks.hierarchy import steps as shared
from attnscope.networks.hierarchy.steps import STREAM, head, norm, norm_patches, pool, to_tokens
from attnscope.networks.pvt.steps import unflatten
from attnscope.networks.stages import Stage
from attnscope.networks.steps import contract, expand, gelu
from attnscope.networks.twins.spec import KERNEL, TwinsNetworkSpec
from attnscope.ops import recipes as op
from attnscope.plan.plan import Part, Plan
from attnscope.plan.step import Step, name_steps

embed = replace(
    shared.embed,
    doc="make a token of each patch of the image: a convolution whose stride is its kernel",
    why="every pixel belongs to one patch, so that the image must be divisible by the patch",
)
merge = replace(shared.merge, doc="merge the tokens of each patch of 2×2: a convolution whose stride is its kernel")
to_planes = Step(
    "x: b (y x) c -> planes: b c y x",
    op=op.view,
    doc="reshape the sequence of tokens to a grid, channels first",
    why="the convolution takes a grid",
)
encode = Step(
    "planes: b c y x -> encoding: b c y x",
    op=op.convolution,
    weights={"proj.0.weight": f"c 1 {KERNEL} {KERNEL}", "proj.0.bias": "c"},
    doc="positional encoding generator: convolve each channel by 3×3, padded with zeros",
    why="the zeros at the border tell each token its position, for any size of the image",
)
add_encoding = Step(
    "encoding: b c y x, planes: b c y x -> planes: b c y x",
    op=op.add,
    doc="add the encoding of its position to each token",
    why="attention itself ignores positions",
)
to_sequence = Step(
    "planes: b c y x -> x: b (y x) c",
    op=op.view,
    doc="flatten the grid to a sequence: the inverse of to_planes",
    why="the next block takes a sequence",
)
name_steps(globals())


def plan(spec: TwinsNetworkSpec) -> Plan:
    """Return the steps of the whole network, of one stage, or of one block; identical blocks share their rows."""
    if spec.is_block:
        return block_of(spec, spec.opened, spec.attention())
    if not spec.is_whole:
        return stage_plan(spec, spec.opened)
    (y, x), b, last = spec.grid, spec.batch, spec.stages[-1]
    first = {"b": b, "i": 3, "v": spec.image[0], "w": spec.image[1], "y": y, "x": x, "n": y * x, "c": spec.dim}
    first |= {"p": spec.STEM, "q": spec.STEM}
    final = {"b": b, "n": last.grid[0] * last.grid[1], "c": last.dim, "k": spec.classes}
    patches = Plan.of([embed, to_tokens, norm_patches], first, spec.itemsize)
    stages = [
        stage_plan(spec, stage).inside(f"stages.{stage.index}", takes=STREAM, makes=STREAM) for stage in spec.stages
    ]
    end = Plan.of([norm, pool, head], final, spec.itemsize)
    return Plan.join(
        [
            patches.inside("patch_embed", makes=STREAM, part=Part("patch embedding")),
            *stages,
            end.inside("", part=Part("head"), takes=STREAM),
        ]
    )


def stage_plan(spec: TwinsNetworkSpec, stage: Stage) -> Plan:
    """Return the plan of a stage: merging, except in the first stage, and blocks, with positions after the first one."""
    number, (y, x) = stage.index + 1, stage.grid
    before = []
    if stage.index:
        part = Part("patch merging", number)
        before = [merging_plan(spec, stage).inside("downsample", part=part, takes=STREAM, makes=STREAM)]
    sizes = {"b": spec.batch, "y": y, "x": x, "c": stage.dim}
    positions = Plan.of([to_planes, encode, add_encoding, to_sequence], sizes, spec.itemsize, holds=("planes",))
    part = Part("position encoding", number)
    return shared.stage_plan(
        spec,
        stage,
        lambda stage, attention: block_of(spec, stage, attention),
        before=before,
        after_first=[positions.inside("pos_block", part=part, takes=STREAM, makes=STREAM)],
    )


def merging_plan(spec: TwinsNetworkSpec, stage: Stage) -> Plan:
    """Return the plan of patch merging before a stage."""
    (v, w), (y, x), before = spec.before(stage).grid, stage.grid, spec.before(stage)
    sizes = {"b": spec.batch, "v": v, "w": w, "y": y, "x": x, "n": y * x, "o": before.dim, "c": stage.dim}
    sizes |= {"p": spec.MERGING, "q": spec.MERGING}
    return Plan.of([unflatten, merge, to_tokens, norm_patches], sizes, spec.itemsize)


def block_of(spec: TwinsNetworkSpec, stage: Stage, attention: Headed) -> Plan:
    """Return the plan of a block, whose MLP has the hidden size of its stage."""
    sizes = {"b": spec.batch, "n": stage.grid[0] * stage.grid[1], "c": stage.dim, "e": spec.hidden_of(stage)}
    mlp = Plan.of([expand, gelu.dropping(spec.proj_drop), contract.dropping(spec.proj_drop)], sizes, spec.itemsize)
    return block_plan(spec, attention, mlp)
