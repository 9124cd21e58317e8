"""The stages of explore: each returns its results, is empty if not requested, and changes nothing else."""

import copy
from dataclasses import FrozenInstanceError, fields, is_dataclass, replace

import pytest
import torch

from attnscope import SwinSpec, ViTSpec, explore
from attnscope.analyses import measurement
from attnscope.analyses.assembly import assemble_report
from attnscope.analyses.costs import Costs, costs_of
from attnscope.analyses.measurement import (
    BackwardTimes,
    CounterpartTimes,
    ForwardTimes,
    KernelTimes,
    Measurements,
    Roofline,
    measure,
    times_by_row,
)
from attnscope.core.errors import UsageError
from attnscope.profiling.building import build
from attnscope.profiling.options import RunOptions
from attnscope.profiling.verification import (
    Counted,
    CountedBackward,
    Verification,
    compare_backward,
    compare_counts,
    count_by_torch,
    verify_plan,
)
from attnscope.reports import report as reports

SMALL = ViTSpec(dim=12, heads=3, tokens=5)
SHIFTED = SwinSpec(dim=12, resolution=(8, 8), window=4, shift=True)
SHOWN = {"command": None, "focus": (), "figures": ()}
STAGES = [
    *(RunOptions, Costs, Measurements, Verification, ForwardTimes, Roofline),
    *(CounterpartTimes, KernelTimes, BackwardTimes, Counted, CountedBackward),
]


@pytest.mark.parametrize("found", STAGES, ids=lambda found: found.__name__)
def test_the_result_of_a_stage_is_frozen(found):
    assert found.__dataclass_params__.frozen


def test_a_report_and_its_rows_are_frozen():
    kinds = [kind for kind in vars(reports).values() if isinstance(kind, type) and is_dataclass(kind)]
    assert {kind.__name__ for kind in kinds} >= {"Report", "TraceReport", "StepRow", "CallRow", "Time", "KernelRow"}
    assert all(kind.__dataclass_params__.frozen for kind in kinds)
    report = explore(SMALL, time=False)
    with pytest.raises(FrozenInstanceError):
        report.steps[0].time = None


def test_a_stage_that_was_not_requested_is_empty():
    options = RunOptions(device="meta", backward=True, kernels=True)
    found = measure(SHIFTED, costs_of(SHIFTED, options), options)
    assert found.verification.order == tuple(range(len(SHIFTED.plan().steps)))
    empty = Measurements(found.verification, found.environment)
    assert found == empty


def test_a_run_without_times_has_no_backward_times():
    options = RunOptions(device="cpu", time=False, audit=True, backward=True)
    found = measure(SMALL, costs_of(SMALL, options), options)
    assert found.verification.backward_macs == sum(costs_of(SMALL, options).backward_macs)
    assert replace(found, verification=verify_plan(SMALL, SMALL.plan()), environment={}) == Measurements(
        verify_plan(SMALL, SMALL.plan())
    )


def test_assembling_a_report_does_not_change_the_measurements():
    """Two reports from the same measurements are equal and do not share their rows."""
    options = RunOptions(device="cpu", budget=0.01, backward=True)
    costs = costs_of(SHIFTED, options)
    found = measure(SHIFTED, costs, options)
    before = copy.deepcopy((found.forward, found.backward, found.bounds, found.counterpart, found.verification))
    one, two = (assemble_report(SHIFTED, options, costs, found, **SHOWN) for _ in range(2))
    assert one == two
    assert one.steps is not two.steps
    assert before == (found.forward, found.backward, found.bounds, found.counterpart, found.verification)
    for row, step in enumerate(one.steps):
        assert step.time == found.forward.steps[row]
        assert step.roofline == found.bounds.roofline[row]
        assert step.alone == found.bounds.alone[row]
        assert step.bound == found.bounds.former[row]
        assert step.backward.time == found.backward.steps.get(row)
    assert one.complexity.reference_samples_s == list(found.counterpart.reference_samples_s) != []
    assert len(one.complexity.own_samples_s) == len(one.complexity.reference_samples_s) >= 5
    speedup = one.complexity.reference_s / one.complexity.own_s
    assert one.complexity.reference_over_own.low <= speedup <= one.complexity.reference_over_own.high
    assert one.backward.over_forward is not None
    assert (one.complexity.global_s, one.complexity.windowed_s) == (
        found.counterpart.reference_s,
        found.forward.whole.whole_interquartile_mean_s,
    )


def test_a_warning_names_the_measurement_that_it_is_about():
    """Only the backward has too few clean runs."""
    options = RunOptions(device="cpu", budget=0.01, backward=True)
    costs = costs_of(SMALL, options)
    found = measure(SMALL, costs, options)
    fine = {"whole_iqr_s": 0.0, "steps_sum_s": 1.0, "whole_interquartile_mean_s": 1.0, "clean_runs": 9, "tried": 9}
    fine |= {"clock": "wall", "page_faults": 0.0}
    forward = replace(found.forward, whole=replace(found.forward.whole, **fine))
    backward = replace(found.backward, whole=replace(found.backward.whole, **fine))
    busy = replace(backward, whole=replace(backward.whole, clean_runs=0))
    quiet = replace(found, forward=forward, backward=backward)

    def warnings(found):
        return assemble_report(SMALL, options, costs, found, **SHOWN).warnings

    assert warnings(quiet) == []
    (of_backward,) = warnings(replace(quiet, backward=busy))
    assert of_backward.startswith("in the backward, another process was busy during 9 of 9 runs")


