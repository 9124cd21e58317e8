"""Steps of multi-scale linear attention.

Axis letters:

- b batch; c channels; y x grid of tokens; n = y·x tokens.
- h heads of one scale; d channels of a head; e = 3d; f = d + 1.
- a scales, the first of which is the tokens themselves; g = a·h heads of all scales.
"""

from dataclasses import replace

from attnscope.attentions.linear.spec import LinearSpec
from attnscope.ops import convolution, elementwise, matmul, movement, normalization
from attnscope.ops import recipes as op
from attnscope.ops.recipes import Operands, Result
from attnscope.ops.tape import Tape
from attnscope.plan.plan import Plan
from attnscope.plan.step import Step, name_steps


def aggregate_scales(tape: Tape, given: Operands) -> Result:
    """Convolve q, k and v at each scale: within each channel, then across the channels of each head; concatenate."""
    x, weights = given.x, list(given.weights)
    has_bias = weights[1].dim() == 1
    parts = [x]
    while weights:
        made = x
        for _ in range(2):
            kernel = weights.pop(0)
            made = convolution.convolution(tape, made, kernel, weights.pop(0) if has_bias else None, x.shape)
        parts.append(made)
    return movement.cat(tape, parts, axis=1)


def split_scales(tape: Tape, given: Operands) -> Result:
    """Split the channels of all scales into heads, each with its query, key and value one after another."""
    b, g, n, d = given.shapes[0]
    apart = movement.transpose(tape, movement.view(tape, given.x, (b, g, 3 * d, n)))
    return movement.split(tape, apart, [d, d, d], axis=3)


def rectify(tape: Tape, given: Operands) -> Result:
    """Apply ReLU to queries and keys."""
    q, k = (elementwise.activate(tape, "relu", each, saves="output") for each in given.inputs)
    return q, k


def keys_by_values(tape: Tape, given: Operands) -> Result:
    """Compute kᵀ·v."""
    k, v = given.inputs
    return matmul.matmul(tape, movement.transpose(tape, k), v)


def quotient(tape: Tape, given: Operands) -> Result:
    """Divide the sums by their last channel plus a small number."""
    d = given.shapes[0][-1]
    sums, total = movement.split(tape, given.x, [d, 1], axis=3)
    return elementwise.divide(tape, sums, elementwise.shift(tape, total))


def convolve_and_normalize(tape: Tape, given: Operands) -> Result:
    """Project each token, then normalize each channel by running statistics."""
    kernel, scale, shift = given.weights
    made = convolution.convolution(tape, given.x, kernel, None, given.shapes[0])
    return normalization.batch_norm(tape, made, scale, shift)


project = Step(
    "x: b c y x -> qkv: b (h e) y x",
    op=op.convolution,
    weights={"qkv.conv.weight": "(h e) c 1 1", "qkv.conv.bias": "(h e)"},
    doc="q, k, v = x·Wqkv: project each token to its query, key and value, by a convolution of 1×1",
    why="the grid stays channels first, for the convolutions that follow",
)
aggregate = Step(
    "qkv: b (h e) y x -> multi: b (a h e) y x",
    op=aggregate_scales,
    doc="aggregate q, k and v of nearby tokens by a small convolution, for each further scale",
    why="ReLU attention is weak at local patterns; sums over an area bring them back",
)
split_heads = Step(
    "multi: b (a h e) y x -> q: b (a h) (y x) d, k: b (a h) (y x) d, v: b (a h) (y x) d",
    op=split_scales,
    doc="split the channels into heads of d channels each, for all scales",
    why="each head can attend to a different pattern; this is a view, which moves no data",
)
rectify_queries_keys = Step(
    "q: b g n d, k: b g n d -> q: b g n d, k: b g n d",
    op=rectify,
    doc="apply ReLU to queries and keys",
    why="the products are then positive, as softmax weights are, without an exponential of each pair",
)
append_one = Step(
    "v: b g n d -> values: b g n f",
    op=op.pad,
    doc="append a channel of ones to the values",
    why="the sums then also give the total weight of each query, by which the output is divided",
)
sum_context = Step(
    "k: b g n d, values: b g n f -> context: b g d f",
    op=keys_by_values,
    doc="kᵀ·v: sum the products of key channels and value channels over all tokens",
    why="the sum has d×(d+1) numbers for any number of tokens, so that the cost is linear",
)
apply_context = Step(
    "q: b g n d, context: b g d f -> sums: b g n f",
    op=op.matmul(),
    doc="q·(kᵀ·v): apply the sum to each query",
    why="by associativity, this equals (q·kᵀ)·v without the N×N scores",
)
divide = Step(
    "sums: b g n f -> heads: b g n d",
    op=quotient,
    doc="divide by the total weight, the last channel",
    why="the weights of a query then sum to 1, as after softmax",
)
merge_heads = Step(
    "heads: b (a h) (y x) d -> merged: b (a h d) y x",
    op=op.rearrange,
    doc="concatenate the channels of all heads and scales, channels first",
    why="the output projection is a convolution of 1×1",
)
output = Step(
    "merged: b (a h d) y x -> y: b c y x",
    op=convolve_and_normalize,
    weights={"proj.conv.weight": "c (a h d) 1 1", "proj.norm.weight": "c", "proj.norm.bias": "c"},
    doc="y = BatchNorm(merged·Wproj): mix the heads and scales across channels",
    why="heads do not see each other before this step",
)
name_steps(globals())


def aggregate_at(spec: LinearSpec) -> Step:
    """Return the step that aggregates at the scales of a Spec, with the parameters of two convolutions for each."""
    kernels: dict[str, str] = {}
    for index, side in enumerate(spec.scales):
        for part, shape in enumerate((f"(h e) 1 {side} {side}", "(h e) d 1 1")):
            kernels[f"aggreg.{index}.{part}.weight"] = shape
            kernels |= {f"aggreg.{index}.{part}.bias": "(h e)"} if spec.qkv_bias else {}
    return replace(aggregate, weights=kernels)


def plan(spec: LinearSpec) -> Plan:
    """Return the steps that this Spec runs, in order."""
    (y, x), d, h, a = spec.resolution, spec.head_dim, spec.heads, 1 + len(spec.scales)
    sizes = {"b": spec.batch, "c": spec.dim, "y": y, "x": x, "n": y * x, "h": h, "d": d, "e": 3 * d, "f": d + 1}
    sizes |= {"a": a, "g": a * h}
    steps = [
        project if spec.qkv_bias else project.without_bias(),
        aggregate_at(spec),
        split_heads,
        rectify_queries_keys,
        append_one,
        sum_context,
        apply_context,
        divide,
        merge_heads,
        output.dropping(spec.proj_drop),
    ]
    return Plan.of(steps, sizes, spec.itemsize, holds=("q", "k", "v"))
