"""Steps of scaled dot-product attention that all attentions share.

Axis letters:

- b batch; n query tokens; m key tokens; c embedding dimension; h heads; d head dimension, c = h·d.
- With shared keys and values: g key/value heads; f query heads for each of them, h = g·f; e total dimension of q, k
  and v.

If the batch consists of windows, `spelled` replaces its letter: `score.spelled(b="(b r s)")`.
"""

from dataclasses import replace

from attnscope.attentions.heads import Headed
from attnscope.ops import recipes as op
from attnscope.ops.kernels import RECOMPUTING
from attnscope.plan.step import Step, name_steps

project = Step(
    "x: b n c -> qkv: b n (3 h d)",
    op=op.linear,
    weights={"qkv.weight": "(3 h d) c", "qkv.bias": "(3 h d)"},
    doc="q, k, v = x·Wqkv + b: project each token to its query, key and value in one matmul",
    why="one large matmul is faster than three small ones",
)
split_heads = Step(
    "qkv: b n (3 h d) -> q: b h n d, k: b h n d, v: b h n d",
    op=op.unbind,
    doc="split the channels into h heads of d channels each",
    why="each head can attend to a different pattern; this is a view, which moves no data",
)
project_grouped = Step(
    "x: b n c -> qkv: b n e",
    op=op.linear,
    weights={"qkv.weight": "e c", "qkv.bias": "e"},
    doc="q, k, v = x·Wqkv + b: project each token to h query heads and g key/value heads in one matmul",
    why="fewer key/value heads make the key/value cache and its projection smaller",
)
split_grouped = Step(
    "qkv: b n e -> q: b h n d, k: b g n d, v: b g n d",
    op=op.split_heads,
    doc="split the channels into h query heads, g key heads and g value heads",
    why="each head can attend to a different pattern; this is a view, which moves no data",
)
share_heads = Step(
    "k: b g m d, v: b g m d -> k: b (g f) m d, v: b (g f) m d",
    op=op.repeat_heads,
    doc="repeat each key/value head for the f query heads that share it",
    why="the kernels expect as many key/value heads as query heads",
)
score = Step(
    "q: b h n d, k: b h m d -> scores: b h n m",
    op=op.scaled_matmul(),
    doc="S = q·kᵀ/√d: how much each query attends to each key",
    why="√d keeps the variance of the scores near 1, so that softmax does not saturate",
)
softmax = Step(
    "scores: b h n m -> weights: b h n m",
    op=op.softmax,
    doc="normalize each query's scores to weights that sum to 1, then apply dropout in training",
    why="the weights of a query become comparable, and the output an average",
)
mix = Step(
    "weights: b h n m, v: b h m d -> heads: b h n d",
    op=op.matmul(),
    doc="compute the weighted sum of the values that each query attends to",
    why="this is where information moves between tokens",
)
attend = Step(
    "q: b h n d, k: b h m d, v: b h m d -> heads: b h n d",
    op=op.attention(keeps=True),
    doc="softmax(q·kᵀ/√d)·v in one fused kernel: score, softmax and mix, without storing the scores",
    why="the n×m scores never go to memory, which saves time and memory",
)
merge_heads = Step(
    "heads: b h n d -> merged: b n (h d)",
    op=op.rearrange,
    doc="concatenate the channels of all heads",
    why="the output projection takes one vector for each token",
)
output = Step(
    "merged: b n c -> y: b n c",
    op=op.linear,
    weights={"proj.weight": "c c", "proj.bias": "c"},
    doc="y = merged·Wproj + b: mix the outputs of the heads across channels",
    why="heads do not see each other before this step",
)
name_steps(globals())


HELD = ("q", "k", "v")
"""Names of the tensors that a forward stores in local variables until it returns."""


def without_key_bias(project: Step) -> Step:
    """Return a projection with separate biases of queries and values, and none of the keys."""
    width = "(h d)" if project.weights["qkv.bias"] == "(3 h d)" else "(g d)"
    return replace(
        project,
        op=op.linear_without_key_bias,
        weights={"qkv.weight": project.weights["qkv.weight"], "q_bias": "(h d)", "v_bias": width},
        doc=f"{project.doc}; k has no bias",
        why="a bias of k adds one number to all scores of a query, which softmax cancels",
    )


def attention_of(spec: Headed) -> list[Step]:
    """Return the steps from queries, keys and values to the output of the heads, for the kernel of the Spec."""
    if spec.kernel == "eager":
        return [scaled(score, spec), softmax.dropping(spec.attn_drop), mix]
    recomputes = spec.kernel in RECOMPUTING and not spec.attn_drop  # with dropout, torch may select its math kernel
    own = attend if recomputes else replace(attend, op=op.attention(keeps=False))
    return [fused(own, spec).dropping(spec.attn_drop)]


def scaled(score: Step, spec: Headed) -> Step:
    """Return the step of the scores, with the scale of the Spec."""
    return replace(score, op=op.scaled_matmul(spec.score_scale))


def fused(attend: Step, spec: Headed) -> Step:
    """Return the step of a fused kernel, with the memory layout that the kernel of the Spec gives the heads."""
    return replace(attend, op=op.heads_apart(attend.op)) if spec.heads_lie_apart else attend
