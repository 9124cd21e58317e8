"""Steps of XCiT.

Axis letters:

- b batch; n = y·x tokens of a grid; c embedding dimension; e hidden size of the MLP; k classes.
- In the patch embedding: s channels and v w grid before a convolution; c channels and y x grid after it.
- f Fourier features of a position.
- In class attention: n tokens with the class token; h heads; d channels of a head.
"""

from dataclasses import replace

from attnscope.attentions.steps import HELD, merge_heads, mix, output, scaled, score, softmax
from attnscope.attentions.xca.spec import XCASpec
from attnscope.networks import steps as shared
from attnscope.networks.block.steps import attention_plan
from attnscope.networks.composed import ComposedSpec
from attnscope.networks.steps import contract, expand, gelu, norm1, norm2, residual1, residual2
from attnscope.networks.vit.steps import head, norm, pool, prepend
from attnscope.networks.xca.spec import FEATURES, KERNEL, XCiTNetworkSpec
from attnscope.ops import elementwise, matmul, movement, normalization
from attnscope.ops import recipes as op
from attnscope.ops.recipes import Operands, Result
from attnscope.ops.tape import Tape
from attnscope.plan.plan import Part, Plan
from attnscope.plan.step import Step, name_steps


def add_planes(tape: Tape, given: Operands) -> Result:
    """Add a grid of one image, channels first, to the tokens of each image."""
    tokens, planes = given.inputs
    sequence = movement.reshape(tape, planes, (1, planes.shape[1], tokens.shape[1]))
    return elementwise.add(tape, tokens, movement.transpose(tape, sequence))


def linear_to_query(tape: Tape, given: Operands) -> Result:
    """Project one token, and split its channels into heads."""
    return movement.view(tape, matmul.linear(tape, given.x, *given.weights), given.shapes[0])


def linear_to_heads(tape: Tape, given: Operands) -> Result:
    """Project each token, and split its channels into heads."""
    b, h, n, d = given.shapes[0]
    projected = matmul.linear(tape, given.x, *given.weights)
    return movement.transpose(tape, movement.view(tape, projected, (b, n, h, d)), 1, 2)


def first(tape: Tape, given: Operands) -> Result:
    """Return a view of the first token."""
    return movement.narrow(tape, given.x, 1, 1)


def replace_first(tape: Tape, given: Operands) -> Result:
    """Put another token in the place of the first one."""
    token, tokens = given.inputs
    others = movement.narrow(tape, tokens, 1, tokens.shape[1] - 1)
    return movement.cat(tape, [token, others], axis=1)


def norm_of_first(tape: Tape, given: Operands) -> Result:
    """Normalize the first token alone."""
    x = given.x
    token = normalization.layer_norm(tape, movement.narrow(tape, x, 1, 1), *given.weights)
    return movement.cat(tape, [token, movement.narrow(tape, x, 1, x.shape[1] - 1)], axis=1)


PLANES = "planes: b c y x -> planes: b c y x"

# Before the blocks.

convolve = Step(
    "planes: b s v w -> planes: b c y x",
    op=op.convolution,
    weights={"0.weight": f"c s {KERNEL} {KERNEL}"},
    doc="convolve overlapping patches of 3×3 with stride 2: a quarter of the places",
    why="several small convolutions make better tokens than one large patch, and train more stably",
)
normalize_channels = Step(
    PLANES,
    op=op.batch_norm,
    weights={"1.weight": "c", "1.bias": "c"},
    doc="batch norm: normalize each channel by running statistics, then scale and shift it",
    why="the next convolution gets inputs of a fixed scale",
)
gelu_planes = replace(gelu, pattern=PLANES, why="without a nonlinearity, two convolutions would be one linear map")
to_tokens = Step(
    "planes: b c y x -> patches: b (y x) c",
    op=op.rearrange,
    doc="flatten the grid to a sequence, and move the channels to the last axis",
    why="attention and MLP operate on the channels of each token",
)
project_features = Step(
    "features: 1 f y x -> planes: 1 c y x",
    op=op.convolution,
    weights={"token_projection.weight": "c f 1 1", "token_projection.bias": "c"},
    constants=("features",),
    doc="project the Fourier features of each position, sines and cosines, to the channels; once for all images",
    why="a function of the position takes any image size, unlike a table",
)
add_positions = Step(
    "patches: b (y x) c, planes: 1 c y x -> x: b (y x) c",
    op=add_planes,
    doc="add the encoding of its position to each token",
    why="attention between channels ignores the order of the tokens",
)

# Local patch interaction.

