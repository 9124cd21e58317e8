"""Video Swin's attention as a module (Liu et al., arXiv 2106.13230, section 3.2); parameter names are torchvision's."""

from typing import ClassVar

from torch import Tensor

from attnscope.attentions.heads import letters
from attnscope.attentions.swin.attention import WindowAttention, with_mask
from attnscope.attentions.swin3d import steps
from attnscope.attentions.swin3d.spec import Swin3DSpec
from attnscope.core.sizes import AXES, Triple, triple
from attnscope.core.windows import VolumeWindows


class VideoWindowAttention(WindowAttention):
    """Multi-head self-attention in windows of a volume: (b, time, height, width, c) -> the same, for any volume.

    The module includes the cyclic shift, the mask, the window partition and their inverses. A window that exceeds the
    volume along an axis is clipped to it. Then the volume is padded at the end of each axis, as in torchvision. The
    position bias of a clipped window is that of the first tokens of the full window.

    Args:
        dim: embedding dimension, c.
        heads: number of attention heads, h; must divide dim.
        window: window size in tokens, one number or (time, height, width).
        shift: shift in tokens, one number or (time, height, width); must be smaller than the window. An axis with a
            single window is not shifted.
        qkv_bias: whether to add a bias to q, k and v.
        qk_scale: factor of q·kᵀ; default 1/√d with d = dim / heads.
        attn_drop: dropout probability of the attention weights in training.
        proj_drop: dropout probability of the output in training.
        kernel: "eager" runs each step separately; the others of KERNELS compute score to mix in one call.

    Raises:
        UsageError: if a value is out of range or contradicts another one. dim must be divisible by heads. The shift must
            be smaller than the window.
    """

    spelling: ClassVar[dict[str, str]] = steps.VOLUME

    def __init__(
        self,
        dim: int,
        heads: int,
        window: int | Triple = (8, 7, 7),
        shift: int | Triple = 0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        kernel: str = "eager",
    ) -> None:
        self.set_up(
            Swin3DSpec(
                dim=dim,
                heads=heads,
                window=triple(window),
                shift_size=triple(shift),
                qkv_bias=qkv_bias,
                qk_scale=qk_scale,
                attn_drop=attn_drop,
                proj_drop=proj_drop,
                kernel=kernel,
            )
        )

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets for any volume."""
        v, t, u = (2 * side - 1 for side in self.window)
        return {"v": v, "t": t, "u": u} | letters(self.proj.in_features, self.heads, None)

    def sizes_for(self, x: Tensor) -> dict[str, int]:
        """Return the sizes of the axis letters of a window, which is clipped to the volume."""
        grid = self.grid_of(x)
        frames, p, q = grid.window
        return {"l": frames, "p": p, "q": q, "n": grid.keys, "m": grid.keys}

    def grid_of(self, x: Tensor) -> VolumeWindows:
        """Return the geometry of the windows of an input, whose shape it checks."""
        self.check_input(x, ("b", *AXES))
        (frames, p, q), (time, down, across) = self.window, self.shift_size
        return VolumeWindows.clipped((x.shape[1], x.shape[2], x.shape[3]), (frames, p, q), (time, down, across))


def build(spec: Swin3DSpec) -> WindowAttention:
    """Build the module that a Spec describes, with the mask of the Spec's volume."""
    return with_mask(VideoWindowAttention.of(spec), spec)
