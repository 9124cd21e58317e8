"""Bounds of the options of a run: the last accepted and the first rejected value."""

import os

import pytest

from attnscope import UsageError
from attnscope.profiling import process
from attnscope.profiling.options import check_arguments


@pytest.mark.parametrize(
    ("name", "accepted", "refused"),
    [
        ("budget", (1e-9, 3600), (0, 3600.001, -1, float("nan"), float("inf"))),
        ("threads", (1, 3), (0, 4, -1)),
        ("seed", (0, 2**63 - 1), (-1, 2**63)),
        ("device", ("auto", "cpu", "cuda", "mps", "meta"), ("tpu", "", "CPU")),
    ],
)
def test_arguments_have_bounds(name, accepted, refused, monkeypatch):
    monkeypatch.setattr(process, "cores", lambda: 3)
    for value in accepted:
        check_arguments(**{"device": "cpu", name: value})
    for value in refused:
        with pytest.raises(UsageError, match=name):
            check_arguments(**{"device": "cpu", name: value})


def test_cores_are_the_cpus_available_to_this_process(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", {0: {1, 4, 7}}.get, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    assert process.cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert process.cores() == 8
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert process.cores() == 1
