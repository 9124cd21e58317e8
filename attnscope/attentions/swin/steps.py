"""Steps of Swin's attention.

Axis letters:

- b batch; y x grid of tokens without padding; r s windows down and across; p q window height and width.
- r·p by s·q is therefore the padded grid.
- n query tokens and m key tokens of a window, both p·q.
- t u rows of the bias table down and across, 2p−1 and 2q−1.
- c h d g f e as in `attnscope.attentions.steps`, whose batch consists of windows here.
"""

from collections.abc import Callable
from dataclasses import replace

from attnscope.attentions import steps as shared
from attnscope.attentions.heads import letters
from attnscope.attentions.swin.spec import SwinSpec
from attnscope.attentions.windowed import Windowed
from attnscope.ops import attention as kernels
from attnscope.ops import recipes as op
from attnscope.ops.recipes import Op, Operands, Result
from attnscope.ops.tape import Tape
from attnscope.ops.tensor import Tensor
from attnscope.plan.plan import Plan
from attnscope.plan.step import Step, name_steps

WINDOWS = {"b": "(b r s)"}
"""Replacement of the batch letter in the shared steps."""


def attend_in_windows(masked: bool) -> Op:
    """Return the operation softmax(q·kᵀ·scale + B + mask)·v in one kernel, with B gathered from its table."""

    def attend(tape: Tape, given: Operands) -> Result:
        q, k, v = given.inputs
        mask = shift_mask(tape, given) if masked else None
        bias = op.window_bias(tape, given.weights[0], (*q.shape[:-1], k.shape[2]), mask)
        return kernels.attention(tape, q, k, v, bias)

    return attend


