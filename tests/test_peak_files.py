"""The files of measured peaks, and the caches of a CPU."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from attnscope.plan.peaks import Raised
from attnscope.profiling import load, peaks
from attnscope.profiling.caches import caches
from attnscope.profiling.load import Load
from attnscope.profiling.peak_files import cache_folder, read_peaks, remember, store, update_cache
from attnscope.profiling.peaks import keep_raised, machine_peaks, measure_peaks, peaks_of
from tests.test_roofline import PEAKS

CPU = torch.device("cpu")


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """Replace the measurement of peaks; return a list that records torch's number of threads at each call."""
    threads = []

    def measure(*_):
        threads.append(torch.get_num_threads())
        return PEAKS

    monkeypatch.setattr(peaks, "_measure", measure)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return threads


@pytest.mark.parametrize(
    ("threads", "others", "trusted"), [(2, 0.25, True), (2, 0.26, False), (2, None, True), (1, 9.0, True)]
)
def test_peaks_of_a_busy_machine_are_not_saved(threads, others, trusted, measured, monkeypatch):
    """A single thread is not affected by the load of others."""
    monkeypatch.setattr(load.Watch, "load", lambda watch: Load(others, None))
    assert measure_peaks(CPU, torch.float32, threads) == (PEAKS, trusted)
    assert peaks_of(CPU, torch.float32, threads) == PEAKS
    assert measured == ([threads] if trusted else [threads, threads])
    assert torch.get_num_threads() == 1


def test_a_file_with_other_sizes_is_replaced(tmp_path):
    """A file may have been edited: a rate is missing, and another one is of a different size."""
    path = tmp_path / "peaks.json"
    for edited in (
        replace(PEAKS, matmul=PEAKS.matmul[1:]),
        replace(PEAKS, softmax=(replace(PEAKS.softmax[0], size=3, per_s=1e30),)),
    ):
        store(edited, path)
        assert remember(PEAKS, path) == PEAKS
        assert read_peaks(path) == PEAKS


def test_the_best_peaks_are_kept_with_their_dates(measured, monkeypatch):
    """In the second measurement, one rate is higher, and all others are lower."""
    monkeypatch.setattr(load.Watch, "load", lambda watch: Load(0.0, None))
    better = replace(PEAKS.matmul[0], per_s=9e11, date="2026-02-02")
    first, second = (
        replace(PEAKS, matmul=(low, PEAKS.matmul[1]), call_s=call_s, softmax=(rate,))
        for low, call_s, rate in (
            (PEAKS.matmul[0], 4e-6, replace(PEAKS.softmax[0], date="2026-01-01")),
            (better, 6e-6, replace(PEAKS.softmax[0], per_s=1.0, date="2026-02-02")),
        )
    )
    taken = iter([first, second, second])
    monkeypatch.setattr(peaks, "_measure", lambda *_: next(taken))
    assert measure_peaks(CPU, torch.float32, 1)[0] == first
    best, _ = measure_peaks(CPU, torch.float32, 1)
    assert (best.matmul, best.call_s, best.softmax) == ((better, PEAKS.matmul[1]), 4e-6, first.softmax)
    assert peaks_of(CPU, torch.float32, 1) == best
    assert measure_peaks(CPU, torch.float32, 1, forget=True)[0] == second == peaks_of(CPU, torch.float32, 1)


def test_raised_peaks_are_kept(measured):
    first = peaks_of(CPU, torch.float32, 1)
    shown = Raised("matmul", 2 * first.macs_per_s, "project", "2026-01-01")
    keep_raised(first.raise_to(shown), CPU, torch.float32, 1)
    assert peaks_of(CPU, torch.float32, 1).raised == (shown,)
    assert peaks_of(CPU, torch.float32, 1).macs_per_s == 2 * first.macs_per_s
    assert measure_peaks(CPU, torch.float32, 1)[0].raised == (shown,)


@pytest.mark.parametrize(
    ("kept_s", "now_s", "is_measured"),
    [(1.0, 0.971, False), (1.0, 0.969, True), (1.0, 2.0, False), (None, 0.5, False), (1.0, None, False)],
)
def test_peaks_of_a_host_that_was_slower_are_measured_again(kept_s, now_s, is_measured, monkeypatch, tmp_path):
    taken = []

    def measure(device, dtype, threads, yardstick_s):
        taken.append(yardstick_s)
        return replace(PEAKS, yardstick_s=yardstick_s)

    monkeypatch.setattr(peaks, "_measure", measure)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    peaks_of(CPU, torch.float32, 1, kept_s)
    peaks_of(CPU, torch.float32, 1, now_s)
    assert taken == ([kept_s, now_s] if is_measured else [kept_s])


def test_half_precision_also_has_the_peaks_of_float32(measured):
    for dtype, number in ((torch.float16, 2), (torch.bfloat16, 2), (torch.float32, 1), (torch.float64, 1)):
        assert len(machine_peaks(CPU, dtype, 1)) == number


