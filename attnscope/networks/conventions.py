"""Counting conventions, each a function of a network's plan: what papers and tools print for the same network.

Most sources say "FLOPs" or "GFLOPs" and mean MACs; they differ in the operations that they include. A tool that hooks
modules or functions also depends on the library whose code it counts.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TypeVar

from attnscope.attentions.spec import Spec
from attnscope.networks.maxvit.spec import MaxViTNetworkSpec
from attnscope.networks.operations import (
    ATTENTION,
    BIAS_MODULE,
    DECOMPOSED,
    EINSUM,
    FUNCTION,
    FUSED,
    INSIDE,
    LIBRARIES,
    MASKED,
    METHOD,
    MODULE,
    OPERATOR,
    OWN,
    SEQUENCE_POOL,
    Library,
    Operation,
    operations_of,
)
from attnscope.networks.spec import NetworkSpec
from attnscope.networks.swin.spec import SwinNetworkSpec
from attnscope.networks.vit.spec import ViTNetworkSpec
from attnscope.plan.plan import Plan

SpecType = TypeVar("SpecType", bound=Spec)

POOLING = ("pool", "adaptive_pool")
"""The kinds of operations that average tokens."""
POOLS = (MODULE, SEQUENCE_POOL)
"""The calls of a module that averages tokens."""
FUNCTIONS = (MODULE, OWN, FUNCTION)
"""The calls of a function of torch, also by a module."""
SDPA = (FUSED, MASKED, DECOMPOSED)
"""The calls of F.scaled_dot_product_attention."""
PER_NORM_ELEMENT = {"layer_norm": 5, "batch_norm": 2}
"""FLOPs that fvcore counts for each element of a norm and adds to the MACs."""


@dataclass(frozen=True)
class Counted:
    """A network as conventions count it.

    Args:
        operations: its operations.
        macs: its MACs.
        elementwise: its elementwise FLOPs.
        library: the library whose code a tool runs; None if a convention does not depend on it.
        spec: its Spec; None for a third-party module.
    """

    operations: Sequence[Operation]
    macs: int
    elementwise: int
    library: Library | None = None
    spec: Spec | None = None

    @classmethod
    def of(cls, spec: Spec, plan: Plan) -> "Counted":
        """Return what the plan of a Spec counts."""
        return cls(operations_of(plan), plan.macs, plan.other_flops, spec=spec)

    def total(self, count: str, *kinds: str) -> int:
        """Return the sum of a count over the operations of some kinds, or over all operations."""
        return sum([getattr(each, count) for each in self.operations if not kinds or each.kind in kinds])

    @property
    def attention(self) -> int:
        """Return the MACs of the products in attention, q·kᵀ and attn·v."""
        return self.total("macs", "matmul", "attention")

    @property
    def sdpa(self) -> int:
        """Return the MACs that are part of fused attention; SAM's products with positions are not."""
        return self.attention - self.positions

    @property
    def bias_mlp(self) -> int:
        """Return the MACs of Swin V2's MLP for the position bias."""
        return sum([each.macs for each in self.operations if each.step == "bias_mlp"])

    @property
    def positions(self) -> int:
        """Return the MACs of the products of queries with the decomposed positions of SAM."""
        return sum([each.macs for each in self.operations if each.step in ("row_bias", "column_bias")])

    @property
    def norms(self) -> int:
        """Return the number of elements that LayerNorms normalize."""
        return self.total("elements", "layer_norm")

    @property
    def fvcore(self) -> int:
        """Return what fvcore counts: the MACs, and FLOPs of the norms."""
        return self.macs + sum([each * self.total("elements", kind) for kind, each in PER_NORM_ELEMENT.items()])

    def called(self) -> Iterator[tuple[Operation, str]]:
        """Return each operation, with the biases that the library adds, and the way in which the library calls it."""
        assert self.library is not None
        for each in self.operations:
            own = replace(each, biases=each.learned_biases) if self.library.separate else each
            yield own, self.library.call_of(each)
            if self.library.looks_up:
                for macs in each.lookups:
                    yield replace(each, kind="matmul", macs=each.calls * macs, params=0), EINSUM

    def called_as(self, *calls: str) -> int:
        """Return the MACs of the operations that the library calls in one of these ways."""
        return sum([each.macs for each, call in self.called() if call in calls])


@dataclass(frozen=True)
class Convention:
    """A counting convention.

    Args:
        name: its name.
        says: what it counts or leaves out.
        total: its figure for a network; None if it does not apply.
        printed: whether papers and libraries print figures by it. Otherwise, only tools do.
        by_library: whether its figure depends on the library whose code is counted.
    """

    name: str
    says: str
    total: Callable[[Counted], int | None]
    printed: bool = False
    by_library: bool = False


