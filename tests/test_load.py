"""What this process and others took of the machine, by what the system tells."""

import mmap
from collections import namedtuple

import psutil
import pytest

from attnscope.profiling import load
from attnscope.profiling.load import Effort, Watch

Times = namedtuple("Times", ["user", "system", "idle", "iowait", "guest"])


@pytest.fixture
def passes(monkeypatch):
    """Let wall and processor seconds pass only as they are given."""
    now = {"wall": 100.0, "own": 30.0}  # of a process that has run for a while
    monkeypatch.setattr(load.time, "perf_counter", lambda: now["wall"])
    monkeypatch.setattr(load.time, "process_time", lambda: now["own"])
    return lambda wall, own: now.update(wall=now["wall"] + wall, own=now["own"] + own)


@pytest.fixture
def processors(monkeypatch):
    """Four processors, of which this process may use the first and the third."""
    times = [Times(0.0, 0.0, 0.0, 0.0, 0.0)] * 4
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu: list(times))
    monkeypatch.setattr(load.os, "sched_getaffinity", {0: {0, 2}}.get, raising=False)
    return times


@pytest.fixture
def pressure(monkeypatch, tmp_path):
    """Linux's file of who waited, in microseconds."""
    file = tmp_path / "cpu"
    monkeypatch.setattr(load, "PRESSURE", file)

    def waited(seconds):
        file.write_text(f"some avg10=0.00 avg60=0.00 avg300=0.00 total={seconds * 1e6:.0f}\nfull total=999\n")

    waited(0)
    return waited


def test_effort_is_what_came_between():
    effort = Effort(3.0, 2.0, 4.0, 7).since(Effort(1.0, 1.0, 1.0, 2))
    assert (effort.wall_s, effort.thread_s, effort.process_s, effort.faults) == (2.0, 1.0, 3.0, 5)
    assert Effort(3.0, 2.0, 4.0, None).since(Effort(1.0, 1.0, 1.0, 2)).faults is None


def test_a_share_is_of_this_thread_or_of_all_threads():
    effort = Effort(2.0, 1.0, 3.0, 0)
    assert effort.share(1) == 0.5
    assert effort.share(2) == 0.75
    assert Effort(0.0, 0.0, 0.0, 0).share(1) == 1.0  # a run too short for the clock


def test_effort_of_now_is_in_seconds_and_page_faults():
    start = Effort.now()
    blocks = mmap.mmap(-1, 2**24)  # never memory that was freed before and needs no page fault
    blocks.write(b"1" * 2**24)
    effort = Effort.now().since(start)
    assert min(effort.wall_s, effort.thread_s, effort.process_s) > 0
    assert load.resource is None or effort.faults > 0


def test_others_are_what_is_busy_on_our_processors_less_ourselves(passes, processors, pressure):
    watch = Watch()
    passes(10.0, own=4.0)
    processors[0] = Times(user=5.0, system=1.0, idle=3.0, iowait=1.0, guest=2.0)  # a guest's seconds are the user's too
    processors[1] = Times(99.0, 99.0, 0.0, 0.0, 0.0)
    processors[2] = Times(3.0, 0.0, 7.0, 0.0, 0.0)
    assert watch.load().others == pytest.approx((6.0 + 3.0 - 4.0) / 10.0)


def test_others_take_no_less_than_nothing(passes, processors, pressure):
    """The system's seconds are counted in steps of 10 ms and may be behind ours."""
    watch = Watch()
    passes(1.0, own=0.5)
    assert watch.load().others == 0.0


def test_pressure_is_the_share_of_the_time_in_which_somebody_waited(passes, processors, pressure):
    pressure(7.0)
    watch = Watch()
    passes(4.0, own=0.0)
    pressure(8.0)
    assert watch.load().pressure == pytest.approx(0.25)
    pressure(99.0)
    assert watch.load().pressure == 1.0


def test_what_the_system_does_not_tell_is_none(monkeypatch, passes, pressure):
    def denied(percpu):
        raise PermissionError

    monkeypatch.setattr(psutil, "cpu_times", denied)
    watch = Watch()
    load.PRESSURE.unlink()
    assert watch.load() == load.Load(None, None)
