"""Steps of hierarchical networks before, between and after their blocks, and the order of their stages.

Axis letters:

- b batch; i image channels; p q height and width of a kernel; c embedding dimension; k classes.
- y x tokens down and across; for merging, those after it. n = y·x.
- v w sides of the image, or of the grid before merging; o embedding dimension before merging.
"""

from collections.abc import Callable, Sequence

from attnscope.attentions.heads import Headed
from attnscope.networks.hierarchy.spec import HierarchySpec
from attnscope.networks.stages import Stage
from attnscope.ops import recipes as op
from attnscope.plan.plan import Part, Plan
from attnscope.plan.step import Step, name_steps

embed = Step(
    "image: b i v w -> planes: b c y x",
    op=op.convolution,
    weights={"proj.weight": "c i p q", "proj.bias": "c"},
    doc="make a token of each overlapping patch of the image: a convolution whose stride is smaller than its kernel",
    why="overlapping patches keep what lies on their borders",
)
merge = Step(
    "grid: b o v w -> planes: b c y x",
    op=op.convolution,
    weights={"proj.weight": "c o p q", "proj.bias": "c"},
    doc="merge the tokens of overlapping patches of 3×3: a convolution with stride 2",
    why="the next stage has a quarter of the tokens, and more channels",
)
to_tokens = Step(
    "planes: b c y x -> patches: b (y x) c",
    op=op.rearrange,
    doc="flatten the grid to a sequence, and move the channels to the last axis",
    why="attention and MLP operate on the channels of each token",
)
norm_patches = Step(
    "patches: b n c -> x: b n c",
    op=op.layer_norm,
    weights={"norm.weight": "c", "norm.bias": "c"},
    doc="normalize each patch to mean 0 and variance 1, then scale and shift each channel",
    why="the next block gets inputs of a fixed scale",
)
norm = Step(
    "x: b n c -> x: b n c",
    op=op.layer_norm,
    weights={"norm.weight": "c", "norm.bias": "c"},
    doc="apply a last layer norm to each token",
    why="the residual stream is not normalized by the last block",
)
pool = Step("x: b n c -> pooled: b c", op=op.mean, doc="average all tokens", why="the average represents the image")
head = Step(
    "pooled: b c -> logits: b k",
    op=op.linear,
    weights={"head.weight": "k c", "head.bias": "k"},
    doc="compute the logit of each class",
    why="the logits are the output of a classifier",
)
name_steps(globals())

STREAM = {"x": "x"}
"""The name of the tokens between the parts of a network."""


def stage_plan(
    spec: HierarchySpec,
    stage: Stage,
    block: Callable[[Stage, Headed], Plan],
    before: Sequence[Plan] = (),
    after: Sequence[Plan] = (),
    first: int = 0,
    after_first: Sequence[Plan] = (),
) -> Plan:
    """Return the plan of a stage; identical blocks share their rows.

    Args:
        spec: the network.
        stage: the stage.
        block: the plan of a block with an attention.
        before, after: the plans before and after the blocks, with the names of tensors in the stage.
        first: the number of the first block in the module.
        after_first: the plans between the first block and the second one.
    """
    kinds = spec.kinds(stage)
    pieces: list[Plan] = []
    kind_of: dict[int, int] = {}
    for kind, (attention, blocks) in enumerate(kinds):
        title = f"block, {spec.title_of(attention)}" if len(kinds) > 1 else "block"
        paths = [f"blocks.{first + each}" for each in blocks]
        part = Part(title, stage.index + 1)
        pieces.append(block(stage, attention).inside(*paths, part=part, takes=STREAM, makes=STREAM))
        kind_of |= dict.fromkeys(blocks, kind)
    ahead = [*before, pieces[0], *after_first]
    inside = [*ahead, *pieces[1:]]
    numbers = [len(before), *range(len(ahead), len(inside))]
    others = [numbers[kind_of[each]] for each in range(1, stage.depth)]
    order = [*range(len(ahead)), *others, *range(len(inside), len(inside) + len(after))]
    return Plan.join([*inside, *after], order=order)
