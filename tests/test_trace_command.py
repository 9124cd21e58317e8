"""`attnscope trace`: the command, its targets, its screens and its errors."""

import csv
import gc
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import attnscope
from attnscope.cli import main
from attnscope.core.errors import UsageError
from attnscope.render import render
from attnscope.render.columns import ADD_UP
from attnscope.render.screen import Screen
from attnscope.render.trace import line_columns, lines_of
from attnscope.tracing.folding import GROUPS
from attnscope.tracing.targets import InputSpec, parse_argument, parse_input

FILE = """
import torch
from torch import nn

from beside import SCALE


class MyAttention(nn.Module):
    def __init__(self, dim, heads=3):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)

    def forward(self, x, mask=None):
        B, N, C = x.shape
        q, k, v = self.qkv(x).reshape(B, N, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # b h n d
        s = q @ k.transpose(-2, -1) * SCALE  # (B, h, N, C)
        if mask is not None:
            s = s.masked_fill(~mask, -torch.inf)
        return s.softmax(-1) @ v


class Broken(nn.Module):
    def forward(self, x):
        return x @ x


def factory(dim):
    return MyAttention(dim).half()


def fails():
    return 1 / 0


if __name__ == "__main__":
    raise SystemExit("run as a script")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("user")
    (folder / "my_file.py").write_text(FILE)
    (folder / "beside.py").write_text("SCALE = 0.5\n")
    return folder


@dataclass
class Shown:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def command(folder, monkeypatch, capsys):
    """Return a function that runs the command in this process, which has already imported torch."""
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])

    def run(*words, **env):
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["attnscope", "trace", *words])
        with pytest.raises(SystemExit) as left:
            main()
        gc.enable()  # the command disables it
        gc.unfreeze()
        return Shown(left.value.code, *capsys.readouterr())

    yield run
    for name, module in list(sys.modules.items()):
        if str(folder) in (getattr(module, "__file__", None) or "") and "." not in name:
            del sys.modules[name]


@pytest.fixture
def process(folder):
    """Return a function that runs a command in a new process."""

    def run(*words, **env):
        return subprocess.run(
            words, capture_output=True, text=True, encoding="utf-8", cwd=folder, env={**os.environ, **env}, timeout=300
        )

    return run


OWN = ["my_file.py:MyAttention", "--arg", "dim=96", "--arg", "heads=3", "--input", "1,49,96"]


def test_the_next_command_runs_and_keeps_the_flags(command):
    """It keeps the arguments and inputs of the module and repeats no flag."""
    typed = [*OWN, "--budget", "0.02"]
    for added in (["--time"], ["--group", "op"]):
        shown = command(*typed, COLUMNS="400")
        following = re.search(r"^ next +attnscope trace (.*?)   ", shown.stdout, re.MULTILINE)[1].split()
        assert following == [*typed, *added]
        typed = following
    assert command(*typed).returncode == 0


def test_a_file_in_a_package_can_use_relative_imports(command, folder):
    package = folder / "outer" / "inner"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package.parent / "__init__.py").write_text("SCALE = 0.25\n")
    (package / "mine.py").write_text(
        FILE.replace("from beside", "from .. import SCALE as half\nassert half == 0.25\nfrom beside")
    )
    report = json.loads(command("outer/inner/mine.py:MyAttention", *OWN[1:], "--json").stdout)
    assert report["attentions"][0]["heads"] == 3
    assert not {"outer", "outer.inner", "outer.inner.mine"} & set(sys.modules)
    (package / "__init__.py").write_text("import no_such_module\n")
    shown = command("outer/inner/mine.py:MyAttention", *OWN[1:])
    place = f"{package}/__init__.py:1: ModuleNotFoundError: No module named 'no_such_module'"
    assert shown.stderr == f"attnscope: outer/inner/mine.py could not be built at {place}\n"


def test_a_file_in_a_folder_with_the_name_of_another_package_is_not_in_a_package(command, folder):
    package = folder / "others" / "json"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("1 / 0\n")
    (package / "mine.py").write_text(FILE)
    assert command("others/json/mine.py:MyAttention", *OWN[1:]).returncode == 0
    assert json.dumps({}) == "{}"


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_is_wider_than_the_screen(command, width):
    shown = command(*OWN, COLUMNS=str(width))
    assert shown.returncode == 0
    assert max(map(len, shown.stdout.splitlines())) <= width
    assert "matmul" in shown.stdout
    assert "my_file.py:17: the comment says (B, h, N, C) = 1×3×49×96" in " ".join(shown.stdout.split())
    assert shown.stdout.isascii() is False


def test_the_table_is_ascii_on_an_ascii_stream(process):
    plain = process(sys.executable, "-W", "error", "-m", "attnscope", "trace", *OWN, PYTHONIOENCODING="ascii")
    assert plain.stdout.isascii()
    assert "1x3x49x49" in plain.stdout


def test_the_report_is_written_as_json_csv_and_markdown(command):
    report = json.loads(command(*OWN, "--json").stdout)
    assert report["attentions"][0]["heads"] == 3
    assert report["command"].startswith("attnscope trace my_file.py:MyAttention")
    header, *rows = command(*OWN, "--format", "csv").stdout.splitlines()
    assert header.startswith("call,times,calls,path,module,source,")
    assert rows[-1].startswith("total,")
    assert "| matmul | 1 |" in command(*OWN, "--format", "md").stdout


@pytest.mark.parametrize("group", GROUPS)
def test_columns_add_up_to_their_total(group):
    """A row of identical blocks has their total; JSON has the values of one block and the number of blocks."""
    blocks = nn.Sequential(*(nn.Sequential(nn.Linear(8, 8), nn.GELU()) for _ in range(3)))
    report = attnscope.trace(blocks, torch.zeros(2, 8), group=group, depth=1, time=True, budget=0.02)
    assert max(row.times * row.calls for row in report.steps) > 1
    *rows, total = csv.DictReader(io.StringIO(render(report, "csv", Screen())))
    for key in ("macs", "flops", "other_flops", "params", "bytes_read", "bytes_written", "calls", "time_s"):
        below = report.calls if key == "calls" else float(total[key])
        assert sum(float(row[key] or 0) for row in rows) == pytest.approx(below), key
    lines = [line for line in lines_of(report) if line.row]
    for column in line_columns(report):
        if column.key in ADD_UP:
            assert sum(column.value(line) or 0 for line in lines) == pytest.approx(column.total), column.key
    assert sum(row.times * (row.macs or 0) for row in report.steps) == report.totals.macs == 3 * 2 * 8 * 8


def test_one_call_is_singular():
    screen = render(attnscope.trace(nn.ReLU(), torch.zeros(3)), "table", Screen())
    assert "1 call " in screen
    assert "1 calls" not in screen


def test_keyword_inputs_masks_and_factories_are_accepted(command):
    masked = command(*OWN, "--input", "mask=49,49:bool", "--json")
    assert "masked_fill" in masked.stdout
    half = json.loads(command("my_file.py:factory", "--arg", "dim=96", "--input", "1,49,96", "--json").stdout)
    assert half["spec"]["inputs"] == ["1×49×96 float16"]
    package = command("my_file:MyAttention", "--arg", "dim=96", "--input", "1,49,96", "-q")
    assert package.returncode == 0


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["my_file.py:Broken", "--input", "2,3"], 1, r"matmul of 2×3 and 2×3 failed at my_file.py:25 `return x @ x`: "),
        (["my_file.py:fails", "--input", "2"], 1, r"could not be built at .*my_file.py:33: ZeroDivisionError"),
        (
            ["my_file.py:MyAttention", "--input", "1,49,96"],
            2,
            r"missing 1 required positional argument: 'dim'; set .*--arg",
        ),
        (["my_file.py:MyAttention", "--arg", "dim=96"], 2, r"--input is required, since MyAttention takes x, mask"),
        (["my_file.py:MyAtention"], 2, r"MyAtention does not exist; did you mean MyAttention\?"),
        (["my_file.py"], 2, r"must define exactly 1 module \(got 2: MyAttention, Broken\); use my_file.py:NAME"),
        (["my_file.py:"], 2, r"must define exactly 1 module \(got 2: MyAttention, Broken\); use my_file.py:NAME"),
        (["no_file.py:X"], 2, r"file no_file.py does not exist"),
        (["no_package:X"], 2, r"module no_package cannot be imported: no_package does not exist"),
        (["timm:vit_tiny_patch16_225"], 2, r"timm has no vit_tiny_patch16_225; did you mean vit_tiny_patch16_224\?"),
        (["torchvision:swin_q"], 2, r"torchvision has no swin_q; did you mean"),
        (["nothing"], 2, r"nothing does not name a module; use timm:NAME"),
        ([*OWN, "--group", "lines"], 2, r"--group lines is unknown; available: module, line, op"),
        ([*OWN, "--depth", "0"], 2, r"--depth must be at least 1 \(got 0\)"),
        ([*OWN, "--module", "qvk"], 2, r"--module qvk does not exist; did you mean qkv\?"),
        ([*OWN, "--input", "1,a"], 2, r"--input must be a shape such as .* \(got 1,a\)"),
        ([*OWN, "--input", "1,x"], 2, r"--input must be a shape such as .* \(got 1,x\)"),
        ([*OWN, "--arg", "dim"], 2, r"--arg must be NAME=VALUE, such as dim=96 \(got dim\)"),
        ([*OWN, "--strict"], 1, "--strict failed: there are warnings; see the output"),
    ],
)
def test_an_error_of_trace_is_one_line(command, words, code, message):
    shown = command(*words)
    assert shown.returncode == code
    assert "Traceback" not in shown.stderr
    assert shown.stderr.count("\n") <= 1
    assert re.search(message, shown.stderr)


def test_a_missing_library_is_a_one_line_error(process):
    hidden = (
        "import sys; sys.modules['timm'] = None; sys.argv = ['attnscope', 'trace', 'timm:vit_tiny_patch16_224']; "
        "from attnscope.cli import main; main()"
    )
    shown = process(sys.executable, "-c", hidden)
    assert shown.returncode == 2
    assert shown.stderr == 'attnscope: timm is not installed; run python -m pip install "attnscope[trace]"\n'


def test_hugging_face_is_built_from_its_config(command):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    if not transformers.is_torch_available():
        pytest.skip("this version of transformers requires a later torch")
    shown = command("hf:vit", "--arg", "num_hidden_layers=2", "--json")
    report = json.loads(shown.stdout)
    assert report["attentions"][0]["times"] == 2
    assert report["spec"]["inputs"] == ["1×3×224×224 float32"]
    hub = command("hf:google/vit-base-patch16-224")
    assert hub.returncode == 2
    assert "nothing is downloaded" in hub.stderr


def test_help_of_trace_does_not_import_torch(process):
    script = "import sys; sys.argv = ['attnscope', 'trace', '--help']\ntry:\n from attnscope.cli import main; main()\n"
    shown = process(sys.executable, "-c", script + "except SystemExit: pass\nprint('torch' in sys.modules)")
    assert shown.stdout.splitlines()[-1] == "False"
    assert (
        "is imported with its folder first on the search path, so that its module-level code is executed"
        in " ".join(shown.stdout.split())
    )


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("1,49,96", InputSpec((1, 49, 96))),
        ("1x3x224x224", InputSpec((1, 3, 224, 224))),
        ("1,16:int64", InputSpec((1, 16), "int64")),
        ("mask=49,49:bool", InputSpec((49, 49), "bool", "mask")),
    ],
)
def test_inputs_are_parsed(text, spec):
    assert parse_input(text) == spec


@pytest.mark.parametrize("text", ["1,-2", "a b=1", "1,2:float3", "one"])
def test_invalid_inputs_raise(text):
    with pytest.raises(UsageError):
        parse_input(text)


@pytest.mark.parametrize(
    ("word", "fix"),
    [
        ("flaot32", "did you mean float32?"),
        ("half", "did you mean float16?"),
        ("long", "did you mean int64?"),
        ("foo", "available: bfloat16, bool, "),
    ],
)
def test_an_unknown_dtype_of_an_input_has_a_fix(word, fix):
    with pytest.raises(UsageError) as raised:
        parse_input(f"1,3:{word}")
    assert f"dtype {word} is unknown; {fix}" in str(raised.value)


def test_arguments_are_parsed():
    values = dict(map(parse_argument, ["dim=96", "bias=False", "sizes=(7, 7)", "act=gelu"]))
    assert values == {"dim": 96, "bias": False, "sizes": (7, 7), "act": "gelu"}
