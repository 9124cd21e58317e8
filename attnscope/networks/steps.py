"""Steps of a block other than attention, in all networks: norm, residual, MLP.

Axis letters: b batch, n tokens, c embedding dimension, e hidden size of the MLP. For tokens on a grid, y x replaces n
(`GRID`).
"""

from dataclasses import replace

from attnscope.ops import recipes as op
from attnscope.plan.step import Step, name_steps

norm1 = Step(
    "x: b n c -> branch: b n c",
    op=op.layer_norm,
    weights={"norm1.weight": "c", "norm1.bias": "c"},
    doc="normalize each token to mean 0 and variance 1, then scale and shift each channel",
    why="activations keep the same scale in every block, which makes deep networks trainable",
)
residual1 = Step(
    "x: b n c, branch: b n c -> x: b n c",
    op=op.add,
    doc="add the output of the attention to each token",
    why="gradients reach the first blocks through the sum",
)
norm2 = replace(norm1, weights={"norm2.weight": "c", "norm2.bias": "c"})
residual2 = replace(residual1, doc="add the output of the MLP to each token")
expand = Step(
    "branch: b n c -> hidden: b n e",
    op=op.linear,
    weights={"fc1.weight": "e c", "fc1.bias": "e"},
    doc="apply the first layer of the MLP to each token: c channels to e",
    why="the MLP computes on each token alone; its hidden layer is wider than the token",
)
gelu = Step(
    "hidden: b n e -> hidden: b n e",
    op=op.gelu,
    doc="apply GELU, x·Φ(x)",
    why="without a nonlinearity, the two layers would be one linear map",
)
contract = Step(
    "hidden: b n e -> branch: b n c",
    op=op.linear,
    weights={"fc2.weight": "c e", "fc2.bias": "c"},
    doc="apply the second layer of the MLP to each token: e channels to c",
    why="the residual needs c channels",
)
name_steps(globals())

GRID = {"n": "y x"}
"""Replacement of the token letter in the shared steps for tokens on a grid."""


def after(norm: Step) -> Step:
    """Return a norm that normalizes the output of its branch instead of the input."""
    return replace(norm, pattern=norm.pattern.replace("x: ", "branch: ", 1))
