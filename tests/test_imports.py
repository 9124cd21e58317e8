"""Commands that must start fast do not import torch, and the package keeps import-linter's contracts."""

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import attnscope as public

NO_TORCH = [
    ["--help"],
    ["--version"],
    ["vit", "--help"],
    ["vit", "--no-time"],
    ["vit", "--no-time", "--json"],
    ["swin", "--window", "7", "--shift", "--no-time", "--format", "csv"],
    ["swin", "--no-time", "--format", "md"],
    ["vit", "--preset", "vit-b-16-224", "--no-time"],
    ["swin", "--preset", "swin-b-224", "--scope", "model", "--no-time"],
    ["swinv2", "--preset", "swinv2_tiny_window8_256", "--stage", "2", "--block", "2", "--no-time"],
    ["cross", "--no-time"],
    ["presets"],
    ["presets", "--json"],
    ["vit", "--dim", "770"],
    ["swin", "--shift", "--no-time", "--picture"],
    ["windows", "--shift"],
    ["windows", "--shift", "--token", "5,9", "--layers", "4", "--positions", "--order"],
    ["windows", "--shift", "--json"],
    ["compare"],
    ["compare", "--help"],
    ["compare", "--stages", "--json"],
    ["compare", "--over", "window=4,7", "--over", "dim=96,192", "--quantity", "peak"],
    ["compare", "vit"],
    ["trace", "--help"],
    ["explore", "--help"],
    ["explore", "swin", "--shift"],
]


RUN_AND_LIST = """
import runpy, sys
sys.argv = ["attnscope", *sys.argv[1:]]
try:
    runpy.run_module("attnscope", run_name="__main__")
finally:
    print("MODULES", *sys.modules, file=sys.stderr)
"""


def modules_after(words: list[str]) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", RUN_AND_LIST, *words], capture_output=True, text=True, encoding="utf-8"
    )
    assert "Traceback" not in done.stderr
    return set(done.stderr.rsplit("MODULES", 1)[1].split())


@pytest.mark.parametrize("words", NO_TORCH, ids=" ".join)
def test_a_command_that_does_not_run_a_module_does_not_import_torch(words):
    loaded = modules_after(words)
    assert "attnscope.cli.program" in loaded
    assert not {"torch", "fvcore", "numpy"} & loaded


@pytest.mark.parametrize("words", [["--help"], ["compare", "--help"], ["compare", "--json"], ["vit", "--no-time"]])
def test_only_a_chart_imports_plotext(words):
    assert "plotext" not in modules_after(words)


@pytest.mark.parametrize(
    "words",
    [
        ["vit", "--no-time"],
        ["swin", "--window", "7x7", "--shift", "--dtype", "float16", "--no-time", "-o", os.devnull],
        ["compare", "vit", "swin", "--over", "dim=96,192"],
        ["windows", "--shift"],
    ],
    ids=" ".join,
)
def test_parsing_the_command_line_does_not_import_pydantic(words):
    """Typer imports pydantic to validate values; attnscope parses its flags and arguments from text."""
    assert "pydantic" not in modules_after(words)


def test_help_does_not_import_tables():
    assert "rich.table" not in modules_after(["--help"])


def test_a_run_imports_torch():
    """This shows that the test above can fail."""
    assert "torch" in modules_after(["vit", "--device", "meta", "--tokens", "2"])


def test_import_linters_contracts_hold():
    command = ["lint-imports", "--no-logo", "--no-cache"]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr


def test_importing_the_package_imports_none_of_its_rooms():
    words = "import sys, attnscope; print(attnscope.__all__, *[m for m in sys.modules if m.startswith('attnscope.')])"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, encoding="utf-8", check=True)
    assert done.stdout.strip().endswith("]")


@pytest.mark.parametrize("name", public.__all__)
def test_a_public_name_is_documented_and_listed(name):
    assert name in dir(public)
    assert inspect.getdoc(getattr(public, name))


def test_an_unknown_name_raises_an_attribute_error():
    with pytest.raises(AttributeError, match="swin_spec"):
        public.swin_spec  # noqa: B018
    assert not hasattr(public, "swin_spec")
