"""What the blocks of all networks do besides attention, on one page: norm, residual, MLP.

Letters: b batch, n tokens, c channels, e channels inside the MLP. On a grid of tokens y x stand for n (`on_grid`).
"""

import re
from dataclasses import replace

from attnscope.plan.step import Step, name_steps

norm1 = Step(
    "x: b n c -> branch: b n c",
    work={"layer_norm": "b n c"},
    weights={"norm1.weight": "c", "norm1.bias": "c"},
    scratch=("2 b n",),
    saves=("x",),
    keeps="2 b n",
    back="2 c",
    doc="each token is brought to mean 0 and variance 1, then scaled and shifted channel by channel",
)
residual1 = Step(
    "x: b n c, branch: b n c -> x: b n c",
    work={"residual": "b n c"},
    passes=("x", "branch"),
    doc="what attention found is added to the token, which else stays what it was",
)
norm2 = replace(norm1, weights={"norm2.weight": "c", "norm2.bias": "c"})
residual2 = replace(residual1, doc="what the MLP made is added to the token")
expand = Step(
    "branch: b n c -> hidden: b n e",
    macs="b n c e",
    work={"bias": "b n e"},
    weights={"fc1.weight": "e c", "fc1.bias": "e"},
    saves=("branch",),
    doc="the MLP's first layer: each token on its own, in more channels",
)
gelu = Step(
    "hidden: b n e -> hidden: b n e",
    work={"gelu": "b n e"},
    saves=("hidden",),
    doc="x·Φ(x): what is negative fades, what is positive stays",
)
contract = Step(
    "hidden: b n e -> branch: b n c",
    macs="b n e c",
    work={"bias": "b n c"},
    weights={"fc2.weight": "c e", "fc2.bias": "c"},
    saves=("hidden",),
    doc="the MLP's second layer: back to as many channels as before",
)
name_steps(globals())


def on_grid(step: Step) -> Step:
    """The same step where the tokens lie on a grid, y x instead of n."""

    def grid(text: str) -> str:
        return re.sub(r"\bn\b", "y x", text)

    return replace(
        step,
        pattern=grid(step.pattern),
        macs=grid(step.macs),
        work={kind: grid(elements) for kind, elements in step.work.items()},
        scratch=tuple([grid(phase) for phase in step.scratch]),
        keeps=grid(step.keeps or ""),
    )


def after(norm: Step) -> Step:
    """A norm that follows its branch instead of leading it."""
    pattern = norm.pattern.replace("x: ", "branch: ", 1)
    return replace(norm, pattern=pattern, saves=("branch",))
