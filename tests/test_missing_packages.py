"""Commands without a package that they do not need, and the error of those that need it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HIDE_AND_RUN = """
import contextlib, io, json, sys
hidden, commands = json.loads(sys.argv[1])

class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hide())
from attnscope.cli import main

results = []
for words in commands:
    sys.argv, out, err, code = ["attnscope", *words], io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    results.append((code, out.getvalue(), err.getvalue()))
assert not set(hidden) & set(sys.modules)
print(json.dumps(results))
"""
"""Runs commands in a process in which some packages cannot be imported."""

WITHOUT_A_RUN = (
    "",
    "--help",
    "--version",
    "vit --help",
    "trace --help",
    "peaks --help",
    "vit --no-time --details --explain --memory --backward",
    "vit --no-time --max macs=1G",
    "vit --no-time --save {run}",
    "vit --preset vit-b-16-224 --explain-figure 17.58G -q",
    "swin --window 7 --shift --no-time --json --picture",
    "swin --shift --no-time --format csv",
    "swin --shift --no-time --format md",
    "swin --shift --no-time --format svg -o {picture}",
    "swin --preset swin-t-224 --scope model --no-time",
    "swinv2 --no-time",
    "swin3d --no-time",
    "cross --no-time",
    "nat --no-time",
    "presets",
    "windows --shift --token 5,9 --layers 4",
    "windows nat",
    "windows cswin",
    "compare",
    "compare --stages --json",
    "compare vit swin nat --over dim=96,192 --quantity peak",
    "compare vit --over ranks=2,4",
    "shard vit --plan tp=4 --no-verify",
    "shard swin --scope model --plan tp=3",
    "diff {run} {run}",
)
"""Commands that build no module."""
TINY = "--tokens 4 --dim 8 --heads 2"
NEEDED_BY = {
    "torch": (
        f"vit {TINY}",
        f"vit {TINY} --device meta --no-time",
        "compare --time",
        "trace timm:resnet18",
        "peaks",
        "shard --verify",
    ),
    "timm": ("trace timm:resnet18",),
    "torchvision": ("trace torchvision:resnet18",),
    "textual": ("explore",),
    "jinja2": (f"vit {TINY} --no-time --format html", "compare --format html"),
}
"""Commands that need a package."""
INSTALL = {
    **{name: name for name in ("torch", "jinja2")},
    **dict.fromkeys(("timm", "torchvision"), '"attnscope[trace]"'),
    "textual": '"attnscope[explore]"',
}


def run_without(hidden: list[str], commands: list[str]) -> list[tuple[int, str, str]]:
    """Return the exit code, the output and the errors of each command, in one process without these packages."""
    request = json.dumps([hidden, [command.split() for command in commands]])
    done = subprocess.run(
        [sys.executable, "-c", HIDE_AND_RUN, request], capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    return [tuple(result) for result in json.loads(done.stdout)]


def test_every_command_that_builds_no_module_works_with_the_light_dependencies(tmp_path: Path):
    files = {"run": tmp_path / "run.json", "picture": tmp_path / "picture.svg"}
    commands = [command.format(**files) for command in WITHOUT_A_RUN]
    heavy = ["torch", "torchvision", "timm", "fvcore", "numpy", "pandas", "transformers", "textual", "jinja2"]
    for command, (code, out, err) in zip(commands, run_without(heavy, commands), strict=True):
        assert code == 0, f"attnscope {command}: {err}"
        assert out or "written to" in err, command
    assert files["run"].exists()
    assert files["picture"].exists()


@pytest.mark.parametrize("package", NEEDED_BY)
def test_a_missing_package_is_one_line_with_the_command_that_installs_it(package: str):
    line = f"attnscope: {package} is not installed; run python -m pip install {INSTALL[package]}\n"
    for result in run_without([package], list(NEEDED_BY[package])):
        assert result == (2, "", line)


def test_a_missing_package_has_no_traceback():
    [(code, out, err)] = run_without(["torch"], [f"--debug vit {TINY}"])
    assert (code, out, err.count("\n")) == (2, "", 1)


def test_without_torch_a_sharding_is_planned_and_says_that_it_did_not_run():
    [(code, out, err)] = run_without(["torch"], ["shard vit --plan tp=4"])
    assert (code, err) == (0, "")
    assert "907,776 B by one rank" in out
    assert "not verified: torch is not installed" in out


def test_without_fvcore_the_counts_are_verified_by_shapes_and_closed_form():
    (code, out, _), (traced, _, _) = run_without(
        ["fvcore"], [f"vit {TINY} --budget 0.01 --details", "trace torchvision:resnet18 -q"]
    )
    assert code == traced == 0
    assert "by shapes and closed form" in out
    assert "fvcore is not installed; run python -m pip install fvcore" in out
