"""Locally-grouped attention as a module (Chu et al., arXiv 2104.13840, section 3.2); parameter names are timm's."""

from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from attnscope.attentions.attention import SelfAttention
from attnscope.attentions.heads import Headed
from attnscope.attentions.swin.attention import window_partition, window_reverse
from attnscope.attentions.swin.steps import WINDOWS
from attnscope.attentions.twins import steps
from attnscope.attentions.twins.spec import TwinsSpec
from attnscope.core.sizes import Pair, pair


class LocallyGroupedAttention(SelfAttention):
    """Attention in windows of a grid: (b, n, c) -> (b, n, c).

    Args:
        dim: embedding dimension, c.
        heads: number of attention heads, h; must divide dim.
        resolution: grid of tokens, one number or (height, width); n is their product.
        window: window size in tokens, one number or (height, width).
        qkv_bias: whether to add a bias to q, k and v.
        qk_scale: factor of q·kᵀ; default 1/√d with d = dim / heads.
        attn_drop: dropout probability of the attention weights in training.
        proj_drop: dropout probability of the output in training.
        kernel: "eager" runs each step separately; the others of KERNELS compute score to mix in one call.

    Raises:
        UsageError: if a value is out of range. dim must be divisible by heads.
    """

    spelling: ClassVar[dict[str, str]] = WINDOWS

    def __init__(
        self,
        dim: int,
        heads: int,
        resolution: int | Pair,
        window: int | Pair = 7,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        kernel: str = "eager",
    ) -> None:
        self.set_up(
            TwinsSpec(
                dim=dim,
                heads=heads,
                resolution=pair(resolution),
                window=pair(window),
                qkv_bias=qkv_bias,
                qk_scale=qk_scale,
                attn_drop=attn_drop,
                proj_drop=proj_drop,
                kernel=kernel,
            )
        )

    def set_up(self, spec: Headed) -> None:
        super().set_up(spec)
        assert isinstance(spec, TwinsSpec)
        self.resolution, self.grid = spec.resolution, spec.windows

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        (y, x), (r, s), (p, q) = self.resolution, self.grid.counts, self.grid.window
        return {**super().sizes, "y": y, "x": x, "r": r, "s": s, "p": p, "q": q, "n": p * q, "m": p * q}

    def arguments(self) -> dict[str, object]:
        """Return the arguments of the module that its repr shows, by name."""
        return {**super().arguments(), "resolution": self.resolution, "window": self.grid.window}

    def forward(self, x: Tensor) -> Tensor:
        self.check_shape(x, {"b": None, "n": self.resolution[0] * self.resolution[1], "c": self.proj.in_features})
        q, k, v = self.queries_keys_values(self.into_windows(x))
        return self.output(self.flatten(self.into_grid(self.merge_heads(self.attention(q, k, v)))))

    def into_windows(self, x: Tensor) -> Tensor:
        """Return the tokens of each window: (b, n, c) -> (b·r·s, p·q, c)."""
        x = self.unflatten(x)
        if self.grid.is_padded:
            x = self.pad(x)
        return self.partition(x)

    def into_grid(self, windows: Tensor) -> Tensor:
        """Return the grid of tokens without padding: (b·r·s, p·q, c) -> (b, y, x, c)."""
        windows = self.reverse(windows)
        return self.crop(windows) if self.grid.is_padded else windows

    @steps.unflatten
    def unflatten(self, x: Tensor) -> Tensor:
        return x.unflatten(1, self.resolution)

    @steps.pad
    def pad(self, x: Tensor) -> Tensor:
        rows, columns = self.grid.padding
        return F.pad(x, (0, 0, 0, columns, 0, rows))

    @steps.partition
    def partition(self, x: Tensor) -> Tensor:
        return window_partition(x, self.grid.window).flatten(1, 2).contiguous()

    @steps.reverse
    def reverse(self, windows: Tensor) -> Tensor:
        return window_reverse(windows, self.grid.window, *self.grid.padded).contiguous()

    @steps.crop
    def crop(self, x: Tensor) -> Tensor:
        rows, columns = self.grid.padding
        return F.pad(x, (0, 0, 0, -columns, 0, -rows))

    @steps.flatten
    def flatten(self, x: Tensor) -> Tensor:
        return x.flatten(1, 2)

    @steps.output
    def output(self, merged: Tensor) -> Tensor:
        return self.proj_drop(self.proj(merged))


def build(spec: TwinsSpec) -> LocallyGroupedAttention:
    """Build the module that a Spec describes."""
    return LocallyGroupedAttention.of(spec)
