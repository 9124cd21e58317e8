"""Mistakes in the folder of an attention: each is one line that names the folder and the fix, and never a traceback."""

import gc
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from attnscope.attentions import discovery
from attnscope.cli import extension, main

PVT = Path(__file__).parent.parent / "examples" / "pvt"


@dataclass
class Shown:
    code: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run the command in this process, with `--attention` for a folder; what it loads is forgotten."""
    for registry, name in ((discovery, "_loaded"), (discovery, "_folders"), (extension, "_folders")):
        monkeypatch.setattr(registry, name, type(getattr(registry, name))())
    monkeypatch.setattr(sys, "path", [*sys.path])

    def run(folder: Path | None, *words: str) -> Shown:
        named = [] if folder is None else ["--attention", str(folder)]
        monkeypatch.setattr(sys, "argv", ["attnscope", *named, *words])
        with pytest.raises(SystemExit) as left:
            main()
        gc.enable()  # which the command leaves off
        return Shown(left.value.code, *capsys.readouterr())

    yield run
    for name, module in list(sys.modules.items()):
        if str(tmp_path) in (getattr(module, "__file__", None) or ""):
            del sys.modules[name]


def copy(folder: Path) -> Path:
    """Copy examples/pvt without its tests."""
    shutil.copytree(PVT, folder, ignore=shutil.ignore_patterns("test_*", "__pycache__"))
    return folder


def hold_one_line(shown: Shown, *words: str) -> None:
    """Hold that a command failed with one line, which has these words, and exit code 2."""
    assert (shown.code, shown.out) == (2, "")
    assert shown.err.startswith("attnscope: ")
    assert shown.err.count("\n") == 1
    for said in words:
        assert said in shown.err


@pytest.mark.parametrize("name", ["{dim}", "[red]x[/red]"])
def test_a_path_is_shown_as_it_is(run, tmp_path, name):
    missing = tmp_path / name / "mine"
    hold_one_line(run(missing, "vit", "--no-time"), f"--attention {missing} is not a folder")
    folder = copy(missing)
    (folder / "spec.py").unlink()
    hold_one_line(run(folder, "pvt", "--no-time"), f"{folder} lacks spec.py")
    copy(tmp_path / name / "whole")
    shown = run(tmp_path / name / "whole", "pvt", "--no-time")
    assert f"attnscope --attention '{tmp_path / name}/whole' compare" in shown.out
