"""MACs of the attentions inside published networks: our Spec against torch's FlopCounterMode, as integers."""

from math import isqrt

import pytest
import timm
import torch
from timm.models.davit import ChannelAttention
from timm.models.efficientvit_mit import LiteMLA
from timm.models.hiera import MaskUnitAttention
from timm.models.maxxvit import AttentionCl
from timm.models.pvt_v2 import Attention as PVTAttention
from timm.models.twins import GlobalSubSampleAttn
from timm.models.vision_transformer_sam import Attention as SAMAttention
from timm.models.xcit import XCA
from torch.utils.flop_counter import FlopCounterMode

from attnscope.attentions.hiera.spec import HieraSpec
from attnscope.attentions.linear.spec import LinearSpec
from attnscope.attentions.maxvit.spec import MaxViTSpec
from attnscope.attentions.pvt.spec import PVTSpec
from attnscope.attentions.sam.spec import SAMSpec
from attnscope.attentions.xca.spec import XCASpec


def pvt(module, x, grid):
    reduction = (
        {"linear": True} if getattr(module, "pool", None) else {"reduction": module.sr.stride[0] if module.sr else 1}
    )
    return PVTSpec(dim=x.shape[-1], heads=module.num_heads, resolution=tuple(grid), batch=len(x), **reduction)


def xca(module, x):
    variant = "xcit" if isinstance(module, XCA) else "davit"
    return XCASpec(dim=x.shape[-1], heads=module.num_heads, resolution=(x.shape[1], 1), batch=len(x), variant=variant)


def maxvit(module, windows, shared_rel_pos=None):
    count, p, q, c = windows.shape
    return MaxViTSpec(dim=c, heads=module.num_heads, resolution=(count * p, q), partition=(p, q))


def sam(module, x):
    assert module.use_rel_pos
    return SAMSpec(dim=x.shape[-1], heads=module.num_heads, resolution=tuple(x.shape[1:3]), window=0, batch=len(x))


def hiera(module, tokens):
    stride, n = isqrt(module.q_stride), tokens.shape[1]
    side = isqrt(module.q_stride * module.window_size) if module.use_mask_unit_attn else isqrt(n)
    window = side if module.use_mask_unit_attn else 0
    return HieraSpec(
        dim=module.dim,
        out_dim=module.dim_out,
        heads=module.heads,
        resolution=(n // side, side),
        window=window,
        q_stride=stride,
        batch=len(tokens),
    )


def linear(module, x):
    scales = tuple(part[0].kernel_size[0] for part in module.aggreg)
    return LinearSpec(dim=x.shape[1], head_dim=module.dim, scales=scales, resolution=tuple(x.shape[2:]), batch=len(x))


SPECS = {
    PVTAttention: pvt,
    GlobalSubSampleAttn: pvt,
    XCA: xca,
    ChannelAttention: xca,
    AttentionCl: maxvit,
    SAMAttention: sam,
    MaskUnitAttention: hiera,
    LiteMLA: linear,
}
"""The Spec of a reference module with its inputs, by the class of the module."""
NETWORKS = (
    *(f"pvt_v2_b{size}" for size in (0, 1, 2, 3, 4, 5)), "pvt_v2_b2_li",
    *(f"twins_{kind}_{size}" for kind in ("pcpvt", "svt") for size in ("small", "base", "large")),
    "xcit_nano_12_p16_224", "xcit_tiny_12_p8_224", "xcit_small_12_p16_224", "xcit_medium_24_p16_224",
    "davit_tiny", "davit_small", "davit_base",
    "maxvit_tiny_tf_224", "maxvit_small_tf_224", "maxvit_tiny_tf_384",
    "samvit_base_patch16", "samvit_large_patch16",
    "hiera_tiny_224", "hiera_small_224", "hiera_base_224", "hiera_large_224",
    "efficientvit_b0", "efficientvit_b1", "efficientvit_b2", "efficientvit_b3", "efficientvit_l1", "efficientvit_l2",
)  # fmt: skip


def looked_up_bias(module):
    """Return the MACs of the one-hot einsum with which timm's *_tf networks look up the bias, for one forward."""
    p, heads = module.rel_pos.window_size[0], module.num_heads
    return heads * p**2 * (2 * p - 1) ** 2 + heads * p**4 * (2 * p - 1)


@pytest.mark.parametrize("name", NETWORKS)
def test_attentions_in_a_network_have_the_macs_of_their_spec(name):
    with torch.device("meta"):
        network = timm.create_model(name).eval()
        calls = []
        for module in network.modules():
            if type(module) in SPECS:
                module.register_forward_pre_hook(lambda module, inputs: calls.append((module, inputs)))
        with torch.no_grad():
            network(torch.empty(1, *network.default_cfg["input_size"]))
    assert calls
    checked = set()
    for module, inputs in calls:
        spec = SPECS[type(module)](module, *inputs)
        if spec in checked:
            continue
        checked.add(spec)
        with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
            type(module).forward(module, *inputs)
        extra = looked_up_bias(module) if isinstance(module, AttentionCl) else 0
        assert counter.get_total_flops() // 2 == spec.plan().macs + extra, spec
