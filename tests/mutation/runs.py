"""Coverage of lines by tests, and test runs against mutants."""

import ast
import hashlib
import json
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.mutation.forks import TREE, Job, run_in_forks
from tests.mutation.mutants import Mutant

RECORDS = TREE / ".mutation"
RECORDING_S = 900.0
OPTIONS = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", "addopts=--strict-markers", "-m", "not slow"]
OPTIONS += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # plugins that were imported before the fork


@dataclass(frozen=True)
class Ran:
    """A test that passes: its seconds, and the lines of each file that it runs in its own process."""

    seconds: float
    lines: dict[str, list[int]]


Map = dict[str, Ran]
"""The record of each test, by its name."""


@dataclass(frozen=True)
class Outcome:
    """A result for one mutant: `killed`, `timeout`, `survived`, or `not run` if no test runs its statement."""

    path: str
    mutant: Mutant
    end: str
    tests: int


def record(test_files: Iterable[Path], trees: list[Path], stream: Any = sys.stderr) -> Map:
    """Return the lines that each test runs; run a test file again only if it or the package has changed."""
    RECORDS.mkdir(exist_ok=True)
    found: Map = {}
    jobs: list[Job] = []
    package = _digest(sorted((TREE / "attnscope").rglob("*.py")))
    for path in test_files:
        name = str(path.relative_to(TREE))
        kept = RECORDS / f"{path.stem}-{_digest([path])[:12]}-{package[:12]}.json"
        if kept.exists():
            found |= _read(kept)
        else:
            jobs.append(((name, kept), partial(_record, name), RECORDING_S))
    for (name, kept), ran in run_in_forks(jobs, trees):
        if ran is None:
            print(f"{name} could not be recorded", file=stream)
            continue
        print(f"{name}: {len(ran)} tests recorded", file=stream, flush=True)
        if not ran:
            continue  # not saved, so that the next run records it again
        for old in RECORDS.glob(f"{Path(name).stem}-????????????-????????????.json"):
            old.unlink()
        kept.write_text(json.dumps(ran))
        found |= _read(kept)
    return found


def try_mutants(
    chosen_mutants: Sequence[tuple[str, Mutant]], tests: Map, trees: list[Path], seconds: float
) -> Iterator[Outcome]:
    """Run each mutant against the tests that run its statement, fastest first, until one fails.

    Args:
        chosen_mutants: mutants, each with the path of its file.
        tests: the lines that each test runs.
        trees: copies of the tree.
        seconds: limit of the total recorded time of the chosen tests.
    """
    users = {path: _users(path) for path in {path for path, _ in chosen_mutants}}
    jobs: list[Job] = []
    for path, mutant in chosen_mutants:
        chosen = _choose(path, mutant, tests, users[path], seconds)
        if not chosen:
            yield Outcome(path, mutant, "not run", 0)
            continue
        limit_s = 20 + 4 * sum(tests[test].seconds for test in chosen)
        jobs.append(((path, mutant, len(chosen)), partial(_try, path, mutant, chosen), limit_s))
    for (path, mutant, number), noticed in run_in_forks(jobs, trees):
        yield Outcome(path, mutant, {None: "timeout", True: "killed", False: "survived"}[noticed], number)


def _choose(path: str, mutant: Mutant, tests: Map, users: set[str], seconds: float) -> list[str]:
    """Return the names of the tests to run, fastest first.

    A statement that an import runs is covered by tests that use its file or one that imports from it.
    """

    def runs(ran: Ran) -> bool:
        if mutant.function:
            return any(line in mutant.lines for line in ran.lines.get(path, ()))
        return not users.isdisjoint(ran.lines)

    chosen: list[str] = []
    left = seconds
    for test in sorted((test for test, ran in tests.items() if runs(ran)), key=lambda test: tests[test].seconds):
        left -= tests[test].seconds
        if left < 0 and chosen:
            break
        chosen.append(test)
    return chosen


