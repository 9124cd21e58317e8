"""The files that keep the best that this machine has shown: its peaks and its yardsticks."""

import json
import math
import os
import sys
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from attnscope.plan.peaks import Bandwidth, Peaks, Raised, Rate, best_of

YARDSTICKS = "yardsticks"
"""The entry of a file with the best time of each yardstick; the other entries are those of Peaks."""


def cache_folder() -> Path:
    """Return the folder of attnscope in the user's cache folder."""
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"]) / "attnscope"
    try:
        home = Path.home()
    except RuntimeError:  # a user without a home
        return Path(tempfile.gettempdir()) / "attnscope"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", home)) / "attnscope" / "cache"
    return home / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "attnscope"


def read_peaks(path: Path) -> Peaks | None:
    """Read the peaks of a file; None if they are missing or invalid."""
    try:
        peaks = from_plain({name: value for name, value in read_cache(path).items() if name != YARDSTICKS})
        return peaks if is_sound(peaks) else None
    except (KeyError, TypeError, AttributeError, OverflowError):
        return None


def is_sound(peaks: Peaks) -> bool:
    """Return whether all rates and times are finite numbers above 0; a file may have been edited."""
    rates = (*peaks.matmul, *peaks.batched, *peaks.softmax)
    numbers = [number for rate in rates for number in (rate.size, rate.per_s)]
    numbers += [number for copy in peaks.copy for number in (copy.working_set, copy.bytes_per_s)]
    numbers += [*(one.per_s for one in peaks.raised), peaks.call_s, peaks.seconds, *peaks.caches.values()]
    numbers += [time for time in (peaks.view_s, peaks.yardstick_s) if time is not None]
    return bool(peaks.copy and rates) and all(
        isinstance(number, int | float) and math.isfinite(number) and number > 0 for number in numbers
    )


def remember(peaks: Peaks, path: Path) -> Peaks:
    """Store the best of these peaks and of those in the file if it has the same sizes, and return it."""
    kept = read_peaks(path)
    best = peaks if kept is None or _sizes(kept) != _sizes(peaks) else best_of(kept, peaks)
    store(best, path)
    return best


def _sizes(peaks: Peaks) -> list[list[int]]:
    """Return the sizes of each kind of rate; a file may have been edited."""
    rates = [[rate.size for rate in kind] for kind in (peaks.matmul, peaks.batched, peaks.softmax)]
    return [*rates, [copy.working_set for copy in peaks.copy]]


def store(peaks: Peaks, path: Path) -> None:
    """Store peaks in a file, in place of those that it has."""
    update_cache(path, asdict(peaks))


def read_cache(path: Path) -> dict[str, Any]:
    """Return what is stored in a file; empty without a file that has a JSON object, as for a pipe."""
    if not path.is_file():
        return {}
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return stored if isinstance(stored, dict) else {}


def update_cache(path: Path, changes: Mapping[str, Any]) -> None:
    """Replace entries of a file and keep the others; readers see the file only when it is complete."""
    unfinished = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(json.dumps({**read_cache(path), **changes}), encoding="utf-8")
        unfinished.replace(path)
    except OSError:
        pass  # without a writable cache folder, each process measures for itself
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)  # of an interrupted write


def from_plain(data: dict[str, Any]) -> Peaks:
    """Build Peaks from their JSON representation.

    Raises:
        KeyError, TypeError: the data does not represent Peaks.
    """
    rates = {name: tuple(Rate(**one) for one in data[name]) for name in ("matmul", "batched", "softmax")}
    copies = tuple(Bandwidth(**one) for one in data["copy"])
    return Peaks(**{**data, **rates, "copy": copies, "raised": tuple(Raised(**one) for one in data.get("raised", ()))})