def _with_norms(counted: Counted) -> int | None:
    return counted.fvcore if counted.fvcore != counted.macs else None


def _without_class_token(counted: Counted) -> int | None:
    spec = counted.spec
    if not isinstance(spec, ViTNetworkSpec) or not spec.is_whole or not spec.cls or spec.registers:
        return None
    return spec.batch * replace(spec, cls=False, distilled=False, pool=None).macs()


def _without_bias_mlp(counted: Counted) -> int | None:
    return counted.macs - counted.bias_mlp if counted.bias_mlp else None


def _without_positions(counted: Counted) -> int | None:
    return counted.macs - counted.positions if counted.positions else None


def _with_lookups(counted: Counted) -> int | None:
    """Count as fvcore on timm's ports of MaxViT, which look up each position bias by two products with one-hot matrices.

    They multiply a table of (h, 2P−1, 2P−1) by the matrices of the rows and of the columns, once for all images.
    """
    spec = counted.spec
    if not isinstance(spec, MaxViTNetworkSpec) or not spec.is_whole:
        return None
    return counted.fvcore + sum([each.calls * sum(each.lookups) for each in counted.operations])


def _microsoft(counted: Counted) -> int | None:
    """Count as `flops()` in Microsoft's code: windows without padding, LayerNorm, pooling, no bias MLP.

    It takes H·W/M² windows, also if M does not divide H and W.
    """
    spec = counted.spec
    if not isinstance(spec, SwinNetworkSpec) or not spec.is_whole:
        return None
    macs = counted.macs - counted.bias_mlp
    for stage in spec.stages:
        grid = spec.attention_of(stage, 0).windows
        within = sum(
            [
                each.macs
                for each in counted.operations
                if each.step in ("project", "score", "mix", "output") and each.path.startswith(f"layers.{stage.index}.")
            ]
        )
        macs -= within * (grid.tokens - stage.grid[0] * stage.grid[1]) // grid.tokens
    last = spec.stages[-1]
    return macs + counted.norms + 3 * spec.batch * last.grid[0] * last.grid[1] * last.dim


def _thop(counted: Counted) -> int:
    """Count as thop: modules of torch only; 4 for each element of a norm, and softmax and pooling as modules."""
    total = 0
    for each, call in counted.called():
        if call in (MODULE, SEQUENCE_POOL):
            norm, softmax, pool = 4 * each.elements, 3 * each.elements - each.rows, each.inputs + each.elements
            if each.kind == "adaptive_pool":  # thop divides the sides as floating-point numbers, and truncates
                given, made = each.shapes
                cell = prod([side / kept for side, kept in zip(given[2:], made[2:], strict=True)])
                pool = each.calls * int((cell + 1) * prod(made))
            counts = {**dict.fromkeys(PER_NORM_ELEMENT, norm), "softmax": softmax, **dict.fromkeys(POOLING, pool)}
            total += counts.get(each.kind, each.macs)
    return total


def _ptflops(counted: Counted) -> int:
    """Count as ptflops: modules with biases, torch.matmul, softmax; no F.linear and no `@`; GELU and pooling twice.

    A module and the function that it calls are counted one after the other. It has rules for timm's attention, whose
    projections it leaves out, and for nn.MultiheadAttention.
    """
    library, total = counted.library, 0
    assert library is not None
    for each, call in counted.called():
        if library.knows and each.step in ("project", "output", *ATTENTION):
            if call == INSIDE or each.step in ATTENTION:
                total += each.macs + each.biases
                total += each.elements if each.step in ("softmax", "mix") else 0  # the mix is as large as the queries
        elif each.kind == "layer_norm":
            total += each.elements if call == MODULE else 0
        elif each.kind == "batch_norm":
            total += 2 * each.elements if call == MODULE else 0
        elif each.kind in ("gelu", "relu"):
            total += each.elements * {MODULE: 2, OWN: 1, FUNCTION: 1}.get(call, 0)
        elif each.kind == "silu":
            total += each.elements if call in FUNCTIONS else 0
        elif each.kind in POOLING:
            total += each.inputs * {MODULE: 2, SEQUENCE_POOL: 2, OWN: 1}.get(call, 0)
        elif each.kind == "softmax":
            total += each.elements if call in (MODULE, FUNCTION) else 0
        elif each.kind == "matmul":
            total += each.macs if call == METHOD else 0
        elif call == MODULE:
            total += each.macs + each.biases
    return total


def _torchinfo(counted: Counted) -> int:
    """Count as torchinfo: the parameters of each module, multiplied by the first size of its output.

    Only for convolutions, these are all positions.
    """
    assert counted.library is not None
    total = 0
    for each, call in counted.called():
        if call in (MODULE, OWN):
            is_apart = counted.library.has_windows_apart(each) and each.kind != "convolution"
            total += each.params // (prod(each.windows or ()) if is_apart else 1)
        elif call == BIAS_MODULE:
            total += each.params * prod(each.windows or ())
    return total


