"""Steps of attention between channels.

Axis letters are those of `attnscope.attentions.steps`, except that m is the number of key channels of a head, m = d.
"""

from dataclasses import replace

from attnscope.attentions import steps as shared
from attnscope.attentions.heads import letters
from attnscope.attentions.steps import HELD, output, project, split_heads
from attnscope.attentions.xca.spec import XCASpec
from attnscope.ops import elementwise, matmul, movement
from attnscope.ops import recipes as op
from attnscope.ops.recipes import Operands, Result
from attnscope.ops.tape import Tape
from attnscope.plan.plan import Plan
from attnscope.plan.step import Step, name_steps


def tempered_matmul(tape: Tape, given: Operands) -> Result:
    """Compute q·kᵀ·τ over the tokens, with a learned temperature τ for each head."""
    q, k = given.inputs
    return elementwise.multiply(tape, matmul.matmul(tape, q, movement.transpose(tape, k)), given.weights[0])


def scaled_matmul(tape: Tape, given: Operands) -> Result:
    """Compute (k/√d)ᵀ·v over the tokens."""
    k, v = given.inputs
    return matmul.matmul(tape, movement.transpose(tape, elementwise.scale(tape, k)), v)


def transposed_matmul(tape: Tape, given: Operands) -> Result:
    """Compute weights·qᵀ."""
    weights, q = given.inputs
    return matmul.matmul(tape, weights, movement.transpose(tape, q))


split_channels = Step(
    "qkv: b n (3 h d) -> q: b h d n, k: b h d n, v: b h d n",
    op=op.unbind,
    doc="split the channels into h heads, with the channels of each head as rows",
    why="a query is a channel, whose vector has one number for each token",
)
normalize = Step(
    "q: b h d n, k: b h m n -> q: b h d n, k: b h m n",
    op=op.normalize,
    doc="normalize each channel of queries and keys to length 1 over the tokens",
    why="the scores become cosines, so that training is stable for any number of tokens",
)
score = Step(
    "q: b h d n, k: b h m n -> scores: b h d m",
    op=tempered_matmul,
    weights={"temperature": "h 1 1"},
    doc="S = q·kᵀ·τ: how much each channel attends to each channel of its head, with τ learned for each head",
    why="the map has d×d entries for any number of tokens; the sum runs over all tokens",
)
softmax = replace(
    shared.softmax,
    pattern="scores: b h d m -> weights: b h d m",
    doc="normalize each channel's scores to weights that sum to 1, then apply dropout in training",
    why="each output channel becomes an average of the value channels",
)
mix = Step(
    "weights: b h d m, v: b h m n -> heads: b h d n",
    op=op.matmul(),
    doc="compute the weighted sum of the value channels",
    why="information moves between channels here; tokens interact through the scores only",
)
score_channels = Step(
    "k: b h n d, v: b h n m -> scores: b h d m",
    op=scaled_matmul,
    doc="S = (k/√d)ᵀ·v: how much each key channel has in common with each value channel, over all tokens",
    why="the map has d×d entries for any number of tokens; the sum runs over all tokens",
)
mix_channels = Step(
    "weights: b h d m, q: b h n m -> heads: b h d n",
    op=transposed_matmul,
    doc="compute the weighted sum of the query channels",
    why="in DaViT the map of keys and values mixes the channels of the queries",
)
merge_channels = Step(
    "heads: b h d n -> merged: b n (h d)",
    op=op.view,
    doc="concatenate the channels of all heads, tokens as rows again",
    why="the output projection takes one vector for each token",
)
name_steps(globals())


def plan(spec: XCASpec) -> Plan:
    """Return the steps that this Spec runs, in order."""
    if spec.variant == "davit":
        attention = [split_heads, score_channels, softmax.dropping(spec.attn_drop), mix_channels]
    else:
        attention = [split_channels, normalize, score, softmax.dropping(spec.attn_drop), mix]
    steps = [
        project if spec.qkv_bias else project.without_bias(),
        *attention,
        merge_channels,
        output.dropping(spec.proj_drop),
    ]
    sizes = {"b": spec.batch, "n": spec.tokens, "m": spec.dim // spec.heads, **letters(spec.dim, spec.heads, None)}
    return Plan.of(steps, sizes, spec.itemsize, holds=HELD)
