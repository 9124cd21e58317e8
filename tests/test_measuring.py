"""Timing: clean runs, warnings about noisy times, and progress."""

import sys
from dataclasses import replace

import pytest
import torch

from attnscope import SwinSpec, ViTSpec, explore
from attnscope.profiling import clocks
from attnscope.profiling import timing as engine
from attnscope.profiling.noise import doubts, faults_remedy
from attnscope.reports.report import Time

FINE = Time(
    whole_interquartile_mean_s=1.0, whole_iqr_s=0.01, whole_samples_s=[1.0], steps_sum_s=1.0, remainder_s=0.0, runs=20,
    clean_runs=20, stamp_s=0.0, tried=20, cpu_share=1.0, page_faults=0, others=0.0, pressure=0.0,
)  # fmt: skip


@pytest.mark.parametrize(
    ("pairs", "clean", "elapsed", "enough"),
    [
        (6, 6, 9.0, False),
        (7, 7, 0.9, False),
        (7, 7, 1.0, True),
        (20, 4, 1.9, False),
        (20, 4, 2.0, True),
        (4, 4, 11.0, False),
        (5, 5, 11.0, True),
        (5, 0, 11.0, True),
    ],
)
def test_measuring_stops_if_the_budget_is_spent_and_enough_runs_are_clean(pairs, clean, elapsed, enough):
    """The budget is 1 s.

    Once it is spent, measuring stops with seven pairs of which five are clean, or after twice the budget. If five pairs
    take ten times the budget, it stops with five.
    """
    assert engine._enough(pairs, clean, elapsed, 1.0) is enough


def test_one_thread_falls_back_to_thread_time_if_no_run_is_clean(monkeypatch):
    monkeypatch.setattr(clocks.CpuClock, "is_clean", lambda clock, effort, stamps: False)
    spec = ViTSpec(dim=12, heads=3, tokens=5)
    report = explore(spec, device="cpu", budget=0.01)
    assert report.time.clock == "thread"
    assert report.time.clean_runs == 0
    assert any("(times are CPU seconds)" in warning for warning in report.warnings)
    assert report.time.steps_sum_s > 0


def test_times_without_noise_have_no_warning():
    assert doubts(FINE, 1, "cpu", 2, "pinned") == []
    assert doubts(FINE, 2, "cpu", 2, "pinned") == []


@pytest.mark.parametrize(
    ("changed", "threads", "remedy"),
    [
        ({"clean_runs": 2}, 1, "another process was busy during 18 of 20 runs; close it"),
        ({"clean_runs": 0, "clock": "thread"}, 1, "a longer --budget"),
        ({"cpu_share": 0.6}, 2, "--threads 1"),
        ({"others": 0.9}, 2, "--threads 1"),
        ({"pressure": 0.5}, 2, "--threads 1"),
        ({"steps_sum_s": 1.1}, 1, "a longer --budget"),
        ({"whole_iqr_s": 0.2}, 1, "a longer --budget"),
        ({"whole_iqr_s": 0.2}, 2, "--threads 1"),
        ({"page_faults": 2044.0}, 1, "--alloc pinned"),
    ],
    ids=str,
)
def test_each_warning_names_its_remedy(changed, threads, remedy):
    (warning,) = doubts(replace(FINE, **changed), threads, "cpu", 2, "default")
    assert remedy in warning


def test_symptoms_of_a_known_cause_are_one_warning_without_a_fix():
    time = replace(FINE, cpu_share=0.6, steps_sum_s=0.9, whole_iqr_s=0.3)  # the whole takes 1.0 s
    cause, symptoms = doubts(time, 2, "cpu", 2, "pinned")
    assert cause.count("--threads 1") == 1
    assert "--budget" not in cause + symptoms
    assert symptoms == (
        "as a result, the steps sum to 0.90× the whole and the interquartile range of the runs is 30% of their mean"
    )


def test_the_remedy_for_page_faults_depends_on_the_allocator():
    assert faults_remedy("default", is_glibc=True) == "use --alloc pinned to keep it"
    assert "Linux with glibc can" in faults_remedy("default", is_glibc=False)
    assert "LD_PRELOAD" in faults_remedy("pinned", is_glibc=True)


def test_cpu_noise_gives_no_warning_on_a_gpu_unless_launches_are_late():
    assert doubts(replace(FINE, others=2.0, cpu_share=0.1, page_faults=9999.0), 2, "cuda", 2, "default") == []
    cause, symptoms = doubts(replace(FINE, clean_runs=2, steps_sum_s=7.0, whole_iqr_s=1.0), 1, "cuda", 2, "default")
    assert "times may include kernel launches" in cause
    assert symptoms.startswith("as a result, ")


def test_the_overhead_of_a_timestamp_is_measured_in_clean_runs():
    """Every other run is not clean: the CPU launches too slowly."""

    class Starting(clocks.CpuClock):
        runs = 0

        def prepare(self):
            self.runs += 1

        def is_clean(self, effort, stamps):
            return self.runs % 2 == 0

        def seconds(self, stamps):
            return [3e-6 if self.runs % 2 == 0 else 1.0] * (len(stamps) - 1)

    assert clocks.stamp_seconds(Starting(), lambda: None) == pytest.approx(3e-6)


def test_steps_that_synchronize_may_exceed_the_whole():
    assert doubts(replace(FINE, steps_sum_s=1.8), 1, "mps", 2, "default") == []


def test_the_environment_has_what_is_needed_to_reproduce_a_run():
    report = explore(ViTSpec(dim=12, heads=3, tokens=5), device="cpu", budget=0.01, seed=7)
    env = report.environment
    assert env["seed"] == 7
    assert env["denormals"] in ("kept", "flushed")
    assert env["torch"] == torch.__version__
    assert {
        "attnscope",
        "python",
        "device_name",
        "cpu",
        "driver",
        "toolkit",
        "cpu_capability",
        "threads",
        "cores",
        "allocator",
        "load",
    } <= env.keys()


def test_progress_names_each_measurement_and_ends_at_one():
    reported = {}
    spec = SwinSpec(dim=12, resolution=14)
    explore(
        spec, device="cpu", budget=0.02, backward=True,
        progress=lambda what, share: reported.setdefault(what, []).append(share),
    )  # fmt: skip
    assert list(reported) == ["the steps", "the backward", "global attention"]
    for shares in reported.values():
        assert (shares[0], shares[-1]) == (0, 1)
        assert all(0 <= share <= 1 for share in shares)


def test_progress_is_hidden_on_a_terminal_that_cannot_clear_a_line(monkeypatch, capsys):
    from attnscope.cli.progress import progress_line

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for terminal, shown in [("dumb", False), ("xterm", True)]:
        monkeypatch.setenv("TERM", terminal)
        with progress_line() as progress, progress_line(quiet=True) as hidden:
            assert (progress is not None) is shown
            assert hidden is None


def test_progress_is_hidden_without_a_terminal(capsys):
    from attnscope.cli.progress import progress_line

    assert not sys.stderr.isatty()
    with progress_line() as progress:
        assert progress is None
    assert capsys.readouterr().err == ""
