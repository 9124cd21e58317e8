"""Query the host: free memory, CPU name, version of the NVIDIA driver. Does not import torch."""

import platform
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import psutil

GROUPS, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
"""The folder of control groups (cgroups) on Linux, and the file that lists those of this process."""

_GROUP_FILES = {
    "": ("memory.max", "memory.current", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""Names of the limit, of the usage, and of the reclaimable part of the usage, for cgroups v2 ("") and v1 ("memory")."""


def free_host_memory(groups: Path = GROUPS, own: Path = OWN) -> int:
    """Return the bytes that this process can still allocate.

    It is the free memory of the machine, or what the limit of a container or a job leaves if that is lower.
    """
    return min([psutil.virtual_memory().available, *_left_in_groups(groups, own)])


@cache
def processor_name() -> str:
    """Return the name of the CPU as the CPU reports it, or else the name of its architecture."""
    if platform.system() == "Darwin" and (name := _output_of("sysctl", "-n", "machdep.cpu.brand_string")):
        return name
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def nvidia_driver(path: Path = Path("/proc/driver/nvidia/version")) -> str | None:
    """Return the version of NVIDIA's kernel module, such as 550.54.15; None if the system does not report it."""
    try:
        found = re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)\s", path.read_text())
    except OSError:
        return None
    return found[1] if found else None


def _left_in_groups(groups: Path, own: Path) -> Iterator[int]:
    """Yield the bytes that each memory limit of this process leaves.

    Inactive pages of files count as used, but the kernel reclaims them before it refuses memory.
    """
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controller, path = line.split(":", 2)
        if controller not in _GROUP_FILES:
            continue
        limit, used, idle = _GROUP_FILES[controller]
        root = groups / controller
        # inside a container the group is mounted at the root, but the path may be the one outside of the container
        for folder in [root / path.strip("/"), *(root / path.strip("/")).parents]:
            if not folder.is_relative_to(root):
                break
            try:
                numbers = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                taken = int((folder / used).read_text()) - int(numbers[idle])
                yield max(0, int((folder / limit).read_text()) - taken)
            except (OSError, ValueError, KeyError):
                continue  # the root group has no limit, and "max" means unlimited


def _output_of(*command: str) -> str:
    """Return the output of a command; an empty string if the command is missing or fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
