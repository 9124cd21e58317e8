"""Comparisons of two saved runs: reading, differences, and `--fail-above`."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from attnscope import SwinNetworkSpec, ViTSpec, explore, trace
from attnscope.analyses.diff import STEP_COSTS, compare
from attnscope.core.errors import UsageError
from attnscope.profiling.statistics import Samples
from attnscope.render.diff import QUANTITIES, finding, render_diff
from attnscope.render.screen import Screen
from attnscope.reports.loading import read_report
from attnscope.reports.report import KernelRow
from tests.golden import slowed, timed

OLD_RUN = Path(__file__).parent / "saved" / "0.1.0.json"
"""A run that attnscope 0.1.0 saved: `attnscope vit --batch 4 --backward --budget 0.05 --save 0.1.0.json`."""
NETWORK = SwinNetworkSpec(dim=12, heads=3, depths=(4,), image=(32, 32), window=(4, 4), stage=1)


def saved(tmp_path, name, report):
    path = tmp_path / name
    path.write_text(report.to_json(), encoding="utf-8")
    return path


def test_a_saved_run_reads_back_the_same(tmp_path):
    report = timed(explore(ViTSpec(), time=False, backward=True))
    assert json.loads(read_report(saved(tmp_path, "a.json", report)).to_json()) == json.loads(report.to_json())


def test_a_run_of_0_1_is_read_with_the_new_names():
    data = json.loads(OLD_RUN.read_text(encoding="utf-8"))
    report = read_report(OLD_RUN)
    assert "interquartile_mean_s" not in OLD_RUN.read_text(encoding="utf-8")
    assert report.time.whole_interquartile_mean_s == report.time.whole_median_s == data["time"]["whole_median_s"]
    backward = data["backward"]["time"]["whole_median_s"]
    assert report.backward.time.whole_interquartile_mean_s == backward
    for row, old in zip(report.steps, data["steps"], strict=True):
        assert row.time.interquartile_mean_s == row.time.median_s == old["time"]["median_s"]
        if old["backward"]["time"]:
            assert row.backward.time.interquartile_mean_s == old["backward"]["time"]["median_s"]


def test_a_run_of_0_1_is_compared_with_a_new_run(attnscope, tmp_path):
    old = read_report(OLD_RUN)
    assert compare(old, old).timed
    assert not any(change.real for change in compare(old, old).timed)
    assert compare(old, slowed(old, forward=3.0)).whole.real
    today = str(saved(tmp_path, "today.json", timed(explore(ViTSpec(batch=4), time=False, backward=True))))
    done = attnscope("diff", str(OLD_RUN), today)
    assert (done.returncode, done.stderr) == (0, "")
    assert "softmax" in done.stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [("{}", "has no schema"), ("[]", "has no schema"), ("x", "is not valid JSON"), ('{"schema": 9}', "schema 9"),
     ('{"schema": 1}', "command: field required"), ('{"schema": NaN}', "is not valid JSON"),
     ("[" * 100_000, "is not valid JSON"), ('{"schema": 1, "x": 1e999}', "between 1e-100 and 1e\\+100 \\(got 1e999\\)"),
     ('{"schema": 1, "x": -1e308}', "between 1e-100"), ('{"schema": 1, "x": 5e-324}', "between 1e-100"),
     (f'{{"schema": 1, "x": {"9" * 101}}}', "between 1e-100"),
     (f'{{"schema": 1, "x": {"[" * 900}{"]" * 900}}}', "over 32 levels"),
     (f'{{"schema": "{"9" * 1000}"}}', f'got schema "{"9" * 99}\\.\\.\\.\\)'),
     ('{"schema": "1"}', 'must have schema 1 \\(got schema "1"\\)'), ('{"schema": null}', "got schema null")],
)  # fmt: skip
def test_a_file_without_a_run_raises_a_usage_error(tmp_path, text, message):
    path = tmp_path / "no.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_report(path)


@pytest.mark.parametrize("name", ["", "macs", "a macs", " times"])
def test_a_step_of_one_run_may_have_the_name_of_a_count(name):
    run = explore(ViTSpec(), time=False)
    other = replace(run, steps=[replace(run.steps[0], name=name), *run.steps[1:]])
    for form in ("table", "md", "csv", "json"):
        assert render_diff(compare(run, other), ("a", "b"), form, Screen(width=None))


@pytest.mark.parametrize("load", ["high", [1], {"a": 1}, True])
def test_a_load_of_another_type_is_a_change(load):
    run = timed(explore(ViTSpec(), time=False))
    other = replace(run, environment={**run.environment, "load": load})
    changes = compare(run, other).environment
    assert [change.after for change in changes if change.name == "load"] == [load]


@pytest.mark.parametrize("second", [0.0, -1.0])
def test_a_forward_without_duration_is_refused(tmp_path, second):
    run = timed(explore(ViTSpec(), time=False))
    path = tmp_path / "run.json"
    for samples in ({"whole_interquartile_mean_s": second}, {"whole_samples_s": [1.0, second]}):
        path.write_text(replace(run, time=replace(run.time, **samples)).to_json())
        with pytest.raises(UsageError, match="times of the whole must be above 0"):
            read_report(path)


def test_a_trace_cannot_be_compared(tmp_path):
    path = tmp_path / "trace.json"
    path.write_text(trace(nn.Linear(3, 3), torch.zeros(2, 3)).to_json())
    with pytest.raises(UsageError, match=r"is a trace of a module; only runs of .*; compare modules with .* --against"):
        read_report(path)


def test_diff_has_environment_changes_and_marks_real_differences():
    before = timed(explore(ViTSpec(), time=False))
    after = replace(slowed(before, forward=1.5), environment={**before.environment, "threads": 2, "load": 0.2})
    diff = compare(before, after)
    assert [(change.name, change.before, change.after) for change in diff.environment] == [("threads", 1, 2)]
    assert diff.whole.real
    assert diff.whole.ratio == pytest.approx(1.5)
    assert not any(step.real for step in diff.steps)
    assert diff.costs == diff.spec == []


def test_diff_lists_steps_that_only_one_run_has():
    diff = compare(explore(ViTSpec(), time=False), explore(ViTSpec(kernel="sdpa"), time=False))
    of_steps = [name for name in (change.name for change in diff.costs) if " " in name]
    assert of_steps
    assert {name.split()[0] for name in of_steps} == {"merge_heads", "output"}  # their input comes from another kernel
    assert {change.name for change in diff.costs} - set(of_steps) == {
        "bytes_read",
        "bytes_written",
        "peak_bytes",
        "training_peak_bytes",
        "backward_peak_bytes",
        "kept_bytes",
        "score",
        "softmax",
        "mix",
        "attend",
    }
    assert diff.whole.ratio is None


def test_the_variation_between_processes_is_not_a_difference():
    before = timed(explore(ViTSpec(), time=False))
    assert compare(before, slowed(before, forward=1.015)).whole.verdict == "equal"
    assert compare(before, slowed(before, forward=1.025)).whole.verdict == "slower"
    assert compare(slowed(before, forward=1.025), before).whole.verdict == "faster"


def test_close_times_with_a_small_spread_are_not_a_difference():
    """The mean over the middle half of the runs can be outside the middle half of one step's samples."""
    before = timed(explore(ViTSpec(), time=False))
    after = timed(explore(ViTSpec(), time=False))
    time = after.steps[0].time
    doubled = replace(time, samples_s=[2 * sample for sample in time.samples_s])
    after.steps[0] = replace(after.steps[0], time=doubled)
    assert not compare(before, after).steps[0].real


