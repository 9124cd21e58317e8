"""Processes that run tests: each is a fork of one that has imported torch, and works in its own copy of the tree."""

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

TREE = Path(__file__).parents[2]
HEAVY = ("torch", "torchvision", "timm", "hypothesis", "pytest", "coverage", "typer", "rich", "psutil", "fvcore.nn")
UNTOUCHED = "untouched"
OURS = ("attnscope", "tests")

Job = tuple[Any, Callable[[Path], Any], float]
"""A key, a function that a fork calls with its copy of the tree and whose result is JSON, and a time limit in seconds."""


@contextmanager
def copies(number: int) -> Iterator[list[Path]]:
    """Copy the tree as it is now, committed or not, and remove the copies at the end."""
    names = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    files = subprocess.run(names, cwd=TREE, capture_output=True, text=True, check=True).stdout.split("\0")
    with tempfile.TemporaryDirectory(prefix="attnscope-mutation-") as folder:
        untouched = Path(folder, UNTOUCHED)
        for name in filter(None, files):
            if (TREE / name).is_file():
                (untouched / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(TREE / name, untouched / name)
        trees = [Path(folder, str(index)) for index in range(number)]
        for tree in trees:
            _renew(tree)
        yield trees


def run_in_forks(jobs: Iterable[Job], trees: list[Path]) -> Iterator[tuple[Any, Any]]:
    """Run each job in a fork, one job at a time for each copy of the tree.

    Yields:
        The key and the result of each job as it ends. The result is None if the job exceeded its limit or crashed.
    """
    for name in HEAVY:
        importlib.import_module(name)
    waiting = iter(jobs)
    running: dict[int, tuple[Any, Path, Path, float]] = {}
    free = list(trees)
    try:
        while True:
            while free and (job := next(waiting, None)):
                key, work, limit_s = job
                tree = free.pop()
                result = tree.with_suffix(".result")
                result.unlink(missing_ok=True)
                running[_fork(work, tree, result)] = key, tree, result, time.monotonic() + limit_s
            if not running:
                return
            for pid, (key, tree, result, end) in list(running.items()):
                done, _ = os.waitpid(pid, os.WNOHANG)
                if not done and time.monotonic() < end:
                    continue
                if not done:
                    _end(pid)
                    _renew(tree)
                elif not result.exists():
                    print(f"{key}:", tree.with_suffix(".log").read_text()[-2000:], file=sys.stderr)
                del running[pid]
                free.append(tree)
                yield key, json.loads(result.read_text()) if result.exists() else None
            time.sleep(0.02)
    finally:
        for pid in running:
            _end(pid)


def _fork(work: Callable[[Path], Any], tree: Path, result: Path) -> int:
    with warnings.catch_warnings():
        # Python 3.12 warns about forks of processes with threads; those of torch wait until an operation needs them
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()  # so that the processes that tests start end with them
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        log = os.open(tree.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(log, stream)
        os.chdir(tree)
        for name in [name for name in sys.modules if name.split(".")[0] in OURS]:
            del sys.modules[name]  # they come from the original tree
        sys.path[:] = [str(tree), *(path for path in sys.path if path and Path(path) != TREE)]
        os.environ["PYTHONPATH"] = str(tree)
        unfinished = result.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(work(tree)))
        unfinished.replace(result)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(0)


def _renew(tree: Path) -> None:
    """Restore a copy: a fork that was killed leaves its mutant in it."""
    shutil.rmtree(tree, ignore_errors=True)
    shutil.copytree(tree.with_name(UNTOUCHED), tree)


def _end(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
