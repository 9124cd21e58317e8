"""Forward of the module of each family over the reference module in timm or torchvision, with the same weights and kernel.

    python -m benchmarks.families [NAME …]

The sizes are the defaults of the commands, which are those of a published network. Neighbourhood attention and
cross-shaped windows have no reference module that installs on all platforms, so they are not in the table. timm's Hiera
orders its tokens by units once for the whole network. Our module does so in each forward, which its row includes.
"""

import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from timm.layers import AttentionRope, RelPosBias
from timm.models import davit, efficientvit_mit, hiera, maxxvit, mobilevit, pvt_v2, twins, vision_transformer_sam, xcit
from torch import Tensor, nn
from torchvision.models.video.swin_transformer import ShiftedWindowAttention3d

from attnscope import ViTSpec
from attnscope.attentions.hiera.spec import HieraSpec
from attnscope.attentions.linear.spec import LinearSpec
from attnscope.attentions.maxvit.spec import MaxViTSpec
from attnscope.attentions.pvt.spec import PVTSpec
from attnscope.attentions.sam.spec import SAMSpec
from attnscope.attentions.separable.spec import SeparableSpec
from attnscope.attentions.spec import Spec
from attnscope.attentions.swin3d.spec import Swin3DSpec
from attnscope.attentions.twins.spec import TwinsSpec
from attnscope.attentions.xca.spec import XCASpec
from attnscope.profiling import process
from benchmarks.ratios import HEAD, of_calls

process.pin_allocator()
torch.set_num_threads(1)
torch.manual_seed(0)

FEWEST_PAIRS, MOST_PAIRS, SECONDS = 11, 101, 10.0
"""Limits of the pairs of runs of a row, and the seconds that a row takes between them."""


@dataclass(frozen=True)
class Reference:
    """A Spec and the module that it is compared with.

    Args:
        module: has the names of our weights.
        forward: calls the module with the partition of its own block; None if it takes our input.
        prepare: makes the module's inputs of ours outside the measured time.
        restore: makes our output of the module's outside the measured time.
        kernels: those that our module has, too.
    """

    spec: Spec
    module: nn.Module
    forward: Callable[..., Tensor] | None = None
    prepare: Callable[[Tensor], tuple[Any, ...]] = lambda x: (x,)
    restore: Callable[[Tensor], Tensor] = lambda y: y
    kernels: tuple[str, ...] = ("eager", "sdpa")


def references() -> Iterator[Reference]:
    """Yield each family's default, with its variants and both kernels where the reference has them."""
    rope = ViTSpec(rope="dinov3", registers=4, key_bias=True)
    yield Reference(
        rope,
        AttentionRope(768, 12, qk_norm=False, num_prefix_tokens=5, rotate_half=True),
        prepare=lambda x: (x, table_of(rope.build())),
    )
    for window in (14, 0):
        size = (window, window) if window else (64, 64)
        attention = vision_transformer_sam.Attention(768, num_heads=12, use_rel_pos=True, input_size=size)
        yield Reference(SAMSpec(window=window), attention, partial(in_sam_windows, attention) if window else None)
    for grid in (False, True):
        attention = maxxvit.AttentionCl(64, dim_head=32, rel_pos_cls=partial(RelPosBias, window_size=(7, 7)))
        yield Reference(MaxViTSpec(grid=grid), attention, partial(partitioned, attention, grid))
    pooled = PVTSpec(linear=True, reduction=None)
    yield Reference(PVTSpec(), pvt_v2.Attention(64, num_heads=1, sr_ratio=8), prepare=with_grid)
    yield Reference(pooled, pvt_v2.Attention(64, num_heads=1, linear_attn=True), prepare=with_grid)
    yield Reference(TwinsSpec(), twins.LocallyGroupedAttn(64, 2, ws=7), prepare=with_grid)
    eager = ("eager",)
    yield Reference(XCASpec(), xcit.XCA(192, num_heads=4, qkv_bias=True), kernels=eager)
    channels = XCASpec(dim=96, heads=3, resolution=56, variant="davit")
    yield Reference(channels, davit.ChannelAttention(96, num_heads=3, qkv_bias=True), kernels=eager)
    yield Reference(LinearSpec(), efficientvit_mit.LiteMLA(128, 128, dim=16, scales=(5,)), kernels=eager)
    separable = mobilevit.LinearSelfAttention(128)
    yield Reference(SeparableSpec(), separable, partial(in_patches, separable), kernels=eager)
    units = HieraSpec()
    ours = units.build()
    yield Reference(
        units,
        hiera.MaskUnitAttention(96, 192, 2, q_stride=4, window_size=16, use_mask_unit_attn=True),
        prepare=lambda x: (unrolled(ours.partition(x)),),
        restore=lambda y: ours.reverse(y.unflatten(1, (-1, 49)).transpose(1, 2).flatten(0, 1)),
    )
    for shift in (False, True):
        spec = Swin3DSpec(shift=shift)
        yield Reference(spec, ShiftedWindowAttention3d(96, [8, 7, 7], list(spec.shift_along), 3))


