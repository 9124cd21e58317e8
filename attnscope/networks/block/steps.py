"""The plan of a block of any attention: norm, attention, residual, norm, MLP, residual.

Axis letters are those of `attnscope.networks.steps`. For tokens on a grid y x replaces n, and for a volume t y x.
"""

from attnscope.attentions.spec import Spec
from attnscope.networks.block.spec import BlockSpec
from attnscope.networks.composed import ComposedSpec
from attnscope.networks.steps import contract, expand, gelu, norm1, norm2, residual1, residual2
from attnscope.plan.plan import Plan, SizedStep
from attnscope.plan.step import Step

TOKENS = {3: ("n",), 4: ("y", "x"), 5: ("t", "y", "x")}
"""Letters of the token axes, by the number of axes of the input."""


def plan(spec: BlockSpec) -> Plan:
    """Return the steps of a block that is not part of a network."""
    return block_plan(spec, spec.attention())


def block_plan(
    spec: ComposedSpec, attention: Spec, mlp: Plan | None = None, scales: tuple[Step, Step] | None = None
) -> Plan:
    """Return the plan of a block: norm, attention, residual, norm, MLP, residual.

    Args:
        spec: the block or the network, which says what the backward recomputes.
        attention: the attention; its output has the shape of its first input.
        mlp: the plan of the MLP, from `branch` to `branch`; by default two linear layers with a GELU between them.
        scales: steps after the attention and after the MLP, such as those of layer scale.
    """
    b, *tokens, c = attention.input_shape
    letters = TOKENS[len(attention.input_shape)]
    sizes = {"b": b, **dict(zip(letters, tokens, strict=True)), "c": c}

    def of(*steps: Step) -> Plan:
        return Plan.of([on(letters, step) for step in steps], sizes, spec.itemsize)

    branch = {"branch": "branch"}
    if mlp is None:
        sizes["e"] = spec.hidden(c)
        mlp = of(expand, gelu.dropping(spec.proj_drop), contract.dropping(spec.proj_drop))
    whole = Plan.join(
        [
            of(norm1),
            attention_plan(spec, attention),
            of(*(scales or ())[:1], residual1, norm2),
            mlp.inside("mlp", takes=branch, makes=branch),
            of(*(scales or ())[1:], residual2),
        ]
    )
    return spec.checkpointed("block", whole)


def attention_plan(spec: ComposedSpec, attention: Spec, path: str = "attn", takes: str = "branch") -> Plan:
    """Return the plan of the attention of a block; other inputs are those of the block.

    Args:
        spec: the block or the network, which says what the backward recomputes.
        attention: the attention, whose output becomes `branch`.
        path: the path of the attention in the block.
        takes: the name of its first input in the block.
    """
    own = attention.plan()
    first, *others = inputs_of(own.sized)
    outside = {first: takes, **{name: name for name in others}}
    return spec.checkpointed("attention", own).inside(path, takes=outside, makes={own.sized[-1].makes[0]: "branch"})


def inputs_of(steps: tuple[SizedStep, ...]) -> list[str]:
    """Return the names of the tensors that steps take and none of them makes, in order."""
    made: set[str] = set()
    found: dict[str, None] = {}
    for step in steps:
        found |= dict.fromkeys(name for name in step.takes if name not in made)
        made.update(step.makes)
    return list(found)


def on(letters: tuple[str, ...], step: Step) -> Step:
    """Return a step of a sequence of n tokens for tokens on these axes."""
    return step if letters == ("n",) else step.spelled(n=" ".join(letters))
