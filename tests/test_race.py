"""Measured comparisons: bisection, points that do not fit in memory, and Ctrl-C."""

import json
import os
import re
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attnscope import DeviceError, attentions
from attnscope.analyses import timed_comparison as racing
from attnscope.analyses.contenders import arrange
from attnscope.analyses.paper_comparison import on_paper
from attnscope.analyses.timed_comparison import find_crossover, leads, measured, race
from attnscope.profiling import clocks
from attnscope.profiling import timing as engine
from attnscope.profiling.building import needed_bytes
from attnscope.reports.comparison import Measured


def meet(over, contenders=("vit", "swin"), **settings):
    meeting = arrange(contenders, over, {"dim": 24, "heads": 2, "window": 2, **settings})
    return on_paper(meeting), meeting


@given(
    ends=st.tuples(st.integers(0, 80), st.integers(150, 300)),
    at=st.integers(100, 130),
    margin=st.integers(0, 12),
    more=st.lists(st.integers(0, 300), max_size=4),
)
def test_bisection_brackets_the_change_as_closely_as_possible(ends, at, margin, more):
    """The other one is faster from `at` on; within `margin` of it, the leader is unclear."""

    def truth(value):
        return None if at - margin <= value < at + margin else value >= at

    probes = []

    def probe(value):
        probes.append(value)
        return truth(value)

    candidates = range(301)
    low, high, leader, unclear, probed = find_crossover({v: truth(v) for v in (*ends, *more)}, candidates, probe)
    assert probed == probes
    assert leader is True
    assert (low, high) == (at - margin - 1, at + margin)
    assert all(truth(value) is None for value in unclear)
    assert len(probed) <= 20


def test_bisection_returns_none_and_the_unclear_points_without_a_leader():
    assert find_crossover({}, [], bool)[:3] == (None, None, None)
    assert find_crossover({1: None, 2: None}, [], bool)[:4] == (None, None, None, [1, 2])
    assert find_crossover({1: True, 2: None, 3: True}, [2], bool)[:4] == (None, None, True, [2])
    assert find_crossover({1: False, 5: True}, [], bool) == (1, 5, True, [], [])
    # the last of several changes counts, since the leader must stay the same from there on
    assert find_crossover({1: False, 2: True, 3: False, 4: True}, [], bool)[:3] == (3, 4, True)


def test_a_leader_is_only_reported_if_the_interval_of_paired_ratios_excludes_1():
    slow, fast = measured([2.0, 2.1, 2.2, 2.3, 2.4]), measured([1.0, 1.1, 1.2, 1.3, 1.4])
    wide = measured([1.0, 1.5, 2.05, 2.4, 2.5])
    assert leads({"a": slow, "b": fast}, "a", "b") is True
    assert leads({"a": fast, "b": slow}, "a", "b") is False
    assert leads({"a": slow, "b": wide}, "a", "b") is None
    assert leads({"a": slow}, "a", "b") is None
    few = {label: measured(time.samples_s[:4]) for label, time in {"a": slow, "b": fast}.items()}
    assert leads(few, "a", "b") is None
    # a drift that affects both runs of a round alike hides nothing
    drifting, faster = measured([1.0, 2.0, 3.0, 4.0, 5.0]), measured([0.9, 1.8, 2.7, 3.6, 4.5])
    assert leads({"a": drifting, "b": faster}, "a", "b") is True
    # identical modules differ by as much as this, since each has its own memory
    close = measured([0.995 * s for s in drifting.samples_s])
    assert leads({"a": drifting, "b": close}, "a", "b") is None
    assert measured([3.0]) == Measured(3.0, 3.0, 3.0, [3.0])


@pytest.mark.parametrize(("clean", "clock"), [(True, "wall"), (False, "thread")])
def test_disturbed_forwards_are_timed_by_thread_time(clean, clock, monkeypatch):
    monkeypatch.setattr(clocks.CpuClock, "is_clean", lambda *_: clean)
    turns = engine.time_in_turn([(torch.nn.Identity(), torch.zeros(3))] * 3, 0.01)
    assert (turns.clock, turns.clean_runs) == (clock, turns.tried if clean else 0)
    assert [len(samples) for samples in turns.samples] == [turns.tried] * 3
    assert all(seconds > 0 for samples in turns.samples for seconds in samples)


