"""Options of SAM's image encoder and ViTDet, and their cost by formula."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

from attnscope.attentions.complexity import Complexity, Term, padded_tokens, window_keys
from attnscope.attentions.sam.spec import SAMSpec
from attnscope.attentions.spec import option
from attnscope.core.errors import UsageError
from attnscope.core.formula import Expression, symbol
from attnscope.core.sizes import Ints, Pair, plural, spell_pair
from attnscope.networks.spec import DEEPEST, NetworkSpec

WINDOWED, GLOBAL = "windowed", "global"


@dataclass(frozen=True, kw_only=True)
class SAMNetworkSpec(NetworkSpec):
    """SAM's image encoder (Kirillov et al., arXiv 2304.02643), a ViTDet (Li et al., arXiv 2203.16527).

    The defaults are SAM ViT-B at 1024 pixels: 12 blocks on 64×64 tokens. Blocks 3, 6, 9 and 12 are global, and the
    others have windows of 14×14. A neck of two convolutions makes 256 channels. Without classes, the output is the
    grid of features. The layer norms of blocks add 1e-6 as in SAM's code; timm's add 1e-5.

    Raises:
        UsageError: if a value is out of range or contradicts another one. dim must be divisible by heads, and the image
            by the patch.
    """

    name: ClassVar[str] = "sam"
    title: ClassVar[str] = "SAM encoder"
    SUMMARY: ClassVar[str] = "SAM's image encoder, whole or in blocks."

    image: Pair = option((1024, 1024), "Image size in pixels.")
    dim: int = option(768, "Embedding dimension.")
    heads: int = option(12, "Number of attention heads.")
    depth: int = option(12, "Number of blocks.", high=DEEPEST)
    window: Pair = option((14, 14), "Window size in tokens; 0 is global attention.", low=0)
    global_blocks: Ints = option((3, 6, 9, 12), "Blocks with global attention, counted from 1; 0 for none.", low=0)
    abs_pos: bool = option(True, "Add a learned position embedding to each token.")
    neck: int = option(256, "Number of channels after the neck; 0 leaves it out.", low=0)
    norm_eps: float = option(1e-6, "Number that the layer norms of the blocks add to the variance.", low=0.0)
    classes: int = option(0, "Number of classes; 0 leaves out the head.", low=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.hidden(self.dim)  # raises an error if the hidden size is 0
        self.check_index("block", self.block, self.depth)
        if max(self.global_blocks) > self.depth:
            raise UsageError(
                f"{{global_blocks}} must be between 1 and {{depth}} {self.depth} (got {max(self.global_blocks)})"
            )
        self.attention()

    def is_in(self, library: str) -> bool:
        """Return whether timm's code is known; without classes, it averages all features, and this network does not."""
        is_known = bool(self.classes) or not self.is_whole
        return is_known and all(attention.is_in(library) for attention, _ in self.kinds())

    @property
    def width(self) -> int:
        """Return the number of channels of the features."""
        return self.neck or self.dim

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Return the shape of the module's input: images for the whole network, (b, height, width, c) for a block."""
        return self.image_shape if self.is_whole else (self.batch, *self.grid, self.dim)

    def attention(self) -> SAMSpec:
        """Return the attention of the selected block, by default the first one."""
        return self.attention_of((self.block or 1) - 1)

    def attention_of(self, block: int) -> SAMSpec:
        """Return the attention of a block, counted from 0."""
        window = (0, 0) if block + 1 in self.global_blocks else self.window
        if window not in self._attentions:
            self._attentions[window] = SAMSpec(
                dim=self.dim, heads=self.heads, resolution=self.grid, window=window, **self.shared()
            )
        return self._attentions[window]

    @cached_property
    def _attentions(self) -> dict[Pair, SAMSpec]:
        """Return the cache of attentions, by window."""
        return {}

    def kinds(self) -> list[tuple[SAMSpec, list[int]]]:
        """Return the different attentions, each with its blocks, counted from 0."""
        blocks: dict[SAMSpec, list[int]] = {}
        for block in range(self.depth):
            blocks.setdefault(self.attention_of(block), []).append(block)
        return list(blocks.items())

    def sees(self, block: int) -> Pair:
        """Return the receptive field after a block, counted from 0, in patches: windows are not shifted."""
        (y, x), (p, q) = self.grid, self.attention_of(0).windows.window
        is_global = any(self.attention_of(each).is_global for each in range(block + 1))
        return (y, x) if is_global else (min(p, y), min(q, x))

    def of_size(self, size: int) -> "SAMNetworkSpec":
        """Return a copy for images with `size` patches on each side."""
        return replace(self, image=(size * self.patch[0], size * self.patch[1]))

    def headline(self) -> list[str]:
        """Describe this Spec in a few words each."""
        (height, width), (p, q) = self.image, self.patch
        if not self.is_whole:
            return [f"block {self.block or 1} of {self.depth}", *self.attention().headline()]
        words = [f"{height}×{width} pixels", f"patch {p}" if p == q else f"patch {p}×{q}", f"dim {self.dim}"]
        blocks = [f"{plural(self.depth, 'block')}, {self._count(GLOBAL)} global"]
        return [*words, plural(self.heads, "head"), *blocks, f"window {spell_pair(self.window)}"]

    def closed_form(self) -> dict[str, int]:
        """Return the MACs of each step with MACs; blocks of a kind are listed once, as the first of them."""
        if not self.is_whole:
            return self._block_form(self.attention())
        b, n, C, D = self.batch, self.grid[0] * self.grid[1], self.dim, self.width
        form = {"patch_embed.embed": b * 3 * self.patch[0] * self.patch[1] * n * C}
        for attention, blocks in self.kinds():
            form |= {f"blocks.{blocks[0]}.{name}": macs for name, macs in self._block_form(attention).items()}
        if self.neck:
            form |= {"reduce": b * n * C * D, "smooth": b * n * 9 * D**2}
        return form | ({"head": b * D * self.classes} if self.classes else {})

    def params(self) -> int:
        """Count the parameters: 3p²C + C + hwC, blocks of 12C² + 13C with 2(2M−1)d positions, neck CD + 9D² + 4D."""
        C, D, E, d = self.dim, self.width, self.hidden(self.dim), self.dim // self.heads
        block = 4 * C**2 + C + 3 * C * self.qkv_bias + 2 * C * E + E + C + 4 * C
        positions = 0
        for attention, blocks in self.kinds():
            p, q = attention.windows.window
            positions += len(blocks) * (2 * p - 1 + 2 * q - 1) * d
        tokens = self.grid[0] * self.grid[1] * C * self.abs_pos
        neck = C * D + 9 * D**2 + 4 * D if self.neck else 2 * C
        head = (D + 1) * self.classes
        return (3 * self.patch[0] * self.patch[1] + 1) * C + tokens + self.depth * block + positions + neck + head

    def macs(self) -> int:
        """Count the MACs for one image.

        They are 3p²hwC + Σ(12hwC² + 2M²hwC + 2MhwC) + hwCD + 9hwD², where windows are padded to whole ones.
        """
        return self._network_cost().value

    def complexity(self) -> Complexity:
        """Return the formulas of the network or block with its windows and with global attention in all blocks."""
        if self.is_whole:
            own, reference = self._network_cost(), replace(self, window=(0, 0))._network_cost()
        else:
            own, reference = (
                self._block_cost(self.attention()),
                self._block_cost(replace(self.attention(), window=(0, 0))),
            )
        return Complexity(self.batch, Term(WINDOWED, own), Term(GLOBAL, reference), saving="in windows")

    def cautions(self) -> list[str]:
        """Return notes about padding of the image and of the windows."""
        notes = super().cautions()
        grids = [attention.windows for attention, _ in self.kinds()] if self.is_whole else [self.attention().windows]
        for grid in [each for each in grids if each.is_padded]:
            before, after = ("{}×{}".format(*sides) for sides in (self.grid, grid.padded))
            notes.append(
                f"windowed blocks pad their grid from {before} to {after} for attention: "
                f"{grid.waste:.1%} of the tokens there are padding"
            )
        return notes

    def next_command(self) -> tuple[str, str]:
        """Return the suggested next command and the reason for it."""
        if self.is_whole:
            return self.command(scope="block"), "one block, step by step"
        return self.command(scope="model", block=None), "the whole network"

    def _count(self, kind: str) -> int:
        """Return the number of blocks of a kind."""
        of_global = sum(self.attention_of(block).is_global for block in range(self.depth))
        return of_global if kind == GLOBAL else self.depth - of_global

    def _block_form(self, attention: SAMSpec) -> dict[str, int]:
        (y, x), C = self.grid, self.dim
        mlp = self.batch * y * x * C * self.hidden(C)
        form = {f"attn.{name}": macs for name, macs in attention.closed_form().items()}
        return {**form, "mlp.expand": mlp, "mlp.contract": mlp}

    def _network_cost(self) -> Expression:
        hw, C, D = self._hw, symbol("C", self.dim), symbol("D", self.width)
        cost = 3 * self.patch_pixels * hw * C
        for attention, blocks in self.kinds():
            letter = "G" if attention.is_global else "L"
            note = f"{GLOBAL if attention.is_global else WINDOWED} blocks"
            cost += symbol(letter, len(blocks), note=note) * self._block_cost(attention)
        if self.neck:
            cost += hw * C * D + 9 * hw * D**2
        return cost + D * symbol("classes", self.classes) if self.classes else cost

    def _block_cost(self, attention: SAMSpec) -> Expression:
        """Return the MACs of a block: those without positions, and the products of queries with positions."""
        hw, (p, q), (y, x) = self._hw, attention.windows.window, self.grid
        attending = padded_tokens((y * x,), (attention.windows.tokens,))
        C, dims = symbol("C", self.dim), (self.dim,)
        if attention.is_global:
            sides = symbol("h", y) + symbol("w", x)
            return self.block_cost(hw, dims, dims, hw) + sides * hw * C
        sides = 2 * symbol("M", p) if p == q else symbol("p", p) + symbol("q", q)
        return self.block_cost(hw, dims, dims, window_keys((p, q)), attending) + sides * attending * C

    @property
    def _hw(self) -> Expression:
        return symbol("hw", self.grid[0] * self.grid[1])