def both_ways(spec=NETWORK, **options):
    """Return a run with artificial times of forward and backward."""
    return timed(explore(spec, time=False, backward=True, **options))


def test_a_difference_within_the_error_of_a_step_is_not_real():
    """Steps and whole disagree by 20 µs in the forward, so each step may be off by that much."""
    before = timed(explore(ViTSpec(), time=False, backward=True))
    before = replace(before, time=replace(before.time, remainder_s=-2e-5))
    after = slowed(before, forward=1.5, backward=2.0, steps=("softmax", "merge_heads", "project"))
    for diff in (compare(before, after), compare(after, before)):
        assert {step.name for step in diff.steps if step.real} == {"merge_heads", "project"}
        assert [step.name for step in diff.steps if step.within_error] == ["softmax"]
        assert {step.name for step in diff.backward_steps if step.real} == {"softmax", "merge_heads", "project"}
        screen = render_diff(diff, ("a", "b"), "table", Screen())
        assert "softmax" not in lines_below(screen, "time")
        short = {step.name for step in diff.steps if step.verdict == "cannot tell"}
        assert short <= {step.name for step in diff.steps if step.before_s < 1e-4}
        assert diff.whole.real
        assert not diff.whole.within_error
    on_mps = [replace(run, environment={**run.environment, "device": "mps"}) for run in (before, after)]
    assert [step.name for step in compare(*on_mps).steps if step.real] == ["project", "softmax", "merge_heads"]


