"""Candidates -> Comparison: modules, attentions and networks as they are, on inputs of one size."""

import math
import platform
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attnscope.analyses.contenders import Contender
from attnscope.analyses.paper_comparison import set_ratios
from attnscope.analyses.quantities import QUANTITIES
from attnscope.analyses.timed_comparison import (
    Progress,
    check_race,
    measured,
    measured_intervals,
    measured_ratios,
    noise_warnings,
)
from attnscope.attentions.spec import FRAMES, Spec
from attnscope.core.axes import spell
from attnscope.core.errors import FAILURES, AttnscopeError, UsageError, did_you_mean, quoted, ran_out_of_memory
from attnscope.core.sizes import Pair
from attnscope.core.version import __version__
from attnscope.profiling.building import build, resident_bytes, settled, shortage
from attnscope.profiling.candidates import Candidate
from attnscope.profiling.noise import disturbances
from attnscope.profiling.printing import prints_on_stderr
from attnscope.reports.comparison import MODULE, Comparison, LeftOut, Point
from attnscope.reports.comparison import Contender as ContenderWords

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

HEAD_DIM = 32
"""Channels of a head without a number of heads, as in Swin."""
OF_MODULES = ("macs", "flops", "params", "peak", "bytes", "latency", "throughput", "latency-per-mac")
"""The quantities that a module of any origin has."""

Forward = tuple["nn.Module", "tuple[Tensor, ...]"]
"""A module and its inputs."""


def of_spec(label: str, words: str, spec: Spec) -> Candidate:
    """Return an attention or a network as a candidate."""
    values = {name: QUANTITIES[name] for name in OF_MODULES}
    counts = {name: quantity.of(spec) for name, quantity in values.items() if quantity.of}
    bounds = {name: values[name].at_least for name, count in counts.items() if count is None and values[name].at_least}
    at_least = {name: least(spec) for name, least in bounds.items() if least}
    return Candidate(
        label=label,
        words=f"{words}, input {spell(spec.input_shape)}",
        counts={name: None if count is None else int(count) for name, count in counts.items()},
        at_least=at_least,
        resident_bytes=resident_bytes(spec.plan()),
        peak_bytes=int(counts["peak"] or at_least["peak"]),
        build=lambda device: build(spec, device),
        shape=spec.input_shape,
    )


def spec_for(contender: Contender, shape: Sequence[int], settings: Mapping[str, Any]) -> Spec:
    """Return the Spec of an attention or a network on the input of a module.

    Args:
        contender: the attention or the network.
        shape: (b, h, w, c), (b, t, h, w, c) for a video, or (b, n, c); (b, 3, height, width) for a network. Tokens without
            a grid are a square, or a row if an attention takes sequences.
        settings: fields of the Spec. Without heads, each has 32 channels if the embedding dimension allows it.

    Raises:
        UsageError: the shape is not that of tokens or images, or the contender cannot take it.
    """
    batch, *sides = shape or (0,)
    if contender.is_network:
        if len(sides) != 3 or sides[0] != 3:
            raise UsageError(f"{{input}} must be b,3,height,width for {contender.label} (got {_spelled(shape)})")
        return contender.at((sides[1], sides[2]), {**settings, "batch": batch})
    if len(sides) not in (2, 3, 4):
        raise UsageError(
            f"{{input}} must be b,n,c or b,h,w,c for {contender.label} (got {_spelled(shape)}) as its first input"
        )
    *sides, dim = sides
    frames = sides.pop(0) if len(sides) == 3 else 1
    grid = _grid(contender, sides)
    heads = dim // HEAD_DIM if dim % HEAD_DIM == 0 else 1
    return contender.at(grid, {"heads": heads, **settings, "dim": dim, "batch": batch, FRAMES: frames})


def _grid(contender: Contender, sides: Sequence[int]) -> Pair:
    """Return the grid of tokens; that of a sequence is a square if it can be, since its tokens have no places.

    Raises:
        UsageError: the contender takes a grid, and these tokens are not a square.
    """
    if len(sides) == 2:
        return sides[0], sides[1]
    side = math.isqrt(sides[0])
    if side**2 == sides[0]:
        return side, side
    if contender.takes_grids:
        raise UsageError(
            f"{contender.label} takes a grid of tokens, and {sides[0]} are not a square; use {{input}} b,h,w,c, or remove "
            f"{contender.label}"
        )
    return 1, sides[0]


