"""The sizes of the data caches of a device."""

from pathlib import Path

import torch

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
"""The folder in which Linux describes the caches of a core."""


def caches(device: torch.device, folder: Path = CACHES) -> dict[str, int]:
    """Return the size in bytes of each data cache that a core can use, the smallest first.

    The result is empty if the system does not report caches.
    """
    if device.type == "cuda":
        size = getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0)
        return {"L2": size} if size else {}
    found: dict[str, int] = {}
    if device.type != "cpu":
        return found
    for index in sorted(folder.glob("index*")):
        try:
            kind, level, size = ((index / name).read_text().strip() for name in ("type", "level", "size"))
            if kind != "Instruction":
                found[f"L{level}"] = int(size.rstrip("KM")) * (2**20 if size.endswith("M") else 1024)
        except (OSError, ValueError):
            continue
    return dict(sorted(found.items(), key=lambda cache: cache[1]))
