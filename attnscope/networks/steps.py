"""What the blocks of all networks do besides attention, on one page: norm, residual, MLP.

Letters: b batch, n tokens, c channels, e channels inside the MLP. On a grid of tokens y x stand for n (`on_grid`).
"""

from dataclasses import replace

from attnscope.ops import recipes as op
from attnscope.plan.step import Step, name_steps

norm1 = Step(
    "x: b n c -> branch: b n c",
    op=op.layer_norm,
    weights={"norm1.weight": "c", "norm1.bias": "c"},
    doc="each token is brought to mean 0 and variance 1, then scaled and shifted channel by channel",
)
residual1 = Step(
    "x: b n c, branch: b n c -> x: b n c",
    op=op.add,
    doc="what attention found is added to the token, which else stays what it was",
)
norm2 = replace(norm1, weights={"norm2.weight": "c", "norm2.bias": "c"})
residual2 = replace(residual1, doc="what the MLP made is added to the token")
expand = Step(
    "branch: b n c -> hidden: b n e",
    op=op.linear,
    weights={"fc1.weight": "e c", "fc1.bias": "e"},
    doc="the MLP's first layer: each token on its own, in more channels",
)
gelu = Step("hidden: b n e -> hidden: b n e", op=op.gelu, doc="x·Φ(x): what is negative fades, what is positive stays")
contract = Step(
    "hidden: b n e -> branch: b n c",
    op=op.linear,
    weights={"fc2.weight": "c e", "fc2.bias": "c"},
    doc="the MLP's second layer: back to as many channels as before",
)
name_steps(globals())

GRID = {"n": "y x"}
"""How the tokens of the shared steps are spelled where they lie on a grid."""


def after(norm: Step) -> Step:
    """Return a norm that follows its branch instead of leading it."""
    return replace(norm, pattern=norm.pattern.replace("x: ", "branch: ", 1))
