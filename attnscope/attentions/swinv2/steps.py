"""Swin V2's attention on one page: Swin's, but for how a score comes about.

Letters: those of Swin's page; the rows of the bias table, t u, lie on a grid of distances.
"""

from dataclasses import replace

from attnscope.attentions.swin import steps as swin
from attnscope.attentions.swinv2.spec import SwinV2Spec
from attnscope.plan.plan import Plan
from attnscope.plan.step import Step, name_steps

project = replace(
    swin.project,
    weights={"qkv.weight": "(3 c) c", "q_bias": "c", "v_bias": "c"},
    leaves="c",
    doc="q, k, v = x·Wqkv + b: a bias for the query and the value; the key has none",
)
project_grouped = replace(
    swin.project_grouped,
    weights={"qkv.weight": "e c", "q_bias": "c", "v_bias": "(g d)"},
    leaves="g d",
    doc="q, k, v = x·Wqkv + b: fewer heads of keys and values than of queries; the keys have no bias",
)
normalize = Step(
    "q: (b r s) h n d, k: (b r s) h m d -> q: (b r s) h n d, k: (b r s) h m d",
    work={"normalize": "b r s h n d + b r s h m d"},
    scratch=("b r s h n",),
    saves=("q", "k"),
    keeps="2 b r s h n + 2 b r s h m",
    back="3 b r s h n d",
    doc="queries and keys are brought to length 1, so that their product is the cosine of the angle between them",
)
normalize_grouped = replace(
    normalize,
    pattern="q: (b r s) h n d, k: (b r s) g m d -> q: (b r s) h n d, k: (b r s) g m d",
    work={"normalize": "b r s h n d + b r s g m d"},
    keeps="2 b r s h n + 2 b r s g m",
)
score = Step(
    "q: (b r s) h n d, k: (b r s) h m d -> scores: (b r s) h n m",
    macs="b r s h n m d",
    work={"gain": "b r s h n d"},
    weights={"logit_scale": "h 1 1"},
    scratch=("h + b r s h n d",),
    saves=("q", "k"),
    keeps="h + b r s h n d",
    back="- h",
    doc="S = cos(q, k)·τ: each head learns how sharp it is, τ = exp(logit_scale), at most 100",
)
bias_mlp = Step(
    "coords: t u 2 -> table: t u h",
    macs="t u 2 512 + t u 512 h",
    work={"bias": "t u 512", "relu": "t u 512", "sigmoid": "t u h", "scale": "t u h"},
    weights={"cpb_mlp.0.weight": "512 2", "cpb_mlp.0.bias": "512", "cpb_mlp.2.weight": "h 512"},
    scratch=("t u 512",),
    keeps="t u 512 + t u h",
    back="4 t u 512 - 2 t u h - 3 512",
    constants=("coords",),
    doc="a small MLP makes the bias of each head from how far the key lies, on a logarithmic scale: 16·sigmoid(MLP)",
)
add_bias = Step(
    "scores: (b r s) h n m, table: t u h -> scores: (b r s) h n m",
    work={"bias": "b r s h n m"},
    scratch=("h n m",),
    passes=("scores",),
    back="h n m",
    doc="S + B: the bias for where the key lies, seen from the query",
)
attend = Step(
    "q: (b r s) h n d, k: (b r s) h m d, v: (b r s) h m d, table: t u h -> heads: (b r s) h n d",
    macs="2 b r s h n m d",
    work={"gain": "b r s h n d", "bias": "b r s h n m", "softmax": "b r s h n m"},
    weights={"logit_scale": "h 1 1"},
    fused=True,
    keeps=None,
    doc="softmax(cos(q, k)·τ + B + mask)·v in one fused kernel: score to mix, without keeping the scores",
)
name_steps(globals())


def plan(spec: SwinV2Spec) -> Plan:
    """The steps that this Spec runs, in their order: pad only where it pads, shift and mask only where it shifts."""
    shifted = spec.windows.is_shifted
    if spec.kernel == "eager":
        attention = [
            score_of(spec),
            bias_mlp,
            add_bias,
            *([swin.add_mask] if shifted else []),
            swin.softmax.dropping(spec.attn_drop),
            swin.mix_of(spec),
        ]
    else:
        masked = replace(attend, work={**attend.work, "mask": "b r s h n m"})
        attention = [bias_mlp, masked if shifted else attend]
    projection, *heads = [project, swin.split_heads, normalize]
    if spec.is_grouped:  # the keys are brought to length 1 before they are repeated
        projection, *heads = [project_grouped, swin.split_grouped, normalize_grouped, swin.share_heads]
    if spec.qkv_bias:  # its parts are joined for each call
        projection = replace(projection, scratch=("e",))
    return swin.in_windows(spec, [projection, *heads], attention)


def score_of(spec: SwinV2Spec) -> Step:
    """The score with what matmul copies: the sharpened queries, and the keys unless they were shared.

    A window of one token leaves nothing strided.
    """
    if not swin.is_strided(spec) or spec.window == (1, 1):
        return score
    of_queries = replace(score, scratch=("h + 2 b r s h n d",))
    return of_queries if spec.is_grouped else of_queries.copying("k", transposes="(b r s) m 1 h d")