def test_the_backward_is_compared_step_by_step():
    diff = compare(both_ways(), slowed(both_ways(), backward=1.9, steps=("score",)))
    assert not diff.whole.real
    assert diff.backward.real
    assert diff.backward.ratio == pytest.approx(1.9)
    slower = {step.name for step in diff.backward_steps if step.real}
    assert slower == {step.name for step in diff.backward_steps if step.name.endswith("attn.score")}
    assert not any(step.real for step in diff.steps)
    assert diff.slower(1.1) == ["the backward takes 1.900 times as long"]
    assert diff.slower(2.0) == []


def test_a_row_of_identical_blocks_has_their_total_time():
    run = both_ways()
    steps = {step.name: step for step in compare(run, run).steps}
    for row in run.steps:
        step = steps[f"{row.path}.{row.name}"]
        assert step.times == row.times
        assert step.before_s == pytest.approx(row.times * row.time.interquartile_mean_s)
    assert sum(step.before_s for step in steps.values()) == pytest.approx(run.time.steps_sum_s)


def test_a_deeper_network_is_a_difference_in_costs():
    diff = compare(both_ways(), both_ways(replace(NETWORK, depths=(8,))))
    assert ("blocks.0.attn.score times", 2, 4) in [(one.name, one.before, one.after) for one in diff.costs]
    (score,) = (step for step in diff.steps if step.name == "blocks.0.attn.score")
    assert (score.times, score.real) == (None, True)
    assert score.ratio == pytest.approx(2)


def test_kernels_are_compared_by_their_spread():
    before, after = both_ways(), both_ways()
    kernels = [KernelRow("eager", 1.0, 0.2, None, None), KernelRow("sdpa", 1.0, 0.02, None, None)]
    others = [KernelRow("flash", 1.0, 0.02, None, None), KernelRow("flex", None, None, None, "not here")]
    before = replace(before, kernels=kernels + others)
    after = replace(after, kernels=[replace(kernel, time_s=1.1) for kernel in kernels])
    found = {kernel.name: (kernel.real, kernel.after_s) for kernel in compare(before, after).kernels}
    assert found == {"eager": (False, 1.1), "sdpa": (True, 1.1), "flash": (False, None)}


def test_a_change_of_the_bytes_of_a_step_is_a_difference_in_costs():
    before, after = both_ways(), both_ways()
    after.steps[0] = replace(before.steps[0], bytes_live=7, bytes_saved=8, bytes_training=None)
    place = f"{before.steps[0].path}.{before.steps[0].name}"
    assert [(change.name, change.after) for change in compare(before, after).costs] == [
        (f"{place} bytes_live", 7),
        (f"{place} bytes_saved", 8),
    ]  # a value that one run does not have is not a change


