"""`attnscope diff --rerun`: the commands of saved runs, fresh processes that take turns, and their comparison."""

import json
import sys
from dataclasses import replace
from itertools import pairwise

import pytest

from attnscope import CrossSpec, SwinNetworkSpec, SwinSpec, SwinV2Spec, ViTNetworkSpec, ViTSpec, explore
from attnscope.analyses import rerun
from attnscope.analyses.diff import compare_in_turn
from attnscope.analyses.gate import Limits, gate, read_ratios
from attnscope.cli import main
from attnscope.core.errors import AttnscopeError, DeviceError, UsageError
from attnscope.profiling import fresh_processes
from attnscope.profiling.fresh_processes import Command, run_in_turn, run_once
from attnscope.reports.loading import parse_report
from tests.golden import slowed, timed

SMALL = ViTSpec(tokens=49, dim=12, heads=3)


@pytest.mark.parametrize(
    "spec",
    [ViTSpec(), ViTSpec(tokens=50, qkv_bias=False, kernel="sdpa", dtype="float64", attn_drop=0.1, batch=2),
     SwinSpec(resolution=(14, 28), window=(7, 14), shift=True), SwinV2Spec(), CrossSpec(),
     SwinNetworkSpec(stage=2, depths=(1, 2)), ViTNetworkSpec(scope="block", image=(32, 64)),
     ViTNetworkSpec(depth=2)],
    ids=lambda spec: spec.command().removeprefix("attnscope "),
)  # fmt: skip
def test_the_command_of_a_saved_run_has_its_spec_and_options(spec, monkeypatch, capsys):
    report = explore(spec, time=False, backward=True, input_grad=False)
    report = replace(report, environment={**report.environment, "device": "cpu", "threads": 1, "seed": 7})
    words = rerun.words_of(parse_report(report.to_json(), "a.json"), "a.json", 0.25)
    assert words[words.index("--budget") + 1] == "0.25"
    monkeypatch.setattr(sys, "argv", ["attnscope", *words, "--no-time", "--json"])
    with pytest.raises(SystemExit) as done:
        main()
    assert done.value.code in (0, None)
    again = parse_report(capsys.readouterr().out, "again")
    assert rerun.spec_of(again, "again") == spec
    assert again.backward.input_grad is False
    options = dict(pairwise(words))
    assert (options["--device"], options["--threads"], options["--seed"], options["--alloc"]) == (
        "cpu",
        "1",
        "7",
        "pinned",
    )


def test_a_run_that_cannot_be_repeated_is_one_line():
    run = explore(SMALL, time=False)
    cases = (
        (replace(run, spec={**run.spec, "newer": 1}), "a.json cannot be run again: ViT attention has no field newer"),
        (
            replace(run, spec={**run.spec, "attention": "mine"}),
            "a.json cannot be run again: the attention mine is unknown",
        ),
        (replace(run, spec={"network": "mine"}), "a.json cannot be run again: the attention mine is unknown"),
        (replace(run, environment={"device": "meta"}), "a.json ran on meta, which computes nothing"),
    )
    for report, message in cases:
        with pytest.raises(UsageError) as error:
            rerun.words_of(report, "a.json", 0.3)
        assert str(error.value).startswith(message)


def test_the_order_alternates_from_pair_to_pair(monkeypatch):
    ran = []
    monkeypatch.setattr(fresh_processes, "run_once", lambda command: ran.append(command.name) or command.name)
    seen = []
    pairs = list(run_in_turn((Command("a", ()), Command("b", ())), 4, lambda words, share: seen.append((words, share))))
    assert pairs == [("a", "b")] * 4
    assert ran == ["a", "b", "b", "a", "a", "b", "b", "a"]
    assert seen[:3] == [("a, process 1 of 4", 0.0), ("b, process 1 of 4", 0.0), ("b, process 2 of 4", 0.25)]


def test_a_process_that_fails_is_one_line(tmp_path):
    words = ("vit", "--no-time", "--dim")
    with pytest.raises(UsageError) as error:
        run_once(Command("a", (*words, "770"), problem="a.json cannot be run again: "))
    assert str(error.value).startswith("a.json cannot be run again: --dim must be divisible by --heads 12")
    with pytest.raises(DeviceError):
        run_once(Command("a", ("vit", "--dim", "12", "--heads", "3", "--batch", "1000000000", "--device", "cpu")))
    with pytest.raises(AttnscopeError, match="ModuleNotFoundError"):
        run_once(Command("a", words, search_path=[str(tmp_path)]))


