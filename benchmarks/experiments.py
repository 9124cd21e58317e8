"""Experiments that justify how attnscope measures times. The results are in README.md in this folder.

    python -m benchmarks.experiments

* Equal caches: wrapping the steps in hooks disturbs the caches, so the untouched run of each pair also wraps and unwraps
  them. The table gives the sum of the steps over the whole forward, with and without this.
* Choice of runs: step times are means over the middle half of the hooked runs, and the whole over that of the untouched
  runs. The alternative takes both over the middle half of the pairs. The table gives the scatter with a dozen pairs.
* Small matmuls in windows, relative to their best time: alone with cached operands, alone after other memory has passed
  through the caches, and within the forward. A time between the first two means that operands were evicted from the
  cache, by neighbours or by other steps.
"""

import math
import random
import statistics
from collections.abc import Callable, Iterator, Sequence

import torch

from attnscope import SwinSpec, ViTSpec, attentions, explore
from attnscope.attentions.spec import Spec
from attnscope.plan.kernels import kernels
from attnscope.profiling import alone, clocks, process
from attnscope.profiling import timing as engine
from attnscope.profiling.building import build, settled

SPECS: dict[str, Spec] = {"ViT-B": ViTSpec(), "Swin stage 1": SwinSpec(), "shifted": SwinSpec(shift=True)}
BUDGET_S, PAIRS, DRAWS = 6.0, 12, 400
PASSING_BYTES, RUNS = 128 * 2**20, 40


def timing(spec: Spec, same_caches: bool) -> engine.Timing:
    """Time many pairs of runs; if `same_caches`, both runs of a pair start with the same caches."""
    module, x = build(spec, torch.device("cpu"))
    if same_caches:
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
    """Return the sum of the steps of each hooked run, and the time of each untouched run, in seconds."""
    return [sum(run) for run in zip(*timing.samples_s, strict=True)], timing.whole.whole_samples_s


def middle_mean(values: Sequence[float], by: Sequence[float]) -> float:
    """Return the mean of the middle half of the values if they are sorted by `by`."""
    order = sorted(range(len(values)), key=by.__getitem__)
    cut = len(order) // 4
    return statistics.fmean(values[index] for index in order[cut : len(order) - cut])


def scatter(timing: engine.Timing, together: bool) -> float:
    """Return the standard deviation of sum over whole, of DRAWS random samples of PAIRS consecutive pairs."""
    steps, wholes = sums(timing)
    ratios = []
    for _ in range(DRAWS):
        first = random.randrange(len(steps) - PAIRS)
        some, others = steps[first : first + PAIRS], wholes[first : first + PAIRS]
        both = [a + b for a, b in zip(some, others, strict=True)]
        ratios.append(middle_mean(some, both if together else some) / middle_mean(others, both if together else others))
    return statistics.stdev(ratios)


def waiting_for_operands(spec: Spec) -> Iterator[str]:
    """Yield a row for each matmul: the kernel's best time, then its median over it if cached, cold and in place."""
    clock, passing = clocks.CpuClock(), torch.ones(PASSING_BYTES // 4)
    report = explore(spec, device="cpu", budget=2.0)
    steps = {step.name: step for step in attentions.plan(spec).steps}

    def median_s(call: Callable[[], object], cold: bool) -> float:
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
            call = alone.call_of(kernel, torch.device("cpu"), torch.float32)
            cached, cold = median_s(call, cold=False), median_s(call, cold=True)
        best = alone.best_times({kernel: math.inf}, torch.device("cpu"), torch.float32, 1)[kernel].warm_s
        assert row.time
        assert row.alone
        in_place = row.time.interquartile_mean_s - (row.alone.warm_s - best)  # without the copies and the scaling
        ratios = " | ".join(f"{seconds / best:.2f}" for seconds in (cached, cold, in_place))
        yield f"| {row.name} | {best * 1e6:.0f} µs | {ratios} |"


def main() -> None:
    process.pin_allocator()
    random.seed(0)
    print("| | sum over whole, same caches | not | scatter of a dozen pairs, separate halves | joint half |")
    print("|---|---|---|---|---|")
    with settled(threads=1, seed=0, device=torch.device("cpu")):
        for name, spec in SPECS.items():
            same, bare = timing(spec, same_caches=True), timing(spec, same_caches=False)
            ratios = [statistics.median(steps) / statistics.median(wholes) for steps, wholes in map(sums, (same, bare))]
            cells = f"{ratios[0]:.4f} | {ratios[1]:.4f} | {scatter(same, False):.4f} | {scatter(same, True):.4f}"
            print(f"| {name} | {cells} |", flush=True)
        print("\n| shifted | best | cached | cold | in place |")
        print("|---|---|---|---|---|")
        for line in waiting_for_operands(SPECS["shifted"]):
            print(line, flush=True)


if __name__ == "__main__":
    main()
