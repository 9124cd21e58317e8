"""`explore`: exact counts, times that add up, and errors before memory is allocated."""

import json
import re
from dataclasses import replace

import pytest
import torch

import attnscope
from attnscope import (
    CrossSpec,
    DeviceError,
    SwinNetworkSpec,
    SwinSpec,
    UsageError,
    ViTAttention,
    ViTNetworkSpec,
    ViTSpec,
    WindowAttention,
    trace_steps,
)
from attnscope.core.axes import AxisError
from attnscope.plan.backward import least_backward_peak
from attnscope.plan.memory import Memory
from attnscope.profiling.building import build, largest_that_fits, needed_bytes, settled
from attnscope.profiling.options import RunOptions

SMALL = SwinSpec(dim=12, resolution=(10, 15), window=4, shift=True)


@pytest.fixture(scope="module")
def report():
    return attnscope.explore(SMALL, budget=0.02)


def test_the_json_has_the_keys_of_its_schema(report):
    """The keys belong to schema 1."""
    data = json.loads(report.to_json())
    assert data["schema"] == 1
    assert {
        "command",
        "spec",
        "environment",
        "steps",
        "totals",
        "time",
        "audit",
        "complexity",
        "warnings",
    } <= data.keys()
    for row in data["steps"]:
        assert {
            "name",
            "path",
            "doc",
            "pattern",
            "inputs",
            "outputs",
            "macs",
            "flops",
            "other_flops",
            "params",
        } <= row.keys()
        assert {"bytes_read", "bytes_written", "bytes_saved", "time", "times"} <= row.keys()
        assert {"interquartile_mean_s", "iqr_s", "samples_s"} <= row["time"].keys()
        assert row["flops"] == 2 * row["macs"]
        assert len(row["time"]["samples_s"]) == data["time"]["runs"]
    assert {"macs", "flops", "other_flops", "params", "peak_bytes"} <= data["totals"].keys()
    assert {"whole_interquartile_mean_s", "steps_sum_s", "remainder_s", "runs"} <= data["time"].keys()
    assert data["time"]["whole_median_s"] == data["time"]["whole_interquartile_mean_s"]  # the name in version 0.1
    assert all(row["time"]["median_s"] == row["time"]["interquartile_mean_s"] for row in data["steps"])
    assert {"declared", "closed_form", "fvcore", "torch", "agree", "uncounted"} <= data["audit"].keys()
    assert {"own_macs", "reference_macs", "own_s", "reference_s", "neighbourhood"} <= data["complexity"].keys()
    old = {"global_macs", "windowed_macs", "ratio", "formulas", "global_s", "windowed_s", "saving"}
    assert old <= data["complexity"].keys()  # kept for one release
    assert data["audit"]["torch"] is None  # not requested, which differs from 0
    assert data["steps"][0]["bytes_saved"] == 0  # padding saves nothing for backward


def test_times_of_steps_and_remainder_add_up(report):
    time = report.time
    assert sum(row.time.interquartile_mean_s for row in report.steps) == pytest.approx(time.steps_sum_s)
    assert time.whole_interquartile_mean_s - time.steps_sum_s == pytest.approx(time.remainder_s)
    assert time.clean_runs <= time.tried
    assert time.clock == "thread" or time.runs == (time.clean_runs if time.clean_runs >= 5 else time.tried) >= 5
    assert report.complexity.reference_s == report.complexity.global_s > 0
    assert report.complexity.own_s == report.complexity.windowed_s == time.whole_interquartile_mean_s


@pytest.mark.parametrize(
    ("spec", "timed"),
    [
        (ViTSpec(dim=12, heads=3, tokens=5), "global_s"),
        (CrossSpec(dim=12, heads=3, tokens=5, keys=4), "windowed_s"),
        (ViTNetworkSpec(dim=12, heads=3, image=16, scope="block"), None),
    ],
    ids=["vit", "cross", "block"],
)
def test_a_spec_without_a_baseline_has_only_its_own_time(spec, timed):
    """ViT (global attention itself), cross-attention and networks have no baseline."""
    report = attnscope.explore(spec, device="cpu", budget=0.01)
    for name in ("global_s", "windowed_s"):
        assert getattr(report.complexity, name) == (report.time.whole_interquartile_mean_s if name == timed else None)
    assert report.complexity.own_s == (report.time.whole_interquartile_mean_s if timed else None)
    assert report.complexity.reference_s is None