def test_the_variables_of_the_user_do_not_change_a_repeated_run(monkeypatch):
    monkeypatch.setenv("ATTNSCOPE_VIT_DIM", "24")
    run = explore(SMALL, time=False)
    run = replace(run, environment={**run.environment, "device": "cpu"})
    asked = []
    monkeypatch.setattr(fresh_processes, "run_once", lambda command: asked.append(command) or run.to_json())
    rerun.rerun_in_turn((run, run), ("a", "b"), (["vit"], ["vit"]), 1)
    assert all("ATTNSCOPE_VIT_DIM" in command.without for command in asked)
    other = explore(ViTSpec(), time=False).to_json()
    monkeypatch.setattr(fresh_processes, "run_once", lambda command: other)
    with pytest.raises(UsageError, match="this version has other options"):
        rerun.rerun_in_turn((run, run), ("a", "b"), (["vit"], ["vit"]), 1)


def in_turn(factors, drifts=(1.0,)):
    """Return the comparison of a run and of one that is slower by these factors; a drift affects both of a pair."""
    run = timed(explore(SMALL, time=False))
    drifts = [*drifts] * len(factors)
    pairs = [
        (slowed(run, forward=drift), slowed(run, forward=drift * factor))
        for factor, drift in zip(factors, drifts, strict=False)
    ]
    return compare_in_turn(pairs), pairs[0]


@pytest.mark.parametrize(
    ("factors", "verdict"),
    [((1.3, 1.2, 1.25, 1.22, 1.28, 1.21), "slower"), ((1.3, 1.2, 0.99, 1.22, 1.28, 1.21), "cannot tell"),
     ((1.02, 0.99, 1.01, 0.98, 1.0, 1.0), "equal"), ((0.8, 0.9, 0.85, 0.8, 0.8), "faster"), ((2.0,) * 4, "cannot tell")],
)  # fmt: skip
def test_the_verdict_follows_from_the_ratios_of_the_pairs(factors, verdict):
    diff, _ = in_turn(factors)
    assert (diff.whole.verdict, diff.processes) == (verdict, len(factors))
    assert diff.whole.ratios == pytest.approx(factors)


def test_a_host_that_slows_down_does_not_change_the_verdict():
    """Between the first and the last pair, the host becomes twice as slow."""
    drifts = (1.0, 1.2, 1.4, 1.6, 1.8, 2.0)
    diff, _ = in_turn((1.01, 0.99, 1.02, 1.0, 0.98, 1.01), drifts)
    assert diff.whole.verdict == "equal"
    slower, runs = in_turn((1.26, 1.24, 1.25, 1.27, 1.25, 1.24), drifts)
    found = gate(slower, *runs, Limits(read_ratios("1.1")))
    assert found.verdict == "FAIL"
    assert "6 processes of each, in turn" in found.line


def test_a_pair_without_times_is_not_decided():
    run = timed(explore(SMALL, time=False))
    pairs = [(run, run)] * 5 + [(run, replace(run, time=None))]
    diff = compare_in_turn(pairs)
    assert (diff.whole.verdict, diff.whole.interval) == ("cannot tell", None)
    assert gate(diff, *pairs[0], Limits(read_ratios("1.1"))).verdict == "CANNOT TELL"
    untimed = [(replace(run, time=None), replace(run, time=None))] * 5
    found = gate(compare_in_turn(untimed), *untimed[0], Limits(read_ratios("1.1")))
    assert (found.verdict, "neither run has times" in found.line) == ("CANNOT TELL", True)


def test_a_warning_of_both_runs_is_one_line():
    run = explore(SMALL, time=False)
    wrong, noisy = replace(run, warnings=["wrong"]), replace(run, warnings=["noisy"])
    assert compare_in_turn([(wrong, wrong)] * 2).doubts == ["the first run and the second run: wrong"]
    assert compare_in_turn([(wrong, run), (run, noisy)]).doubts == [
        "1 of 2 processes of the first run: wrong",
        "1 of 2 processes of the second run: noisy",
    ]


def test_rerun_measures_both_specs_again(attnscope, tmp_path, monkeypatch):
    paths = []
    for tokens in (49, 64):
        paths.append(str(tmp_path / f"{tokens}.json"))
        (tmp_path / f"{tokens}.json").write_text(explore(replace(SMALL, tokens=tokens), time=False).to_json())
    few = attnscope("diff", "--rerun", *paths, "--processes", "4")
    assert (few.returncode, few.stderr) == (2, "attnscope: --processes must be from 5 to 100 (got 4)\n")
    words = ("diff", "--rerun", *paths, "--processes", "5", "--budget", "0.02", "--fail-above", "time=100,macs=2")
    undecided = attnscope(*words, "--json")
    assert undecided.returncode == 4
    found = json.loads(undecided.stdout)
    assert [change["name"] for change in found["differing"]] == ["tokens"]
    assert len(found["whole"]["ratios"]) == 5
    assert undecided.stderr.startswith("CANNOT TELL: times are not comparable: the runs differ in tokens")