@pytest.mark.parametrize(("seconds", "rounds"), [((1.0, 1.2), 30), ((1.0, 1.2, 1.3), 30), ((1.0,), 102)])
def test_rounds_end_early_if_the_ratios_are_narrow(seconds, rounds, monkeypatch):
    monkeypatch.setattr(engine, "_warm_up", lambda *_, **__: None)

    def run(clock, forward, stamps):
        (time,) = forward()
        return clocks.Timed([float(time)], True)

    clock = iter(range(10**6))
    monkeypatch.setattr(engine, "run", run)
    monkeypatch.setattr(engine.statistics, "median", lambda values: 1.0)
    modules = [lambda x, s=s: (s,) for s in seconds]
    turns = engine.time_in_turn([(m, torch.zeros(3)) for m in modules], 200, now=lambda: next(clock))
    assert turns.tried == rounds


def test_a_disturbed_comparison_has_a_warning(monkeypatch):
    monkeypatch.setattr(clocks.CpuClock, "is_clean", lambda clock, effort, stamps: False)
    comparison, meeting = meet({"resolution": [2, 4]})
    race(comparison, meeting, device="cpu", budget=0.01)
    assert re.search(r"at 2 of 2 points, another process was busy during (\d+) of \1 runs", comparison.warnings[0])


def test_a_measured_comparison_has_times_ratios_and_crossovers():
    comparison, meeting = meet({"resolution": [2, 4, 8]}, ("vit", "swin", "swin:shift"))
    reported = []
    race(comparison, meeting, device="cpu", budget=1e-6, progress=lambda *words: reported.append(words))
    for point in comparison.points:
        assert point.times.keys() == {"vit", "swin", "swin:shift"}
        for label, ratio in point.measured_ratio.items():
            assert ratio == point.times["vit"].median_s / point.times[label].median_s
        assert all(time.low_s <= time.median_s <= time.high_s for time in point.times.values())
    assert [each.other for each in comparison.time_crossovers] == ["swin", "swin:shift"]
    assert reported[0] == (0, 3, "resolution 2")
    assert reported[-1] == (3, 3, "done")
    assert comparison.environment["threads"] == 1
    plain = json.loads(comparison.to_json())
    assert all(point["measured_interval"].keys() == {"swin", "swin:shift"} for point in plain["points"])
    assert plain["interrupted"] is False


def test_the_time_crossover_is_bisected_over_values_without_padding(monkeypatch):
    comparison, meeting = meet({"resolution": [2, 40]})

    def timed(forwards, budget):
        """Return times: windows cost as much as a 20×20 grid for any grid; global attention grows with the grid."""
        seconds = [side * side if side else 441.0 for side in (_side(module, x) for module, x in forwards)]
        return engine.Turns([[s, s * 1.01, s * 1.02, s, s] for s in seconds], 3, 3, "wall", 1.0, 0.0, 0.0)

    def _side(module, x):
        (tokens,) = x
        return tokens.shape[1] ** 0.5 if tokens.dim() == 3 else None

    monkeypatch.setattr(engine, "time_in_turn", timed)
    monkeypatch.setattr(racing, "LONGEST_RUN_S", 1e9)
    race(comparison, meeting, device="cpu")
    found = comparison.time_crossovers[0]
    assert (found.low, found.high, found.leader) == (20, 22, "swin")
    assert all(value % 2 == 0 for value in found.bisected)
    assert [point.at["resolution"] for point in comparison.bisected] == found.bisected
    assert all(point.measured_ratio for point in comparison.bisected)


def test_points_that_do_not_fit_in_memory_are_reported_and_the_rest_is_timed(monkeypatch):
    from attnscope.profiling import devices as device

    comparison, meeting = meet({"resolution": [4, 16, 8]})
    monkeypatch.setattr(device, "free_memory", lambda device: 400_000)
    race(comparison, meeting, device="cpu", budget=0.001)
    assert [set(point.times) for point in comparison.points] == [{"vit", "swin"}, {"swin"}, {"vit", "swin"}]
    assert [each.at for each in comparison.not_timed] == [{"resolution": 16}]
    assert "global attention needs" in comparison.not_timed[0].reason
    assert comparison.points[1].measured_ratio == {}


