"""Steps of neighbourhood attention.

Axis letters are those of `attnscope.attentions.steps`, with n = y·x tokens and m = K² keys of each query. In addition: y
x grid of tokens; t u rows and columns of the bias table, 2K−1 each.
"""

from dataclasses import replace
from functools import cache
from math import nan

from attnscope.attentions import steps as shared
from attnscope.attentions.heads import letters
from attnscope.attentions.nat.spec import NATSpec
from attnscope.attentions.steps import HELD, merge_heads, output, project, softmax, split_heads
from attnscope.ops import elementwise, matmul, movement
from attnscope.ops import recipes as op
from attnscope.ops.recipes import Op, Operands, Result
from attnscope.ops.tape import Tape
from attnscope.plan.plan import Plan
from attnscope.plan.step import Step, name_steps


def gather_nearest(tape: Tape, given: Operands) -> Result:
    """Gather the m nearest tokens of each token."""
    return movement.gather(tape, given.x, given.shapes[0])


@cache  # plans of equal Specs are equal
def score_nearest(scale: float = nan) -> Op:
    """Return the operation that computes q·kᵀ·scale for the keys of each query."""

    def multiply(tape: Tape, given: Operands) -> Result:
        (q, near), (b, h, n, m) = given.inputs, given.shapes[0]
        rows = movement.view(tape, q, (b, h, n, 1, q.shape[-1]))
        return movement.view(tape, matmul.scaled_product(tape, rows, near, scale), (b, h, n, m))

    return multiply


def mix_nearest(tape: Tape, given: Operands) -> Result:
    """Compute weights·v for the values of each query."""
    (weights, near), (b, h, n, d) = given.inputs, given.shapes[0]
    rows = movement.view(tape, weights, (b, h, n, 1, weights.shape[-1]))
    return movement.view(tape, matmul.matmul(tape, rows, near), (b, h, n, d))


def add_offset_bias(tape: Tape, given: Operands) -> Result:
    """Add a bias for each key, gathered from a table by the offset of the key from the query."""
    _, h, n, m = given.x.shape
    (table,) = given.weights
    flat = movement.view(tape, table, (h, table.shape[1] * table.shape[2]))
    return elementwise.add(tape, given.x, movement.gather(tape, flat, (h, n, m)))


flatten = Step(
    "tokens: b y x c -> x: b (y x) c",
    op=op.view,
    doc="flatten the grid to a sequence, row by row",
    why="the projections take a sequence of tokens; this is a view, which moves no data",
)
gather_keys = Step(
    "k: b h n d -> near_keys: b h n m d",
    op=gather_nearest,
    doc="gather the K×K keys around each query; at a border the neighbourhood is pushed inward",
    why="each query has keys of its own, so that the keys are repeated up to K² times",
)
score = replace(
    shared.score,
    pattern="q: b h n d, near_keys: b h n m d -> scores: b h n m",
    op=score_nearest(),
    doc="S = q·kᵀ/√d: how much each query attends to each key of its neighbourhood",
)
add_bias = Step(
    "scores: b h n m -> scores: b h n m",
    op=add_offset_bias,
    weights={"rpb": "h t u"},
    doc="S + B: add each head's learned bias for the offset of the key from the query",
    why="attention itself ignores positions; the bias depends on the offset between query and key only",
)
gather_values = Step(
    "v: b h n d -> near_values: b h n m d",
    op=gather_nearest,
    doc="gather the K×K values around each query",
    why="each query has values of its own, like its keys",
)
mix = replace(shared.mix, pattern="weights: b h n m, near_values: b h n m d -> heads: b h n d", op=mix_nearest)
unflatten = Step(
    "y: b (y x) c -> tokens: b y x c",
    op=op.view,
    doc="reshape the sequence to the grid: the inverse of flatten",
    why="the next layer takes the grid of tokens",
)
name_steps(globals())


def plan(spec: NATSpec) -> Plan:
    """Return the steps that this Spec runs, in order."""
    (y, x), (p, q) = spec.resolution, spec.neighborhood
    sizes = {"b": spec.batch, "n": spec.tokens, "m": p * q, "y": y, "x": x, "t": 2 * p - 1, "u": 2 * q - 1}
    steps = [
        flatten,
        project if spec.qkv_bias else project.without_bias(),
        split_heads,
        gather_keys,
        replace(score, op=score_nearest(spec.score_scale)),
        *([add_bias] if spec.position_bias else []),
        softmax.dropping(spec.attn_drop),
        gather_values,
        mix,
        merge_heads,
        output.dropping(spec.proj_drop),
        unflatten,
    ]
    return Plan.of(steps, sizes | letters(spec.dim, spec.heads, None), spec.itemsize, holds=HELD)
