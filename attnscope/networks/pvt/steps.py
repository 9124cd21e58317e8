"""Steps of PVT v2.

Axis letters are those of `attnscope.networks.hierarchy.steps`; e is the hidden size of the MLP.
"""

from attnscope.attentions.heads import Headed
from attnscope.networks.block.steps import block_plan
from attnscope.networks.hierarchy import steps as shared
from attnscope.networks.hierarchy.spec import HierarchySpec
from attnscope.networks.hierarchy.steps import STREAM, embed, head, merge, norm, norm_patches, pool, to_tokens
from attnscope.networks.pvt.spec import KERNEL, PVTNetworkSpec
from attnscope.networks.stages import Stage
from attnscope.networks.steps import contract, expand, gelu
from attnscope.ops import elementwise
from attnscope.ops import recipes as op
from attnscope.ops.recipes import Operands, Result
from attnscope.ops.tape import Tape
from attnscope.plan.plan import Part, Plan
from attnscope.plan.step import Step, name_steps


def relu(tape: Tape, given: Operands) -> Result:
    """Compute max(x, 0), which keeps its result for the backward."""
    return elementwise.activate(tape, "relu", given.x, saves="output")


unflatten = Step(
    "x: b (v w) o -> grid: b o v w",
    op=op.view,
    doc="reshape the sequence of tokens to a grid, channels first",
    why="the convolution takes a grid",
)
to_planes = Step(
    "hidden: b (y x) e -> planes: b e y x",
    op=op.view,
    doc="reshape the hidden tokens to a grid, channels first",
    why="the convolution takes a grid",
)
rectify = Step(
    "planes: b e y x -> planes: b e y x",
    op=relu,
    doc="apply ReLU, max(x, 0), in PVT v2-Li",
    why="pooled keys are coarser; a second nonlinearity makes up for it",
)
mix_neighbours = Step(
    "planes: b e y x -> planes: b e y x",
    op=op.convolution,
    weights={"dwconv.weight": f"e 1 {KERNEL} {KERNEL}", "dwconv.bias": "e"},
    doc="convolve each hidden channel by 3×3, padded with zeros",
    why="the zeros at the border tell each token its position, so that no position embedding is needed",
)
to_sequence = Step(
    "planes: b e y x -> hidden: b (y x) e",
    op=op.view,
    doc="flatten the grid to a sequence: the inverse of to_planes",
    why="the second layer takes the channels of each token",
)
name_steps(globals())


def plan(spec: PVTNetworkSpec) -> Plan:
    """Return the steps of the whole network, of one stage, or of one block; identical blocks share their rows."""
    if spec.is_block:
        return block_of(spec, spec.opened, spec.attention())
    if not spec.is_whole:
        return stage_plan(spec, spec.opened)
    (y, x), b, last = spec.grid, spec.batch, spec.stages[-1]
    first = {"b": b, "i": 3, "v": spec.image[0], "w": spec.image[1], "y": y, "x": x, "n": y * x, "c": spec.dim}
    first |= {"p": spec.STEM, "q": spec.STEM}
    final = {"b": b, "n": last.grid[0] * last.grid[1], "c": last.dim, "k": spec.classes}
    return Plan.join(
        [
            Plan.of([embed, to_tokens, norm_patches], first, spec.itemsize).inside(
                "patch_embed", makes=STREAM, part=Part("patch embedding")
            ),
            *(
                stage_plan(spec, stage).inside(f"stages.{stage.index}", takes=STREAM, makes=STREAM)
                for stage in spec.stages
            ),
            Plan.of([pool, head], final, spec.itemsize).inside("", part=Part("head"), takes=STREAM),
        ]
    )


def stage_plan(spec: PVTNetworkSpec, stage: Stage) -> Plan:
    """Return the plan of a stage: merging, except in the first stage, blocks, and a norm."""
    number = stage.index + 1
    sizes = {"b": spec.batch, "n": stage.grid[0] * stage.grid[1], "c": stage.dim}
    last = Plan.of([norm], sizes, spec.itemsize).inside("", part=Part("norm", number), takes=STREAM, makes=STREAM)
    before = []
    if stage.index:
        before = [
            merging_plan(spec, stage).inside(
                "downsample", part=Part("patch merging", number), takes=STREAM, makes=STREAM
            )
        ]
    return shared.stage_plan(
        spec, stage, lambda stage, attention: block_of(spec, stage, attention), before=before, after=[last]
    )


def merging_plan(spec: HierarchySpec, stage: Stage) -> Plan:
    """Return the plan of patch merging before a stage."""
    (v, w), (y, x), before = spec.before(stage).grid, stage.grid, spec.before(stage)
    sizes = {"b": spec.batch, "v": v, "w": w, "y": y, "x": x, "n": y * x, "o": before.dim, "c": stage.dim}
    sizes |= {"p": spec.MERGING, "q": spec.MERGING}
    return Plan.of([unflatten, merge, to_tokens, norm_patches], sizes, spec.itemsize)


def block_of(spec: PVTNetworkSpec, stage: Stage, attention: Headed) -> Plan:
    """Return the plan of a block: norm, attention, residual, norm, MLP with a convolution, residual."""
    (y, x), e = stage.grid, spec.hidden_of(stage)
    sizes = {"b": spec.batch, "y": y, "x": x, "n": y * x, "c": stage.dim, "e": e}
    steps = [
        expand,
        to_planes,
        *([rectify] if spec.linear else []),
        mix_neighbours,
        to_sequence,
        gelu.dropping(spec.proj_drop),
        contract.dropping(spec.proj_drop),
    ]
    return block_plan(spec, attention, Plan.of(steps, sizes, spec.itemsize))