def test_an_audit_without_times_needs_no_memory_for_values():
    """The input alone has 605 GB."""
    report = attnscope.explore(attnscope.ViTSpec(batch=10**6), time=False, audit=True)
    assert report.environment["device"] == "meta"
    assert report.audit.agree
    assert report.audit.torch == report.totals.macs


def test_the_audit_adds_torch_to_the_independent_counts():
    audit = attnscope.explore(SMALL, time=False, audit=True).audit
    assert audit.agree
    assert audit.declared == audit.closed_form == audit.fvcore == audit.torch > 0
    assert audit.ways == ["letters", "closed form", "fvcore", "torch"]
    fused = attnscope.explore(ViTSpec(dim=12, heads=3, tokens=5, kernel="sdpa"), time=False, audit=True).audit
    assert fused.agree
    if fused.torch is None:  # this torch cannot count fused attention on the CPU, which a note reports
        assert any("FlopCounterMode" in note for note in fused.notes)


def test_a_wrong_count_is_reported_with_its_step(monkeypatch):
    right = ViTSpec.closed_form
    monkeypatch.setattr(ViTSpec, "closed_form", lambda spec: {**right(spec), "score": 1, "ghost": 7})
    audit = attnscope.explore(ViTSpec(dim=12, heads=3, tokens=5), time=False).audit
    assert not audit.agree
    assert audit.notes == [
        "score: counts disagree: shapes 300, closed form 1",
        "ghost: the closed form has 7 MACs for a step that did not run",
    ]


def test_fvcore_that_fails_is_not_available(monkeypatch):
    import attnscope.profiling.counters as probe

    def broken(*args):
        raise RuntimeError("no tracer here\nand more")

    monkeypatch.setattr(probe, "count_with_fvcore", broken)
    audit = attnscope.explore(ViTSpec(dim=12, heads=3, tokens=5), budget=0.01).audit
    assert audit.fvcore is None
    assert audit.agree
    assert audit.notes == ["fvcore is not available: RuntimeError: no tracer here"]


def test_nothing_is_computed_without_time():
    report = attnscope.explore(ViTSpec(tokens=10**9), time=False)
    assert report.time is None
    assert report.steps[0].time is None
    assert report.totals.macs == 4 * 10**9 * 768**2 + 2 * 10**18 * 768
    assert report.audit.fvcore is None


@pytest.mark.parametrize(
    "spec", [ViTSpec(tokens=10**6), SwinSpec(resolution=1000, shift=True)], ids=lambda spec: spec.name
)
def test_the_module_on_meta_is_compared_with_the_plan(spec):
    report = attnscope.explore(spec, device="meta")
    assert report.time is None
    assert report.audit.agree
    assert report.audit.fvcore == report.totals.macs


def test_a_wrong_plan_is_an_error():
    class Wrong(ViTSpec):
        def plan(self):
            return replace(ViTSpec(**vars(self)), tokens=self.tokens + 1).plan()

    with pytest.raises(
        attnscope.AttnscopeError, match=r"project must return 1×6×36, by the plan \(got 1×5×36\): please report"
    ):
        attnscope.explore(Wrong(dim=12, heads=3, tokens=5))


def test_a_size_beyond_the_memory_is_an_error_before_allocation():
    with pytest.raises(DeviceError) as error:
        attnscope.explore(ViTSpec(tokens=10**7))
    assert "the run needs 8.5 PiB, but cpu has" in str(error.value)
    assert "--no-time for shapes and costs only, or set --tokens to at most" in error.value.in_flags()


def test_an_allocation_failure_is_an_error_with_the_fix(monkeypatch):
    from attnscope.profiling import devices as device

    monkeypatch.setattr(device, "free_memory", lambda device: 10**18)
    with pytest.raises(DeviceError, match="cpu ran out of memory; use no_time"):
        attnscope.explore(ViTSpec(dim=2, heads=1, tokens=2 * 10**7))


