"""Timing of forwards, with clocks that count operations instead of seconds: no test depends on the machine."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from attnscope import ViTSpec, explore, trace
from attnscope.profiling import clocks
from attnscope.profiling import timing as engine
from attnscope.profiling.clocks import Timed

STAMP_S, LINEAR_S = 1e-6, 1e-3


class Counter:
    """A counter of seconds that only pass if something runs."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds

    def runs(self, seconds, clean=True, done=None):
        """Return a forward that takes these seconds and whose measured time is its start."""

        def run():
            began = self.seconds
            self.seconds += seconds
            if done is not None:
                done.append(began)
            return Timed([began], clean)

        return run


class CountingClock:
    """A CPU clock on which a time stamp takes STAMP_S, a linear layer LINEAR_S, and everything else 0 s."""

    on_processor = True
    stamp_s = 0.0

    def __init__(self):
        self.now = 0.0

    def prepare(self):
        return None

    def paced(self, forward):
        return forward

    def stamp(self):
        self.now += STAMP_S
        return self.now

    def spend(self, seconds):
        self.now += seconds

    def is_clean(self, effort, stamps):
        return True

    def seconds(self, stamps):
        return [after - before for before, after in pairwise(stamps)]


@pytest.fixture
def counting(monkeypatch):
    """Replace the CPU clock by a CountingClock."""
    clock = CountingClock()

    def spend(module, inputs):
        if isinstance(module, nn.Linear):
            clock.spend(LINEAR_S)

    monkeypatch.setitem(clocks.CLOCKS, "cpu", lambda: clock)
    handle = register_module_forward_pre_hook(spend)
    yield clock
    handle.remove()


def test_the_time_of_a_step_excludes_the_time_stamp(counting):
    report = explore(ViTSpec(dim=12, heads=3, tokens=5), device="cpu", budget=0.01)
    assert report.time.stamp_s == pytest.approx(STAMP_S)
    for row in report.steps:
        expected = LINEAR_S if row.name in ("project", "output") else 0.0
        assert row.time.samples_s == pytest.approx([expected] * report.time.runs, abs=1e-12), row.name
    assert report.time.steps_sum_s == pytest.approx(2 * LINEAR_S)
    assert report.time.whole_samples_s == pytest.approx([2 * LINEAR_S + STAMP_S] * report.time.runs)


def test_the_backward_time_of_a_step_excludes_the_hook(counting):
    """The output gradient of each linear layer takes LINEAR_S; that of the last one precedes the steps' backward."""

    def spend(module, inputs, output):
        if isinstance(module, nn.Linear) and output.requires_grad:
            output.register_hook(lambda gradient: counting.spend(LINEAR_S))

    handle = register_module_forward_hook(spend)
    report = explore(ViTSpec(dim=12, heads=3, tokens=5), device="cpu", budget=0.01, backward=True)
    handle.remove()
    back = report.backward.time
    assert back.stamp_s == pytest.approx(STAMP_S)
    for row in report.steps:
        expected = LINEAR_S if row.name == "split_heads" else 0.0  # its gradient is ready before that of project
        assert row.backward.time.samples_s == pytest.approx([expected] * back.runs, abs=1e-12), row.name
    assert back.whole_samples_s == pytest.approx([2 * LINEAR_S + STAMP_S] * back.runs)


def test_the_time_of_a_call_excludes_the_instrumentation(counting):
    report = trace(
        nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 4)), torch.zeros(2, 4), time=True, budget=0.01
    )
    assert report.time.stamp_s == pytest.approx(STAMP_S)
    for row, expected in zip(report.steps, [LINEAR_S, 0.0, LINEAR_S], strict=True):
        assert row.time.samples_s == pytest.approx([expected] * report.time.runs, abs=1e-12), row.name
    assert report.time.whole_samples_s == pytest.approx([2 * LINEAR_S + STAMP_S] * report.time.runs)