def _spelled(shape: Sequence[int]) -> str:
    return ",".join(map(str, shape))


def candidates_of(
    makers: Mapping[str, Callable[[], Candidate]],
) -> tuple[list[Candidate], list[LeftOut]]:
    """Make the candidates, and leave out those that fail with an error of their own, with its reason.

    Args:
        makers: a function for each label.

    Raises:
        UsageError: an argument is not allowed.
        AttnscopeError: fewer than two candidates can be compared.
    """
    found: list[Candidate] = []
    failures: dict[str, AttnscopeError] = {}
    for label, make in makers.items():
        try:
            found.append(make())
        except UsageError:
            raise
        except AttnscopeError as error:
            failures[label] = error
    if len(found) < 2:
        raise next(iter(failures.values()))
    return found, [LeftOut({}, str(error), 1, label) for label, error in failures.items()]


def count_modules(
    candidates: Sequence[Candidate],
    quantity: str = "macs",
    *,
    title: str = "",
    command: str | None = None,
    left_out: Sequence[LeftOut] = (),
    is_timed: bool = False,
) -> Comparison:
    """Return the comparison of candidates by their counts; the others are compared with the first one.

    Args:
        candidates: two or more.
        quantity: one of OF_MODULES.
        title: the input, for the title.
        command: the command line, for the record.
        left_out: candidates that failed, with the reasons.
        is_timed: whether `race_modules` times them afterwards, as a measured quantity requires.

    Raises:
        UsageError: modules do not have the quantity.
    """
    if quantity not in OF_MODULES:
        fix = did_you_mean(quantity, OF_MODULES) if quantity not in QUANTITIES else f"use {', '.join(OF_MODULES)}"
        raise UsageError(f"{{quantity}} {quoted(quantity)} is not a quantity of modules; {fix}")
    if QUANTITIES[quantity].is_measured and not is_timed:
        raise UsageError(f"{{quantity}} {quantity} requires times; add {{time}} to the command attnscope compare")
    labels = [each.label for each in candidates]
    costs = {each.label: each.counts.get(quantity) for each in candidates}
    at_least = {each.label: each.at_least[quantity] for each in candidates if quantity in each.at_least}
    point = Point({}, None, dict(costs), {}, {}, at_least=at_least)
    set_ratios([point], labels)
    return Comparison(
        command=command,
        title=" · ".join(filter(None, [QUANTITIES[quantity].title.format(part="one forward"), title])),
        quantity=quantity,
        unit=QUANTITIES[quantity].unit,
        contenders=[ContenderWords(each.label, each.label, each.words) for each in candidates],
        axes=[],
        settings={},
        environment={"attnscope": __version__, "python": platform.python_version()},
        points=[point],
        reference=0,
        crossovers=[],
        agree=True,
        left_out=list(left_out),
        warnings=[f"{each.label}: {note}" for each in candidates for note in each.notes],
        part=MODULE,
    )


def race_modules(
    comparison: Comparison,
    candidates: Sequence[Candidate],
    *,
    device: str = "auto",
    budget: float = 0.3,
    threads: int = 1,
    seed: int = 0,
    progress: Progress = lambda done, total, words: None,
) -> None:
    """Time the candidates, interleaved, and write the times into the comparison.

    Candidates whose parameters have the same names and shapes as those of the first one get its weights. Their outputs are
    compared with its output. One that does not fit in memory or fails is recorded in `not_timed`; the others are timed.

    Args:
        comparison: the result of `count_modules` for these candidates.
        candidates: the candidates.
        device, budget, threads, seed: as in `explore`.
        progress: a function that is called before and after the measurement.

    Raises:
        UsageError: an argument is not allowed.
        DeviceError: the device is not available, or does not support a dtype.
    """
    from attnscope.profiling.devices import environment, find_device
    from attnscope.profiling.timing import time_in_turn

    check_race(device, budget, threads, seed)
    found = find_device(device)
    comparison.environment |= environment(found, threads, seed)
    (point,) = comparison.points
    with settled(threads, seed, found), prints_on_stderr(repeats=True):
        progress(0, 1, "the forwards in turn")
        forwards = _runnable(comparison, candidates, found, seed)
        if not forwards:
            return
        comparison.same_outputs = _compare_outputs(forwards)
        turns = time_in_turn(list(forwards.values()), budget)
    point.times = {label: measured(samples) for label, samples in zip(forwards, turns.samples, strict=True)}
    _set_measured(comparison, candidates)
    point.measured_ratio = measured_ratios(point.times, comparison.labels[0])
    point.measured_interval = measured_intervals(point.times, comparison.labels[0])
    comparison.warnings += [*disturbances(turns, threads, found.type)[:1], *noise_warnings(comparison)]
    progress(1, 1, "done")


