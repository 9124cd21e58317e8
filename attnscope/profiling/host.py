"""The machine below torch: the memory that is left on it, its processor, its GPU's driver. No torch."""

import platform
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import psutil

GROUPS, OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
"""Where Linux keeps control groups, and which of them this process is in."""

_GROUP_FILES = {
    "": ("memory.max", "memory.current", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""For version 2 of control groups and for version 1: limit, use, and what of the use can be taken back at once."""


def free_host_memory(groups: Path = GROUPS, own: Path = OWN) -> int:
    """Bytes that this process may still take: of the machine, or of a container's or a job's limit where that is lower."""
    return min([psutil.virtual_memory().available, *_left_in_groups(groups, own)])


@cache
def processor_name() -> str:
    """What the processor calls itself."""
    if platform.system() == "Darwin" and (name := _output_of("sysctl", "-n", "machdep.cpu.brand_string")):
        return name
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def nvidia_driver(path: Path = Path("/proc/driver/nvidia/version")) -> str | None:
    """The version of NVIDIA's kernel module, such as 550.54.15; None where it is not told."""
    try:
        found = re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)\s", path.read_text())
    except OSError:
        return None
    return found[1] if found else None


def _left_in_groups(groups: Path, own: Path) -> Iterator[int]:
    """What is left of each limit that this process stands under.

    Pages of files that nobody has looked at lately count as used, but the kernel takes them back before it refuses memory.
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
        # a container sees its own group at the root, and the path may be the one that it has outside
        for folder in [root / path.strip("/"), *(root / path.strip("/")).parents]:
            if not folder.is_relative_to(root):
                break
            try:
                numbers = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                taken = int((folder / used).read_text()) - int(numbers[idle])
                yield max(0, int((folder / limit).read_text()) - taken)
            except (OSError, ValueError, KeyError):
                continue  # the root has no limit, and "max" is none


def _output_of(*command: str) -> str:
    """What a command prints; nothing where it is not there or fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