def test_a_backward_that_only_one_run_has_is_reported(attnscope, tmp_path):
    with_it, without = both_ways(), timed(explore(NETWORK, time=False))
    diff = compare(with_it, without)
    assert ("backward", "with the input's gradient", None) in [(c.name, c.before, c.after) for c in diff.spec]
    assert (diff.backward.after_s, diff.backward.real, diff.backward.ratio) == (None, False, None)
    done = attnscope("diff", *(str(saved(tmp_path, f"{i}.json", run)) for i, run in enumerate((with_it, without))))
    (line,) = (line for line in done.stdout.splitlines() if line.startswith(" backward  "))
    assert "only in the first run" in line
    gate = attnscope("diff", str(tmp_path / "0.json"), str(tmp_path / "1.json"), "--fail-above", "1.1")
    assert gate.returncode == 4
    assert last_line(gate).startswith("CANNOT TELL: only the first run has times of the backward")
    without_gradient = both_ways(input_grad=False)
    assert [change.name for change in compare(with_it, without_gradient).spec] == ["backward"]


def test_a_different_clock_is_a_change_of_the_environment():
    before, after = both_ways(), both_ways()
    backward = replace(after.backward, time=replace(after.backward.time, clock="thread"))
    after = replace(after, time=replace(after.time, clock="thread"), backward=backward)
    assert [(c.name, c.before, c.after) for c in compare(before, after).environment] == [
        ("clock", "wall", "thread"),
        ("backward clock", "wall", "thread"),
    ]


def test_runs_without_times_have_no_table(attnscope, tmp_path):
    path = str(saved(tmp_path, "a.json", explore(ViTSpec(), time=False, backward=True)))
    shown = attnscope("diff", path, path).stdout
    assert shown.splitlines()[2:] == [" result  both files contain the same run"]


def test_a_run_without_newer_fields_is_read(attnscope, tmp_path):
    """The file is from before backward, kernels and memory in training were added."""
    run = timed(explore(ViTSpec(), time=False))
    plain = run.to_dict()
    for key in ("backward", "kernels", "peaks", "parts", "published", "focus", "parameter_bytes"):
        del plain[key]
    for row in plain["steps"]:
        for key in ("backward", "bound", "bytes_training", "bytes_backward", "bytes_allocated", "part", "stage"):
            del row[key]
    for key in ("training_peak_bytes", "kept_bytes", "backward_peak_bytes"):
        del plain["totals"][key]
    old = tmp_path / "old.json"
    old.write_text(json.dumps(plain), encoding="utf-8")
    diff = compare(read_report(old), run)
    assert {change.name for change in diff.costs} == {"training_peak_bytes", "kept_bytes", "backward_peak_bytes"}
    assert not any(change.real for change in diff.timed)
    assert attnscope("diff", str(old), str(saved(tmp_path, "new.json", run)), "--fail-above", "1.1").returncode == 0


def test_diff_repeats_the_warnings_of_the_runs(attnscope, tmp_path):
    before = timed(explore(ViTSpec(), time=False))
    noisy = replace(before, warnings=["the runs spread by 17%"])
    assert compare(before, noisy).doubts == [
        *(f"the first run: {warning}" for warning in before.warnings),
        "the second run: the runs spread by 17%",
    ]
    a, b = saved(tmp_path, "a.json", before), saved(tmp_path, "b.json", noisy)
    assert "the second run: the runs spread by 17%" in attnscope("diff", str(a), str(b)).stdout


def last_line(done):
    """Return the last line of a table, which has the verdict of the gate."""
    assert done.stderr == ""
    return done.stdout.splitlines()[-1]


def spread(report, factor, width):
    """Return the report with whole samples around `factor` times the time, from 1/width to width times as long."""
    time = report.time
    center = factor * time.whole_interquartile_mean_s
    samples = [center * width ** (2 * ((7 * i) % 20) / 19 - 1) for i in range(20)]
    found = Samples(samples)
    return replace(
        report,
        time=replace(
            time,
            whole_interquartile_mean_s=found.interquartile_mean_s,
            whole_iqr_s=found.iqr_s,
            whole_samples_s=samples,
        ),
    )