def test_peaks_are_saved_for_each_dtype_and_number_of_threads(measured, monkeypatch):
    monkeypatch.setattr(load.Watch, "load", lambda watch: Load(0.0, None))
    for dtype, threads in ((torch.float32, 1), (torch.float32, 2), (torch.float64, 1), (torch.float32, 1)):
        peaks_of(CPU, dtype, threads)
    assert measured == [1, 2, 1]


@pytest.mark.parametrize(
    ("platform", "variables", "folder"),
    [
        ("linux", {}, "home/.cache/attnscope"),
        ("linux", {"XDG_CACHE_HOME": "xdg"}, "xdg/attnscope"),
        ("darwin", {}, "home/Library/Caches/attnscope"),
        ("win32", {"LOCALAPPDATA": "local"}, "local/attnscope/cache"),
        ("win32", {}, "home/attnscope/cache"),
    ],
)
def test_the_cache_folder_is_that_of_the_operating_system(platform, variables, folder, monkeypatch):
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(Path, "home", lambda: Path("home"))
    monkeypatch.setattr("sys.platform", platform)
    assert cache_folder() == Path(folder)


def test_the_caches_of_a_core_are_its_data_caches_from_small_to_large(tmp_path):
    for index, values in enumerate(
        [("Unified", "3", "32M"), ("Data", "1", "48K"), ("Instruction", "1", "32K"), ("Unified", "2", "2048K")]
    ):
        folder = tmp_path / f"index{index}"
        folder.mkdir()
        for name, value in zip(("type", "level", "size"), values, strict=True):
            (folder / name).write_text(f"{value}\n")
    (tmp_path / "index9").mkdir()  # an empty folder is ignored
    found = caches(CPU, tmp_path)
    assert list(found.items()) == [("L1", 48 * 1024), ("L2", 2 * 2**20), ("L3", 32 * 2**20)]
    assert caches(CPU, tmp_path / "none") == {}
    assert caches(torch.device("mps"), tmp_path) == {}


RACER = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from attnscope.profiling.peak_files import update_cache
for number in range(200):
    update_cache(Path(sys.argv[1]), {sys.argv[2]: [number] * 500})
"""


def test_a_file_that_two_processes_write_is_always_complete(tmp_path):
    file = tmp_path / "peaks.json"
    racers = [subprocess.Popen([sys.executable, "-c", RACER, str(file), name]) for name in "ab"]
    read = []
    while any(racer.poll() is None for racer in racers):
        if file.exists():
            read.append(json.loads(file.read_text()))
    assert [racer.returncode for racer in racers] == [0, 0]
    assert len(read) > 10
    assert [path.name for path in tmp_path.iterdir()] == ["peaks.json"]


def test_a_file_that_two_threads_write_is_always_complete(tmp_path):
    file, read = tmp_path / "peaks.json", []

    def update(name):
        for number in range(200):
            update_cache(file, {name: [number] * 20_000})
            read.append(json.loads(file.read_text()))

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(update, "ab"))
    assert len(read) == 400
    assert [path.name for path in tmp_path.iterdir()] == ["peaks.json"]


@pytest.mark.parametrize(
    "change",
    [
        {"call_s": "fast"},
        {"call_s": None},
        {"call_s": 0},
        {"call_s": 10**400},  # more than a float has
        {"copy": []},
        {"copy": [{"working_set": 1, "bytes_per_s": -1.0}]},
        {"matmul": 3},
        {"matmul": [{"size": 8, "per_s": float("nan")}]},
        {"softmax": [{"length": 8}]},
        {"caches": [1]},
        {"raised": [{"limit": "matmul", "per_s": "x", "by": "", "date": ""}]},
        {"of_a_later_version": 1},
    ],
)
def test_a_file_with_wrong_values_is_measured_again(change, tmp_path):
    file = tmp_path / "peaks.json"
    store(PEAKS, file)
    assert read_peaks(file) == PEAKS
    update_cache(file, change)
    assert read_peaks(file) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "[" * 100_000, '{"matmul": {'])
def test_a_file_that_is_cut_or_something_else_is_measured_again(text, tmp_path):
    file = tmp_path / "peaks.json"
    file.write_text(text)
    assert read_peaks(file) is None
    store(PEAKS, file)
    assert read_peaks(file) == PEAKS


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "peaks.json"
    store(PEAKS, file)

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        update_cache(file, {"call_s": 1.0})
    assert read_peaks(file) == PEAKS
    assert [path.name for path in tmp_path.iterdir()] == ["peaks.json"]


def test_a_home_that_cannot_be_written_raises_nothing(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    store(PEAKS, blocked / "attnscope" / "peaks.json")  # below a file, as root may write to any folder
    assert read_peaks(blocked / "attnscope" / "peaks.json") is None


def test_the_help_of_peaks_has_the_folder(attnscope, tmp_path):
    assert str(tmp_path) in "".join(attnscope("peaks", "--help", XDG_CACHE_HOME=str(tmp_path)).stdout.split())
