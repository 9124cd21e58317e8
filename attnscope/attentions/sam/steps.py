"""Steps of attention with decomposed relative positions.

Axis letters are those of `attnscope.attentions.swin.steps`, with i j rows and columns of keys in a window, m = i·j. In
global attention the window is the whole grid, r = s = 1.
"""

from dataclasses import replace

from attnscope.attentions import steps as shared
from attnscope.attentions.heads import letters
from attnscope.attentions.sam.spec import SAMSpec
from attnscope.attentions.swin import steps as swin
from attnscope.ops import attention as kernels
from attnscope.ops import elementwise, matmul, movement
from attnscope.ops import recipes as op
from attnscope.ops.recipes import Operands, Result
from attnscope.ops.tape import Tape
from attnscope.ops.tensor import Tensor
from attnscope.plan.plan import Plan
from attnscope.plan.step import Step, name_steps


def along(axis: int) -> op.Op:
    """Return the operation that multiplies queries by the vectors of the distances to the keys along an axis."""

    def multiply(tape: Tape, given: Operands) -> Result:
        b, h, _, d = given.x.shape
        p, q, keys = given.shapes[0][2:]
        side = (p, q)[axis]
        vectors = movement.transpose(tape, movement.gather(tape, given.weights[0], (side, keys, d)))
        grid = movement.view(tape, given.x, (b, h, p, q, d))
        if axis:
            grid = movement.transpose(tape, grid, 2, 3)
        made = matmul.matmul(tape, grid, movement.view(tape, vectors, (1, 1, side, d, keys)))
        return movement.transpose(tape, made, 2, 3) if axis else made

    return multiply


def outer_sum(tape: Tape, rows: Tensor, columns: Tensor) -> Tensor:
    """Return the bias of each key, the sum of that of its row and that of its column: (b, h, n, m)."""
    b, h, p, q, i = rows.shape
    j = columns.shape[-1]
    down, across = movement.view(tape, rows, (b, h, p, q, i, 1)), movement.view(tape, columns, (b, h, p, q, 1, j))
    return movement.reshape(tape, elementwise.add(tape, down, across), (b, h, p * q, i * j))


def add_outer_sum(tape: Tape, given: Operands) -> Result:
    """Add the bias of the row and of the column of each key to the scores."""
    scores, rows, columns = given.inputs
    return elementwise.add(tape, scores, outer_sum(tape, rows, columns))


def attend_with_positions(tape: Tape, given: Operands) -> Result:
    """Compute softmax(q·kᵀ·scale + B)·v in one kernel, with B from rows and columns."""
    q, k, v, rows, columns = given.inputs
    return kernels.attention(tape, q, k, v, outer_sum(tape, rows, columns))


flatten = replace(
    swin.partition,
    op=op.view,
    doc="flatten the grid to a sequence, row by row",
    why="attention takes a sequence of tokens; this is a view, which moves no data",
)
row_bias = Step(
    "q: (b r s) h (p q) d -> rows: (b r s) h p q i",
    op=along(0),
    weights={"rel_pos_h": "t d"},
    doc="B_h = q·R_hᵀ: multiply each query by a learned vector for the distance to each row of keys",
    why="two tables of 2p−1 and 2q−1 vectors replace one of their product",
)
column_bias = replace(
    row_bias,
    pattern="q: (b r s) h (p q) d -> columns: (b r s) h p q j",
    op=along(1),
    weights={"rel_pos_w": "u d"},
    doc="B_w = q·R_wᵀ: multiply each query by a learned vector for the distance to each column of keys",
)
add_bias = Step(
    "scores: (b r s) h (p q) (i j), rows: (b r s) h p q i, columns: (b r s) h p q j -> scores: (b r s) h (p q) (i j)",
    op=add_outer_sum,
    doc="S + B_h + B_w: add the bias of each key's row and column",
    why="attention itself ignores positions; unlike Swin's, this bias depends on the query's content",
)
attend = Step(
    "q: (b r s) h n d, k: (b r s) h m d, v: (b r s) h m d, rows: (b r s) h p q i, columns: (b r s) h p q j "
    "-> heads: (b r s) h n d",
    op=attend_with_positions,
    doc="softmax(q·kᵀ/√d + B_h + B_w)·v in one fused kernel, with the bias as a tensor of the size of the scores",
    why="the softmax never goes to memory, which saves time and memory",
)
unflatten = replace(
    swin.reverse,
    op=op.view,
    doc="reshape the sequence to the grid: the inverse of flatten",
    why="the next layer takes the grid of tokens; this is a view, which moves no data",
)
pad, partition, project, split_heads = swin.pad, swin.partition, swin.project, swin.split_heads
score, softmax, mix, merge_heads = swin.score, swin.softmax, swin.mix, swin.merge_heads
output, reverse, crop = swin.output, swin.reverse, swin.crop
name_steps(globals())


def plan(spec: SAMSpec) -> Plan:
    """Return the steps that this Spec runs, in order; padding only if the grid needs it."""
    grid = spec.windows
    (r, s), (p, q), (y, x) = grid.counts, grid.window, spec.resolution
    sizes = {"b": spec.batch, "y": y, "x": x, "r": r, "s": s, "p": p, "q": q, "n": p * q, "m": p * q, "i": p, "j": q}
    sizes |= {"t": 2 * p - 1, "u": 2 * q - 1, **letters(spec.dim, spec.heads, None)}
    positions = [row_bias, column_bias]
    steps = [
        *([pad] if grid.is_padded else []),
        flatten if spec.is_global else partition,
        project if spec.qkv_bias else project.without_bias(),
        split_heads,
        *(
            [shared.scaled(score, spec), *positions, add_bias, softmax.dropping(spec.attn_drop), mix]
            if spec.kernel == "eager"
            else [*positions, shared.fused(attend, spec).dropping(spec.attn_drop)]
        ),
        merge_heads,
        output.dropping(spec.proj_drop),
        unflatten if spec.is_global else reverse,
        *([crop] if grid.is_padded else []),
    ]
    return Plan.of(steps, sizes, spec.itemsize, holds=shared.HELD)
