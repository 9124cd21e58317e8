"""Devices and the operating system: free memory, memory errors, dtypes, random state and names."""

import subprocess
import sys

import psutil
import pytest
import torch

from attnscope import DeviceError, ViTSpec, explore
from attnscope.analyses.contenders import arrange
from attnscope.analyses.paper_comparison import on_paper
from attnscope.analyses.timed_comparison import race
from attnscope.core.errors import ran_out_of_memory
from attnscope.profiling import devices as devices
from attnscope.profiling.building import kernel_errors_explained, memory_errors_explained, settled
from attnscope.profiling.devices import environment, seeded
from attnscope.profiling.host import free_host_memory, nvidia_driver, processor_name
from attnscope.profiling.options import check_dtype
from attnscope.profiling.peaks import measure_peaks_by_name
from attnscope.profiling.process import keep_memory
from attnscope.tracing.isolation import isolated

CPU = torch.device("cpu")
MIB = 2**20
NONE_IN_VERSION_1 = 9223372036854771712


def group(folder, limit, used, inactive, version=2):
    """Write the files of a Linux control group."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    for name, value in zip(names, (limit, used), strict=True):
        (folder / name).write_text(f"{value}\n")
    stat = {"anon": used - 2 * inactive, "active_file": inactive, "inactive_file": inactive}
    if version == 1:  # of the group itself, and with its subgroups
        stat = {"rss": 0, "inactive_file": 0, "total_inactive_file": inactive}
    (folder / "memory.stat").write_text("".join(f"{name} {value}\n" for name, value in stat.items()))


def left(tmp_path, *lines):
    own = tmp_path / "cgroup"
    own.write_text("".join(f"{line}\n" for line in lines))
    return free_host_memory(tmp_path / "fs", own)


def test_cached_files_count_as_free_memory(tmp_path):
    group(tmp_path / "fs", 100 * MIB, 90 * MIB, 60 * MIB)
    assert left(tmp_path, "0::/") == 70 * MIB


def test_the_lowest_limit_of_all_parent_groups_counts(tmp_path):
    job = tmp_path / "fs/slurm/job_1/step_0"
    group(job, "max", 30 * MIB, 0)
    group(job.parent, 50 * MIB, 40 * MIB, 5 * MIB)
    group(job.parent.parent, 900 * MIB, 40 * MIB, 5 * MIB)
    (tmp_path / "fs/memory.stat").write_text("anon 1\n")  # the root group has neither a limit nor a usage
    assert left(tmp_path, "0::/slurm/job_1/step_0") == 15 * MIB


def test_control_groups_of_version_1_are_read(tmp_path):
    group(tmp_path / "fs/memory", 100 * MIB, 90 * MIB, 60 * MIB, version=1)
    # the path is that outside the container; inside it, the group is the root
    assert left(tmp_path, "3:cpuset:/", "4:memory:/docker/0a1b", "0::/") == 70 * MIB


def test_the_limit_is_the_machines_memory_without_a_group_limit(tmp_path):
    for limit, version in (("max", 2), (NONE_IN_VERSION_1, 1)):
        group(tmp_path / "fs" / ("" if version == 2 else "memory"), limit, MIB, 0, version)
    whole = psutil.virtual_memory().total
    assert MIB < left(tmp_path, "0::/", "4:memory:/") <= whole
    assert MIB < free_host_memory(tmp_path / "nothing", tmp_path / "nothing") <= whole


def test_usage_above_the_limit_leaves_no_free_memory(tmp_path):
    group(tmp_path / "fs", 10 * MIB, 12 * MIB, MIB)
    assert left(tmp_path, "0::/") == 0


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError(
            "MPS backend out of memory (MPS allocated: 8.00 GB, other allocations: 1.20 GB, max allowed: 9 GB)."
        ),
        RuntimeError("Invalid buffer size: 12.50 GB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:75] data. DefaultCPUAllocator: not enough memory: you tried"),
    ],
    ids=str,
)
def test_out_of_memory_errors_of_all_allocators_are_recognized(error):
    assert ran_out_of_memory(error)
    with pytest.raises(DeviceError, match="mps ran out of memory"), memory_errors_explained(torch.device("mps")):
        raise error
    spec = ViTSpec(kernel="math")
    with pytest.raises(type(error)), kernel_errors_explained(spec, CPU):
        raise error  # the kernel is not the cause


def test_the_out_of_memory_error_of_the_cpu_allocator_is_recognized():
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**60)
    assert ran_out_of_memory(error.value)


def test_other_errors_are_not_out_of_memory_errors():
    for error in (RuntimeError("size mismatch"), ValueError("out of memory"), TypeError()):
        assert not ran_out_of_memory(error)


def test_mps_does_not_support_float64():
    for device in ("cpu", "cuda", "meta"):
        check_dtype(device, "float64")
    check_dtype("mps", "bfloat16")
    with pytest.raises(DeviceError) as error:
        check_dtype("mps", "float64")
    assert error.value.in_flags() == "mps does not support float64; use float32, bfloat16, float16, or --device cpu"


def test_an_unsupported_dtype_is_an_error_before_anything_is_built(monkeypatch):
    """The test simulates a Mac with MPS."""
    meeting = arrange(["vit", "swin"], {"resolution": [7]}, {"dtype": "float64"})
    monkeypatch.setattr(devices, "devices", lambda: ["mps", "cpu", "meta"])
    for run in (
        lambda: explore(ViTSpec(dtype="float64")),
        lambda: measure_peaks_by_name("auto", "float64", 1),
        lambda: race(on_paper(meeting), meeting),
        lambda: isolated(torch.nn.Linear(2, 2).double(), ((), {}), torch.device("mps")),
        lambda: isolated(torch.nn.ReLU(), ((torch.ones(1, 2).double(),), {}), torch.device("mps")),
    ):
        with pytest.raises(
            DeviceError, match="mps does not support float64; use float32, bfloat16, float16, or device cpu"
        ):
            run()


def test_only_the_generators_in_use_are_seeded(monkeypatch):
    seeded_devices = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: seeded_devices.append("cuda"))
    monkeypatch.setattr(torch.mps, "manual_seed", lambda seed: seeded_devices.append("mps"))
    before = torch.get_rng_state()
    with seeded(CPU, 7):
        drawn = torch.rand(3)
    assert torch.equal(torch.get_rng_state(), before)
    assert seeded_devices == []
    torch.manual_seed(7)
    assert torch.equal(torch.rand(3), drawn)
    assert seeded_devices  # the patched functions record calls


def test_random_state_and_threads_are_restored_after_an_error():
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="negative"), settled(1, 3, torch.device("meta")):
        torch.rand(-1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("line", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19 18:56:32 UTC 2023", "535.129.03"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65  Release Build  (root@host)", "580.65"),
        ("GCC version:  gcc version 12.2.0 (GCC)", None),
    ],
)
def test_the_driver_version_is_that_of_the_kernel_module(tmp_path, line, version):
    path = tmp_path / "version"
    path.write_text(f"{line}\nGCC version:  gcc version 4.8.5 20150623 (Red Hat 4.8.5-4) (GCC)\n")
    assert nvidia_driver(path) == version
    assert nvidia_driver(tmp_path / "none") is None


def test_the_environment_always_has_the_cpu_name():
    env = environment(torch.device("meta"), 1, 0)
    assert env["cpu"] == processor_name() != ""
    assert (env["driver"], env["toolkit"]) == (None, None)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc/cpuinfo is on Linux only")
def test_the_cpu_name_is_that_of_proc_cpuinfo():
    line = subprocess.run(["grep", "-m1", "model name", "/proc/cpuinfo"], capture_output=True, text=True).stdout
    if not line:
        pytest.skip("this CPU has no name")
    assert line.strip().endswith(processor_name())


class TestKeepMemory:
    """Calls of glibc's mallopt: -3 is M_MMAP_THRESHOLD, -4 M_MMAP_MAX, -1 M_TRIM_THRESHOLD."""

    def keep(self, accepts):
        calls = []

        def mallopt(option, value):
            calls.append((option, value))
            return int(accepts(option, value))

        return keep_memory(mallopt), calls

    def test_glibc_since_2_35_gets_two_large_thresholds(self):
        assert self.keep(lambda option, value: True) == (True, [(-3, 2**31 - 1), (-1, 2**31 - 1)])

    def test_glibc_before_2_35_gets_a_map_limit_of_zero(self):
        kept, calls = self.keep(lambda option, value: option != -3 or value <= 2**25)
        assert kept
        assert calls == [(-3, 2**31 - 1), (-4, 0), (-1, 2**31 - 1)]

    def test_the_heap_is_kept_even_if_blocks_are_mapped(self):
        kept, calls = self.keep(lambda option, value: option == -1)
        assert not kept
        assert calls[-1] == (-1, 2**31 - 1)
