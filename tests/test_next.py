"""The suggested next command: it keeps the flags of the current one, and it runs."""

import json
import shlex
from pathlib import Path

import pytest
import torch

import attnscope
from attnscope import SwinSpec, ViTSpec, trace
from tests.conftest import Run

EXAMPLES = Path(__file__).parent.parent / "examples"
SRA = f"--attention {EXAMPLES / 'sra'}"
QKNORM = f"--attention {EXAMPLES / 'qk_norm'}"
QUICK = "--budget 0.01"

ON_PAPER = {
    "compare": "compare --over resolution=7:56:7 --time",
    "compare vit swin:window=14 --over resolution=14:28:14": (
        "compare vit swin:window=14 --over resolution=14:28:14 --time"
    ),
    "compare vit swin --over window=4,7 --resolution 28 --dim 48 --heads 3 --no-pad --quantity peak": (
        "compare vit swin --over window=4,7 --quantity peak --dim 48 --heads 3 --resolution 28 --no-pad --time"
    ),
    "compare --stages -q --color never": "compare --stages --time",
    "compare --preset swin-s-224": "compare --preset swin-s-224 --time",
    "compare --threads 1 --window 14x7": "compare --window 14x7 --threads 1 --time",
    f"{SRA} compare vit sra:reduction=4 --over resolution=14,28": (
        f"{SRA} compare vit sra:reduction=4 --over resolution=14,28 --time"
    ),
    "vit --no-time": "swin --window 7 --shift --no-time",
    "vit --device meta": "swin --window 7 --shift --device meta",
    "vit --tokens 1000000 --kv-heads 1 --no-time": "swin --window 7 --shift --no-time",
    "vit --scope model --no-time": "vit --scope block --no-time",
    "vit --scope block --batch 2 --no-time": "vit --batch 2 --scope model --no-time",
    "swin --scope model --no-time": "swin --scope model --stage 3 --no-time",
    "swin --no-time": "swin --dim 96 --heads 3 --resolution 56 --window 7 --shift --no-time",
    "swin --shift --resolution 28x14 --no-time": "windows --resolution 28x14 --window 7 --shift",
    "swin --shift --resolution 20000 --no-time": "vit --dim 96 --heads 3 --tokens 400000000 --no-time",
    "swin --shift --resolution 1000000000000 --no-time": "vit --no-time",
    "swin --window 56 --no-time": "vit --dim 96 --heads 3 --tokens 3136 --no-time",
    "cross --tokens 100000 --keys 100000 --no-time": (
        "cross --dim 768 --heads 12 --tokens 100000 --keys 100000 --kv-heads 1 --no-time"
    ),
    "cross --kv-heads 1 --tokens 1000000000000 --keys 1000000000000 --no-time": "vit --no-time",
    f"{SRA} sra --no-time": f"{SRA} compare vit sra:reduction=8 swin --resolution 56",
    f"{SRA} sra --resolution 4x10 --reduction 2 --no-time": f"{SRA} compare vit sra:reduction=2 --resolution 4x10",
    f"{QKNORM} qknorm --no-time": "vit --tokens 197 --dim 768 --heads 12 --no-time",
    "windows --resolution 14": "windows --resolution 14 --window 7 --shift",
    "windows --resolution 14 --shift --order": "swin --resolution 14 --window 7 --shift",
}
"""Commands and their suggested next commands. The test runs all suggestions without --time."""


@pytest.mark.parametrize(("typed", "suggested"), ON_PAPER.items(), ids=list(ON_PAPER))
def test_the_next_command_keeps_the_flags_and_runs(attnscope: Run, typed: str, suggested: str):
    assert following(attnscope, typed) == suggested
    if "--time" not in suggested.split():
        done = attnscope(*shlex.split(suggested), *["--no-time"] * suggested.startswith("swin"))
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("typed", "suggested"),
    [
        ("compare --over resolution=7,14 --dim 24 --heads 3 --time", "compare --stages"),
        (
            "compare vit swin:window=4,shift --over resolution=7,14 --dim 24 --heads 3 --time",
            "swin --dim 24 --resolution 14 --window 4 --shift",
        ),
        (
            f"{SRA} compare vit sra:reduction=2 --over resolution=7,14 --dim 24 --heads 3 --time",
            f"{SRA} sra --dim 24 --heads 3 --resolution 14 --reduction 2",
        ),
        # no contender fits in memory
        ("compare vit swin --resolution 50000 --time", "swin --resolution 50000 --no-time"),
    ],
)
def test_the_next_command_after_a_measured_comparison_runs(attnscope: Run, typed: str, suggested: str):
    assert following(attnscope, f"{typed} {QUICK}") == suggested
    done = attnscope(*shlex.split(suggested), *([] if suggested.startswith("compare") else shlex.split(QUICK)))
    assert done.returncode == 0, done.stderr


