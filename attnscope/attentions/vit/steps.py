"""Steps of ViT's attention.

Axis letters are those of `attnscope.attentions.steps`; the number of key tokens m is that of query tokens n.
"""

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
from attnscope.attentions.vit.spec import ViTSpec
from attnscope.plan.plan import Plan


def plan(spec: ViTSpec) -> Plan:
    """Return the steps that this Spec runs, in order."""
    n = spec.sequence
    sizes = {"b": spec.batch, "n": n, "m": n, **letters(spec.dim, spec.heads, spec.kv_heads)}
    projection, heads = (project_grouped, [split_grouped, share_heads]) if spec.is_grouped else (project, [split_heads])
    steps = [
        projection if spec.qkv_bias else projection.without_bias(),
        *heads,
        *attention_of(spec),
        merge_heads,
        output.dropping(spec.proj_drop),
    ]
    return Plan.of(steps, sizes, spec.itemsize, holds=HELD)