def test_fail_above_exits_with_1_if_a_run_is_slower(attnscope, tmp_path):
    before = timed(explore(ViTSpec(), time=False))
    a, b = saved(tmp_path, "a.json", before), saved(tmp_path, "b.json", slowed(before, forward=1.2))
    assert attnscope("diff", str(a), str(b)).returncode == 0
    failed = attnscope("diff", str(a), str(b), "--fail-above", "1.1")
    assert failed.returncode == 1
    assert last_line(failed).startswith("FAIL: forward takes 1.20× the time (1.18 to 1.23; runs of two processes")
    assert last_line(failed).endswith("above 1.1×")
    passed = attnscope("diff", str(a), str(b), "--fail-above", "time=1.3")
    assert passed.returncode == 0
    assert last_line(passed).startswith("PASS: forward takes 1.20×")
    assert attnscope("diff", str(b), str(a), "--fail-above", "1.1").returncode == 0
    back = saved(tmp_path, "c.json", slowed(both_ways(ViTSpec()), backward=1.2))
    a = saved(tmp_path, "a.json", both_ways(ViTSpec()))
    failed = attnscope("diff", str(a), str(back), "--fail-above", "1.1")
    assert failed.returncode == 1
    assert last_line(failed).startswith("FAIL: backward takes 1.20×")
    shown = attnscope("diff", str(a), str(b)).stdout
    assert "environment" not in shown
    assert "slower" in shown
    assert "times without a real difference" in shown  # the steps


def test_fail_above_cannot_decide_on_widened_samples(attnscope, tmp_path):
    """The times differ by 1.6, which looked like no real difference since the samples overlap."""
    before = timed(explore(ViTSpec(), time=False))
    wide = spread(before, 1.6, 3.0)
    assert compare(before, wide).whole.ratio > 1.5
    paths = [str(saved(tmp_path, f"{i}.json", run)) for i, run in enumerate((before, wide))]
    for pair in (paths, paths[::-1]):
        done = attnscope("diff", *pair, "--fail-above", "1.1")
        assert done.returncode == 4
        assert last_line(done).startswith("CANNOT TELL: forward takes ")
        assert "use a longer --budget" not in last_line(done)
        assert last_line(done).endswith("compare them with --rerun, or repeat both runs with --processes 5 or more")
    for choice, code in {"pass": 0, "fail": 1}.items():
        assert attnscope("diff", *paths, "--fail-above", "1.1", "--cannot-tell", choice).returncode == code
    wrong = attnscope("diff", *paths, "--fail-above", "1.1", "--cannot-tell", "maybe")
    assert (wrong.returncode, wrong.stderr) == (2, "attnscope: --cannot-tell must be pass or fail (got maybe)\n")


def test_fail_above_needs_five_runs(attnscope, tmp_path):
    run = timed(explore(ViTSpec(), time=False))
    for count, code in {4: 4, 5: 0}.items():
        few = replace(run, time=replace(run.time, whole_samples_s=run.time.whole_samples_s[:count]))
        path = str(saved(tmp_path, "few.json", few))
        assert attnscope("diff", path, path, "--fail-above", "1.1").returncode == code


def test_disturbed_runs_need_a_larger_difference():
    """CPU time on a loaded machine differs by up to 18% between processes with the same run."""
    before = timed(explore(ViTSpec(), time=False))
    for change in (
        {"clock": "thread"},
        {"clean_runs": 4},
        {"whole_iqr_s": 0.11 * before.time.whole_interquartile_mean_s},
    ):
        disturbed = replace(before, time=replace(before.time, **change))
        assert compare(before, slowed(before, forward=1.15)).whole.verdict == "slower"
        assert compare(slowed(before, forward=1.15), disturbed).whole.verdict == "cannot tell"
        assert compare(slowed(before, forward=1.3), disturbed).whole.verdict == "faster"


