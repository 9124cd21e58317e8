"""Networks with the options of DINOv2, DINOv3, EVA-02 and RoPE-ViT: equal to timm's; exact MACs, memory and errors."""

import copy
import pickle
import sys

import pytest
import timm
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from attnscope import UsageError
from attnscope.attentions.vit.rope import ROTATIONS
from attnscope.networks.conventions import counts_per_image
from attnscope.networks.presets import presets
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
        "checkpoint": st.sampled_from(["none", "block", "attention"]),
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


@pytest.mark.parametrize(
    "name", ["vit_small_plus_patch16_dinov3", "vit_base_patch16_rope_mixed_224", "eva02_tiny_patch14_224"]
)
def test_networks_are_copied_pickled_and_exported_for_any_batch_size(name):
    network = ViTNetworkSpec(**WIDTH | {"depth": 1} | AGREEMENT[name]).build().eval()
    two, five = (torch.randn(count, 3, *network.spec.image) for count in (2, 5))
    batch = {0: torch.export.Dim("b")}
    with torch.no_grad():
        expected = network(five)
        assert torch.equal(copy.deepcopy(network)(five), expected)
        assert torch.equal(pickle.loads(pickle.dumps(network))(five), expected)
        exported = torch.export.export(network, (two,), dynamic_shapes=(batch,)).module()
        torch.testing.assert_close(exported(five), expected)


def test_training_overfits_four_images():
    torch.manual_seed(0)
    fields = DINOV3 | {"mlp": "swiglu", "mlp_norm": True, "qk_norm": True, "image": 32, "classes": 4}
    network = ViTNetworkSpec(**WIDTH | fields).build().train()
    images, labels = torch.randn(4, 3, 32, 32), torch.arange(4)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(120):
        loss = nn.functional.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss < 0.05:
            break
    assert loss < 0.05


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pool": "token", "cls": False}, "pool token requires the class token, which no_cls removes; use pool mean"),
        (
            {"distilled": True, "rope": "axial"},
            "rope and distilled contradict each other (got axial); remove one of them",
        ),
        ({"distilled": True, "pool_norm": True}, "pool_norm and distilled contradict each other; remove one of them"),
        ({"distilled": True, "classes": 0}, "distilled requires a head (got classes 0); remove it"),
        ({"rope": "axial", "heads": 128}, "rope requires that dim / heads is divisible by 4"),
        ({"mlp": "swigl"}, "mlp swigl is unknown; nearest: swiglu, swiglu-packed"),
        ({"key_bias": False, "qkv_bias": False}, "no_key_bias requires a bias of q and v"),
    ],
)
def test_what_contradicts_is_refused(fields, message):
    with pytest.raises(UsageError) as error:
        ViTNetworkSpec(**fields)
    assert str(error.value).startswith(message)


def test_figures_of_tools_are_shown_only_for_options_that_libraries_have():
    def names(spec):
        return {each.name for each in counts_per_image(spec)}

    assert "ptflops on timm" in names(ViTNetworkSpec(**WIDTH))
    assert "ptflops on timm" not in names(ViTNetworkSpec(**WIDTH, mlp="swiglu")) | names(
        ViTNetworkSpec(**WIDTH, rope="axial", qk_norm=True)
    )


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [
        ("dinov3-s-16-256", 21_586_944, 6_245_286_912),
        ("dinov3-s-plus-16-256", 28_683_264, 8_092_615_680),
        ("dinov3-b-16-256", 85_641_216, 23_574_546_432),
        ("dinov3-l-16-256", 303_079_424, 82_368_970_752),
        ("dinov3-h-plus-16-256", 840_509_440, 224_774_799_360),
        ("dinov3-7b-16-256", 6_716_030_976, 1_774_668_546_048),
        ("rope-vit-b-16-224", 86_434_792, 17_563_828_224),
        ("eva02-b-16-clip-224", 86_263_040, 17_563_453_440),
    ],
)
def test_exact_figures_of_published_networks(name, params, macs):
    """They were counted on timm's networks with torch's FlopCounterMode."""
    preset = next(each for each in presets() if each.name == name)
    assert (preset.params, preset.macs) == (params, macs)


DINO_NAMES = {
    "reg_token": {"reg4": "register_tokens", "dinov3": "storage_tokens"},
    ".mlp.fc1.": {"giant": ".mlp.w12."},
    ".mlp.fc1_g.": {"plus": ".mlp.w1."},
    ".mlp.fc1_x.": {"plus": ".mlp.w2."},
    ".mlp.fc2.": {"giant": ".mlp.w3.", "plus": ".mlp.w3."},
}
"""Meta's names of parameters, by timm's, for networks whose name in timm has one of these words."""


def of_meta(network, name):
    """Return a state dict of Meta's DINOv2 or DINOv3 with the random weights of our network."""
    state = {"mask_token": torch.zeros(1, 24)}
    for parameter, tensor in network.state_dict().items():
        for part, words in DINO_NAMES.items():
            parameter = parameter.replace(part, next((new for word, new in words.items() if word in name), part))
        state[parameter] = torch.randn_like(tensor)
    if "reg4" in name:
        state["pos_embed"] = torch.randn(1, 17, 24)
    if "dinov3" in name:
        state["rope_embed.periods"] = torch.randn(4)
        for block in range(2):
            for each in ("q_bias", "v_bias"):
                state.pop(f"blocks.{block}.attn.{each}", None)
            state[f"blocks.{block}.attn.qkv.bias"] = torch.randn(72) * ("qkvb" in name)
            state[f"blocks.{block}.attn.qkv.bias_mask"] = torch.ones(72)
    return state


@pytest.mark.parametrize("name", [name for name in AGREEMENT if "dino" in name])
def test_checkpoints_of_meta_load_as_in_timm(name):
    spec = ViTNetworkSpec(**WIDTH | AGREEMENT[name])
    theirs, ours = of_timm(name, spec), spec.build().eval().double()
    state = of_meta(ours, name)
    converted = sys.modules[type(theirs).__module__].checkpoint_filter_fn(dict(state), theirs)
    theirs.load_state_dict(converted)
    ours.load_state_dict(state)
    for ours_of, theirs_of in zip(ours.parameters(), renamed(spec, theirs), strict=True):
        assert torch.equal(ours_of, theirs_of)


def renamed(spec, theirs):
    """Return the parameters of timm's network in the order of ours."""
    again = spec.build().double()
    again.load_state_dict(theirs.state_dict())
    return again.parameters()