def _set_measured(comparison: Comparison, candidates: Sequence[Candidate]) -> None:
    """Compute a measured quantity from the times."""
    (point,) = comparison.points
    by_label = {each.label: each for each in candidates}
    for label, time in point.times.items():
        point.costs[label] = by_label[label].measured(time.median_s).get(comparison.quantity, point.costs[label])
    set_ratios([point], comparison.labels)


def _runnable(
    comparison: Comparison, candidates: Sequence[Candidate], device: "torch.device", seed: int
) -> dict[str, Forward]:
    """Return the modules that run on the device, by label; record why the others do not."""
    from attnscope.profiling.devices import seeded
    from attnscope.profiling.kernels import why_not
    from attnscope.profiling.outputs import not_finite, tensors_of
    from attnscope.profiling.timing import measuring

    forwards: dict[str, Forward] = {}
    resident = peak = 0
    for each in candidates:
        short = shortage(resident + each.resident_bytes + max(peak, each.peak_bytes), device)
        reason = f"{'the contenders together need' if forwards else 'it needs'} {short}" if short else None
        try:
            if reason is None:
                with seeded(device, seed):  # equal constructions have equal weights and inputs
                    forward = each.build(device)
                with measuring():
                    output = forward[0](*forward[1])
                if warning := not_finite(tensors_of(output), f"the output of {each.label}"):
                    comparison.warnings.append(warning)
                forwards[each.label] = forward
                resident, peak = resident + each.resident_bytes, max(peak, each.peak_bytes)
        except AttnscopeError as error:
            reason = str(error)
        except FAILURES as error:
            is_memory = ran_out_of_memory(error)
            reason = f"it did not fit in the memory of {device.type}" if is_memory else why_not(error, [])
        if reason is not None:
            comparison.not_timed.append(LeftOut({}, reason, 1, each.label))
    return forwards


def _compare_outputs(forwards: Mapping[str, Forward]) -> dict[str, float | None]:
    """Give the modules the weights of the first one if they fit, and compare their outputs with its output.

    Returns:
        The largest difference over the largest output of the first one, by label; None if weights or outputs have other
        names or shapes.
    """
    from attnscope.profiling.timing import measuring

    (_, (baseline, x)), *others = forwards.items()
    weights = baseline.state_dict()
    shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    found: dict[str, float | None] = {}
    with measuring():
        expected = baseline(*x)
        for label, (module, own) in others:
            has_same = {name: tuple(weight.shape) for name, weight in module.state_dict().items()} == shapes
            found[label] = None
            if has_same and [tuple(tensor.shape) for tensor in own] == [tuple(tensor.shape) for tensor in x]:
                module.load_state_dict(weights)
                found[label] = _difference(module(*x), expected)
    return found


def _difference(output: Any, expected: Any) -> float | None:
    """Return the largest difference of two tensors over the largest value; None if they are not comparable tensors.

    Values that are NaN or infinite in both are left out.
    """
    if not (hasattr(output, "shape") and hasattr(expected, "shape")) or output.shape != expected.shape:
        return None
    finite = expected.isfinite()
    if not bool((output.isfinite() == finite).all()):
        return None
    output, expected = output[finite], expected[finite]
    largest = float(expected.abs().max()) if expected.numel() else 0.0
    difference = float((output - expected).abs().max()) if expected.numel() else 0.0
    return difference / largest if largest else difference
