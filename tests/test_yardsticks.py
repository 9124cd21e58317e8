"""Yardsticks, which distinguish a slower host from slower code."""

import json
import statistics
from dataclasses import replace
from fractions import Fraction

import pytest
import torch

from attnscope import SwinSpec, ViTSpec, explore
from attnscope.analyses.diff import compare, compare_in_turn
from attnscope.analyses.gate import Limits, gate
from attnscope.profiling import peak_files, peaks, yardsticks
from attnscope.profiling.clocks import Timed
from attnscope.profiling.normalization import Best, at_same_speed, normalize, slowdowns
from attnscope.profiling.timing import take_pairs
from attnscope.profiling.yardsticks import best_of, name_of, yardsticks_of
from attnscope.render.details import host_lines
from attnscope.render.diff import render_diff
from attnscope.render.screen import Screen
from attnscope.render.summary import quality_lines
from attnscope.reports.report import StepTime, Time, Yardstick
from tests.golden import slowed, timed

CPU = torch.device("cpu")
SHARES = {"matmul": 0.75, "softmax": 0.25}
SPEEDS = [1.0, 1.0, 2.0, 2.0, 1.5, 1.0, 1.2, 2.0]
"""Slowdowns of a host in eight rounds."""


def with_yardsticks(report, slow=1.0):
    """Return a report whose host slowed all times down by SPEEDS, on average, and by `slow` in all rounds."""
    found = [
        Yardstick(name, [1e-3 * slow * s for s in SPEEDS], share, 1e-3, "2026-11-26") for name, share in SHARES.items()
    ]
    names = {"project": "matmul", "output": "matmul", "softmax": "softmax"}

    def samples(seconds):
        return [seconds * slow * s for s in SPEEDS]

    steps = [
        replace(
            row,
            time=replace(row.time, samples_s=samples(row.time.interquartile_mean_s), yardstick=names.get(row.name)),
        )
        for row in report.steps
    ]
    time = replace(report.time, whole_samples_s=samples(report.time.whole_interquartile_mean_s), yardsticks=found)
    return replace(report, steps=steps, time=time)


RUN = timed(explore(ViTSpec(), time=False))


def test_a_slowdown_is_the_weighted_mean_of_the_yardsticks():
    found = [Yardstick("matmul", [2e-3, 4e-3], 0.75, 2e-3, ""), Yardstick("softmax", [3e-3, 3e-3], 0.25, 1e-3, "")]
    references = {"matmul": 2e-3, "softmax": 1e-3}
    assert slowdowns(found, SHARES, references) == pytest.approx([0.75 + 0.75, 1.5 + 0.75])
    assert slowdowns(found, {"matmul": 0.3}, references) == pytest.approx([1.0, 2.0])


def test_normalized_times_are_those_at_the_best_speed_of_the_host():
    time = Time(0.3, 0.0, [0.2 * s for s in SPEEDS], 0.2, 0.1, 8, 8, 0.0)
    steps = {0: StepTime(0.15, 0.0, [0.1 * s for s in SPEEDS]), 1: StepTime(0.05, 0.0, [0.05] * 8), 2: time_of_a_view()}
    samples = {"matmul": [4e-3 * s for s in SPEEDS], "softmax": [1e-3 * s for s in SPEEDS]}
    best = {"matmul": Best(2e-3, "2026-11-01"), "softmax": Best(1e-3, "2026-11-26")}
    whole, rows = normalize(time, steps, ["matmul", "softmax", None], [1, 1, 1], samples, best)
    assert {each.name: each.share for each in whole.yardsticks} == pytest.approx(SHARES)
    assert [(each.best_s, each.best_on) for each in whole.yardsticks] == [tuple(each) for each in best.values()]
    assert whole.normalized_s == pytest.approx(0.2 / (0.75 * 2 + 0.25))
    assert whole.host_speed == pytest.approx(1 / (1.75 * 1.35))
    assert (rows[0].normalized_s, rows[0].yardstick) == (pytest.approx(0.05), "matmul")
    assert rows[2] == steps[2]
    assert whole.whole_samples_s == time.whole_samples_s


def time_of_a_view():
    return StepTime(1e-6, 0.0, [1e-6] * 8)


def test_a_slower_host_is_not_slower_code():
    before, after = with_yardsticks(RUN), with_yardsticks(RUN, slow=1.4)
    diff = compare(before, after)
    assert diff.whole.verdict == "equal"
    assert diff.whole.normalized_ratio == pytest.approx(1.0)
    rows = {row.name: row for row in diff.steps}
    assert rows["project"].normalized_ratio == rows["softmax"].normalized_ratio == pytest.approx(1.0)
    assert rows["merge_heads"].normalized_ratio is None
    assert gate(diff, before, after, Limits({"time": Fraction("1.1")})).verdict == "PASS"
    table = render_diff(diff, ("a", "b"), "table", Screen(width=100, color=False))
    assert "same host speed" in table


