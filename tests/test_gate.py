"""Gates on exact counts: `diff --fail-above` and `--max`."""

import json
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from torch import nn

from attnscope import ViTSpec, explore, trace
from attnscope.analyses.diff import compare
from attnscope.analyses.gate import Limits, gate, gate_single, read_ratios, read_sizes
from attnscope.core.errors import UsageError
from attnscope.reports.gate import Check, judge

SMALL = ViTSpec(tokens=49, dim=12, heads=3)


def judged(before, after, **limits):
    limits = {name.replace("_", "-"): Fraction(str(limit)) for name, limit in limits.items()}
    return gate(compare(before, after), before, after, Limits(limits))


def with_totals(report, **totals):
    return replace(report, totals=replace(report.totals, **totals))


def test_counts_are_compared_exactly():
    run = with_totals(explore(SMALL, time=False), macs=10**20, params=100, peak_bytes=100)
    assert judged(run, run, macs=1, params=1, peak=1).verdict == "PASS"
    more = with_totals(run, macs=10**20 + 1)
    found = judged(run, more, macs=1, params=1)
    assert (found.verdict, [check.verdict for check in found.checks]) == ("FAIL", ["FAIL", "PASS"])
    assert "100,000,000,000,000,000,000 → 100,000,000,000,000,000,001" in found.line
    assert judged(run, with_totals(run, peak_bytes=102), peak="1.02").verdict == "PASS"
    assert judged(run, with_totals(run, peak_bytes=103), peak="1.02").verdict == "FAIL"
    assert judged(with_totals(run, params=0), run, params=2).verdict == "FAIL"
    assert judged(run, with_totals(run, params=0), params=1).verdict == "PASS"


def test_an_unknown_count_does_not_pass():
    run = with_totals(explore(SMALL, time=False), peak_bytes=100, peak_bytes_at_least=100)
    unknown = with_totals(run, peak_bytes=None, peak_bytes_at_least=90)
    for pair in ((run, unknown), (unknown, run)):
        assert judged(*pair, peak=1).verdict == "CANNOT TELL"
    assert "in the second run" in judged(run, unknown, peak=1).line
    found = judged(run, with_totals(unknown, peak_bytes_at_least=101), peak=1)
    assert (found.verdict, "100 B → at least 101 B" in found.line) == ("FAIL", True)
    assert gate_single(unknown, {"peak": Fraction(100)}).verdict == "CANNOT TELL"
    assert gate_single(unknown, {"peak": Fraction(89)}).verdict == "FAIL"
    assert gate_single(unknown, {"peak": Fraction(89)}).line == "FAIL: peak at least 90 B, above 89"


def test_a_trace_with_an_operator_without_a_formula_has_unknown_macs():
    report = trace(nn.Linear(3, 4), torch.zeros(2, 3))
    assert gate_single(report, {"macs": Fraction(24)}).verdict == "PASS"
    partial = replace(report, steps=[replace(row, macs=None, flops=None) for row in report.steps])
    assert gate_single(partial, {"macs": Fraction(24)}).verdict == "CANNOT TELL"
    assert gate_single(partial, {"macs": Fraction(23)}).line == "FAIL: macs at least 24, above 23"
    assert gate_single(partial, {"params": Fraction(16)}).verdict == "PASS"
    assert judged(report, partial, macs=1).verdict == "CANNOT TELL"


def test_a_failed_check_outweighs_an_undecided_one():
    checks = [Check("a", verdict, verdict) for verdict in ("PASS", "CANNOT TELL", "FAIL")]
    assert [judge(checks[:n]).verdict for n in (1, 2, 3)] == ["PASS", "CANNOT TELL", "FAIL"]


@pytest.mark.parametrize(
    ("text", "limits"),
    [("1.1", {"time": Fraction(11, 10)}), ("macs=1, time=1.1", {"macs": 1, "time": Fraction(11, 10)}),
     ("training-peak=1.02,PEAK=2", {"training-peak": Fraction(51, 50), "peak": 2})],
)  # fmt: skip
def test_ratios_are_read_exactly(text, limits):
    assert read_ratios(text) == limits


