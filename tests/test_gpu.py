"""CUDA without a GPU: a substitute for the stream and for NVML checks the logic, and `test_devices.py` the device."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from attnscope.profiling import clocks
from attnscope.profiling.clocks import FEWEST_CYCLES, MOST_CYCLES, CudaClock, run
from attnscope.profiling.noise import doubts
from attnscope.profiling.nvml import EVERY_S, GpuWatch, gpu_watch
from attnscope.render.details import timing_lines
from attnscope.reports.gpu import GpuState
from tests.golden import timed
from tests.test_measuring import FINE

HERTZ, EVENT_S, QUEUE = 1e9, 2e-6, 1000


class Stream:
    """A CPU that launches work, and a GPU that does it in order; both have their own time in seconds.

    The CPU waits while the queue holds as much work as it can.
    """

    def __init__(self):
        self.cpu_s = self.gpu_s = 0.0
        self.cycles, self.done, self.ends = [], [], []

    def launch(self, seconds, launch_s=1e-6, name="kernel"):
        """Queue work of some seconds, whose launch takes some seconds of the CPU."""
        if len(self.ends) >= QUEUE:
            self.cpu_s = max(self.cpu_s, self.ends[-QUEUE])
        self.cpu_s += launch_s
        self.gpu_s = max(self.gpu_s, self.cpu_s) + seconds
        self.done.append(name)
        self.ends.append(self.gpu_s)

    def sleep(self, cycles):
        self.cycles.append(cycles)
        self.launch(cycles / HERTZ, name="sleep")

    def synchronize(self):
        self.cpu_s = max(self.cpu_s, self.gpu_s)

    def event(self, enable_timing):
        assert enable_timing
        return Event(self)

    def flush(self):
        self.launch(1e-4, name="flush")


class Event:
    """An event of the Stream: the time at which the GPU reaches it."""

    def __init__(self, stream):
        self.stream = stream

    def record(self):
        self.stream.launch(EVENT_S, name="event")
        self.at_s = self.stream.gpu_s

    def query(self):
        return self.at_s <= self.stream.cpu_s

    def elapsed_time(self, other):
        return 1e3 * (other.at_s - self.at_s)


@pytest.fixture
def stream(monkeypatch):
    """Replace CUDA by a Stream."""
    stream = Stream()
    cuda = SimpleNamespace(
        get_device_properties=lambda device: SimpleNamespace(L2_cache_size=50 * 2**20),
        current_device=lambda: 0,
        synchronize=stream.synchronize,
        Event=stream.event,
        _sleep=stream.sleep,
    )
    buffers = []

    def empty(size, dtype, device):
        assert (dtype, device) == (torch.uint8, "cuda")
        buffers.append(size)
        return SimpleNamespace(zero_=stream.flush, neg_=lambda: stream.launch(1e-6))

    monkeypatch.setattr(clocks, "torch", SimpleNamespace(cuda=cuda, empty=empty, uint8=torch.uint8))
    stream.buffers = buffers
    return stream


def test_gaps_between_events_are_times_of_the_gpu(stream):
    """A forward of three kernels; the cost of an event is subtracted."""
    clock, stamps = CudaClock(), []
    assert clock.stamp_s == pytest.approx(EVENT_S)
    assert stream.buffers == [2 * 50 * 2**20, 1]

    def forward():
        for seconds in (3e-3, 1e-3):
            stream.launch(seconds)
            stamps.append(clock.stamp())
        stream.launch(2e-3)

    timed_run = run(clock, forward, stamps)
    assert timed_run.clean
    assert timed_run.seconds == pytest.approx([3e-3, 1e-3, 2e-3])


def test_the_cache_is_flushed_once_before_the_gpu_idles(stream):
    clock = CudaClock()
    stream.done.clear()
    run(clock, lambda: stream.launch(1e-3), [])
    assert stream.done == ["flush", "sleep", "event", "kernel", "event"]
    warm = CudaClock(flush=False)
    stream.done.clear()
    run(warm, lambda: stream.launch(1e-3), [])
    assert stream.done == ["sleep", "event", "kernel", "event"]


def test_a_forward_that_is_launched_slowly_makes_the_gpu_idle_longer(stream):
    """The launches take 5 ms, and the first idle kernels 1, 2 and 4 ms. Such runs include the launches on the CPU."""
    clock = CudaClock()
    stream.cycles.clear()

    def forward():
        for _ in range(50):
            stream.launch(1e-5, launch_s=1e-4)

    runs = [run(clock, forward, []) for _ in range(5)]
    assert [one.clean for one in runs] == [False, False, False, True, True]
    assert stream.cycles == [FEWEST_CYCLES * factor for factor in (1, 2, 4, 8, 8)]
    assert runs[0].total > 3e-3
    assert runs[-1].total == pytest.approx(5e-4)


def test_the_gpu_never_idles_longer_than_the_limit(stream):
    clock = CudaClock()
    for _ in range(14):
        assert not run(clock, lambda: stream.launch(1e-3, launch_s=1.0), []).clean
    assert max(stream.cycles) == stream.cycles[-1] == MOST_CYCLES


@pytest.mark.parametrize("is_stamped", [True, False], ids=["steps", "whole"])
def test_a_forward_that_the_queue_does_not_hold_is_timed_in_parts(stream, is_stamped):
    """The GPU needs 2 µs for each of 3000 kernels, and the CPU 8 µs to launch it. The last 900 are one call."""
    clock, x = CudaClock(), torch.zeros(1)

    def timed_run():
        stamps = []

        def forward():
            for _ in range(2100):
                torch.relu(x)
                stream.launch(2e-6, launch_s=8e-6)
                if is_stamped:
                    stamps.append(clock.stamp())
            for _ in range(900):
                stream.launch(2e-6, launch_s=8e-6)

        return run(clock, forward, stamps)

    runs = [timed_run() for _ in range(12)]
    assert [one.clean for one in runs[:5]] == [False] * 5
    assert runs[-1].clean
    assert runs[-1].total == pytest.approx(3000 * 2e-6, rel=0.01)
    if is_stamped:
        assert runs[-1].seconds == pytest.approx([2e-6] * 2100 + [900 * 2e-6], rel=1e-6)


class Nvml:
    """A substitute for pynvml, whose answers a test sets; a missing answer is an error of the driver."""

    class NVMLError(Exception):
        pass

    def __init__(self, **answers):
        self.answers, self.asked = answers, []

    def nvmlInit(self):
        self.asked.append("init")

    def nvmlDeviceGetHandleByUUID(self, uuid):
        self.asked.append(uuid)
        return self._answer("handle")

    def __getattr__(self, name):
        if not name.startswith("nvmlDeviceGet") or name in self.answers.get("unknown", ()):
            raise AttributeError(name)
        return lambda handle, *arguments: self._answer(name.removeprefix("nvmlDeviceGet"))

    def _answer(self, name):
        if name not in self.answers:
            raise self.NVMLError(name)
        answer = self.answers[name]
        return answer.pop(0) if isinstance(answer, list) else answer


@pytest.fixture
def properties(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="12-34"))


def watched(nvml, readings=2):
    """Return the state of a GPU after some readings."""
    watch = GpuWatch(torch.device("cuda"), nvml)
    for _ in range(readings):
        watch.read()
    return watch.state()


def test_the_clock_and_the_reasons_of_a_slowdown_are_read(properties):
    nvml = Nvml(
        handle="gpu", ClockInfo=[1980, 1410], MaxClockInfo=1980, Temperature=[50, 54], PowerUsage=[310_500, 250_000],
        CurrentClocksEventReasons=[0x1, 0x4 | 0x40],
    )  # fmt: skip
    assert watched(nvml) == GpuState(1410, 1980, 1980, 54, 310.5, ["power cap", "hardware thermal slowdown"])
    assert nvml.asked == ["init", "GPU-12-34"]


def test_values_that_nvml_does_not_report_are_unknown(properties):
    assert watched(Nvml(handle="gpu", ClockInfo=1980)) == GpuState(1980, 1980, None, None, None, [])
    assert watched(Nvml(handle="gpu", Temperature=50)) is None
    assert watched(Nvml()) is None  # the driver does not know the device, such as a part of a GPU
    assert watched(None) is None


def test_an_older_package_has_another_name_for_the_reasons(properties):
    old = {"unknown": ("nvmlDeviceGetCurrentClocksEventReasons",)}
    nvml = Nvml(handle="gpu", ClockInfo=1980, CurrentClocksThrottleReasons=0x20, **old)
    assert watched(nvml).slowed_by == ["software thermal slowdown"]


def test_a_device_without_an_identifier_is_unknown(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace())
    assert watched(Nvml(handle="gpu", ClockInfo=1980)) is None


def test_the_gpu_is_read_now_and_then_while_progress_is_reported(properties):
    """Each reading takes a share of the measurement, so that there is at most one every EVERY_S seconds."""
    now, shares, nvml = [0.0], [], Nvml(handle="gpu", ClockInfo=[*range(1000, 1100)])
    watch = GpuWatch(torch.device("cuda"), nvml, now=lambda: now[0])
    report = watch.sampling(shares.append)
    for index in range(10):
        now[0] = 0.3 * EVERY_S * index
        report(index / 10)
    assert shares == [index / 10 for index in range(10)]
    assert watch.state().highest_clock_mhz == 1000 + 2  # at 0, 1.2 and 2.4 EVERY_S
    watch.sampling(None)(0.5)


def test_without_the_package_a_watch_reads_nothing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pynvml", None)
    watch = gpu_watch(torch.device("cuda"))
    watch.sampling(None)(0.0)
    assert watch.state() is None


STEADY = GpuState(1980, 1980, 1980, 54, 310.0, [])


@pytest.mark.parametrize(
    ("gpu", "warning"),
    [
        (None, None),
        (STEADY, None),
        (replace(STEADY, lowest_clock_mhz=1900, highest_clock_mhz=2000), None),
        (replace(STEADY, lowest_clock_mhz=1899, highest_clock_mhz=2000), "the GPU's clock was 1,899 to 2,000 MHz; lock it"),
        (replace(STEADY, slowed_by=["power cap"]), "the GPU's clock was 1,980 MHz, lowered by power cap; let it cool"),
    ],
)  # fmt: skip
def test_a_clock_that_varies_or_is_lowered_has_a_warning(gpu, warning):
    found = doubts(replace(FINE, gpu=gpu), 1, "cuda", 2, "default")
    assert [text.startswith(warning) for text in found] == ([True] if warning else [])


def test_the_details_have_the_clock(vit_report):
    def line(gpu):
        time = replace(vit_report.time, eager_s=2e-3, graph_s=1e-3, gpu=gpu)
        return timing_lines(replace(vit_report, time=time))[-1]

    assert line(STEADY).endswith("as a graph 1.00 ms · clock 1,980 of 1,980 MHz, 54 °C, 310 W")
    unknown = GpuState(1410, 1980, None, None, None, [])
    assert line(unknown).endswith("as a graph 1.00 ms · clock 1,410 to 1,980 MHz")
    assert line(None).endswith("as a graph 1.00 ms")


@pytest.fixture(scope="module")
def vit_report():
    from attnscope import ViTSpec, explore

    return timed(explore(ViTSpec(), time=False))
