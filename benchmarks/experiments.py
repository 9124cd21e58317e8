"""Experiments behind the way in which times are measured. What they gave stands in README.md beside this file.

    python -m benchmarks.experiments

* Both runs of a pair begin with the same caches: what puts a listener around the steps disturbs them, so the untouched run
  has it put around and taken away as well. With and without that, the sum of the steps over the whole.
* Rows are means over the middle half of the watched runs, the whole is one of the untouched runs. Or both of the middle
  half of the pairs: how much each way scatters where only a dozen pairs are there.
* The kernels of the small matmuls in windows, held against their best: alone on operands at hand; alone after other memory
  has passed through the caches; and in place. What is in place above the first and below the second waits for operands
  that neighbours, or the steps between, drove out of the cache.
"""

import math
import random
import statistics
from collections.abc import Callable, Iterator, Sequence

import torch

from attnscope import SwinSpec, ViTSpec, attentions, explore
from attnscope.attentions.spec import Spec
from attnscope.plan.roofline import kernels
from attnscope.profiling import clocks, peaks, process
from attnscope.profiling import timing as engine
from attnscope.profiling.building import build, settled

SPECS: dict[str, Spec] = {"ViT-B": ViTSpec(), "Swin stage 1": SwinSpec(), "shifted": SwinSpec(shift=True)}
BUDGET_S, PAIRS, DRAWS = 6.0, 12, 400
PASSING_BYTES, RUNS = 128 * 2**20, 40


def timing(spec: Spec, alike: bool) -> engine.Timing:
    """Many pairs of a Spec; the two runs of each begin alike, or not."""
    module, x = build(spec, torch.device("cpu"))
    if alike:
        return engine.time_steps(module, x, BUDGET_S)
    take_pairs = engine.take_pairs

    def bare(whole, chain, *rest):
        clock = clocks.CpuClock()
        return take_pairs(lambda: clocks.run(clock, lambda: module(*x), []), chain, *rest)

    engine.take_pairs = bare
    try:
        return engine.time_steps(module, x, BUDGET_S)
    finally:
        engine.take_pairs = take_pairs


def sums(timing: engine.Timing) -> tuple[list[float], list[float]]:
    """The sum of the steps of each watched run, and the untouched run beside it."""
    return [sum(run) for run in zip(*timing.samples_s, strict=True)], timing.whole.whole_samples_s


def middle_mean(values: Sequence[float], by: Sequence[float]) -> float:
    """The mean of the values of the middle half, in the order of `by`."""
    order = sorted(range(len(values)), key=by.__getitem__)
    cut = len(order) // 4
    return statistics.fmean(values[index] for index in order[cut : len(order) - cut])


def scatter(timing: engine.Timing, together: bool) -> float:
    """The standard deviation of sum over whole, of PAIRS pairs in a row drawn again and again."""
    steps, wholes = sums(timing)
    ratios = []
    for _ in range(DRAWS):
        first = random.randrange(len(steps) - PAIRS)
        some, others = steps[first : first + PAIRS], wholes[first : first + PAIRS]
        both = [a + b for a, b in zip(some, others, strict=True)]
        ratios.append(middle_mean(some, both if together else some) / middle_mean(others, both if together else others))
    return statistics.stdev(ratios)


def waiting_for_operands(spec: Spec) -> Iterator[str]:
    """A row for each matmul: the kernel's best, and over it the middle of its runs at hand, cold, and in place."""
    clock, passing = clocks.CpuClock(), torch.ones(PASSING_BYTES // 4)
    report = explore(spec, device="cpu", budget=2.0)
    steps = {step.name: step for step in attentions.plan(spec).steps}

    def middle_s(call: Callable[[], object], cold: bool) -> float:
        runs = []
        for _ in range(RUNS):
            if cold:
                passing.add_(1)
            runs.append(clocks.run(clock, call, []).total)
        return statistics.median(runs)

    for row in report.steps:
        if row.name not in ("score", "mix"):
            continue
        (kernel,) = [kernel for kernel in kernels([steps[row.name]]) if kernel.kind == "batched"]
        with engine.measuring():
            call = peaks._call(kernel, torch.device("cpu"), torch.float32)
            at_hand, cold = middle_s(call, cold=False), middle_s(call, cold=True)
        best = peaks.best_seconds({kernel: math.inf}, torch.device("cpu"), torch.float32, 1)[kernel]
        assert row.time
        assert row.bound
        in_place = row.time.interquartile_mean_s - (
            row.bound.seconds - best
        )  # less the copies and the scaling around it
        ratios = " | ".join(f"{seconds / best:.2f}" for seconds in (at_hand, cold, in_place))
        yield f"| {row.name} | {best * 1e6:.0f} µs | {ratios} |"


def main() -> None:
    process.pin_allocator()
    random.seed(0)
    print("| | sum over whole, alike | not | scatter of a dozen pairs, each by itself | together |")
    print("|---|---|---|---|---|")
    with settled(threads=1, seed=0, device=torch.device("cpu")):
        for name, spec in SPECS.items():
            alike, bare = timing(spec, alike=True), timing(spec, alike=False)
            ratios = [
                statistics.median(steps) / statistics.median(wholes) for steps, wholes in map(sums, (alike, bare))
            ]
            told = f"{ratios[0]:.4f} | {ratios[1]:.4f} | {scatter(alike, False):.4f} | {scatter(alike, True):.4f}"
            print(f"| {name} | {told} |", flush=True)
        print("\n| shifted | at best | at hand | cold | in place |")
        print("|---|---|---|---|---|")
        for line in waiting_for_operands(SPECS["shifted"]):
            print(line, flush=True)


if __name__ == "__main__":
    main()
