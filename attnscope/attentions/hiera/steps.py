"""Steps of mask unit attention.

Axis letters:

- b batch; r s mask units down and across.
- p q queries of a unit, down and across; i j sides of the cell of tokens of one query.
- The grid is therefore r·p·i by s·q·j.
- n = p·q queries and m = i·j·p·q keys of a unit.
- c input channels; o = h·d channels of queries, keys, values and output.
"""

from dataclasses import replace

from attnscope.attentions import steps as shared
from attnscope.attentions.hiera.spec import HieraSpec
from attnscope.attentions.swin.steps import WINDOWS
from attnscope.ops import movement, reduction
from attnscope.ops import recipes as op
from attnscope.ops.recipes import Operands, Result
from attnscope.ops.tape import Tape
from attnscope.plan.plan import Plan
from attnscope.plan.step import Step, name_steps


def largest(tape: Tape, given: Operands) -> Result:
    """Return the maximum of the tokens of each cell, which are the slowest index of a unit."""
    (b, h, m, d), n = given.x.shape, given.shapes[0][2]
    return reduction.maximum(tape, movement.view(tape, given.x, (b, h, m // n, n, d)), 2)


partition = Step(
    "tokens: b (r p i) (s q j) c -> units: (b r s) (i j p q) c",
    op=op.rearrange,
    doc="partition the grid into mask units, with the tokens of each cell at a fixed stride",
    why="attention within units is linear in the number of tokens; the order makes pooling a reduction of one axis",
)
project = Step(
    "units: (b r s) m c -> qkv: (b r s) m (3 h d)",
    op=op.linear,
    weights={"qkv.weight": "(3 h d) c", "qkv.bias": "(3 h d)"},
    doc="q, k, v = x·Wqkv + b: project each token to its query, key and value in one matmul",
    why="a block that pools also widens, so that the projection has more channels than its input",
)
split_heads = replace(
    shared.split_heads,
    pattern="qkv: (b r s) m (3 h d) -> q: (b r s) h m d, k: (b r s) h m d, v: (b r s) h m d",
)
pool_queries = Step(
    "q: (b r s) h (i j p q) d -> q: (b r s) h (p q) d",
    op=largest,
    doc="take the maximum of the queries of each cell",
    why="fewer queries reduce the grid for the next stage, while keys and values keep all tokens",
)
score, softmax, mix = (step.spelled(**WINDOWS) for step in (shared.score, shared.softmax, shared.mix))
attend, merge_heads = shared.attend.spelled(**WINDOWS), shared.merge_heads.spelled(**WINDOWS)
output = replace(
    shared.output,
    pattern="merged: (b r s) n o -> units: (b r s) n o",
    weights={"proj.weight": "o o", "proj.bias": "o"},
)
reverse = Step(
    "units: (b r s) (p q) o -> tokens: b (r p) (s q) o",
    op=op.rearrange,
    doc="merge the units into the grid of queries: the inverse of partition",
    why="the next layer takes the grid of tokens",
)
name_steps(globals())


def plan(spec: HieraSpec) -> Plan:
    """Return the steps that this Spec runs, in order; without a stride, queries are not pooled."""
    units, stride, d = spec.units, spec.q_stride, spec.out_dim // spec.heads
    (r, s), (p, q) = (
        [side // part for side, part in zip(spec.resolution, units.unit, strict=True)],
        [part // stride for part in units.unit],
    )
    sizes = {"b": spec.batch, "r": r, "s": s, "p": p, "q": q, "i": stride, "j": stride, "n": p * q, "m": units.keys}
    sizes |= {"c": spec.dim, "o": spec.out_dim, "h": spec.heads, "d": d}
    fused = shared.attention_of(spec)[0]
    eager = [shared.scaled(score, spec), softmax.dropping(spec.attn_drop), mix]
    attention = eager if spec.kernel == "eager" else [replace(attend, op=fused.op)]
    steps = [
        partition,
        project if spec.qkv_bias else project.without_bias(),
        split_heads,
        *([pool_queries] if stride > 1 else []),
        *attention,
        merge_heads,
        output.dropping(spec.proj_drop),
        reverse,
    ]
    return Plan.of(steps, sizes, spec.itemsize, holds=shared.HELD)
