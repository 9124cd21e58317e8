"""Steps of cross-attention.

Axis letters are those of `attnscope.attentions.steps`; the m key tokens are those of the other sequence.
"""

from attnscope.attentions.cross.spec import CrossSpec
from attnscope.attentions.heads import letters
from attnscope.attentions.steps import HELD, attention_of, merge_heads, output, share_heads
from attnscope.ops import recipes as op
from attnscope.plan.plan import Plan
from attnscope.plan.step import Step, name_steps

project_queries = Step(
    "x: b n c -> queries: b n (h d)",
    op=op.linear,
    weights={"q.weight": "(h d) c", "q.bias": "(h d)"},
    doc="q = x·Wq + b: project each token of this sequence to its query",
    why="the output has one token for each query",
)
project_context = Step(
    "context: b m c -> kv: b m (2 g d)",
    op=op.linear,
    weights={"kv.weight": "(2 g d) c", "kv.bias": "(2 g d)"},
    doc="k, v = context·Wkv + b: project each token of the other sequence to its key and value in one matmul",
    why="the other sequence is what the queries attend to",
)
split_queries = Step(
    "queries: b n (h d) -> q: b h n d",
    op=op.view,
    doc="split the query channels into h heads of d channels each",
    why="each head can attend to a different pattern; this is a view, which moves no data",
)
split_context = Step(
    "kv: b m (2 g d) -> k: b g m d, v: b g m d",
    op=op.unbind,
    doc="split the key and value channels into g heads of d channels each",
    why="each head can attend to a different pattern; this is a view, which moves no data",
)
name_steps(globals())


def plan(spec: CrossSpec) -> Plan:
    """Return the steps that this Spec runs, in order."""
    sizes = {
        "b": spec.batch,
        "n": spec.tokens,
        "m": spec.keys,
        **letters(spec.dim, spec.heads, spec.kv_heads),
    }
    projections = [project_queries, project_context]
    steps = [
        *(projections if spec.qkv_bias else [step.without_bias() for step in projections]),
        split_queries,
        split_context,
        *([share_heads] if spec.is_grouped else []),
        *attention_of(spec),
        merge_heads,
        output.dropping(spec.proj_drop),
    ]
    return Plan.of(steps, sizes, spec.itemsize, holds=HELD)
