"""Steps of ViT before and after its blocks.

Axis letters:

- b batch; i image channels; p q patch height and width; c embedding dimension; e hidden size of the MLP; k classes.
- y x patches down and across; v w the sides of an image that is padded to whole patches.
- n tokens: patches, class token, distillation token and r registers.
"""

from attnscope.networks.steps import (
    contract,
    expand,
    gate,
    gate_and_value,
    gelu,
    norm1,
    norm2,
    norm_hidden,
    residual1,
    residual2,
    scale1,
    scale2,
    swiglu,
    swiglu_packed,
    value,
)
from attnscope.networks.vit.mlp import GELU, PACKED, SWIGLU
from attnscope.networks.vit.spec import ALL, NONE, ViTNetworkSpec
from attnscope.ops import movement, reduction
from attnscope.ops import recipes as op
from attnscope.ops.recipes import Operands, Result
from attnscope.ops.tape import Tape
from attnscope.plan.plan import Part, Plan
from attnscope.plan.step import Step, name_steps


def mean_of_patches(tape: Tape, given: Operands) -> Result:
    """Average the patches, which are the last tokens."""
    patches = movement.narrow(tape, given.x, 1, given.sizes["y"] * given.sizes["x"])
    return reduction.mean(tape, patches, (1,))


pad_image = Step(
    "image: b i v w -> image: b i (y p) (x q)",
    op=op.pad,
    doc="pad the image at the bottom and on the right with zeros to whole patches",
    why="a detector keeps the size and the aspect ratio of its images",
)
embed = Step(
    "image: b i (y p) (x q) -> planes: b c y x",
    op=op.convolution,
    weights={"proj.weight": "c i p q", "proj.bias": "c"},
    doc="project each patch of the image to a token: a convolution whose stride is the patch size",
    why="one token for each pixel would make attention too expensive",
)
flatten = Step(
    "planes: b c y x -> patches: b (y x) c",
    op=op.view,
    doc="flatten the grid of patches to a sequence, row by row",
    why="attention takes a sequence of tokens",
)
prepend = Step(
    "patches: b (y x) c -> x: b n c",
    op=op.prepend,
    weights={"cls_token": "1 1 c"},
    doc="prepend the learned class token, from which the head computes the logits",
    why="this token collects what the head needs from all patches",
)
prepend_two = Step(
    "patches: b (y x) c -> x: b n c",
    op=op.prepend,
    weights={"cls_token": "1 1 c", "dist_token": "1 1 c"},
    doc="prepend the learned class token and the learned distillation token",
    why="the second token learns from the predictions of a teacher network",
)
add_patch_positions = Step(
    "patches: b (y x) c -> patches: b (y x) c",
    op=op.add,
    weights={"pos_embed": "1 (y x) c"},
    doc="add a learned position embedding to each patch; the tokens before the patches have no position",
    why="without it, the network could not tell one order of the patches from another",
)
prepend_registers = Step(
    "patches: b (y x) c -> x: b n c",
    op=op.prepend,
    weights={"cls_token": "1 1 c", "reg_token": "1 r c"},
    doc="prepend the learned class token and the learned registers",
    why="registers collect global information that would otherwise replace the content of patches",
)
prepend_only_registers = Step(
    "patches: b (y x) c -> x: b n c",
    op=op.prepend,
    weights={"reg_token": "1 r c"},
    doc="prepend the learned registers",
    why="registers collect global information that would otherwise replace the content of patches",
)
add_positions = Step(
    "x: b n c -> x: b n c",
    op=op.add,
    weights={"pos_embed": "1 n c"},
    doc="add a learned position embedding to each token; attention itself ignores the order of tokens",
    why="without it, the network could not tell one order of the patches from another",
)
norm = Step(
    "x: b n c -> x: b n c",
    op=op.layer_norm,
    weights={"norm.weight": "c", "norm.bias": "c"},
    doc="apply the final layer norm to each token",
    why="the residual stream is not normalized by the last block",
)
pool = Step(
    "x: b n c -> pooled: b c", op=op.select, doc="select the class token", why="the class token represents the image"
)
pool_mean = Step(
    "x: b n c -> pooled: b c",
    op=op.mean,
    doc="average all tokens, in networks without a class token",
    why="the average represents the image",
)
pool_patches = Step(
    "x: b n c -> pooled: b c",
    op=mean_of_patches,
    doc="average the patches, without the tokens before them",
    why="the average represents the image",
)
norm_pooled = Step(
    "pooled: b c -> pooled: b c",
    op=op.layer_norm,
    weights={"fc_norm.weight": "c", "fc_norm.bias": "c"},
    doc="apply the final layer norm to the average or the class token",
    why="the residual stream is not normalized by the last block; one vector for each image is enough for the head",
)
pool_two = Step(
    "x: b n c -> pooled: b c, taught: b c",
    op=op.select,
    doc="select the class token and the distillation token",
    why="both tokens represent the image",
)
head = Step(
    "pooled: b c -> logits: b k",
    op=op.linear,
    weights={"head.weight": "k c", "head.bias": "k"},
    doc="compute the logit of each class",
    why="the logits are the output of a classifier",
)
head_dist = Step(
    "taught: b c -> votes: b k",
    op=op.linear,
    weights={"head_dist.weight": "k c", "head_dist.bias": "k"},
    doc="compute the logit of each class from the distillation token",
    why="the teacher's predictions have a head of their own",
)
average = Step(
    "logits: b k, votes: b k -> logits: b k",
    op=op.average,
    doc="average the logits of both heads",
    why="both heads contribute to the prediction",
)
name_steps(globals())


