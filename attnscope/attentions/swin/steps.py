"""Swin's attention on one page.

Letters: b batch, y x grid of tokens as it came, r s windows down and across, p q window height and width (so r·p by s·q is
the grid with its padding), n query tokens and m key tokens of a window (both p·q), t u rows of the bias table down and
across (2p−1 and 2q−1); c h d g f e as in `attnscope.attentions.steps`, whose batch is one of windows here.
"""

from collections.abc import Callable
from dataclasses import replace

from attnscope.attentions import steps as shared
from attnscope.attentions.heads import letters
from attnscope.attentions.swin.spec import SwinSpec
from attnscope.ops import attention as kernels
from attnscope.ops import recipes as op
from attnscope.ops.recipes import Op, Operands, Result
from attnscope.ops.tape import Tape
from attnscope.ops.tensor import Tensor
from attnscope.plan.plan import Plan
from attnscope.plan.step import Step, name_steps

WINDOWS = {"b": "(b r s)"}
"""How the batch of the shared steps is spelled here."""


def attend_in_windows(masked: bool) -> Op:
    """softmax(q·kᵀ·scale + B + mask)·v in one kernel, with B gathered from its table."""

    def attend(tape: Tape, given: Operands) -> Result:
        q, k, v = given.inputs
        mask = shift_mask(tape, given) if masked else None
        bias = op.window_bias(tape, given.weights[0], (*q.shape[:-1], k.shape[2]), mask)
        return kernels.attention(tape, q, k, v, bias)

    return attend


def shift_mask(tape: Tape, given: Operands) -> Tensor:
    """The mask of a shifted grid, (r·s, n, m), which the module keeps."""
    r, s, n, m = (given.sizes[letter] for letter in "rsnm")
    return tape.external((r * s, n, m))


pad = Step(
    "tokens: b y x c -> tokens: b (r p) (s q) c",
    op=op.pad,
    doc="zeros at the bottom and on the right, up to whole windows",
)
shift = Step(
    "tokens: b (r p) (s q) c -> tokens: b (r p) (s q) c",
    op=op.roll(axes=2),
    doc="the grid rolls up and to the left, so that the windows straddle the borders of the last layer's",
)
partition = Step(
    "tokens: b (r p) (s q) c -> windows: (b r s) (p q) c",
    op=op.rearrange,
    doc="the grid is cut into windows, and each becomes a short sequence of its own",
)
project = replace(shared.project.spelled(**WINDOWS), pattern="windows: (b r s) n c -> qkv: (b r s) n (3 h d)")
split_heads = shared.split_heads.spelled(**WINDOWS)
project_grouped = replace(shared.project_grouped.spelled(**WINDOWS), pattern="windows: (b r s) n c -> qkv: (b r s) n e")
split_grouped = shared.split_grouped.spelled(**WINDOWS)
share_heads = shared.share_heads.spelled(**WINDOWS)
score = replace(
    shared.score.spelled(**WINDOWS), doc="S = q·kᵀ/√d: how much each token looks at each other one of its window"
)
add_bias = Step(
    "scores: (b r s) h n m -> scores: (b r s) h n m",
    op=op.add_table_bias,
    weights={"relative_position_bias_table": "(t u) h"},
    doc="S + B: each head's learned bias for where the key lies, seen from the query",
)
add_mask = Step(
    "scores: (b r s) h n m, mask: (r s) n m -> scores: (b r s) h n m",
    op=op.add_mask,
    constants=("mask",),
    doc="−∞ for tokens that only the roll brought together, 0 for neighbours",
)
softmax = shared.softmax.spelled(**WINDOWS)
mix = shared.mix.spelled(**WINDOWS)
attend = Step(
    "q: (b r s) h n d, k: (b r s) h m d, v: (b r s) h m d -> heads: (b r s) h n d",
    op=attend_in_windows(masked=False),
    weights={"relative_position_bias_table": "(t u) h"},
    doc="softmax(q·kᵀ/√d + B)·v in one fused kernel: score, bias, softmax and mix, without keeping the scores",
)
merge_heads = shared.merge_heads.spelled(**WINDOWS)
output = replace(shared.output.spelled(**WINDOWS), pattern="merged: (b r s) n c -> windows: (b r s) n c")
reverse = Step(
    "windows: (b r s) (p q) c -> tokens: b (r p) (s q) c",
    op=op.rearrange,
    doc="the windows go back to their places in the grid: the inverse of partition",
)
unshift = Step(
    "tokens: b (r p) (s q) c -> tokens: b (r p) (s q) c",
    op=op.roll(axes=2),
    doc="the grid rolls back: the inverse of shift",
)
crop = Step(
    "tokens: b (r p) (s q) c -> tokens: b y x c",
    op=op.pad,
    doc="the padding is cut off: the inverse of pad",
)
name_steps(globals())


def plan(spec: SwinSpec) -> Plan:
    """Return the steps that this Spec runs, in their order: pad only where it pads, shift and mask only where it shifts."""
    heads = [project_grouped, split_grouped, share_heads] if spec.is_grouped else [project, split_heads]
    if spec.kernel == "eager":
        return in_windows(spec, heads, [score, add_bias, *attention_of(spec)])
    own = masked(attend, attend_in_windows) if spec.windows.is_shifted else attend
    return in_windows(spec, heads, [shared.fused(own, spec)])


def attention_of(spec: SwinSpec) -> list[Step]:
    """Return the steps from the scores with their bias to what the heads found."""
    return [*([add_mask] if spec.windows.is_shifted else []), softmax.dropping(spec.attn_drop), mix]


def masked(attend: Step, op: Callable[[bool], Op]) -> Step:
    """Return the fused step of a shifted grid."""
    doc = attend.doc.replace("B)", "B + mask)").split(":")[0]
    return replace(attend, op=op(True), doc=f"{doc}, which takes B + mask as a tensor as large as the scores")


def in_windows(spec: SwinSpec, heads: list[Step], attention: list[Step]) -> Plan:
    """Return the plan of attention in windows.

    Args:
        spec: the attention.
        heads: the steps from windows to queries, keys and values.
        attention: the steps from these to what the heads found.
    """
    grid = spec.windows
    (r, s), (p, q), (y, x), b = grid.counts, spec.window, spec.resolution, spec.batch
    sizes = {"b": b, "y": y, "x": x, "r": r, "s": s, "p": p, "q": q, "n": p * q, "m": p * q}
    sizes |= {"t": 2 * p - 1, "u": 2 * q - 1, **letters(spec.dim, spec.heads, spec.kv_heads)}
    rolls = [step if all(grid.roll) else replace(step, op=op.roll(axes=1)) for step in (shift, unshift)]
    steps = [
        *([pad] if grid.is_padded else []),
        *(rolls[:1] if grid.is_shifted else []),
        partition,
        *(heads if spec.qkv_bias else [step.without_bias() for step in heads]),
        *attention,
        merge_heads,
        output.dropping(spec.proj_drop),
        reverse,
        *(rolls[1:] if grid.is_shifted else []),
        *([crop] if grid.is_padded else []),
    ]
    return Plan.of(steps, sizes, spec.itemsize, holds=shared.HELD)