def test_contenders_that_are_built_together_must_fit_in_memory_together(monkeypatch):
    from attnscope.profiling import devices as device

    comparison, meeting = meet({"resolution": [16]})
    needs = [needed_bytes(attentions.plan(spec)) for spec in meeting.specs(meeting.place({"resolution": 16})).values()]
    monkeypatch.setattr(device, "free_memory", lambda device: max(needs))
    race(comparison, meeting, device="cpu", budget=0.001)
    assert comparison.points[0].times.keys() == {"vit"}
    assert comparison.not_timed[0].reason.startswith("global attention and swin need ")


def test_the_comparison_continues_after_an_out_of_memory_error(monkeypatch):
    def build(spec, device):
        if spec.input_shape[1] == 64:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(spec, device)

    real = racing.build
    monkeypatch.setattr(racing, "build", build)
    comparison, meeting = meet({"resolution": [4, 8, 6]})
    race(comparison, meeting, device="cpu", budget=0.001)
    assert [bool(point.times) for point in comparison.points] == [True, False, True]
    assert comparison.not_timed[0].reason == "global attention and swin did not fit in the memory of cpu"


def test_a_kernel_that_does_not_run_is_not_timed():
    comparison, meeting = meet({"resolution": [4, 8]}, ("vit:kernel=efficient", "swin"))
    race(comparison, meeting, device="cpu", budget=0.001)
    assert [set(point.times) for point in comparison.points] == [{"swin"}, {"swin"}]
    assert [each.reason for each in comparison.not_timed] == [
        "global attention (kernel efficient) does not run here: torch has no such kernel for this device, dtype and bias"
    ] * 2
    assert comparison.time_crossovers == []


def test_other_errors_are_raised(monkeypatch):
    monkeypatch.setattr(racing, "build", lambda spec, device: torch.zeros(2) @ torch.zeros(3))
    comparison, meeting = meet({"resolution": [4]})
    with pytest.raises(RuntimeError, match="size"):
        race(comparison, meeting, device="cpu")


def test_points_that_would_take_too_long_are_reported(monkeypatch):
    monkeypatch.setattr(racing, "LONGEST_RUN_S", 1e-9)
    comparison, meeting = meet({"resolution": [4, 8]})
    race(comparison, meeting, device="cpu", budget=0.001)
    assert [bool(point.times) for point in comparison.points] == [True, False]
    assert "would take about" in comparison.not_timed[0].reason


def test_a_missing_device_is_an_error_with_the_available_ones():
    comparison, meeting = meet({"resolution": [4]})
    with pytest.raises(DeviceError, match="available: cpu"):
        race(comparison, meeting, device="mps" if not torch.backends.mps.is_available() else "cuda")


INTERRUPTED = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what runs in the background
from attnscope.profiling import process
process.import_torch()
from attnscope.profiling import timing as engine
real, calls = engine.time_in_turn, []

def stopped(*args):
    calls.append(args)
    if len(calls) == 2:
        signal.raise_signal(signal.SIGINT)  # of this thread: it is handled before the next line
    return real(*args)

engine.time_in_turn = stopped
from attnscope.cli import main
sys.argv[0] = "attnscope"
main()
"""


@pytest.mark.skipif(os.name == "nt", reason="a process cannot send SIGINT to itself")
def test_ctrl_c_keeps_the_measured_points():
    words = ["compare", "--dim", "24", "--heads", "2", "--over", "resolution=7,14,21", "--time", "--budget", "0.01"]

    def run(*more):
        return subprocess.run(
            [sys.executable, "-c", INTERRUPTED, *words, "--device", "cpu", *more],
            capture_output=True,
            text=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        )

    done = run("--json")
    plain = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (130, "attnscope: interrupted\n")
    assert plain["interrupted"] is True
    assert ["times" in point for point in plain["points"]] == [True, False, False]
    assert plain["points"][0]["measured_ratio"].keys() == {"swin", "swin:shift"}
    assert [each["low"] for each in plain["time_crossovers"]] == [None, None]
    assert "stopped   by Ctrl-C; the table has all times measured before" in run().stdout


def test_a_progress_bar_is_only_drawn_on_a_terminal(capsys, monkeypatch):
    from attnscope.render.progress import progress_bar

    for terminal, quiet, drawn in [(True, False, True), (True, True, False), (False, False, False)]:
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal)
        with progress_bar(quiet) as progress:
            progress(1, 3, "resolution 14")
        captured = capsys.readouterr()
        assert captured.out == ""
        assert bool(captured.err) == drawn
