"""Steps of separable attention.

Axis letters:

- b batch; c channels; e = 1 + 2c channels of the score, the key and the value.
- r s patches down and across; p q height and width of a patch. The grid is therefore r·p by s·q.
- i = p·q places in a patch; n = r·s tokens of each place, one of each patch.
"""

from attnscope.attentions.separable.spec import SeparableSpec
from attnscope.ops import elementwise, movement, reduction
from attnscope.ops import recipes as op
from attnscope.ops.recipes import Operands, Result
from attnscope.ops.tape import Tape
from attnscope.plan.plan import Plan
from attnscope.plan.step import Step, name_steps


def split_channels(tape: Tape, given: Operands) -> Result:
    """Return a view of the channels of each output."""
    return movement.split(tape, given.x, [shape[1] for shape in given.shapes], axis=1)


def weighted_sum(tape: Tape, given: Operands) -> Result:
    """Multiply each key by the weight of its token, and sum over the tokens."""
    keys, weights = given.inputs
    return reduction.total(tape, elementwise.multiply(tape, keys, weights), axis=3)


def scale_values(tape: Tape, given: Operands) -> Result:
    """Compute ReLU(v)·context."""
    values, context = given.inputs
    return elementwise.multiply(tape, elementwise.activate(tape, "relu", values, saves="output"), context)


unfold = Step(
    "tokens: b c (r p) (s q) -> patches: b c (p q) (r s)",
    op=op.rearrange,
    doc="collect the tokens at each place of a patch, one of each patch",
    why="each place has a sum of its own; the convolutions before the attention mix the places of a patch",
)
project = Step(
    "patches: b c i n -> qkv: b e i n",
    op=op.convolution,
    weights={"qkv_proj.weight": "e c 1 1", "qkv_proj.bias": "e"},
    doc="project each token to one score, its key and its value, by a convolution of 1×1",
    why="a query of one channel in place of c channels: the score does not depend on the other token",
)
split = Step(
    "qkv: b e i n -> query: b 1 i n, key: b c i n, value: b c i n",
    op=split_channels,
    doc="split the channels into the score, the key and the value",
    why="this is a view, which moves no data",
)
softmax = Step(
    "query: b 1 i n -> weights: b 1 i n",
    op=op.softmax,
    doc="normalize the scores of all tokens to weights that sum to 1, then apply dropout in training",
    why="the context becomes a weighted average of the keys",
)
sum_context = Step(
    "key: b c i n, weights: b 1 i n -> context: b c i 1",
    op=weighted_sum,
    doc="multiply the keys by the weights and sum over the tokens: one context vector",
    why="one vector for any number of tokens, so that the cost is linear",
)
apply_context = Step(
    "value: b c i n, context: b c i 1 -> merged: b c i n",
    op=scale_values,
    doc="ReLU(v)·context: multiply each value by the context vector, channel by channel",
    why="this is where information moves between tokens",
)
output = Step(
    "merged: b c i n -> y: b c i n",
    op=op.convolution,
    weights={"out_proj.weight": "c c 1 1", "out_proj.bias": "c"},
    doc="y = Wo·merged + b: mix the channels of each token",
    why="all steps since the projection keep the channels apart",
)
fold = Step(
    "y: b c (p q) (r s) -> tokens: b c (r p) (s q)",
    op=op.rearrange,
    doc="return the tokens to their places: the inverse of unfold",
    why="the next layer takes the grid of tokens",
)
name_steps(globals())


def plan(spec: SeparableSpec) -> Plan:
    """Return the steps that this Spec runs, in order."""
    (height, width), (p, q), c = spec.resolution, spec.patch, spec.dim
    r, s = height // p, width // q
    sizes = {"b": spec.batch, "c": c, "e": 1 + 2 * c, "r": r, "s": s, "p": p, "q": q, "i": p * q, "n": r * s}
    projections = project, output.dropping(spec.proj_drop)
    first, last = projections if spec.qkv_bias else [step.without_bias() for step in projections]
    middle = [split, softmax.dropping(spec.attn_drop), sum_context, apply_context]
    return Plan.of([unfold, first, *middle, last, fold], sizes, spec.itemsize, holds=("query", "key", "value"))
