"""Mutants, forks and the choice of tests in mutation testing."""

import os

import pytest

from tests.mutation import runs
from tests.mutation.forks import copies, run_in_forks
from tests.mutation.mutants import mutants


def changes(source):
    """Return the changed line of each mutant of a source."""
    return [mutant.diff(source).split("\n+ ")[1] for mutant in mutants(source)]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x = 3", ["x = (2)", "x = 4"]),
        ("x: float = 0.5", ["x: float = (0.5 * 0.9)", "x: float = (0.5 * 1.1)"]),
        ("x = True", ["x = False"]),
        ("x = a < b", ["x = a <= b"]),
        ("x = a is not b", ["x = a is b"]),
        ("x = é + (b)", ["x = é - (b)"]),
        ("x = a ** b", ["x = a * b"]),
        ("x = not a", ["x = (a)"]),
        ("x = a and b", ["x = a or b"]),
        ("x = min(a)", ["x = max(a)"]),
        ("x = math.floor(a)", ["x = math.ceil(a)"]),
        ("x = a if b else c", ["x = a if (not (b)) else c"]),
        ("x = [a for a in b if a]", ["x = [a for a in b if (not (a))]"]),
        ("x.y = z", ["pass"]),
        ("f(x)", ["pass"]),
        ('"Documentation."', []),
        ("x = f'{a + 1}'", []),
        ("x: int | None = None", []),
        ("import a", []),
        ("x = zip(a, strict=True)", []),
    ],
)
def test_each_mutant_has_one_change(source, expected):
    assert changes(source) == expected


def test_a_mutant_has_the_lines_of_its_statement_and_is_marked_if_a_call_runs_it():
    source = "A = 1\n\n\ndef f(x=2):\n    if (x and\n            y):\n        return x\n    raise ValueError\n"
    found = {(mutant.line, mutant.lines, mutant.function) for mutant in mutants(source)}
    assert found == {
        (1, range(1, 2), False),
        (4, range(4, 5), False),
        (5, range(5, 7), True),
        (7, range(7, 8), True),
        (8, range(8, 9), True),
    }


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_fork_works_in_a_copy_and_leaves_nothing_behind_if_it_exceeds_its_limit():
    def change(tree):
        (tree / "pyproject.toml").write_text("changed")
        while True:
            pass

    with copies(1) as trees:
        kept = (trees[0] / "pyproject.toml").read_text()
        assert list(run_in_forks([("endless", change, 0.5)], trees)) == [("endless", None)]
        assert (trees[0] / "pyproject.toml").read_text() == kept
        assert list(run_in_forks([("sum", lambda tree: 1 + 1, 60.0)], trees)) == [("sum", 2)]


def test_statements_that_an_import_runs_are_covered_by_tests_that_use_the_module():
    (threshold, *_) = mutants("FEWEST = 5")
    users = runs._users("attnscope/profiling/noise.py")
    assert "attnscope/profiling/timing.py" in users
    tests = {
        "slow": runs.Ran(9.0, {"attnscope/profiling/timing.py": [1]}),
        "other": runs.Ran(0.1, {"attnscope/core/axes.py": [1]}),
        "quick": runs.Ran(0.1, {"attnscope/profiling/noise.py": [1]}),
    }
    assert runs._choose("attnscope/profiling/noise.py", threshold, tests, users, 20.0) == ["quick", "slow"]
    assert runs._choose("attnscope/profiling/noise.py", threshold, tests, users, 1.0) == ["quick"]
