"""Cross-attention on one page.

Letters: b batch, n query tokens, m key tokens of the other sequence, c channels, h heads, d head width (c = h·d),
g heads of keys and values, each for f heads of queries (h = g·f).
"""

from dataclasses import replace

from attnscope.attentions.cross.spec import CrossSpec
from attnscope.attentions.heads import letters
from attnscope.attentions.vit.steps import attend_of, by_steps, merge_of, output_of, share_heads
from attnscope.plan.plan import Plan
from attnscope.plan.step import Step, name_steps

project_queries = Step(
    "x: b n c -> queries: b n c",
    macs="b n c c",
    work={"bias": "b n c"},
    weights={"q.weight": "c c", "q.bias": "c"},
    saves=("x",),
    doc="q = x·Wq + b: what each token of this sequence asks for",
)
project_context = Step(
    "context: b m c -> kv: b m (2 g d)",
    macs="b m c 2 g d",
    work={"bias": "b m 2 g d"},
    weights={"kv.weight": "(2 g d) c", "kv.bias": "(2 g d)"},
    saves=("context",),
    doc="k, v = context·Wkv + b: the key and the value of each token of the other sequence, in one matmul",
)
split_queries = Step(
    "queries: b n (h d) -> q: b h n d",
    memory="view",
    doc="the queries' channels fall into heads; each head sees its own d of them",
)
split_context = Step(
    "kv: b m (2 g d) -> k: b g m d, v: b g m d",
    memory="view",
    doc="the keys' and the values' channels fall into heads",
)
name_steps(globals())


def plan(spec: CrossSpec) -> Plan:
    """The steps that this Spec runs, in their order."""
    b, n, m = spec.batch, spec.tokens, spec.keys
    sizes = {"b": b, "n": n, "m": m, **letters(spec.dim, spec.heads, spec.kv_heads)}
    attention = by_steps(spec, "b m 2 h d", one_query=n == 1) if spec.kernel == "eager" else [attend_of(spec)]
    projections = [project_queries, project_context]
    if not spec.qkv_bias:
        projections = [step.without_bias() for step in projections]
    shared = [share_heads] if spec.is_grouped else []
    # one query, one head, or heads of one channel lie as they should however they are seen; a fused kernel lays them so
    lie_so = not spec.heads_lie_apart or 1 in (n, spec.heads, spec.dim // spec.heads)
    split = replace(split_queries, passes=("queries",)) if lie_so else split_queries
    steps = [*projections, split, split_context, *shared, *attention, merge_of(spec), output_of(spec)]
    return Plan.of(steps, sizes, spec.itemsize)