def in_sam_windows(attention: nn.Module, x: Tensor) -> Tensor:
    """Run timm's attention of SAM in windows, as its `Block` does."""
    windows, padded = vision_transformer_sam.window_partition(x, 14)
    return vision_transformer_sam.window_unpartition(attention(windows), 14, x.shape[1:3], padded)


def partitioned(attention: nn.Module, grid: bool, x: Tensor) -> Tensor:
    """Run timm's attention of MaxViT in blocks or in a grid, as its `PartitionAttentionCl` does."""
    if grid:
        return maxxvit.grid_reverse(attention(maxxvit.grid_partition(x, (7, 7))), (7, 7), x.shape[1:3])
    return maxxvit.window_reverse(attention(maxxvit.window_partition(x, (7, 7))), (7, 7), x.shape[1:3])


def in_patches(attention: nn.Module, x: Tensor) -> Tensor:
    """Run timm's attention of MobileViT v2 in patches of 2×2, as its block does."""
    b, c, height, width = x.shape
    y = x.reshape(b, c, height // 2, 2, width // 2, 2).permute(0, 1, 3, 5, 2, 4).reshape(b, c, 4, -1)
    y = attention(y).reshape(b, c, 2, 2, height // 2, width // 2).permute(0, 1, 4, 2, 5, 3)
    return y.reshape(b, c, height, width)


def with_grid(x: Tensor) -> tuple[Any, ...]:
    """Return the input with the grid of its tokens, which some modules take."""
    return x, (56, 56)


def table_of(module: Any) -> Tensor:
    """Return timm's table of the angles of rotated halves: the sine without the signs of a pair, then the cosine."""
    signs = torch.tensor([-1, 1])
    sin = (module.sin.unflatten(-1, (2, -1)) * signs[:, None]).flatten(-2)
    return torch.cat([sin, module.cos], dim=-1)


def unrolled(units: Tensor) -> Tensor:
    """Return tokens in timm's order for Hiera, in which the position in a unit is the slowest index."""
    return units.unflatten(0, (-1, 49)).transpose(1, 2).flatten(1, 2)


def compare(reference: Reference, kernel: str) -> None:
    """Check that both modules return the same output, then print the ratio of their times."""
    spec = replace(reference.spec, kernel=kernel)
    theirs, ours = reference.module.eval(), spec.build().eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(spec.input_shape)
    inputs = reference.prepare(x)
    forward = reference.forward or theirs

    def run() -> Tensor:
        return forward(*inputs)

    start = time.perf_counter()
    wanted = reference.restore(run())
    pairs = min(MOST_PAIRS, max(FEWEST_PAIRS, round(SECONDS / (time.perf_counter() - start) / 2)))
    torch.testing.assert_close(ours(x), wanted.reshape(ours(x).shape), atol=1e-4, rtol=1e-4)
    name = " · ".join([spec.title, *spec.headline()])
    print(of_calls(f"{name}, {kernel}: ours over theirs", lambda: ours(x), run, 1.02, pairs), flush=True)


def main() -> None:
    warnings.simplefilter("ignore")
    print(HEAD)
    with torch.inference_mode():
        for reference in references():
            if sys.argv[1:] and reference.spec.name not in sys.argv[1:]:
                continue
            fused = [module for module in reference.module.modules() if hasattr(module, "fused_attn")]
            for kernel in reference.kernels if fused else ("eager",):
                for module in fused:
                    module.fused_attn = kernel == "sdpa"
                compare(reference, kernel)


if __name__ == "__main__":
    main()
