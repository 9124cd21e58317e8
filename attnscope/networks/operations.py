"""The operations of a network as counters see them, and how libraries call them.

A counter that hooks modules misses what a network calls as a function. What a tool prints for one network therefore
depends on whose code builds it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from math import prod
from types import MappingProxyType
from typing import Any

from attnscope.core.axes import Shape
from attnscope.ops.tape import Run
from attnscope.plan.plan import Plan, SizedStep

MODULE = "module"
"""Call of a module of torch, such as nn.Linear."""
OWN = "own module"
"""Call of a module of the library, such as timm's LayerNorm, which counters that compare classes do not recognize."""
NESTED = "own module with children"
"""Call of a module of the library that has modules of its own, such as timm's batch norm, to which it adds a GELU."""
BIAS_MODULE = "own module of a position bias"
"""Call of a module of the library that adds its table of biases to the scores of all windows."""
SEQUENCE_POOL = "nn.AdaptiveAvgPool1d"
"""Call of a pooling module for sequences, which fvcore does not count."""
FUNCTION = "function"
"""Call of a function of torch.nn.functional, such as F.linear."""
METHOD = "method"
"""Call of torch.matmul, or of a method of a tensor."""
EINSUM = "torch.einsum"
"""Call of torch.einsum, whose cost counters take from NumPy, in four digits."""
OPERATOR = "operator"
"""A Python operator, such as `q @ k`."""
STORED = "stored"
"""Call of a function that was looked up before a tool replaced it, such as `self.act = F.gelu`."""
FUSED = "scaled_dot_product_attention"
"""Part of a call of F.scaled_dot_product_attention."""
MASKED = "scaled_dot_product_attention with a learned bias"
"""The same with a mask that has a gradient: torch computes it by products and a softmax, unless gradients are off."""
DECOMPOSED = "scaled_dot_product_attention by products"
"""The same with tensors that torch has no fused kernel for, so that it always computes products and a softmax."""
INSIDE = "nn.MultiheadAttention"
"""Part of an nn.MultiheadAttention, which computes outside of its submodules."""

