"""Steps of CSWin.

Axis letters are those of `attnscope.networks.hierarchy.steps`.
"""

from attnscope.networks.block.steps import block_plan
from attnscope.networks.cswin.spec import CSWinNetworkSpec
from attnscope.networks.hierarchy import steps as shared
from attnscope.networks.hierarchy.steps import STREAM, embed, head, merge
from attnscope.networks.nat.steps import to_planes
from attnscope.networks.stages import Stage
from attnscope.networks.swin.steps import norm, norm_patches, pool, to_grid
from attnscope.plan.plan import Part, Plan


def plan(spec: CSWinNetworkSpec) -> Plan:
    """Return the steps of the whole network, of one stage, or of one block; identical blocks share their rows."""
    if spec.is_block:
        return block_plan(spec, spec.attention())
    if not spec.is_whole:
        return stage_plan(spec, spec.opened)
    (y, x), b, last = spec.grid, spec.batch, spec.stages[-1]
    first = {"b": b, "i": 3, "v": spec.image[0], "w": spec.image[1], "y": y, "x": x, "c": spec.dim}
    first |= {"p": spec.STEM, "q": spec.STEM}
    final = {"b": b, "y": last.grid[0], "x": last.grid[1], "c": last.dim, "k": spec.classes}
    patches = Plan.of([embed, to_grid, norm_patches], first, spec.itemsize)
    stages = [
        stage_plan(spec, stage).inside(f"stages.{stage.index}", takes=STREAM, makes=STREAM) for stage in spec.stages
    ]
    end = Plan.of([norm, pool, head], final, spec.itemsize)
    return Plan.join(
        [
            patches.inside("patch_embed", makes=STREAM, part=Part("patch embedding")),
            *stages,
            end.inside("", part=Part("norm and head"), takes=STREAM),
        ]
    )


def stage_plan(spec: CSWinNetworkSpec, stage: Stage) -> Plan:
    """Return the plan of a stage: merging, except in the first stage, and its blocks."""
    before = []
    if stage.index:
        part = Part("patch merging", stage.index + 1)
        before = [merging_plan(spec, stage).inside("downsample", part=part, takes=STREAM, makes=STREAM)]
    return shared.stage_plan(spec, stage, lambda stage, attention: block_plan(spec, attention), before=before)


def merging_plan(spec: CSWinNetworkSpec, stage: Stage) -> Plan:
    """Return the plan of patch merging before a stage."""
    (v, w), (y, x), before = spec.before(stage).grid, stage.grid, spec.before(stage)
    sizes = {"b": spec.batch, "v": v, "w": w, "y": y, "x": x, "o": before.dim, "c": stage.dim}
    sizes |= {"p": spec.MERGING, "q": spec.MERGING}
    return Plan.of([to_planes, merge, to_grid, norm_patches], sizes, spec.itemsize)
