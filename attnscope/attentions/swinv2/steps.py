"""Swin V2's attention on one page: Swin's, but for how a score comes about.

Letters: those of Swin's page; the rows of the bias table, t u, lie on a grid of distances.
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


def linear_with_two_biases(tape: Tape, given: Operands) -> Result:
    """x·Wᵀ + (b_q, 0, b_v): the biases are joined for each call, with zeros for the keys between them."""
    weight, *biases = given.weights
    if not biases:
        return matmul.linear(tape, given.x, weight)
    of_queries, of_values = biases
    of_keys = tape.external(of_values.shape)
    return matmul.linear(tape, given.x, weight, movement.cat(tape, [of_queries, of_keys, of_values], axis=0))


def sharpness(tape: Tape, logit_scale: Tensor) -> Tensor:
    """τ = exp(min(logit_scale, log 100)) of each head."""
    return elementwise.activate(tape, "exp", elementwise.clamp(tape, logit_scale), saves="output")


def sharpened_matmul(tape: Tape, given: Operands) -> Result:
    """(q·τ)·kᵀ: the queries are fewer numbers than the scores."""
    (q, k), tau = given.inputs, sharpness(tape, given.weights[0])
    return matmul.matmul(tape, elementwise.multiply(tape, q, tau), movement.transpose(tape, k))


def distance_mlp(tape: Tape, given: Operands) -> Result:
    """16·sigmoid(W₂·relu(W₁·x + b₁))."""
    table = elementwise.activate(tape, "sigmoid", two_layers(tape, given), saves="output")
    return elementwise.scale(tape, table)


def two_layers(tape: Tape, given: Operands) -> Tensor:
    """W₂·relu(W₁·x + b₁), the ReLU in place."""
    first, bias, second = given.weights
    hidden = elementwise.activate_(tape, "relu", matmul.linear(tape, given.x, first, bias))
    return matmul.linear(tape, hidden, second)


def attend_sharpened(masked: bool) -> Op:
    """softmax((q·τ)·kᵀ + B + mask)·v in one kernel, with B gathered from the table of distances."""

    def attend(tape: Tape, given: Operands) -> Result:
        q, k, v, table = given.inputs
        mask = swin.shift_mask(tape, given) if masked else None
        bias = op.window_bias(tape, table, (*q.shape[:-1], k.shape[2]), mask)
        sharp = elementwise.multiply(tape, q, sharpness(tape, given.weights[0]))
        return kernels.attention(tape, sharp, k, v, bias)

    return attend


project = replace(
    swin.project,
    op=linear_with_two_biases,
    weights={"qkv.weight": "(3 h d) c", "q_bias": "(h d)", "v_bias": "(h d)"},
    doc="q, k, v = x·Wqkv + b: a bias for the query and the value; the key has none",
)
project_grouped = replace(
    swin.project_grouped,
    op=linear_with_two_biases,
    weights={"qkv.weight": "e c", "q_bias": "(h d)", "v_bias": "(g d)"},
    doc="q, k, v = x·Wqkv + b: fewer heads of keys and values than of queries; the keys have no bias",
)
normalize = Step(
    "q: (b r s) h n d, k: (b r s) h m d -> q: (b r s) h n d, k: (b r s) h m d",
    op=op.normalize,
    doc="queries and keys are brought to length 1, so that their product is the cosine of the angle between them",
)
normalize_grouped = replace(
    normalize, pattern="q: (b r s) h n d, k: (b r s) g m d -> q: (b r s) h n d, k: (b r s) g m d"
)
score = Step(
    "q: (b r s) h n d, k: (b r s) h m d -> scores: (b r s) h n m",
    op=sharpened_matmul,
    weights={"logit_scale": "h 1 1"},
    doc="S = cos(q, k)·τ: each head learns how sharp it is, τ = exp(logit_scale), at most 100",
)
bias_mlp = Step(
    "coords: t u 2 -> table: t u h",
    op=distance_mlp,
    weights={"cpb_mlp.0.weight": "512 2", "cpb_mlp.0.bias": "512", "cpb_mlp.2.weight": "h 512"},
    constants=("coords",),
    doc="a small MLP makes the bias of each head from how far the key lies, on a logarithmic scale: 16·sigmoid(MLP)",
)
add_bias = Step(
    "scores: (b r s) h n m, table: t u h -> scores: (b r s) h n m",
    op=op.add_table_bias,
    doc="S + B: the bias for where the key lies, seen from the query",
)
attend = Step(
    "q: (b r s) h n d, k: (b r s) h m d, v: (b r s) h m d, table: t u h -> heads: (b r s) h n d",
    op=attend_sharpened(masked=False),
    weights={"logit_scale": "h 1 1"},
    doc="softmax(cos(q, k)·τ + B)·v in one fused kernel: score to mix, without keeping the scores",
)
name_steps(globals())


def plan(spec: SwinV2Spec) -> Plan:
    """Return the steps that this Spec runs, in their order: pad only where it pads, shift and mask only where it shifts."""
    heads = [project, swin.split_heads, normalize]
    if spec.is_grouped:  # the keys are brought to length 1 before they are repeated
        heads = [project_grouped, swin.split_grouped, normalize_grouped, swin.share_heads]
    if spec.kernel == "eager":
        return swin.in_windows(spec, heads, [score, bias_mlp, add_bias, *swin.attention_of(spec)])
    own = swin.masked(attend, attend_sharpened) if spec.windows.is_shifted else attend
    return swin.in_windows(spec, heads, [bias_mlp, shared.fused(own, spec)])
