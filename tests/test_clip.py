"""Windows on small grids: MACs, parameters and outputs by each rule of --clip equal those of the libraries."""

import re

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from attnscope import networks
from attnscope.networks.swin.spec import SwinNetworkSpec, SwinV2NetworkSpec

IMAGES = ((56, 56), (28, 56), (56, 24), (64, 64), (36, 52), (16, 16), (20, 60), (112, 28), (44, 44))
GEOMETRIES = [(image, window) for image in IMAGES for window in (4, 7)]
SMALL = {"dim": 12, "heads": 3, "depths": (2, 2), "classes": 7}
EVERY_GEOMETRY = pytest.mark.parametrize(
    ("image", "window"), GEOMETRIES, ids=[f"{image[0]}x{image[1]}-{window}" for image, window in GEOMETRIES]
)
EVERY_FAMILY = pytest.mark.parametrize("family", [SwinNetworkSpec, SwinV2NetworkSpec], ids=["swin", "swinv2"])


def noisy(network):
    """Return the network with normally distributed parameters; zeros would hide a wrong norm or bias."""
    torch.manual_seed(0)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network.double().eval()


def check_counts(spec, theirs, image):
    """Check MACs and parameters of a network of another library."""
    assert sum(parameter.numel() for parameter in theirs.parameters()) == spec.params() == spec.plan().params
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        output = theirs(image)
    assert counter.get_total_flops() == 2 * spec.batch * spec.macs()
    return output


@EVERY_FAMILY
@EVERY_GEOMETRY
def test_timm_clips_per_axis(family, image, window):
    timm = pytest.importorskip("timm")
    spec = family(image=image, window=(window, window), **SMALL)
    official = "swin_tiny_patch4_window7_224" if family is SwinNetworkSpec else "swinv2_tiny_window8_256"
    sizes = {"embed_dim": 12, "depths": (2, 2), "num_heads": (3, 6), "window_size": window, "num_classes": 7}
    theirs = noisy(timm.create_model(official, img_size=image, **sizes))
    images = torch.randn(1, 3, *image, dtype=torch.float64)
    output = check_counts(spec, theirs, images)
    shifted = [stage for stage in spec.stages if spec.attention_of(stage, 1).windows.is_shifted]
    if not any(spec.attention_of(stage, 1).windows.is_padded for stage in shifted):  # there, timm rolls before it pads
        check_output(spec, theirs.state_dict(), images, output)


@EVERY_FAMILY
@EVERY_GEOMETRY
def test_torchvision_does_not_clip(family, image, window):
    swin = pytest.importorskip("torchvision").models.swin_transformer
    spec = family(image=image, window=(window, window), clip="none", **SMALL)
    v2 = {"block": swin.SwinTransformerBlockV2, "downsample_layer": swin.PatchMergingV2}
    own = v2 if family is SwinV2NetworkSpec else {}
    theirs = noisy(swin.SwinTransformer([4, 4], 12, [2, 2], [3, 6], [window, window], num_classes=7, **own))
    images = torch.randn(1, 3, *image, dtype=torch.float64)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        output = theirs(images)
    assert counter.get_total_flops() == 2 * spec.macs()
    check_output(spec, theirs.state_dict(), images, output)


@EVERY_GEOMETRY
def test_transformers_takes_a_square_window(image, window):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    spec = SwinNetworkSpec(image=image, window=(window, window), clip="square", **SMALL)
    sizes = {"image_size": image, "embed_dim": 12, "depths": [2, 2], "num_heads": [3, 6], "window_size": window}
    config = transformers.SwinConfig(patch_size=4, num_labels=7, attn_implementation="eager", **sizes)
    theirs = noisy(transformers.SwinForImageClassification(config))
    images = torch.randn(1, 3, *image, dtype=torch.float64)
    if any(min(stage.grid) < window for stage in spec.stages):
        # Its position bias keeps the size of the window that the config names, so that the forward fails.
        with pytest.raises((RuntimeError, IndexError, ValueError)), torch.no_grad():
            theirs(images)
        return
    output = check_counts(spec, Logits(theirs), images)
    check_output(spec, from_transformers(theirs.state_dict()), images, output, atol=1e-7)  # its softmax is in float32


class Logits(torch.nn.Module):
    """A network of transformers that returns its logits."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return self.network(images).logits


def check_output(spec, state, images, expected, atol=1e-10):
    """Check that the output of our network with another network's parameters is the same."""
    ours = networks.build(spec).double().eval()
    ours.load_state_dict(state)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), expected, rtol=0, atol=atol)


def from_transformers(state):
    """Return the state dict of a SwinForImageClassification with Microsoft's names."""
    names = {
        r"swin\.embeddings\.patch_embeddings\.projection": "patch_embed.proj",
        r"swin\.embeddings\.norm": "patch_embed.norm",
        r"swin\.encoder\.": "",
        r"swin\.layernorm": "norm",
        r"layernorm_before": "norm1",
        r"layernorm_after": "norm2",
        r"attention\.o_proj": "attn.proj",
        r"attention\.relative_position_bias\.relative_position_bias_table": "attn.relative_position_bias_table",
        r"classifier": "head",
    }
    renamed = {}
    for name, tensor in state.items():
        for pattern, replacement in names.items():
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    joined = {}
    for name, tensor in renamed.items():
        if "q_proj" in name:
            keys, values = (renamed[name.replace("q_proj", other)] for other in ("k_proj", "v_proj"))
            joined[name.replace("attention.q_proj", "attn.qkv")] = torch.cat([tensor, keys, values])
        elif "k_proj" not in name and "v_proj" not in name:
            joined[name] = tensor
    return joined


def test_the_rule_is_named(attnscope):
    small = ("--scope", "model", "--image", "128x96", "--no-time", "--wide")
    assert "stage 4 clips the window to its grid: 4×3 (clip per-axis, as in timm)" in attnscope("swin", *small).stdout
    square = attnscope("swin", *small, "--clip", "square").stdout
    assert "stage 4 clips the window to its grid: 3 (clip square, as in Microsoft's code and transformers)" in square
    assert "clips the window" not in attnscope("swin", *small, "--clip", "none").stdout
