"""Targets of trace: inputs, batch size and memory."""

import pytest
import torch
from torch import nn

import attnscope
from attnscope import DeviceError, UsageError
from attnscope.profiling import devices
from attnscope.tracing.options import TraceOptions
from attnscope.tracing.run import _batch
from attnscope.tracing.targets import target
from attnscope.tracing.targets.target import InputSpec, Target, known_inputs
from attnscope.tracing.trace import trace_target

CPU = torch.device("cpu")


class Module(nn.Module):
    """A module that declares its inputs in the way of timm or Lightning."""

    def __init__(self, **attributes):
        super().__init__()
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x, mask):
        return x


def test_inputs_have_their_dtype_or_that_of_the_parameters():
    x = InputSpec((200, 50)).tensor(CPU, torch.float64)
    assert (x.dtype, x.shape) == (torch.float64, (200, 50))
    assert abs(float(x.mean())) < 0.1
    assert float(x.std()) == pytest.approx(1.0, abs=0.1)
    whole = InputSpec((200, 50), "int32").tensor(CPU, torch.float64)
    assert (whole.dtype, whole.unique().tolist()) == (torch.int32, [0, 1])
    mask = InputSpec((3, 4), "bool", "mask").tensor(CPU, torch.float64)
    assert (mask.dtype, mask.all().item()) == (torch.bool, True)
    assert InputSpec((2,), "complex64").tensor(CPU, torch.float64).dtype == torch.complex64


@pytest.mark.parametrize("dtype", ["float32", "int64"])
def test_the_values_of_a_large_input_repeat(dtype, monkeypatch):
    """Drawing 2**31 values took 20 s, in which a command seemed to hang."""
    spec = InputSpec((7, 300), dtype)
    torch.manual_seed(0)
    drawn = spec.tensor(CPU, torch.float64)
    monkeypatch.setattr(target, "MOST_DRAWN", 1000)
    torch.manual_seed(0)
    values = spec.tensor(CPU, torch.float64)
    first = values.flatten()[:1000]
    assert values.flatten().equal(torch.cat([first, first, first[:100]]))
    assert (values.shape, values.dtype) == (drawn.shape, drawn.dtype)
    assert first.unique().equal(torch.tensor([0, 1])) if dtype == "int64" else 0.9 < float(first.std()) < 1.1
    assert spec.tensor(torch.device("meta"), torch.float64).shape == (7, 300)


def test_the_string_of_an_input_has_name_shape_and_dtype():
    assert str(InputSpec((1, 49, 96))) == "1×49×96"
    assert str(InputSpec((49, 49), "bool", "mask")) == "mask 49×49 bool"


@pytest.mark.parametrize(
    ("module", "inputs"),
    [
        (Module(pretrained_cfg={"input_size": (3, 32, 48)}), [InputSpec((1, 3, 32, 48))]),
        (Module(default_cfg={"input_size": (3, 32, 48)}), [InputSpec((1, 3, 32, 48))]),
        (Module(pretrained_cfg={}, example_input_array=torch.zeros(2, 5).half()), [InputSpec((2, 5), "float16")]),
        (attnscope.ViTAttention(12, 3), [InputSpec((1, 197, 12))]),
        (Module(), []),
    ],
)
def test_inputs_declared_by_a_module_are_found(module, inputs):
    assert known_inputs(module) == inputs


def test_unknown_inputs_are_an_error_with_the_parameter_names():
    target = Target("it", Module)
    with pytest.raises(UsageError, match="input is required, since Module takes x, mask; use shapes such as"):
        target.inputs_of(Module())
    assert Target("it", Module, [InputSpec((2,))]).inputs_of(Module()) == [InputSpec((2,))]


@pytest.mark.parametrize(
    ("module", "shape", "batch"),
    [
        (nn.Linear(4, 4), (5, 3, 4), 5),
        (nn.Linear(4, 4), (5, 4), 5),
        (nn.ReLU(), (), 1),
        (nn.ReLU(), (0, 4), 1),
        (nn.TransformerEncoderLayer(4, 2, 8), (3, 5, 4), 5),  # n b c
        (nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), (5, 3, 4), 5),
        (nn.TransformerEncoderLayer(4, 2, 8), (3, 4), 1),  # n c
        (nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), (3, 4), 1),
    ],
)
def test_the_batch_size_is_the_first_axis_unless_torch_puts_tokens_there(module, shape, batch):
    assert _batch(module, (torch.zeros(shape),), {}) == batch


def test_a_module_without_inputs_has_a_batch_of_one():
    assert _batch(nn.ReLU(), (), {}) == 1


NEEDED = 4 * (110 + 10)
"""Bytes of 100 weights, 10 biases and 10 outputs."""


@pytest.mark.parametrize(("free", "devices_built_on"), [(NEEDED, ["meta", "cpu"]), (NEEDED - 1, ["meta"])])
def test_a_module_that_does_not_fit_in_memory_is_an_error_before_it_is_built(free, devices_built_on, monkeypatch):
    monkeypatch.setattr(devices, "free_memory", lambda device: free)
    built_on = []

    def build():
        built_on.append(torch.get_default_device().type)
        return nn.Linear(10, 10)

    target = Target("big", build, [InputSpec((1, 10))])
    options = TraceOptions(
        device="cpu", time=True, group="op", depth=None, submodule=None, budget=0.01, threads=1, seed=0, command=None
    )  # fmt: skip
    if free >= NEEDED:
        assert trace_target(target, options).totals.macs == 100
    else:
        with pytest.raises(DeviceError, match=f"big needs {NEEDED} Bytes, but cpu has {free} Bytes free"):
            trace_target(target, options)
    assert built_on == devices_built_on
