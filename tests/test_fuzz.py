"""Random command lines, saved runs and config files end with a result or a line; `python -m tests.fuzz` tries more."""

import os

import pytest

from tests.fuzz.__main__ import faults
from tests.fuzz.runs import run


def test_random_lines_and_files_have_no_fault(tmp_path):
    assert [str(fault) for fault in faults(lines=150, files=60, seed=0, folder=tmp_path)] == []


def test_a_traceback_is_found(monkeypatch):
    def broken(*_: object, **__: object) -> None:
        raise ArithmeticError

    monkeypatch.setattr("attnscope.cli.attention.write", broken)
    fault = run(["vit", "--no-time"], {})
    assert fault is not None
    assert fault.what == "traceback"
    assert "ArithmeticError" in fault.details


def test_a_line_without_end_is_found(monkeypatch):
    def endless(*_: object, **__: object) -> None:
        while True:
            pass

    monkeypatch.setattr("tests.fuzz.runs.LONGEST_S", 0.1)
    monkeypatch.setattr("attnscope.cli.attention.write", endless)
    fault = run(["vit", "--no-time"], {})
    assert fault is not None
    assert fault.what == "hang"


@pytest.mark.parametrize("words", [["vit", "--dim", "-1"], ["vit", "--no-time"]])
def test_a_line_or_a_result_has_no_fault(words):
    assert run(words, {}) is None


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
@pytest.mark.parametrize("words", [["diff", "{}", "{}"], ["vit", "--config", "{}"], ["trace", "hf:{}"]])
def test_a_file_without_end_is_refused(attnscope, words):
    pytest.importorskip("transformers") if words[0] == "trace" else None
    done = attnscope(*[word.format("/dev/zero") for word in words])
    assert done.returncode == 2
    assert "must have at most 67,108,864 characters" in done.stderr


@pytest.mark.parametrize(
    "words", [["vit", "--no-time", "-o"], ["vit", "--no-time", "--save"], ["diff"], ["vit", "--config"]]
)
def test_a_file_name_that_is_too_long_is_one_line(attnscope, words):
    name = "a" * 300 + ".json"
    done = attnscope(*words, *([name] * (2 if words == ["diff"] else 1)))
    assert done.returncode == 2
    assert "File name too long" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", ["a" * 250 + ".json", "é" * 125 + ".json"])
def test_a_file_may_have_the_longest_name_of_the_system(attnscope, name, tmp_path):
    done = attnscope("vit", "--no-time", "--save", str(tmp_path / name))
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_link_to_itself_is_not_replaced(attnscope, tmp_path):
    link = tmp_path / "a.json"
    link.symlink_to(link)
    done = attnscope("vit", "--no-time", "-o", str(link))
    assert done.returncode == 2
    assert link.is_symlink()


def test_an_unexpected_error_is_one_line_and_debug_shows_the_traceback(attnscope, tmp_path):
    folder = tmp_path / "sitecustomize.py"
    folder.write_text(
        "import attnscope.cli.attention as attention\n"
        "def broken(*_, **__): raise RuntimeError('could not create a primitive')\n"
        "attention.write = broken\n"
    )
    variables = {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    done = attnscope("vit", "--no-time", "--dim", "96", **variables)
    assert done.returncode == 1
    first, fix = done.stderr.split("; ")
    assert first.endswith("could not create a primitive (unexpected, in attnscope vit --no-time --dim 96)")
    assert fix == "run attnscope --debug vit --no-time --dim 96 for the traceback, and report it\n"
    assert "Traceback" in attnscope("--debug", "vit", "--no-time", **variables).stderr
