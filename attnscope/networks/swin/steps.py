"""Steps of Swin and Swin V2 before, between and after their blocks.

Axis letters:

- b batch; i image channels; p q patch height and width; c embedding dimension; e hidden size of the MLP; k classes.
- v w the sides of an image that is padded to whole patches.
- y x tokens down and across; for patch merging, those after it.
- v w the grid before it is padded to even sides; j i the two rows and the two columns that are merged.
"""

from attnscope.attentions.swin.spec import SwinSpec
from attnscope.networks import steps as sequence
from attnscope.networks.block.steps import block_plan
from attnscope.networks.stages import Stage
from attnscope.networks.steps import GRID, after
from attnscope.networks.swin.spec import SwinNetworkSpec, SwinV2NetworkSpec
from attnscope.networks.vit.steps import embed, pad_image
from attnscope.ops import recipes as op
from attnscope.plan.plan import Part, Plan
from attnscope.plan.step import Step, name_steps

norm1 = sequence.norm1.spelled(**GRID)
residual1 = sequence.residual1.spelled(**GRID)
norm2 = sequence.norm2.spelled(**GRID)
residual2 = sequence.residual2.spelled(**GRID)
expand = sequence.expand.spelled(**GRID)
gelu = sequence.gelu.spelled(**GRID)
contract = sequence.contract.spelled(**GRID)

to_grid = Step(
    "planes: b c y x -> patches: b y x c",
    op=op.rearrange,
    doc="move the channels to the last axis, so that each token is contiguous in memory",
    why="attention and MLP operate on the channels of each token",
)
norm_patches = Step(
    "patches: b y x c -> x: b y x c",
    op=op.layer_norm,
    weights={"norm.weight": "c", "norm.bias": "c"},
    doc="normalize each patch to mean 0 and variance 1, then scale and shift each channel",
    why="the first block gets inputs of a fixed scale",
)
pad_odd = Step(
    "x: b v w c -> x: b (y j) (x i) c",
    op=op.pad,
    doc="pad odd sides with a row or a column of zeros",
    why="the merging takes groups of 2×2 tokens",
)
gather = Step(
    "x: b (y j) (x i) c -> four: b y x (i j c)",
    op=op.rearrange,
    doc="concatenate the channels of each 2×2 group of tokens",
    why="the next stage works at half the resolution",
)
norm_four = Step(
    "four: b y x (4 c) -> four: b y x (4 c)",
    op=op.layer_norm,
    weights={"norm.weight": "(4 c)", "norm.bias": "(4 c)"},
    doc="normalize each group of four tokens as one vector, then scale and shift each channel",
    why="the projection gets inputs of a fixed scale",
)
reduce = Step(
    "four: b y x (4 c) -> x: b y x (2 c)",
    op=op.linear,
    weights={"reduction.weight": "(2 c) (4 c)"},
    doc="project each group from 4C channels to 2C: a quarter of the tokens, twice the channels",
    why="4C channels would make the next stage twice as wide as needed",
)
norm_reduced = Step(
    "x: b y x (2 c) -> x: b y x (2 c)",
    op=op.layer_norm,
    weights={"norm.weight": "(2 c)", "norm.bias": "(2 c)"},
    doc="normalize each merged token, after the projection in Swin V2",
    why="the residual stream stays at a fixed scale",
)
norm = Step(
    "x: b y x c -> x: b y x c",
    op=op.layer_norm,
    weights={"norm.weight": "c", "norm.bias": "c"},
    doc="apply the final layer norm to each token",
    why="the residual stream is not normalized by the last block",
)
pool = Step("x: b y x c -> pooled: b c", op=op.mean, doc="average all tokens", why="the average represents the image")
head = Step(
    "pooled: b c -> logits: b k",
    op=op.linear,
    weights={"head.fc.weight": "k c", "head.fc.bias": "k"},
    doc="compute the logit of each class",
    why="the logits are the output of a classifier",
)
name_steps(globals())