def test_the_suggested_size_is_the_largest_that_fits():
    free = 10**8
    assert largest_that_fits(ViTSpec(batch=1000), free).startswith("set {batch} to at most ")
    said = largest_that_fits(ViTSpec(tokens=10**6), free)
    tokens = int(said.split()[-1])
    fits = [needed_bytes(ViTSpec(tokens=n).plan()) <= free for n in (tokens, tokens + 1)]
    assert fits == [True, False]
    assert largest_that_fits(ViTSpec(image=16000), free) == f"set {{tokens}} to at most {tokens} instead of {{image}}"
    assert largest_that_fits(SwinSpec(resolution=4000, window=4000), free) is None


def test_the_suggested_size_has_the_units_of_its_flag():
    free = 10**9
    vit, swin = ViTNetworkSpec(image=40000), SwinNetworkSpec(image=40000, patch=(4, 8))
    assert largest_that_fits(vit, free) == "set {image} to at most 800"
    assert largest_that_fits(swin, free) == "set {image} to at most 1640x3280"
    sizes = [(vit, 800, 816), (swin, (1640, 3280), (1644, 3288))]
    for spec, *images in sizes:
        fits = [needed_bytes(replace(spec, image=image).plan()) <= free for image in images]
        assert fits == [True, False]


@pytest.mark.parametrize("input_grad", [True, False])
@pytest.mark.parametrize("spec", [ViTNetworkSpec(), SwinSpec(shift=True), ViTSpec(kernel="sdpa")], ids=lambda s: s.name)
def test_a_run_needs_its_peak_memory(spec, input_grad):
    plan = spec.plan()
    memory = Memory(plan)
    there = spec.itemsize * plan.params + plan.input_bytes
    forward = needed_bytes(plan)
    back = needed_bytes(plan, RunOptions(time=False, backward=True, input_grad=input_grad))
    assert forward == there + memory.least_peak
    assert back == there + max(memory.least_training_peak, least_backward_peak(memory, input_grad)) > forward


def test_a_kernel_measured_alone_may_need_more_memory_than_the_forward():
    plan = ViTSpec(dim=1200, heads=1, tokens=2).plan()
    assert needed_bytes(plan, RunOptions()) == needed_bytes(plan) - Memory(plan).least_peak + 4 * (
        2 * 1200 + 1200 * 3600 + 2 * 3600
    )


def test_a_backward_that_does_not_fit_is_an_error_although_the_forward_fits(monkeypatch):
    from attnscope.profiling import devices as device

    spec, options = ViTNetworkSpec(batch=64), RunOptions(backward=True)
    free = 2 * 10**9
    monkeypatch.setattr(device, "free_memory", lambda device: free)
    assert needed_bytes(spec.plan(), RunOptions()) < free
    with pytest.raises(DeviceError) as error:
        attnscope.explore(spec, device="cpu", backward=True)
    message = error.value.in_flags()
    assert "forward and backward need 8.8 GiB, but cpu has 1.9 GiB free" in message
    said = re.search(
        r"--no-time for shapes and costs only, leave out --backward, or set --batch to at most (\d+)", message
    )
    fits = [needed_bytes(replace(spec, batch=int(said[1]) + more).plan(), options) <= free for more in (0, 1)]
    assert fits == [True, False]
    with pytest.raises(DeviceError) as error:
        attnscope.explore(spec, device="cpu", time=False, audit=True, backward=True)
    assert "leave out --audit for shapes and costs only, leave out --backward, or" in error.value.in_flags()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"device": "tpu"}, "device tpu is unknown"),
        ({"budget": 0}, r"budget must be above 0 and at most 3600 s \(got 0\)"),
        ({"budget": float("inf")}, r"budget must be above 0 and at most 3600 s \(got inf\)"),
        ({"threads": 0}, r"threads must be .* \(got 0\)"),
        ({"threads": 10**6}, r"threads must be .* \(got 1000000\)"),
        ({"seed": -1}, r"seed must be an integer from 0 to \d+ \(got -1\)"),
    ],
)
def test_a_wrong_argument_is_an_error(arguments, said):
    with pytest.raises(UsageError, match=said):
        attnscope.explore(ViTSpec(), **arguments)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is available")