def test_times_of_different_settings_are_not_gated(attnscope, tmp_path):
    run = timed(explore(ViTSpec(), time=False))
    others = {
        "torch": replace(run, environment={**run.environment, "torch": "2.16.0"}),
        "device name": replace(run, environment={**run.environment, "device_name": "another processor"}),
        "dtype": timed(explore(ViTSpec(dtype="float64"), time=False)),
        "clock": replace(run, time=replace(run.time, clock="thread")),
    }
    a = str(saved(tmp_path, "a.json", run))
    for name, other in others.items():
        b = str(saved(tmp_path, "b.json", other))
        done = attnscope("diff", a, b, "--fail-above", "2")
        assert done.returncode == 4, name
        assert done.stdout.splitlines()[0].startswith(f" warning  the runs differ in {name} ")
        assert last_line(done).startswith(f"CANNOT TELL: times are not comparable: the runs differ in {name};")
        across = attnscope("diff", a, b, "--fail-above", "2", "--across")
        assert across.returncode == 0, name
    load = replace(run, environment={**run.environment, "load": 1.9, "seed": 1})
    assert attnscope("diff", a, str(saved(tmp_path, "b.json", load)), "--fail-above", "2").returncode == 0


def test_the_verdict_of_json_is_on_stderr(attnscope, tmp_path):
    path = str(saved(tmp_path, "a.json", timed(explore(ViTSpec(), time=False))))
    done = attnscope("diff", path, path, "--fail-above", "1.1", "--json")
    gate = json.loads(done.stdout)["gate"]
    assert (gate["verdict"], [check["quantity"] for check in gate["checks"]]) == ("PASS", ["forward"])
    assert done.stderr.startswith("PASS: forward takes 1.00×")


def test_save_writes_what_diff_reads(attnscope, tmp_path):
    path = tmp_path / "run.json"
    done = attnscope("vit", "--no-time", "--save", str(path))
    assert done.returncode == 0
    assert "ViT attention" in done.stdout
    assert read_report(path).totals.macs == 524_391_936
    failed = attnscope("diff", str(path), str(path), "--fail-above", "1.1")
    assert failed.returncode == 2
    assert "requires times in both runs" in failed.stderr


# the result and the words


def shown(before, after):
    return " ".join(render_diff(compare(before, after), ("a", "b"), "table", Screen()).split())


def lines_below(screen, title):
    """Return the rows of the table with this title, in words."""
    lines = screen.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith(f" {title} "))
    end = next((index for index in range(start, len(lines)) if not lines[index].strip()), len(lines))
    return [" ".join(line.split()) for line in lines[start + 2 : end]]


def test_each_count_has_a_table_with_its_unit_sorted_by_the_change():
    small, large = (explore(ViTSpec(tokens=tokens), time=False) for tokens in (49, 64))
    screen = render_diff(compare(small, large), ("a", "b"), "table", Screen())
    assert lines_below(screen, "MACs") == [
        "whole 119 M 157 M 1.32× more",
        "project 86.7 M 113 M 1.31× more",
        "output 28.9 M 37.7 M 1.31× more",
        "score 1.84 M 3.15 M 1.71× more",
        "mix 1.84 M 3.15 M 1.71× more",
    ]
    assert lines_below(screen, "peak activation memory")[0].startswith("whole 735.0 KiB ")
    assert screen.splitlines()[0] == " warning  the runs differ in tokens 49 → 64"
    for raw in ("bytes_", "_peak", "None", "True", "False", "macs"):
        assert raw not in screen


def test_every_count_of_a_diff_has_a_table():
    """FLOPs are 2 for each MAC."""
    run = both_ways()
    names = {name for name in vars(run.totals) if not name.endswith("_at_least")} | {"backward_macs"}
    assert {whole for *_, whole, _ in QUANTITIES if whole} == names - {"flops"}
    assert {of_step for *_, of_step in QUANTITIES} == {*STEP_COSTS, "backward_macs"} - {"flops"}


def test_a_table_has_only_what_changed_and_says_what_is_not_shown():
    before = both_ways()
    after = slowed(before, forward=1.5, steps=("score",))
    screen = render_diff(compare(before, after), ("a", "b"), "table", Screen())
    shown = lines_below(screen, "time")
    steps = [line for line in shown if line.startswith(("blocks", "downsample"))]
    assert steps
    assert all("attn.score" in line and line.endswith("slower") for line in steps)
    assert " times without a real difference; --format csv has all" in screen
    assert screen.count("after / before") == 1


