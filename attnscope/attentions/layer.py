"""Base of the modules of attentions and networks: it prints their arguments and checks the shapes of their inputs."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from attnscope.core.errors import UsageError

CHANNELS_LAST = "reshape or permute it, channels last"
CHANNELS_FIRST = "reshape or permute it, channels first"


class Layer(nn.Module):
    """A module whose repr has its arguments, and which names itself in errors about the shape of an input."""

    def extra_repr(self) -> str:
        """Return the arguments that the layers below do not show: `dim=96, heads=3, kernel='eager'`."""
        return ", ".join(f"{name}={value!r}" for name, value in self.arguments().items())

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of the module that its repr shows, by name."""
        return {}

    def check_shape(
        self, x: Tensor, axes: Mapping[str, int | None], name: str = "input", fix: str = CHANNELS_LAST
    ) -> None:
        """Check the shape of an input.

        Args:
            x: the input.
            axes: the size of each axis, by its letter; None if any size is allowed.
            name: name of the input.
            fix: what to do if the shape is wrong.

        Raises:
            UsageError: an axis is missing or has another size; torch's own error would name an inner layer.
        """
        sizes = axes.values()
        if x.dim() != len(axes) or any(size not in (None, own) for size, own in zip(sizes, x.shape, strict=True)):
            rule = ", ".join(letter if size is None else f"{letter} = {size}" for letter, size in axes.items())
            raise UsageError(
                f"the {name} of {type(self).__name__} must have the shape ({rule}) (got {tuple(x.shape)}); {fix}"
            )