def _einsum_flops(operation: Operation, of_mac: int = 2) -> int:
    """Return the FLOPs of calls of torch.einsum: each is what NumPy prints, one more than 2 for each MAC, in four digits.

    Args:
        operation: the operation.
        of_mac: 2, or 1 to halve the FLOPs of each call.
    """
    if not operation.macs:
        return 0  # another operation of the step
    printed = float(f"{2 * operation.macs // operation.calls + 1:.3e}")
    return operation.calls * (int(printed) * of_mac // 2)


def _deepspeed(counted: Counted) -> int:
    """Count FLOPs as DeepSpeed: 2 for each MAC, norms as fvcore, 1 for GELU, softmax and pooling."""
    total = 0
    for each, call in counted.called():
        total += {INSIDE: 0, EINSUM: _einsum_flops(each)}.get(call, 2 * each.macs)
        if each.kind == "convolution":
            total += each.biases
        elif each.kind in PER_NORM_ELEMENT:
            total += PER_NORM_ELEMENT[each.kind] * each.elements
        elif each.kind in ("gelu", "relu", "silu", "softmax") and call in FUNCTIONS:
            total += each.elements
        elif each.kind in POOLING and call in (OWN, *POOLS):
            total += each.inputs
    return total


def _calflops(counted: Counted) -> int:
    """Count as calflops: as DeepSpeed, but no `@` and no fused attention, and the projections of nn.MultiheadAttention."""
    total = _deepspeed(counted)
    for each, call in counted.called():
        if call == INSIDE:
            total += 2 * each.macs if each.kind == "linear" else 0
        elif call in (OPERATOR, *SDPA):
            total -= 2 * each.macs
    return total


def _flop_counter_eval(counted: Counted) -> int | None:
    """Count as FlopCounterMode in evaluation mode: nothing of nn.MultiheadAttention, which runs a fused operator."""
    inside = counted.called_as(INSIDE)
    return 2 * (counted.macs - inside) if inside else None


def _deepspeed_macs(counted: Counted) -> int | None:
    """Count MACs as DeepSpeed: nothing of nn.MultiheadAttention in evaluation mode, and nothing of torch.einsum."""
    total = sum([each.macs for each, call in counted.called() if call not in (INSIDE, EINSUM)])
    return None if total == counted.macs else total


def _flop_counter_fused(counted: Counted) -> int | None:
    """Count as FlopCounterMode without gradients."""
    fused = counted.called_as(FUSED, MASKED)
    return 2 * (counted.macs - fused) if fused else None


def _flop_counter_lookups(counted: Counted) -> int | None:
    """Count as FlopCounterMode on a network that looks up position biases by products."""
    total = 2 * sum([each.macs for each, _ in counted.called()])
    return None if total == 2 * counted.macs else total


def _fvcore_on(counted: Counted) -> int | None:
    """Count as fvcore: no fused attention, einsum rounded, and one for each element that nn.AdaptiveAvgPool2d averages."""
    total = counted.fvcore - counted.macs
    for each, call in counted.called():
        if call not in SDPA:
            total += _einsum_flops(each, of_mac=1) if call == EINSUM else each.macs
        if each.kind in POOLING and call == MODULE:
            total += each.inputs
    return None if total in (counted.fvcore, counted.fvcore - counted.sdpa) else total


def _aten_on(counted: Counted) -> int | None:
    """Count as ptflops with backend aten: no fused attention, and no bias that torch adds to the product afterwards."""
    assert counted.library is not None
    total = 0
    for each, call in counted.called():
        total += 0 if call == FUSED else each.macs
        total += 0 if counted.library.is_strided(each) else each.biases
    usual = counted.macs + counted.total("biases")
    return None if total in (usual, usual - counted.sdpa) else total


CONVENTIONS = (
    Convention("MACs", "multiply-accumulates of matmuls and convolutions", lambda c: c.macs, printed=True),
    Convention("FLOPs", "2 for each MAC, as FlopCounterMode", lambda c: 2 * c.macs),
    Convention(
        "fvcore: LayerNorm added",
        "MACs, 5 for each LayerNorm element, and 2 for each BatchNorm element",
        _with_norms,
        printed=True,
    ),
    Convention(
        "fvcore without SDPA",
        "as fvcore on a network with fused attention, which it counts as 0",
        lambda c: c.fvcore - c.sdpa,
        printed=True,
    ),
    Convention(
        "fvcore with position lookups",
        "as fvcore on a MaxViT whose position biases are products with one-hot matrices",
        _with_lookups,
        printed=True,
    ),
    Convention("MACs without the class token", "MACs of the patches alone", _without_class_token, printed=True),
    Convention(
        "MACs without the bias MLP",
        "MACs, without Swin V2's MLP for the position bias",
        _without_bias_mlp,
        printed=True,
    ),
    Convention(
        "MACs without the relative positions",
        "MACs, without the products of queries with the decomposed positions of SAM",
        _without_positions,
        printed=True,
    ),
    Convention(
        "Microsoft's flops()",
        "MACs without padding, LayerNorm and pooling added, the bias MLP left out",
        _microsoft,
        printed=True,
    ),
    Convention(
        "FLOPs with elementwise",
        "2 for each MAC, and the elementwise FLOPs of attnscope",
        lambda c: 2 * c.macs + c.elementwise,
    ),
    Convention(
        "MACs with biases",
        "as ptflops with backend aten: 1 more for each bias that is added",
        lambda c: c.macs + c.total("biases"),
    ),
    Convention(
        "MACs with biases, without SDPA",
        "as ptflops with backend aten on a network with fused attention",
        lambda c: c.macs + c.total("biases") - c.sdpa,
    ),
    Convention(
        "MACs of convolutions and linear layers",
        "as hooks of modules, which miss the products in attention",
        lambda c: c.macs - c.attention,
        printed=True,
    ),
    Convention("thop", "modules only", _thop, by_library=True),
    Convention(
        "ptflops",
        "modules with biases, GELU and pooling twice, but no F.linear and no @",
        _ptflops,
        by_library=True,
    ),
    Convention(
        "torchinfo's mult-adds",
        "parameters of each module, times the first size of its output",
        _torchinfo,
        by_library=True,
    ),
    Convention(
        "DeepSpeed's FLOPs",
        "2 for each MAC, 5 for each LayerNorm element, 1 for each of GELU",
        _deepspeed,
        by_library=True,
    ),
    Convention(
        "calflops' FLOPs",
        "as DeepSpeed, but no @ and no fused attention",
        _calflops,
        by_library=True,
    ),
    Convention(
        "fvcore",
        "as fvcore, with the input of nn.AdaptiveAvgPool2d and rounded einsum, but no fused attention",
        _fvcore_on,
        by_library=True,
    ),
    Convention(
        "ptflops with backend aten",
        "MACs with biases, but no fused attention and no bias after a strided input",
        _aten_on,
        by_library=True,
    ),
    Convention(
        "FlopCounterMode without SDPA",
        "FLOPs, but fused attention counts as 0",
        _flop_counter_fused,
        by_library=True,
    ),
    Convention(
        "FlopCounterMode with position lookups",
        "FLOPs, and those of products with one-hot matrices that look up position biases",
        _flop_counter_lookups,
        by_library=True,
    ),
    Convention(
        "FlopCounterMode in evaluation mode",
        "FLOPs, but nn.MultiheadAttention counts as 0",
        _flop_counter_eval,
        by_library=True,
    ),
    Convention(
        "DeepSpeed's MACs",
        "MACs, but nn.MultiheadAttention and torch.einsum count as 0",
        _deepspeed_macs,
        by_library=True,
    ),
)
"""All conventions, the usual ones first."""


def conventions(spec: NetworkSpec, plan: Plan) -> dict[str, int]:
    """Return the total of the whole network by each convention that papers and libraries print, the MACs first."""
    counted = Counted.of(spec, plan)
    totals = {each.name: each.total(counted) for each in CONVENTIONS if each.printed}
    return {name: total for name, total in totals.items() if total is not None}


@dataclass(frozen=True)
class Count:
    """The figure of a convention: its name, with the library if it matters, what it counts, and the figure.

    `printed` is whether papers and libraries print figures by it.
    """

    name: str
    says: str
    figure: int
    printed: bool


def counts_of(counted: Counted, libraries: Sequence[Library]) -> list[Count]:
    """Return what every convention gives for a network, in the code of each of these libraries."""
    found = []
    for convention in CONVENTIONS:
        for library in libraries if convention.by_library else [None]:
            figure = convention.total(replace(counted, library=library))
            if figure is not None:
                name = f"{convention.name} on {library.name}" if library and library.name else convention.name
                found.append(Count(name, convention.says, figure, convention.printed))
    return found


def counts_per_image(spec: Spec) -> list[Count]:
    """Return what every convention gives for one image of a network, or of its part, in every library that has it."""
    single = one_image(spec)
    libraries = [each for each in LIBRARIES if spec.code in each.families and spec.is_in(each.name)]
    return counts_of(Counted.of(single, single.plan()), libraries)


def one_image(spec: SpecType) -> SpecType:
    """Return a Spec for one image with unfused attention, whose steps papers and tools count."""
    return replace(spec, batch=1, kernel="eager")
