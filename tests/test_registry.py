"""The registry of operations: a plan and a trace of the built module have equal integer costs."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import attnscope
from attnscope.networks.presets import presets
from attnscope.ops import OPERATIONS
from attnscope.ops.attention import MASK_AT
from attnscope.ops.tape import Tape
from attnscope.ops.tensor import (
    broadcast,
    contiguous_strides,
    elementwise_strides,
    is_contiguous,
    is_dense,
    view_strides,
)
from attnscope.testing import hold_trace
from attnscope.tracing.costs import cost_of
from tests.sampling import examples, some
from tests.strategies import small_swins, small_vits, specs


@given(specs() | small_vits | small_swins, st.sampled_from(["float32", "float64", "bfloat16", "float16"]))
@examples(200)
def test_explore_and_trace_have_equal_costs(spec, dtype):
    hold_trace(replace(spec, dtype=dtype))


@pytest.mark.parametrize("preset", some(presets(), 40), ids=lambda preset: preset.name)
def test_explore_and_trace_have_equal_costs_for_every_preset(preset):
    hold_trace(preset.spec)


@pytest.mark.parametrize(
    ("call", "elements", "each"),
    [
        (lambda x: F.gelu(x), 24, 5),
        (lambda x: F.relu(x), 24, 1),
        (lambda x: F.silu(x), 24, 5),
        (lambda x: torch.sigmoid(x), 24, 4),
        (lambda x: torch.tanh(x), 24, 1),
        (lambda x: x.softmax(-1), 24, 5),
        (lambda x: F.layer_norm(x, (4,)), 24, 4),
        (lambda x: F.layer_norm(x, (4,), torch.ones(4), torch.ones(4)), 24, 5),
        (lambda x: x + 1, 24, 1),
        (lambda x: x.add_(1), 24, 1),
        (lambda x: x.mean(-1), 24, 1),
        (lambda x: x.transpose(0, 1), 24, 0),
        (lambda x: x.clone(), 24, 0),
    ],
)
def test_elementwise_operators_cost_the_flops_of_the_convention(call, elements, each):
    report = attnscope.trace(_Calls(call), torch.randn(2, 3, 4))
    assert report.totals.other_flops == elements * each


class _Calls(nn.Module):
    def __init__(self, call):
        super().__init__()
        self.call = call

    def forward(self, x):
        return self.call(x)


def test_fused_attention_on_meta_is_one_kernel():
    """On meta, torch decomposes it into scores that no device computes."""
    q = torch.randn(2, 3, 7, 4)
    report = attnscope.trace(_Calls(lambda x: F.scaled_dot_product_attention(x, x, x)), q)
    (row,) = report.steps
    pairs = 2 * 3 * 7 * 7
    assert (row.macs, row.other_flops) == (2 * pairs * 4, 6 * pairs)
    assert (row.bytes_read, row.bytes_written) == (4 * 3 * q.numel(), 4 * q.numel())


@pytest.mark.parametrize(
    "call",
    [
        nn.LayerNorm(4),
        nn.GroupNorm(3, 3),
        lambda x: F.batch_norm(x, None, None, training=True),
        nn.LogSigmoid(),
        lambda x: F.scaled_dot_product_attention(x, x, x),
    ],
)
def test_bytes_written_exclude_statistics_for_the_backward(call):
    """These statistics depend on the device."""
    x = torch.randn(2, 3, 5, 4)
    report = attnscope.trace(_Calls(call), x, device="cpu")
    assert report.totals.bytes_written == 4 * x.numel()


def test_bytes_written_include_every_result():
    report = attnscope.trace(_Calls(lambda x: x.sort(-1)), torch.randn(2, 3, 4))
    assert report.totals.bytes_written == 24 * (4 + 8)  # values and indices


def test_bytes_read_include_keyword_arguments():
    x = torch.empty(5, 4)
    cost = cost_of(torch.ops.aten.add.Tensor, (x,), {"other": x}, x)
    assert (cost.bytes_read, cost.bytes_written) == (2 * 4 * 20, 4 * 20)


@pytest.mark.parametrize("name", [name for name in MASK_AT if hasattr(torch.ops.aten, name)])
def test_the_position_of_the_mask_is_that_of_torchs_schema(name):
    packet = getattr(torch.ops.aten, name)
    arguments = [argument.name for argument in getattr(packet, packet.overloads()[0])._schema.arguments]
    masks = [place for place, argument in enumerate(arguments) if argument in ("attn_mask", "attn_bias")]
    assert masks == ([] if MASK_AT[name] is None else [MASK_AT[name]])


def test_bytes_read_count_an_expanded_axis_once():
    x = torch.empty(1, 4).expand(5, 4)
    cost = cost_of(torch.ops.aten.add.Tensor, (x, x), {}, torch.empty(5, 4))
    assert (cost.bytes_read, cost.bytes_written) == (2 * 4 * 4, 4 * 20)


def test_an_operation_cannot_be_registered_twice():
    from attnscope.ops.operation import register

    with pytest.raises(ValueError, match="addmm is declared twice"):
        register("addmm")
    assert OPERATIONS["addmm"].macs is not None


shapes = st.lists(st.integers(1, 4), max_size=4).map(tuple)
shapes_with_zeros = st.lists(st.sampled_from([0, 1, 1, 3]), max_size=3).map(tuple)


def of_long_axes(strides, shape):
    """Return the strides of axes with more than one element; others have no effect."""
    return [stride for stride, size in zip(strides, shape, strict=True) if size > 1]


def reordered(shape, random):
    """Return a real tensor of this shape whose axes have a random order in memory."""
    order = random.sample(range(len(shape)), len(shape))
    real = torch.empty([shape[axis] for axis in order]).permute([order.index(axis) for axis in range(len(shape))])
    assert tuple(real.shape) == shape
    return real


@given(shapes, st.randoms(use_true_random=False))
def test_strides_equal_torchs(shape, random):
    """Compare strides of copies and of elementwise results with real tensors."""
    real = reordered(shape, random)
    strides = real.stride()
    assert contiguous_strides(shape) == torch.empty(shape).stride()
    assert is_contiguous(shape, strides) == real.is_contiguous()
    assert is_dense(shape, strides)
    made = elementwise_strides(shape, [(shape, strides)])
    assert of_long_axes(made, shape) == of_long_axes((real + 1).stride(), shape)


@given(shapes, st.randoms(use_true_random=False))
def test_a_slice_or_expansion_is_dense_if_it_is_in_torch(shape, random):
    real = reordered((*shape, 3), random)
    for part in (real[..., :2], real[..., 0], real[None].expand(2, *real.shape)):
        assert is_dense(part.shape, part.stride()) == torch.ops.aten.is_non_overlapping_and_dense(part)
        assert is_contiguous(part.shape, part.stride()) == part.is_contiguous()


@given(
    st.lists(st.integers(1, 3), min_size=1, max_size=4).map(tuple), st.integers(2, 3), st.randoms(use_true_random=False)
)
@settings(max_examples=300)
def test_operands_with_different_layouts_have_a_result_with_torchs_layout(shape, number, random):
    """Each operand has a different order of axes, and expands or lacks some."""
    operands = []
    for _ in range(number):
        smaller = tuple(random.choice([size, 1]) for size in shape)[random.randrange(len(shape)) :]
        operands.append(reordered(random.choice([smaller, shape]), random))
    wanted = broadcast(*[tuple(each.shape) for each in operands])
    real = torch.add(*operands) if number == 2 else torch.addcmul(*operands)
    assert wanted == tuple(real.shape)
    made = elementwise_strides(wanted, [(tuple(each.shape), each.stride()) for each in operands])
    assert of_long_axes(made, wanted) == of_long_axes(real.stride(), wanted)


@given(st.lists(shapes_with_zeros, min_size=1, max_size=3))
def test_shapes_broadcast_as_in_torch(operands):
    try:
        together = torch.broadcast_shapes(*operands)
    except RuntimeError:
        return
    assert broadcast(*operands) == tuple(together)


@given(shapes, st.randoms(use_true_random=False))
@settings(max_examples=200)
def test_a_view_has_torchs_strides_or_is_invalid_as_in_torch(shape, random):
    """The shapes permute, split and merge axes, and some have a different number of elements."""
    real = reordered(shape, random)
    wanted = random.sample(shape, len(shape))
    if len(wanted) > 1 and random.random() < 0.5:
        at = random.randrange(len(wanted) - 1)
        wanted[at : at + 2] = [wanted[at] * wanted[at + 1]]
    for _ in range(random.randrange(3)):
        wanted.insert(random.randint(0, len(wanted)), random.choice([1, 1, 1, 2]))
    try:
        viewed = real.view(wanted).stride()
    except RuntimeError:
        viewed = None
    found = view_strides(shape, real.stride(), wanted)
    assert (found is None) == (viewed is None)
    if viewed is not None:
        assert of_long_axes(found, wanted) == of_long_axes(viewed, wanted)


def test_a_tape_frees_tensors_without_references():
    tape = Tape(4)
    kept = tape.tensor((3,))
    tape.tensor((5,))
    assert [nbytes for _, nbytes in tape.events] == [12, 20, -20]
    del kept
    assert [nbytes for _, nbytes in tape.events] == [12, 20, -20, -12]