def test_pairs_alternate_after_a_warm_up():
    """The order alternates between whole first and chain first, so that a drift of the machine favors neither."""
    now, done = Counter(), []
    pairs = engine.take_pairs(now.runs(1e-3, done=done), now.runs(1e-3, done=done), 0.1, 0.0, now=now)
    assert len(pairs.wholes) == len(pairs.chains) == pairs.tried >= 7
    for index, (whole, chain) in enumerate(zip(pairs.wholes, pairs.chains, strict=True)):
        assert chain.total - whole.total == pytest.approx(1e-3 if index % 2 == 0 else -1e-3)


def test_a_third_forward_is_interleaved_with_every_pair():
    """Its order alternates too, and a pair in which it is disturbed is not clean."""
    now, order = Counter(), []

    def named(name, seconds, clean=lambda: True):
        forward = now.runs(seconds)

        def one():
            order.append(name)
            return replace(forward(), clean=clean())

        return one

    quiet = iter([True] * 3 + [True, False] * 50)  # the warm-up has three rounds
    runs = [named("whole", 2e-2), named("chain", 2e-2), named("fused", 1e-2, lambda: next(quiet))]
    pairs = engine.take_pairs(*runs[:2], 0.5, 0.0, beside=runs[2:], now=now)
    rounds = [order[index : index + 3] for index in range(0, len(order), 3)][3:]
    assert rounds == [["whole", "chain", "fused"][:: -1 if index % 2 else 1] for index in range(pairs.tried)]
    ((*fused,),) = pairs.beside
    assert (pairs.tried, pairs.clean_runs) == (10, 5)
    assert len(fused) == len(pairs.wholes) == len(pairs.chains) == 5
    assert all(run.clean for run in fused)


@pytest.mark.parametrize(
    ("run_s", "rounds"), [(1e-3, 25), (8e-3, 4), (9e-3, 3), (50e-3, 3), (0.13, 2), (0.26, 1)], ids=str
)
def test_a_warm_up_takes_five_runs_and_50_ms_unless_a_forward_is_long(run_s, rounds):
    """A round is a whole and a chain, two runs of one forward; the warm-up ends after half a second."""
    now, done = Counter(), []
    pairs = engine.take_pairs(now.runs(run_s, done=done), now.runs(run_s, done=done), 0.1, 0.0, now=now)
    assert len(done) - 2 * pairs.tried == 2 * rounds
    assert min(run.total for run in [*pairs.wholes, *pairs.chains]) == pytest.approx(2 * rounds * run_s)


@pytest.mark.parametrize(
    ("run_s", "clean", "tried"),
    [(1e-3, True, 50), (1e-2, True, 7), (0.2, True, 5), (1e-3, False, 100), (1e-2, False, 10)],
    ids=["the budget is spent", "at least seven", "five if they are long", "twice the budget", "twice, and ten"],
)
def test_pairs_are_taken_until_the_budget_is_spent(run_s, clean, tried):
    """The budget is 0.1 s, and 0.2 s if fewer than five pairs are clean."""
    now = Counter()
    pairs = engine.take_pairs(now.runs(run_s, clean), now.runs(run_s), 0.1, 0.0, now=now)
    assert (pairs.tried, pairs.clean_runs) == (tried, tried if clean else 0)
    assert len(pairs.wholes) == tried  # all pairs are kept if too few are clean


def test_a_pair_is_clean_if_both_of_its_runs_are_clean():
    now = Counter()
    for clean in ((True, False), (False, True)):
        pairs = engine.take_pairs(*(now.runs(1e-3, one) for one in clean), 0.1, 0.0, now=now)
        assert pairs.clean_runs == 0