def test_steps_of_one_run_are_named():
    eager, sdpa = (explore(ViTSpec(kernel=kernel), time=False) for kernel in ("eager", "sdpa"))
    screen = render_diff(compare(eager, sdpa), ("a", "b"), "table", Screen())
    assert "only in the first run: score, softmax, mix" in screen
    assert "only in the second run: attend" in screen
    assert lines_below(screen, "peak activation memory")[0] == "whole 5.3 MiB ? – unknown"
    assert "unknown" not in lines_below(screen, "bytes read")[0]


def test_options_and_the_environment_are_in_words():
    runs = [explore(ViTSpec(qkv_bias=bias, dim=dim), time=False) for bias, dim in ((True, 768), (False, 1536))]
    assert shown(*runs).startswith("warning the runs differ in qkv bias yes → no; dim 768 → 1,536 a → b")
    run = timed(runs[0])
    many = replace(run, spec={f"option_{index}": index for index in range(9)})
    assert shown(run, many).split(" a → b ")[0].endswith("more")


def test_a_cannot_tell_names_the_smallest_difference_that_can_be_seen():
    run = timed(explore(ViTSpec(), time=False))
    assert "forward: cannot tell: 0.3–2.2× (a difference below 174% could not be seen)" in finding(
        compare(run, spread(run, 1.0, 3.0))
    )


def test_a_change_that_rounding_hides_has_all_digits():
    run = explore(ViTSpec(), time=False)
    other = replace(run, totals=replace(run.totals, macs=run.totals.macs + 1))
    assert f"whole {run.totals.macs:,} {run.totals.macs + 1:,} 1.00× more" in shown(run, other)


def test_the_result_comes_first_and_says_what_changed():
    run = timed(explore(ViTSpec(), time=False))
    assert finding(compare(run, run)) == "both files contain the same run"
    assert finding(compare(run, slowed(run, forward=3.0))) == "forward: 2.9–3.1× slower; equal counts"
    untimed = explore(ViTSpec(tokens=64), time=False)
    assert finding(compare(untimed, run)).startswith("forward: only in the second run; ")
    again = explore(ViTSpec(tokens=64), time=False, backward=True)
    assert finding(compare(untimed, again)).startswith("no times in either run; ")
    assert shown(run, run) == "a → b result both files contain the same run"


def test_the_environment_of_one_run_is_one_line():
    untimed = explore(ViTSpec(), time=False)
    screen = shown(timed(untimed), untimed)
    assert "environment only the first run has " in screen
    assert "not set" not in screen


def test_the_kernel_of_the_run_does_not_repeat_the_forward():
    run = timed(explore(ViTSpec(), time=False))
    forward = run.time.whole_interquartile_mean_s
    same, other = (KernelRow(name, time, 0.0, None, None) for name, time in (("eager", forward), ("sdpa", 1e-3)))
    with_kernels = replace(run, kernels=[same, other])
    slower = [replace(kernel, time_s=2 * kernel.time_s) for kernel in with_kernels.kernels]
    screen = shown(with_kernels, replace(slowed(with_kernels, forward=2.0), kernels=slower))
    assert "kernel sdpa" in screen
    assert "kernel eager" not in screen


def test_a_narrow_screen_hides_the_times_before_the_ratio():
    run = timed(explore(ViTSpec(), time=False))
    diff = compare(run, slowed(run, forward=1.9))
    shown = []
    for width in (60, 48, 40):
        lines = render_diff(diff, ("a.json", "b.json"), "table", Screen(width=width)).splitlines()
        heading = next(line for line in lines if line.startswith(" time"))
        shown.append([title.strip() for title in heading.split("  ") if title.strip()])
    everything = ["time", "before", "after", "after / before"]
    assert shown == [everything, ["time", "after", "after / before"], ["time", "after / before"]]