def plan(spec: ViTNetworkSpec) -> Plan:
    """Return the steps of the whole network, or of one block; all blocks are identical and share their rows."""
    if not spec.is_whole:
        return block_plan(spec)
    (y, x), (p, q), b, c = spec.grid, spec.patch, spec.batch, spec.dim
    padded = [pad_image] if spec.image_is_padded else []
    sizes = {
        "v": spec.image[0],
        "w": spec.image[1],
        "b": b,
        "i": 3,
        "y": y,
        "x": x,
        "p": p,
        "q": q,
        "c": c,
        "n": spec.tokens,
        "k": spec.classes,
        "r": spec.registers,
    }

    def of(steps: list[Step]) -> Plan:
        return Plan.of(steps, sizes, spec.itemsize)

    stream = {"x": "x"}
    patches = {"patches": "patches" if spec.prefix else "x"}
    blocks = [f"blocks.{index}" for index in range(spec.depth)]
    pieces = [of([*padded, embed, flatten]).inside("patch_embed", makes=patches, part=Part("patch embedding"))]
    if first := first_steps(spec):
        takes = {"patches": "patches", "x": "x"}
        pieces.append(of(first).inside("", takes=takes, makes=stream, part=Part("tokens and positions")))
    body = len(pieces)
    pieces.append(block_plan(spec).inside(*blocks, part=Part("block", sees=spec.grid), takes=stream, makes=stream))
    if last := last_steps(spec):
        pieces.append(of(last).inside("", part=Part("norm and head"), takes=stream, makes=stream))
    return Plan.join(pieces, order=[*range(body), *[body] * spec.depth, *range(body + 1, len(pieces))])


def first_steps(spec: ViTNetworkSpec) -> list[Step]:
    """Return the steps between the patches and the blocks: further tokens and positions."""
    tokens = []
    if spec.registers:
        tokens = [prepend_registers if spec.cls else prepend_only_registers]
    elif spec.cls:
        tokens = [prepend_two if spec.distilled else prepend]
    if spec.positioned == NONE:
        return tokens
    return [*tokens, add_positions] if spec.positioned == ALL else [add_patch_positions, *tokens]


def last_steps(spec: ViTNetworkSpec) -> list[Step]:
    """Return the steps after the blocks: norm, pooling and heads."""
    if spec.distilled:
        return [norm, pool_two, head, head_dist, average]
    pooling = (pool_patches if spec.prefix else pool_mean) if spec.averages else pool
    pooled = [pooling, norm_pooled] if spec.pool_norm else [norm, pooling]
    return [*pooled, *[head] * bool(spec.classes)]


MLP_STEPS = {
    GELU: [expand, gelu],
    SWIGLU: [gate, value, swiglu],
    PACKED: [gate_and_value, swiglu_packed],
}
"""The steps of each MLP before its last layer; the last of them is the nonlinearity, which dropout follows."""


def mlp_steps(spec: ViTNetworkSpec) -> list[Step]:
    """Return the steps of the MLP of a block."""
    *first, nonlinear = MLP_STEPS[spec.mlp]
    norms = [norm_hidden] * spec.mlp_norm
    return [*first, nonlinear.dropping(spec.proj_drop), *norms, contract.dropping(spec.proj_drop)]


def block_plan(spec: ViTNetworkSpec) -> Plan:
    """Return the plan of a block: norm, attention, residual, norm, MLP, residual; LayerScale before each residual."""
    c = spec.dim
    sizes = {"b": spec.batch, "n": spec.tokens, "c": c, "e": spec.hidden(c)}

    def of(*steps: Step) -> Plan:
        return Plan.of(list(steps), sizes, spec.itemsize)

    branch = {"branch": "branch"}
    attend = spec.checkpointed("attention", spec.attention().plan())
    whole = Plan.join(
        [
            of(norm1),
            attend.inside("attn", takes={"x": "branch"}, makes={"y": "branch"}),
            of(*[scale1] * spec.layer_scale, residual1, norm2),
            of(*mlp_steps(spec)).inside("mlp", takes=branch, makes=branch),
            of(*[scale2] * spec.layer_scale, residual2),
        ]
    )
    return spec.checkpointed("block", whole)
