"""Options of multi-scale linear attention, and its cost by formula."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from attnscope.attentions.complexity import Complexity, Term, global_attention
from attnscope.attentions.heads import Headed
from attnscope.attentions.observed import LINEAR, Observed
from attnscope.attentions.spec import option
from attnscope.attentions.vit.spec import ViTSpec
from attnscope.core.axes import spell
from attnscope.core.errors import UsageError, nearest_multiples
from attnscope.core.formula import Expression, symbol
from attnscope.core.neighbourhood import Neighbourhood
from attnscope.core.sizes import Ints, Pair, plural, spell_pair

USUAL_SCALES = ((), (5,), (3,), (7,), (3, 5))
"""Scales of published networks, which `trace` compares with a module."""


@dataclass(frozen=True, slots=True)
class SummedKeys(Neighbourhood):
    """All tokens through a sum: no query is scored against a key."""

    kind: ClassVar[str] = "linear"

    count: int

    def describe(self, sized: bool = True) -> str:
        """Return `sum over all tokens`."""
        return "sum over all tokens"

    @property
    def tokens(self) -> int:
        """Return the number of queries of one image."""
        return self.count

    @property
    def keys(self) -> None:
        """Return None, since tokens have no scores."""
        return None


@dataclass(frozen=True, kw_only=True)
class LinearSpec(Headed):
    """ReLU linear attention at several scales, as in EfficientViT (Cai et al., arXiv 2205.14756, section 3.1).

    The defaults are the third stage of EfficientViT-B1 at 224 pixels: 14×14 tokens, 128 channels, heads of 16 channels,
    and one more scale of 5×5 tokens.

    Raises:
        UsageError: if a value is out of range or contradicts another one. dim must be divisible by head_dim. Scales must
            be odd. The kernel must be eager, since fused kernels compute a softmax.
    """

    name: ClassVar[str] = "linear"
    title: ClassVar[str] = "Linear attention"
    SUMMARY: ClassVar[str] = "Linear attention, as in EfficientViT: ReLU in place of softmax, at several scales."
    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "attnscope linear --resolution 14 --dim 128 --head-dim 16 --scales 5",
        "attnscope linear --resolution 64 --scales 3,5 --no-time",
    )
    LOOKS_AT: ClassVar[str] = "all tokens, through one sum of keys times values"
    GIVES_UP: ClassVar[str] = "softmax: weights are less sharp, and no pair of tokens has a score"
    PAPER: ClassVar[str] = "Cai et al., EfficientViT: Multi-Scale Linear Attention, arXiv 2205.14756"
    SIZE_FIELD: ClassVar[str] = "resolution"
    CHANNEL_AXIS: ClassVar[int] = 1
    kv_heads: ClassVar[None] = None  # type: ignore[misc]  # heads cannot share keys and values

    dim: int = option(128, "Embedding dimension.")
    head_dim: int = option(16, "Channels of a head.")
    resolution: Pair = option((14, 14), "Grid size in tokens.")
    scales: Ints = option((5,), "Side of the tokens that are aggregated for each further scale; must be odd.")
    qkv_bias: bool = option(False, "Add a bias to q, k and v.")
    qk_scale: float | None = option(None, "Not available: linear attention has no scores.", low=0.0, shown="none")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dim % self.head_dim:
            nearest = nearest_multiples(self.dim, self.head_dim)
            raise UsageError(
                f"{{dim}} must be divisible by {{head_dim}} {self.head_dim} (got {self.dim}); nearest: {nearest}"
            )
        for scale in self.scales:
            if scale % 2 == 0:
                raise UsageError(f"{{scales}} must be odd (got {scale}); nearest: {scale - 1} or {scale + 1}")
        for name, value, needed, why in (
            ("kernel", self.kernel, "eager", "linear attention"),
            ("qk_scale", self.qk_scale, None, "linear attention, which has no scores"),
            ("attn_drop", self.attn_drop, 0.0, "linear attention, which has no weights"),
        ):
            if value != needed:
                raise UsageError(f"{{{name}}} must be {'unset' if needed is None else needed} for {why} (got {value})")

    @classmethod
    def candidates(cls, seen: Observed) -> Iterator[dict[str, Any]]:
        """Yield the fields for the product of keys and values first, at one scale or more."""
        if seen.scope == LINEAR:
            for scales in USUAL_SCALES:
                dim = seen.inner_dim // (1 + len(scales))
                sizes = {"resolution": seen.grid, "scales": scales}
                yield {**sizes, "dim": dim, "head_dim": seen.inner_dim // seen.heads}

    @property
    def heads(self) -> int:  # type: ignore[override]
        """Return the number of heads of one scale."""
        return self.dim // self.head_dim

    @property
    def tokens(self) -> int:
        """Return the number of tokens of one image."""
        return self.resolution[0] * self.resolution[1]

    @property
    def neighbourhood(self) -> SummedKeys:
        """Return the sum over all tokens."""
        return SummedKeys(self.tokens)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Return the shape of the module's input, (b, c, height, width)."""
        return self.batch, self.dim, *self.resolution

    def headline(self) -> list[str]:
        """Describe this Spec in a few words each."""
        scales = ", ".join(f"{side}×{side}" for side in self.scales)
        heads = f"{plural(self.heads, 'head')} a scale"
        return [f"{spell(self.resolution)} tokens", f"dim {self.dim}", heads, f"scales 1×1, {scales}"]

    def closed_form(self) -> dict[str, int]:
        """Return the MACs of each step, for S further scales of s×s tokens and heads of d channels, in total

        3NC² + Σₛ(3s²NC + 3NCd) + 2N(1+S)C(d+1) + N(1+S)C².
        """
        b, N, C, d, parts = self.batch, self.tokens, self.dim, self.head_dim, 1 + len(self.scales)
        aggregate = sum(3 * side**2 * N * C + 3 * N * C * d for side in self.scales)
        attend = b * N * parts * C * (d + 1)
        return {
            "project": 3 * b * N * C**2,
            "aggregate": b * aggregate,
            "sum_context": attend,
            "apply_context": attend,
            "output": b * N * parts * C**2,
        }

    def complexity(self) -> Complexity:
        """Return the formulas of this attention and of global attention on the same tokens."""
        hw, C, d = symbol("hw", self.tokens), symbol("C", self.dim), symbol("d", self.head_dim)
        S = symbol("S", 1 + len(self.scales))
        own: Expression = 3 * hw * C**2
        for index, side in enumerate(self.scales):
            name = "s" if len(self.scales) == 1 else f"s{'₁₂₃₄₅₆₇₈₉'[index % 9]}"
            own = own + 3 * symbol(name, side) ** 2 * hw * C + 3 * hw * C * d
        own = own + 2 * S * hw * C * d + 2 * S * hw * C + S * hw * C**2
        return Complexity(
            batch=self.batch,
            own=Term("Ω(linear)", own),
            reference=global_attention(self.tokens, self.dim),
            saving="without scores",
        )

    def counterpart(self) -> ViTSpec:
        """Return global attention on the same tokens, the baseline for timing."""
        return ViTSpec(dim=self.dim, heads=self.heads, tokens=self.tokens, batch=self.batch, dtype=self.dtype)

    def next_command(self) -> tuple[str, str]:
        """Return the suggested next command and the reason for it."""
        return f"attnscope compare vit linear --resolution {spell_pair(self.resolution, 'x')}", "global attention"