scale1 = replace(shared.scale1, weights={"gamma1": "c"})
norm3 = replace(norm1, weights={"norm3.weight": "c", "norm3.bias": "c"})
to_planes = Step(
    "branch: b (y x) c -> planes: b c y x",
    op=op.view,
    doc="reshape the sequence of tokens to a grid, channels first",
    why="the convolutions take a grid",
)
mix_neighbours = Step(
    PLANES,
    op=op.convolution,
    weights={"conv1.weight": f"c 1 {KERNEL} {KERNEL}", "conv1.bias": "c"},
    doc="local patch interaction: convolve each channel by 3×3, padded with zeros",
    why="attention between channels has no map between tokens; LPI is where neighbours exchange information",
)
normalize_planes = replace(
    normalize_channels,
    weights={"bn.weight": "c", "bn.bias": "c"},
    why="a norm of each channel keeps the ratios between tokens, which a norm of each token would not",
)
mix_again = replace(
    mix_neighbours,
    weights={"conv2.weight": f"c 1 {KERNEL} {KERNEL}", "conv2.bias": "c"},
    doc="convolve each channel by 3×3 again",
    why="two convolutions reach the tokens of 5×5",
)
to_sequence = Step(
    "planes: b c y x -> branch: b (y x) c",
    op=op.view,
    doc="flatten the grid to a sequence: the inverse of to_planes",
    why="the residual takes the channels of each token",
)
scale3 = replace(shared.scale1, weights={"gamma3": "c"})
residual3 = replace(residual1, doc="add the output of local patch interaction to each token")
scale2 = replace(shared.scale2, weights={"gamma2": "c"})

# Class attention.

CLASS = {"n": "1", "m": "n"}
"""Letters of attention with the class token as its only query."""

select_query = Step(
    "x: b n c -> token: b c",
    op=op.select,
    doc="select the class token, the only one with a query",
    why="only the class token gathers information; the patches do not change",
)
project_query = Step(
    "token: b c -> q: b h 1 d",
    op=linear_to_query,
    weights={"q.weight": "(h d) c", "q.bias": "(h d)"},
    doc="q = x·Wq + b: project the class token to its query, with h heads of d channels",
    why="a single query makes the cost linear in the number of tokens",
)
project_keys = Step(
    "x: b n c -> k: b h n d",
    op=linear_to_heads,
    weights={"k.weight": "(h d) c", "k.bias": "(h d)"},
    doc="k = x·Wk + b: project each token to its key, with h heads of d channels",
    why="the class token attends to itself and to all patches",
)
project_values = replace(
    project_keys,
    pattern="x: b n c -> v: b h n d",
    weights={"v.weight": "(h d) c", "v.bias": "(h d)"},
    doc="v = x·Wv + b: project each token to its value, with h heads of d channels",
    why="the class token becomes an average of the values",
)
score, softmax, mix, merge_heads, output = (
    step.spelled(**CLASS) for step in (score, softmax, mix, merge_heads, output)
)
replace_branch = Step(
    "token: b 1 c, branch: b n c -> branch: b n c",
    op=replace_first,
    doc="put the class token in the place of the first one, before the normalized patches",
    why="the residual takes all tokens",
)
norm_class = replace(
    norm2,
    pattern="x: b n c -> x: b n c",
    op=norm_of_first,
    doc="normalize the class token, then scale and shift each channel; the patches stay",
    why="only the class token enters the MLP",
)
norm_all = replace(
    norm2,
    pattern="x: b n c -> x: b n c",
    doc="normalize each token, then scale and shift each channel, before the residual",
    why="normalizing the patches, too, gives a better accuracy in larger networks",
)
scale_class = scale2.spelled(n="1")
select_class = Step(
    "x: b n c -> branch: b 1 c",
    op=first,
    doc="select the class token",
    why="the MLP operates on the class token alone",
)
replace_class = Step(
    "branch: b 1 c, x: b n c -> branch: b n c",
    op=replace_first,
    doc="put the output of the MLP in the place of the class token",
    why="the residual takes all tokens; that of the patches is their own value",
)
name_steps(globals())