def plan(spec: SwinNetworkSpec) -> Plan:
    """Return the steps of the whole network, of one stage, or of one block; identical blocks share their rows."""
    if spec.is_block:
        return block_of(spec, spec.attention())
    if not spec.is_whole:
        return stage_plan(spec, spec.opened)
    (y, x), (p, q), b, last = spec.grid, spec.patch, spec.batch, spec.stages[-1]
    stream = {"x": "x"}
    padded = [pad_image] if spec.image_is_padded else []
    patches = {"v": spec.image[0], "w": spec.image[1], "b": b, "i": 3, "y": y, "x": x, "p": p, "q": q, "c": spec.dim}
    final = {"b": b, "y": last.grid[0], "x": last.grid[1], "c": last.dim, "k": spec.classes}
    return Plan.join(
        [
            Plan.of([*padded, embed, to_grid, norm_patches], patches, spec.itemsize).inside(
                "patch_embed", makes={"x": "x"}, part=Part("patch embedding")
            ),
            *(
                stage_plan(spec, stage).inside(f"layers.{stage.index}", takes=stream, makes=stream)
                for stage in spec.stages
            ),
            Plan.of([norm, pool, head], final, spec.itemsize).inside(
                "", part=Part("norm and head"), takes=stream, makes=stream
            ),
        ]
    )


def stage_plan(spec: SwinNetworkSpec, stage: Stage) -> Plan:
    """Return the plan of a stage: patch merging, except in the first stage, and the different blocks."""
    stream = {"x": "x"}
    number, sees = stage.index + 1, spec.sees
    pieces = []
    piece_of: dict[int, int] = {}
    if stage.index:
        merging = merging_plan(spec, spec.stages[stage.index - 1])
        pieces.append(merging.inside("downsample", part=Part("patch merging", number), takes=stream, makes=stream))
    for attention, blocks in spec.kinds(stage):
        title = f"{'SW' if attention.windows.is_shifted else 'W'}-MSA block"
        part = Part(title, number, sees.get((stage.index, blocks[-1])))
        paths = [f"blocks.{block}" for block in blocks]
        pieces.append(block_of(spec, attention).inside(*paths, part=part, takes=stream, makes=stream))
        piece_of |= {block: len(pieces) - 1 for block in blocks}
    return Plan.join(pieces, order=[*range(bool(stage.index)), *(piece_of[block] for block in range(stage.depth))])


def merging_plan(spec: SwinNetworkSpec, before: Stage) -> Plan:
    """Return the plan of patch merging after a stage: a quarter of the tokens, twice the channels."""
    height, width = before.grid
    sizes = {"b": spec.batch, "v": height, "w": width, "c": before.dim}
    sizes |= {"y": (height + 1) // 2, "x": (width + 1) // 2, "i": 2, "j": 2}
    reduced = [reduce, norm_reduced] if isinstance(spec, SwinV2NetworkSpec) else [norm_four, reduce]
    padded = [pad_odd] if height % 2 or width % 2 else []
    return Plan.of([*padded, gather, *reduced], sizes, spec.itemsize)


def block_of(spec: SwinNetworkSpec, attention: SwinSpec) -> Plan:
    """Return the plan of a block: norm, attention, residual, norm, MLP, residual; in V2 norms follow their branches."""
    if not isinstance(spec, SwinV2NetworkSpec):
        return block_plan(spec, attention)
    (y, x), c = attention.resolution, attention.dim
    sizes = {"b": spec.batch, "y": y, "x": x, "c": c, "e": spec.hidden(c)}

    def of(*steps: Step) -> Plan:
        return Plan.of(list(steps), sizes, spec.itemsize)

    attend = spec.checkpointed("attention", attention.plan()).inside(
        "attn", takes={"tokens": "x"}, makes={"tokens": "branch"}
    )
    mlp = of(expand, gelu.dropping(spec.proj_drop), contract.dropping(spec.proj_drop)).inside(
        "mlp", takes={"branch": "x"}, makes={"branch": "branch"}
    )
    whole = Plan.join([attend, of(after(norm1), residual1), mlp, of(after(norm2), residual2)])
    return spec.checkpointed("block", whole)
