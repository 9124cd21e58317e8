"""Intervals of times: their coverage of simulated distributions, and the verdicts on ratios."""

import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnscope.core.interval import CANNOT_TELL, EQUAL, FASTER, SLOWER, Interval, verdict_on
from attnscope.profiling.intervals import (
    consecutive_blocks,
    interval_of,
    paired_interval,
    ratio_between_processes,
    ratio_of_rounds,
)
from attnscope.render.words import ratio_range, share_range, speed, upper_percent

DRAWS = 1000


def normal(source, runs):
    return [1 + 0.05 * source.gauss(0, 1) for _ in range(runs)]


def skewed(source, runs):
    """Return samples above a floor, as of a time that nothing shortens."""
    return [1 + source.expovariate(10) for _ in range(runs)]


def heavy(source, runs):
    """Return samples of a distribution without a variance (Pareto, exponent 1.5)."""
    return [source.paretovariate(1.5) for _ in range(runs)]


def disturbed(source, runs):
    """Return samples of which a fifth takes up to ten times as long."""
    return [
        (1 + 0.01 * source.gauss(0, 1)) * (source.uniform(1, 10) if source.random() < 0.2 else 1) for _ in range(runs)
    ]


def dependent(source, runs, link=0.7):
    """Return samples that depend on those before (an autoregressive process)."""
    state, found = source.gauss(0, 1), []
    for _ in range(runs):
        state = link * state + math.sqrt(1 - link**2) * source.gauss(0, 1)
        found.append(1 + 0.05 * state)
    return found


def drifting(source, runs):
    """Return samples that become 20% slower on the way; their median over all times is 1."""
    return [(0.9 + 0.2 * i / (runs - 1)) * (1 + 0.02 * source.gauss(0, 1)) for i in range(runs)]


MEDIANS = {
    normal: 1.0,
    skewed: 1 + math.log(2) / 10,
    heavy: 2 ** (1 / 1.5),
    disturbed: None,
    dependent: 1.0,
    drifting: 1.0,
}
"""The median of each distribution; None if it is taken from many samples."""


INDEPENDENT = [draw for draw in MEDIANS if draw is not dependent]


def median_of(draw):
    return MEDIANS[draw] or statistics.median(draw(random.Random(1), 200_001))


@pytest.mark.parametrize("runs", [5, 7, 20, 60, 300])
@pytest.mark.parametrize("draw", INDEPENDENT)
def test_the_interval_covers_the_median(draw, runs):
    source, median = random.Random(runs), median_of(draw)
    found = [interval_of(draw(source, runs)) for _ in range(DRAWS)]
    share = sum(each.low <= median <= each.high for each in found) / DRAWS
    assert share >= (0.93 if runs < 6 else 0.95) - 3 * math.sqrt(0.05 * 0.95 / DRAWS)


@pytest.mark.parametrize("runs", [60, 300])
def test_the_interval_covers_the_median_of_many_dependent_runs(runs):
    """The interval of few dependent runs is too narrow: docs/timing.md gives the coverage."""
    source = random.Random(runs)
    found = [interval_of(dependent(source, runs)) for _ in range(DRAWS)]
    assert sum(each.low <= 1 <= each.high for each in found) >= 0.95 * DRAWS


@pytest.mark.parametrize("runs", [7, 20, 60])
@pytest.mark.parametrize("draw", INDEPENDENT)
def test_identical_times_are_rarely_slower_or_faster(draw, runs):
    """Verdicts on two runs with the same distribution, without the difference between processes."""
    source = random.Random(runs)
    verdicts = [verdict_on(interval_of(draw(source, runs)).over(interval_of(draw(source, runs)))) for _ in range(DRAWS)]
    assert sum(verdict in (FASTER, SLOWER) for verdict in verdicts) <= 0.05 * DRAWS


def test_a_narrow_interval_detects_a_real_difference():
    source = random.Random(0)
    slower = [verdict_on(interval_of([1.25 * s for s in normal(source, 20)]).over(interval_of(normal(source, 20))))
              for _ in range(500)]  # fmt: skip
    assert slower.count(SLOWER) >= 0.8 * 500


@pytest.mark.parametrize("rounds", [5, 7, 20, 60, 300])
def test_paired_ratios_of_identical_contenders_seldom_exclude_1(rounds):
    """A drift of the machine affects both runs of a round alike."""
    source, excluded = random.Random(rounds), 0
    for _ in range(DRAWS):
        drift = dependent(source, rounds, link=0.95)
        ratios = [d * (1 + 0.01 * source.gauss(0, 1)) / (d * (1 + 0.01 * source.gauss(0, 1))) for d in drift]
        found = paired_interval(ratios)
        excluded += not found.low <= 1 <= found.high
    assert excluded / DRAWS <= (0.0625 if rounds < 6 else 0.05) + 3 * math.sqrt(0.05 * 0.95 / DRAWS)


def test_fewer_than_five_samples_have_no_interval():
    assert interval_of([1.0] * 4) is paired_interval([1.0] * 4) is None
    assert interval_of([1.0, 2.0, 3.0, 4.0, 5.0]) == Interval(1.0, 5.0)


def test_the_blocks_are_consecutive_and_complete():
    blocks = consecutive_blocks(list(range(20)), 6)
    assert [x for block in blocks for x in block] == list(range(20))
    assert {len(block) for block in blocks} == {3, 4}


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [(Interval(1.01, 1.2), SLOWER), (Interval(0.8, 0.99), FASTER), (Interval(0.91, 1.09), EQUAL),
     (Interval(0.89, 1.0), CANNOT_TELL), (Interval(1.0, 1.11), CANNOT_TELL), (None, CANNOT_TELL)],
)  # fmt: skip
def test_the_verdict_follows_from_the_interval(ratio, verdict):
    assert verdict_on(ratio) == verdict