@pytest.mark.parametrize(("every", "tried", "clean_runs"), [(2, 50, 25), (10, 50, 5), (20, 81, 5), (30, 100, 4)])
def test_only_clean_pairs_are_kept_if_there_are_at_least_five(every, tried, clean_runs):
    """One pair in `every` is clean; the budget of 0.1 s grows to 0.2 s if fewer than five pairs are clean."""
    now, warm_up = Counter(), 25
    whole, chain = now.runs(1e-3), now.runs(1e-3)
    number = iter(range(-warm_up, 1000))

    def sometimes_clean():
        return replace(chain(), clean=next(number) % every == 0)

    pairs = engine.take_pairs(whole, sometimes_clean, 0.1, 0.0, now=now)
    assert (pairs.tried, pairs.clean_runs) == (tried, clean_runs)
    assert len(pairs.wholes) == len(pairs.chains) == (clean_runs if clean_runs >= 5 else tried)
    assert all(run.clean for run in pairs.chains) is (clean_runs >= 5)


def test_progress_follows_the_budget_and_the_missing_clean_pairs():
    now, shares = Counter(), []
    engine.take_pairs(now.runs(5e-3, clean=False), now.runs(5e-3), 0.2, 0.0, shares.append, now=now)
    assert shares == pytest.approx([0.0, *[0.025 * n for n in range(1, 41)], 1.0])  # the limit is twice the budget
    shares.clear()
    engine.take_pairs(now.runs(5e-3), now.runs(5e-3), 0.2, 0.0, shares.append, now=now)
    assert shares == pytest.approx([0.0, *[0.025 * n for n in range(1, 5)], *[0.05 * n for n in range(5, 21)], 1.0])
    shares.clear()
    engine.take_pairs(now.runs(0.1), now.runs(0.1), 0.2, 0.0, shares.append, now=now)
    assert shares == pytest.approx([0.0, *[n / 7 for n in range(1, 8)], 1.0])


class Named(nn.Module):
    """A module whose forward takes some seconds of a counter and records its name."""

    def __init__(self, name, seconds, now, done):
        super().__init__()
        self.name, self.took, self.now, self.done = name, seconds, now, done

    def forward(self, x):
        self.now.seconds += self.took
        self.done.append(self.name)
        return x


@pytest.mark.parametrize(
    ("run_s", "budget_s", "warm_up", "tried"),
    [(1e-3, 0.1, 24, 50), (2e-2, 0.1, 4, 5), (0.2, 0.1, 0, 5), (0.04, 0.1, 4, 5)],
)
def test_forwards_are_interleaved_in_alternating_order(run_s, budget_s, warm_up, tried):
    """The first warm-up round measures the length of a round; if it exceeds the budget, it is the only one."""
    now, done, shares, x = Counter(), [], [], torch.zeros(1)
    forwards = [(Named(name, run_s, now, done), x) for name in "ab"]
    turns = engine.time_in_turn(forwards, budget_s, shares.append, now)
    assert (shares[0], shares[-1], shares) == (0.0, 1.0, sorted(shares))
    rounds = ["".join(done[index : index + 2]) for index in range(0, len(done), 2)]
    assert turns.tried == tried
    assert rounds[: 1 + warm_up] == ["ab"] * (1 + warm_up)
    assert rounds[1 + warm_up :] == [("ab", "ba")[index % 2] for index in range(tried)]
    assert [len(samples) for samples in turns.samples] == [turns.clean_runs if turns.clean_runs >= 5 else tried] * 2


@pytest.mark.parametrize(("clean_from", "clean", "kept", "clock"), [(7, 5, 5, "wall"), (8, 4, 6, "thread")])
def test_five_clean_rounds_are_enough(clean_from, clean, kept, clock, monkeypatch):
    """Of eleven runs of 20 ms, five are the warm-up and six are timed."""
    now, done = Counter(), []
    monkeypatch.setattr(clocks.CpuClock, "is_clean", lambda *_: len(done) >= clean_from)
    turns = engine.time_in_turn([(Named("a", 2e-2, now, done), torch.zeros(1))], 0.11, now=now)
    assert len(done) == 11
    assert (turns.tried, turns.clean_runs, len(turns.samples[0]), turns.clock) == (6, clean, kept, clock)
