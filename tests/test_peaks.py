"""Peak rates of the machine, and roofline lower bounds of steps."""

import itertools
import json
import os
import re
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
import torch

from attnscope import SwinNetworkSpec, SwinSpec, ViTSpec, attentions, explore
from attnscope.attentions.swinv2.spec import SwinV2Spec
from attnscope.plan.kernels import Alone, Kernel, alone, kernels, seen_seconds
from attnscope.plan.peaks import Bandwidth, Peaks, Raised, Rate
from attnscope.plan.roofline import Roofline, moved_bytes, raised, roofline
from attnscope.profiling import alone as engine
from attnscope.profiling.alone import best_times
from attnscope.profiling.peak_files import cache_folder
from attnscope.profiling.peaks import measure_peaks, peaks_of
from attnscope.render import render, words
from attnscope.render.details import roofline_lines
from attnscope.render.roofline import roofline as chart
from attnscope.render.screen import Screen
from attnscope.testing.memory import profiling
from tests.golden import timed

PEAKS = Peaks(
    device="a machine", threads=1, dtype="float32",
    matmul=(Rate(512, 1e11), Rate(1024, 1e11)), batched=(Rate(49, 2e10), Rate(197, 8e10)),
    softmax=(Rate(49, 1e9), Rate(197, 2e9)),
    copy=(Bandwidth(2**19, 64e9), Bandwidth(2**21, 32e9), Bandwidth(2**27, 8e9)),
    call_s=5e-6, view_s=1e-6, caches={"L1": 2**15, "L2": 2**21, "L3": 2**25}, seconds=0.5,
)  # fmt: skip


def bounds(spec, *machine):
    """Return each step with its roofline lower bound on a machine, by default that of PEAKS."""
    return {step.name: (step, roofline(step, machine or [PEAKS])) for step in attentions.plan(spec).steps}


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_a_matmul_is_bound_by_the_highest_rate_of_any_matmul(kernel):
    found = bounds(ViTSpec(kernel=kernel))
    step, least = found["project"]
    assert least.seconds == least.dtype_seconds == pytest.approx(step.macs / 1e11)
    assert least.binds == "compute"
    assert least.intensity == pytest.approx((step.flops + step.other_flops) / (step.bytes_read + step.bytes_written))
    step, least = found["score" if kernel == "eager" else "attend"]
    assert least.seconds == pytest.approx(step.macs / 1e11)


def test_a_softmax_is_bound_by_the_highest_rate_of_any_softmax():
    _, least = bounds(ViTSpec())["softmax"]
    assert least.seconds == pytest.approx(12 * 197 * 197 / 2e9)
    assert least.binds == "compute"


def test_hidden_copies_are_not_part_of_a_bound():
    """The matmul of windows copies k, and q by a hidden copy; its kernels alone measure the copy of k."""
    step, least = bounds(SwinSpec())["score"]
    assert least.seconds == pytest.approx(max(step.macs / 1e11, moved_bytes(step) / PEAKS.bandwidth(moved_bytes(step))))


def test_half_precision_is_bound_by_the_faster_of_its_own_peak_and_that_of_float32():
    half, single = replace(PEAKS, dtype="float16", matmul=(Rate(512, 1e9),), batched=(Rate(49, 1e9),)), PEAKS
    step, least = bounds(ViTSpec(dtype="float16"), half, single)["project"]
    assert least.seconds == pytest.approx(step.macs / 1e11)
    assert least.dtype_seconds == pytest.approx(step.macs / 1e9)
    _, own = bounds(ViTSpec(dtype="float16"), single, half)["project"]
    assert own.seconds == own.dtype_seconds == least.seconds


@pytest.mark.parametrize("name", ["project", "softmax", "merge_heads"])
@pytest.mark.parametrize("factor", [0.5, 0.999, 1.0, 1.5])
def test_a_step_that_is_faster_than_its_bound_raises_the_peak_that_set_it(name, factor):
    step, least = bounds(ViTSpec())[name]
    seconds = factor * least.seconds
    shown = raised(step, [PEAKS], seconds, name, "2026-01-01")
    assert bool(shown) is (factor < 1)
    peaks = PEAKS
    for one in shown:
        assert (one.by, one.date) == (name, "2026-01-01")
        peaks = peaks.raise_to(one)
    now = roofline(step, [peaks])
    assert now.seconds == pytest.approx(min(seconds, least.seconds))
    assert raised(step, [peaks], seconds, name, "") == []


