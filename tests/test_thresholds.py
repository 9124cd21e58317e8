"""Thresholds of timing: each test fails if its threshold moves either way. `docs/thresholds.md` says where each is from.

`test_noise.py` has those of warnings, `test_timing.py` those of the number of runs, and `test_peak_files.py` that of peaks.
"""

import importlib
import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from attnscope import SwinSpec, ViTSpec
from attnscope.analyses.measurement import build_fused, measure_counterpart
from attnscope.profiling import clocks
from attnscope.profiling import timing as engine
from attnscope.profiling.building import build
from attnscope.profiling.clocks import CpuClock, Timed
from attnscope.profiling.load import Effort
from attnscope.profiling.options import RunOptions
from attnscope.profiling.statistics import Samples
from tests.test_measuring import FINE

PAGE = Path(__file__).parents[1] / "docs" / "thresholds.md"
ROW = re.compile(r"^\| `(\w+)` of `([\w/]+)\.py` \| ([\d.]+) ", re.MULTILINE)


@pytest.mark.parametrize(
    ("threads", "share", "clean"), [(1, 0.971, True), (1, 0.969, False), (2, 0.901, True), (2, 0.899, False)]
)
def test_a_run_is_clean_from_a_share_of_its_cpu_time_on(threads, share, clean, monkeypatch):
    """One thread counts its own CPU time, and several that of the process."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    effort = Effort(wall_s=2.0, thread_s=2.0 * share, process_s=2.0 * share * threads, faults=0)
    assert CpuClock().is_clean(effort, []) is clean


def rounds_of(ratios, clean):
    """Return rounds of two forwards with these ratios, of which the first `clean` are undisturbed."""
    return [[Timed([ratio], index < clean), Timed([1.0], True)] for index, ratio in enumerate(ratios)]


@pytest.mark.parametrize(("width", "narrow"), [(0.0099, True), (0.0101, False)])
def test_an_interval_of_one_percent_is_narrow(width, narrow):
    """The six blocks of five rounds have medians of 1 and of 1 + width in turn."""
    ratios = ([1.0, 1.0 + width] * 15)[:30]
    assert engine._is_narrow(rounds_of(ratios, 30)) is narrow


@pytest.mark.parametrize(("clean", "narrow"), [(15, True), (14, False)])
def test_a_width_needs_fifteen_clean_rounds(clean, narrow):
    assert engine._is_narrow(rounds_of([1.0] * 30, clean)) is narrow


class Passing(nn.Module):
    """A module whose forward takes a millisecond of a counter."""

    def __init__(self, now):
        super().__init__()
        self.now = now

    def forward(self, x):
        self.now["s"] += 1e-3
        return x


class CounterClock(CpuClock):
    """A clock that reads a counter of seconds."""

    def __init__(self, now):
        self.stamp = lambda: now["s"]

    def is_clean(self, effort, stamps):
        return True

    def seconds(self, stamps):
        return [after - before for before, after in pairwise(stamps)]


@pytest.mark.parametrize(("budget_s", "tried"), [(0.5, 30), (0.04, 20)])
def test_the_width_is_first_judged_after_thirty_rounds(budget_s, tried, monkeypatch):
    """The ratio of identical forwards is always 1."""
    now, x = {"s": 0.0}, torch.zeros(1)
    monkeypatch.setitem(clocks.CLOCKS, "cpu", lambda: CounterClock(now))
    turns = engine.time_in_turn([(Passing(now), x), (Passing(now), x)], budget_s, now=lambda: now["s"])
    assert turns.tried == pytest.approx(tried, abs=1)
    assert turns.tried == 30 or budget_s < 0.06


@pytest.mark.parametrize(("expected_s", "is_timed"), [(1.99, True), (2.01, False)])
def test_global_attention_is_timed_if_it_is_expected_to_take_two_seconds(expected_s, is_timed, monkeypatch):
    spec = SwinSpec(dim=12, resolution=(14, 14))
    plan, counterpart = spec.plan(), spec.counterpart().plan()
    own_s = expected_s * plan.macs / counterpart.macs
    whole = FINE.__class__(own_s, 0.0, [own_s], own_s, 0.0, 5, 5, 0.0)
    monkeypatch.setattr(engine, "time_forward", lambda *_: Samples([1.0] * 5))
    module, x = build(spec, torch.device("cpu"))
    found = measure_counterpart(spec, plan, whole, module, x, RunOptions(device="cpu"))
    assert (found.reference_s is not None) is is_timed


@pytest.mark.parametrize(("forward_s", "is_built"), [(0.299, True), (0.301, False)])
def test_the_fused_kernel_is_timed_beside_a_forward_of_at_most_300_ms(forward_s, is_built, monkeypatch):
    spec = ViTSpec(dim=12, heads=3, tokens=5)
    module, x = build(spec, torch.device("cpu"))
    monkeypatch.setattr(engine, "seconds_of", lambda *_: forward_s)
    found = build_fused(spec, module, x, RunOptions(device="cpu"))
    assert (found is not None) is is_built


def test_the_page_has_the_value_of_every_threshold():
    rows = ROW.findall(PAGE.read_text(encoding="utf-8"))
    assert len(rows) >= 20
    for name, path, value in rows:
        module = importlib.import_module(f"attnscope.{path.replace('/', '.')}")
        assert getattr(module, name) == float(value), name