def plan(spec: XCiTNetworkSpec) -> Plan:
    """Return the steps of the whole network, or of one block; identical blocks share their rows."""
    if not spec.is_whole:
        return block_plan(spec, spec.attention())
    (y, x), b, c, stream = spec.grid, spec.batch, spec.dim, {"x": "x"}
    sizes = {"b": b, "c": c, "y": y, "x": x, "n": spec.tokens, "f": FEATURES, "k": spec.classes}
    with_class = {**sizes, "n": spec.tokens + 1}
    blocks, class_blocks = (
        [f"{name}.{block}" for block in range(depth)]
        for name, depth in (("blocks", spec.depth), ("cls_attn_blocks", spec.class_depth))
    )
    patches = {"patches": "patches" if spec.fourier else "x"}
    pieces = [patches_plan(spec).inside("patch_embed", makes=patches, part=Part("patch embedding"))]
    if spec.fourier:
        encode = Plan.of([project_features], sizes, spec.itemsize).inside("pos_embed", makes={"planes": "positions"})
        add = Plan.of([add_positions], sizes, spec.itemsize)
        takes = {"patches": "patches", "planes": "positions"}
        pieces.append(
            Plan.join([encode, add.inside("", takes=takes, makes=stream)]).inside(
                "", takes=takes, makes={**stream, "positions": "positions"}, part=Part("positions")
            )
        )
    before = len(pieces)
    pieces += [
        block_plan(spec, spec.attention()).inside(*blocks, part=Part("block"), takes=stream, makes=stream),
        Plan.of([prepend], with_class, spec.itemsize).inside(
            "", part=Part("class token"), takes={"patches": "x"}, makes=stream
        ),
        class_block_plan(spec).inside(*class_blocks, part=Part("block of class attention"), takes=stream, makes=stream),
        Plan.of([norm, pool, head], with_class, spec.itemsize).inside(
            "", part=Part("norm and head"), takes=stream, makes=stream
        ),
    ]
    order = [*range(before), *[before] * spec.depth, before + 1, *[before + 2] * spec.class_depth, before + 3]
    return Plan.join(pieces, order=order)


def patches_plan(spec: XCiTNetworkSpec) -> Plan:
    """Return the plan of the patch embedding: convolutions, each with a batch norm and all but the last with a GELU."""
    pieces, taken, halvings = [], "image", spec.halvings
    last = halvings[-1]
    for place, each in enumerate(halvings):
        (v, w), (y, x) = each.before, each.after
        sizes = {"b": spec.batch, "s": each.channels, "v": v, "w": w, "c": each.dim, "y": y, "x": x}
        steps = [convolve, normalize_channels, *([] if each is last else [gelu_planes])]
        pieces.append(
            Plan.of(steps, sizes, spec.itemsize).inside(
                f"proj.{2 * place}", takes={"planes": taken}, makes={"planes": "planes"}
            )
        )
        taken = "planes"
    sizes = {"b": spec.batch, "c": spec.dim, "y": last.after[0], "x": last.after[1]}
    return Plan.join([*pieces, Plan.of([to_tokens], sizes, spec.itemsize)])


def block_plan(spec: ComposedSpec, attention: XCASpec) -> Plan:
    """Return the plan of a block: attention, local patch interaction, MLP, each with norm, LayerScale and residual.

    Args:
        spec: the block or the network.
        attention: the attention of the block.
    """
    (y, x), c = attention.resolution, attention.dim
    sizes = {"b": attention.batch, "n": y * x, "y": y, "x": x, "c": c, "e": spec.hidden(c)}

    def of(*steps: Step) -> Plan:
        return Plan.of(steps, sizes, spec.itemsize)

    def inside(path: str, *steps: Step) -> Plan:
        return of(*steps).inside(path, takes={"branch": "branch"}, makes={"branch": "branch"})

    interaction = to_planes, mix_neighbours, gelu_planes, normalize_planes, mix_again, to_sequence
    mlp = expand, gelu.dropping(spec.proj_drop), contract.dropping(spec.proj_drop)
    whole = Plan.join(
        [
            of(norm1),
            attention_plan(spec, attention),
            of(scale1, residual1, norm3),
            inside("local_mp", *interaction),
            of(scale3, residual3, norm2),
            inside("mlp", *mlp),
            of(scale2, residual2),
        ]
    )
    return spec.checkpointed("block", whole)


def class_block_plan(spec: XCiTNetworkSpec) -> Plan:
    """Return the plan of a block of class attention, whose attention and MLP change the class token alone."""
    b, c, h = spec.batch, spec.dim, spec.heads
    sizes = {"b": b, "n": spec.tokens + 1, "c": c, "e": spec.hidden(c), "h": h, "d": c // h}
    projections = [
        each if spec.qkv_bias else each.without_bias() for each in (project_query, project_keys, project_values)
    ]
    attend = [
        select_query,
        *projections,
        scaled(score, spec.attention()),
        softmax.dropping(spec.attn_drop),
        mix,
        merge_heads,
        output.dropping(spec.proj_drop),
    ]

    def of(*steps: Step) -> Plan:
        return Plan.of(steps, sizes, spec.itemsize)

    gathering = spec.checkpointed("attention", Plan.of(attend, sizes, spec.itemsize, holds=HELD))
    mlp = [step.spelled(n="1") for step in (expand, gelu.dropping(spec.proj_drop), contract.dropping(spec.proj_drop))]
    whole = Plan.join(
        [
            of(norm1),
            gathering.inside("attn", takes={"x": "branch"}, makes={"y": "token"}),
            of(replace_branch, scale1, residual1, norm_all if spec.tokens_norm else norm_class, select_class),
            of(*mlp).inside("mlp", takes={"branch": "branch"}, makes={"branch": "branch"}),
            of(scale_class, replace_class, residual2),
        ]
    )
    return spec.checkpointed("block", whole)