def test_a_short_step_raises_the_rate_of_calls():
    step, least = bounds(ViTSpec(dim=4, heads=1, tokens=2))["softmax"]
    assert (least.binds, least.seconds) == ("call", PEAKS.call_s)
    shown = raised(step, [PEAKS], 4e-6, "softmax", "")
    assert [one.limit for one in shown] == ["call"]
    assert PEAKS.raise_to(shown[0]).shortest_call_s == pytest.approx(4e-6)


def test_a_time_of_zero_and_a_view_raise_no_peak():
    steps = {step.name: step for step in attentions.plan(ViTSpec()).steps}
    assert raised(steps["project"], [PEAKS], 0.0, "", "") == []
    assert raised(steps["split_heads"], [PEAKS], 1e-12, "", "") == []


def test_a_raised_peak_replaces_those_that_it_exceeds():
    """A bandwidth at a working set holds for all smaller ones."""
    low, high = (Raised("memory", rate, "", "", 2**20) for rate in (7e10, 9e10))
    larger = Raised("memory", 8e10, "", "", 2**22)
    assert PEAKS.raise_to(low).raise_to(high).raised == PEAKS.raise_to(high).raise_to(low).raised == (high,)
    both = PEAKS.raise_to(high).raise_to(larger)
    assert both.raised == (high, larger)
    assert [both.bandwidth(size) for size in (2**10, 2**20, 2**21, 2**22, 2**40)] == [9e10, 9e10, 8e10, 8e10, 8e9]
    assert both.macs_per_s == PEAKS.macs_per_s


def test_steps_have_the_kernels_that_bound_them():
    found = {step.name: kernels([step]) for step in attentions.plan(SwinSpec()).steps}
    assert {name: own for name, own in found.items() if own} == {
        "project": [Kernel("linear", (3136, 96, 288))],
        "score": [Kernel("batched", (192, 49, 32, 49))],
        "softmax": [Kernel("softmax", (9408, 49))],
        "mix": [Kernel("batched", (192, 49, 49, 32))],
        "output": [Kernel("linear", (3136, 96, 96))],
    }


def test_each_layer_of_a_step_is_a_kernel():
    (step,) = [step for step in attentions.plan(SwinV2Spec()).steps if step.name == "bias_mlp"]
    layers = [Kernel("linear", (225, 2, 512)), Kernel("linear", (225, 512, 3))]
    assert kernels([step]) == [*layers, Kernel("scale", (675,))]  # 16 times the sigmoid


def test_a_step_alone_has_the_times_of_its_kernels():
    steps = {step.name: step for step in attentions.plan(SwinV2Spec()).steps}
    warm = {kernel: Alone(1e-3) for kernel in kernels(steps.values())}
    assert alone(steps["bias_mlp"], warm) == Alone(3e-3)
    cold = {kernel: Alone(1e-3, 2e-3) for kernel in warm}
    assert alone(steps["bias_mlp"], cold) == Alone(3e-3, 6e-3)
    assert alone(steps["partition"], cold) is None


KINDS = {"linear", "batched", "softmax"}


@pytest.mark.parametrize(
    ("spec", "kinds"),
    [(SwinV2Spec(dim=12), KINDS | {"scale", "transpose"}), (ViTSpec(dim=12, heads=3, tokens=5, batch=2), KINDS)],
    ids=["swinv2", "vit"],
)
def test_every_kernel_can_be_measured(spec, kinds):
    found = kernels(attentions.plan(spec).steps)
    assert {kernel.kind for kernel in found} == kinds
    best = best_times(dict.fromkeys(found, 1.0), torch.device("cpu"), torch.float32, 1)
    assert list(best) == found
    assert all(one.warm_s > 0 and one.cold_s is None for one in best.values())