def test_slower_code_is_slower_on_any_host():
    before, after = with_yardsticks(RUN), with_yardsticks(slowed(RUN, forward=1.4), slow=0.7)
    diff = compare(before, after)
    assert diff.whole.verdict == "slower"
    assert diff.whole.normalized_ratio == pytest.approx(1.4)
    found = gate(diff, before, after, Limits({"time": Fraction("1.1")}))
    assert (found.verdict, "1.40× the time at the same host speed" in found.line) == ("FAIL", True)


def test_only_runs_of_one_machine_with_yardsticks_are_normalized():
    run = with_yardsticks(RUN)
    elsewhere = replace(run, environment={**run.environment, "cpu": "another"})
    old = replace(run, time=replace(run.time, yardsticks=[]))
    others = replace(run, time=replace(run.time, yardsticks=[replace(run.time.yardsticks[0], name="other")]))
    for other in (elsewhere, old, others):
        diff = compare(run, other)
        assert {row.normalized_ratio for row in diff.timed} == {None}
        assert diff.whole.interval.high == diff.whole.ratio_high


def test_pairs_that_have_yardsticks_decide_for_those_that_have_none():
    """The host slows down within each pair. One process was timed by another clock, as happens on a busy machine."""
    run, later = with_yardsticks(RUN), with_yardsticks(RUN, slow=1.4)
    by_thread = replace(later, time=replace(later.time, clock="thread"))
    diff = compare_in_turn([(run, later)] * 5 + [(run, by_thread)])
    assert (diff.whole.verdict, diff.whole.normalized_ratio) == ("equal", pytest.approx(1.0))
    diff = compare_in_turn([(run, later)] * 4 + [(run, by_thread)] * 2)
    assert diff.whole.normalized_interval is None


def test_runs_of_several_processes_are_compared_process_by_process():
    """The two smallest and the two largest of the 25 ratios are left out, and 2% is added at each end."""
    factors = (0.97, 1.02, 1.0, 0.98, 1.03)
    before, after = (
        merged([with_yardsticks(slowed(RUN, forward=code * factor, steps=["softmax"])) for factor in factors])
        for code in (1.0, 1.2)
    )
    diff = compare(before, after)
    ratios = sorted(1.2 * one / other for one in factors for other in factors)
    assert (diff.whole.verdict, diff.whole.normalized_ratio) == ("slower", pytest.approx(1.2))
    assert diff.whole.normalized_low == pytest.approx(0.98 * ratios[2], rel=1e-3)
    assert diff.whole.normalized_high == pytest.approx(1.02 * ratios[-3], rel=1e-3)
    softmax = next(row for row in diff.steps if row.name == "softmax")
    assert softmax.normalized_ratio == pytest.approx(1.2)
    alone = compare(*(replace(run, time=replace(run.time, process_runs=[])) for run in (before, after)))
    assert alone.whole.normalized_low < diff.whole.normalized_low < diff.whole.normalized_high


def merged(reports):
    """Return the report of several processes, each with the samples of one of these reports."""
    first, times = reports[0], [report.time for report in reports]
    yardsticks = [
        replace(own[0], samples_s=[sample for each in own for sample in each.samples_s])
        for own in zip(*(time.yardsticks for time in times), strict=True)
    ]
    time = replace(
        first.time,
        whole_samples_s=[sample for each in times for sample in each.whole_samples_s],
        yardsticks=yardsticks,
        process_runs=[len(each.whole_samples_s) for each in times],
    )
    steps = [
        replace(rows[0], time=replace(rows[0].time, samples_s=[s for row in rows for s in row.time.samples_s]))
        for rows in zip(*(report.steps for report in reports), strict=True)
    ]
    return replace(first, steps=steps, time=time)


def test_both_runs_have_the_weights_and_the_references_of_one_host():
    """Weights of their own would make the host look slower where a step became slower."""
    ours = [Yardstick("matmul", [1.0] * 5, 0.5, 1.0, ""), Yardstick("softmax", [1.0] * 5, 0.5, 1.0, "")]
    others = [Yardstick("matmul", [2.0] * 5, 0.9, 1.0, ""), Yardstick("softmax", [1.0] * 5, 0.1, 1.0, "")]
    before, after = at_same_speed(ours, others)
    assert before["whole"] == [1.0] * 5
    assert after["whole"] == pytest.approx([0.7 * 2 + 0.3] * 5)
    assert after["matmul"] == [2.0] * 5


def test_each_step_that_works_has_a_yardstick_of_its_kind():
    found = {step.name: name_of(step) for step in SwinSpec(shift=True).plan().steps}
    assert found["project"] == found["output"] == "matmul"
    assert found["score"] == found["mix"] == "batched matmul"
    assert (found["softmax"], found["split_heads"]) == ("softmax", None)
    assert found["shift"] == "copy of 1.5 MiB"
    assert {name_of(step) for step in ViTSpec(kernel="sdpa").plan().steps} >= {"batched matmul"}
    large = {name_of(step) for step in SwinSpec(shift=True, batch=64).plan().steps}
    assert "copy of 24 MiB" in large
    assert "copy of 1.5 MiB" not in large


