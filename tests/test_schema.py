"""The JSON Schema: its file is up to date, every kind of output follows it, and it refuses what does not."""

import io
import json
import re
import sys
from contextlib import redirect_stdout
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

from attnscope.cli import main
from tests import schema

TINY = "--tokens 4 --dim 8 --heads 2"
COMMANDS = {
    f"vit {TINY} --budget 0.01 --backward --memory --audit --kernels --roofline --details": "explore",
    "swin --preset swin-t-224 --scope model --no-time --explain-figure 4.51G --max macs=5G": "explore",
    "nat --no-time --backward": "explore",
    "compare --stages": "compare",
    "compare --over resolution=4,8 --time --budget 0.01": "compare",
    "windows --shift --token 3,3 --positions --order --pretrained-window 12": "windows",
    "windows cswin --layers 3": "neighbourhood",
    "trace torchvision:swin_t --module features.1.0.attn --backward": "trace",
    "shard vit --plan tp=2 --link 50GB/s,5us --peak h100 --backward": "shard",
    "shard swin --scope model --plan windows=4": "shard",
    "peaks": "peaks",
    "presets": "presets",
}
"""A command for each kind of output, with as many keys as possible."""


def output_of(command: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the JSON that a command prints, run in this process."""
    monkeypatch.setattr(sys, "argv", ["attnscope", *command.split(), "--json"])
    out = io.StringIO()
    with redirect_stdout(out), pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0
    return out.getvalue()


def test_the_file_is_what_the_classes_of_the_reports_give():
    """After a change of the JSON output: `python -m tests.golden`."""
    assert schema.FILE.read_text(encoding="utf-8") == schema.text()


def test_the_page_lists_the_definition_of_each_kind_of_output():
    page = schema.FILE.with_name("json.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `#/\$defs/(\w+)` \|", page, re.MULTILINE)) == schema.KINDS.keys()


def test_it_is_a_json_schema():
    Draft202012Validator.check_schema(schema.json_schema())


@pytest.mark.parametrize("command", COMMANDS)
def test_an_output_follows_the_schema_of_its_kind(command: str, monkeypatch: pytest.MonkeyPatch):
    output = output_of(command, monkeypatch)
    assert schema.kind_of(json.loads(output)) == COMMANDS[command]
    schema.check(output)
    Draft202012Validator(schema.json_schema()).validate(json.loads(output))


def test_a_diff_follows_the_schema(monkeypatch: pytest.MonkeyPatch, tmp_path):
    before, after = tmp_path / "a.json", tmp_path / "b.json"
    for file, heads in ((before, 2), (after, 4)):
        file.write_text(output_of(f"vit --tokens 4 --dim 8 --heads {heads} --no-time", monkeypatch), encoding="utf-8")
    output = output_of(f"diff {before} {after}", monkeypatch)
    assert schema.kind_of(json.loads(output)) == "diff"
    schema.check(output)


def _without_macs(data: dict[str, Any]) -> None:
    del data["totals"]["macs"]


def _as_text(data: dict[str, Any]) -> None:
    data["totals"]["macs"] = "a lot"


def _with_another_key(data: dict[str, Any]) -> None:
    data["steps"][0]["undocumented"] = 1


@pytest.mark.parametrize("change", [_without_macs, _as_text, _with_another_key])
def test_the_schema_refuses_another_output(change, monkeypatch: pytest.MonkeyPatch):
    data = json.loads(output_of("vit --no-time", monkeypatch))
    change(data)
    with pytest.raises(ValidationError):
        schema.check(json.dumps(data))