def test_step_times_with_synchronization_are_an_upper_bound():
    options = RunOptions(device="cpu", budget=0.01)
    costs = costs_of(SMALL, options)
    found = measure(SMALL, costs, options)
    notes = {
        device: assemble_report(SMALL, replace(options, device=device), costs, found, **SHOWN).notes
        for device in ("cpu", "mps")
    }
    assert notes["mps"] == ["each step waits for the device to finish, so its time is an upper bound"]
    assert notes["cpu"] == []


def test_costs_only_have_backward_macs_if_requested():
    assert costs_of(SMALL, RunOptions()).backward_macs == ()
    known = costs_of(SMALL, RunOptions(device="cpu", backward=True))
    assert (sum(known.backward_macs), known.notes) == (2 * known.plan.macs, ())
    unknown = costs_of(replace(SMALL, kernel="compile"), RunOptions(backward=True))
    assert None in unknown.backward_macs
    assert unknown.notes == ("the MACs of the backward are unknown: compile does not expose what it computes",)


def test_options_are_validated_at_construction():
    with pytest.raises(UsageError, match="budget"):
        RunOptions(budget=0)
    with pytest.raises(UsageError, match="threads"):
        replace(RunOptions(), threads=0)


@pytest.mark.parametrize(
    ("options", "runs", "measures_time"),
    [
        (RunOptions(), True, True),
        (RunOptions(time=False), False, False),
        (RunOptions(time=False, audit=True), True, False),
        (RunOptions(time=False, device="meta"), True, False),
        (RunOptions(device="meta"), True, False),
    ],
)
def test_options_determine_what_runs_and_what_is_timed(options, runs, measures_time):
    assert (options.runs, options.measures_time) == (runs, measures_time)


def test_the_time_of_a_row_is_the_mean_of_its_calls():
    from attnscope.profiling.timing import Timing

    whole = explore(SMALL, device="cpu", budget=0.01).time
    timing = Timing(whole, [[1.0, 2.0], [5.0, 5.0], [3.0, 6.0]], [0, 1])
    times = times_by_row(timing, [0, 1, 0])
    assert times[0].samples_s == [2.0, 4.0]
    assert times[0].interquartile_mean_s == 3.0
    assert times[1].interquartile_mean_s == 5.0


def test_counts_are_compared_step_by_step():
    plan = SMALL.plan()
    closed = SMALL.closed_form()
    right = {place: step.macs for step in plan.steps for place in step.places}
    audit = compare_counts(plan, closed, Counted({**right, "outside the steps": 0}), Counted(right))
    assert audit.agree
    assert audit.declared == audit.closed_form == audit.fvcore == audit.torch == plan.macs
    wrong = compare_counts(
        plan, closed, Counted({**right, "mix": 1, "outside the steps": 7}, ("aten::x",), ("a note",))
    )
    assert not wrong.agree
    assert wrong.notes == [
        "mix: counts disagree: shapes 300, closed form 300, fvcore 1",
        "outside the steps: fvcore counted 7 MACs, which no step of the plan has",
        "a note",
    ]
    assert wrong.fvcore == plan.macs - 300 + 1 + 7
    assert wrong.uncounted == ["aten::x"]
    assert wrong.torch is None
    assert not compare_counts(plan, closed, backward=CountedBackward(1, False, ("they differ",))).agree


def test_torchs_count_is_unavailable_if_it_misses_the_fused_kernel():
    spec = replace(SMALL, kernel="sdpa")
    module, x = build(spec, torch.device("cpu"))
    counted = count_by_torch(module, x, spec.plan())
    assert (counted.macs is None) == bool(counted.notes)
    if counted.macs is not None:
        assert sum(counted.macs.values()) == spec.plan().macs


def test_the_backward_is_compared_as_a_whole():
    plan = SMALL.plan()
    macs = costs_of(SMALL, RunOptions(device="cpu", backward=True)).backward_macs
    assert compare_backward(plan, macs, sum(macs)) == CountedBackward(sum(macs))
    found = compare_backward(plan, macs, 1)
    assert (found.macs, found.agree) == (1, False)
    assert found.notes == (f"backward: counts disagree: shapes {sum(macs):,}, torch 1 MACs",)


def test_global_attention_is_not_timed_if_it_would_take_too_long(monkeypatch):
    monkeypatch.setattr(measurement, "LONGEST_COUNTERPART_S", 0.0)
    report = explore(SHIFTED, device="cpu", budget=0.01)
    assert report.complexity.global_s is None
    assert report.complexity.windowed_s == report.time.whole_interquartile_mean_s
    assert any(note.startswith("global attention was not timed: it would take about") for note in report.notes)


def test_every_field_of_a_row_is_set_by_a_stage():
    """This fails if a field is added to the row but not to the assembly."""
    report = explore(SHIFTED, device="cpu", budget=0.01, backward=True)
    never = {"bytes_allocated"}  # only known on CUDA
    empty = {
        field.name
        for field in fields(reports.StepRow)
        if all(getattr(row, field.name) in (None, "") for row in report.steps)
    }
    assert empty == never | {"part", "path", "stage"}  # only set for a network
