"""ViT's attention on one page.

Letters: b batch, n query tokens, m key tokens (as many), c channels, h heads, d head width (c = h·d);
where heads share keys and values, g heads of them, each for f heads of queries (h = g·f), and e channels of q, k and v.
"""

from dataclasses import replace

from attnscope.attentions.heads import Headed, letters
from attnscope.attentions.spec import Spec
from attnscope.attentions.vit.spec import ViTSpec
from attnscope.ops.kernels import RECOMPUTING
from attnscope.plan.plan import Plan
from attnscope.plan.step import Step, name_steps

project = Step(
    "x: b n c -> qkv: b n (3 c)",
    macs="b n c 3 c",
    work={"bias": "b n 3 c"},
    weights={"qkv.weight": "(3 c) c", "qkv.bias": "(3 c)"},
    saves=("x",),
    doc="q, k, v = x·Wqkv + b: each token's query, key and value, in one matmul",
)
split_heads = Step(
    "qkv: b n (3 h d) -> q: b h n d, k: b h n d, v: b h n d",
    memory="view",
    doc="the channels fall into heads; each head sees its own d of them",
)
project_grouped = replace(
    project,
    pattern="x: b n c -> qkv: b n e",
    macs="b n c e",
    work={"bias": "b n e"},
    weights={"qkv.weight": "e c", "qkv.bias": "e"},
    doc="q, k, v = x·Wqkv + b: fewer heads of keys and values than of queries, in one matmul",
)
split_grouped = Step(
    "qkv: b n e -> q: b h n d, k: b g n d, v: b g n d",
    memory="view",
    doc="the channels fall into heads: h of queries, g of keys and of values",
)
share_heads = Step(
    "k: b g m d, v: b g m d -> k: b (g f) m d, v: b (g f) m d",
    doc="each head of keys and values is repeated for the f heads of queries that share it",
)
score = Step(
    "q: b h n d, k: b h m d -> scores: b h n m",
    macs="b h n m d",
    work={"scale": "b h n m"},
    saves=("q", "k"),
    doc="S = q·kᵀ/√d: how much each token looks at each other one",
)
softmax = Step(
    "scores: b h n m -> weights: b h n m",
    work={"softmax": "b h n m"},
    saves=("weights",),
    doc="each query's scores become weights that sum to 1 (then dropout, in training)",
)
mix = Step(
    "weights: b h n m, v: b h m d -> heads: b h n d",
    macs="b h n m d",
    saves=("weights", "v"),
    doc="each token becomes the weighted sum of the values it looks at",
)
attend = Step(
    "q: b h n d, k: b h m d, v: b h m d -> heads: b h n d",
    macs="2 b h n m d",
    work={"scale": "b h n m", "softmax": "b h n m"},
    fused=True,
    saves=("q", "k", "v", "heads"),
    keeps_sums="b h n",
    doc="softmax(q·kᵀ/√d)·v in one fused kernel: score, softmax and mix, without keeping the scores",
)
merge_heads = Step(
    "heads: b h n d -> merged: b n (h d)",
    memory="rearrange",
    doc="the heads' channels lie side by side again",
)
output = Step(
    "merged: b n c -> y: b n c",
    macs="b n c c",
    work={"bias": "b n c"},
    weights={"proj.weight": "c c", "proj.bias": "c"},
    saves=("merged",),
    doc="y = merged·Wproj + b: what the heads found is mixed across channels",
)
name_steps(globals())


def merge_of(spec: Spec) -> Step:
    """Merging the heads of what a kernel made: a view where it laid them side by side."""
    return merge_heads if spec.heads_lie_apart else replace(merge_heads, memory="view", passes=("heads",))


def output_of(spec: Spec) -> Step:
    """The output projection, and the dropout behind it."""
    return output.dropping(spec.proj_drop)


def attend_of(spec: Spec) -> Step:
    """The fused kernel; what those keep that do not compute the scores anew is their own."""
    own = attend if spec.kernel in RECOMPUTING else replace(attend, saves=(), keeps=None)
    return own.dropping(spec.attn_drop)


def by_steps(spec: Headed, keys: str = "b m 3 h d", one_query: bool = False) -> list[Step]:
    """Score, softmax and mix, with what matmul copies: operands that the split into heads left strided.

    Nothing is copied where there is but one batch or one head, and heads that were shared are copies already.

    Args:
        spec: an attention of all tokens.
        keys: the tensor in which the keys lie.
        one_query: whether the queries are one token, which lies alone.
    """
    scored, mixed = score, mix
    if spec.batch > 1 and spec.heads > 1:
        scored = scored if one_query else scored.copying("q")
        mixed = replace(mixed, copied_back="b h n d")
        if not spec.is_grouped:
            scored, mixed = scored.copying("k", transposes=keys), mixed.copying("v")
    return [scored, softmax.dropping(spec.attn_drop), mixed]


def plan(spec: ViTSpec) -> Plan:
    """The steps that this Spec runs, in their order."""
    n = spec.sequence
    sizes = {"b": spec.batch, "n": n, "m": n, **letters(spec.dim, spec.heads, spec.kv_heads)}
    projection, heads = (project_grouped, [split_grouped, share_heads]) if spec.is_grouped else (project, [split_heads])
    attention = by_steps(spec) if spec.kernel == "eager" else [attend_of(spec)]
    return Plan.of(
        [
            projection if spec.qkv_bias else projection.without_bias(),
            *heads,
            *attention,
            merge_of(spec),
            output_of(spec),
        ],
        sizes,
        spec.itemsize,
    )