@pytest.mark.parametrize(("seen_s", "measured", "best"), [(3.0, 1, 3.0), (2.0, 2, 2.0), (0.1, 3, 1.0), (9.0, 1, 3.0)])
def test_a_kernel_that_is_slower_alone_is_measured_again(seen_s, measured, best, monkeypatch):
    """Its best time is never that within the step."""
    took = [3.0, 2.0, 1.0, 0.5]
    monkeypatch.setattr(engine, "best_s", lambda *_: took.pop(0))
    kernel = Kernel("scale", (8,))
    assert best_times({kernel: seen_s}, torch.device("cpu"), torch.float32, 1) == {kernel: Alone(best)}
    assert len(took) == 4 - measured


def test_cold_operands_are_evicted_before_each_call(monkeypatch):
    done = []
    monkeypatch.setattr(engine, "eviction", lambda device: lambda: done.append("evict"))
    monkeypatch.setattr(engine, "call_of", lambda *_: lambda: done.append("call"))
    monkeypatch.setattr(engine, "KERNEL_S", 0.0)
    (best,) = best_times({Kernel("scale", (8,)): 1.0}, torch.device("cpu"), torch.float32, 1, cold=True).values()
    assert done == ["call"] * 4 + ["evict", "call"] * 3  # one to load libraries, and three of each kind
    assert best.cold_s > 0


def test_the_memory_that_evicts_is_twice_the_largest_cache(monkeypatch):
    for sizes, size in (({"L1": 2**15, "L3": 2**26}, 2**27), ({"L3": 2**20}, 2**26), ({}, 2**26)):
        monkeypatch.setattr(engine, "caches", lambda device, sizes=sizes: sizes)
        evict = engine.eviction(torch.device("cpu"))
        assert evict().nbytes == size


def test_the_observed_time_of_a_kernel_is_its_shortest_in_any_step():
    steps = [step for _ in range(2) for step in attentions.plan(ViTSpec()).steps if step.name in ("score", "mix")]
    seen = seen_seconds(steps, [4.0, 3.0, 2.0, 5.0])
    assert seen == {**dict.fromkeys(kernels(steps[:1]), 2.0), **dict.fromkeys(kernels(steps[1:2]), 3.0)}


def test_a_copy_is_bound_by_the_memory_that_holds_it():
    step, least = bounds(SwinSpec())["partition"]
    moved = step.bytes_read + step.bytes_written
    assert least.seconds == pytest.approx(moved / PEAKS.bandwidth(moved))
    assert least.binds == "memory L3"
    assert least.intensity == 0


def test_only_the_operands_of_one_kernel_are_in_memory_at_once():
    """Peak memory is the bytes of the operands and a few scalars."""
    every = [
        Kernel("linear", (512, 512, 1024)),
        Kernel("batched", (16, 128, 64, 256)),
        Kernel("softmax", (1024, 512)),
        Kernel("scale", (2**20,)),
        Kernel("transpose", (8, 64, 3, 8, 64)),
    ]
    few = 2**16
    for some in (*([kernel] for kernel in every), every):
        with profiling() as profiler:
            best_times(dict.fromkeys(some, 1.0), torch.device("cpu"), torch.float32, 1)
        largest = 4 * max(kernel.elements for kernel in some)
        assert largest <= fullest(profiler) <= largest + few


def fullest(profiler):
    """Return the peak of allocated bytes."""
    events, found = list(profiler.profiler.kineto_results.experimental_event_tree()), []
    while events:
        event = events.pop()
        events.extend(event.children)
        if hasattr(event.extra_fields, "alloc_size"):
            found.append((event.start_time_ns, event.extra_fields.alloc_size))
    return max(itertools.accumulate(size for _, size in sorted(found)))


def test_a_small_step_is_bound_by_the_call():
    assert bounds(ViTSpec(dim=4, heads=1, tokens=2))["softmax"][1].binds == "call"
    assert bounds(ViTSpec())["split_heads"][1] is None  # a view computes and moves nothing


def test_bandwidth_is_interpolated_between_measured_sizes():
    assert PEAKS.bandwidth(1) == 64e9
    assert PEAKS.bandwidth(2**20) == pytest.approx(48e9)
    assert PEAKS.bandwidth(2**40) == 8e9
    assert PEAKS.level(2**40) == "DRAM"


def test_bandwidth_never_rises_with_the_working_set():
    """The copy of a small working set is bound by its call, and may be slower than that of a larger one."""
    rates = (5e10, 9e10, 8e9)
    dented = replace(PEAKS, copy=tuple(map(Bandwidth, (2**19, 2**21, 2**27), rates)))
    assert [dented.bandwidth(size) for size in (1, 2**19, 2**20, 2**21, 2**27)] == [9e10, 9e10, 9e10, 9e10, 8e9]


