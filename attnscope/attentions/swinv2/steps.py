"""Steps of Swin V2's attention: those of Swin, except for the scores and the position bias.

Axis letters are those of `attnscope.attentions.swin.steps`; the rows of the bias table, t u, are a grid of distances.
"""

from dataclasses import replace

from attnscope.attentions import steps as shared
from attnscope.attentions.swin import steps as swin
from attnscope.attentions.swinv2.spec import SwinV2Spec
from attnscope.ops import attention as kernels
from attnscope.ops import elementwise, matmul, movement
from attnscope.ops import recipes as op
from attnscope.ops.recipes import Op, Operands, Result
from attnscope.ops.tape import Tape
from attnscope.ops.tensor import Tensor
from attnscope.plan.plan import Plan
from attnscope.plan.step import Step, name_steps


def sharpness(tape: Tape, logit_scale: Tensor) -> Tensor:
    """Compute τ = exp(min(logit_scale, log 100)) of each head."""
    return elementwise.activate(tape, "exp", elementwise.clamp(tape, logit_scale), saves="output")


def sharpened_matmul(tape: Tape, given: Operands) -> Result:
    """Compute (q·τ)·kᵀ, with τ applied to q because q has fewer elements than the scores."""
    (q, k), tau = given.inputs, sharpness(tape, given.weights[0])
    return matmul.matmul(tape, elementwise.multiply(tape, q, tau), movement.transpose(tape, k))


def distance_mlp(tape: Tape, given: Operands) -> Result:
    """Compute 16·sigmoid(W₂·relu(W₁·x + b₁))."""
    table = elementwise.activate(tape, "sigmoid", two_layers(tape, given), saves="output")
    return elementwise.scale(tape, table)


def two_layers(tape: Tape, given: Operands) -> Tensor:
    """Compute W₂·relu(W₁·x + b₁), with an in-place ReLU."""
    first, bias, second = given.weights
    hidden = elementwise.activate_(tape, "relu", matmul.linear(tape, given.x, first, bias))
    return matmul.linear(tape, hidden, second)


def attend_sharpened(masked: bool) -> Op:
    """Return the operation softmax((q·τ)·kᵀ + B + mask)·v in one kernel, with B gathered from the bias table."""

    def attend(tape: Tape, given: Operands) -> Result:
        q, k, v, table = given.inputs
        mask = swin.shift_mask(tape, given) if masked else None
        bias = op.window_bias(tape, table, (*q.shape[:-1], k.shape[2]), mask)
        sharp = elementwise.multiply(tape, q, sharpness(tape, given.weights[0]))
        return kernels.attention(tape, sharp, k, v, bias)

    return attend


project = replace(
    shared.without_key_bias(swin.project),
    doc="q, k, v = x·Wqkv + b: project each token in one matmul, with a bias for query and value only",
    why="with cosine attention, a bias of the keys is not used",
)
project_grouped = replace(
    shared.without_key_bias(swin.project_grouped),
    doc="q, k, v = x·Wqkv + b: project each token to h query heads and g key/value heads, without a bias for the keys",
    why=swin.project_grouped.why,
)
normalize = Step(
    "q: (b r s) h n d, k: (b r s) h m d -> q: (b r s) h n d, k: (b r s) h m d",
    op=op.normalize,
    doc="normalize queries and keys to length 1, so that q·kᵀ is the cosine of the angle between them",
    why="cosines are bounded, which keeps large models stable in training",
)
normalize_grouped = replace(
    normalize, pattern="q: (b r s) h n d, k: (b r s) g m d -> q: (b r s) h n d, k: (b r s) g m d"
)
score = Step(
    "q: (b r s) h n d, k: (b r s) h m d -> scores: (b r s) h n m",
    op=sharpened_matmul,
    weights={"logit_scale": "h 1 1"},
    doc="S = cos(q, k)·τ: multiply the cosines by each head's learned scale, τ = exp(logit_scale), at most 100",
    why="each head learns how sharp its attention is",
)
bias_mlp = Step(
    "coords: t u 2 -> table: t u h",
    op=distance_mlp,
    weights={"cpb_mlp.0.weight": "512 2", "cpb_mlp.0.bias": "512", "cpb_mlp.2.weight": "h 512"},
    constants=("coords",),
    doc="B = 16·sigmoid(MLP(distance)): compute each head's bias from the distance to the key on a logarithmic scale",
    why="a function of the distance extends to window sizes that training did not use",
)
add_bias = Step(
    "scores: (b r s) h n m, table: t u h -> scores: (b r s) h n m",
    op=op.add_table_bias,
    doc="S + B: add each head's bias for the key's position relative to the query",
    why="attention itself ignores positions; the bias depends on the offset between query and key only",
)
attend = Step(
    "q: (b r s) h n d, k: (b r s) h m d, v: (b r s) h m d, table: t u h -> heads: (b r s) h n d",
    op=attend_sharpened(masked=False),
    weights={"logit_scale": "h 1 1"},
    doc="softmax(cos(q, k)·τ + B)·v in one fused kernel: score to mix, without storing the scores",
    why="the scores never go to memory, which saves time and memory",
)
name_steps(globals())


def plan(spec: SwinV2Spec) -> Plan:
    """Return the steps that this Spec runs, in order; padding, shift and mask only if the grid needs them."""
    heads = [project, swin.split_heads, normalize]
    if spec.is_grouped:  # the keys are normalized before they are repeated
        heads = [project_grouped, swin.split_grouped, normalize_grouped, swin.share_heads]
    if spec.kernel == "eager":
        return swin.on_grid(spec, swin.in_windows(spec, heads, [score, bias_mlp, add_bias, *swin.attention_of(spec)]))
    own = swin.masked(attend, attend_sharpened) if spec.windows.is_shifted else attend
    return swin.on_grid(spec, swin.in_windows(spec, heads, [bias_mlp, shared.fused(own, spec)]))
