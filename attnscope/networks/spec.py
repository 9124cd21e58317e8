"""Options of a network: the base class of every network's Spec."""

from dataclasses import dataclass
from typing import ClassVar

from attnscope.attentions.complexity import MLP_RATIO, projections
from attnscope.attentions.heads import Headed
from attnscope.attentions.spec import option
from attnscope.core.axes import spell
from attnscope.core.errors import UsageError
from attnscope.core.formula import Expression, symbol
from attnscope.core.neighbourhood import Neighbourhood
from attnscope.core.sizes import Pair, check_divisible
from attnscope.networks.composed import ComposedSpec

DEEPEST = 1000
"""Maximum number of blocks of a network or a stage; the size of a report grows with it."""


@dataclass(frozen=True, kw_only=True)
class NetworkSpec(ComposedSpec):
    """Options of a network, or of one of its stages or blocks.

    With scope "model", and without a stage or a block, it is the whole network, from the image to the logits.
    """

    SIZE_FIELD: ClassVar[str] = "image"
    SAID: ClassVar[tuple[str, ...]] = ("scope",)
    MODULE_FILE: ClassVar[str] = "network"

    image: Pair = option((224, 224), "Image size in pixels.")
    patch: Pair = option((16, 16), "Patch size in pixels.")
    pad_image: bool = option(
        False, "Pad an image that the patch does not divide, at the bottom and on the right, as detectors do."
    )
    mlp_ratio: float = option(4.0, "MLP hidden size as a multiple of the embedding dimension.", low=0.01, high=1000)
    checkpoint: str = option(
        "none",
        "Gradient checkpointing, which recomputes each block or attention in the backward.",
        choices=("none", "block", "attention"),
    )
    classes: int = option(1000, "Number of classes.")
    scope: str = option("model", "Part of the network: block or model.", choices=("block", "model"))
    block: int | None = option(
        None, "Block to explore, counted from 1.", shown="all with --scope model, else 1", selects=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.pad_image:
            check_divisible("image", self.image, self.patch, by="patch", more="; {pad_image} pads it")

    @property
    def grid(self) -> Pair:
        """Return the number of patches down and across, with the padding of the image."""
        return -(-self.image[0] // self.patch[0]), -(-self.image[1] // self.patch[1])

    @property
    def image_is_padded(self) -> bool:
        """Return whether the image is padded to whole patches."""
        return any(side % patch for side, patch in zip(self.image, self.patch, strict=True))

    @property
    def patch_pixels(self) -> Expression:
        """Return the variable p², the number of pixels of a patch."""
        return symbol("p²", self.patch[0] * self.patch[1], spelled=(spell(self.patch),))

    @property
    def is_whole(self) -> bool:
        """Return whether the Spec describes the whole network."""
        return self.scope == "model" and self.block is None

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Return the shape of a batch of images, (b, 3, height, width)."""
        return self.batch, 3, *self.image

    @property
    def neighbourhood(self) -> Neighbourhood:
        """Return the keys that each query attends to in the selected block, by default the first one."""
        return self.attention().neighbourhood

    def cautions(self) -> list[str]:
        """Return a note about the padding of the image."""
        if not self.image_is_padded:
            return []
        sides = [patch * count for patch, count in zip(self.patch, self.grid, strict=True)]
        return ["the image is padded from {}×{} to {}×{} pixels".format(*self.image, *sides)]

    def attention(self) -> Headed:
        """Return the attention of the selected block, by default the first one."""
        raise NotImplementedError

    def params(self) -> int:
        """Return the number of parameters of the whole network, in closed form."""
        raise NotImplementedError

    def macs(self) -> int:
        """Return the MACs of the whole network for one image, in closed form."""
        raise NotImplementedError

    def block_cost(
        self,
        tokens: Expression,
        dims: tuple[int, ...],
        kv_dims: tuple[int, ...],
        keys: Expression,
        attending: Expression | None = None,
        mlp_layers: int = 2,
    ) -> Expression:
        """Return the MACs of a block, such as `12hwC² + 2M²hwC`.

        Args:
            tokens: number of tokens of one image.
            dims: embedding dimension of each stage.
            kv_dims: dimension of keys and of values in each stage.
            keys: number of keys that each query attends to.
            attending: number of tokens including the padding for attention; `tokens` by default.
            mlp_layers: number of linear layers of the MLP; a gated one has three.
        """
        C, attending = symbol("C", *dims), attending or tokens
        G = C if kv_dims == dims else symbol("G", *kv_dims)
        hidden = tuple(map(self.hidden, dims))
        is_usual = hidden == tuple(MLP_RATIO * dim for dim in dims)
        E = MLP_RATIO * C if is_usual else symbol("E", *hidden)
        mlp = mlp_layers * tokens * C * E
        return projections(attending, C, G) + mlp + 2 * keys * attending * C

    def check_index(self, name: str, index: int | None, last: int) -> None:
        """Check that a block or a stage with this number exists.

        Args:
            name: name of the field.
            index: number from 1, or None.
            last: largest number.

        Raises:
            UsageError: if it does not exist.
        """
        if index is not None and index > last:
            raise UsageError(f"{{{name}}} must be between 1 and {last} (got {index})")
