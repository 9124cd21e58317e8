"""Swin's attention on one page.

Letters: b batch, y x grid of tokens as it came, r s windows down and across, p q window height and width (so r·p by s·q is
the grid with its padding), n query tokens and m key tokens of a window (both p·q), c channels, h heads, d head width
(c = h·d), t u rows of the bias table down and across (2p−1 and 2q−1); where heads share keys and values, g heads of them,
each for f heads of queries (h = g·f), and e channels of q, k and v.
"""

from dataclasses import replace

from attnscope.attentions.heads import letters
from attnscope.attentions.swin.spec import SwinSpec
from attnscope.attentions.vit import steps as vit
from attnscope.plan.plan import Plan
from attnscope.plan.step import Step, name_steps

pad = Step(
    "tokens: b y x c -> tokens: b (r p) (s q) c",
    doc="zeros at the bottom and on the right, up to whole windows",
)
shift = Step(
    "tokens: b (r p) (s q) c -> tokens: b (r p) (s q) c",
    doc="the grid rolls up and to the left, so that the windows straddle the borders of the last layer's",
)
partition = Step(
    "tokens: b (r p) (s q) c -> windows: (b r s) (p q) c",
    memory="rearrange",
    doc="the grid is cut into windows, and each becomes a short sequence of its own",
)
project = Step(
    "windows: (b r s) n c -> qkv: (b r s) n (3 c)",
    macs="b r s n c 3 c",
    work={"bias": "b r s n 3 c"},
    weights={"qkv.weight": "(3 c) c", "qkv.bias": "(3 c)"},
    saves=("windows",),
    doc="q, k, v = x·Wqkv + b: each token's query, key and value, in one matmul",
)
split_heads = Step(
    "qkv: (b r s) n (3 h d) -> q: (b r s) h n d, k: (b r s) h n d, v: (b r s) h n d",
    memory="view",
    doc="the channels fall into heads; each head sees its own d of them",
)
project_grouped = replace(
    project,
    pattern="windows: (b r s) n c -> qkv: (b r s) n e",
    macs="b r s n c e",
    work={"bias": "b r s n e"},
    weights={"qkv.weight": "e c", "qkv.bias": "e"},
    doc=vit.project_grouped.doc,
)
split_grouped = replace(
    vit.split_grouped,
    pattern="qkv: (b r s) n e -> q: (b r s) h n d, k: (b r s) g n d, v: (b r s) g n d",
)
share_heads = replace(
    vit.share_heads,
    pattern="k: (b r s) g m d, v: (b r s) g m d -> k: (b r s) (g f) m d, v: (b r s) (g f) m d",
)
score = Step(
    "q: (b r s) h n d, k: (b r s) h m d -> scores: (b r s) h n m",
    macs="b r s h n m d",
    work={"scale": "b r s h n m"},
    saves=("q", "k"),
    doc="S = q·kᵀ/√d: how much each token looks at each other one of its window",
)
add_bias = Step(
    "scores: (b r s) h n m -> scores: (b r s) h n m",
    work={"bias": "b r s h n m"},
    weights={"relative_position_bias_table": "(t u) h"},
    scratch=("h n m",),
    passes=("scores",),
    back="h n m",
    doc="S + B: each head's learned bias for where the key lies, seen from the query",
)
add_mask = Step(
    "scores: (b r s) h n m, mask: (r s) n m -> scores: (b r s) h n m",
    work={"mask": "b r s h n m"},
    constants=("mask",),
    passes=("scores",),
    doc="−∞ for tokens that only the roll brought together, 0 for neighbours",
)
softmax = Step(
    "scores: (b r s) h n m -> weights: (b r s) h n m",
    work={"softmax": "b r s h n m"},
    saves=("weights",),
    doc="each query's scores become weights that sum to 1 (then dropout, in training)",
)
mix = Step(
    "weights: (b r s) h n m, v: (b r s) h m d -> heads: (b r s) h n d",
    macs="b r s h n m d",
    saves=("weights", "v"),
    doc="each token becomes the weighted sum of the values it looks at",
)
attend = Step(
    "q: (b r s) h n d, k: (b r s) h m d, v: (b r s) h m d -> heads: (b r s) h n d",
    macs="2 b r s h n m d",
    work={"scale": "b r s h n m", "bias": "b r s h n m", "softmax": "b r s h n m"},
    weights={"relative_position_bias_table": "(t u) h"},
    fused=True,
    keeps=None,  # a learned bias takes one kernel or another, as the device has it
    doc="softmax(q·kᵀ/√d + B + mask)·v in one fused kernel: score, bias, mask, softmax and mix, without keeping the scores",
)
merge_heads = Step(
    "heads: (b r s) h n d -> merged: (b r s) n (h d)",
    memory="rearrange",
    doc="the heads' channels lie side by side again",
)
output = Step(
    "merged: (b r s) n c -> windows: (b r s) n c",
    macs="b r s n c c",
    work={"bias": "b r s n c"},
    weights={"proj.weight": "c c", "proj.bias": "c"},
    saves=("merged",),
    doc="y = merged·Wproj + b: what the heads found is mixed across channels",
)
reverse = Step(
    "windows: (b r s) (p q) c -> tokens: b (r p) (s q) c",
    memory="rearrange",
    doc="the windows go back to their places in the grid: the inverse of partition",
)
unshift = Step(
    "tokens: b (r p) (s q) c -> tokens: b (r p) (s q) c",
    doc="the grid rolls back: the inverse of shift",
)
crop = Step(
    "tokens: b (r p) (s q) c -> tokens: b y x c",
    doc="the padding is cut off: the inverse of pad",
)
name_steps(globals())