def test_a_missing_device_is_an_error():
    with pytest.raises(DeviceError, match=r"device cuda is not available here; available: .*cpu"):
        attnscope.explore(ViTSpec(), device="cuda")


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_other_dtypes_and_kernels_run(dtype, kernel):
    report = attnscope.explore(
        SwinSpec(dim=12, resolution=8, window=4, shift=True, dtype=dtype, kernel=kernel), budget=0.01
    )
    assert report.audit.agree


def test_an_argument_other_than_a_spec_is_an_error():
    with pytest.raises(UsageError, match="spec must be a Spec such as"):
        attnscope.explore("vit")


def test_the_state_of_torch_is_restored():
    torch.set_num_threads(1)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    attnscope.explore(ViTSpec(dim=12, heads=3, tokens=5), budget=0.01, threads=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == 1
    assert torch.get_default_dtype() is torch.float32


def test_the_same_seed_gives_the_same_output():
    def built(seed):
        with settled(1, seed, torch.device("cpu")):
            module, inputs = build(SMALL, torch.device("cpu"))
            return module(*inputs)

    assert torch.equal(built(0), built(0))
    assert not torch.equal(built(0), built(1))


@pytest.mark.cuda
def test_explore_runs_on_cuda():
    report = attnscope.explore(SwinSpec(shift=True), device="cuda")
    assert report.audit.agree
    assert report.time.steps_sum_s > 0


@pytest.mark.mps
def test_explore_runs_on_mps():
    assert attnscope.explore(SwinSpec(shift=True), device="mps").audit.agree


class TestTraceSteps:
    """A network that contains attentions of attnscope."""

    def network(self):
        return torch.nn.Sequential(WindowAttention(12, 3, 4, 2), WindowAttention(12, 3, 4, qkv_bias=False))

    def test_rows_have_paths_and_shapes(self):
        rows = trace_steps(self.network(), torch.randn(2, 6, 9, 12))
        assert [row.path for row in rows] == ["0"] * 15 + ["1"] * 12
        assert rows[0].name == "pad"
        assert rows[0].outputs == ((2, 8, 12, 12),)
        assert next(row for row in rows if row.path == "1" and row.name == "project").params == 3 * 12 * 12

    def test_a_module_called_twice_may_have_two_input_shapes(self):
        shared = ViTAttention(12, 3)

        class Twice(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.attention = shared

            def forward(self, x):
                return self.attention(x), self.attention(x[:, :3])

        rows = trace_steps(Twice(), torch.randn(1, 5, 12))
        assert [row.outputs[0] for row in rows if row.name == "output"] == [(1, 5, 12), (1, 3, 12)]

    def test_the_module_is_restored(self):
        network = self.network().train()
        network[1].eval()
        trace_steps(network, torch.randn(1, 4, 4, 12))
        assert [module.training for module in (network, *network)] == [True, True, False]
        assert not network[0]._forward_pre_hooks

    def test_the_error_for_a_wrong_shape_has_axis_letters(self):
        class Broken(ViTAttention):
            def forward(self, x):
                return self.queries_keys_values(x)

        with pytest.raises(
            AxisError, match=r"project: x must have shape b n c \(got 1×5×13\): c must be 12 \(got 13\)"
        ):
            trace_steps(Broken(12, 3), torch.randn(1, 5, 13))

    def test_an_input_of_a_wrong_shape_names_the_module(self):
        with pytest.raises(UsageError, match=r"the input of ViTAttention must have the shape \(b, n, c = 12\) \(got"):
            trace_steps(ViTAttention(12, 3), torch.randn(1, 5, 13))

    def test_a_step_with_a_wrong_output_shape_is_an_error(self):
        class Broken(ViTAttention):
            def mix(self, weights, v):
                return super().mix(weights, v)[..., :-1]

            mix.step = ViTAttention.mix.step

        with pytest.raises(
            AxisError, match=r"mix: heads must have shape b h n d \(got 1×3×5×3\): d must be 4 \(got 3\)"
        ):
            trace_steps(Broken(12, 3), torch.randn(1, 5, 12))
