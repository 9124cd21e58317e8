"""Steps of locally-grouped attention.

Axis letters are those of `attnscope.attentions.swin.steps`: y x grid of tokens, r s windows, p q window height and
width. The input and the output are sequences of y·x tokens.
"""

from dataclasses import replace

from attnscope.attentions import steps as shared
from attnscope.attentions.heads import letters
from attnscope.attentions.steps import HELD
from attnscope.attentions.swin import steps as swin
from attnscope.attentions.twins.spec import TwinsSpec
from attnscope.ops import recipes as op
from attnscope.plan.plan import Plan
from attnscope.plan.step import Step, name_steps

unflatten = Step(
    "x: b (y x) c -> tokens: b y x c",
    op=op.view,
    doc="reshape the sequence of tokens to a grid",
    why="windows are parts of a grid; this is a view, which moves no data",
)
pad, partition, project, split_heads = swin.pad, swin.partition, swin.project, swin.split_heads
score, softmax, mix = (step.spelled(**swin.WINDOWS) for step in (shared.score, shared.softmax, shared.mix))
attend = shared.attend.spelled(**swin.WINDOWS)
merge_heads = swin.merge_heads
reverse = replace(swin.reverse, pattern="merged: (b r s) (p q) c -> merged: b (r p) (s q) c")
crop = replace(
    swin.crop,
    pattern="merged: b (r p) (s q) c -> merged: b y x c",
    why="the output must have the size of the input; the projection then skips the padding",
)
flatten = Step(
    "merged: b y x c -> merged: b (y x) c",
    op=op.view,
    doc="flatten the grid to a sequence: the inverse of unflatten",
    why="the rest of the block takes a sequence",
)
output = replace(shared.output, pattern="merged: b (y x) c -> y: b (y x) c")
name_steps(globals())


def plan(spec: TwinsSpec) -> Plan:
    """Return the steps that this Spec runs, in order; padding only if the grid needs it."""
    grid = spec.windows
    (r, s), (p, q), (y, x) = grid.counts, grid.window, spec.resolution
    sizes = {"b": spec.batch, "y": y, "x": x, "r": r, "s": s, "p": p, "q": q, "n": p * q, "m": p * q}
    steps = [
        unflatten,
        *([pad] if grid.is_padded else []),
        partition,
        project if spec.qkv_bias else project.without_bias(),
        split_heads,
        *(step.spelled(**swin.WINDOWS) for step in shared.attention_of(spec)),
        merge_heads,
        reverse,
        *([crop] if grid.is_padded else []),
        flatten,
        output.dropping(spec.proj_drop),
    ]
    return Plan.of(steps, sizes | letters(spec.dim, spec.heads, None), spec.itemsize, holds=HELD)
