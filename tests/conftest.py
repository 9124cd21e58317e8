"""Settings of all tests: fixed examples, one thread, a fixed seed."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from attnscope.reports.comparison import Comparison
from attnscope.reports.diff import Diff
from attnscope.reports.neighbourhood import NeighbourhoodReport
from attnscope.reports.report import Report
from attnscope.reports.windows import WindowsReport
from tests import commands, sampling, schema

# no deadline: the first example imports torch
settings.register_profile(
    "attnscope", deadline=None, derandomize=True, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("attnscope")

for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
    os.environ.pop(name, None)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that runs all cases of large tables."""
    parser.addoption("--every", action="store_true", help="run all cases of large tables, not a sample of them")


def pytest_configure(config: pytest.Config) -> None:
    """Set how many cases are collected."""
    sampling.Extent.every = config.getoption("every")


@pytest.hookimpl(optionalhook=True)  # not called with -p no:xdist
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Return the number of processes for `-n auto`.

    It is 0 for named tests, `-s` and debuggers. One process is faster for a few tests, and a debugger, `-s` and coverage
    need the tests in it. Otherwise it is None: pytest-xdist starts one process for each core.
    """
    named = config.args_source is pytest.Config.ArgsSource.ARGS
    traced = sys.gettrace() is not None or config.getoption("trace")
    return 0 if named or traced or config.getoption("capture") == "no" else None


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests marked for a GPU, with the reason, if the machine has none."""
    import torch

    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    for marker in item.iter_markers():
        if not available.get(marker.name, True):
            pytest.skip(f"no {marker.name.upper()} device here")


@pytest.fixture(autouse=True)
def _settled() -> None:
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(1)
    torch.set_flush_denormal(False)  # loading compiled code can enable it, as in torch 2.5


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def attnscope() -> Iterator[Run]:
    """Return a function that runs the command in a process; keywords are environment variables.

    Example: `attnscope("vit", "--no-time", COLUMNS="80")`.
    """
    with commands.warm() as run_it:

        def run(*words: str, stdin: str | None = None, **env: str) -> subprocess.CompletedProcess[str]:
            done = run_it(words, stdin, {**os.environ, "PYTHONIOENCODING": "utf-8", **env})
            if "--json" in words and done.stdout:
                schema.check(done.stdout)
            return done

        yield run


@pytest.fixture(scope="session", autouse=True)
def _valid_json() -> Iterator[None]:
    """Validate all JSON that the tests produce in this process against the schema."""

    def checked(to_json: Callable[[Any], str]) -> Callable[[Any], str]:
        @wraps(to_json)
        def call(report: Any) -> str:
            schema.check(text := to_json(report))
            return text

        return call

    with pytest.MonkeyPatch.context() as patch:
        for of in (Report, Comparison, Diff, WindowsReport, NeighbourhoodReport):
            patch.setattr(of, "to_json", checked(of.to_json))
        yield


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep measured peaks in a temporary folder instead of the user's cache."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
