"""Normalize times by yardsticks, to distinguish a slower host from slower code. Does not import torch.

A sample is divided by the slowdown of the host in the same round: the time of the yardstick over its reference time. The
median of these quotients is the time at the reference speed. A change of the host's speed cancels in each round.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from attnscope.reports.report import StepTime, Time, Yardstick

WHOLE = "whole"
"""The name of the slowdown of the whole forward or backward, among those of the yardsticks."""


class Best(NamedTuple):
    """The shortest time of a yardstick that a machine has shown, in seconds, and the day of it."""

    seconds: float
    day: str


def normalize(
    time: Time,
    steps: Mapping[int, StepTime],
    names: Sequence[str | None],
    times: Sequence[int],
    samples: Mapping[str, Sequence[float]],
    best: Mapping[str, Best],
) -> tuple[Time, dict[int, StepTime]]:
    """Return the time of a whole and of its steps with their times at the best speed of the host.

    Args:
        time: the time of the whole.
        steps: the time of each step, by its row in the plan.
        names: the yardstick of each step, by its row; None for a step without one.
        times: the number of identical steps of each row.
        samples: seconds of each run of the yardsticks, by name.
        best: the best time of each yardstick; a yardstick without one is not used.
    """
    samples = {name: runs for name, runs in samples.items() if name in best}
    seconds = dict.fromkeys(samples, 0.0)
    for row, step in steps.items():
        if (name := names[row]) in seconds:
            seconds[name] += times[row] * step.interquartile_mean_s
    total = sum(seconds.values())
    if not total:
        return time, dict(steps)
    yardsticks = [
        Yardstick(name, list(runs), seconds[name] / total, best[name].seconds, best[name].day)
        for name, runs in samples.items()
    ]
    slowdown = {each.name: [sample / each.best_s for sample in each.samples_s] for each in yardsticks}
    of_whole = slowdowns(yardsticks, *best_case(yardsticks))
    whole = replace(
        time,
        yardsticks=yardsticks,
        normalized_s=statistics.median(normalized(time.whole_samples_s, of_whole)),
        host_speed=1 / statistics.median(of_whole),
    )
    return whole, {row: _step(step, names[row], slowdown) for row, step in steps.items()}


def _step(step: StepTime, name: str | None, slowdown: Mapping[str, Sequence[float]]) -> StepTime:
    if name is None or name not in slowdown:
        return step
    return replace(step, yardstick=name, normalized_s=statistics.median(normalized(step.samples_s, slowdown[name])))


def best_case(yardsticks: Sequence[Yardstick]) -> tuple[dict[str, float], dict[str, float]]:
    """Return the share and the best time of each yardstick, by its name."""
    return {each.name: each.share for each in yardsticks}, {each.name: each.best_s for each in yardsticks}


def slowdowns(
    yardsticks: Sequence[Yardstick], shares: Mapping[str, float], reference_s: Mapping[str, float]
) -> list[float]:
    """Return the slowdown of the host in each round: the mean over the yardsticks, weighted by their shares.

    Args:
        yardsticks: the yardsticks of a run.
        shares: the weights of those that take part, by name.
        reference_s: the time of each yardstick at which its slowdown is 1, in seconds.
    """
    taking_part = [yardstick for yardstick in yardsticks if shares.get(yardstick.name)]
    total = sum([shares[yardstick.name] for yardstick in taking_part])
    weights = [shares[each.name] / total / reference_s[each.name] for each in taking_part]
    rounds = zip(*[yardstick.samples_s for yardstick in taking_part], strict=True)
    return [sum([weight * sample for weight, sample in zip(weights, each, strict=True)]) for each in rounds]


def normalized(samples_s: Sequence[float], slowdown: Sequence[float]) -> list[float]:
    """Return each sample divided by the slowdown of the host in its round."""
    return [sample / slow for sample, slow in zip(samples_s, slowdown, strict=True)]


def at_same_speed(
    before: Sequence[Yardstick], after: Sequence[Yardstick]
) -> tuple[dict[str, list[float]], dict[str, list[float]]] | None:
    """Return the slowdowns of the host in each round of two runs, by the name of the yardstick, and those of the WHOLE.

    Both runs have the same references, the medians in the first run. Both have the same weights, the mean shares of the
    yardsticks. Only yardsticks of both runs take part; without one, the result is None.
    """
    ours, others = ({each.name: each for each in yardsticks if each.samples_s} for yardsticks in (before, after))
    shares = {name: (ours[name].share + others[name].share) / 2 for name in ours if name in others}
    if not sum(shares.values()):
        return None
    reference_s = {name: statistics.median(ours[name].samples_s) for name in shares}

    def host(yardsticks: Mapping[str, Yardstick]) -> dict[str, list[float]]:
        each = {name: [sample / reference_s[name] for sample in yardsticks[name].samples_s] for name in shares}
        return {**each, WHOLE: slowdowns(list(yardsticks.values()), shares, reference_s)}

    return host(ours), host(others)
