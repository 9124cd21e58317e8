"""What can be asked of ViT and DeiT, and what the papers say they cost."""

from dataclasses import dataclass, replace
from typing import ClassVar

from attnscope.attentions.complexity import Complexity, Term, window_keys
from attnscope.attentions.heads import KV_HEADS
from attnscope.attentions.spec import option
from attnscope.attentions.vit.spec import FEWER, SAVING, SUPPOSED, ViTSpec
from attnscope.core.errors import UsageError
from attnscope.core.formula import Expression, symbol
from attnscope.core.sizes import plural
from attnscope.networks.spec import DEEPEST, NetworkSpec


@dataclass(frozen=True, kw_only=True)
class ViTNetworkSpec(NetworkSpec):
    """ViT (Dosovitskiy et al., arXiv 2010.11929) and DeiT (Touvron et al., arXiv 2012.12877).

    The defaults are ViT-B/16 at 224 pixels.

    Raises:
        UsageError: a value is out of range, dim is not divisible by heads, heads not by kv_heads, an image side not by the
            patch's, or the block is not there.
    """

    name: ClassVar[str] = "vit"
    title: ClassVar[str] = "ViT"
    SUMMARY: ClassVar[str] = "ViT and DeiT, whole or in blocks."

    dim: int = option(768, "Channels of a token.")
    heads: int = option(12, "Attention heads.")
    kv_heads: int | None = option(None, KV_HEADS, shown="heads")
    depth: int = option(12, "Blocks.", high=DEEPEST)
    cls: bool = option(True, "Put a class token in front of the patches.")
    distilled: bool = option(False, "A second token, with a head of its own, as in DeiT distilled.")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.hidden(self.dim)  # refuses a ratio that leaves none
        self.check_index("block", self.block, self.depth)
        if self.distilled and not self.cls:
            raise UsageError("{distilled} needs the class token that {no_cls} takes away; leave one of them out")
        self.attention()

    @property
    def prefix(self) -> int:
        """Tokens in front of the patches."""
        return self.cls + self.distilled

    @property
    def tokens(self) -> int:
        """Tokens of one image: the patches and those in front of them."""
        return self.grid[0] * self.grid[1] + self.prefix

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the module's input: images for the whole network, (b, n, c) for a block."""
        return self.image_shape if self.is_whole else (self.batch, self.tokens, self.dim)

    def attention(self) -> ViTSpec:
        """The attention of every block."""
        heads = {"dim": self.dim, "heads": self.heads, "kv_heads": self.kv_heads, **self.shared()}
        if self.distilled:  # one more token than an image, its patches and a class token say
            return ViTSpec(tokens=self.tokens, **heads)
        return ViTSpec(image=self.image, patch=self.patch, cls=self.cls, **heads)

    def of_size(self, size: int) -> "ViTNetworkSpec":
        """The same with images of `size` patches on a side."""
        return replace(self, image=(size * self.patch[0], size * self.patch[1]))

    def headline(self) -> list[str]:
        """What the reader should know of this Spec, in words."""
        (height, width), (p, q) = self.image, self.patch
        if not self.is_whole:
            return [f"block {self.block or 1} of {self.depth}", *self.attention().headline()]
        words = [f"{height}×{width} pixels", f"patch {p}" if p == q else f"patch {p}×{q}", f"{self.tokens} tokens"]
        heads = [plural(self.heads, "head"), *self.attention().shared_heads()]
        return [*words, f"dim {self.dim}", *heads, plural(self.depth, "block")]

    def closed_form(self) -> dict[str, int]:
        """MACs of each step that has any, of one block as of all: 12NC² + 2N²C with an MLP of four widths."""
        b, N, C, E = self.batch, self.tokens, self.dim, self.hidden(self.dim)
        block = {f"attn.{name}": macs for name, macs in self.attention().closed_form().items()}
        block |= {"mlp.expand": b * N * C * E, "mlp.contract": b * N * C * E}
        if not self.is_whole:
            return block
        heads = {"head": b * C * self.classes} | ({"head_dist": b * C * self.classes} if self.distilled else {})
        embed = b * 3 * self.patch[0] * self.patch[1] * C * self.grid[0] * self.grid[1]
        return {"patch_embed.embed": embed, **{f"blocks.0.{name}": macs for name, macs in block.items()}, **heads}

    def params(self) -> int:
        """Parameters: 3p²C + C + prefix·C + N·C + L(12C² + 13C) + 2C + (C+1)·classes."""
        C, E, L, G = self.dim, self.hidden(self.dim), self.depth, self.attention().kv_dim
        attention = 2 * C**2 + 2 * C * G + (C + 2 * G) * self.qkv_bias + C
        block = attention + 2 * C * E + E + C + 4 * C
        heads = (C + 1) * self.classes * (1 + self.distilled)
        return (3 * self.patch[0] * self.patch[1] + 1 + self.prefix + self.tokens + 2) * C + L * block + heads

    def macs(self) -> int:
        """MACs for one image: 3p²nC + L(12NC² + 2N²C) + C·classes."""
        return self._network_cost(self._tokens).value

    def complexity(self) -> Complexity:
        """Return the formula of what is asked for, beside it what fewer keys for each token would cost."""
        cost = self._network_cost if self.is_whole else self._block_cost
        own, supposed = Term("global", cost(self._tokens)), Term(SUPPOSED, cost(window_keys(FEWER)))
        return Complexity(self.batch, own, own, SAVING, supposed)

    def next_command(self) -> tuple[str, str]:
        """The command worth typing next, and why."""
        if self.is_whole:
            return self.command(scope="block"), "one block, step by step"
        return self.command(scope="model", block=None), "the whole network"

    @property
    def _tokens(self) -> Expression:
        return symbol("N", self.tokens)

    def _network_cost(self, keys: Expression) -> Expression:
        """MACs of the whole network where each token attends to so many keys."""
        n, C = symbol("n", self.grid[0] * self.grid[1]), symbol("C", self.dim)
        heads = (1 + self.distilled) * C * symbol("classes", self.classes)
        return 3 * self.patch_pixels * n * C + symbol("L", self.depth, note="blocks") * self._block_cost(keys) + heads

    def _block_cost(self, keys: Expression) -> Expression:
        """MACs of one block where each token attends to so many keys."""
        return self.block_cost(self._tokens, (self.dim,), (self.attention().kv_dim,), keys)
