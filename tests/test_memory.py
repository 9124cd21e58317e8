"""Predicted memory is real memory, to the byte: what is held in inference and in training, and what autograd keeps."""

import itertools
import warnings
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from torch.profiler import ProfilerActivity, profile, record_function

from attnscope import SwinSpec, ViTSpec, networks
from attnscope.attentions.cross.spec import CrossSpec
from attnscope.attentions.swinv2.spec import SwinV2Spec
from attnscope.exploring import build_module, plan_of
from attnscope.networks.swin.spec import SwinNetworkSpec, SwinV2NetworkSpec
from attnscope.networks.vit.spec import ViTNetworkSpec
from attnscope.steps import listening, most, place
from tests.strategies import small_swins, small_vits, specs

KNOWN_TO_ONE_LIBRARY = "patch_embed.embed"
"""Convolutions bring their operands into an order of their own: what oneDNN holds for that depends on the processor."""

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
    SwinV2Spec(shift=True, kv_heads=1),  # as large as in a network
    ViTNetworkSpec(scope="block", **SMALL_VIT),
    *(
        kind(scope="block", block=block, **SMALL_SWIN)
        for kind in (SwinNetworkSpec, SwinV2NetworkSpec)
        for block in (1, 2)
    ),
    *(kind(stage=3, image=(100, 60), **SMALL_SWIN) for kind in (SwinNetworkSpec, SwinV2NetworkSpec)),  # merging too
    ViTNetworkSpec(**SMALL_VIT),
    ViTNetworkSpec(cls=False, batch=2, **SMALL_VIT),
    ViTNetworkSpec(distilled=True, kv_heads=1, **SMALL_VIT),
    *(kind(**SMALL_SWIN) for kind in (SwinNetworkSpec, SwinV2NetworkSpec)),
    *(kind(image=(100, 60), kv_heads=1, batch=2, **SMALL_SWIN) for kind in (SwinNetworkSpec, SwinV2NetworkSpec)),
]


def name_of(spec):
    return f"{spec.name}-{'x'.join(map(str, spec.input_shape))}"


@pytest.mark.parametrize("spec", CASES, ids=name_of)
def test_what_is_held_and_kept(spec):
    hold_against_torch(spec)


@given(specs(kernels=("eager",)))
@settings(max_examples=60)
def test_what_attentions_hold_and_keep(spec):
    hold_against_torch(spec)


@given(small_vits | small_swins)
@settings(max_examples=30)
def test_what_networks_hold_and_keep(spec):
    if spec.dim > spec.heads:  # a matmul over a single channel a head holds what only it knows
        hold_against_torch(spec)


def hold_against_torch(spec):
    """The fullest moment of each step, of several runs the most, and what each step is the first to keep."""
    plan, dtype = plan_of(spec), getattr(torch, spec.dtype)
    module = build_module(spec).to(dtype)
    x = [torch.randn(shape, dtype=dtype) for shape in spec.input_shapes]
    for training, predicted in ((False, plan.live_bytes), (True, plan.training_bytes)):
        held = held_bytes(module.train(training), *x)
        for step, most_bytes in zip(plan.steps, predicted, strict=True):
            real = max(held[where] for where in step.places)
            if step.places == (KNOWN_TO_ONE_LIBRARY,):
                assert most_bytes <= real
            else:
                assert (step.places[0], most_bytes) == (step.places[0], real)
    kept = kept_bytes(module, *x)
    assert sum(kept.values()) == plan.kept_bytes
    for step, saved in zip(plan.steps, plan.saved_bytes, strict=True):
        assert (step.places[0], saved) == (step.places[0], max(kept.get(where, 0) for where in step.places))


def held_bytes(module, *x):
    """By the profiler: bytes that are alive at the fullest moment of each step, beyond what was there before."""

    def listener(path, owner, step, method):
        def call(*args):
            with record_function(f"step:{place(path, step.name)}"):
                return method(*args)

        return call

    with torch.set_grad_enabled(module.training), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of its own profiler's clean-up in some releases
        module(*x)  # the mask of a shifted grid is made once, and is kept
        with listening(module, listener), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            result = module(*x)
    assert result is not None  # alive until the profile is over
    allocations, spans = [], []
    events = list(profiler.profiler.kineto_results.experimental_event_tree())
    while events:
        event = events.pop()
        events.extend(event.children)
        if hasattr(event.extra_fields, "alloc_size"):
            allocations.append((event.start_time_ns, event.extra_fields.alloc_size))
        elif event.name.startswith("step:"):
            spans.append((event.start_time_ns, event.end_time_ns, event.name.removeprefix("step:")))
    allocations.sort()
    held = {}
    for start, end, where in spans:
        live = sum(size for moment, size in allocations if moment < start)
        inside = [size for moment, size in allocations if start <= moment <= end]
        held[where] = max(itertools.accumulate(inside, initial=live))
    return held


