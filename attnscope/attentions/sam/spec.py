"""Options of attention with decomposed relative positions, and its cost by formula."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from attnscope.attentions.complexity import Complexity, Term, global_attention, padded_tokens, projections, window_keys
from attnscope.attentions.heads import Headed
from attnscope.attentions.observed import Observed
from attnscope.attentions.spec import option
from attnscope.attentions.vit.spec import ViTSpec, on_the_same_tokens
from attnscope.core.axes import spell
from attnscope.core.errors import UsageError
from attnscope.core.formula import symbol
from attnscope.core.neighbourhood import AllTokens, Neighbourhood
from attnscope.core.sizes import Pair, plural, spell_pair
from attnscope.core.windows import Windows


@dataclass(frozen=True, kw_only=True)
class SAMSpec(Headed):
    """Attention with decomposed relative positions (Li et al., arXiv 2203.16527, section 3; SAM, arXiv 2304.02643).

    The defaults are a windowed layer of SAM ViT-B at 1024 pixels: 64×64 tokens in windows of 14×14, padded to 70×70,
    embedding dimension 768, 12 heads. The padding takes part in the softmax, as in SAM.

    Raises:
        UsageError: if a value is out of range or contradicts another one. dim must be divisible by heads.
    """

    name: ClassVar[str] = "sam"
    title: ClassVar[str] = "SAM attention"
    SUMMARY: ClassVar[str] = "Decomposed relative positions, as in ViTDet and SAM; windowed or global."
    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "attnscope sam --resolution 64 --window 14",
        "attnscope sam --resolution 64 --window 0 --no-time",
    )
    LOOKS_AT: ClassVar[str] = "the tokens of its window, or all tokens"
    GIVES_UP: ClassVar[str] = "a shift: windows exchange information only in the few global layers"
    PAPER: ClassVar[str] = (
        "Li et al., Exploring Plain ViT Backbones for Object Detection, arXiv 2203.16527; SAM, arXiv 2304.02643"
    )
    SIZE_FIELD: ClassVar[str] = "resolution"
    PICTURED: ClassVar[tuple[str, ...]] = ("window",)
    kv_heads: ClassVar[None] = None  # type: ignore[misc]  # heads cannot share keys and values

    dim: int = option(768, "Embedding dimension.")
    heads: int = option(12, "Number of attention heads.")
    resolution: Pair = option((64, 64), "Grid size in tokens.")
    window: Pair = option((14, 14), "Window size in tokens; 0 is global attention.", low=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_heads()
        if any(self.window) and not all(self.window):
            raise UsageError(f"{{window}} must be 0 or at least 1 on both axes (got {spell_pair(self.window, 'x')})")

    @property
    def is_global(self) -> bool:
        """Return whether all tokens attend to each other."""
        return not any(self.window)

    @classmethod
    def candidates(cls, seen: Observed) -> Iterator[dict[str, Any]]:
        """Yield the fields for attention in windows, or to all tokens of a grid."""
        if seen.is_global or (seen.is_windowed and not seen.is_dilated):
            window = seen.window if seen.is_windowed else (0, 0)
            yield {"resolution": seen.sides, "window": window, "dim": seen.dim, "heads": seen.heads}

    @property
    def windows(self) -> Windows:
        """Return the geometry of the windows; global attention is one window of the size of the grid."""
        return Windows(*self.resolution, self.resolution if self.is_global else self.window)

    @property
    def neighbourhood(self) -> Neighbourhood:
        """Return the tokens of the query's window, or all tokens."""
        return AllTokens(self.windows.tokens) if self.is_global else self.windows

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Return the shape of the module's input, (b, height, width, c)."""
        return self.batch, *self.resolution, self.dim

    def headline(self) -> list[str]:
        """Describe this Spec in a few words each."""
        reach = "global" if self.is_global else f"window {spell_pair(self.window)}"
        return [f"{spell(self.resolution)} tokens", f"dim {self.dim}", plural(self.heads, "head"), reach]

    def is_in(self, library: str) -> bool:
        """Return whether the options are those of timm: square windows."""
        return self.window[0] == self.window[1]

    def closed_form(self) -> dict[str, int]:
        """Return the MACs of each step: 4NC² + 2M²NC + (p + q)NC in total, where N includes the padding.

        The last term is the decomposed positions of windows of M² = p×q tokens.
        """
        b, N, C, (p, q) = self.batch, self.windows.tokens, self.dim, self.windows.window
        attend = {"score": b * p * q * N * C, "mix": b * p * q * N * C}
        if self.kernel != "eager":
            attend = {"attend": sum(attend.values())}
        positions = {"row_bias": b * N * C * p, "column_bias": b * N * C * q}
        return {"project": 3 * b * N * C**2, **positions, **attend, "output": b * N * C**2}

    def complexity(self) -> Complexity:
        """Return the formulas of this attention and of global attention without positions on the same tokens."""
        tokens, (p, q) = self.resolution[0] * self.resolution[1], self.windows.window
        hw, C = padded_tokens((tokens,), (self.windows.tokens,)), symbol("C", self.dim)
        sides = 2 * symbol("M", p) if p == q else symbol("p", p) + symbol("q", q)
        keys = hw if self.is_global else window_keys((p, q))
        return Complexity(
            batch=self.batch,
            own=Term("Ω(SAM)", projections(hw, C, C) + 2 * keys * hw * C + sides * hw * C),
            reference=global_attention(tokens, self.dim),
            saving="with decomposed positions" if self.is_global else "in windows",
        )

    def cautions(self) -> list[str]:
        """Return a note about padding."""
        return self.windows.padding_notes()

    def counterpart(self) -> ViTSpec:
        """Return global attention without positions on the same tokens, the baseline for timing."""
        return on_the_same_tokens(self, self.resolution[0] * self.resolution[1])

    def next_command(self) -> tuple[str, str]:
        """Return the suggested next command and the reason for it."""
        if not self.is_global:
            return self.command(window=(0, 0)), "the global layers of the same network"
        return f"attnscope compare vit sam sam:window=0 --resolution {spell_pair(self.resolution, 'x')}", "the cost"
