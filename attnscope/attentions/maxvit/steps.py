"""Steps of MaxViT's block and grid attention.

Axis letters are those of `attnscope.attentions.swin.steps`, without padding: r s blocks down and across, p q sides of a
block. Grid attention only differs in the order of these letters. e is three head dimensions, 3d.
"""

from dataclasses import replace

from attnscope.attentions import steps as shared
from attnscope.attentions.heads import letters
from attnscope.attentions.maxvit.spec import MaxViTSpec
from attnscope.attentions.swin import steps as swin
from attnscope.ops import movement
from attnscope.ops import recipes as op
from attnscope.ops.recipes import Operands, Result
from attnscope.ops.tape import Tape
from attnscope.plan.plan import Plan
from attnscope.plan.step import Step, name_steps

TABLE = {"rel_pos.relative_position_bias_table": "(t u) h"}


def split_by_head(tape: Tape, given: Operands) -> Result:
    """Split the channels into heads, each with its query, key and value one after another."""
    b, h, n, d = given.shapes[0]
    apart = movement.transpose(tape, movement.view(tape, given.x, (b, n, h, 3 * d)), 1, 2)
    return movement.split(tape, apart, [d, d, d], axis=3)


partition = Step(
    "tokens: b (r p) (s q) c -> windows: (b r s) (p q) c",
    op=op.rearrange,
    doc="partition the grid into blocks of neighbouring tokens, each a short sequence",
    why="attention within blocks is linear in the number of tokens instead of quadratic",
)
partition_grid = Step(
    "tokens: b (p r) (q s) c -> windows: (b r s) (p q) c",
    op=op.rearrange,
    doc="collect the tokens at the same offset in each of P×P cells, each a short sequence",
    why="each token reaches the whole image, at the cost of a block",
)
project = replace(
    swin.project,
    pattern="windows: (b r s) n c -> qkv: (b r s) n (h e)",
    weights={"qkv.weight": "(h e) c", "qkv.bias": "(h e)"},
)
split_heads = replace(
    swin.split_heads,
    pattern="qkv: (b r s) n (h e) -> q: (b r s) h n d, k: (b r s) h n d, v: (b r s) h n d",
    op=split_by_head,
    doc="split the channels into h heads, and each head into its query, key and value of d channels",
)
score, softmax, mix, merge_heads, output = swin.score, swin.softmax, swin.mix, swin.merge_heads, swin.output
add_bias = replace(swin.add_bias, weights=TABLE)
attend = replace(swin.attend, weights=TABLE)
reverse = replace(swin.reverse, doc="merge the blocks into the grid: the inverse of partition")
reverse_grid = replace(
    swin.reverse,
    pattern="windows: (b r s) (p q) c -> tokens: b (p r) (q s) c",
    doc="return the tokens to their places: the inverse of partition_grid",
)
name_steps(globals())


def plan(spec: MaxViTSpec) -> Plan:
    """Return the steps that this Spec runs, in order."""
    (r, s), (p, q) = spec.counts, spec.partition
    sizes = {"b": spec.batch, "r": r, "s": s, "p": p, "q": q, "n": p * q, "m": p * q, "t": 2 * p - 1, "u": 2 * q - 1}
    sizes |= {**letters(spec.dim, spec.heads, None), "e": 3 * (spec.dim // spec.heads)}
    attention = [shared.scaled(score, spec), add_bias, softmax.dropping(spec.attn_drop), mix]
    steps = [
        partition_grid if spec.grid else partition,
        project if spec.qkv_bias else project.without_bias(),
        split_heads,
        *(attention if spec.kernel == "eager" else [shared.fused(attend, spec).dropping(spec.attn_drop)]),
        merge_heads,
        output.dropping(spec.proj_drop),
        reverse_grid if spec.grid else reverse,
    ]
    return Plan.of(steps, sizes, spec.itemsize, holds=shared.HELD)