def shift_mask(tape: Tape, given: Operands) -> Tensor:
    """Return the mask of a shifted grid, (r·s, n, m), which the module caches."""
    b, n, m = (given.sizes[letter] for letter in "bnm")
    return tape.external((given.x.shape[0] // b, n, m))


pad = Step(
    "tokens: b y x c -> tokens: b (r p) (s q) c",
    op=op.pad,
    doc="pad the bottom and the right with zeros to a multiple of the window",
    why="every window must be full",
)
shift = Step(
    "tokens: b (r p) (s q) c -> tokens: b (r p) (s q) c",
    op=op.roll(axes=2),
    doc="roll the grid up and to the left, so that windows cross the previous layer's window borders",
    why="without it, tokens of different windows would never exchange information",
)
partition = Step(
    "tokens: b (r p) (s q) c -> windows: (b r s) (p q) c",
    op=op.rearrange,
    doc="partition the grid into windows, each a short sequence",
    why="attention within windows is linear in the number of tokens instead of quadratic",
)
project = replace(shared.project.spelled(**WINDOWS), pattern="windows: (b r s) n c -> qkv: (b r s) n (3 h d)")
split_heads = shared.split_heads.spelled(**WINDOWS)
project_grouped = replace(shared.project_grouped.spelled(**WINDOWS), pattern="windows: (b r s) n c -> qkv: (b r s) n e")
split_grouped = shared.split_grouped.spelled(**WINDOWS)
share_heads = shared.share_heads.spelled(**WINDOWS)
score = replace(
    shared.score.spelled(**WINDOWS), doc="S = q·kᵀ/√d: how much each query attends to each key of its window"
)
add_bias = Step(
    "scores: (b r s) h n m -> scores: (b r s) h n m",
    op=op.add_table_bias,
    weights={"relative_position_bias_table": "(t u) h"},
    doc="S + B: add each head's learned bias for the key's position relative to the query",
    why="attention itself ignores positions; the bias depends on the offset between query and key only",
)
add_mask = Step(
    "scores: (b r s) h n m, mask: (r s) n m -> scores: (b r s) h n m",
    op=op.add_mask,
    constants=("mask",),
    doc="add −∞ for pairs of tokens that only the roll brought into one window, 0 for all others",
    why="the roll brings opposite borders of the image into one window; those tokens are not neighbors",
)
softmax = shared.softmax.spelled(**WINDOWS)
mix = shared.mix.spelled(**WINDOWS)
attend = Step(
    "q: (b r s) h n d, k: (b r s) h m d, v: (b r s) h m d -> heads: (b r s) h n d",
    op=attend_in_windows(masked=False),
    weights={"relative_position_bias_table": "(t u) h"},
    doc="softmax(q·kᵀ/√d + B)·v in one fused kernel: score, bias, softmax and mix, without storing the scores",
    why="the scores never go to memory, which saves time and memory",
)
merge_heads = shared.merge_heads.spelled(**WINDOWS)
output = replace(shared.output.spelled(**WINDOWS), pattern="merged: (b r s) n c -> windows: (b r s) n c")
reverse = Step(
    "windows: (b r s) (p q) c -> tokens: b (r p) (s q) c",
    op=op.rearrange,
    doc="merge the windows into the grid: the inverse of partition",
    why="the next layer takes the grid of tokens",
)
unshift = Step(
    "tokens: b (r p) (s q) c -> tokens: b (r p) (s q) c",
    op=op.roll(axes=2),
    doc="roll the grid back: the inverse of shift",
    why="tokens return to their places in the image",
)
crop = Step(
    "tokens: b (r p) (s q) c -> tokens: b y x c",
    op=op.pad,
    doc="remove the padding: the inverse of pad",
    why="the output must have the size of the input",
)
name_steps(globals())


def plan(spec: SwinSpec) -> Plan:
    """Return the steps that this Spec runs, in order; padding, shift and mask only if the grid needs them."""
    return on_grid(spec, steps_of(spec))


def steps_of(spec: Windowed) -> list[Step]:
    """Return the steps of softmax attention in windows, in order."""
    heads = [project_grouped, split_grouped, share_heads] if spec.is_grouped else [project, split_heads]
    if spec.kernel == "eager":
        return in_windows(spec, heads, [shared.scaled(score, spec), add_bias, *attention_of(spec)])
    own = masked(attend, attend_in_windows) if spec.windows.is_shifted else attend
    return in_windows(spec, heads, [shared.fused(own, spec)])


def attention_of(spec: Windowed) -> list[Step]:
    """Return the steps from the biased scores to the output of the heads."""
    return [*([add_mask] if spec.windows.is_shifted else []), softmax.dropping(spec.attn_drop), mix]


def masked(attend: Step, op: Callable[[bool], Op]) -> Step:
    """Return the fused step of a shifted grid."""
    doc = attend.doc.replace("B)", "B + mask)").split(":")[0]
    return replace(attend, op=op(True), doc=f"{doc}, with B + mask as a tensor of the size of the scores")


def on_grid(spec: SwinSpec, steps: list[Step]) -> Plan:
    """Return the plan of steps of attention in windows of an image."""
    (r, s), (p, q), (y, x) = spec.windows.counts, spec.window, spec.resolution
    sizes = {"b": spec.batch, "y": y, "x": x, "r": r, "s": s, "p": p, "q": q, "n": p * q, "m": p * q}
    sizes |= {"t": 2 * p - 1, "u": 2 * q - 1, **letters(spec.dim, spec.heads, spec.kv_heads)}
    return Plan.of(steps, sizes, spec.itemsize, holds=shared.HELD)


def in_windows(spec: Windowed, heads: list[Step], attention: list[Step]) -> list[Step]:
    """Return the steps of attention in windows, in order.

    Args:
        spec: Spec of the attention.
        heads: steps from windows to queries, keys and values.
        attention: steps from queries, keys and values to the output of the heads.
    """
    grid = spec.windows
    rolled = op.roll(axes=sum(map(bool, grid.roll)))
    rolls = [replace(step, op=rolled) for step in (shift, unshift)]
    return [
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
