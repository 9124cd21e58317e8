"""What each place may know: the imports, read from the code; and what must answer at once, run for real."""

import ast
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

import attnscope

PACKAGE = Path(attnscope.__file__).parent
FILES = {path.relative_to(PACKAGE).as_posix(): path for path in PACKAGE.rglob("*.py")}

TORCH = {"torch", "fvcore", "timm", "torchvision"}
SHOWING = {"rich", "attnscope.render", "attnscope.cli"}

FORBIDDEN = [
    # place, what it must not know (not even behind a function, where "always" says so)
    ("axes.py", TORCH | {"rich", "typer"}),
    ("steps.py", TORCH | SHOWING | {"typer", "attnscope.probes", "attnscope.plan", "attnscope.listening"}),
    ("plan.py", TORCH | SHOWING | {"typer", "attnscope.probes", "attnscope.listening"}),
    ("listening.py", TORCH | SHOWING | {"typer", "attnscope.probes"}),
    ("spec.py", TORCH | SHOWING | {"typer"}),
    ("complexity.py", TORCH | SHOWING | {"typer"}),
    ("attentions/*/spec.py", TORCH | SHOWING | {"typer"}),
    ("attentions/*/steps.py", TORCH | SHOWING | {"typer"}),
    ("attentions/*/geometry.py", TORCH | SHOWING | {"typer"}),
    ("attentions/*/attention.py", SHOWING | {"typer", "attnscope.probes", "attnscope.exploring"}),
    ("networks/spec.py", TORCH | SHOWING | {"typer"}),
    ("networks/steps.py", TORCH | SHOWING | {"typer"}),
    ("networks/presets.py", TORCH | SHOWING | {"typer"}),
    ("networks/published.py", TORCH | SHOWING | {"typer"}),
    ("networks/*/spec.py", TORCH | SHOWING | {"typer"}),
    ("networks/*/steps.py", TORCH | SHOWING | {"typer"}),
    ("networks/*/network.py", SHOWING | {"typer", "attnscope.probes", "attnscope.exploring"}),
    ("probes/*.py", SHOWING | {"typer"}),
    ("comparison.py", TORCH | SHOWING | {"typer"}),
    ("contenders.py", TORCH | SHOWING | {"typer"}),
    ("comparing.py", TORCH | SHOWING | {"typer", "attnscope.probes"}),
    ("ranges.py", TORCH | SHOWING | {"typer"}),
    ("stages.py", TORCH | SHOWING | {"typer"}),
    ("racing.py", SHOWING | {"typer"}),
    ("report.py", TORCH | SHOWING | {"typer"}),
    ("diff.py", TORCH | SHOWING | {"typer"}),
    ("saved.py", TORCH | SHOWING | {"typer"}),
    ("memory.py", TORCH | SHOWING | {"typer", "attnscope.probes"}),
    ("backward.py", TORCH | SHOWING | {"typer", "attnscope.probes"}),
    ("bounds.py", TORCH | SHOWING | {"typer", "attnscope.probes"}),
    ("asked.py", TORCH | SHOWING | {"typer"}),
    ("rows.py", TORCH | SHOWING | {"typer"}),
    ("making.py", SHOWING | {"typer", "attnscope.exploring"}),
    ("auditing.py", SHOWING | {"typer", "attnscope.exploring"}),
    ("exploring.py", SHOWING | {"typer"}),
    ("tracing/*.py", SHOWING | {"typer", "attnscope.exploring"}),
    ("targets/*.py", SHOWING | {"typer", "attnscope.probes", "attnscope.tracing"}),
    ("windows.py", TORCH | SHOWING | {"typer"}),
    ("windowing.py", TORCH | SHOWING | {"typer"}),
    ("render/*.py", TORCH | {"attnscope.probes", "attnscope.exploring", "attnscope.cli", "typer"}),
    ("cli/*.py", TORCH | {"rich", "click"}),
    ("*.py", {"click"}),
]


def imported(path: Path) -> set[str]:
    """What a file imports when it runs; what it imports for the type checker alone does not count."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.module:
            found.update({node.module, *(f"{node.module}.{alias.name}" for alias in node.names)})
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


@pytest.mark.parametrize(("place", "forbidden"), FORBIDDEN, ids=lambda value: value if isinstance(value, str) else "")
def test_a_place_does_not_import_what_it_must_not_know(place, forbidden):
    files = [path for name, path in FILES.items() if fnmatch(name, place)]
    assert files
    for path in files:
        for module in imported(path):
            for name in forbidden:
                assert module != name and not module.startswith(f"{name}."), f"{path.name} imports {module}"  # noqa: PT018


def test_only_one_file_knows_fvcore():
    assert [name for name, path in FILES.items() if any(m.split(".")[0] == "fvcore" for m in imported(path))] == [
        "probes/audit.py"
    ]


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
    return set(done.stderr.rsplit("MODULES", 1)[1].split())


@pytest.mark.parametrize("words", NO_TORCH, ids=" ".join)
def test_what_must_answer_at_once_does_not_import_torch(words):
    loaded = modules_after(words)
    assert "attnscope.cli.main" in loaded
    assert not {"torch", "fvcore", "numpy"} & loaded


@pytest.mark.parametrize("words", [["--help"], ["compare", "--help"], ["compare", "--json"], ["vit", "--no-time"]])
def test_only_a_chart_needs_plotext(words):
    assert "plotext" not in modules_after(words)


def test_only_one_file_knows_plotext():
    assert [name for name, path in FILES.items() if "plotext" in imported(path)] == ["render/chart.py"]


def test_help_does_not_draw_tables():
    assert "rich.table" not in modules_after(["--help"])


def test_a_run_does_import_torch():
    """So that the test above can fail."""
    assert "torch" in modules_after(["vit", "--device", "meta", "--tokens", "2"])
