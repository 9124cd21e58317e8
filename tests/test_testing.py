"""The test battery detects faults of an attention and names the step and the cause."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from attnscope import attentions, testing
from attnscope.attentions import discovery

SRA = Path(__file__).parents[1] / "examples" / "sra"
SMALL = {"dim": 12, "heads": 3, "resolution": (4, 10), "reduction": 2, "batch": 2}


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """Load a copy of the example's folder with a fault, and unload it after the test."""
    monkeypatch.setattr(discovery, "_loaded", {})
    monkeypatch.setattr(discovery, "_folders", set())

    def copy(file, right, wrong):
        folder = tmp_path / "faulty_sra"
        folder.mkdir()
        for each in discovery.FILES:
            shutil.copy(SRA / each, folder)
        text = (folder / file).read_text(encoding="utf-8")
        assert text.count(right) == 1
        (folder / file).write_text(text.replace(right, wrong), encoding="utf-8")
        return attentions.load(folder)

    yield copy
    for name in [name for name in sys.modules if name.partition(".")[0] == "faulty_sra"]:
        del sys.modules[name]


FAULTS = {
    "a tensor that forward keeps": (
        "hold_memory",
        ("steps.py", '(*HELD, "context")', "HELD"),
        {"kernel": "sdpa"},
        [
            "bytes held in inference of split_queries: predicted 5,760, real 6,720",
            "as much as context",
            "holds= of Plan.of",
        ],
    ),
    "a name that forward does not keep": (
        "hold_memory",
        ("steps.py", '(*HELD, "context")', '(*HELD, "context", "patches", "scores")'),
        {},
        ["bytes held in inference of project_queries: predicted 5,760, real 4,800", "that forward does not store"],
    ),
    "another operation": (
        "hold_memory",
        ("steps.py", "op=op.layer_norm", "op=op.rearrange"),
        {},
        ["bytes held in inference of normalize", "a copy that the step's operation lacks"],
    ),
    "what is saved": (
        "hold_saved",
        ("steps.py", "op=op.layer_norm", "op=op.rearrange"),
        {},
        ["bytes saved for the backward of normalize: predicted 0, real 1,120"],
    ),
    "the backward of an operation": (
        "hold_backward_memory",
        ("steps.py", "op=op.layer_norm", "op=op.rearrange"),
        {},
        ["bytes held in the backward of "],
    ),
    "letters": (
        "hold_steps",
        ("steps.py", "grid: b c y x -> reduced: b c p q", "grid: b c x y -> reduced: b c p q"),
        {},
        ["reduce: grid must have shape b c x y (got 2×12×4×10)", "the letters of the step's pattern"],
    ),
    "a step that does not run": (
        "hold_steps",
        ("attention.py", "self.normalize(self.flatten(", "(self.flatten("),
        {},
        ["order of the steps", "'normalize'", "plan(spec) lists"],
    ),
    "a parameter that no step uses": (
        "hold_parameters",
        ("steps.py", 'weights={"sr.weight": "c c r r", "sr.bias": "c"}', 'weights={"sr.weight": "c c r r"}'),
        {},
        ["shape of sr.bias: predicted 0, real (12,)", "weights="],
    ),
    "an operator outside the steps": (
        "hold_operators",
        ("attention.py", "context = self.spatial_reduction(x)", "context = self.spatial_reduction(x) * 1.0"),
        {},
        ["operators outside the steps", "aten.mul.Tensor", "move the operator into one of them"],
    ),
    "the closed form": (
        "hold_macs",
        ("spec.py", "b * M * self.reduction**2 * C**2", "b * M * self.reduction * C**2"),
        {},
        ["MACs by letters and by closed_form of reduce: predicted 11,520, real 5,760", "closed_form() of the Spec"],
    ),
    "an operator that is not in the step's operation": (
        "hold_elementwise_flops",
        ("attention.py", "return self.norm(patches)", "return self.norm(patches).relu()"),
        {},
        ["elementwise FLOPs of normalize: predicted 1,200, real 1,440"],
    ),
    "a hidden copy": (
        "hold_trace",
        (
            "attention.py",
            "return reduced.flatten(2).transpose(1, 2)",
            "return reduced.flatten(2).transpose(1, 2).clone()",
        ),
        {},
        ["total in explore and in trace of bytes read", "a copy in the module"],
    ),
    "a gradient that is cut off": (
        "hold_backward_macs",
        ("attention.py", "return self.sr(grid)", "return self.sr(grid.detach())"),
        {},
        ["MACs of the backward of all steps", "reduce 23,040"],
    ),
    "a parameter without a gradient": (
        "hold_module",
        ("attention.py", "return self.norm(patches)", "return self.norm(patches.detach())"),
        {},
        ["gradient of sr.weight: predicted one, real nothing"],
    ),
    "a closed form without agreement": (
        "hold_json",
        ("spec.py", "b * M * self.reduction**2 * C**2", "b * M * self.reduction * C**2"),
        {},
        ["verification of the report", "shapes 11,520, closed form 5,760"],
    ),
    "a neighbourhood that is too large": (
        "hold_neighbourhood",
        ("spec.py", "range(side - side % self.side)", "range(side)"),
        {"resolution": (5, 10)},
        ["influence of token (4, 0) on query (0, 0): predicted some, real none", "reach(axis, side)"],
    ),
    "a step without a description": (
        "hold_screens",
        ("steps.py", 'doc="flatten the coarser grid to a sequence, row by row"', 'doc=""'),
        {},
        ["meaning of flatten", "doc= of the Step"],
    ),
}


@pytest.mark.parametrize(("check", "fault", "fields", "expected"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_detected(copied, check, fault, fields, expected):
    spec = copied(*fault)(**SMALL | fields)
    with pytest.raises(AssertionError) as error:
        getattr(testing, check)(spec)
    for words in [*expected, "predicted" if check != "hold_steps" else "hint: ", "hint: ", "spec: SRASpec("]:
        assert words in str(error.value)


def test_every_check_detects_a_fault():
    assert {check for check, *_ in FAULTS.values()} == {name for name in testing.__all__ if name.startswith("hold_")}


def test_the_battery_runs_every_check():
    tests = {name.removeprefix("test_") for name in vars(testing.AttentionBattery) if name.startswith("test_")}
    assert tests == {name.removeprefix("hold_") for name in testing.__all__ if name.startswith("hold_")}


MINE = """
from attnscope.testing import AttentionBattery

from .spec import SRASpec


class TestMine(AttentionBattery):
    specs = SRASpec(dim=12, heads=3, resolution=(4, 10), reduction=2), SRASpec(resolution=16, kernel="sdpa")


class TestNothing(AttentionBattery):
    pass
"""


def test_the_battery_runs_in_any_folder(tmp_path):
    """The folder is used as in CONTRIBUTING.md, without this repository's settings."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for each in discovery.FILES:
        shutil.copy(SRA / each, folder)
    (folder / "test_mine.py").write_text(MINE, encoding="utf-8")

    def run(name):
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", f"mine/test_mine.py::{name}"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8", timeout=300)

    done = run("TestMine")
    assert done.returncode == 0, done.stdout
    assert "32 passed" in done.stdout
    assert "TestNothing has no specs; give it Specs to test" in run("TestNothing").stdout
