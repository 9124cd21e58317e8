"""Steps of Hiera.

Axis letters are those of `attnscope.networks.hierarchy.steps`.

- In a block that pools: y x the grid after pooling; i j sides of a cell; c input channels; o output channels.
- In the head: v w the last grid; o its embedding dimension.
"""

from dataclasses import replace

from attnscope.attentions.heads import Headed
from attnscope.attentions.hiera.spec import HieraSpec
from attnscope.networks import steps as block_steps
from attnscope.networks.block.steps import attention_plan, block_plan
from attnscope.networks.hiera.spec import POOL, HieraNetworkSpec
from attnscope.networks.hierarchy import steps as shared
from attnscope.networks.hierarchy.steps import STREAM, embed
from attnscope.networks.stages import Stage
from attnscope.networks.steps import GRID, contract, expand, gelu
from attnscope.networks.vit.steps import add_patch_positions, flatten
from attnscope.ops import movement, reduction
from attnscope.ops import recipes as op
from attnscope.ops.recipes import Operands, Result
from attnscope.ops.tape import Tape
from attnscope.plan.plan import Part, Plan
from attnscope.plan.step import Step, name_steps


def largest(tape: Tape, given: Operands) -> Result:
    """Return the maximum of each cell of i × j tokens."""
    b, y, x, o = given.shapes[0]
    cells = movement.view(tape, given.x, (b, y, given.sizes["i"], x, given.sizes["j"], o))
    return reduction.maximum(tape, cells, 2, 4)


unflatten = Step(
    "patches: b (y x) c -> x: b y x c",
    op=op.view,
    doc="reshape the sequence of patches to a grid",
    why="attention partitions the grid into mask units",
)
norm1 = block_steps.norm1.spelled(n="(y i) (x j)")
widen = Step(
    "branch: b (y i) (x j) c -> x: b (y i) (x j) o",
    op=op.linear,
    weights={"proj.weight": "o c", "proj.bias": "o"},
    doc="project the normalized tokens to the channels of the next stage: the residual of a block that pools",
    why="the residual must have the shape of the attention's output",
)
pool_residual = Step(
    "x: b (y i) (x j) o -> x: b y x o",
    op=largest,
    doc="take the maximum of each cell of 2×2 tokens",
    why="the residual has one token for each pooled query",
)
residual1 = block_steps.residual1.spelled(n="y x", c="o")
norm2 = block_steps.norm2.spelled(n="y x", c="o")
residual2 = block_steps.residual2.spelled(n="y x", c="o")
pool = replace(shared.pool, pattern="x: b v w o -> pooled: b o")
norm = Step(
    "pooled: b o -> pooled: b o",
    op=op.layer_norm,
    weights={"head.norm.weight": "o", "head.norm.bias": "o"},
    doc="normalize the average",
    why="the residual stream is not normalized by the last block",
)
head = replace(
    shared.head, pattern="pooled: b o -> logits: b k", weights={"head.fc.weight": "k o", "head.fc.bias": "k"}
)
name_steps(globals())


def plan(spec: HieraNetworkSpec) -> Plan:
    """Return the steps of the whole network, of one stage, or of one block; identical blocks share their rows."""
    if spec.is_block:
        return block_of(spec, spec.opened, spec.attention())
    if not spec.is_whole:
        return stage_plan(spec, spec.opened)
    (y, x), b, last = spec.grid, spec.batch, spec.stages[-1]
    first = {"b": b, "i": 3, "v": spec.image[0], "w": spec.image[1], "y": y, "x": x, "c": spec.dim}
    first |= {"p": spec.STEM, "q": spec.STEM}
    final = {"b": b, "v": last.grid[0], "w": last.grid[1], "o": last.dim, "k": spec.classes}
    patches = {"patches": "patches"}
    return Plan.join(
        [
            Plan.of([embed, flatten], first, spec.itemsize).inside(
                "patch_embed", makes=patches, part=Part("patch embedding")
            ),
            Plan.of([add_patch_positions, unflatten], first, spec.itemsize).inside(
                "", takes=patches, makes={**patches, **STREAM}, part=Part("positions")
            ),
            *(stage_plan(spec, stage) for stage in spec.stages),
            Plan.of([pool, norm, head], final, spec.itemsize).inside("", part=Part("head"), takes=STREAM),
        ]
    )


def stage_plan(spec: HieraNetworkSpec, stage: Stage) -> Plan:
    """Return the plan of a stage: its different blocks."""
    return shared.stage_plan(
        spec, stage, lambda stage, attention: block_of(spec, stage, attention), first=spec.first_block(stage)
    )


def block_of(spec: HieraNetworkSpec, stage: Stage, attention: Headed) -> Plan:
    """Return the plan of a block; one that pools has a projection and a maximum in its residual."""
    assert isinstance(attention, HieraSpec)
    if attention.q_stride == 1:
        return block_plan(spec, attention)
    (y, x), c, o = stage.grid, attention.dim, attention.out_dim
    sizes = {"b": spec.batch, "y": y, "x": x, "i": POOL, "j": POOL, "c": c, "o": o}
    own = {"b": spec.batch, "y": y, "x": x, "c": o, "e": spec.hidden_of(stage)}
    layers = [each.spelled(**GRID) for each in (expand, gelu, contract)]
    mlp = Plan.of([layers[0], *(each.dropping(spec.proj_drop) for each in layers[1:])], own, spec.itemsize)
    branch = {"branch": "branch"}
    whole = Plan.join(
        [
            Plan.of([norm1, widen, pool_residual], sizes, spec.itemsize),
            attention_plan(spec, attention),
            Plan.of([residual1, norm2], sizes, spec.itemsize),
            mlp.inside("mlp", takes=branch, makes=branch),
            Plan.of([residual2], sizes, spec.itemsize),
        ]
    )
    return spec.checkpointed("block", whole)
