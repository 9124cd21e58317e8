"""Blocks of runs: several processes, and more runs while the interval is too wide."""

from pathlib import Path

import pytest

from attnscope import UsageError, ViTSpec, attentions, explore
from attnscope.analyses import blocks
from attnscope.attentions import discovery
from attnscope.core.errors import AttnscopeError
from attnscope.profiling.clocks import Timed
from attnscope.profiling.intervals import interval_between_processes, interval_of_run
from attnscope.profiling.load import Load
from attnscope.profiling.options import RunOptions
from attnscope.profiling.timing import Pairs, merge, statistics_of

SMALL = ViTSpec(dim=12, heads=3, tokens=5)
SRA = Path(__file__).parent.parent / "examples" / "sra"


def pairs(*totals, clock="wall"):
    runs = [Timed([total / 2, total / 2, 0.0], True) for total in totals]
    return Pairs(runs, runs, len(runs), 1e-7, len(runs) + 1, Load(0.5, None), clock, [runs], {"matmul": runs})


def test_merged_pairs_keep_the_samples_of_each_process_together():
    merged = merge([pairs(1.0, 2.0), pairs(3.0), pairs(4.0, 5.0, 6.0, clock="thread")], [0, 0, 1])
    timing = statistics_of(merged)
    assert timing.whole.whole_samples_s == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert timing.whole.process_runs == [3, 3]
    assert (timing.whole.runs, timing.whole.clean_runs, timing.whole.tried) == (6, 6, 9)
    assert (timing.whole.clock, timing.whole.others, timing.whole.pressure) == ("thread", 0.5, None)
    assert timing.yardsticks == {"matmul": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]}
    assert list(timing.beside[0].samples_s) == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert statistics_of(merge([pairs(1.0, 2.0), pairs(3.0)], [0, 0])).whole.process_runs == []


def test_the_interval_between_processes_has_their_smallest_and_largest_median():
    samples = [3.0, 1.0, 2.0, 9.0, 8.0, 5.0, 5.0, 6.0, 0.1]
    found = interval_between_processes(samples, [3, 2, 1, 1, 2])
    assert (found.low, found.high) == (2.0, 8.5)
    assert interval_of_run(samples, [3, 2, 1, 1, 2]) == found
    assert interval_between_processes(samples, [3, 2, 2, 2]) is None  # four medians enclose too little
    assert interval_of_run(samples, [3, 2, 2, 2]) == interval_of_run(samples)


@pytest.mark.parametrize("backward", [False, True])
def test_several_processes_are_one_report(backward):
    report = explore(SMALL, device="cpu", budget=0.01, processes=2, backward=backward)
    for time in [report.time] + ([report.backward.time] if backward else []):
        assert len(time.process_runs) == 2
        assert sum(time.process_runs) == time.runs == len(time.whole_samples_s)
        assert all(len(each.samples_s) == time.runs for each in time.yardsticks)
    assert all(len(row.time.samples_s) == report.time.runs for row in report.steps)


def test_an_attention_in_a_folder_is_measured_in_several_processes(monkeypatch):
    monkeypatch.setattr(discovery, "_loaded", {})  # other tests list the attentions
    spec_class = attentions.load(SRA)
    report = explore(spec_class(), device="cpu", budget=0.01, processes=2)
    assert len(report.time.process_runs) == 2


def test_a_process_that_fails_is_one_line(monkeypatch):
    monkeypatch.setattr(blocks, "PROGRAM", "raise SystemExit('no memory {left}')")
    with pytest.raises(AttnscopeError) as error:
        explore(SMALL, device="cpu", budget=0.01, processes=2)
    assert str(error.value) == "a fresh process failed: no memory {left}; run without --processes"


def test_measuring_goes_on_until_the_interval_is_narrow(monkeypatch):
    """Each block has 14 runs; their medians are 1.00 to 1.05."""
    measured = []

    def measure_block(*arguments):
        measured.append(blocks.Block(pairs(*[1.0, 1.05] * 7)))
        return measured[-1]

    def blocks_of(**options):
        measured.clear()
        monkeypatch.setattr(blocks.time, "perf_counter", lambda: float(len(measured)))
        options = RunOptions(device="cpu", **options)
        return len(blocks.measure_blocks(SMALL, SMALL.plan(), None, SMALL_X, options, None))

    import torch

    SMALL_X = (torch.zeros(1),)
    monkeypatch.setattr(blocks, "measure_block", measure_block)
    assert blocks_of() == 1
    assert blocks_of(until=0.03, budget=9.0) == 1
    assert blocks_of(until=0.02, budget=9.0) == 9


def test_the_budget_of_a_block_is_that_of_a_run():
    assert RunOptions(budget=2.0).block_s == 2.0
    assert RunOptions(budget=2.0, until=0.02).block_s == 0.3
    assert RunOptions(budget=0.1, until=0.02).block_s == 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [({"processes": 0}, "processes must be from 1 to 100 (got 0)"), ({"processes": 101}, "(got 101)"),
     ({"until": 0.0}, "until must be above 0% and below 100%, such as 2% (got 0)"), ({"until": 1.0}, "(got 1)"),
     ({"until": float("nan")}, "(got nan)")],
)  # fmt: skip
def test_processes_and_the_width_have_bounds(options, message):
    with pytest.raises(UsageError) as error:
        RunOptions(**options)
    assert message in str(error.value)
    RunOptions(processes=100, until=0.999)


def test_flags_of_blocks(attnscope):
    wrong = attnscope("vit", "--until", "2")
    assert (wrong.returncode, "--until must be a percentage, such as 2% (got 2)" in wrong.stderr) == (2, True)
    done = attnscope(
        *("vit", "--dim", "12", "--heads", "3", "--tokens", "5", "--device", "cpu", "--budget", "0.01"),
        *("--processes", "2", "--json"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert '"process_runs": [' in done.stdout
