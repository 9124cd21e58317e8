"""The operations of a network as counters see them, and how libraries call them.

A counter that hooks modules misses what a network calls as a function. What a tool prints for one network therefore
depends on whose code builds it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod

from attnscope.plan.plan import Plan, SizedStep

MODULE = "module"
"""Call of a module, such as nn.Linear."""
FUNCTION = "function"
"""Call of a function of torch.nn.functional, such as F.linear."""
METHOD = "method"
"""Call of torch.matmul, or of a method of a tensor."""
OPERATOR = "operator"
"""A Python operator, such as `q @ k`."""
STORED = "stored"
"""Call of a function that was looked up before a tool replaced it, such as `self.act = F.gelu`."""
FUSED = "scaled_dot_product_attention"
"""Part of a call of F.scaled_dot_product_attention."""
INSIDE = "nn.MultiheadAttention"
"""Part of an nn.MultiheadAttention, which computes outside of its submodules."""

KINDS = {
    "convolution": "convolution",
    "addmm": "linear",
    "mm": "linear",
    "bmm": "matmul",
    "native_layer_norm": "layer_norm",
    "native_batch_norm": "batch_norm",
    "_softmax": "softmax",
    "index": "table",
    "gelu": "gelu",
    "relu": "relu",
    "mean": "pool",
    "scaled_dot_product_attention": "attention",
}
"""The kind of an operation, by the name of its aten operator."""
ATTENTION = ("score", "softmax", "mix")
"""The steps between the projections of an attention."""


@dataclass(frozen=True)
class Operation:
    """An operation of a step, with the sums of its counts over all modules that run the step.

    Args:
        step: name of the step.
        path: path of the module that runs it, or of the first one.
        kind: one of KINDS.
        macs: its MACs.
        inputs: elements of its first input.
        elements: elements of its output.
        biases: elements of its output to which it adds a bias.
        rows: rows that it reduces, for a softmax.
        params: parameters, multiplied by the first size of the output: images or windows; positions, for a
            convolution; heads, for the table of a position bias.
    """

    step: str
    path: str
    kind: str
    macs: int
    inputs: int
    elements: int
    biases: int
    rows: int
    params: int


@dataclass(frozen=True)
class Library:
    """The code that builds a network, as far as counters distinguish it from others.

    Args:
        name: whose code it is.
        families: names of the Specs that it implements.
        calls: how it calls a step, by name; a step with parameters and a GELU is a module by default.
        own_norm: whether its norms are a subclass of nn.LayerNorm, which some counters do not recognize.
        pools: whether it averages tokens with a module.
        knows: whether ptflops has a rule for its attention.
    """

    name: str
    families: tuple[str, ...]
    calls: Mapping[str, str] = field(default_factory=dict)
    own_norm: bool = False
    pools: bool = False
    knows: bool = False

    def call_of(self, operation: Operation) -> str:
        """Return how the library calls an operation."""
        if operation.step in self.calls:
            return self.calls[operation.step]
        if operation.kind in ("convolution", "linear", "layer_norm", "batch_norm", "gelu", "relu") or (
            operation.kind == "pool" and self.pools
        ):
            return MODULE
        return OPERATOR


_BY_OPERATOR = {"score": OPERATOR, "softmax": MODULE, "mix": OPERATOR}
_BY_MATMUL = {"score": METHOD, "softmax": FUNCTION, "mix": METHOD}
_FUSED = dict.fromkeys(ATTENTION, FUSED)
_PROJECTED = {"project": FUNCTION, "output": FUNCTION}

LIBRARIES = (
    Library("timm", ("vit",), _FUSED, own_norm=True, knows=True),
    Library(
        "timm without fused attention",
        ("vit",),
        {"score": OPERATOR, "softmax": METHOD, "mix": OPERATOR},
        own_norm=True,
        knows=True,
    ),
    Library("timm", ("swin",), _BY_OPERATOR),
    Library("timm", ("swinv2",), {**_BY_OPERATOR, "project": FUNCTION, "gelu": FUNCTION}),
    Library("torchvision", ("vit",), dict.fromkeys((*ATTENTION, "project", "output"), INSIDE), knows=True),
    Library("torchvision", ("swin",), {**_BY_MATMUL, **_PROJECTED}, pools=True),
    Library("torchvision", ("swinv2",), {**_BY_MATMUL, **_PROJECTED, "score": OPERATOR}, pools=True),
    Library("Microsoft", ("swin",), _BY_OPERATOR, pools=True),
    Library("Microsoft", ("swinv2",), {**_BY_OPERATOR, "project": FUNCTION}, pools=True),
    Library("transformers", ("vit",), {**_FUSED, "gelu": STORED}),
    Library("transformers", ("swin",), {**_FUSED, "gelu": STORED, "add_bias": MODULE}, pools=True),
)
"""The libraries that build published networks, and how each calls the steps of attention."""


def operations_of(plan: Plan) -> list[Operation]:
    """Return the operations of the steps of a plan."""
    return [operation for step in plan.steps for operation in _operations(step)]


def _operations(step: SizedStep) -> Iterable[Operation]:
    params = sum(map(prod, step.weights.values()))
    has_bias = any(name.endswith("bias") for name in step.weights)
    times = step.times
    leading = step.outputs[0][0] if "b" in step.step.letters.outputs[0].axes[0].letters else 1
    for run in step.forward.runs:
        kind = KINDS.get(run.name)
        if kind is None:
            continue
        elements = prod(run.output)
        biases = elements if run.name == "addmm" or (kind == "convolution" and has_bias) else 0
        yield Operation(
            step=step.name,
            path=step.path,
            kind=kind,
            macs=times * run.macs,
            inputs=times * prod(run.inputs[0]),
            elements=times * elements,
            biases=times * biases,
            rows=times * (elements // run.output[-1]),
            params=times
            * {"convolution": run.macs + biases, "table": run.output[-1] * params}.get(kind, leading * params),
        )
        params = 0  # a step with several operations has its parameters once
