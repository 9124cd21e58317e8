"""Thresholds for warnings about noisy times: a value just below has no warning, a value just above has one."""

from dataclasses import fields, replace

import pytest

from attnscope.profiling import process
from attnscope.profiling.noise import disturbances, doubts
from tests.test_measuring import FINE


def warnings(threads=1, device="cpu", cores=2, time=FINE, **changed):
    return doubts(replace(time, **changed), threads, device, cores, "default")


def seconds_times(factor, time):
    """Return the same runs on a machine that is slower by a factor."""
    values = {field.name: getattr(time, field.name) for field in fields(time) if field.init}
    return replace(
        time, **{name: factor * s for name, s in values.items() if name.endswith("_s") and isinstance(s, float)}
    )


@pytest.mark.parametrize(
    ("threads", "fine", "noisy", "message"),
    [
        (1, {"steps_sum_s": 1.0299}, {"steps_sum_s": 1.0301}, "the steps sum to 1.03× the whole"),
        (1, {"steps_sum_s": 0.9701}, {"steps_sum_s": 0.9699}, "the steps sum to 0.97× the whole"),
        (1, {"whole_iqr_s": 0.1}, {"whole_iqr_s": 0.1001}, "the interquartile range of the runs is 10% of their mean"),
        (1, {"clean_runs": 5}, {"clean_runs": 4}, "another process was busy during 16 of 20 runs"),
        (1, {"page_faults": 16}, {"page_faults": 17}, "17 page faults"),
        (2, {"cpu_share": 0.9}, {"cpu_share": 0.8999}, "2 threads got 90% of their CPU time"),
        (2, {"others": 0.25}, {"others": 0.2501}, "other processes kept 0.3 of 2 CPUs busy"),
        (2, {"pressure": 0.05}, {"pressure": 0.0501}, "use --threads 1"),
    ],
    ids=["sum above", "sum below", "spread", "clean runs", "page faults", "CPU share", "others", "pressure"],
)
def test_thresholds_have_their_documented_values(threads, fine, noisy, message):
    assert warnings(threads, **fine) == []
    (warning,) = warnings(threads, **noisy)
    assert message in warning


@pytest.mark.parametrize("factor", [0.25, 8.0])
def test_thresholds_are_relative_to_the_speed_of_the_machine(factor):
    for changed in ({"steps_sum_s": 1.02}, {"whole_iqr_s": 0.09}):
        assert warnings(time=seconds_times(factor, replace(FINE, **changed))) == []
    for changed in ({"steps_sum_s": 1.04}, {"whole_iqr_s": 0.11}):
        assert len(warnings(time=seconds_times(factor, replace(FINE, **changed)))) == 1


def test_others_disturb_if_they_and_the_threads_need_more_than_the_cpus():
    assert disturbances(replace(FINE, others=2.0), 2, "cpu", 4) == []
    assert disturbances(replace(FINE, others=2.5), 2, "cpu", 4)
    assert disturbances(replace(FINE, others=1.25), 3, "cpu", 4) == []
    assert disturbances(replace(FINE, others=1.5), 3, "cpu", 4)


def test_the_number_of_cpus_is_that_available_to_the_process(monkeypatch):
    monkeypatch.setattr(process, "cores", lambda: 8)
    assert disturbances(replace(FINE, others=4.0), 2, "cpu") == []
    assert disturbances(replace(FINE, others=4.0), 2, "cpu", 4)


def test_values_that_the_system_does_not_report_give_no_warning():
    unknown = {"cpu_share": None, "others": None, "pressure": None, "page_faults": None}
    assert warnings(threads=1, **unknown) == warnings(threads=2, **unknown) == []
    (warning,) = warnings(threads=2, **unknown | {"pressure": 0.5})
    assert "other processes kept" not in warning


def test_a_few_runs_are_enough_if_all_are_clean():
    assert warnings(tried=3, clean_runs=3) == []
    assert warnings(tried=3, clean_runs=2)
    assert warnings(tried=None, clean_runs=0) == []  # a report of an earlier release


def test_each_cause_has_a_warning_and_the_last_one_names_the_signs():
    first, second, last = warnings(clean_runs=1, page_faults=99, whole_iqr_s=0.5)
    assert first.startswith("another process was busy")
    assert second.startswith("each run allocates its memory again (99 page faults a run)")
    assert last == "as a result, the interquartile range of the runs is 50% of their mean"


def test_the_allocator_defaults_to_that_of_the_process(monkeypatch):
    monkeypatch.setattr(process, "allocator", "pinned")
    (pinned,) = doubts(replace(FINE, page_faults=99), 1, "cpu", 2)
    (default,) = doubts(replace(FINE, page_faults=99), 1, "cpu", 2, "default")
    assert "LD_PRELOAD" in pinned
    assert "LD_PRELOAD" not in default
