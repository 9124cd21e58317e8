"""Predicted against real memory, to the byte: inference, training, backward, and tensors saved for it."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnscope import SwinSpec, ViTSpec, networks
from attnscope.attentions.cross.spec import CrossSpec
from attnscope.attentions.swinv2.spec import SwinV2Spec
from attnscope.networks.swin.spec import SwinNetworkSpec, SwinV2NetworkSpec
from attnscope.networks.vit.spec import ViTNetworkSpec
from attnscope.plan.backward import backward_held, least_backward_peak
from attnscope.plan.memory import Memory
from attnscope.testing import hold_backward_memory, hold_memory, hold_saved
from attnscope.testing.memory import kept_bytes
from tests.strategies import small_swins, small_vits, specs

SMALL_SWIN = {"dim": 12, "heads": 3, "depths": (2, 2, 3, 2), "classes": 7}
SMALL_VIT = {"dim": 24, "heads": 3, "depth": 3, "classes": 7, "image": (64, 48)}

CASES = [
    ViTSpec(dim=12, heads=3, tokens=7),
    ViTSpec(dim=12, heads=3, tokens=7, batch=3),
    ViTSpec(dim=12, heads=1, tokens=7, batch=3),
    ViTSpec(dim=12, heads=3, tokens=1, batch=3),
    ViTSpec(dim=12, heads=3, tokens=7, batch=2, dtype="float64", qkv_bias=False),
    ViTSpec(dim=12, heads=4, kv_heads=2, tokens=7),
    ViTSpec(dim=12, heads=4, kv_heads=1, tokens=7, batch=2),
    CrossSpec(dim=12, heads=3, tokens=5, keys=7),
    CrossSpec(dim=12, heads=3, tokens=5, keys=7, batch=2),
    CrossSpec(dim=12, heads=4, kv_heads=2, tokens=5, keys=7),
    CrossSpec(dim=12, heads=4, kv_heads=1, tokens=5, keys=7, batch=2),
    CrossSpec(dim=12, heads=4, tokens=1, keys=7, batch=2),
    SwinV2Spec(dim=2, heads=2, resolution=(3, 7), window=(3, 7)),  # the backward has matrices of one column
    *(
        kind(**{"dim": 12, "heads": 4, "window": 7, **fields})
        for kind in (SwinSpec, SwinV2Spec)
        for fields in (
            {"resolution": 14},
            {"resolution": 14, "shift": True},
            {"resolution": (10, 15), "shift": True, "batch": 2},
            {"resolution": (10, 14)},
            {"resolution": 3},
            {"resolution": 7},
            {"resolution": (21, 7), "shift": True},
            {"resolution": (7, 20), "heads": 1, "shift_size": (0, 2)},
            {"resolution": 3, "window": 1},
            {"resolution": (9, 12), "window": (3, 4), "shift": True, "dtype": "float64"},
            {"resolution": 14, "qkv_bias": False},
            {"resolution": 14, "kv_heads": 2, "shift": True},
            {"resolution": (10, 15), "kv_heads": 1, "shift": True, "batch": 2, "dtype": "float64"},
        )
    ),
    SwinV2Spec(shift=True, kv_heads=1),  # of the size in a network
    *(
        spec
        for dtype in ("float16", "bfloat16")
        for spec in (
            ViTSpec(dim=12, heads=3, tokens=7, batch=2, dtype=dtype),
            SwinV2Spec(dim=12, heads=4, window=7, resolution=(10, 14), shift=True, dtype=dtype),
            SwinNetworkSpec(dtype=dtype, **SMALL_SWIN),
        )
    ),
    ViTNetworkSpec(scope="block", **SMALL_VIT),
    *(
        kind(scope="block", block=block, **SMALL_SWIN)
        for kind in (SwinNetworkSpec, SwinV2NetworkSpec)
        for block in (1, 2)
    ),
    *(
        kind(stage=3, image=(100, 60), **SMALL_SWIN) for kind in (SwinNetworkSpec, SwinV2NetworkSpec)
    ),  # with patch merging
    ViTNetworkSpec(**SMALL_VIT),
    ViTNetworkSpec(cls=False, batch=2, **SMALL_VIT),
    ViTNetworkSpec(
        dim=192, heads=3, depth=1, patch=1, image=32
    ),  # torch runs the convolution as a matmul without a copy of the image
    ViTNetworkSpec(cls=False, dtype="float64", **SMALL_VIT),
    ViTNetworkSpec(distilled=True, kv_heads=1, **SMALL_VIT),
    *(kind(**SMALL_SWIN) for kind in (SwinNetworkSpec, SwinV2NetworkSpec)),
    *(kind(image=(100, 60), kv_heads=1, batch=2, **SMALL_SWIN) for kind in (SwinNetworkSpec, SwinV2NetworkSpec)),
]


BOUNDS = [
    # with dropout, torch uses its math kernel, which saves fewer bytes than the operands of a fused kernel
    CrossSpec(dim=64, heads=4, tokens=64, keys=2, attn_drop=0.1, kernel="sdpa"),
    ViTSpec(dim=64, heads=4, tokens=16, attn_drop=0.1, kernel="sdpa"),
    # the bias with the mask is repeated for each image; its parts are freed before the kernel runs
    *(
        kind(dim=96, heads=3, resolution=14, shift=True, batch=2, kernel="sdpa", dtype=dtype)
        for kind in (SwinSpec, SwinV2Spec)
        for dtype in ("float32", "float64")
    ),
]
"""Specs for which the bytes that torch's kernel saves are unknown."""


