"""Networks with the options of DINOv2, DINOv3, EVA-02 and RoPE-ViT: equal to timm's; exact MACs, memory and errors."""

import pytest
import timm
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from attnscope import UsageError
from attnscope.attentions.vit.rope import ROTATIONS
from attnscope.networks.vit.mlp import MLPS
from attnscope.networks.vit.spec import ViTNetworkSpec
from attnscope.profiling.verification import verify_steps
from attnscope.testing import (
    hold_backward_memory,
    hold_elementwise_flops,
    hold_macs,
    hold_memory,
    hold_saved,
    hold_trace,
)
from tests.families.test_rope import HALVES, table_of
from tests.strategies import KERNELS

WIDTH = {"dim": 24, "heads": 3, "depth": 2}
NARROW = {"embed_dim": 24, "num_heads": 3, "depth": 2}
DINOV2 = {"image": 56, "patch": 14, "layer_scale": True, "classes": 0}
DINOV3 = {"image": (48, 64), "rope": "dinov3", "registers": 4, "pos_embed": "none", "layer_scale": True, "classes": 0}
DINOV3 |= {"qkv_bias": False, "pool": "mean", "norm_eps": 1e-5}
EVA02 = {"image": 56, "patch": 14, "rope": "eva02", "key_bias": False, "pool": "mean", "pool_norm": True}
EVA02 |= {"mlp_ratio": 8 / 3, "classes": 7}
ROPE_VIT = {"image": (48, 64), "layer_scale": True, "classes": 7}
GAP = {"image": 64, "cls": False, "registers": 4, "pool_norm": True, "layer_scale": True, "classes": 7}

AGREEMENT = {
    "vit_small_patch14_dinov2": DINOV2,
    "vit_base_patch14_reg4_dinov2": DINOV2 | {"registers": 4},
    "vit_giant_patch14_dinov2": DINOV2 | {"mlp": "swiglu-packed", "mlp_ratio": 2.66667},
    "vit_base_patch16_dinov3": DINOV3,
    "vit_small_plus_patch16_dinov3": DINOV3 | {"mlp": "swiglu"},
    "vit_base_patch16_dinov3_qkvb": DINOV3 | {"qkv_bias": True, "key_bias": False},
    "eva02_tiny_patch14_224": EVA02 | {"mlp": "swiglu-packed", "classes": 0},
    "eva02_base_patch14_448": EVA02 | {"mlp": "swiglu", "mlp_norm": True},
    "eva02_large_patch14_clip_224": EVA02
    | {"mlp": "swiglu", "mlp_norm": True, "inner_norm": True, "pool": None, "pool_norm": False},
    "vit_small_patch16_rope_224": ROPE_VIT | {"rope": "axial", "pos_embed": "none"},
    "vit_base_patch16_rope_mixed_224": ROPE_VIT | {"rope": "mixed", "pos_embed": "none"},
    "vit_base_patch16_rope_ape_224": ROPE_VIT | {"rope": "axial", "pos_embed": "patches"},
    "vit_base_patch16_rope_mixed_ape_224": ROPE_VIT | {"rope": "mixed", "pos_embed": "patches"},
    "vit_medium_patch16_reg4_gap_256": GAP,
    "vit_betwixt_patch16_rope_reg4_gap_256": GAP | {"rope": "eva02", "key_bias": False, "pos_embed": "none"},
    "vit_so150m_patch16_reg4_gap_256": GAP | {"layer_scale": False, "pos_embed": "all", "pool_norm": False},
}
"""Fields of a narrow version of timm's networks, by timm's names."""


def of_timm(name, spec):
    """Build a narrow network of timm in float64, with random values of all parameters."""
    size = {"img_size": spec.image, "num_classes": spec.classes, "mlp_ratio": spec.mlp_ratio}
    if name == "vit_giant_patch14_dinov2":
        size["mlp_ratio"] *= 2  # there, it is that of both packed layers
    network = timm.create_model(name, **NARROW, **size).double().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return network


def with_our_angles(theirs, ours):
    """Give timm's network our table of angles; timm computes its own in float32, see tests/families/test_rope.py."""
    halves = ours.spec.rope in HALVES
    tables = [table_of(block.attn, halves) for block in ours.blocks]
    table = torch.stack(tables) if ours.spec.rope == "mixed" else tables[0]
    theirs.rope.get_embed = lambda *arguments, **others: table.to(theirs.patch_embed.proj.weight.device)
    return theirs


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize(
    ("name", "fields"), AGREEMENT.items(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_outputs_and_counts_equal_timms(name, fields, kernel):
    spec = ViTNetworkSpec(**WIDTH | fields, kernel=kernel)
    theirs = of_timm(name, spec)
    torch.set_default_dtype(torch.float64)  # angles have the dtype with which a network is built
    try:
        ours = spec.build().eval()
    finally:
        torch.set_default_dtype(torch.float32)
    ours.load_state_dict(theirs.state_dict())
    if spec.rope:
        theirs = with_our_angles(theirs, ours)
    image = torch.randn(2, 3, *spec.image, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ours(image), theirs(image), rtol=0, atol=1e-10)
    assert spec.params() == spec.plan().params == sum(parameter.numel() for parameter in theirs.parameters())
    with FlopCounterMode(display=False) as counter, torch.no_grad(), torch.device("meta"):
        theirs.to("meta")(image[:1].to("meta"))
    assert counter.get_total_flops() == 2 * spec.macs()


@st.composite
def small_networks(draw):
    """Draw networks with any of the options; combinations that the Spec refuses are drawn again."""
    fields = {
        "cls": st.booleans(),
        "registers": st.integers(0, 3),
        "pos_embed": st.sampled_from([None, "all", "patches", "none"]),
        "rope": st.sampled_from([None, *ROTATIONS]),
        "qk_norm": st.booleans(),
        "key_bias": st.booleans(),
        "inner_norm": st.booleans(),
        "mlp": st.sampled_from(list(MLPS)),
        "mlp_norm": st.booleans(),
        "layer_scale": st.booleans(),
        "pool": st.sampled_from([None, "mean", "token"]),
        "pool_norm": st.booleans(),
        "classes": st.integers(0, 3),
        "depth": st.integers(1, 2),
        "batch": st.integers(1, 2),
        "scope": st.sampled_from(["model", "block"]),
        "kernel": st.sampled_from(KERNELS),
        "image": st.tuples(st.integers(1, 4), st.integers(1, 4)),
        "pad_image": st.booleans(),
        "mlp_ratio": st.sampled_from([1.0, 8 / 3]),
    }
    try:
        return ViTNetworkSpec(
            dim=24, heads=draw(st.sampled_from([1, 3])), patch=1, **draw(st.fixed_dictionaries(fields))
        )
    except UsageError:
        reject()


@given(small_networks())
@settings(max_examples=25)
def test_plan_closed_form_run_counters_and_trace_agree(spec):
    hold_macs(spec)
    hold_elementwise_flops(spec)
    hold_trace(spec)
    verify_steps(spec.build().eval(), (torch.randn(spec.input_shape),), spec.plan())
    assert spec.plan().macs == spec.complexity().own_macs
    if spec.is_whole:
        assert spec.plan().params == spec.params() == sum(each.numel() for each in spec.build().parameters())
        assert spec.plan().macs == spec.batch * spec.macs()


@given(small_networks())
@settings(max_examples=30)
def test_held_and_saved_bytes_and_the_backward_equal_torchs(spec):
    hold_memory(spec)
    hold_saved(spec)
    hold_backward_memory(spec, input_grad=True)
