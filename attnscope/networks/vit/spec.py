"""Options of ViT, DeiT and their successors, and their cost by the papers' formulas."""

from dataclasses import dataclass, replace
from typing import ClassVar

from attnscope.attentions.complexity import Complexity, Term, window_keys
from attnscope.attentions.heads import KV_HEADS
from attnscope.attentions.spec import option
from attnscope.attentions.vit.rope import ROTATIONS
from attnscope.attentions.vit.spec import FEWER, INNER_NORM, KEY_BIAS, QK_NORM, ROPE, SAVING, SUPPOSED, ViTSpec
from attnscope.core.errors import UsageError
from attnscope.core.formula import Expression, symbol
from attnscope.core.sizes import plural
from attnscope.networks.spec import DEEPEST, NetworkSpec
from attnscope.networks.vit.mlp import GELU, MLPS

ALL, PATCHES, NONE = "all", "patches", "none"
"""The tokens with a learned position embedding, by the value of --pos-embed."""
TOKEN, MEAN = "token", "mean"
"""The input of the head, by the value of --pool."""


@dataclass(frozen=True, kw_only=True)
class ViTNetworkSpec(NetworkSpec):
    """ViT (Dosovitskiy et al., arXiv 2010.11929), DeiT (Touvron et al., arXiv 2012.12877) and their successors.

    The defaults are ViT-B/16 at 224 pixels. The other options are those of DINOv2 (arXiv 2304.07193), DINOv3 (arXiv
    2508.10104), EVA-02 (arXiv 2303.11331) and RoPE-ViT (arXiv 2403.13298).

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
    classes: int = option(1000, "Number of classes; 0 leaves out the head.", low=0)
    cls: bool = option(True, "Prepend a class token to the patches.")
    registers: int = option(
        0, "Number of registers, learned tokens that the head ignores (Darcet et al., arXiv 2309.16588).", low=0
    )
    distilled: bool = option(False, "Add a distillation token with its own head, as in distilled DeiT.")
    pos_embed: str | None = option(
        None,
        f"Tokens with a learned position embedding: {ALL}, {PATCHES} or {NONE}.",
        choices=(ALL, PATCHES, NONE),
        shown=f"{ALL}; with registers {PATCHES}",
    )
    rope: str | None = option(None, ROPE, choices=tuple(ROTATIONS), shown="none")
    qk_norm: bool = option(False, QK_NORM)
    key_bias: bool = option(True, KEY_BIAS)
    inner_norm: bool = option(False, INNER_NORM)
    mlp: str = option(GELU, f"MLP of a block: {', '.join(MLPS)}.", choices=tuple(MLPS))
    mlp_norm: bool = option(False, "Normalize the hidden layer of the MLP, with LayerNorm.")
    layer_scale: bool = option(
        False, "Scale each channel of both branches of a block by a learned factor (LayerScale)."
    )
    pool: str | None = option(
        None,
        f"Input of the head: the class token ({TOKEN}), or the average of the patches ({MEAN}).",
        choices=(TOKEN, MEAN),
        shown=f"{TOKEN}; without a class token {MEAN}",
    )
    pool_norm: bool = option(False, "Apply the final layer norm after pooling, to one vector for each image.")
    norm_eps: float = option(1e-6, "Number that the layer norms add to the variance.", low=0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.hidden(self.dim)  # raises an error if the hidden size is 0
        self.check_index("block", self.block, self.depth)
        if self.distilled:
            self.check_distilled()
        if self.pool == TOKEN and not self.cls:
            raise UsageError(
                f"{{pool}} {TOKEN} requires the class token, which {{no_cls}} removes; use {{pool}} {MEAN}"
            )
        self.attention()

    def check_distilled(self) -> None:
        """Check that the options are those of distilled DeiT, whose two heads take one token each.

        Raises:
            UsageError: if one of them is not.
        """
        if not self.cls:
            raise UsageError("{distilled} requires the class token, which {no_cls} disables; remove one of them")
        others = {
            "registers": self.registers,
            "rope": self.rope,
            "pos_embed": self.pos_embed if self.pos_embed != ALL else None,
            "pool": self.pool if self.pool != TOKEN else None,
            "pool_norm": self.pool_norm,
        }
        for field, value in others.items():
            if value:
                got = "" if value is True else f" (got {value})"
                raise UsageError(f"{{{field}}} and {{distilled}} contradict each other{got}; remove one of them")
        if not self.classes:
            raise UsageError("{distilled} requires a head (got {classes} 0); remove it")

    @property
    def prefix(self) -> int:
        """Return the number of tokens before the patches."""
        return self.cls + self.distilled + self.registers

    @property
    def positioned(self) -> str:
        """Return the tokens that have a learned position embedding; without tokens before them, patches are all."""
        found = self.pos_embed or (PATCHES if self.registers else ALL)
        return ALL if found == PATCHES and not self.prefix else found

    @property
    def positions(self) -> int:
        """Return the number of position embeddings."""
        return {ALL: self.tokens, PATCHES: self.tokens - self.prefix, NONE: 0}[self.positioned]

    @property
    def averages(self) -> bool:
        """Return whether the average of the patches represents the image, not the class token."""
        return (self.pool or (TOKEN if self.cls else MEAN)) == MEAN

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
        own = ("dim", "heads", "kv_heads", "rope", "qk_norm", "key_bias", "inner_norm")
        options = {**{field: getattr(self, field) for field in own}, **self.shared()}
        if self.distilled:  # image, patch and cls do not include its token
            return ViTSpec(tokens=self.tokens, **options)
        (y, x), (p, q) = self.grid, self.patch
        return ViTSpec(image=(y * p, x * q), patch=(p, q), cls=self.cls, registers=self.registers or None, **options)

    def of_size(self, size: int) -> "ViTNetworkSpec":
        """Return a copy for images with `size` patches on each side."""
        return replace(self, image=(size * self.patch[0], size * self.patch[1]))

    def headline(self) -> list[str]:
        """Describe this Spec in a few words each."""
        (height, width), (p, q) = self.image, self.patch
        if not self.is_whole:
            return [f"block {self.block or 1} of {self.depth}", *self.attention().headline(), *self._block_options()]
        words = [f"{height}×{width} pixels", f"patch {p}" if p == q else f"patch {p}×{q}", f"{self.tokens} tokens"]
        heads = [plural(self.heads, "head"), *self.attention().shared_heads()]
        options = [*self.attention().options(), *self._block_options()]
        return [*words, f"dim {self.dim}", *heads, plural(self.depth, "block"), *options]

    def closed_form(self) -> dict[str, int]:
        """Return the MACs of each step with MACs, of one block for all: 12NC² + 2N²C with an MLP ratio of 4."""
        b, N, C, E = self.batch, self.tokens, self.dim, self.hidden(self.dim)
        block = {f"attn.{name}": macs for name, macs in self.attention().closed_form().items()}
        block |= {f"mlp.{name}": layers * b * N * C * E for name, layers in MLPS[self.mlp].layers.items()}
        if not self.is_whole:
            return block
        heads = ["head"] * bool(self.classes) + ["head_dist"] * self.distilled
        embed = b * 3 * self.patch[0] * self.patch[1] * C * self.grid[0] * self.grid[1]
        blocks = {f"blocks.0.{name}": macs for name, macs in block.items()}
        return {"patch_embed.embed": embed, **blocks, **dict.fromkeys(heads, b * C * self.classes)}

    def params(self) -> int:
        """Count the parameters: 3p²C + C + prefix·C + positions·C + L(12C² + 13C) + 2C + (C+1)·classes."""
        C, E, attention = self.dim, self.hidden(self.dim), self.attention()
        G, d = attention.kv_dim, C // self.heads
        biases = (C + G + G * self.key_bias) * self.qkv_bias + C
        learned_angles = C if attention.rotation and attention.rotation.is_learned else 0
        norms = 4 * d * self.qk_norm + 2 * C * self.inner_norm
        of_attention = 2 * C**2 + 2 * C * G + biases + norms + learned_angles
        layers = MLPS[self.mlp].count
        of_mlp = layers * C * E + (layers - 1) * E + C + 2 * E * self.mlp_norm
        block = of_attention + of_mlp + 4 * C + 2 * C * self.layer_scale
        heads = (C + 1) * self.classes * (1 + self.distilled)
        tokens = (self.prefix + self.positions) * C
        return (3 * self.patch[0] * self.patch[1] + 1) * C + tokens + self.depth * block + 2 * C + heads

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
    def code(self) -> str:
        """Return the name of the code that builds it: timm builds networks with RoPE as EVA-02.

        Without a bias of k, the projection is a function. In EVA-02-B and -L, whose MLP has a norm, it is one module each
        for q, k and v.
        """
        if self.rope is None:
            return self.name
        if self.key_bias or not self.qkv_bias:
            return "eva"
        return "eva-separate" if self.mlp_norm else "eva-fused"

    def is_in(self, library: str) -> bool:
        """Return whether a library has these options; timm alone has RoPE, LayerScale, other tokens and other heads."""
        if self.rope is not None:
            return not self.qk_norm and not self.attention().is_grouped
        if not self.attention().is_in(library) or self.mlp != GELU or self.mlp_norm:
            return False
        others = self.layer_scale or self.registers or self.distilled or self.averages or not self.classes
        return library.startswith("timm") or not others

    @property
    def _tokens(self) -> Expression:
        return symbol("N", self.tokens)

    def _block_options(self) -> list[str]:
        """Return the part of the headline about options of the block beyond its attention."""
        given = {self.mlp: self.mlp != GELU, "MLP norm": self.mlp_norm, "LayerScale": self.layer_scale}
        return [words for words, is_set in given.items() if is_set]

    def _network_cost(self, keys: Expression) -> Expression:
        """Return the MACs of the whole network if each token attends to this number of keys."""
        n, C = symbol("n", self.grid[0] * self.grid[1]), symbol("C", self.dim)
        whole = 3 * self.patch_pixels * n * C + symbol("L", self.depth, note="blocks") * self._block_cost(keys)
        return whole + (1 + self.distilled) * C * symbol("classes", self.classes) if self.classes else whole

    def _block_cost(self, keys: Expression) -> Expression:
        """Return the MACs of one block if each token attends to this number of keys."""
        kv_dims, layers = (self.attention().kv_dim,), MLPS[self.mlp].count
        return self.block_cost(self._tokens, (self.dim,), kv_dims, keys, mlp_layers=layers)
