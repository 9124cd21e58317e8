"""Options of ViT and DeiT, and their cost by the papers' formulas."""

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
        UsageError: if a value is out of range or contradicts another one. dim must be divisible by heads, heads by
            kv_heads, and the image by the patch.
    """

    name: ClassVar[str] = "vit"
    title: ClassVar[str] = "ViT"
    SUMMARY: ClassVar[str] = "ViT and DeiT, whole or in blocks."

    dim: int = option(768, "Embedding dimension.")
    heads: int = option(12, "Number of attention heads.")
    kv_heads: int | None = option(None, KV_HEADS, shown="heads")
    depth: int = option(12, "Number of blocks.", high=DEEPEST)
    cls: bool = option(True, "Prepend a class token to the patches.")
    registers: int = option(
        0, "Number of registers, learned tokens that the head ignores (Darcet et al., arXiv 2309.16588).", low=0
    )
    distilled: bool = option(False, "Add a distillation token with its own head, as in distilled DeiT.")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.hidden(self.dim)  # raises an error if the hidden size is 0
        self.check_index("block", self.block, self.depth)
        if self.distilled and not self.cls:
            raise UsageError("{distilled} requires the class token, which {no_cls} disables; remove one of them")
        if self.registers and (self.distilled or not self.cls):
            other = "{distilled}" if self.distilled else "{no_cls}"
            raise UsageError(
                f"{{registers}} and {other} contradict each other (got {self.registers}); remove one of them"
            )
        self.attention()

    @property
    def prefix(self) -> int:
        """Return the number of tokens before the patches."""
        return self.cls + self.distilled + self.registers

    @property
    def positions(self) -> int:
        """Return the number of position embeddings: with registers, those of the patches alone."""
        return self.grid[0] * self.grid[1] if self.registers else self.tokens

    @property
    def tokens(self) -> int:
        """Return the number of tokens of one image: the patches and the tokens before them."""
        return self.grid[0] * self.grid[1] + self.prefix

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Return the shape of the module's input: images for the whole network, (b, n, c) for a block."""
        return self.image_shape if self.is_whole else (self.batch, self.tokens, self.dim)

    def attention(self) -> ViTSpec:
        """Return the attention of every block."""
        heads = {"dim": self.dim, "heads": self.heads, "kv_heads": self.kv_heads, **self.shared()}
        if self.distilled or self.registers or self.image_is_padded:  # image, patch and cls do not include them
            return ViTSpec(tokens=self.tokens, **heads)
        return ViTSpec(image=self.image, patch=self.patch, cls=self.cls, **heads)

    def of_size(self, size: int) -> "ViTNetworkSpec":
        """Return a copy for images with `size` patches on each side."""
        return replace(self, image=(size * self.patch[0], size * self.patch[1]))

    def headline(self) -> list[str]:
        """Describe this Spec in a few words each."""
        (height, width), (p, q) = self.image, self.patch
        if not self.is_whole:
            return [f"block {self.block or 1} of {self.depth}", *self.attention().headline()]
        words = [f"{height}×{width} pixels", f"patch {p}" if p == q else f"patch {p}×{q}", f"{self.tokens} tokens"]
        heads = [plural(self.heads, "head"), *self.attention().shared_heads()]
        return [*words, f"dim {self.dim}", *heads, plural(self.depth, "block")]

    def closed_form(self) -> dict[str, int]:
        """Return the MACs of each step with MACs, of one block for all: 12NC² + 2N²C with an MLP ratio of 4."""
        b, N, C, E = self.batch, self.tokens, self.dim, self.hidden(self.dim)
        block = {f"attn.{name}": macs for name, macs in self.attention().closed_form().items()}
        block |= {"mlp.expand": b * N * C * E, "mlp.contract": b * N * C * E}
        if not self.is_whole:
            return block
        heads = {"head": b * C * self.classes} | ({"head_dist": b * C * self.classes} if self.distilled else {})
        embed = b * 3 * self.patch[0] * self.patch[1] * C * self.grid[0] * self.grid[1]
        return {"patch_embed.embed": embed, **{f"blocks.0.{name}": macs for name, macs in block.items()}, **heads}

    def params(self) -> int:
        """Count the parameters: 3p²C + C + prefix·C + positions·C + L(12C² + 13C) + 2C + (C+1)·classes."""
        C, E, L, G = self.dim, self.hidden(self.dim), self.depth, self.attention().kv_dim
        attention = 2 * C**2 + 2 * C * G + (C + 2 * G) * self.qkv_bias + C
        block = attention + 2 * C * E + E + C + 4 * C
        heads = (C + 1) * self.classes * (1 + self.distilled)
        return (3 * self.patch[0] * self.patch[1] + 1 + self.prefix + self.positions + 2) * C + L * block + heads

    def macs(self) -> int:
        """Count the MACs for one image: 3p²nC + L(12NC² + 2N²C) + C·classes."""
        return self._network_cost(self._tokens).value

    def complexity(self) -> Complexity:
        """Return the formula of the network or block, and that of attention to fewer keys for comparison."""
        cost = self._network_cost if self.is_whole else self._block_cost
        own, supposed = Term("global", cost(self._tokens)), Term(SUPPOSED, cost(window_keys(FEWER)))
        return Complexity(self.batch, own, own, SAVING, supposed)

    def next_command(self) -> tuple[str, str]:
        """Return the suggested next command and the reason for it."""
        if self.is_whole:
            return self.command(scope="block"), "one block, step by step"
        return self.command(scope="model", block=None), "the whole network"

    @property
    def _tokens(self) -> Expression:
        return symbol("N", self.tokens)

    def _network_cost(self, keys: Expression) -> Expression:
        """Return the MACs of the whole network if each token attends to this number of keys."""
        n, C = symbol("n", self.grid[0] * self.grid[1]), symbol("C", self.dim)
        heads = (1 + self.distilled) * C * symbol("classes", self.classes)
        return 3 * self.patch_pixels * n * C + symbol("L", self.depth, note="blocks") * self._block_cost(keys) + heads

    def _block_cost(self, keys: Expression) -> Expression:
        """Return the MACs of one block if each token attends to this number of keys."""
        return self.block_cost(self._tokens, (self.dim,), (self.attention().kv_dim,), keys)
