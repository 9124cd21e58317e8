"""Scaled dot-product attention on one page: the steps that all attentions share.

Letters: b batch, n query tokens, m key tokens, c channels, h heads, d head width (c = h·d). If heads share keys and values:
g heads of them, each for f heads of queries (h = g·f), and e channels of q, k and v. If the batch is one of windows, its
letter is spelled out: `score.spelled(b="(b r s)")`.
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
    doc="q, k, v = x·Wqkv + b: each token's query, key and value, in one matmul",
)
split_heads = Step(
    "qkv: b n (3 h d) -> q: b h n d, k: b h n d, v: b h n d",
    op=op.unbind,
    doc="the channels fall into heads; each head sees its own d of them",
)
project_grouped = Step(
    "x: b n c -> qkv: b n e",
    op=op.linear,
    weights={"qkv.weight": "e c", "qkv.bias": "e"},
    doc="q, k, v = x·Wqkv + b: fewer heads of keys and values than of queries, in one matmul",
)
split_grouped = Step(
    "qkv: b n e -> q: b h n d, k: b g n d, v: b g n d",
    op=op.split_heads,
    doc="the channels fall into heads: h of queries, g of keys and of values",
)
share_heads = Step(
    "k: b g m d, v: b g m d -> k: b (g f) m d, v: b (g f) m d",
    op=op.repeat_heads,
    doc="each head of keys and values is repeated for the f heads of queries that share it",
)
score = Step(
    "q: b h n d, k: b h m d -> scores: b h n m",
    op=op.matmul(scale=True),
    doc="S = q·kᵀ/√d: how much each token looks at each other one",
)
softmax = Step(
    "scores: b h n m -> weights: b h n m",
    op=op.softmax,
    doc="each query's scores become weights that sum to 1 (then dropout, in training)",
)
mix = Step(
    "weights: b h n m, v: b h m d -> heads: b h n d",
    op=op.matmul(),
    doc="each token becomes the weighted sum of the values it looks at",
)
attend = Step(
    "q: b h n d, k: b h m d, v: b h m d -> heads: b h n d",
    op=op.attention(keeps=True),
    doc="softmax(q·kᵀ/√d)·v in one fused kernel: score, softmax and mix, without keeping the scores",
)
merge_heads = Step(
    "heads: b h n d -> merged: b n (h d)",
    op=op.rearrange,
    doc="the heads' channels lie side by side again",
)
output = Step(
    "merged: b n c -> y: b n c",
    op=op.linear,
    weights={"proj.weight": "c c", "proj.bias": "c"},
    doc="y = merged·Wproj + b: what the heads found is mixed across channels",
)
name_steps(globals())

HELD = ("q", "k", "v")
"""Names of the tensors that a forward keeps in variables until it returns."""


def attention_of(spec: Headed) -> list[Step]:
    """Return the steps from queries, keys and values to what the heads found, by the kernel of the Spec."""
    if spec.kernel == "eager":
        return [score, softmax.dropping(spec.attn_drop), mix]
    is_known = spec.kernel in RECOMPUTING and not spec.attn_drop  # with dropout torch may take its math kernel
    own = attend if is_known else replace(attend, op=op.attention(keeps=False))
    return [fused(own, spec).dropping(spec.attn_drop)]


def fused(attend: Step, spec: Headed) -> Step:
    """Return the step of a fused kernel with the heads as the kernel of the Spec lays them."""
    return replace(attend, op=op.heads_apart(attend.op)) if spec.heads_lie_apart else attend