KINDS = {
    "convolution": "convolution",
    "addmm": "linear",
    "mm": "linear",
    "bmm": "matmul",
    "baddbmm": "matmul",
    "native_layer_norm": "layer_norm",
    "native_batch_norm": "batch_norm",
    "_softmax": "softmax",
    "index": "table",
    "gelu": "gelu",
    "relu": "relu",
    "silu": "silu",
    "mean": "pool",
    "_adaptive_avg_pool2d": "adaptive_pool",
    "scaled_dot_product_attention": "attention",
}
"""The kind of an operation, by the name of its aten operator."""
MODULES = ("convolution", "linear", "layer_norm", "batch_norm", "gelu", "relu", "silu", "adaptive_pool")
"""The kinds of operations that libraries call as modules of torch by default."""
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
        learned_biases: those of them whose bias is learned; without a bias of k, that of k is 0.
        rows: rows that it reduces, for a softmax.
        params: parameters, multiplied by the first size of the output: images or windows; positions, for a
            convolution; heads, for the table of a position bias.
        windows: the rows and the columns of the windows of an image, if windows are images to the step, else None.
        calls: the number of modules that run it.
        shapes: the shapes of its first input and of its output, in one call.
        lookups: the MACs of two products with one-hot matrices, of rows and of columns, that look up a table of position
            biases in one call.
    """

    step: str
    path: str
    kind: str
    macs: int
    inputs: int
    elements: int
    biases: int
    learned_biases: int
    rows: int
    params: int
    windows: tuple[int, int] | None
    calls: int
    shapes: tuple[Shape, Shape]
    lookups: tuple[int, ...]

    @property
    def has_stride(self) -> bool:
        """Return whether a convolution has fewer places in its output than in its input."""
        given, made = self.shapes
        return self.kind == "convolution" and prod(made[2:]) < prod(given[2:])

    @property
    def keys(self) -> tuple[str, str, str]:
        """Return its names in a Library: with the part of the network, alone, and the kind."""
        return f"{self.path.partition('.')[0]}.{self.step}", self.step, self.kind


@dataclass(frozen=True)
class Library:
    """The code that builds a network, as far as counters distinguish it from others.

    Args:
        name: whose code it is.
        families: the Specs that it implements, by their `code`.
        calls: how it calls a step, by its name in a part of the network (`cls_attn_blocks.score`), its name or the kind
            of its operation. A step with parameters and an activation are modules of torch by default.
        strided: whether the input of a linear layer, named as in `calls`, is not contiguous. Torch then adds the bias by
            an operator of its own. A single column of windows is contiguous.
        windows_apart: the least number of windows that have an axis of their own, after that of the images; None if windows
            are images. Such layers have the number of images as the first size of their output, and torch has no fused
            kernel for such attention.
        separate: whether it projects queries, keys and values by a module each; that of the keys may have no bias.
        knows: whether ptflops has a rule for its attention.
        pads_itself: whether its convolutions with a stride are modules of its own, which pad as TensorFlow does.
        looks_up: whether it looks up position biases by products with one-hot matrices, as calls of torch.einsum.
    """

    name: str
    families: tuple[str, ...]
    calls: Mapping[str, str] = field(default_factory=dict)
    strided: Mapping[str, bool] = field(default_factory=dict)
    windows_apart: int | None = None
    separate: bool = False
    knows: bool = False
    pads_itself: bool = False
    looks_up: bool = False

    def call_of(self, operation: Operation) -> str:
        """Return how the library calls an operation."""
        if operation.kind == "convolution":
            return OWN if self.pads_itself and operation.has_stride else MODULE
        default = MODULE if operation.kind in MODULES else OPERATOR
        call = next((self.calls[key] for key in operation.keys if key in self.calls), default)
        return DECOMPOSED if call == FUSED and self.has_windows_apart(operation) else call

    def has_windows_apart(self, operation: Operation) -> bool:
        """Return whether the windows of an operation have an axis of their own."""
        least, windows = self.windows_apart, operation.windows
        return least is not None and windows is not None and prod(windows) >= least

    def is_strided(self, operation: Operation) -> bool:
        """Return whether the input of a linear layer is not contiguous."""
        is_strided = next((self.strided[key] for key in operation.keys if key in self.strided), False)
        return is_strided and (operation.windows is None or operation.windows[1] > 1)


_BY_OPERATOR = {"score": OPERATOR, "softmax": MODULE, "mix": OPERATOR}
_BY_MATMUL = {"score": METHOD, "softmax": FUNCTION, "mix": METHOD}
_BY_METHOD = {"score": OPERATOR, "softmax": METHOD, "mix": OPERATOR}
_FUSED = dict.fromkeys(ATTENTION, FUSED)
_PROJECTED = {"project": FUNCTION, "output": FUNCTION}
_SAM = {
    **dict.fromkeys(("row_bias", "column_bias"), EINSUM),
    **dict.fromkeys(("norm", "norm_reduced", "norm_smoothed"), OWN),
    "pool": MODULE,
}
_MAXVIT = {
    **dict.fromkeys(("layer_norm", "gelu", "adaptive_pool"), OWN),
    "batch_norm": NESTED,
    "squeeze": METHOD,
    "pool": MODULE,
}
_PVT = dict.fromkeys(("norm1", "norm2", "norm"), OWN)


def _timm(
    family: str,
    calls: Mapping[str, str],
    fused: str = FUSED,
    within: str = "",
    bias: Mapping[str, str] = MappingProxyType({}),
    **others: Any,
) -> tuple[Library, Library]:
    """Return timm's code for a family with fused attention, which is its default, and without.

    Args:
        family: the `code` of its Specs.
        calls: how it calls the steps outside of attention.
        fused: how it calls fused attention.
        within: the part of the network that has it, with a dot; by default all.
        bias: how it calls the step that adds a position bias, without fused attention.
        others: other arguments of the libraries.
    """
    in_part = {f"{within}{step}": fused for step in ATTENTION}
    return (
        Library("timm", (family,), {**_BY_METHOD, **in_part, **calls}, **others),
        Library("timm without fused attention", (family,), {**_BY_METHOD, **bias, **calls}, **others),
    )


LIBRARIES = (
    *_timm("vit", {"layer_norm": OWN}, knows=True),
    Library("timm", ("swin",), _BY_OPERATOR),
    Library("timm", ("swinv2",), {**_BY_OPERATOR, "project": FUNCTION, "gelu": FUNCTION}),
    *_timm("pvt", _PVT, strided={"contract": True}),
    *_timm("pvt-li", _PVT),
    *_timm("hiera", {"layer_norm": OWN}, windows_apart=2),
    *_timm("sam", _SAM, fused=MASKED),
    *_timm("xca", {}, within="cls_attn_blocks.", strided={"output": True, "cls_attn_blocks.output": False}),
    *_timm("twins", {}, strided={"project": True}, windows_apart=1),
    *_timm("maxvit", _MAXVIT, fused=DECOMPOSED, bias={"add_bias": BIAS_MODULE}, pads_itself=True, looks_up=True),
    *_timm("eva", {"layer_norm": OWN}),
    *_timm("eva-fused", {"layer_norm": OWN, "project": FUNCTION}),
    *_timm("eva-separate", {"layer_norm": OWN}, separate=True),
    Library("torchvision", ("vit",), dict.fromkeys((*ATTENTION, "project", "output"), INSIDE), knows=True),
    Library("torchvision", ("swin",), {**_BY_MATMUL, **_PROJECTED, "pool": MODULE}),
    Library("torchvision", ("swinv2",), {**_BY_MATMUL, **_PROJECTED, "score": OPERATOR, "pool": MODULE}),
    Library("Microsoft", ("swin",), {**_BY_OPERATOR, "pool": SEQUENCE_POOL}),
    Library("Microsoft", ("swinv2",), {**_BY_OPERATOR, "project": FUNCTION, "pool": SEQUENCE_POOL}),
    Library("transformers", ("vit",), {**_FUSED, "gelu": STORED}),
    Library("transformers", ("swin",), {**_FUSED, "gelu": STORED, "add_bias": MODULE, "pool": SEQUENCE_POOL}),
)
"""The libraries that build published networks, and how each calls the steps of attention."""


def operations_of(plan: Plan) -> list[Operation]:
    """Return the operations of the steps of a plan."""
    return [operation for step in plan.steps for operation in _operations(step)]


def _operations(step: SizedStep) -> Iterable[Operation]:
    params = sum(map(prod, step.weights.values()))
    has_bias = any(name.endswith("bias") for name in step.weights)
    times = step.times
    first = step.step.letters.outputs[0].axes[0].letters
    leading = step.outputs[0][0] if "b" in first else 1
    rows, columns = first[1:] if len(first) == 3 else (None, None)
    windows = (step.sizes[rows], step.sizes[columns]) if rows and columns else None
    runs = step.forward.runs
    for run, after in zip_longest(runs, runs[1:]):
        kind = KINDS.get(run.name)
        if kind is None:
            continue
        elements = prod(run.output)
        adds_bias = run.name == "addmm" or (kind == "linear" and after is not None and _adds_bias(after))
        biases = elements if adds_bias or (kind == "convolution" and has_bias) else 0
        channels = sum([prod(shape) for name, shape in step.weights.items() if name.endswith("bias")])
        yield Operation(
            step=step.name,
            path=step.path,
            kind=kind,
            macs=times * run.macs,
            inputs=times * prod(run.inputs[0]),
            elements=times * elements,
            biases=times * biases,
            learned_biases=times * (biases * channels // run.output[-1] if adds_bias else biases),
            rows=times * (elements // run.output[-1]),
            params=times
            * {"convolution": run.macs + biases, "table": run.output[-1] * params}.get(kind, leading * params),
            windows=windows,
            calls=times,
            shapes=(run.inputs[0], run.output),
            lookups=_lookups(step) if kind == "table" else (),
        )
        params = 0  # a step with several operations has its parameters once


def _adds_bias(run: Run) -> bool:
    """Return whether an operator adds the bias of a linear layer, whose input was not contiguous."""
    return run.name == "add" and run.inputs[-1] == run.output[-1:]


def _lookups(step: SizedStep) -> tuple[int, ...]:
    """Return the MACs of two products that look up the biases of p × q tokens in a table of (2p−1) × (2q−1) × heads."""
    h, t, u = (step.sizes.get(letter, 0) for letter in "htu")
    p, q = (t + 1) // 2, (u + 1) // 2
    return h * p**2 * t * u, h * p**2 * q**2 * u