@pytest.mark.parametrize(
    ("text", "limit"),
    [("5G", 5 * 10**9), ("1.5k", 1500), ("7", 7), ("2GiB", 2 * 2**30), ("1.5 MiB", 3 * 2**19), ("3MB", 3 * 10**6)],
)
def test_sizes_have_units(text, limit):
    assert read_sizes(f"macs={text}") == {"macs": limit}


@pytest.mark.parametrize(
    ("read", "text", "message"),
    [(read_ratios, "0", "time must be a number above 0, such as 1.1 (got 0)"),
     (read_ratios, "macs", "must be QUANTITY=LIMIT (got macs), such as macs=1"),
     (read_ratios, "=2", "must be QUANTITY=LIMIT (got =2), such as macs=1"),
     (read_ratios, "macs=", "macs must be a number above 0"), (read_ratios, "1e999999999", "must be a number above 0"),
     (read_ratios, "nan", "must be a number above 0"), (read_ratios, "1/0", "must be a number above 0"),
     (read_ratios, "", "must be a number above 0"), (read_ratios, "macs=1,macs=2", "macs twice"),
     (read_ratios, "mac=1", "did you mean macs?"), (read_sizes, "5G", "must be QUANTITY=LIMIT (got 5G)"),
     (read_sizes, "macs=5Q", "such as 5G or 100MiB"), (read_sizes, "macs=-1", "such as 5G or 100MiB"),
     (read_sizes, "macs=5ib", "such as 5G or 100MiB"), (read_sizes, "time=1", "unknown")],
)  # fmt: skip
def test_wrong_limits_are_usage_errors(read, text, message):
    with pytest.raises(UsageError) as error:
        read(text)
    assert message in str(error.value)


def test_counts_are_gated_without_times(attnscope, tmp_path):
    paths = []
    for tokens in (49, 64):
        paths.append(str(tmp_path / f"{tokens}.json"))
        (tmp_path / f"{tokens}.json").write_text(explore(ViTSpec(tokens=tokens), time=False).to_json())
    same = attnscope("diff", paths[0], paths[0], "--fail-above", "macs=1,params=1,peak=1.02,training-peak=1.02")
    assert same.returncode == 0
    assert same.stdout.splitlines()[-1].startswith("PASS: macs 119,293,440 → 119,293,440, at most 1×; params")
    more = attnscope("diff", *paths, "--fail-above", "macs=1,params=1")
    assert more.returncode == 1
    assert more.stdout.splitlines()[-1] == "FAIL: macs 119,293,440 → 157,286,400 (1.318×, above 1×)"
    times = attnscope("diff", *paths, "--fail-above", "macs=2,time=1.1")
    assert (times.returncode, "requires times in both runs" in times.stderr) == (2, True)


def test_a_single_run_has_limits(attnscope):
    passed = attnscope("vit", "--no-time", "--max", "macs=5G,peak=1GiB")
    assert passed.returncode == 0
    assert passed.stdout.splitlines()[-1].startswith("PASS: macs 524,391,936, at most 5,000,000,000; peak ")
    failed = attnscope("vit", "--no-time", "--max", "macs=0.5G", "--json")
    assert failed.returncode == 1
    assert failed.stderr == "FAIL: macs 524,391,936, above 500,000,000\n"
    gate = json.loads(failed.stdout)["gate"]
    assert (gate["verdict"], gate["checks"][0]["quantity"]) == ("FAIL", "macs")
    assert attnscope("vit", "--no-time", "--max", "macs=524391936").returncode == 0
    assert attnscope("vit", "--no-time", "--max", "macs=524391935").returncode == 1
    wrong = attnscope("vit", "--max", "macs=many")
    assert (wrong.returncode, wrong.stdout) == (2, "")
