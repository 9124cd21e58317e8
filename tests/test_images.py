"""Images that the patch does not divide, and ViT with registers: outputs, counts and memory."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from attnscope import explore, networks
from attnscope.core.errors import UsageError
from attnscope.networks.swin.spec import SwinNetworkSpec, SwinV2NetworkSpec
from attnscope.networks.vit.spec import ViTNetworkSpec
from attnscope.profiling.verification import verify_steps

SMALL = {"dim": 12, "heads": 3, "classes": 7, "pad_image": True}
PADDED = [
    ViTNetworkSpec(image=(50, 67), depth=2, **SMALL),
    SwinNetworkSpec(image=(58, 81), depths=(2, 2), **SMALL),
    SwinV2NetworkSpec(image=(58, 81), depths=(2, 2), window=(7, 7), **SMALL),
]


@pytest.mark.parametrize("spec", PADDED, ids=lambda spec: spec.name)
def test_a_padded_image_gives_the_output_of_the_padded_size(spec):

    whole = replace(spec, image=tuple(patch * side for patch, side in zip(spec.patch, spec.grid, strict=True)))
    ours, larger = networks.build(spec).eval(), networks.build(whole).eval()
    larger.load_state_dict(ours.state_dict())
    image = torch.randn(spec.image_shape)
    down, across = (after - before for after, before in zip(whole.image, spec.image, strict=True))
    with torch.no_grad():
        torch.testing.assert_close(ours(image), larger(F.pad(image, (0, across, 0, down))), rtol=0, atol=0)
    assert spec.macs() == spec.plan().macs == whole.macs()
    assert spec.params() == spec.plan().params == whole.params()
    verify_steps(ours, (image,), spec.plan())


@pytest.mark.parametrize("spec", [*PADDED, ViTNetworkSpec(image=64, depth=2, registers=4, dim=12, heads=3)], ids=str)
def test_counts_agree(spec):
    report = explore(spec, device="cpu", budget=0.01, audit=True, backward=True)
    assert report.audit.agree
    assert report.backward.macs == report.backward.torch


def test_a_detectors_image():
    """The sides of 800×1333 pixels give 200×334 patches of 4×4."""
    spec = SwinNetworkSpec(image=(800, 1333), pad_image=True)
    assert spec.grid == (200, 334)
    assert spec.cautions()[0] == "the image is padded from 800×1333 to 800×1336 pixels"
    with pytest.raises(UsageError, match=r"nearest: 800x1332 or 800x1336; pad_image pads it"):
        SwinNetworkSpec(image=(800, 1333))


def test_registers_are_those_of_timm():
    timm = pytest.importorskip("timm")
    sizes = {"embed_dim": 24, "depth": 2, "num_heads": 3, "img_size": 64, "num_classes": 7}
    theirs = timm.create_model("vit_base_patch16_224", reg_tokens=4, no_embed_class=True, **sizes).double().eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    spec = ViTNetworkSpec(image=64, dim=24, depth=2, heads=3, classes=7, registers=4)
    ours = networks.build(spec).double().eval()
    ours.load_state_dict(theirs.state_dict())
    image = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ours(image), theirs(image), rtol=0, atol=1e-10)
    assert spec.params() == sum(parameter.numel() for parameter in theirs.parameters())
    assert spec.tokens == 1 + 4 + 16


def test_registers_contradict_a_distillation_token():
    with pytest.raises(UsageError, match=r"registers and distilled contradict each other \(got 4\)"):
        ViTNetworkSpec(registers=4, distilled=True)
