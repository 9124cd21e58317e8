"""Steps of QK-norm attention."""

from attnscope.attentions.heads import letters
from attnscope.attentions.steps import (
    HELD,
    attention_of,
    merge_heads,
    output,
    project,
    project_grouped,
    share_heads,
    split_grouped,
    split_heads,
)
from attnscope.ops import recipes as op
from attnscope.plan.plan import Plan
from attnscope.plan.step import Step, name_steps

from .spec import QKNormSpec

normalize_queries = Step(
    "q: b h n d -> q: b h n d",
    op=op.layer_norm,
    weights={"q_norm.weight": "d", "q_norm.bias": "d"},
    doc="q = Norm(q): normalize each head's query to mean 0 and variance 1",
    why="bounded scores keep large models stable in training",
)
normalize_keys = Step(
    "k: b h m d -> k: b h m d",
    op=op.layer_norm,
    weights={"k_norm.weight": "d", "k_norm.bias": "d"},
    doc="k = Norm(k): normalize each head's key to mean 0 and variance 1, which bounds the scores",
    why="bounded scores keep large models stable in training",
)
name_steps(globals())


def plan(spec: QKNormSpec) -> Plan:
    sizes = {"b": spec.batch, "n": spec.tokens, "m": spec.tokens}
    first = project_grouped if spec.is_grouped else project
    split = [split_grouped, share_heads] if spec.is_grouped else [split_heads]
    steps = [
        first if spec.qkv_bias else first.without_bias(),
        *split,
        normalize_queries,
        normalize_keys,
        *attention_of(spec),
        merge_heads,
        output.dropping(spec.proj_drop),
    ]
    return Plan.of(steps, sizes | letters(spec.dim, spec.heads, spec.kv_heads), spec.itemsize, HELD)
