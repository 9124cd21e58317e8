"""Processes that run tests: each is a fork of one that has imported torch, and works in a copy of the tree of its own."""

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
"""A key, what a fork does in its copy of the tree and returns as JSON, and how many seconds it may take."""


@contextmanager
def copies(number: int) -> Iterator[list[Path]]:
    """Copies of the tree as it is now, committed or not; they are removed at the end."""
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
    """Run each job in a fork, as many at a time as there are copies of the tree.

    Yields:
        The key and the result of each job as it ends; None for one that was ended because it took too long or crashed.
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
        # from Python 3.12 on it warns of threads; those of torch wait until the first operation that needs them
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()  # so that what the tests start ends with them
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        log = os.open(tree.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(log, stream)
        os.chdir(tree)
        for name in [name for name in sys.modules if name.split(".")[0] in OURS]:
            del sys.modules[name]  # those of the tree that was copied
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
    """Make a copy what it was: a fork that was ended leaves its mutant there."""
    shutil.rmtree(tree, ignore_errors=True)
    shutil.copytree(tree.with_name(UNTOUCHED), tree)


def _end(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