def kept_bytes(module, *x):
    """By autograd: bytes that each step is the first to keep for the backward, each storage once.

    Without the parameters, the inputs, and what is made once and stays.
    """
    module.train()(*x)
    masks = [owner._mask[1] for owner in module.modules() if getattr(owner, "_mask", None)]
    known = {tensor.untyped_storage().data_ptr() for tensor in (*module.parameters(), *module.buffers(), *masks, *x)}
    kept, alive, now = {}, [], []

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            known.add(storage.data_ptr())
            alive.append(tensor)  # so that nothing else comes to lie there
            kept[now[-1]] = kept.get(now[-1], 0) + storage.nbytes()
        return tensor

    def listener(path, owner, step, method):
        def call(*args):
            now.append(place(path, step.name))
            return method(*args)

        return call

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), listening(module, listener):
        module(*x)
    return kept


@pytest.mark.parametrize("spec", [ViTNetworkSpec(), SwinNetworkSpec(), SwinV2NetworkSpec()], ids=lambda spec: spec.name)
def test_a_rows_figures_are_those_of_each_of_its_runs(spec):
    plan = networks.plan(spec)
    assert sum(step.times * saved for step, saved in zip(plan.steps, plan.saved_bytes, strict=True)) == plan.kept_bytes
    assert plan.peak_bytes < most(plan.training_bytes) < plan.kept_bytes * 1.5
    deeper = replace(spec, **({"depth": 13} if spec.name == "vit" else {"depths": (2, 2, 8, 2)}))
    assert networks.plan(deeper).peak_bytes == plan.peak_bytes  # what a block held is gone when the next one runs
    assert networks.plan(deeper).kept_bytes > plan.kept_bytes  # but for what its backward needs


@pytest.mark.parametrize("kv_heads", [None, 1])
def test_a_kernel_that_computes_the_scores_anew_keeps_none(kv_heads):
    spec = ViTSpec(dim=24, heads=3, kv_heads=kv_heads, tokens=17, batch=2, kernel="sdpa")
    module, plan = build_module(spec), plan_of(spec)
    kept = kept_bytes(module, torch.randn(spec.input_shape))
    assert {step.name: saved for step, saved in zip(plan.steps, plan.saved_bytes, strict=True) if saved} == kept
    assert plan.kept_bytes == sum(kept.values())
    known = [live is not None for live in plan.training_bytes]
    assert known == [step.name != "attend" for step in plan.steps]


@pytest.mark.parametrize(
    "spec", [SwinSpec(kernel="sdpa"), SwinV2Spec(kernel="sdpa"), ViTSpec(kernel="math")], ids=name_of
)
def test_what_a_kernel_keeps_for_itself_is_unknown(spec):
    plan = plan_of(spec)
    rows = [step.name for step in plan.steps]
    attend = rows.index("attend")
    assert plan.saved_bytes[attend] is plan.kept_bytes is plan.live_bytes[attend] is None
    assert set(plan.training_bytes[attend:]) == {None}  # behind it nobody knows what is held
    assert None not in plan.live_bytes[attend + 1 :]


def test_what_dropout_keeps_is_unknown():
    """A mask of bytes on one device, numbers on another."""
    for spec, steps in (
        (ViTSpec(attn_drop=0.1), {"softmax"}),
        (SwinV2Spec(attn_drop=0.1, proj_drop=0.1), {"softmax", "output"}),
        (ViTNetworkSpec(scope="block", proj_drop=0.1), {"output", "gelu", "contract"}),
    ):
        plan = plan_of(spec)
        assert {step.name for step, saved in zip(plan.steps, plan.saved_bytes, strict=True) if saved is None} == steps
        assert plan.kept_bytes is None
        assert plan.peak_bytes == plan_of(replace(spec, attn_drop=0.0, proj_drop=0.0)).peak_bytes
