"""Forward of attnscope's modules against timm's with the same weights and kernel, and planning against counting.

python -m benchmarks.forward
"""

import warnings

import timm.layers
import timm.models.swin_transformer as timm_swin
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from attnscope import SwinSpec, ViTAttention, ViTSpec, WindowAttention, attentions
from attnscope.analyses.explore import explore
from attnscope.profiling import process
from attnscope.profiling.counters import count_with_fvcore
from benchmarks.ratios import HEAD, Ratio, of_calls

process.pin_allocator()
torch.set_num_threads(1)
torch.manual_seed(0)


class TimmSwin(nn.Module):
    """The attention of timm's Swin block with its partition and roll."""

    def __init__(self, shift: int) -> None:
        super().__init__()
        self.block = timm_swin.SwinTransformerBlock(96, (56, 56), 3, window_size=7, shift_size=shift)
        self.block.norm1 = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block._attn(x)


def modules() -> None:
    """Print the forward time over timm's, without hooks."""
    for kernel in ("eager", "sdpa"):
        theirs = timm.layers.Attention(768, num_heads=12, qkv_bias=True).eval()
        theirs.fused_attn = kernel == "sdpa"
        ours = ViTAttention(768, 12, kernel=kernel).eval()
        ours.load_state_dict(theirs.state_dict())
        compare(f"ViT-B, {kernel}", ours, theirs, torch.randn(1, 197, 768))
        for shift in (0, 3):
            block = TimmSwin(shift).eval()
            block.block.attn.fused_attn = kernel == "sdpa"
            module = WindowAttention(96, 3, 7, shift, kernel=kernel).eval()
            module.load_state_dict(block.block.attn.state_dict())
            compare(f"Swin stage 1, shift {shift}, {kernel}", module, block, torch.randn(1, 56, 56, 96))


def compare(name: str, ours: nn.Module, theirs: nn.Module, x: torch.Tensor) -> None:
    """Check that both modules return the same output, then print the ratio of their times."""
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-4)
    print(of_calls(f"{name}: ours over timm's", lambda: ours(x), lambda: theirs(x), 1.02, pairs=60))


def costs() -> None:
    """Print the time of planning over that of the counters, on the same module."""
    from fvcore.nn import FlopCountAnalysis

    for spec in (ViTSpec(), SwinSpec(), SwinSpec(shift=True)):
        module, x = attentions.build(spec).eval(), torch.randn(spec.input_shape)

        def plan(spec: ViTSpec | SwinSpec = spec) -> object:
            planned = attentions.plan(spec)
            return [
                (row.inputs, row.outputs, row.macs, row.other_flops, row.params) for row in planned.steps
            ], planned.macs

        def fvcore(module: nn.Module = module, x: torch.Tensor = x) -> object:
            analysis = FlopCountAnalysis(module, x).unsupported_ops_warnings(False)
            return analysis.total()

        def torchs(module: nn.Module = module, x: torch.Tensor = x) -> object:
            with FlopCounterMode(display=False) as counter:
                module(x)
            return counter.get_total_flops()

        name = f"{spec.name}{' shifted' if 'shift' in ' '.join(spec.headline()) else ''}"
        print(of_calls(f"{name}: planning over fvcore's counting", plan, fvcore, 0.02))
        print(of_calls(f"{name}: planning over FlopCounterMode's counting", plan, torchs))
        print(of_calls(f"{name}: our audit over fvcore alone", lambda m=module, t=x: count_with_fvcore(m, t), fvcore))


def sums() -> None:
    """Print the sum of the steps over the untouched forward."""
    for spec in (ViTSpec(), ViTSpec(batch=8), SwinSpec(), SwinSpec(shift=True), SwinSpec(resolution=50, shift=True)):
        ratios = []
        for _ in range(7):
            time = explore(spec, budget=1.0).time
            assert time is not None
            ratios.append(time.steps_sum_s / time.whole_interquartile_mean_s)
        name = " · ".join([spec.title, *spec.headline(), f"batch {spec.batch}"])
        print(Ratio(f"{name}: sum of steps over whole", ratios, 1.03, 0.97))


def main() -> None:
    warnings.simplefilter("ignore")  # fvcore traces with TorchScript, which torch has deprecated
    print(HEAD)
    with torch.inference_mode():
        modules()
        costs()
    sums()


if __name__ == "__main__":
    main()
