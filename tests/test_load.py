"""CPU time and memory pressure of this process and of others, as the system reports them."""

import mmap
from collections import namedtuple

import psutil
import pytest

from attnscope.profiling import load
from attnscope.profiling.load import Effort, Watch

Times = namedtuple("Times", ["user", "system", "idle", "iowait", "guest"])


@pytest.fixture
def passes(monkeypatch):
    """Replace the clocks with counters of wall and CPU seconds."""
    now = {"wall": 100.0, "own": 30.0}  # a process that has already run for a while
    monkeypatch.setattr(load.time, "perf_counter", lambda: now["wall"])
    monkeypatch.setattr(load.time, "process_time", lambda: now["own"])
    return lambda wall, own: now.update(wall=now["wall"] + wall, own=now["own"] + own)


@pytest.fixture
def processors(monkeypatch):
    """Simulate four CPUs, of which this process may use the first and the third."""
    times = [Times(0.0, 0.0, 0.0, 0.0, 0.0)] * 4
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu: list(times))
    monkeypatch.setattr(load.os, "sched_getaffinity", {0: {0, 2}}.get, raising=False)
    return times


@pytest.fixture
def pressure(monkeypatch, tmp_path):
    """Replace Linux's file of CPU pressure, in microseconds."""
    file = tmp_path / "cpu"
    monkeypatch.setattr(load, "PRESSURE", file)

    def waited(seconds):
        file.write_text(f"some avg10=0.00 avg60=0.00 avg300=0.00 total={seconds * 1e6:.0f}\nfull total=999\n")

    waited(0)
    return waited


def test_effort_is_the_difference_of_two_readings():
    effort = Effort(3.0, 2.0, 4.0, 7).since(Effort(1.0, 1.0, 1.0, 2))
    assert (effort.wall_s, effort.thread_s, effort.process_s, effort.faults) == (2.0, 1.0, 3.0, 5)
    assert Effort(3.0, 2.0, 4.0, None).since(Effort(1.0, 1.0, 1.0, 2)).faults is None


def test_a_cpu_share_is_that_of_the_thread_or_of_all_threads():
    effort = Effort(2.0, 1.0, 3.0, 0)
    assert effort.share(1) == 0.5
    assert effort.share(2) == 0.75
    assert Effort(0.0, 0.0, 0.0, 0).share(1) == 1.0  # the run is shorter than the clock's resolution


def test_effort_of_now_is_in_seconds_and_page_faults():
    start = Effort.now()
    blocks = mmap.mmap(-1, 2**24)  # a new mapping, since reused memory causes no page faults
    blocks.write(b"1" * 2**24)
    effort = Effort.now().since(start)
    assert min(effort.wall_s, effort.thread_s, effort.process_s) > 0
    assert load.resource is None or effort.faults > 0


def test_others_are_the_busy_time_of_our_cpus_without_this_process(passes, processors, pressure):
    watch = Watch()
    passes(10.0, own=4.0)
    processors[0] = Times(user=5.0, system=1.0, idle=3.0, iowait=1.0, guest=2.0)  # user time includes guest time
    processors[1] = Times(99.0, 99.0, 0.0, 0.0, 0.0)
    processors[2] = Times(3.0, 0.0, 7.0, 0.0, 0.0)
    assert watch.load().others == pytest.approx((6.0 + 3.0 - 4.0) / 10.0)


def test_the_cpu_time_of_others_is_never_negative(passes, processors, pressure):
    """The system counts in steps of 10 ms and may be behind the process clock."""
    watch = Watch()
    passes(1.0, own=0.5)
    assert watch.load().others == 0.0


def test_pressure_is_the_share_of_time_in_which_a_process_waited(passes, processors, pressure):
    pressure(7.0)
    watch = Watch()
    passes(4.0, own=0.0)
    pressure(8.0)
    assert watch.load().pressure == pytest.approx(0.25)
    pressure(99.0)
    assert watch.load().pressure == 1.0


def test_values_that_the_system_does_not_report_are_null(monkeypatch, passes, pressure):
    def denied(percpu):
        raise PermissionError

    monkeypatch.setattr(psutil, "cpu_times", denied)
    watch = Watch()
    load.PRESSURE.unlink()
    assert watch.load() == load.Load(None, None)
