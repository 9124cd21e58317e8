"""The times: which runs are kept, what is doubtful, and how two runs compare."""

import json
import sys
from dataclasses import replace

import pytest
import torch

from attnscope import ViTSpec, explore
from attnscope.diff import compare, overlap
from attnscope.doubts import doubts, faults_remedy
from attnscope.errors import UsageError
from attnscope.probes import time as engine
from attnscope.probes.watch import Effort, Watch
from attnscope.report import Time
from attnscope.saved import read_report
from tests.golden import timed

FINE = Time(
    whole_median_s=1.0, whole_iqr_s=0.01, whole_samples_s=[1.0], steps_sum_s=1.0, remainder_s=0.0, runs=20,
    clean_runs=20, stamp_s=0.0, tried=20, cpu_share=1.0, page_faults=0, others=0.0, pressure=0.0,
)  # fmt: skip


class FakeClock(engine.CpuClock):
    """Of which every other pair of runs is disturbed."""

    def __init__(self):
        self.runs = 0

    def is_clean(self, effort):
        self.runs += 1
        return (self.runs - 1) // 2 % 2 == 0


def test_only_clean_pairs_are_kept():
    clock = FakeClock()
    timing = engine.time_pairs(clock, lambda: None, lambda: engine.run(clock, lambda: None, []), 0.01, 0.0)
    assert timing.clean_runs >= engine.FEWEST_PAIRS
    assert len(timing.chains) == len(timing.wholes) == timing.clean_runs < timing.tried
    assert all(run.clean for run in [*timing.chains, *timing.wholes])


@pytest.mark.parametrize(
    ("pairs", "clean", "elapsed", "enough"),
    [
        (4, 4, 9.0, False),
        (20, 20, 0.9, False),
        (20, 5, 1.0, True),
        (20, 4, 1.9, False),
        (20, 4, 2.0, True),
    ],
)
def test_when_measuring_stops(pairs, clean, elapsed, enough):
    """At a budget of a second: once it is spent and five pairs are clean, or twice the budget is spent."""
    assert engine._enough(pairs, clean, elapsed, 1.0) is enough


def test_one_thread_falls_back_to_its_own_time_where_no_run_is_clean(monkeypatch):
    monkeypatch.setattr(engine.CpuClock, "is_clean", lambda clock, effort: False)
    spec = ViTSpec(dim=12, heads=3, tokens=5)
    report = explore(spec, device="cpu", budget=0.01)
    assert report.time.clock == "thread"
    assert report.time.clean_runs == 0
    assert any("seconds of the processor" in warning for warning in report.warnings)
    assert report.time.steps_sum_s > 0


def test_effort_is_what_came_between():
    effort = Effort(3.0, 2.0, 4.0, 7).since(Effort(1.0, 1.0, 1.0, 2))
    assert (effort.wall_s, effort.thread_s, effort.process_s, effort.faults) == (2.0, 1.0, 3.0, 5)
    assert effort.share(1) == 0.5
    assert effort.share(2) == 0.75


def test_a_watch_tells_what_it_can():
    load = Watch().load()
    assert load.others is None or load.others >= 0
    assert load.pressure is None or 0 <= load.pressure <= 1


def test_fine_times_are_not_doubted():
    assert doubts(FINE, 1, 2, "pinned") == []
    assert doubts(FINE, 2, 2, "pinned") == []


@pytest.mark.parametrize(
    ("changed", "threads", "remedy"),
    [
        ({"clean_runs": 2}, 1, "wait for a quieter machine"),
        ({"clean_runs": 0, "clock": "thread"}, 1, "--budget 2"),
        ({"cpu_share": 0.6}, 2, "--threads 1"),
        ({"others": 0.9}, 2, "--threads 1"),
        ({"steps_sum_s": 1.1}, 1, "--budget 2"),
        ({"whole_iqr_s": 0.2}, 1, "--budget 2"),
        ({"whole_iqr_s": 0.2}, 2, "--threads 1"),
        ({"page_faults": 2044.0}, 1, "--alloc pinned"),
    ],
    ids=str,
)
def test_every_doubt_names_its_remedy(changed, threads, remedy):
    (told,) = doubts(replace(FINE, **changed), threads, 2, "default")
    assert remedy in told


def test_what_helps_against_page_faults_depends_on_the_allocator():
    assert faults_remedy("default", is_glibc=True) == "--alloc pinned keeps it"
    assert "glibc's on Linux can" in faults_remedy("default", is_glibc=False)
    assert "LD_PRELOAD" in faults_remedy("pinned", is_glibc=True)


def test_a_gpu_does_not_care_for_the_processor():
    assert doubts(replace(FINE, clean_runs=0, page_faults=9999.0), 1, 2, "default", on_processor=False) == []


def saved(tmp_path, name, report):
    path = tmp_path / name
    path.write_text(report.to_json(), encoding="utf-8")
    return path


def test_a_saved_run_reads_back_the_same(tmp_path):
    report = timed(explore(ViTSpec(), time=False, backward=True))
    assert json.loads(read_report(saved(tmp_path, "a.json", report)).to_json()) == json.loads(report.to_json())


