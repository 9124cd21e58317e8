"""Statistics of samples and of timings."""

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnscope.profiling.clocks import Timed
from attnscope.profiling.load import Load
from attnscope.profiling.statistics import (
    Samples,
    interquartile_range,
    mean_at,
    median_if_any,
    middle_half,
    quartiles,
)
from attnscope.profiling.timing import Pairs, statistics_of

seconds = st.floats(0.001, 1000.0)


def pairs_of(chains: list[list[float]], wholes: list[float]) -> Pairs:
    return Pairs([Timed(c, True) for c in chains], [Timed([w], True) for w in wholes], 1, 0.0, 1, Load(None, None))


@pytest.mark.parametrize(
    ("samples", "kept"),
    [([5.0], [5.0]), ([3.0, 1.0, 2.0], [1.0, 2.0, 3.0]), ([9.0, 1.0, 2.0, 3.0], [2.0, 3.0]), (range(9), range(2, 7))],
)
def test_the_middle_half_excludes_a_quarter_at_each_end(samples, kept):
    assert [samples[position] for position in middle_half(samples)] == list(kept)


def test_the_interquartile_mean_is_not_the_median():
    """The middle half 2, 3, 4, 9 has mean 4.5 and median 3.5; outliers affect neither."""
    samples = Samples([0.0, 2.0, 3.0, 4.0, 9.0, 1000.0])
    assert samples.interquartile_mean_s == 4.5
    assert samples.quartiles_s[1] == 3.5


def test_quartiles_are_interpolated():
    assert quartiles([1.0, 2.0, 3.0, 4.0, 5.0]) == (2.0, 3.0, 4.0)
    assert quartiles([7.0]) == (7.0, 7.0, 7.0)
    assert interquartile_range([1.0, 2.0, 3.0, 4.0, 5.0]) == 2.0
    assert interquartile_range([1.0]) == 0.0


def test_the_median_of_an_empty_list_is_unknown():
    assert median_if_any([]) is None
    assert median_if_any([3.0, 1.0, 2.0]) == 2.0


@given(st.lists(seconds, min_size=1, max_size=40))
def test_the_interquartile_mean_is_within_the_range_of_the_samples(samples):
    found = Samples(samples).interquartile_mean_s
    assert min(samples) <= found * (1 + 1e-12)
    assert found <= max(samples) * (1 + 1e-12)
    if len(samples) > 3:
        rest = sorted(samples)[1:-1]
        assert Samples([min(samples) / 10, *rest, 10 * max(samples)]).interquartile_mean_s == found


def test_interquartile_means_of_steps_add_up_to_that_of_their_sum():
    """Medians of these steps do not add up: 1.3% is missing."""
    randomness = random.Random(0)
    chains = [[randomness.uniform(1, 2), randomness.uniform(3, 4), 0.1] for _ in range(20)] + [[900.0, 1.0, 0.1]]
    timing = statistics_of(pairs_of(chains, [5.0] * 21))
    first, second = timing.time_of([0]), timing.time_of([1])
    assert first.interquartile_mean_s + second.interquartile_mean_s == pytest.approx(timing.whole.steps_sum_s)
    assert timing.whole.steps_sum_s == pytest.approx(timing.time_of([0, 1]).interquartile_mean_s)
    assert timing.whole.steps_sum_s < 6
    assert len(timing.middle) == 11
    medians = [statistics.median(chain[step] for chain in chains) for step in (0, 1)]
    assert sum(medians) != pytest.approx(timing.whole.steps_sum_s, rel=1e-3)


def test_a_row_of_several_steps_has_their_mean_in_each_run():
    timing = statistics_of(pairs_of([[1.0, 3.0, 0.0], [2.0, 6.0, 0.0], [3.0, 3.0, 0.0]], [5.0, 8.0, 6.0]))
    time = timing.time_of([0, 1], instances=2)
    assert time.samples_s == [2.0, 4.0, 3.0]
    assert time.interquartile_mean_s == mean_at(time.samples_s, timing.middle) == 3.0


def test_the_whole_is_that_of_untouched_runs_and_the_remainder_is_not_a_step():
    whole = statistics_of(pairs_of([[1.0, 2.0, 0.5]] * 5, [4.0, 3.0, 4.0, 5.0, 99.0])).whole
    assert whole.whole_samples_s == [4.0, 3.0, 4.0, 5.0, 99.0]
    assert whole.whole_interquartile_mean_s == pytest.approx(13 / 3)
    assert whole.whole_iqr_s == 1.0
    assert whole.steps_sum_s == 3.0
    assert whole.remainder_s == pytest.approx(4 / 3)
    assert whole.runs == 5
    assert (whole.cpu_share, whole.page_faults) == (None, None)
