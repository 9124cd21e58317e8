"""Gradient checkpointing: memory and MACs equal torch's, and gradients are those without it."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnscope import explore
from attnscope.networks.sam.spec import SAMNetworkSpec
from attnscope.networks.swin.spec import SwinNetworkSpec, SwinV2NetworkSpec
from attnscope.networks.vit.spec import ViTNetworkSpec
from attnscope.plan.backward import backward_macs, recomputed_macs
from attnscope.plan.memory import Memory
from attnscope.testing import hold_backward_macs, hold_backward_memory, hold_memory, hold_saved
from tests.strategies import small_swins, small_vits

SMALL_SWIN = {"dim": 12, "heads": 3, "depths": (2, 2, 3, 2), "classes": 7}
SMALL_VIT = {"dim": 24, "heads": 3, "depth": 3, "classes": 7, "image": (64, 48)}
BOTH = pytest.mark.parametrize("checkpoint", ["block", "attention"])
CASES = [
    ViTNetworkSpec(**SMALL_VIT),
    ViTNetworkSpec(scope="block", **SMALL_VIT),
    ViTNetworkSpec(batch=2, kernel="sdpa", **SMALL_VIT),
    ViTNetworkSpec(batch=2, kv_heads=1, dtype="float64", **SMALL_VIT),
    *(kind(**SMALL_SWIN) for kind in (SwinNetworkSpec, SwinV2NetworkSpec)),
    *(
        kind(scope="block", block=block, **SMALL_SWIN)
        for kind in (SwinNetworkSpec, SwinV2NetworkSpec)
        for block in (1, 2)
    ),
    *(kind(stage=3, image=(100, 60), **SMALL_SWIN) for kind in (SwinNetworkSpec, SwinV2NetworkSpec)),
    *(kind(image=(100, 60), kv_heads=1, batch=2, **SMALL_SWIN) for kind in (SwinNetworkSpec, SwinV2NetworkSpec)),
]
BOUNDS = [
    SwinNetworkSpec(kernel="sdpa", **SMALL_SWIN),  # the kernel saves tensors that depend on the device
    ViTNetworkSpec(attn_drop=0.1, proj_drop=0.1, **SMALL_VIT),
]


def name_of(spec):
    return f"{spec.name}-{spec.scope}-{spec.kernel}-{'x'.join(map(str, spec.input_shape))}"


def hold_against_torch(spec):
    hold_memory(spec)
    hold_saved(spec)
    for input_grad in (True, False):
        hold_backward_memory(spec, input_grad)
        hold_backward_macs(spec, input_grad)


@BOTH
@pytest.mark.parametrize("spec", CASES, ids=name_of)
def test_memory_and_macs_equal_torchs(spec, checkpoint):
    spec = replace(spec, checkpoint=checkpoint)
    assert Memory(spec.plan()).kept is not None
    hold_against_torch(spec)


@BOTH
@pytest.mark.parametrize("spec", BOUNDS, ids=name_of)
def test_unknown_memory_has_a_lower_bound(spec, checkpoint):
    spec = replace(spec, checkpoint=checkpoint)
    assert None in Memory(spec.plan()).training
    hold_against_torch(spec)


@given(small_vits | small_swins, st.sampled_from(["block", "attention"]))
@settings(max_examples=20)
def test_memory_and_macs_of_random_networks_equal_torchs(spec, checkpoint):
    hold_against_torch(replace(spec, checkpoint=checkpoint))


@BOTH
@pytest.mark.parametrize(
    "spec",
    [
        ViTNetworkSpec(**SMALL_VIT),
        SwinNetworkSpec(proj_drop=0.1, **SMALL_SWIN),
        SwinV2NetworkSpec(attn_drop=0.1, **SMALL_SWIN),
    ],
    ids=name_of,
)
def test_gradients_are_those_without_checkpointing(spec, checkpoint):
    """Dropout draws the same numbers again."""
    plain, checkpointed = spec.build().train(), replace(spec, checkpoint=checkpoint).build().train()
    checkpointed.load_state_dict(plain.state_dict())
    x = torch.randn(spec.input_shape)
    for module in (plain, checkpointed):
        torch.manual_seed(0)
        module(x).square().sum().backward()
    for ours, theirs in zip(checkpointed.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)


@pytest.mark.parametrize("network", [ViTNetworkSpec, SwinNetworkSpec])
def test_what_is_computed_again_is_the_forward_without_its_last_linear_layer(network):
    """The last linear layer saves its input before it computes, and nothing after it is saved."""
    plans = {kind: network(checkpoint=kind).plan() for kind in ("none", "block", "attention")}
    skipped = {"none": (), "block": ("contract",), "attention": ("output",)}
    for kind, plan in plans.items():
        inside = {"none": "nothing", "block": "blocks.", "attention": ".attn."}[kind]
        expected = [
            step.macs if inside in step.places[0] and step.name not in skipped[kind] else 0
            for step in (plan.steps[number] for number in plan.runs)
        ]
        assert list(recomputed_macs(Memory(plan))) == expected
        base = backward_macs(plans["none"])
        assert list(backward_macs(plan)) == [own + more for own, more in zip(base, expected, strict=True)]


def test_checkpointing_blocks_of_a_vit_saves_their_inputs_alone():
    memory = {kind: Memory(ViTNetworkSpec(checkpoint=kind).plan()) for kind in ("none", "block")}
    stream = 197 * 768 * 4
    outside = sum(
        saved
        for step, saved in zip(memory["none"].plan.steps, memory["none"].saved_together, strict=True)
        if "blocks." not in step.path
    )
    assert memory["none"].kept == 12 * (memory["none"].kept - outside) // 12 + outside
    assert memory["block"].kept == outside + 12 * stream
    assert memory["block"].least_peak == memory["none"].least_peak


def test_identical_calls_share_one_memory():
    """A key of the explorer computes it, for 32 blocks of two kinds."""
    again = Memory(SAMNetworkSpec(depth=32, global_blocks=(8, 16, 24, 32), checkpoint="block").plan()).recomputations
    assert len(again) == 32
    assert len({id(each.memory) for each in again}) == 2


def test_a_report_has_the_macs_that_are_computed_again():
    report = explore(ViTNetworkSpec(checkpoint="block"), time=False, backward=True)
    plain = explore(ViTNetworkSpec(), time=False, backward=True)
    assert report.backward.recomputed_macs == report.backward.macs - plain.backward.macs == 11_870_078_976
    assert plain.backward.recomputed_macs == 0
