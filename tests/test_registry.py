"""One registry of operations: what a plan says and what a trace of the built module counts are equal integers."""

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
from attnscope.ops.tape import Tape
from attnscope.ops.tensor import contiguous_strides, elementwise_strides, is_contiguous, is_dense, view_strides
from attnscope.testing import hold_trace
from attnscope.tracing.costs import cost_of
from tests.strategies import small_swins, small_vits, specs


@given(specs() | small_vits | small_swins, st.sampled_from(["float32", "float64", "bfloat16", "float16"]))
@settings(max_examples=200)
def test_explore_and_trace_agree(spec, dtype):
    hold_trace(replace(spec, dtype=dtype))


@pytest.mark.parametrize("preset", presets(), ids=lambda preset: preset.name)
def test_explore_and_trace_agree_on_every_preset(preset):
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
def test_elementwise_conventions(call, elements, each):
    report = attnscope.trace(_Calls(call), torch.randn(2, 3, 4))
    assert report.totals.other_flops == elements * each


class _Calls(nn.Module):
    def __init__(self, call):
        super().__init__()
        self.call = call

    def forward(self, x):
        return self.call(x)


def test_fused_attention_on_meta_is_one_kernel():
    """torch takes it apart there, into scores that no device makes."""
    q = torch.randn(2, 3, 7, 4)
    report = attnscope.trace(_Calls(lambda x: F.scaled_dot_product_attention(x, x, x)), q)
    (row,) = report.steps
    pairs = 2 * 3 * 7 * 7
    assert (row.macs, row.other_flops) == (2 * pairs * 4, 6 * pairs)
    assert (row.bytes_read, row.bytes_written) == (4 * 3 * q.numel(), 4 * q.numel())


def test_an_expanded_axis_lies_in_memory_once():
    x = torch.empty(1, 4).expand(5, 4)
    cost = cost_of(torch.ops.aten.add.Tensor, (x, x), {}, torch.empty(5, 4))
    assert (cost.bytes_read, cost.bytes_written) == (2 * 4 * 4, 4 * 20)


def test_an_operation_is_declared_once():
    from attnscope.ops.operation import register

    with pytest.raises(ValueError, match="addmm is declared twice"):
        register("addmm")
    assert OPERATIONS["addmm"].macs is not None


shapes = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)


@given(shapes, st.randoms(use_true_random=False))
def test_strides_are_torchs(shape, random):
    """Views, copies and the layout of what elementwise operators make, against real tensors."""
    order = random.sample(range(len(shape)), len(shape))
    real = torch.empty([shape[axis] for axis in order]).permute([order.index(axis) for axis in range(len(shape))])
    assert tuple(real.shape) == shape
    strides = real.stride()
    assert contiguous_strides(shape) == torch.empty(shape).stride()

    def of_long_axes(strides, sizes):
        return [stride for stride, size in zip(strides, sizes, strict=True) if size > 1]

    assert is_contiguous(shape, strides) == real.is_contiguous()
    assert is_dense(shape, strides)
    made = elementwise_strides(shape, [(shape, strides)])
    assert of_long_axes(made, shape) == of_long_axes((real + 1).stride(), shape)
    wanted = tuple(random.sample(shape, len(shape)))
    try:
        viewed = real.view(wanted).stride()
    except RuntimeError:
        viewed = None
    found = view_strides(shape, strides, wanted)
    assert (found is None) == (viewed is None)
    if viewed is not None:
        assert of_long_axes(found, wanted) == of_long_axes(viewed, wanted)


def test_a_tape_frees_what_nothing_refers_to():
    tape = Tape(4)
    kept = tape.tensor((3,))
    tape.tensor((5,))
    assert [nbytes for _, nbytes in tape.events] == [12, 20, -20]
    del kept
    assert [nbytes for _, nbytes in tape.events] == [12, 20, -20, -12]