def _users(path: str) -> set[str]:
    """Return a file and the files of the package that import from it."""
    module = ".".join(Path(path).with_suffix("").parts).removesuffix(".__init__")
    package, _, name = module.rpartition(".")
    found = {path}
    for file in (TREE / "attnscope").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            match node:
                case ast.ImportFrom(module=origin, names=names) if origin == module or (
                    origin == package and name in {alias.name for alias in names}
                ):
                    found.add(str(file.relative_to(TREE)))
                case ast.Import(names=names) if module in {alias.name for alias in names}:
                    found.add(str(file.relative_to(TREE)))
    return found


def _record(name: str, tree: Path) -> dict[str, dict[str, Any]]:
    """Run the tests of one file in a fork, and return the record of each that passes.

    A test that fails only because coverage traces it runs again without coverage. It then counts for every line of the
    modules that its file imports.
    """
    import coverage
    import pytest

    watched = coverage.Coverage(data_file=None, include=[f"{tree}/attnscope/*"], config_file=False, messages=False)
    passed: dict[str, float] = {}

    class Contexts:
        @pytest.hookimpl(wrapper=True)
        def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
            watched.switch_context(item.nodeid)
            return (yield)

    class Durations:
        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            passed[report.nodeid] = passed.get(report.nodeid, 0.0) + (report.duration if report.passed else math.nan)

    watched.start()
    pytest.main([*OPTIONS, name], plugins=[Contexts(), Durations()])
    watched.stop()
    data = watched.get_data()
    lines: dict[str, dict[str, list[int]]] = {}
    for file in data.measured_files():
        for line, contexts in data.contexts_by_lineno(file).items():
            for test in contexts:
                lines.setdefault(test, {}).setdefault(str(Path(file).relative_to(tree)), []).append(line)

    failed = [test for test, took in passed.items() if math.isnan(took)]
    if failed:
        imported = _lines_imported(tree / name, tree)
        for test in failed:
            del passed[test]
            lines[test] = imported
        pytest.main([*OPTIONS, *failed], plugins=[Durations()])
    return {
        test: {"seconds": took, "lines": lines.get(test, {})} for test, took in passed.items() if not math.isnan(took)
    }


def _lines_imported(file: Path, tree: Path) -> dict[str, list[int]]:
    """Return every line of the modules of the package from which a file imports."""
    found: dict[str, list[int]] = {}
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("attnscope."):
            path = tree / (node.module.replace(".", "/") + ".py")
            if path.exists():
                length = len(path.read_text(encoding="utf-8").splitlines())
                found[str(path.relative_to(tree))] = list(range(1, length + 1))
    return found


def _try(path: str, mutant: Mutant, chosen: list[str], tree: Path) -> bool:
    """Return True if a test fails, in a fork, with the mutant in the copy of the tree."""
    import pytest

    class Chosen:
        def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
            items[:] = sorted((item for item in items if item.nodeid in order), key=lambda item: order[item.nodeid])

    order = {test: place for place, test in enumerate(chosen)}
    file = tree / path
    source = file.read_text(encoding="utf-8")
    # Python would reuse bytecode of the original if the mutant has the same size and is written in the same second
    sys.dont_write_bytecode = True
    for compiled in file.parent.glob(f"__pycache__/{file.stem}.*.pyc"):
        compiled.unlink()
    try:
        file.write_text(mutant.apply(source), encoding="utf-8")
        code = pytest.main([*OPTIONS, "-x", *dict.fromkeys(test.split("::")[0] for test in chosen)], plugins=[Chosen()])
    finally:
        file.write_text(source, encoding="utf-8")
    return code != pytest.ExitCode.OK


def _read(kept: Path) -> Map:
    return {test: Ran(**ran) for test, ran in json.loads(kept.read_text()).items()}


def _digest(paths: Iterable[Path]) -> str:
    found = hashlib.sha256()
    for path in paths:
        found.update(str(path.relative_to(TREE)).encode())
        found.update(path.read_bytes())
    return found.hexdigest()
