"""Steps of cross-shaped window attention.

Axis letters:

- b batch; y x grid of tokens; c embedding dimension.
- a branches; h heads of one branch; d channels of a head. c = a·h·d.
- Within a branch, a stripe is a window: r s stripes down and across; p q height and width of a stripe. The grid is
  therefore r·p by s·q.
- n query tokens and m key tokens of a stripe, both p·q.
"""

from attnscope.attentions import steps as shared
from attnscope.attentions.cswin.spec import CSWinSpec
from attnscope.attentions.swin.steps import WINDOWS
from attnscope.ops import convolution, matmul, movement
from attnscope.ops import recipes as op
from attnscope.ops.recipes import Operands, Result
from attnscope.ops.tape import Tape
from attnscope.plan.plan import Part, Plan
from attnscope.plan.step import Step, name_steps


def project_apart(tape: Tape, given: Operands) -> Result:
    """Compute x·Wᵀ + b, with an axis for queries, keys and values."""
    return movement.view(tape, matmul.linear(tape, given.x, *given.weights), given.shapes[0])


def split_channels(tape: Tape, given: Operands) -> Result:
    """Return a view of the channels of each branch."""
    return movement.split(tape, given.x, [shape[-1] for shape in given.shapes], axis=4)


def cut_stripes(tape: Tape, given: Operands) -> Result:
    """Copy queries, keys and values into stripes with heads, (3, b, r, s, h, p, q, d), and return a view of each."""
    b, r, s, p, q, h, d = (given.sizes[letter] for letter in "brspqhd")
    apart = movement.view(tape, given.x, (b, r, p, s, q, 3, h, d))
    cut = movement.contiguous(tape, movement.permute(tape, apart, (5, 0, 1, 3, 6, 2, 4, 7)))
    return movement.unbind(tape, movement.view(tape, cut, (3, *given.shapes[0])))


def encode_position(tape: Tape, given: Operands) -> Result:
    """Convolve each channel of a stripe, in channels-last format."""
    b, r, s, p, q, h, d = (given.sizes[letter] for letter in "brspqhd")
    windows = movement.permute(tape, movement.view(tape, given.x, (b * r * s, h, p, q, d)), (0, 2, 3, 1, 4))
    laid = movement.view(tape, movement.contiguous(tape, windows), (b * r * s, p, q, h * d))
    image = movement.permute(tape, laid, (0, 3, 1, 2))
    kernel, bias = given.weights
    made = convolution.convolution(tape, image, kernel, bias, image.shape)
    apart = movement.view(tape, movement.permute(tape, made, (0, 2, 3, 1)), (b * r * s, p * q, h, d))
    return movement.transpose(tape, apart, 1, 2)


project = Step(
    "tokens: b y x c -> qkv: b y x 3 (a h d)",
    op=project_apart,
    weights={"qkv.weight": "(3 a h d) c", "qkv.bias": "(3 a h d)"},
    doc="q, k, v = x·Wqkv + b: project each token to its query, key and value in one matmul",
    why="one large matmul is faster than three small ones",
)
split_branches = Step(
    "qkv: b y x 3 (a h d) -> vertical: b y x 3 (h d), horizontal: b y x 3 (h d)",
    op=split_channels,
    doc="split the channels: one half for vertical stripes, one half for horizontal stripes",
    why="both directions in one layer give each token a cross, at the cost of one direction",
)
partition = Step(
    "qkv: b (r p) (s q) 3 (h d) -> q: (b r s) h (p q) d, k: (b r s) h (p q) d, v: (b r s) h (p q) d",
    op=cut_stripes,
    doc="partition the grid into stripes, each a short sequence, and split the channels into heads",
    why="attention within stripes costs far less than global attention, and reaches across the image",
)
encode = Step(
    "v: (b r s) h (p q) d -> lepe: (b r s) h (p q) d",
    op=encode_position,
    weights={"get_v.weight": "(h d) 1 3 3", "get_v.bias": "(h d)"},
    doc="LePE: convolve each channel of the values by 3×3 within the stripe, padded with zeros at its border",
    why="attention itself ignores positions; this encoding of local positions takes any grid size",
)
add_encoding = Step(
    "heads: (b r s) h n d, lepe: (b r s) h n d -> heads: (b r s) h n d",
    op=op.add,
    doc="softmax(q·kᵀ/√d)·v + LePE(v): add the positional encoding to the output of each head",
    why="the encoding acts on the values, in parallel to attention",
)
merge_stripes = Step(
    "heads: (b r s) h (p q) d -> branch: b (r p) (s q) (h d)",
    op=op.rearrange,
    doc="merge the stripes into the grid and concatenate the heads: the inverse of partition",
    why="the output projection takes one vector for each token",
)
concatenate = Step(
    "columns: b y x (h d), rows: b y x (h d) -> merged: b y x (a h d)",
    op=lambda tape, given: movement.cat(tape, given.inputs, axis=3),
    doc="concatenate the channels of both branches",
    why="each token then has the outputs of its column and of its row",
)
output = Step(
    "merged: b y x c -> tokens: b y x c",
    op=op.linear,
    weights={"proj.weight": "c c", "proj.bias": "c"},
    doc="y = merged·Wproj + b: mix the outputs of all heads across channels",
    why="vertical and horizontal heads do not see each other before this step",
)
name_steps(globals())


def plan(spec: CSWinSpec) -> Plan:
    """Return the steps that this Spec runs, in order: vertical stripes, then horizontal ones."""
    branches = len(spec.stripes)
    (y, x), c = spec.resolution, spec.dim
    sizes = {"b": spec.batch, "y": y, "x": x, "c": c}
    sizes |= {"a": branches, "h": spec.heads // branches, "d": c // spec.heads}
    first, last = [project if spec.qkv_bias else project.without_bias()], [output.dropping(spec.proj_drop)]
    if branches == 1:
        parts = [branch_of(spec, 0, "qkv", "merged")]
    else:
        first, last = [*first, split_branches], [concatenate, *last]
        parts = [
            branch_of(spec, 0, "vertical", "columns", Part("vertical")),
            branch_of(spec, 1, "horizontal", "rows", Part("horizontal")),
        ]
    part = Part("both") if branches > 1 else None
    start, end = (Plan.of(steps, sizes, spec.itemsize).inside("", part=part) for steps in (first, last))
    return Plan.join([start, *parts, end])


def branch_of(spec: CSWinSpec, index: int, takes: str, makes: str, part: Part | None = None) -> Plan:
    """Return the plan of attention in the stripes of one branch.

    Args:
        spec: Spec of the whole attention.
        index: the number of the branch.
        takes, makes: the names of its input and its output in the whole.
        part: the title of the branch.
    """
    stripe = spec.stripes[index]
    (y, x), (p, q), h, d = spec.resolution, stripe, spec.heads // len(spec.stripes), spec.dim // spec.heads
    sizes = {"b": spec.batch, "r": y // p, "s": x // q, "p": p, "q": q, "n": p * q, "m": p * q, "h": h, "d": d}
    attention = [step.spelled(**WINDOWS) for step in shared.attention_of(spec)]
    steps = [partition, *attention, encode, add_encoding, merge_stripes]
    own = Plan.of(steps, sizes, spec.itemsize, holds=shared.HELD)
    return own.inside(f"attns.{index}", takes={"qkv": takes}, makes={"branch": makes}, part=part)
