"""Peak rates of the machine, and roofline lower bounds of steps."""

import itertools
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from attnscope import SwinNetworkSpec, SwinSpec, ViTSpec, attentions, explore
from attnscope.attentions.swinv2.spec import SwinV2Spec
from attnscope.plan.roofline import Bandwidth, Bound, Kernel, Peaks, Rate, bound, kernels, seen_seconds
from attnscope.profiling import peaks
from attnscope.profiling.noise import floor_doubt
from attnscope.profiling.peaks import best_seconds, cache_folder, measure_peaks, peaks_of
from attnscope.render import render, words
from attnscope.render.details import roofline_lines
from attnscope.render.roofline import roofline
from attnscope.render.screen import Screen
from attnscope.testing.memory import profiling
from tests.golden import timed

PEAKS = Peaks(
    device="a machine", threads=1, dtype="float32",
    matmul=(Rate(512, 1e11), Rate(1024, 1e11)), batched=(Rate(49, 2e10), Rate(197, 8e10)),
    softmax=(Rate(49, 1e9), Rate(197, 1e9)),
    copy=(Bandwidth(2**19, 64e9), Bandwidth(2**21, 32e9), Bandwidth(2**27, 8e9)),
    call_s=5e-6, view_s=1e-6, caches={"L1": 2**15, "L2": 2**21, "L3": 2**25}, seconds=0.5,
)  # fmt: skip


def bounds(spec, each_s=1e-3):
    """Return each step with its bound if every kernel takes `each_s` seconds."""
    steps = attentions.plan(spec).steps
    return {step.name: (step, bound(step, PEAKS, dict.fromkeys(kernels([step]), each_s))) for step in steps}


def test_a_linear_layer_is_bound_by_its_kernel():
    step, least = bounds(ViTSpec())["project"]
    assert kernels([step]) == [Kernel("linear", (197, 768, 2304))]
    assert least.seconds == pytest.approx(1e-3)
    assert least.binds == "compute"
    assert least.intensity == pytest.approx((step.flops + step.other_flops) / (step.bytes_read + step.bytes_written))


def test_a_fused_kernel_is_bound_by_the_fastest_matmul():
    step, least = bounds(ViTSpec(kernel="sdpa"))["attend"]
    assert kernels([step]) == []
    assert least.seconds == pytest.approx(step.macs / 1e11)


def test_steps_have_the_kernels_that_bound_them():
    found = {step.name: kernels([step]) for step in attentions.plan(SwinSpec()).steps}
    assert {name: own for name, own in found.items() if own} == {
        "project": [Kernel("linear", (3136, 96, 288))],
        "score": [
            Kernel("transpose", (64, 49, 3, 3, 32)),
            Kernel("batched", (192, 49, 32, 49)),
            Kernel("scale", (460_992,)),
        ],
        "softmax": [Kernel("softmax", (9408, 49))],
        "mix": [Kernel("batched", (192, 49, 49, 32))],
        "output": [Kernel("linear", (3136, 96, 96))],
    }


def test_each_layer_of_a_step_is_a_kernel():
    (step,) = [step for step in attentions.plan(SwinV2Spec()).steps if step.name == "bias_mlp"]
    layers = [Kernel("linear", (225, 2, 512)), Kernel("linear", (225, 512, 3))]
    assert kernels([step]) == [*layers, Kernel("scale", (675,))]  # 16 times the sigmoid


def test_the_bound_of_a_matmul_over_windows_includes_copies_and_scaling():
    _, least = bounds(SwinSpec())["score"]
    q = 4 * 64 * 3 * 49 * 32
    assert least.seconds == pytest.approx(3e-3 + 2 * q / PEAKS.bandwidth(2 * q))
    assert least.binds == "memory L3"  # two of its three kernels move data, and so does the copy of q
    _, least = bounds(SwinSpec())["mix"]
    assert least.seconds == pytest.approx(1e-3 + 2 * q / PEAKS.bandwidth(2 * q))
    assert least.binds == "compute"


@pytest.mark.parametrize("spec", [SwinSpec(dim=12), ViTSpec(dim=12, heads=3, tokens=5, batch=2)], ids=lambda s: s.name)
def test_every_kernel_can_be_measured(spec):
    found = kernels(attentions.plan(spec).steps)
    assert {"linear", "batched", "softmax", "scale", "transpose"} == {kernel.kind for kernel in found}
    best = best_seconds(dict.fromkeys(found, 1.0), torch.device("cpu"), torch.float32, 1)
    assert list(best) == found
    assert min(best.values()) > 0


