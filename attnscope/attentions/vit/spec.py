"""What can be asked of ViT's attention, and what the paper says it costs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from attnscope.attentions.complexity import Complexity, global_attention, windowed_attention
from attnscope.attentions.heads import KV_HEADS, Headed
from attnscope.attentions.spec import option
from attnscope.core.errors import UsageError, nearest_multiples
from attnscope.core.neighbourhood import AllTokens
from attnscope.core.sizes import Pair, plural

FEWER = (7, 7)
"""Keys of a query, M², in the formula that is printed beside that of global attention: as many as in Swin."""
SUPPOSED, SAVING = "49 keys", "if each token attended to 7×7 = 49 keys"
"""The name of that formula, and its words. It is not W-MSA: a class token is in no window."""


@dataclass(frozen=True, kw_only=True)
class ViTSpec(Headed):
    """Multi-head self-attention over all tokens of an image (Dosovitskiy et al., arXiv 2010.11929, appendix A).

    The defaults are ViT-B/16 at 224 pixels: 196 patches and the class token, 768 channels, 12 heads.

    Raises:
        UsageError: a value is out of range, dim is not divisible by heads, heads not by kv_heads, an image side not by
            the patch's, or the number of tokens is given twice.
    """

    name: ClassVar[str] = "vit"
    title: ClassVar[str] = "ViT attention"
    SUMMARY: ClassVar[str] = "Global attention, as in ViT: every token looks at all."
    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "attnscope vit --dim 768 --heads 12",
        "attnscope vit --image 384 --no-time",
        "attnscope vit --tokens 1024 --json",
    )
    SIZE_FIELD: ClassVar[str] = "tokens"
    IS_PLAIN: ClassVar[bool] = True

    dim: int = option(768, "Channels of a token.")
    heads: int = option(12, "Attention heads.")
    kv_heads: int | None = option(None, KV_HEADS, shown="heads")
    image: Pair | None = option(None, "Side of the image in pixels, or HxW.", shown="224")
    patch: Pair | None = option(None, "Side of a patch in pixels, or HxW.", shown="16")
    cls: bool | None = option(None, "Put a class token in front of the patches.", shown="cls")
    tokens: int | None = option(None, "Number of tokens, in place of --image, --patch and --cls.", shown="197")

    def __post_init__(self) -> None:
        if self.tokens is None:
            for name, default in (("image", (224, 224)), ("patch", (16, 16)), ("cls", True)):
                if getattr(self, name) is None:
                    object.__setattr__(self, name, default)
        super().__post_init__()
        for one, other in self.contradictions({name: value for name, value in vars(self).items() if value is not None}):
            raise UsageError(f"{{{one}}} and {{{other}}} both set the number of tokens; give one of them")
        self.check_heads()
        for side, patch in zip(self.image or (), self.patch or (), strict=True):
            if side % patch:
                nearest = nearest_multiples(side, patch)
                raise UsageError(f"{{image}} {side} is not divisible by {{patch}} {patch}; nearest: {nearest}")

    @classmethod
    def contradictions(cls, given: Mapping[str, Any]) -> list[tuple[str, str]]:
        """The fields among these that both set the number of tokens."""
        return [("tokens", name) for name in ("image", "patch", "cls") if {"tokens", name} <= given.keys()]

    @property
    def sequence(self) -> int:
        """Tokens of one image: the patches and the class token."""
        if self.image is None or self.patch is None:
            assert self.tokens is not None
            return self.tokens
        return (self.image[0] // self.patch[0]) * (self.image[1] // self.patch[1]) + bool(self.cls)

    @property
    def neighbourhood(self) -> AllTokens:
        """All tokens of the image."""
        return AllTokens(self.sequence)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the module's input: (b, n, c)."""
        return self.batch, self.sequence, self.dim

    def of_size(self, size: int) -> "ViTSpec":
        """The same with `size` tokens."""
        return replace(self, tokens=size, image=None, patch=None, cls=None)

    def headline(self) -> list[str]:
        """What the reader should know of this Spec, in words."""
        heads = [plural(self.heads, "head"), *self.shared_heads()]
        return [plural(self.sequence, "token"), f"dim {self.dim}", *heads]

    def closed_form(self) -> dict[str, int]:
        """MACs of each step as the paper counts them: 4NC² + 2N²C in all (Liu et al., arXiv 2103.14030, equation 1).

        Where g heads of keys and values are shared it is 2NC² + 2NC·g·d + 2N²C (Ainslie et al., arXiv 2305.13245).
        """
        b, N, C, G = self.batch, self.sequence, self.dim, self.kv_dim
        attend = {"score": b * N**2 * C, "mix": b * N**2 * C}
        if self.kernel != "eager":
            attend = {"attend": sum(attend.values())}
        project = "project_grouped" if self.is_grouped else "project"
        return {project: b * N * C**2 + 2 * b * N * C * G, **attend, "output": b * N * C**2}

    def complexity(self) -> Complexity:
        """Return the formula of global attention, beside it what fewer keys for each token would cost."""
        own = global_attention(self.sequence, self.dim, self.kv_dim)
        fewer = windowed_attention(self.sequence, self.dim, FEWER, kv_dim=self.kv_dim, name=f"Ω({SUPPOSED})")
        return Complexity(self.batch, own, own, SAVING, supposed=fewer)

    def next_command(self) -> tuple[str, str]:
        """The command worth typing next, and why."""
        return "attnscope swin --window 7 --shift", "the same steps in shifted windows"
