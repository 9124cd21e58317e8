"""Options of separable attention, and its cost by formula."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from attnscope.attentions.complexity import Complexity, Term, global_attention
from attnscope.attentions.observed import SEPARABLE, Observed
from attnscope.attentions.spec import Spec, option
from attnscope.attentions.vit.spec import ViTSpec
from attnscope.core.axes import spell
from attnscope.core.errors import UsageError
from attnscope.core.formula import symbol
from attnscope.core.neighbourhood import Neighbourhood
from attnscope.core.sizes import Pair, check_divisible, spell_pair


@dataclass(frozen=True, slots=True)
class SummedAcrossPatches(Neighbourhood):
    """The tokens at the same place in each patch, through a sum: no query is scored against a key."""

    kind: ClassVar[str] = "linear"
    field: ClassVar[str] = "patch"
    cells: ClassVar[str] = "patches"
    described: ClassVar[tuple[str, ...]] = ("patch",)

    height: int
    width: int
    patch: Pair

    def describe(self, sized: bool = True) -> str:
        """Return a phrase such as `sum over 2×2 patches`."""
        return f"sum over {spell(self.patch)} patches" if sized else "sum over patches"

    @property
    def tokens(self) -> int:
        """Return the number of queries of one image."""
        return self.height * self.width

    @property
    def keys(self) -> None:
        """Return None, since pairs of tokens have no scores."""
        return None

    @property
    def alignment(self) -> Pair:
        """Return the sides of a patch, which must divide those of the grid."""
        return self.patch

    def reach(self, axis: int, side: int) -> Sequence[range]:
        """Return, for each token along an axis, the tokens at its place in each patch."""
        step = self.patch[axis]
        return [range(token % step, side, step) for token in range(side)]

    def cell(self, axis: int, place: int) -> int:
        """Return the number of the patch of a token along an axis."""
        return place // self.patch[axis]


@dataclass(frozen=True, kw_only=True)
class SeparableSpec(Spec):
    """Separable attention of MobileViT v2 (Mehta and Rastegari, arXiv 2206.02680, section 3).

    The defaults are the first attention of MobileViT v2 1.0 at 256 pixels: 32×32 tokens, embedding dimension 128,
    patches of 2×2 tokens.

    Raises:
        UsageError: if a value is out of range or contradicts another one. The grid must be divisible by the patch. The
            kernel must be eager, since fused kernels score pairs of tokens.
    """

    name: ClassVar[str] = "separable"
    title: ClassVar[str] = "Separable attention"
    SUMMARY: ClassVar[str] = "Separable attention, as in MobileViT v2: one score for each token."
    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "attnscope separable --resolution 32 --dim 128",
        "attnscope separable --resolution 16 --dim 192 --patch 1 --no-time",
    )
    LOOKS_AT: ClassVar[str] = "the tokens at its place in each patch, through one weighted sum of keys"
    GIVES_UP: ClassVar[str] = "scores of pairs: all tokens of a place read the same context vector"
    PAPER: ClassVar[str] = "Mehta and Rastegari, Separable Self-attention for MobileViT, arXiv 2206.02680"
    PICTURED: ClassVar[tuple[str, ...]] = ("patch",)
    SIZE_FIELD: ClassVar[str] = "resolution"
    CHANNEL_AXIS: ClassVar[int] = 1

    dim: int = option(128, "Embedding dimension.")
    resolution: Pair = option((32, 32), "Grid size in tokens.")
    patch: Pair = option((2, 2), "Size of a patch in tokens; the sum has one token of each patch.")
    qk_scale: float | None = option(
        None, "Not available: separable attention has no scores of pairs.", low=0.0, shown="none"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_divisible("resolution", self.resolution, self.patch, by="patch")
        for name, value, needed in (("kernel", self.kernel, "eager"), ("qk_scale", self.qk_scale, None)):
            if value != needed:
                raise UsageError(
                    f"{{{name}}} must be {'unset' if needed is None else needed} for separable attention, "
                    f"which has no scores of pairs (got {value})"
                )

    @classmethod
    def candidates(cls, seen: Observed) -> Iterator[dict[str, Any]]:
        """Yield the fields for one score for each token, over the tokens at the same place in each patch."""
        if seen.scope == SEPARABLE:
            yield {"resolution": seen.sides, "dim": seen.dim, "patch": seen.window}

    @property
    def tokens(self) -> int:
        """Return the number of tokens of one image."""
        return self.resolution[0] * self.resolution[1]

    @property
    def neighbourhood(self) -> SummedAcrossPatches:
        """Return the sum over the tokens at the same place in each patch."""
        return SummedAcrossPatches(*self.resolution, self.patch)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Return the shape of the module's input, (b, c, height, width)."""
        return self.batch, self.dim, *self.resolution

    def headline(self) -> list[str]:
        """Describe this Spec in a few words each."""
        return [f"{spell(self.resolution)} tokens", f"dim {self.dim}", f"patch {spell_pair(self.patch)}"]

    def closed_form(self) -> dict[str, int]:
        """Return the MACs of each step: NC(1 + 2C) + NC² in total; the weighted sum is elementwise."""
        b, N, C = self.batch, self.tokens, self.dim
        return {"project": b * N * C * (1 + 2 * C), "output": b * N * C**2}

    def complexity(self) -> Complexity:
        """Return the formulas of this attention and of global attention on the same tokens."""
        hw, C = symbol("hw", self.tokens), symbol("C", self.dim)
        return Complexity(
            batch=self.batch,
            own=Term("Ω(separable)", 3 * hw * C**2 + hw * C),
            reference=global_attention(self.tokens, self.dim),
            saving="without scores of pairs",
        )

    def counterpart(self) -> ViTSpec:
        """Return global attention with one head on the same tokens, the baseline for timing."""
        return ViTSpec(dim=self.dim, heads=1, tokens=self.tokens, batch=self.batch, dtype=self.dtype)

    def next_command(self) -> tuple[str, str]:
        """Return the suggested next command and the reason for it."""
        resolution = spell_pair(self.resolution, "x")
        return f"attnscope compare vit linear separable --resolution {resolution}", "global and linear attention"