def test_the_next_command_after_a_comparison_adds_times(attnscope: Run, tmp_path: Path):
    """The flags of the measurement stay; the output path is dropped."""
    out = tmp_path / "out.txt"
    typed = f"compare vit swin --over resolution=7,14 --dim 24 --heads 3 {QUICK} --seed 3 -o {out}"
    assert attnscope(*shlex.split(typed)).returncode == 0
    text = " ".join(out.read_text(encoding="utf-8").split())
    suggested = f"compare vit swin --over resolution=7,14 --dim 24 --heads 3 {QUICK} --seed 3 --time"
    assert f"next attnscope {suggested}" in text.replace(" \\ ", " ")
    done = attnscope(*shlex.split(suggested))
    assert done.returncode == 0, done.stderr
    assert "global time" in done.stdout


OWN = "trace torch.nn:TransformerEncoderLayer --arg d_model=16 --arg nhead=2 --input 1,5,16"


def test_the_next_commands_after_a_trace_form_a_chain(attnscope: Run):
    """Each suggested command runs and suggests the next one."""
    seen = [f"{OWN} {QUICK} --device meta"]
    while len(seen) < 6:
        seen.append(following(attnscope, seen[-1]))
    assert [each.removeprefix(OWN).strip() for each in seen[1:]] == [
        f"{QUICK} --time",
        f"{QUICK} --time --group op",
        f"{QUICK} --module self_attn --time",
        f"{QUICK} --module self_attn --time --group op",
        f"{QUICK} --module self_attn --time --group line",
    ]


def test_the_next_command_after_a_trace_without_submodules_changes_the_group(attnscope: Run):
    typed = f"trace torch.nn:Linear --arg in_features=8 --arg out_features=8 --input 1,8 {QUICK} --time"
    assert following(attnscope, f"{typed} --group op") == f"{typed} --group line"
    assert following(attnscope, f"{typed} --group line") == typed


def following(attnscope: Run, typed: str) -> str:
    """Return the suggested command without the program's name."""
    done = attnscope(*shlex.split(typed), "--json")
    assert done.returncode == 0, done.stderr
    command: str = json.loads(done.stdout)["next"][0]
    return command.removeprefix("attnscope ")


@pytest.mark.parametrize(
    "spec",
    [
        ViTSpec(tokens=49, dim=24, heads=3, kv_heads=1, dtype="float64", qk_scale=0.5),
        ViTSpec(image=(32, 64), patch=16, cls=False, qkv_bias=False),
        SwinSpec(resolution=(14, 21), window=(2, 7), shift_size=(0, 3), kernel="sdpa"),
    ],
)
def test_the_command_of_a_spec_gives_the_same_spec(attnscope: Run, spec):
    done = attnscope(*spec.command().split()[1:], "--no-time", "--json")
    shown = json.loads(done.stdout)["spec"]
    assert shown.pop("attention") == spec.name
    assert {name: tuple(value) if isinstance(value, list) else value for name, value in shown.items()} == spec.as_dict()


@pytest.mark.parametrize(
    ("module", "inputs", "keywords"),
    [
        (torch.nn.TransformerEncoderLayer(8, 2, batch_first=True), [torch.rand(1, 5, 8)], {}),
        (torch.nn.MultiheadAttention(8, 2), [torch.rand(5, 1, 8)] * 3, {"need_weights": False}),
        (torch.nn.Embedding(9, 4), [torch.tensor([[1, 2]])], {}),
        (torch.nn.LSTM(4, 4), [torch.rand(3, 1, 4), (torch.rand(1, 1, 4), torch.rand(1, 1, 4))], {}),
    ],
)
def test_the_next_calls_in_python_run(module, inputs, keywords):
    """Each call traces the same module on inputs of the same shapes; only the name of the module is a variable."""
    report = trace(module, *inputs, **keywords)
    names = {"attnscope": attnscope, "torch": torch, "module": module}
    groups = []
    for _ in range(4):
        following = eval(report.next[0].replace("time=True", "time=True, budget=0.01"), names)
        assert following.spec["inputs"] == report.spec["inputs"]
        assert following.time is not None
        groups.append(following.group)
        report = following
    assert groups[:2] == ["module", "op"]


def test_the_next_call_in_python_has_variables_for_inputs_without_a_literal():
    class Halved(torch.nn.Module):
        def forward(self, x, by):
            return x / by.value

    class Two:
        value = 2

    module, inputs, keywords = Halved(), [torch.rand(3)], {"by": Two()}
    report = trace(module, *inputs, **keywords)
    assert report.next[0] == "attnscope.trace(module, *inputs, kwargs=keywords, time=True)"
    names = {"attnscope": attnscope, "module": module, "inputs": inputs, "keywords": keywords}
    assert eval(report.next[0], names).time is not None


def test_a_submodule_without_a_path_is_not_suggested():
    """A module that the forward makes cannot be opened."""

    class Made(torch.nn.Module):
        def forward(self, x):
            return torch.nn.Linear(4, 4)(x)

    report = trace(Made(), torch.rand(2, 4), time=True, budget=0.01, group="op")
    assert report.next[0] == "attnscope.trace(module, torch.rand((2, 4)), time=True, group='line')"
