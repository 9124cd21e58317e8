"""Settings of all tests: the same examples each time, one thread, a seed."""

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings

# no deadline: the first example imports torch
settings.register_profile(
    "attnscope", deadline=None, derandomize=True, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("attnscope")

for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
    os.environ.pop(name, None)


@pytest.hookimpl(optionalhook=True)  # with -p no:xdist nobody calls it
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Return how many processes `-n auto` starts: none if some tests are named, their output is shown or somebody debugs.

    One process is quicker for a few tests, and a debugger, `-s` and coverage need the tests in it. None leaves the number
    to pytest-xdist: one for each core.
    """
    named = config.args_source is pytest.Config.ArgsSource.ARGS
    traced = sys.gettrace() is not None or config.getoption("trace")
    return 0 if named or traced or config.getoption("capture") == "no" else None


def pytest_runtest_setup(item: pytest.Item) -> None:
    """What is marked for a GPU is skipped, with the reason, where there is none."""
    import torch

    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    for marker in item.iter_markers():
        if not here.get(marker.name, True):
            pytest.skip(f"no {marker.name.upper()} device here")


@pytest.fixture(autouse=True)
def _settled() -> None:
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(1)
    torch.set_flush_denormal(False)  # compiled code may switch it on when it is loaded, as that of torch 2.5 does


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def attnscope() -> Run:
    """Run the real command: `attnscope("vit", "--no-time", COLUMNS="80")`; keywords are environment variables."""

    def run(*words: str, stdin: str | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "attnscope", *words],
            capture_output=True,
            text=True,
            encoding="utf-8",
            input=stdin,
            env={**os.environ, "PYTHONIOENCODING": "utf-8", **env},
            timeout=300,
        )

    return run


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Peaks are kept in a folder of these tests, and not in the user's."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
