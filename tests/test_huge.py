"""Huge sizes: they are counted, or rejected with a one-line error that names the flag."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from attnscope import CrossSpec, DeviceError, SwinNetworkSpec, SwinSpec, SwinV2Spec, ViTNetworkSpec, ViTSpec, explore
from attnscope.core.errors import exceeds_addresses, ran_out_of_memory
from attnscope.tracing.construction import built
from attnscope.tracing.targets import find_target, parse_input
from tests.conftest import Run

HUGE = 10**12
META = [
    (ViTNetworkSpec(dim=HUGE, heads=1, image=16), "--dim"),
    (ViTNetworkSpec(scope="block", dim=HUGE, heads=1, mlp_ratio=1000.0), "--dim"),
    (ViTNetworkSpec(image=HUGE, patch=HUGE), "--image"),
    (ViTSpec(tokens=HUGE), "--tokens"),
    (ViTSpec(tokens=HUGE, kernel="sdpa"), "--tokens"),
    (ViTSpec(image=HUGE, patch=1), "--image"),
    (SwinSpec(resolution=HUGE), "--resolution"),
    (SwinSpec(window=HUGE), "--window"),
    (SwinV2Spec(window=10**6), "--window"),
    (SwinNetworkSpec(dim=96 * 10**9), "--dim"),
    (SwinNetworkSpec(image=HUGE), "--image"),
    (CrossSpec(tokens=HUGE, keys=HUGE), "--tokens"),
    (CrossSpec(keys=HUGE, batch=HUGE), "--batch"),
]
SIZES = {ViTSpec: "tokens", SwinSpec: "resolution", SwinV2Spec: "resolution", CrossSpec: "tokens"}


@pytest.mark.parametrize(("spec", "flag"), META, ids=str)
def test_a_tensor_that_exceeds_the_address_space_is_an_error_on_meta(spec, flag):
    with pytest.raises(DeviceError) as refused:
        explore(spec, device="meta")
    largest = max(max(value) if isinstance(value, tuple) else value for value in vars(spec).values() if _is_size(value))
    assert refused.value.in_flags() == (
        f"{flag} is too large for a 64-bit address space (got {largest}); use a smaller value, or --no-time without "
        "--device meta for shapes and costs only"
    )


def _is_size(value: object) -> bool:
    return type(value) is int or (isinstance(value, tuple) and all(type(side) is int for side in value))


@pytest.mark.parametrize(("spec", "flag"), META, ids=str)
def test_huge_sizes_are_counted_without_running(spec, flag):
    report = explore(spec, time=False)
    assert report.audit.agree
    assert report.totals.macs > 10**12


@settings(max_examples=15)
@given(
    kind=st.sampled_from(list(SIZES)),
    powers=st.tuples(*[st.integers(0, 12)] * 3),
    kernel=st.sampled_from(["eager", "sdpa", "math"]),
)
def test_every_size_runs_on_meta_or_is_an_error(kind, powers, kernel):
    dim, size, batch = (10**power for power in powers)
    spec = kind(dim=dim, heads=1, batch=batch, kernel=kernel, **{SIZES[kind]: size})
    try:
        agree = explore(spec, device="meta").audit.agree
    except DeviceError as refused:
        agree = "is too large for a 64-bit address space" in str(refused)
    assert agree


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        ({"in_features": HUGE, "out_features": HUGE}, "1,4"),
        ({"in_features": 10**20, "out_features": 1}, "1,4"),
    ],
)
@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_a_huge_traced_module_is_an_error(arguments, given, device):
    target = find_target("torch.nn:Linear", arguments, [parse_input(given)])
    with pytest.raises(DeviceError) as refused:
        built(target, device, otherwise="cpu")
    assert refused.value.in_flags() == (
        "torch.nn:Linear has a tensor that does not fit in a 64-bit address space; use smaller values of --arg"
    )


@pytest.mark.parametrize("shape", ["1000000000000,10", "1000000000000,1000000000000,10", "100000000000000000000,10"])
@pytest.mark.parametrize("time", [[], ["--time"]])
def test_a_huge_traced_input_is_an_error(attnscope: Run, shape, time):
    words = ["--arg", "in_features=10", "--arg", "out_features=10000000", "--input", shape]
    done = attnscope("trace", "torch.nn:Linear", *words, *time)
    assert done.returncode == 3
    assert done.stderr == (
        "attnscope: a tensor does not fit in a 64-bit address space; use a smaller --input or smaller values of --arg\n"
    )


def test_the_command_reports_a_huge_size_in_one_line(attnscope: Run):
    done = attnscope("vit", "--tokens", str(HUGE), "--device", "meta", "--kernel", "compile")
    assert done.returncode == 3
    assert done.stderr.startswith(f"attnscope: --tokens is too large for a 64-bit address space (got {HUGE}); ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.empty(HUGE, HUGE, device="meta"),
        lambda: torch.randn(HUGE, HUGE, device="meta"),
        lambda: torch.empty(10**20, device="meta"),
        lambda: nn.Linear(HUGE, HUGE),
    ],
)
def test_torchs_errors_for_huge_sizes_are_recognized(make):
    with pytest.raises((RuntimeError, TypeError)) as error:
        make()
    assert exceeds_addresses(error.value)
    assert ran_out_of_memory(error.value)


def test_receptive_fields_are_unknown_beyond_a_limit():
    spec = SwinNetworkSpec(image=2**18 + 4)
    report = explore(spec, time=False)
    assert all(part.sees is None for part in report.parts)
    assert "receptive fields are not computed for more than 65,536 patches along a side" in report.notes
    assert explore(SwinNetworkSpec(), time=False).parts[1].sees == (14, 14)


REFUSES = """
import resource
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x):
        return self.layer(x)

class Raises(nn.Module):
    def forward(self, x):
        if x.is_meta:
            return x
        raise ValueError(f"at {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}")
"""


@pytest.mark.parametrize("where", [[], ["--device", "cpu"]], ids=["meta", "cpu"])
@pytest.mark.parametrize(
    ("elements", "error"), [(2**28 + 8, "a and b must have same reduction dim"), (7, "mat1 and mat2 shapes cannot")]
)
def test_large_inputs_are_not_built_to_repeat_the_error_of_meta(attnscope, tmp_path, where, elements, error):
    (tmp_path / "net.py").write_text(REFUSES)
    done = attnscope("trace", f"{tmp_path / 'net.py'}:Net", "--input", str(elements), *where)
    assert done.returncode == 1
    assert error in done.stderr


def test_inputs_are_not_copied_after_an_error(tmp_path):
    (tmp_path / "net.py").write_text(REFUSES)
    size = 2**28
    code = f"""
import resource, sys
from attnscope.cli.program import main
sys.argv = ["attnscope", "trace", {str(tmp_path / "net.py")!r} + ":Raises", "--input", "{size}:bool", "--device", "cpu"]
try:
    main()
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    before, after = map(int, done.stderr.rpartition("at ")[2].split())
    assert after - before < size // 2048, done.stderr
