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
scale1 = Step(
    "branch: b n c -> branch: b n c",
    op=op.multiply,
    weights={"ls1.gamma": "c"},
    doc="multiply each channel of the branch by its learned factor (LayerScale; Touvron et al., arXiv 2103.17239)",
    why="the factors start near 0, so that a new block changes little, which makes deep networks trainable",
)
scale2 = replace(scale1, weights={"ls2.gamma": "c"})
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
gate = Step(
    "branch: b n c -> gate: b n e",
    op=op.linear,
    weights={"fc1_g.weight": "e c", "fc1_g.bias": "e"},
    doc="x·W + b: compute the gate of each hidden channel, from c channels to e",
    why="a gate lets a token select hidden channels, which is better than a wider MLP with the same MACs",
)
value = Step(
    "branch: b n c -> hidden: b n e",
    op=op.linear,
    weights={"fc1_x.weight": "e c", "fc1_x.bias": "e"},
    doc="x·V + b: compute the hidden channels that the gate multiplies, from c channels to e",
    why="the MLP computes on each token alone; its hidden layer is wider than the token",
)
gate_and_value = Step(
    "branch: b n c -> packed: b n (2 e)",
    op=op.linear,
    weights={"fc1.weight": "(2 e) c", "fc1.bias": "(2 e)"},
    doc="x·W and x·V in one matmul: compute the gate and the hidden channels, from c channels to 2e",
    why="one large matmul is faster than two small ones",
)
swiglu = Step(
    "gate: b n e, hidden: b n e -> hidden: b n e",
    op=op.swiglu,
    doc="SiLU(xW) ⊗ xV: multiply the hidden channels by the gate after SiLU, x·σ(x)",
    why="without a nonlinearity, the layers would be one linear map",
)
swiglu_packed = Step(
    "packed: b n (2 e) -> hidden: b n e",
    op=op.swiglu,
    doc="SiLU(xW) ⊗ xV: multiply the last e channels by the first e after SiLU, x·σ(x)",
    why="without a nonlinearity, the layers would be one linear map",
)
norm_hidden = Step(
    "hidden: b n e -> hidden: b n e",
    op=op.layer_norm,
    weights={"norm.weight": "e", "norm.bias": "e"},
    doc="normalize the hidden channels of each token, then scale and shift each channel",
    why="the branch keeps its scale, which makes the training of large networks stable",
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