def name_of(spec):
    return f"{spec.name}-{'x'.join(map(str, spec.input_shape))}"


@pytest.mark.parametrize("spec", CASES, ids=name_of)
def test_held_and_saved_bytes_equal_torchs(spec):
    hold_against_torch(spec)


@pytest.mark.parametrize("spec", BOUNDS, ids=name_of)
def test_unknown_bytes_have_a_lower_bound(spec):
    assert Memory(spec.plan()).kept is None
    hold_memory(spec)
    hold_saved(spec)


@pytest.mark.parametrize("input_grad", [True, False])
@pytest.mark.parametrize("spec", [*CASES, *BOUNDS], ids=name_of)
def test_bytes_held_in_the_backward_equal_torchs(spec, input_grad):
    hold_backward_memory(spec, input_grad)


@given(specs(kernels=("eager", "sdpa", "math"), drops=(0.0, 0.1)))
@settings(max_examples=100)
def test_held_and_saved_bytes_of_random_attentions_equal_torchs(spec):
    assert (Memory(spec.plan()).kept is not None) == keeps_known(spec)
    hold_memory(spec)
    hold_saved(spec)


@given(specs(kernels=("eager", "sdpa", "math"), drops=(0.0, 0.1)), st.booleans())
@settings(max_examples=100)
def test_bytes_held_in_the_backward_of_random_attentions_equal_torchs(spec, input_grad):
    hold_backward_memory(spec, input_grad)


@given(small_vits | small_swins)
@settings(max_examples=30)
def test_held_and_saved_bytes_of_random_networks_equal_torchs(spec):
    hold_against_torch(spec)


@given(small_vits | small_swins)
@settings(max_examples=30)
def test_bytes_held_in_the_backward_of_random_networks_equal_torchs(spec):
    hold_backward_memory(spec, input_grad=True)


def keeps_known(spec):
    """Return True if the saved bytes are known: without dropout, for eager and for sdpa without a bias."""
    is_biased = isinstance(spec, SwinSpec | SwinV2Spec)
    return not spec.attn_drop and (spec.kernel == "eager" or (spec.kernel == "sdpa" and not is_biased))


def hold_against_torch(spec):
    assert Memory(spec.plan()).kept is not None
    hold_memory(spec)
    hold_saved(spec)


def backward_bytes(memory, input_grad=True):
    return [held.known for held in backward_held(memory, input_grad)]


@pytest.mark.parametrize("spec", [ViTNetworkSpec(), SwinNetworkSpec(), SwinV2NetworkSpec()], ids=lambda spec: spec.name)
def test_the_bytes_of_a_row_are_those_of_each_of_its_blocks(spec):
    plan = networks.plan(spec)
    memory = Memory(plan)
    assert sum(step.times * saved for step, saved in zip(plan.steps, memory.saved, strict=True)) == memory.kept
    assert memory.least_peak < memory.least_training_peak < memory.kept * 1.5
    deeper = replace(spec, **({"depth": 13} if spec.name == "vit" else {"depths": (2, 2, 8, 2)}))
    assert (
        Memory(networks.plan(deeper)).least_peak == memory.least_peak
    )  # the tensors of a block are freed before the next one runs
    assert Memory(networks.plan(deeper)).kept > memory.kept  # except tensors saved for the backward


@pytest.mark.parametrize(
    "spec",
    [
        SwinNetworkSpec(stage=1, image=(56, 56), **SMALL_SWIN | {"depths": (5,)}),
        SwinV2NetworkSpec(
            stage=1, image=(28, 28), window=7, **SMALL_SWIN | {"depths": (4,)}
        ),  # the partition makes no copy
    ],
    ids=name_of,
)
def test_the_first_of_several_blocks_does_not_save_the_input_of_the_network(spec):
    plan = spec.plan()
    memory = Memory(plan)
    kept = kept_bytes(spec.build(), torch.randn(spec.input_shape))
    assert sum(memory.saved_together) == memory.kept == sum(kept.values())
    assert memory.kept < sum(step.times * saved for step, saved in zip(plan.steps, memory.saved, strict=True))
    for step, together in zip(plan.steps, memory.saved_together, strict=True):
        assert (step.places[0], together) == (step.places[0], sum(kept.get(where, 0) for where in step.places))


