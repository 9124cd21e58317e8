"""What can be asked of a network: the base of every network's Spec."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from attnscope.attentions.complexity import MLP_RATIO, projections
from attnscope.attentions.heads import Headed
from attnscope.attentions.spec import Spec, option
from attnscope.core.axes import spell
from attnscope.core.errors import UsageError, nearest_multiples
from attnscope.core.formula import Expression, symbol
from attnscope.core.neighbourhood import Neighbourhood
from attnscope.core.sizes import Pair

DEEPEST = 1000
"""No network, and no stage of one, has more blocks than this: what is told of them grows with their number."""


@dataclass(frozen=True, kw_only=True)
class NetworkSpec(Spec):
    """What every network can be asked: the whole of it, or one stage or block of it.

    With scope "model" and neither stage nor block it is the whole network, from the image to the logits.
    """

    SIZE_FIELD: ClassVar[str] = "image"
    SAID: ClassVar[tuple[str, ...]] = ("scope",)
    MODULE_FILE: ClassVar[str] = "network"
    INSTEAD: ClassVar[Mapping[str, str]] = {}
    """What to give in place of a field that only the attention has, in the words of an error."""

    image: Pair = option((224, 224), "Side of the image in pixels, or HxW.")
    patch: Pair = option((16, 16), "Side of a patch in pixels, or HxW.")
    mlp_ratio: float = option(4.0, "MLP hidden size as a multiple of the embedding dimension.", low=0.01, high=1000)
    classes: int = option(1000, "Number of classes.")
    scope: str = option("model", "block or model.", choices=("block", "model"))
    block: int | None = option(None, "Open this block, from 1.", shown="all of them", selects=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        for side, patch in zip(self.image, self.patch, strict=True):
            if side % patch:
                nearest = nearest_multiples(side, patch)
                raise UsageError(f"{{image}} {side} is not divisible by {{patch}} {patch}; nearest: {nearest}")

    @property
    def grid(self) -> Pair:
        """Patches down and across."""
        return self.image[0] // self.patch[0], self.image[1] // self.patch[1]

    @property
    def patch_pixels(self) -> Expression:
        """The letter p², pixels of a patch."""
        return symbol("p²", self.patch[0] * self.patch[1], spelled=(spell(self.patch),))

    @property
    def is_whole(self) -> bool:
        """Whether the whole network is asked for."""
        return self.scope == "model" and self.block is None

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of a batch of images: (b, 3, height, width)."""
        return self.batch, 3, *self.image

    @property
    def neighbourhood(self) -> Neighbourhood:
        """What a query attends to in the block that is asked for, in the first one unless it is said which."""
        return self.attention().neighbourhood

    def attention(self) -> Headed:
        """The attention of the block that is asked for, of the first one unless it is said which."""
        raise NotImplementedError

    def params(self) -> int:
        """Parameters of the whole network, in closed form."""
        raise NotImplementedError

    def macs(self) -> int:
        """MACs of the whole network for one image, in closed form."""
        raise NotImplementedError

    def hidden(self, dim: int) -> int:
        """Return the hidden size of the MLP in a block of this embedding dimension.

        Raises:
            UsageError: it would be 0.
        """
        hidden = int(dim * self.mlp_ratio)
        if not hidden:
            smallest = math.ceil(1e4 / dim) / 1e4
            raise UsageError(
                f"{{mlp_ratio}} must be at least 1/{{dim}}, or the MLP has no hidden channel "
                f"(got {self.mlp_ratio:g} with {{dim}} {dim}); smallest: {smallest:g}"
            )
        return hidden

    def block_cost(
        self,
        tokens: Expression,
        dims: tuple[int, ...],
        kv_dims: tuple[int, ...],
        keys: Expression,
        attending: Expression | None = None,
    ) -> Expression:
        """Return the MACs of a block, such as `12hwC² + 2M²hwC`.

        Args:
            tokens: tokens of one image.
            dims: channels of a token, in each stage.
            kv_dims: channels of the keys, and of the values, in each stage.
            keys: keys of a query.
            attending: tokens with the padding that attention needs, if it needs any.
        """
        C, attending = symbol("C", *dims), attending or tokens
        G = C if kv_dims == dims else symbol("G", *kv_dims)
        hidden = tuple(map(self.hidden, dims))
        is_usual = hidden == tuple(MLP_RATIO * dim for dim in dims)
        mlp = 2 * MLP_RATIO * tokens * C**2 if is_usual else 2 * tokens * C * symbol("E", *hidden)
        return projections(attending, C, G) + mlp + 2 * keys * attending * C

    def shared(self) -> dict[str, Any]:
        """The fields of this Spec that all attentions have."""
        return {field.name: getattr(self, field.name) for field in fields(Spec)}

    def check_index(self, name: str, index: int | None, last: int) -> None:
        """Whether there is a block or stage of this number.

        Raises:
            UsageError: there is not.
        """
        if index is not None and index > last:
            raise UsageError(f"{{{name}}} {index} is not there; the last is {last}")