def test_yardsticks_are_interleaved_with_the_forward():
    calls = yardsticks_of(ViTSpec().plan().steps, CPU, 1)
    assert set(calls) == {"matmul", "batched matmul", "softmax", "copy of 1.5 MiB"}
    assert all(len(call().seconds) == len(call().seconds) == 1 for call in calls.values())
    now = iter(range(10**6))
    order = []

    def named(name, clean=True):
        def run():
            order.append(name)
            return Timed([1e-3], clean)

        return run

    pairs = take_pairs(
        named("whole"), named("chain"), 30, 0.0, yardsticks={"matmul": named("matmul", False)}, now=lambda: next(now)
    )
    rounds = [order[index : index + 3] for index in range(0, len(order), 3)]
    assert all(sorted(each) == ["chain", "matmul", "whole"] for each in rounds)
    assert len(pairs.yardsticks["matmul"]) == len(pairs.wholes)
    assert pairs.clean_runs == pairs.tried  # a disturbed yardstick does not make a pair unclean


def test_the_best_speed_is_remembered_with_its_date_beside_the_peaks(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = peaks.cache_path(CPU, torch.float32, 1)

    def best(*samples, day):
        monkeypatch.setattr(yardsticks, "today", lambda: day)
        return best_of({"matmul": list(samples)}, CPU, torch.float32, 1)["matmul"]

    assert best(3.0, 3.0, 3.0, 3.0, 9.0, day="2026-01-01") == (3.0, "2026-01-01")
    peak_files.update_cache(path, {"threads": 1})
    assert best(5.0, 5.0, 5.0, 5.0, 5.0, day="2026-01-02") == (3.0, "2026-01-01")
    assert best(2.0, 2.0, 2.0, day="2026-01-03") == (2.0, "2026-01-03")  # too few runs to be remembered
    assert best(4.0, 4.0, 4.0, 4.0, 4.0, day="2026-01-04") == (3.0, "2026-01-01")
    assert best(2.5, 2.5, 2.5, 2.5, 2.5, day="2026-01-05") == (2.5, "2026-01-05")
    assert json.loads(path.read_text()) == {"yardsticks": {"matmul": [2.5, "2026-01-05"]}, "threads": 1}
    for damaged in ([], {"matmul": 1}, {"matmul": [-1.0, "x"]}, {"matmul": ["x", 1]}):
        peak_files.update_cache(path, {"yardsticks": damaged})
        assert best(9.0, day="2026-01-06") == (9.0, "2026-01-06")


def test_peaks_and_yardsticks_keep_their_entries_of_one_file(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = peaks.cache_path(CPU, torch.float32, 1)
    best_of({"matmul": [1.0] * 5}, CPU, torch.float32, 1)
    known = peaks.peaks_of(CPU, torch.float32, 1)
    assert peak_files.read_cache(path)["yardsticks"]["matmul"][0] == 1.0
    best_of({"matmul": [0.5] * 5}, CPU, torch.float32, 1)
    assert peaks.peaks_of(CPU, torch.float32, 1) == known == peak_files.read_peaks(path)


def test_peaks_keep_the_yardstick_of_the_run_that_needed_them(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    report = explore(ViTSpec(image=16, patch=4, dim=24, heads=2), budget=0.1, threads=1)
    (matmul,) = [each for each in report.time.yardsticks if each.name == "matmul"]
    kept = peak_files.read_peaks(peaks.cache_path(CPU, torch.float32, 1))
    assert kept.yardstick_s == statistics.median(matmul.samples_s)


def test_a_run_shows_how_fast_the_host_was():
    time = replace(with_yardsticks(RUN).time, normalized_s=9e-3, host_speed=0.741)
    report = replace(with_yardsticks(RUN), time=time, noise=[], warnings=[])
    ((_, line, _),) = quality_lines(report)
    assert line == "steady ±1% (60 runs, 1 thread); host at 74% of its best (9.00 ms)"
    first, second = host_lines(report)
    assert first == "normalized to its best speed, whole 9.00 ms, measured 10.7 ms; speed over best 0.74"
    assert second == "by yardstick: matmul 0.74, softmax 0.74; best of 2026-11-26"
    at_best = replace(report, time=replace(time, host_speed=0.997))
    assert "host" not in quality_lines(at_best)[0][1]
    assert host_lines(RUN) == []


def test_a_run_stores_its_yardsticks():
    report = explore(ViTSpec(dim=12, heads=3, tokens=5), device="cpu", budget=0.02, backward=True)
    for time in (report.time, report.backward.time):
        assert {each.name for each in time.yardsticks} == {"matmul", "batched matmul", "softmax", "copy of 1.5 MiB"}
        assert all(len(each.samples_s) == time.runs for each in time.yardsticks)
        assert sum(each.share for each in time.yardsticks) == pytest.approx(1.0)
        assert time.normalized_s > 0
    assert all((row.time.normalized_s is None) == (row.time.yardstick is None) for row in report.steps)
    assert any(row.time.normalized_s for row in report.steps)