@pytest.mark.parametrize(("seen_s", "measured", "best"), [(3.0, 1, 3.0), (2.0, 2, 2.0), (0.1, 3, 0.1), (9.0, 1, 3.0)])
def test_a_kernel_that_is_slower_alone_is_measured_again(seen_s, measured, best, monkeypatch):
    took = [3.0, 2.0, 1.0, 0.5]
    monkeypatch.setattr(peaks, "_best", lambda *_: took.pop(0))
    kernel = Kernel("scale", (8,))
    assert best_seconds({kernel: seen_s}, torch.device("cpu"), torch.float32, 1) == {kernel: best}
    assert len(took) == 4 - measured


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
            best_seconds(dict.fromkeys(some, 1.0), torch.device("cpu"), torch.float32, 1)
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
    assert bounds(ViTSpec(dim=4, heads=1, tokens=2), 1e-7)["softmax"][1].binds == "call"
    view = bounds(ViTSpec())["split_heads"][1]
    assert (view.binds, view.intensity, view.seconds) == ("call", None, 1e-6)
    step = next(step for step in attentions.plan(ViTSpec()).steps if step.is_view)
    assert bound(step, replace(PEAKS, view_s=None), {}) is None  # a view launches nothing on a GPU


def test_bandwidth_is_interpolated_between_measured_sizes():
    assert PEAKS.bandwidth(1) == 64e9
    assert PEAKS.bandwidth(2**20) == pytest.approx(48e9)
    assert PEAKS.bandwidth(2**40) == 8e9
    assert PEAKS.level(2**40) == "DRAM"


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
    assert attnscope("peaks", "--dtype", "int3").stderr.startswith("attnscope: --dtype int3 is unknown")
    assert attnscope("peaks", "--device", "meta").returncode == 2
    assert attnscope("peaks", "--threads", "999").returncode == 2


def test_every_timed_step_has_a_bound():
    report = explore(ViTSpec(dim=12, heads=3, tokens=5), device="cpu", budget=0.01)
    assert all(row.bound is not None and row.bound.seconds > 0 for row in report.steps)
    assert report.peaks.threads == 1
    assert explore(ViTSpec(), time=False).peaks is None


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("ascii_only", [False, True])
def test_the_roofline_fits_the_screen(width, ascii_only):
    report = timed(explore(SwinSpec(shift=True), time=False, focus=("roofline",)))
    rows = [
        replace(row, bound=least)
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
    rows = [
        replace(row, bound=Bound(row.time.interquartile_mean_s * shares.get(index, 1 / 2), "compute", 1.0))
        for index, row in enumerate(report.steps)
    ]
    least = sum(row.bound.seconds for row in rows)
    held = replace(report, steps=rows, peaks=PEAKS)
    assert held.floor_s == pytest.approx(least)
    assert report.floor_s is None
    (line,) = roofline_lines(held)
    ratio = sum(row.time.interquartile_mean_s for row in rows) / least
    assert line.startswith(f"{ratio:.2f}× the roofline lower bound ({words.seconds(least)}); largest gaps: ")
    assert [gap.split()[0] for gap in line.split("largest gaps: ")[1].split(", ")] == ["output", "mix", "score"]


def test_a_time_below_the_lower_bound_has_a_warning():
    assert floor_doubt(1.0, 1.0) == floor_doubt(0.98, 1.0) == []
    (warning,) = floor_doubt(0.9, 1.0)
    assert "the steps took 0.90× their roofline lower bound" in warning
    assert "attnscope peaks" in warning


def test_the_cache_folder_of_the_tests_is_temporary():
    assert "pytest" in os.environ["XDG_CACHE_HOME"]


def test_a_roofline_of_many_steps_marks_the_longest():
    report = timed(explore(SwinNetworkSpec(), time=False, focus=("roofline",)))
    rows = [
        replace(row, bound=Bound(row.time.interquartile_mean_s / 2, "compute", 1.0 + index % 5))
        for index, row in enumerate(report.steps)
    ]
    drawn = [line.plain for line in roofline(replace(report, steps=rows, peaks=PEAKS), Screen(width=120))]
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
