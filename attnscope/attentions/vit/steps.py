"""Steps of ViT's attention.

Axis letters are those of `attnscope.attentions.steps`; the number of key tokens m is that of query tokens n. l is the
number of patches, whose positions rotate queries and keys, and u that of the pairs of channels that rotate, d = 2u.
"""

from dataclasses import dataclass, replace

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
    without_key_bias,
)
from attnscope.attentions.vit.spec import ViTSpec
from attnscope.ops import elementwise, movement
from attnscope.ops import recipes as op
from attnscope.ops.recipes import Operands, Result
from attnscope.ops.tape import Tape
from attnscope.ops.tensor import FLOAT32_BYTES, Shape, Tensor
from attnscope.plan.plan import Plan
from attnscope.plan.step import Step, name_steps


def learned_angles(tape: Tape, given: Operands) -> Result:
    """Compute cosines and sines of x·f_x + y·f_y, in float32 or float64; each angle belongs to two channels."""
    h, pairs = given.weights[0].shape[1:]
    wide = max(tape.itemsize, FLOAT32_BYTES)
    places = movement.convert(tape, given.x, wide)
    x, y = movement.unbind(tape, movement.view(tape, places, (*places.shape, 1)))
    frequencies = movement.convert(tape, given.weights[0], wide)
    across, down = movement.unbind(tape, movement.view(tape, frequencies, (2, h, 1, pairs)))
    theta = elementwise.add(
        tape,
        elementwise.multiply(tape, across, x, is_constant=True),
        elementwise.multiply(tape, down, y, is_constant=True),
    )
    cos, sin = elementwise.cosine(tape, theta), elementwise.sine(tape, theta)
    return (
        movement.convert(tape, in_pairs(tape, cos, cos), tape.itemsize),
        movement.convert(tape, in_pairs(tape, elementwise.negate(tape, sin), sin), tape.itemsize),
    )


def in_pairs(tape: Tape, first: Tensor, second: Tensor) -> Tensor:
    """Return the factors of the first and the second channel of each pair side by side."""
    paired = movement.stack(tape, (first, second), axis=first.dim())
    return movement.view(tape, paired, (*first.shape[:-1], 2 * first.shape[-1]))


@dataclass(frozen=True)
class Rotate:
    """An operation that rotates pairs of channels of the patches, and leaves the tokens before them as they are.

    Args:
        halves: channel i forms a pair with channel i + d/2, otherwise with its neighbour.
        is_learned: the angles need a gradient.
    """

    halves: bool = False
    is_learned: bool = False

    def __call__(self, tape: Tape, given: Operands) -> Result:
        x, cos, sin = given.exactly(3)
        patches = cos.shape[-2]
        prefix = x.shape[2] - patches
        if not prefix:
            return self.rotated(tape, x, cos, sin)
        before, rest = movement.split(tape, x, (prefix, patches), axis=2)
        return movement.cat(tape, [before, self.rotated(tape, rest, cos, sin)], axis=2)

    def rotated(self, tape: Tape, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Return x·cos + swapped(x)·sin, where the two channels of each pair are swapped."""
        count = x.shape[-1] // 2
        pairs = movement.view(tape, x, (*x.shape[:-1], *((2, count) if self.halves else (count, 2))))
        return elementwise.add(
            tape,
            elementwise.multiply(tape, x, cos, is_constant=not self.is_learned),
            elementwise.multiply(tape, swapped(tape, pairs, x.shape), sin, is_constant=not self.is_learned),
        )


def swapped(tape: Tape, pairs: Tensor, shape: Shape) -> Tensor:
    """Return the two channels of each pair swapped, in the shape of the channels."""
    return movement.view(tape, movement.roll(tape, pairs, 1), shape)


normalize_queries = Step(
    "q: b h n d -> q: b h n d",
    op=op.layer_norm,
    weights={"q_norm.weight": "d", "q_norm.bias": "d"},
    doc="q = LayerNorm(q): normalize each head's query to mean 0 and variance 1",
    why="scores of normalized queries and keys are bounded, which keeps large models stable in training",
)
normalize_keys = Step(
    "k: b h m d -> k: b h m d",
    op=op.layer_norm,
    weights={"k_norm.weight": "d", "k_norm.bias": "d"},
    doc="k = LayerNorm(k): normalize each head's key to mean 0 and variance 1",
    why="scores of normalized queries and keys are bounded, which keeps large models stable in training",
)
angles = Step(
    "places: 2 l -> cos: h l d, sin: h l d",
    op=learned_angles,
    weights={"freqs": "2 h u"},
    constants=("places",),
    doc="cos θ and sin θ, θ = x·f_x + y·f_y: compute the angles of each patch from each head's learned frequencies",
    why="a frequency along both axes also encodes diagonal directions, which axial frequencies do not",
)
rotate_queries = Step(
    "q: b h n d, cos: l d, sin: l d -> q: b h n d",
    op=Rotate(),
    constants=("cos", "sin"),
    doc="q = R(θ)·q: rotate each pair of channels of a patch's query by an angle that depends on its position",
    why="q·k then depends on the offset of query and key; the class token and registers have no position and no rotation",
)
rotate_keys = Step(
    "k: b h m d, cos: l d, sin: l d -> k: b h m d",
    op=Rotate(),
    constants=("cos", "sin"),
    doc="k = R(θ)·k: rotate each pair of channels of a patch's key by an angle that depends on its position",
    why="q·k then depends on the offset of query and key, without a table of biases and without parameters",
)
norm_merged = Step(
    "merged: b n c -> merged: b n c",
    op=op.layer_norm,
    weights={"norm.weight": "c", "norm.bias": "c"},
    doc="normalize the merged heads of each token, then scale and shift each channel, as in EVA-02 CLIP",
    why="the output of the attention keeps its scale, which makes the training of large networks stable",
)
name_steps(globals())


def plan(spec: ViTSpec) -> Plan:
    """Return the steps that this Spec runs, in order."""
    n = spec.sequence
    sizes = {"b": spec.batch, "n": n, "m": n, **letters(spec.dim, spec.heads, spec.kv_heads)}
    if spec.rope:
        sizes |= {"l": n - spec.prefix, "u": sizes["d"] // 2}
    steps = [
        *heads_of(spec),
        *([share_heads] if spec.is_grouped else []),
        *attention_of(spec),
        merge_heads,
        *[norm_merged] * spec.inner_norm,
        output.dropping(spec.proj_drop),
    ]
    return Plan.of(steps, sizes, spec.itemsize, holds=HELD)


def heads_of(spec: ViTSpec) -> list[Step]:
    """Return the steps from tokens to queries, keys and values, before query heads share keys and values."""
    projection, split, of_keys = project, split_heads, {}
    if spec.is_grouped:
        projection, split, of_keys = project_grouped, split_grouped, {"h": "g"}
    if not spec.qkv_bias:
        projection = projection.without_bias()
    elif not spec.has_key_bias:
        projection = without_key_bias(projection)
    normalizations = [normalize_queries, normalize_keys.spelled(**of_keys)] if spec.qk_norm else []
    if spec.rotation is None:
        return [projection, split, *normalizations]
    rotate = Rotate(spec.rotation.halves, spec.rotation.is_learned)
    rotations = [replace(step, op=rotate) for step in (rotate_queries, rotate_keys.spelled(**of_keys))]
    if rotate.is_learned:
        of_heads = [replace(each, pattern=each.pattern.replace(": l d", ": h l d"), constants=()) for each in rotations]
        rotations = [angles, *of_heads]
    return [projection, split, *normalizations, *rotations]