def plan(spec: SwinSpec) -> Plan:
    """The steps that this Spec runs, in their order: pad only where it pads, shift and mask only where it shifts."""
    shifted = spec.windows.is_shifted
    if spec.kernel == "eager":
        attention = [
            score_of(spec),
            add_bias,
            *([add_mask] if shifted else []),
            softmax.dropping(spec.attn_drop),
            mix_of(spec),
        ]
    else:
        masked = replace(attend, work={**attend.work, "mask": "b r s h n m"})
        attention = [masked if shifted else attend]
    heads = [project_grouped, split_grouped, share_heads] if spec.is_grouped else [project, split_heads]
    return in_windows(spec, heads, attention)


def is_strided(spec: SwinSpec) -> bool:
    """Whether matmul copies what the split into heads left strided: not where there is one window or one head."""
    (r, s), b = spec.windows.counts, spec.batch
    return b * r * s > 1 and spec.heads > 1


def score_of(spec: SwinSpec) -> Step:
    """The score with what matmul copies; keys that were shared are copies already."""
    if not is_strided(spec):
        return score
    queries = score.copying("q")
    return queries if spec.is_grouped else queries.copying("k", transposes="(b r s) m 3 h d")


def mix_of(spec: SwinSpec) -> Step:
    """The weighted sum with what matmul copies; values that were shared are copies already."""
    if not is_strided(spec):
        return mix
    mixed = replace(mix, copied_back="b r s h n d")
    return mixed if spec.is_grouped else mixed.copying("v")


def in_windows(spec: SwinSpec, heads: list[Step], attention: list[Step]) -> Plan:
    """The steps between the cut into windows and its inverse: how q, k and v come about, and what is done with them."""
    grid = spec.windows
    (r, s), (p, q), (y, x), b = grid.counts, spec.window, spec.resolution, spec.batch
    sizes = {"b": b, "y": y, "x": x, "r": r, "s": s, "p": p, "q": q, "n": p * q, "m": p * q}
    sizes |= {"t": 2 * p - 1, "u": 2 * q - 1, **letters(spec.dim, spec.heads, spec.kv_heads)}

    # a fused kernel lays the heads side by side
    merge = merge_heads if spec.heads_lie_apart else replace(merge_heads, memory="view", passes=("heads",))
    # a roll along both axes makes two passes, with a whole grid between them
    passes = ("b r p s q c",) if all(grid.roll) else ()
    rolled = [replace(step, scratch=passes, back=" ".join(passes)) for step in (shift, unshift)]
    return Plan.of(
        [
            *([pad] if grid.is_padded else []),
            *(rolled[:1] if grid.is_shifted else []),
            partition,
            *(heads if spec.qkv_bias else [step.without_bias() for step in heads]),
            *attention,
            merge,
            output.dropping(spec.proj_drop),
            reverse,
            *(rolled[1:] if grid.is_shifted else []),
            *([crop] if grid.is_padded else []),
        ],
        sizes,
        spec.itemsize,
    )