FUSED = [
    ViTSpec(dim=24, heads=3, tokens=17, batch=2, kernel="sdpa"),
    ViTSpec(dim=24, heads=3, kv_heads=1, tokens=17, batch=2, kernel="sdpa"),
    CrossSpec(dim=12, heads=3, tokens=5, keys=7, batch=2, kernel="sdpa"),
    ViTNetworkSpec(kernel="sdpa", **SMALL_VIT),
]
"""Specs whose kernel recomputes the scores in the backward."""


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
@pytest.mark.parametrize("spec", FUSED, ids=name_of)
def test_a_kernel_that_recomputes_the_scores_does_not_save_them(spec, dtype):
    """It saves one sum for each query, as float32 if the dtype is narrower."""
    spec = replace(spec, dtype=dtype)
    module, plan = spec.build().to(getattr(torch, dtype)), spec.plan()
    memory = Memory(plan)
    kept = kept_bytes(module, *(torch.randn(shape).to(getattr(torch, dtype)) for shape in spec.input_shapes))
    assert memory.kept == sum(kept.values())
    for step, saved in zip(plan.steps, memory.saved, strict=True):
        assert (step.places[0], saved) == (step.places[0], kept.get(step.places[0], 0))


@pytest.mark.parametrize("spec", FUSED, ids=name_of)
def test_only_the_bytes_held_inside_kernels_are_unknown(spec):
    plan = spec.plan()
    memory, rows = Memory(plan), [step.name for step in plan.steps]
    for held in (memory.live, memory.training, backward_bytes(memory)):
        unknown = [name for name, known in zip(rows, held, strict=True) if known is None]
        assert unknown == [name for name in rows if name in ("embed", "attend")]  # `embed` is a convolution
    hold_against_torch(spec)
    hold_backward_memory(spec, input_grad=True)
    hold_backward_memory(spec, input_grad=False)


@pytest.mark.parametrize(
    "spec",
    [
        ViTSpec(dim=12, heads=3, tokens=7, batch=2, kernel="math"),
        CrossSpec(dim=12, heads=4, kv_heads=2, tokens=5, keys=7, kernel="math"),
        SwinSpec(dim=12, heads=3, resolution=(10, 15), shift=True, kernel="math"),
        SwinV2Spec(dim=12, heads=3, resolution=14, kernel="math"),
    ],
    ids=name_of,
)
def test_the_copies_of_heads_by_the_math_kernel_are_predicted(spec):
    hold_memory(spec)


@pytest.mark.parametrize(
    "spec", [SwinSpec(kernel="sdpa"), SwinV2Spec(kernel="sdpa"), ViTSpec(kernel="math")], ids=name_of
)
def test_bytes_that_a_kernel_saves_internally_are_unknown(spec):
    plan = spec.plan()
    memory = Memory(plan)
    rows = [step.name for step in plan.steps]
    attend = rows.index("attend")
    assert memory.saved[attend] is memory.kept is memory.live[attend] is None
    assert set(memory.training[attend:]) == {None}  # unknown from this step on
    assert None not in memory.live[attend + 1 :]
    assert set(backward_bytes(memory)) == {None}  # the saved tensors are held from the start of the backward
    for least in (memory.least_peak, memory.least_training_peak, least_backward_peak(memory)):
        assert least > max(step.output_bytes for step in plan.steps)


def test_steps_before_the_first_weight_have_no_backward_with_any_kernel():
    spec = SwinSpec(dim=12, resolution=14, shift=True, kernel="sdpa")
    rows = [step.name for step in spec.plan().steps]
    held = dict(zip(rows, backward_bytes(Memory(spec.plan()), input_grad=False), strict=True))
    assert [name for name in rows if held[name] is not None] == ["shift", "partition"]
    assert held["shift"] == held["partition"] == 0


def test_bytes_that_dropout_saves_are_unknown():
    """The mask has bytes on one device and numbers on another, and the next step saves the output of dropout."""
    for spec, steps in (
        (ViTSpec(attn_drop=0.1), {"softmax", "mix"}),
        (SwinV2Spec(attn_drop=0.1, proj_drop=0.1), {"softmax", "mix", "output"}),
        (ViTNetworkSpec(scope="block", proj_drop=0.1), {"output", "gelu", "contract"}),
    ):
        hold_saved(spec)
        plan = spec.plan()
        memory = Memory(plan)
        assert {step.name for step, saved in zip(plan.steps, memory.saved, strict=True) if saved is None} == steps
        assert memory.kept is None
        assert memory.peak == Memory(replace(spec, attn_drop=0.0, proj_drop=0.0).plan()).peak