@pytest.mark.parametrize(
    ("text", "said"),
    [("{}", "names no schema"), ("[]", "names no schema"), ("x", "is no JSON"), ('{"schema": 9}', "schema 9"),
     ('{"schema": 1}', "command: field required")],
)  # fmt: skip
def test_a_file_that_is_no_run_is_one_line(tmp_path, text, said):
    path = tmp_path / "no.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=said):
        read_report(path)


def slower(report, by):
    """The same, but each time `by` times as long."""
    time = replace(
        report.time,
        whole_median_s=by * report.time.whole_median_s,
        whole_samples_s=[by * sample for sample in report.time.whole_samples_s],
    )
    return replace(report, time=time)


def test_diff_tells_environment_first_and_what_is_real():
    before = timed(explore(ViTSpec(), time=False))
    after = replace(slower(before, 1.5), environment={**before.environment, "threads": 2, "load": 0.2})
    diff = compare(before, after)
    assert [(change.name, change.before, change.after) for change in diff.environment] == [("threads", 1, 2)]
    assert diff.whole.real
    assert diff.whole.ratio == pytest.approx(1.5)
    assert not any(step.real for step in diff.steps)
    assert diff.costs == diff.spec == []


def test_diff_tells_steps_that_only_one_has():
    diff = compare(explore(ViTSpec(), time=False), explore(ViTSpec(kernel="sdpa"), time=False))
    assert {change.name for change in diff.costs} == {
        "bytes_read",
        "bytes_written",
        "peak_bytes",
        "training_peak_bytes",
        "kept_bytes",
        "score",
        "softmax",
        "mix",
        "attend",
    }
    assert diff.whole.ratio is None


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [([1, 2, 3], [2, 3, 4], True), ([1, 2, 3], [7, 8, 9], False), ([1], [9], True), ([5, 5, 5], [5, 5, 5], True)],
)
def test_spreads_that_overlap_are_no_difference(before, after, same):
    assert overlap(before, after) is overlap(after, before) is same


def test_runs_that_differ_as_processes_do_are_no_difference():
    assert not overlap([1.0, 1.0], [1.015, 1.015])
    assert overlap([1.0, 1.0], [1.015, 1.015], 0.02)
    assert not overlap([1.0, 1.0], [1.025, 1.025], 0.02)
    before = timed(explore(ViTSpec(), time=False))
    assert not compare(before, slower(before, 1.015)).whole.real
    assert compare(before, slower(before, 1.025)).whole.real


def test_diff_repeats_what_made_a_run_doubtful(attnscope, tmp_path):
    before = timed(explore(ViTSpec(), time=False))
    doubtful = replace(before, warnings=["the runs spread by 17%"])
    assert compare(before, doubtful).doubts == [
        *(f"the first run: {warning}" for warning in before.warnings),
        "the second run: the runs spread by 17%",
    ]
    a, b = saved(tmp_path, "a.json", before), saved(tmp_path, "b.json", doubtful)
    assert "the second run: the runs spread by 17%" in attnscope("diff", str(a), str(b)).stdout


def test_fail_above_is_a_gate(attnscope, tmp_path):
    before = timed(explore(ViTSpec(), time=False))
    a, b = saved(tmp_path, "a.json", before), saved(tmp_path, "b.json", slower(before, 1.2))
    assert attnscope("diff", str(a), str(b)).returncode == 0
    failed = attnscope("diff", str(a), str(b), "--fail-above", "1.1")
    assert failed.returncode == 1
    assert failed.stderr == "attnscope: the whole takes 1.200 times as long, which is more than --fail-above 1.1\n"
    assert attnscope("diff", str(a), str(b), "--fail-above", "1.3").returncode == 0
    assert attnscope("diff", str(b), str(a), "--fail-above", "1.1").returncode == 0
    shown = attnscope("diff", str(a), str(b)).stdout
    assert "environment  the same" in shown
    assert "slower" in shown
    assert "no real difference" in shown


def test_save_writes_what_diff_reads(attnscope, tmp_path):
    path = tmp_path / "run.json"
    done = attnscope("vit", "--no-time", "--save", str(path))
    assert done.returncode == 0
    assert "ViT attention" in done.stdout
    assert read_report(path).totals.macs == 524_391_936
    told = attnscope("diff", str(path), str(path), "--fail-above", "1.1")
    assert told.returncode == 2
    assert "needs times in both runs" in told.stderr


def test_environment_says_what_is_needed_to_repeat_a_run():
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


def test_progress_is_told_and_ends_with_all():
    shares = []
    explore(ViTSpec(dim=12, heads=3, tokens=5), device="cpu", budget=0.02, progress=shares.append)
    assert shares
    assert all(0 <= share <= 1 for share in shares)


def test_no_progress_where_nobody_sees_it(capsys):
    from attnscope.cli.progress import progress_line

    assert not sys.stderr.isatty()
    with progress_line("measuring") as progress:
        assert progress is None
    assert capsys.readouterr().err == ""
