"""False verdicts of measured comparisons: how often a leader is named among identical contenders.

    python -m benchmarks.verdicts [RACES] [BUDGET_S]

`vit` and `vit:kernel=eager` are the same module. A race builds both, times them interleaved, and judges the interval of
their paired ratios. The rate must be at most 5%. The table also gives the former rule, disjoint interquartile ranges, and
the quartiles of the measured ratio over all races.
"""

import sys

from attnscope.profiling import process

process.pin_allocator()  # before torch is imported, as the command does

from attnscope.analyses.compare import on_paper  # noqa: E402
from attnscope.analyses.contenders import arrange  # noqa: E402
from attnscope.analyses.timed_comparison import paired_ratio, race  # noqa: E402
from attnscope.profiling.statistics import quartiles  # noqa: E402

CONTENDERS = ("vit", "vit:kernel=eager")
RACES, BUDGET_S = 50, 0.3


def main(races: int, budget_s: float) -> None:
    """Print the rates of false verdicts, and what the races looked like."""
    named, disjoint, rounds, widths, medians = 0, 0, [], [], []
    for seed in range(races):
        meeting = arrange(CONTENDERS, {"resolution": [14]}, {})
        comparison = on_paper(meeting)
        race(comparison, meeting, device="cpu", budget=budget_s, seed=seed)
        (point,) = comparison.points
        one, other = (point.times[label] for label in CONTENDERS)
        found = paired_ratio(point.times, *CONTENDERS)
        named += found is not None and not found.low <= 1 <= found.high
        disjoint += one.high_s < other.low_s or other.high_s < one.low_s
        rounds.append(len(one.samples_s))
        medians.append(one.median_s / other.median_s)
        if found is not None:
            widths.append(found.high - found.low)
    print("| figure | value | must be |")
    print("|---|---|---|")
    print(f"| races in which a leader is named | {named} of {races} ({named / races:.0%}) | at most 5% |")
    print(f"| disjoint interquartile ranges, the former rule | {disjoint} of {races} ({disjoint / races:.0%}) | |")
    print(f"| ratio of medians, quartiles | {' '.join(f'{each:.3f}' for each in quartiles(medians))} | |")
    print(f"| width of the interval, quartiles | {' '.join(f'{each:.3f}' for each in quartiles(widths))} | |")
    print(f"| rounds, quartiles | {' '.join(f'{each:.0f}' for each in quartiles(rounds))} | |")


if __name__ == "__main__":
    arguments = sys.argv[1:]
    main(int(arguments[0]) if arguments else RACES, float(arguments[1]) if arguments[1:] else BUDGET_S)
