"""Steps of SAM's image encoder before and after its blocks.

Axis letters are those of `attnscope.networks.swin.steps`; o is the number of channels after the neck.
"""

from attnscope.networks.block.steps import block_plan
from attnscope.networks.sam.spec import SAMNetworkSpec
from attnscope.networks.swin.steps import to_grid
from attnscope.networks.vit.steps import embed, pad_image
from attnscope.ops import movement, normalization
from attnscope.ops import recipes as op
from attnscope.ops.recipes import Operands, Result
from attnscope.ops.tape import Tape
from attnscope.plan.plan import Part, Plan
from attnscope.plan.step import Step, name_steps


def channel_norm(tape: Tape, given: Operands) -> Result:
    """Normalize the channels at each place of (b, c, height, width), which are the last axis in memory."""
    last = movement.permute(tape, given.x, (0, 2, 3, 1))
    return movement.permute(tape, normalization.layer_norm(tape, last, *given.weights), (0, 3, 1, 2))


add_positions = Step(
    "patches: b y x c -> x: b y x c",
    op=op.add,
    weights={"pos_embed": "1 y x c"},
    doc="add a learned position embedding to each token",
    why="relative positions are distances between two tokens; they do not give the place in the image",
)
to_planes = Step(
    "x: b y x c -> planes: b c y x",
    op=op.view,
    doc="move the channels before the rows and columns; this is a view, which moves no data",
    why="the convolutions of the neck take a grid with channels first",
)
reduce = Step(
    "planes: b c y x -> planes: b o y x",
    op=op.convolution,
    weights={"neck.0.weight": "o c 1 1"},
    doc="project each token to o channels: a convolution of 1×1",
    why="the mask decoder works on fewer channels than the blocks",
)
norm_reduced = Step(
    "planes: b o y x -> planes: b o y x",
    op=channel_norm,
    weights={"neck.1.weight": "o", "neck.1.bias": "o"},
    doc="normalize the channels of each token, then scale and shift each channel",
    why="the residual stream is not normalized by the last block",
)
smooth = Step(
    "planes: b o y x -> planes: b o y x",
    op=op.convolution,
    weights={"neck.2.weight": "o o 3 3"},
    doc="mix each token with its neighbours: a convolution of 3×3",
    why="neighbours across the border of a window meet",
)
norm_smoothed = Step(
    "planes: b o y x -> planes: b o y x",
    op=channel_norm,
    weights={"neck.3.weight": "o", "neck.3.bias": "o"},
    doc="normalize the channels of each token, then scale and shift each channel",
    why="the mask decoder gets inputs of a fixed scale",
)
norm = Step(
    "planes: b c y x -> planes: b c y x",
    op=channel_norm,
    weights={"neck.weight": "c", "neck.bias": "c"},
    doc="apply the final layer norm to each token, in networks without a neck",
    why="the residual stream is not normalized by the last block",
)
pool = Step(
    "planes: b o y x -> pooled: b o", op=op.mean, doc="average all tokens", why="the average represents the image"
)
head = Step(
    "pooled: b o -> logits: b k",
    op=op.linear,
    weights={"head.fc.weight": "k o", "head.fc.bias": "k"},
    doc="compute the logit of each class",
    why="the logits are the output of a classifier",
)
name_steps(globals())


def plan(spec: SAMNetworkSpec) -> Plan:
    """Return the steps of the whole network, or of one block; blocks of a kind share their rows."""
    if not spec.is_whole:
        return block_plan(spec, spec.attention())
    (y, x), (p, q), stream = spec.grid, spec.patch, {"x": "x"}
    sizes = {"v": spec.image[0], "w": spec.image[1], "b": spec.batch, "i": 3, "y": y, "x": x, "p": p, "q": q}
    sizes |= {"c": spec.dim, "o": spec.width, "k": spec.classes}

    def of(*steps: Step) -> Plan:
        return Plan.of(list(steps), sizes, spec.itemsize)

    padded = [pad_image] if spec.image_is_padded else []
    patches = {"patches": "patches" if spec.abs_pos else "x"}
    pieces = [of(*padded, embed, to_grid).inside("patch_embed", makes=patches, part=Part("patch embedding"))]
    if spec.abs_pos:
        takes = {"patches": "patches"}
        pieces.append(of(add_positions).inside("", takes=takes, makes=stream, part=Part("positions")))
    first = len(pieces)
    piece_of: dict[int, int] = {}
    for attention, blocks in spec.kinds():
        part = Part("global block" if attention.is_global else "windowed block", sees=spec.sees(blocks[-1]))
        paths = [f"blocks.{block}" for block in blocks]
        piece_of |= dict.fromkeys(blocks, len(pieces))
        pieces.append(block_plan(spec, attention).inside(*paths, part=part, takes=stream, makes=stream))
    pieces.append(of(*last_steps(spec)).inside("", part=Part("neck and head"), takes=stream))
    return Plan.join(pieces, order=[*range(first), *(piece_of[block] for block in range(spec.depth)), len(pieces) - 1])


def last_steps(spec: SAMNetworkSpec) -> list[Step]:
    """Return the steps after the blocks: the neck, or a norm, then pooling and the head of a classifier."""
    neck = [reduce, norm_reduced, smooth, norm_smoothed] if spec.neck else [norm]
    return [to_planes, *neck, *([pool, head] if spec.classes else [])]
