"""Options of XCiT, and its cost by formula."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from attnscope.attentions.complexity import Complexity, Term
from attnscope.attentions.spec import option
from attnscope.attentions.xca.spec import XCASpec
from attnscope.core.axes import spell
from attnscope.core.errors import UsageError, nearest_multiples
from attnscope.core.formula import Expression, over_stages, symbol
from attnscope.core.sizes import Pair, plural
from attnscope.networks.spec import DEEPEST, NetworkSpec

KERNEL = 3
"""Side of all convolutions: those of the patch embedding, and the depthwise ones of local patch interaction."""
FEATURES = 64
"""Number of Fourier features of a position: sines and cosines of 16 frequencies for each axis."""
PATCHES = (8, 16)
"""The patch sizes of the paper; each convolution of the patch embedding halves the grid."""


@dataclass(frozen=True)
class Halving:
    """A convolution of the patch embedding, which halves the grid: its channels, and its grids, before and after it."""

    channels: int
    dim: int
    before: Pair
    after: Pair

    @property
    def macs(self) -> int:
        """Return the MACs of the convolution for one image."""
        return KERNEL**2 * self.after[0] * self.after[1] * self.channels * self.dim


@dataclass(frozen=True, kw_only=True)
class XCiTNetworkSpec(NetworkSpec):
    """XCiT (El-Nouby et al., arXiv 2106.09681): cross-covariance attention, and class attention at the end.

    The defaults are XCiT-T12/16 at 224 pixels. Convolutions with stride 2 make the tokens, so that a grid with an odd
    side is padded by one. Each block has local patch interaction between attention and MLP. The class token enters
    after these blocks, and only it gathers information in the blocks of class attention (Touvron et al., arXiv
    2103.17239).

    Raises:
        UsageError: if a value is out of range or contradicts another one. dim must be divisible by heads, and by half of
            the patch.
    """

    name: ClassVar[str] = "xca"
    title: ClassVar[str] = "XCiT"
    SUMMARY: ClassVar[str] = "XCiT, whole or in blocks."
    INSTEAD: ClassVar[Mapping[str, str]] = {"resolution": "{image}"}
    pad_image: ClassVar[bool] = True  # type: ignore[misc]  # convolutions with a stride take any image

    patch: Pair = option((16, 16), "Patch size in pixels: 8 or 16.")
    dim: int = option(192, "Embedding dimension.")
    heads: int = option(4, "Number of attention heads.")
    depth: int = option(12, "Number of blocks.", high=DEEPEST)
    class_depth: int = option(2, "Number of blocks of class attention after them.", high=DEEPEST)
    fourier: bool = option(True, "Add the position of each token, as Fourier features projected to the channels.")
    tokens_norm: bool = option(
        True, "Normalize all tokens before the MLP of class attention, not only the class token."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.patch[0] != self.patch[1] or self.patch[0] not in PATCHES:
            nearest = min(PATCHES, key=lambda patch: abs(patch - self.patch[0]))
            raise UsageError(f"{{patch}} must be 8 or 16 (got {spell(self.patch)}); nearest: {nearest}")
        if self.dim % (half := self.patch[0] // 2):
            raise UsageError(
                f"{{dim}} must be divisible by {half}, half of {{patch}}, since each convolution of the patch embedding "
                f"doubles the channels (got {self.dim}); nearest: {nearest_multiples(self.dim, half)}"
            )
        self.hidden(self.dim)  # raises an error if the hidden size is 0
        self.check_index("block", self.block, self.depth)
        self.attention()

    @property
    def image_is_padded(self) -> bool:
        """Return False: convolutions with a stride take any image."""
        return False

    @property
    def halvings(self) -> tuple[Halving, ...]:
        """Return the convolutions of the patch embedding, in order; each doubles the channels of the previous one."""
        found: list[Halving] = []
        channels, grid = 3, self.image
        for remaining in reversed(range(self.patch[0].bit_length() - 1)):
            after = -(-grid[0] // 2), -(-grid[1] // 2)
            found.append(Halving(channels, self.dim >> remaining, grid, after))
            channels, grid = self.dim >> remaining, after
        return tuple(found)

    @property
    def tokens(self) -> int:
        """Return the number of tokens of one image in a block, without the class token."""
        return self.grid[0] * self.grid[1]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Return the shape of the module's input: images for the whole network, (b, n, c) for a block."""
        return self.image_shape if self.is_whole else (self.batch, self.tokens, self.dim)

    def attention(self) -> XCASpec:
        """Return the attention of every block."""
        return XCASpec(dim=self.dim, heads=self.heads, resolution=self.grid, **self.shared())

    def of_size(self, size: int) -> "XCiTNetworkSpec":
        """Return a copy for images with `size` patches on each side."""
        return replace(self, image=(size * self.patch[0], size * self.patch[1]))

    def headline(self) -> list[str]:
        """Describe this Spec in a few words each."""
        (height, width), attention = self.image, self.attention()
        if not self.is_whole:
            return [f"block {self.block or 1} of {self.depth}", *attention.headline()]
        words = [f"{height}×{width} pixels", f"patch {self.patch[0]}", *attention.headline()]
        return [*words, plural(self.depth, "block"), f"{self.class_depth} of class attention"]

    def is_in(self, library: str) -> bool:
        """Return whether the calls of a library are known."""
        return self.attention().is_in(library)

    def closed_form(self) -> dict[str, int]:
        """Return the MACs of each step with MACs; identical blocks are listed once, as the first of them."""
        if not self.is_whole:
            return self._block_form()
        b, N, C = self.batch, self.tokens, self.dim
        form = {f"patch_embed.proj.{2 * place}.convolve": b * each.macs for place, each in enumerate(self.halvings)}
        if self.fourier:
            form["pos_embed.project_features"] = self._positions
        form |= {f"blocks.0.{name}": macs for name, macs in self._block_form().items()}
        class_block = {
            "attn.project_query": C**2,
            "attn.project_keys": (N + 1) * C**2,
            "attn.project_values": (N + 1) * C**2,
            "attn.score": (N + 1) * C,
            "attn.mix": (N + 1) * C,
            "attn.output": C**2,
            "mlp.expand": C * self.hidden(C),
            "mlp.contract": C * self.hidden(C),
        }
        form |= {f"cls_attn_blocks.0.{name}": b * macs for name, macs in class_block.items()}
        return {**form, "head": b * C * self.classes}

    def params(self) -> int:
        """Count the parameters.

        A block has 4C² + 2CE + 20C + H and biases, one of class attention 4C² + 2CE and biases. The rest are those of
        the convolutions of the patch embedding, of the positions, and of the head.
        """
        C, E, q = self.dim, self.hidden(self.dim), 3 * self.dim * self.qkv_bias
        stem = sum([KERNEL**2 * each.channels * each.dim + 2 * each.dim for each in self.halvings])
        mlp = 2 * C * E + E + C
        attention = 4 * C**2 + q + C
        interaction = 2 * (KERNEL**2 + 1) * C + 2 * C
        block = attention + self.heads + interaction + mlp + 3 * 2 * C + 3 * C
        class_block = attention + mlp + 2 * 2 * C + 2 * C
        positions = (FEATURES + 1) * C * self.fourier
        last = C + 2 * C + (C + 1) * self.classes
        return stem + positions + self.depth * block + self.class_depth * class_block + last

    def macs(self) -> int:
        """Count the MACs for one image: those of `complexity`, and 64hwC for the encoding of positions."""
        return self._network_cost(is_global=False).value + self._positions

    def complexity(self) -> Complexity:
        """Return the formulas of the network or block with its attention and with global attention.

        Neither includes the projection of the positions, which runs once for all images.
        """
        cost = self._network_cost if self.is_whole else self._block_cost
        own, reference = (Term(name, cost(name == "global")) for name in ("xca", "global"))
        return Complexity(self.batch, own, reference, saving="between channels")

    def next_command(self) -> tuple[str, str]:
        """Return the suggested next command and the reason for it."""
        if self.is_whole:
            return self.command(scope="block"), "one block, step by step"
        return self.command(scope="model", block=None), "the whole network"

    @property
    def _positions(self) -> int:
        """Return the MACs of the projection of the positions, which all images share."""
        return FEATURES * self.tokens * self.dim * self.fourier

    def _block_form(self) -> dict[str, int]:
        tokens = self.batch * self.tokens
        convolve, mlp = KERNEL**2 * tokens * self.dim, tokens * self.dim * self.hidden(self.dim)
        form = {f"attn.{name}": macs for name, macs in self.attention().closed_form().items()}
        form |= {"local_mp.mix_neighbours": convolve, "local_mp.mix_again": convolve}
        return {**form, "mlp.expand": mlp, "mlp.contract": mlp}

    def _network_cost(self, is_global: bool) -> Expression:
        stem, C, N = self.halvings, symbol("C", self.dim), symbol("N", self.tokens + 1)
        places = symbol("n", *(each.after[0] * each.after[1] for each in stem))
        channels = symbol("I", *(each.channels for each in stem)) * symbol("O", *(each.dim for each in stem))
        mlp = 8 * C**2 if self.hidden(self.dim) == 4 * self.dim else 2 * C * symbol("E", self.hidden(self.dim))
        of_class = 2 * C**2 + 2 * N * C**2 + 2 * N * C + mlp
        return (
            over_stages(len(stem), KERNEL**2 * places * channels)
            + symbol("L", self.depth, note="blocks") * self._block_cost(is_global)
            + symbol("K", self.class_depth, note="blocks of class attention") * of_class
            + C * symbol("classes", self.classes)
        )

    def _block_cost(self, is_global: bool) -> Expression:
        hw, C, d = symbol("hw", self.tokens), symbol("C", self.dim), symbol("d", self.dim // self.heads)
        interaction = 2 * KERNEL**2 * hw * C
        if is_global:
            return self.block_cost(hw, (self.dim,), (self.dim,), hw) + interaction
        return self.block_cost(hw, (self.dim,), (self.dim,), d) + interaction
