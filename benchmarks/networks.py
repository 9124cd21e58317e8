"""Whole networks: planning time over fvcore's counting time, and forward time over timm's.

python -m benchmarks.networks
"""

import copy

import timm
import torch
from torch import nn

from attnscope import networks
from attnscope.networks.spec import NetworkSpec
from attnscope.networks.swin.spec import SwinNetworkSpec
from attnscope.networks.vit.spec import ViTNetworkSpec
from attnscope.plan.memory import Memory
from attnscope.profiling import process
from benchmarks.ratios import HEAD, Ratio, of_calls

process.pin_allocator()
torch.set_num_threads(1)
torch.manual_seed(0)

SWIN_B = SwinNetworkSpec(dim=128, heads=4, depths=(2, 2, 18, 2))


def costs() -> Ratio:
    """Measure the time to plan Swin-B over that of fvcore's FlopCountAnalysis on timm's Swin-B."""
    from fvcore.nn import FlopCountAnalysis

    theirs, image = timm.create_model("swin_base_patch4_window7_224").eval(), torch.randn(1, 3, 224, 224)

    def plan() -> None:
        planned = networks.plan(copy.copy(SWIN_B))
        _ = planned.macs, planned.params, planned.other_flops, Memory(planned).peak

    def count() -> None:
        analysis = FlopCountAnalysis(theirs, image).unsupported_ops_warnings(False)
        analysis.uncalled_modules_warnings(False).tracer_warnings("none")
        assert analysis.total()

    with torch.no_grad():
        return of_calls("Swin-B: planning over fvcore's counting", plan, count, 0.01, pairs=5)


def forward(name: str, spec: NetworkSpec, timms: str, kernel: str) -> Ratio:
    """Measure the forward time over timm's, with the same weights and kernel and without hooks."""
    theirs = timm.create_model(timms).eval()
    for module in theirs.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = kernel == "sdpa"
    ours: nn.Module = networks.build(spec).eval()
    ours.load_state_dict(theirs.state_dict())
    image = torch.randn(1, 3, *spec.image)
    with torch.inference_mode():
        torch.testing.assert_close(ours(image), theirs(image), atol=1e-4, rtol=1e-4)
        return of_calls(
            f"{name}, {kernel}: ours over timm's", lambda: ours(image), lambda: theirs(image), 1.02, pairs=15
        )


if __name__ == "__main__":
    print(HEAD)
    print(costs())
    for kernel in ("eager", "sdpa"):
        print(forward("ViT-B", ViTNetworkSpec(kernel=kernel), "vit_base_patch16_224", kernel))
        print(forward("Swin-T", SwinNetworkSpec(kernel=kernel), "swin_tiny_patch4_window7_224", kernel))