def test_peaks_are_saved_and_read(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cpu = torch.device("cpu")
    first, _ = measure_peaks(cpu, torch.float32, 1)
    assert peaks_of(cpu, torch.float32, 1) == first
    (kept,) = cache_folder().iterdir()
    kept.write_text("{}")
    assert peaks_of(cpu, torch.float32, 1) != first  # an invalid file is measured again
    assert all(rate.per_s > 0 for rate in (*first.matmul, *first.batched, *first.softmax))
    assert first.call_s > 0


def test_peaks_are_measured_if_the_cache_folder_cannot_be_written(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    assert peaks_of(torch.device("cpu"), torch.float32, 1).threads == 1


def test_the_command_shows_peaks(attnscope, tmp_path):
    env = {"XDG_CACHE_HOME": str(tmp_path)}
    data = json.loads(attnscope("peaks", "--json", **env).stdout)
    assert data["threads"] == 1
    assert len(list(Path(tmp_path, "attnscope").iterdir())) == 1
    shown = attnscope("peaks", **env).stdout
    assert "batched matmul" in shown
    assert "1024³" in shown
    assert date.today().isoformat() in shown
    (path,) = Path(tmp_path, "attnscope").iterdir()
    too_high = data | {"call_s": 1e-12, "raised": [{"limit": "matmul", "per_s": 1e20, "by": "project", "date": ""}]}
    path.write_text(json.dumps(too_high))
    kept = attnscope("peaks", **env).stdout
    assert re.search(r"matmul +project +100 E +MAC/s", kept)
    forgotten = json.loads(attnscope("peaks", "--forget", "--json", **env).stdout)
    assert forgotten["raised"] == []
    assert forgotten["call_s"] > 1e-9
    assert attnscope("peaks", "--dtype", "int3").stderr.startswith("attnscope: --dtype int3 is unknown")
    assert attnscope("peaks", "--device", "meta").returncode == 2
    assert attnscope("peaks", "--threads", "999").returncode == 2


def test_every_timed_step_has_a_bound():
    report = explore(ViTSpec(dim=12, heads=3, tokens=5), device="cpu", budget=0.01)
    for row in report.steps:
        assert (row.roofline is None) == (row.name == "split_heads" or row.time.interquartile_mean_s == 0)
        assert row.roofline is None or 0 < row.roofline.seconds <= row.time.interquartile_mean_s * (1 + 1e-6)
        assert row.bound.seconds > 0
    assert report.peaks.threads == 1
    assert explore(ViTSpec(), time=False).peaks is None


def test_a_run_keeps_the_peaks_that_it_raises(tmp_path, monkeypatch):
    """The peaks before are far below what any machine can do."""
    rates = {name: tuple(replace(rate, per_s=1e3) for rate in getattr(PEAKS, name)) for name in ("matmul", "batched")}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("attnscope.profiling.peaks._measure", lambda *_: replace(PEAKS, **rates))
    report = explore(ViTSpec(dim=12, heads=3, tokens=5), device="cpu", budget=0.01)
    assert "matmul" in {one.limit for one in report.raised_peaks}
    assert report.peaks.macs_per_s > 1e3
    assert peaks_of(torch.device("cpu"), torch.float32, 1) == report.peaks


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("ascii_only", [False, True])
def test_the_roofline_fits_the_screen(width, ascii_only):
    report = timed(explore(SwinSpec(shift=True), time=False, focus=("roofline",)))
    rows = [
        replace(row, roofline=least, alone=Alone(1e-3, 2e-3))
        for row, (_, least) in zip(report.steps, bounds(SwinSpec(shift=True)).values(), strict=True)
    ]
    held = replace(report, steps=rows, peaks=PEAKS)
    screen = render(held, "table", Screen(width=width, ascii=ascii_only))
    assert "time/bound" in screen
    assert " roofline " in screen
    assert "FLOP/byte" in screen
    assert "A project" in screen
    assert max(map(len, screen.splitlines())) <= width
    assert screen.isascii() or not ascii_only


def test_the_lower_bound_line_names_the_largest_gaps():
    report = timed(explore(ViTSpec(), time=False))
    shares = {3: 1 / 100, 0: 2}
    rows = [replace(row, roofline=bound_of(row, shares.get(index, 1 / 2))) for index, row in enumerate(report.steps)]
    least = sum(row.roofline.seconds for row in rows)
    held = replace(report, steps=rows, peaks=PEAKS)
    assert held.floor_s == pytest.approx(least)
    assert report.floor_s is None
    (line,) = roofline_lines(held)
    ratio = sum(row.time.interquartile_mean_s for row in rows) / least
    assert line.startswith(f"{ratio:.2f}× the roofline lower bound ({words.seconds(least)}); largest gaps: ")
    assert [gap.split()[0] for gap in line.split("largest gaps: ")[1].split(", ")] == ["output", "mix", "score"]


def test_the_lower_bound_lines_tell_kernels_alone_with_warm_and_with_cold_caches():
    report = timed(explore(ViTSpec(), time=False))
    rows = [
        replace(row, roofline=bound_of(row), alone=Alone(seconds / 2, seconds / 1.25) if row.macs else None)
        for row in report.steps
        for seconds in [row.time.interquartile_mean_s]
    ]
    warm_s = sum(row.alone.warm_s for row in rows if row.alone)
    (_, line) = roofline_lines(replace(report, steps=rows, peaks=PEAKS))
    warm, cold = words.seconds(warm_s), words.seconds(1.6 * warm_s)
    assert line == (f"matmuls and softmax 2.00× their best time alone ({warm}), 1.25× that with cold caches ({cold})")
    warm_only = [replace(row, alone=row.alone and Alone(row.alone.warm_s)) for row in rows]
    (_, line) = roofline_lines(replace(report, steps=warm_only, peaks=PEAKS))
    assert line == f"matmuls and softmax 2.00× their best time alone ({warm})"


def test_the_lower_bound_lines_name_a_wider_dtype_that_is_faster_and_raised_peaks():
    report = timed(explore(ViTSpec(dtype="float16"), time=False))
    rows = [replace(row, roofline=replace(bound_of(row), dtype_seconds=1.0)) for row in report.steps]
    shown = [Raised("matmul", per_s, by, "2026-01-01") for per_s, by in ((1e9, "score"), (2e9, "project alone"))]
    held = replace(report, steps=rows, peaks=PEAKS, wider_peaks=[PEAKS], raised_peaks=shown)
    assert roofline_lines(held)[1:] == [
        "in float16 alone it is 7.00 s: float32 is faster on this machine",
        "project alone raised the peak of matmuls",
    ]
    assert len(roofline_lines(replace(held, wider_peaks=[], raised_peaks=[]))) == 1


def bound_of(row, share=1.0, intensity=1.0):
    """Return a lower bound that is a share of the time of a step."""
    seconds = share * row.time.interquartile_mean_s
    return Roofline(seconds, "compute", intensity, seconds)


def test_the_cache_folder_of_the_tests_is_temporary():
    assert "pytest" in os.environ["XDG_CACHE_HOME"]


def test_a_roofline_of_many_steps_marks_the_longest():
    report = timed(explore(SwinNetworkSpec(), time=False, focus=("roofline",)))
    rows = [replace(row, roofline=bound_of(row, 1 / 2, 1.0 + index % 5)) for index, row in enumerate(report.steps)]
    drawn = [line.plain for line in chart(replace(report, steps=rows, peaks=PEAKS), Screen(width=120))]
    legend = " ".join(line.strip() for line in drawn)
    assert f"and {len(rows) - 26} shorter steps" in legend
    assert "(SW-MSA block of stage 1) 2.00×" in legend
    marks = "".join(drawn[1:13])
    assert all(mark in marks for mark in "ABCDEFGHIJKLMNOPQRSTUVWXYZ")  # each mark is visible


def test_the_parts_of_a_network_have_the_macs_of_their_backward():
    report = explore(SwinNetworkSpec(), time=False, backward=True)
    parts = [part for part in report.parts if not part.is_stage]
    assert sum(part.backward_macs for part in parts) == report.backward.macs == 2 * report.totals.macs
    assert all(part.backward_s is None for part in parts)
    assert "bwd MACs" in render(report, "table", Screen(width=80))
