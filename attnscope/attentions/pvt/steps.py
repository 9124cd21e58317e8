"""Steps of PVT's spatial-reduction attention: cross-attention from all tokens to a coarser grid of the same tokens.

Axis letters are those of `attnscope.attentions.steps`, with n = y·x and m = p·q. In addition: y x grid of tokens, r
side of a patch, p q grid of keys. If whole patches fill the grid, it is (p i) (q j), with i j the tokens of a patch.
"""

from dataclasses import replace

from attnscope.attentions.cross import steps as cross
from attnscope.attentions.heads import letters
from attnscope.attentions.pvt.spec import PVTSpec
from attnscope.attentions.steps import HELD, attention_of, merge_heads, output, share_heads
from attnscope.ops import recipes as op
from attnscope.plan.plan import Plan
from attnscope.plan.step import Step, name_steps

unflatten = Step(
    "x: b (y x) c -> grid: b c y x",
    op=op.view,
    doc="reshape the sequence of tokens to a grid, channels first",
    why="the convolution takes a grid",
)
reduce = Step(
    "grid: b c y x -> reduced: b c p q",
    op=op.convolution,
    weights={"sr.weight": "c c r r", "sr.bias": "c"},
    doc="project each R×R patch to one token: a convolution whose stride is R",
    why="R² times fewer keys and values make attention R² times cheaper",
)
pool = Step(
    "grid: b c y x -> pooled: b c p q",
    op=op.adaptive_pool,
    doc="average the tokens of each of 7×7 patches",
    why="with a fixed number of keys, attention is linear in the number of tokens",
)
mix_channels = replace(
    reduce,
    pattern="pooled: b c p q -> reduced: b c p q",
    doc="mix the channels of each pooled token: a convolution of 1×1",
    why="averages alone have no parameters; the weights decide what a key keeps of its patch",
)
flatten = Step(
    "reduced: b c p q -> patches: b (p q) c",
    op=op.view,
    doc="flatten the coarser grid to a sequence, row by row",
    why="attention takes a sequence of tokens",
)
normalize = Step(
    "patches: b m c -> context: b m c",
    op=op.layer_norm,
    weights={"norm.weight": "c", "norm.bias": "c"},
    doc="SR(x) = Norm(reduced): normalize each token of the coarser grid to mean 0 and variance 1",
    why="the keys and values get inputs of a fixed scale",
)
activate = Step(
    "context: b m c -> context: b m c",
    op=op.gelu,
    doc="apply GELU to each token of the coarser grid",
    why="pooling and its projection are linear; the nonlinearity makes keys more than averages",
)
project_queries = replace(cross.project_queries, doc="q = x·Wq + b: project each token to its query")
project_context = replace(
    cross.project_context,
    doc="k, v = SR(x)·Wkv + b: project each token of the coarser grid to its key and value in one matmul",
)
split_queries, split_context = cross.split_queries, cross.split_context
name_steps(globals())


def reduction_of(spec: PVTSpec) -> list[Step]:
    """Return the steps from all tokens to those of the coarser grid."""
    if not spec.reduces:
        return []
    from_grid = [unflatten, pool if spec.linear else reduce]
    if spec.is_filled:
        from_grid = [step.spelled(y="(p i)", x="(q j)") for step in from_grid]
    return [*from_grid, *([mix_channels, flatten, normalize, activate] if spec.linear else [flatten, normalize])]


def plan(spec: PVTSpec) -> Plan:
    """Return the steps that this Spec runs, in order; without a reduction the keys are all tokens."""
    (y, x), (p, q) = spec.resolution, spec.reduced
    sizes = {
        "b": spec.batch,
        "n": spec.tokens,
        "m": spec.keys,
        "y": y,
        "x": x,
        "p": p,
        "q": q,
        "i": y // p,
        "j": x // q,
    }
    projections = [project_queries, project_context]
    if not spec.reduces:
        projections[1] = replace(project_context, pattern="x: b m c -> kv: b m (2 g d)")
    steps = [
        *reduction_of(spec),
        *(projections if spec.qkv_bias else [step.without_bias() for step in projections]),
        split_queries,
        split_context,
        *([share_heads] if spec.is_grouped else []),
        *attention_of(spec),
        merge_heads,
        output.dropping(spec.proj_drop),
    ]
    sizes |= {"r": spec.reduction or 1, **letters(spec.dim, spec.heads, spec.kv_heads)}
    return Plan.of(steps, sizes, spec.itemsize, (*HELD, "context"))
