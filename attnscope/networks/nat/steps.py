"""Steps of NAT and DiNAT.

Axis letters are those of `attnscope.networks.hierarchy.steps`; t u is the grid after the first convolution, and s its
channels.
"""

from dataclasses import replace

from attnscope.attentions.heads import Headed
from attnscope.networks import steps as block_steps
from attnscope.networks.block.steps import block_plan
from attnscope.networks.hierarchy import steps as shared
from attnscope.networks.hierarchy.steps import STREAM
from attnscope.networks.nat.spec import KERNEL, NATNetworkSpec
from attnscope.networks.stages import Stage
from attnscope.networks.steps import GRID
from attnscope.networks.swin.steps import norm, norm_patches, pool, to_grid
from attnscope.ops import recipes as op
from attnscope.plan.plan import Part, Plan
from attnscope.plan.step import Step, name_steps

embed_half = Step(
    "image: b i v w -> halves: b s t u",
    op=op.convolution,
    weights={"proj.0.weight": "s i p q", "proj.0.bias": "s"},
    doc="convolve overlapping patches of 3×3 pixels with stride 2, to half of the channels",
    why="two small convolutions see more of a border between patches than a large one",
)
embed = Step(
    "halves: b s t u -> planes: b c y x",
    op=op.convolution,
    weights={"proj.1.weight": "c s p q", "proj.1.bias": "c"},
    doc="convolve again with stride 2: a token for each 4×4 pixels",
    why="one token for each pixel would make the network too expensive",
)
to_planes = Step(
    "x: b v w o -> grid: b o v w",
    op=op.view,
    doc="move the channels before the grid",
    why="the convolution takes channels first; this is a view, which moves no data",
)
merge = replace(shared.merge, weights={"reduction.weight": "c o p q"})
scale1 = replace(block_steps.scale1.spelled(**GRID), weights={"gamma1": "c"})
scale2 = replace(block_steps.scale2.spelled(**GRID), weights={"gamma2": "c"})
head = shared.head
name_steps(globals())


def plan(spec: NATNetworkSpec) -> Plan:
    """Return the steps of the whole network, of one stage, or of one block; identical blocks share their rows."""
    if spec.is_block:
        return block_of(spec, spec.attention())
    if not spec.is_whole:
        return stage_plan(spec, spec.opened)
    (y, x), (t, u), b, last = spec.grid, spec.half_grid, spec.batch, spec.stages[-1]
    first = {"b": b, "i": 3, "v": spec.image[0], "w": spec.image[1], "t": t, "u": u, "y": y, "x": x}
    first |= {"p": KERNEL, "q": KERNEL, "s": spec.dim // 2, "c": spec.dim}
    final = {"b": b, "y": last.grid[0], "x": last.grid[1], "c": last.dim, "k": spec.classes}
    return Plan.join(
        [
            Plan.of([embed_half, embed, to_grid, norm_patches], first, spec.itemsize).inside(
                "patch_embed", makes=STREAM, part=Part("patch embedding")
            ),
            *(
                stage_plan(spec, stage).inside(f"levels.{stage.index}", takes=STREAM, makes=STREAM)
                for stage in spec.stages
            ),
            Plan.of([norm, pool, head], final, spec.itemsize).inside(
                "", part=Part("norm and head"), takes=STREAM, makes=STREAM
            ),
        ]
    )


def stage_plan(spec: NATNetworkSpec, stage: Stage) -> Plan:
    """Return the plan of a stage: merging, except in the first stage, and the different blocks."""
    before = []
    if stage.index:
        part = Part("patch merging", stage.index + 1)
        before = [merging_plan(spec, stage).inside("downsample", part=part, takes=STREAM, makes=STREAM)]
    return shared.stage_plan(spec, stage, lambda stage, attention: block_of(spec, attention), before=before)


def merging_plan(spec: NATNetworkSpec, stage: Stage) -> Plan:
    """Return the plan of patch merging before a stage."""
    before = spec.before(stage)
    sizes = {"b": spec.batch, "v": before.grid[0], "w": before.grid[1], "y": stage.grid[0], "x": stage.grid[1]}
    sizes |= {"o": before.dim, "c": stage.dim, "p": KERNEL, "q": KERNEL}
    return Plan.of([to_planes, merge, to_grid, norm_patches], sizes, spec.itemsize)


def block_of(spec: NATNetworkSpec, attention: Headed) -> Plan:
    """Return the plan of a block, which scales its branches with layer scale."""
    return block_plan(spec, attention, scales=(scale1, scale2) if spec.layer_scale else None)