def test_an_interval_is_widened_and_divided_outwards():
    assert Interval(1.0, 2.0).widened(0.1, 0.5) == Interval(0.4, 2.7)
    assert Interval(1.0, 2.0).widened(0.1, 5.0).low == 0
    assert Interval(2.0, 3.0).over(Interval(1.0, 4.0)) == Interval(0.5, 3.0)
    assert Interval(2.0, 3.0).over(Interval(0.0, 4.0)) is None


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(13.2, 15.7, "13–16×"), (1.181, 1.2239, "1.18–1.23×"), (0.92, 1.31, "0.9–1.4×"), (47, 111, "47–111×"),
     (2.0, 2.0, "2.00×"), (1.04, 1.38, "1.04–1.38×"), (0.77, 0.92, "0.77–0.92×"),
     (1.0034, 1.108, "1.003–1.11×"), (0.9028, 0.99962, "0.90–0.9997×"), (1.0005, 1.0008, "1.0005–1.01×"),
     (1.0, 1.108, "1.0–1.2×"), (1.0034, 2.9, "1.003–2.90×")],
)  # fmt: skip
def test_a_ratio_has_only_the_digits_that_its_interval_leaves(low, high, words):
    assert ratio_range(Interval(low, high)) == words


@pytest.mark.parametrize(
    ("ratio", "value", "words"),
    [(Interval(13.2, 15.7), 14.0, "13–16× faster"), (Interval(0.0625, 0.0714), 0.07, "14–16× slower"),
     (Interval(0.97, 1.02), 1.0, "unclear which is faster: 0.97–1.02×"), (None, 13.9, "about 10× faster, too few runs"),
     (None, 0.5, "about 2× slower, too few runs"),
     (Interval(12.0, 48.0), 14.0, "12–48× faster, unstable: use a longer --budget"),
     (Interval(0.8, 1.2), 1.0, "unclear which is faster: 0.8–1.2×, unstable: use a longer --budget")],
)  # fmt: skip
def test_a_speed_has_its_interval_and_says_if_it_is_unstable(ratio, value, words):
    assert speed(ratio, value) == words


@given(st.floats(1.00001, 20), st.floats(1, 3))
def test_printed_ends_include_1_only_if_the_interval_does(low, width):
    for ratio in (Interval(low, low * width), Interval(low, low * width).inverse, Interval(1 / low, low * width)):
        ends = [float(end) for end in ratio_range(ratio).removesuffix("×").split("–")]
        assert (ends[0] <= 1 <= ends[-1]) is (ratio.low <= 1 <= ratio.high)


def test_a_speed_leaves_the_fix_out_if_another_line_has_it():
    assert speed(Interval(12.0, 48.0), 14.0, with_fix=False) == "12–48× faster, unstable"


def test_a_ratio_of_rounds_is_paired_and_allows_for_the_places_of_weights():
    drift = [1.0, 2.0, 3.0, 4.0, 5.0]
    assert ratio_of_rounds([2 * each for each in drift], drift) == Interval(1.98, 2.02)
    assert ratio_of_rounds(drift[:4], drift[:4]) is None


@pytest.mark.parametrize(
    ("high", "unstable"), [(1.25, False), (1.26, True)]
)  # fmt: skip
def test_an_interval_of_a_quarter_is_unstable(high, unstable):
    assert Interval(1.0, high).is_unstable is Interval(2.0, 2 * high).is_unstable is unstable


def test_a_share_is_rounded_outwards():
    assert [share_range(each) for each in (Interval(0.121, 0.149), Interval(0.12, 0.12), None)] == [
        "12–15%",
        "12%",
        "?",
    ]


def test_a_percentage_is_rounded_up():
    assert [upper_percent(share) for share in (0.0201, 0.02, 0.0)] == ["3%", "2%", "0%"]


def test_an_interval_has_the_medians_of_six_blocks():
    """Blocks of three samples have at most one outlier each; five or seven blocks would have one with more weight."""
    ratios = [9.0 if index in (0, 5, 6) else 2.0 for index in range(18)]
    interval = paired_interval(ratios)
    assert (interval.low, interval.high) == (2.0, 2.0)


@pytest.mark.parametrize(
    ("before", "after", "left_out"), [(5, 5, 2), (5, 6, 3), (6, 6, 5), (10, 10, 23), (20, 20, 127)]
)
def test_a_ratio_of_processes_leaves_out_as_many_pairs_as_the_tables_of_mann_and_whitney(before, after, left_out):
    """The critical values of the two-sided test at 5% (Hollander, Wolfe and Chicken, table A.6)."""
    slow, fast = [1 + 0.1 * index for index in range(before)], [2 + 0.03 * index for index in range(after)]
    ratios = sorted(one / other for one in fast for other in slow)
    found = ratio_between_processes(slow, fast)
    assert (found.low, found.high) == (ratios[left_out], ratios[-1 - left_out])


def test_a_ratio_of_processes_needs_five_of_each():
    assert ratio_between_processes([1.0] * 5, [2.0] * 5) == Interval(2.0, 2.0)
    assert ratio_between_processes([1.0] * 4, [2.0] * 9) is None


@pytest.mark.parametrize("draw", [normal, skewed, heavy, disturbed])
@pytest.mark.parametrize("processes", [5, 6, 10])
def test_a_ratio_of_processes_contains_the_true_one(draw, processes):
    source = random.Random(processes)
    found = [
        ratio_between_processes(draw(source, processes), [1.25 * each for each in draw(source, processes)])
        for _ in range(DRAWS)
    ]
    assert sum(each.low <= 1.25 <= each.high for each in found) >= 0.94 * DRAWS
