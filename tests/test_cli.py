"""The command line in a process of its own: flags, errors, formats, files, environment."""

import csv
import io
import json
import os
import pty
import re
import subprocess
import sys

import pytest

from attnscope import attentions, networks
from attnscope.attentions.spec import own_fields_first
from attnscope.cli.commands import build
from attnscope.cli.extension import OTHERS
from attnscope.core.errors import did_you_mean, in_a_line
from attnscope.networks.configs import presets

WRONG = [
    ("vit --dim 770", 2, "--dim must be divisible by --heads 12 (got 770); nearest: 768 or 780, or --heads 11 or 14"),
    ("vit --heads 7", 2, "--dim must be divisible by --heads 7 (got 768); nearest: 763 or 770, or --heads 6 or 8"),
    (
        "vit --heads 5 --rope axial",
        2,
        "--dim must be divisible by --heads 5 (got 768); nearest: 760 or 780, or --heads 4 or 6",
    ),
    ("vit --dim 770 --rope axial", 2, "--dim must be divisible by --heads 12 (got 770); nearest: 768 or 816"),
    ("vit --dim=", 2, "--dim must be an integer (got '')"),
    ("vit --dtype=", 2, "--dtype '' is unknown; available: "),
    ("vit --format=", 2, "--format '' is unknown; available: "),
    ("vit --output=", 2, "--output must be a file (got the current folder); add a file name"),
    ("trace timm:", 2, "timm has no ''; "),
    ("vit --dim abc", 2, "--dim must be an integer (got abc)"),
    ("vit --dim 1e3", 2, "--dim must be an integer (got 1e3)"),
    ("vit --dim 0", 2, "--dim must be at least 1 (got 0)"),
    ("vit --heads -1", 2, "--heads must be at least 1 (got -1)"),
    ("vit --dim 99999999999999999999", 2, "--dim must be at most 1000000000000 (got 99999999999999999999)"),
    (
        "compare --over dim=12:12000:12 --over resolution=1:1000",
        2,
        "--over must have at most 100,000 points in all (got 1,000,000); use larger steps",
    ),
    ("vit --scope model --depth 1001", 2, "--depth must be at most 1000 (got 1001)"),
    (
        "vit --scope model --mlp-ratio 1e300",
        2,
        "--mlp-ratio must be a number between 0.01 and 1000 (got 1e+300)",
    ),
    (
        "vit --scope block --mlp-ratio 0.01 --dim 64",
        2,
        "--mlp-ratio must be at least 1/--dim, or the MLP has no hidden channel (got 0.01 with --dim 64); smallest: 0.0157",
    ),
    ("swin --scope model --depths 2,1000000000", 2, "--depths must be at most 1000 (got 1000000000)"),
    ("vit --batch x", 2, "--batch must be an integer (got x)"),
    ("vit --image 225", 2, "--image must be divisible by --patch 16 (got 225); nearest: 224 or 240"),
    ("vit --image 224x", 2, "--image must be an integer or height x width, such as 56 or 56x48 (got 224x)"),
    ("vit --tokens 5 --image 224", 2, "--tokens and --image both set the number of tokens; give one of them"),
    ("vit --tokens 5 --no-cls", 2, "--tokens and --cls both set the number of tokens; give one of them"),
    ("vit --qk-scale nan", 2, "--qk-scale must be a finite number (got nan)"),
    ("vit --attn-drop 1", 2, "--attn-drop must be a number of at least 0 and below 1 (got 1.0)"),
    ("vit --kernel fast", 2, "--kernel fast is unknown; did you mean flash?"),
    ("vit --dtype float23", 2, "--dtype float23 is unknown; did you mean float32?"),
    ("vit --device tpu", 2, "--device tpu is unknown; available: auto, cpu, cuda, mps, meta"),
    ("vit --budget 0", 2, "--budget must be above 0 and at most 3600 s (got 0)"),
    ("vit --budget nan", 2, "--budget must be a finite number (got nan)"),
    ("vit --seed -1", 2, "--seed must be an integer from 0 to 9223372036854775807 (got -1)"),
    ("vit --seed 1.5", 2, "--seed must be an integer (got 1.5)"),
    ("vit --alloc x", 2, "--alloc x is unknown; available: pinned, default"),
    ("vit --format xml", 2, "--format xml is unknown; available: csv, html, json, md, svg, table"),
    ("vit --color red", 2, "--color red is unknown; available: auto, always, never"),
    ("vit --json --format csv", 2, "--json and --format csv contradict each other; give one of them"),
    (
        "vit -o {tmp}/x.pdf",
        2,
        "--output must have the extension .txt, .log, .json, .csv, .md, .svg or .html (got {tmp}/x.pdf); "
        "change it or add --format",
    ),
    (
        "trace no.py:X -o x.pdf",
        2,
        "--output must have the extension .txt, .log, .json, .csv, .md, .svg, .html, .mmd or .dot (got x.pdf); change",
    ),
    (
        "compare -o x.PNG",
        2,
        "--output must have the extension .txt, .log, .json, .csv, .md, .svg or .html (got x.PNG); change it",
    ),
    (
        "diff a b -o x.svg",
        2,
        "--output must have the extension .txt, .log, .json, .csv, .md or .html (got x.svg); change it or add",
    ),
    ("vit -o {tmp}", 2, "--output must be a file (got the folder {tmp}); add a file name"),
    (
        "vit -o {tmp}/no/x.json",
        2,
        "--output must be in an existing folder (got {tmp}/no/x.json); create the folder {tmp}/no",
    ),
    ("vit --preset vit-b-16-225", 2, "--preset vit-b-16-225 is unknown; did you mean vit-b-16-224?"),
    ("vit --preset vit_base_patch16_225", 2, "--preset vit_base_patch16_225 is unknown; did you mean vit_base_patch16"),
    ("vit --preset swin-t-224", 2, "--preset must be a preset of vit (got swin-t-224); use attnscope swin"),
    ("vit --config {tmp}/none.toml", 2, "--config {tmp}/none.toml cannot be read: No such file or directory"),
    (
        "vit --config {tmp}/wrong.toml",
        2,
        "--config {tmp}/wrong.toml: dimm is not a flag of attnscope vit; did you mean dim?",
    ),
    ("vit --config {tmp}/broken.toml", 2, "--config {tmp}/broken.toml is not valid TOML: "),
    ("vit --no-time --roofline", 2, "--roofline requires times, but --no-time disables them; remove one of them"),
    ("vit --no-time --kernels", 2, "--kernels requires times, but --no-time disables them; remove one of them"),
    ("vit --device meta --kernels", 2, "--kernels requires times, but --device meta computes nothing; remove one"),
    ("vit --config {tmp}/value.toml", 2, "--config {tmp}/value.toml: dim must be an integer (got x)"),
    ("swin --config {tmp}/value.toml", 2, "--config {tmp}/value.toml must have a table [swin] (got [vit]); add it"),
    ("vit extra", 2, "attnscope vit got an argument too many (extra); remove it"),
    ("diff a b c d", 2, "attnscope diff got arguments too many (c d); remove them"),
    ("vit --batch", 2, "--batch must have a value; write --batch N"),
    ("vit --format", 2, "--format must have a value; write --format NAME"),
    ("swin --shift=3", 2, "--shift must not have a value; write --shift or --no-shift"),
    ("vit --json=1", 2, "--json must not have a value; write --json"),
    ("trace", 2, "MODULE is missing; write attnscope trace MODULE"),
    ("diff a.json", 2, "AFTER is missing; write attnscope diff BEFORE AFTER"),
    ("vit --head 3", 2, "--head is not a flag of attnscope vit; did you mean --heads?"),
    ("vit --zzz", 2, "--zzz is not a flag of attnscope vit; attnscope vit --help lists its flags"),
    ("--attentio x", 2, "--attentio is not a flag of attnscope; did you mean --attention?"),
    ("--attention", 2, "--attention must have a value; write --attention FOLDER"),
    ("vti", 2, "vti is not a command of attnscope; did you mean vit?"),
    ("vit --dtype half", 2, "--dtype half is unknown; did you mean float16?"),
    ("peaks --dtype float", 2, "--dtype float is unknown; did you mean float32?"),
    ("vit --budget inf", 2, "--budget must be a finite number (got inf)"),
    ("cross --preset vit-b-16-224", 2, "--preset is not a flag of attnscope cross, but of swin, vit and others; "),
    ("vit --window 7", 2, "--window is not a flag of attnscope vit, but of swin, hiera and others; "),
    (
        "trace my.py --save a.json",
        2,
        "--save is not a flag of attnscope trace, but of swin, vit and others; use -o FILE.json; to compare with",
    ),
    ("twins --shift", 2, "--shift is not a flag of attnscope twins, but of swin, swin3d and others; "),
    ("vit --hidden-size 96", 2, "--hidden-size is not a flag of attnscope vit; did you mean --dim?"),
    ("vit --resolution 14", 2, "--resolution is not a flag of attnscope vit; did you mean --tokens?"),
    ("swin --tokens 49", 2, "--tokens is not a flag of attnscope swin; did you mean --resolution?"),
    ("swin --no-grad", 2, "--no-grad is not a flag of attnscope swin; did you mean --no-input-grad?"),
    ("swin --num-heads 3", 2, "--num-heads is not a flag of attnscope swin; did you mean --heads?"),
    ("swin --WINDOW 7", 2, "--WINDOW is not a flag of attnscope swin; did you mean --window?"),
    ("swin window=7", 2, "attnscope swin got an argument too many (window=7); write --window 7"),
    ("presets vit", 2, "attnscope presets got an argument too many (vit); write --where command=vit"),
    ("explore vit swin", 2, "attnscope explore vit got an argument too many (swin); remove it"),
    ("explore vit --json", 2, "--json is not a flag of attnscope explore vit; "),
    ("VIT", 2, "VIT is not a command of attnscope; did you mean vit?"),
    ("swin-t-224", 2, "swin-t-224 is not a command of attnscope; write attnscope swin --preset swin-t-224"),
    ("my.py:Attn", 2, "my.py:Attn is not a command of attnscope; write attnscope trace my.py:Attn"),
    ("help", 2, "help is not a command of attnscope; write attnscope --help"),
    ("explain", 2, "explain is not a command of attnscope; --explain is a flag, such as attnscope vit --explain"),
    ("trace timm:vit_bse", 2, "timm has no vit_bse; nearest: vit_base_"),
    ("trace timm:vit", 2, "timm has no vit; nearest: vit_base_mci_224, "),
    ("trace torchvision:vit_b_17", 2, "torchvision has no vit_b_17; did you mean vit_b_16?"),
    ("help swin", 2, "help is not a command of attnscope; write attnscope swin --help"),
    ("vit --preset vit-b-16", 2, "--preset vit-b-16 is unknown; nearest: vit-b-16-224, vit-b-16-384"),
    ("vit --preset ViT-B/16-224", 2, "--preset ViT-B/16-224 is unknown; did you mean vit-b-16-224?"),
    ("vit --device gpu", 2, "--device gpu is unknown; did you mean cuda?"),
    (
        "vit --device cuda:1",
        2,
        "--device cuda:1 is unknown; write --device cuda, and set CUDA_VISIBLE_DEVICES=1 to choose it",
    ),
    ("vit --scope network", 2, "--scope network is unknown; did you mean model?"),
    ("compare vit,swin", 2, "'vit,swin' is not an attention or a preset; separate contenders by spaces: vit swin"),
    (
        "compare vit swin --over res=14",
        2,
        "--over must be a size of these attentions (got res); did you mean resolution?",
    ),
    ("compare vit swin --quantity memory", 2, "--quantity memory is unknown; did you mean peak?"),
    (
        "windows vit",
        2,
        "vit has a sequence of tokens and not a grid, so that it has no picture; choose another, as in",
    ),
    ("windows 9", 2, "the attention 9 is unknown; available: cross, cswin, hiera, linear, "),
    ("swin --window 0", 2, "--window must be at least 1 (got 0)"),
    (
        "swin --window --shift",
        2,
        "--window must be an integer or height x width, such as 56 or 56x48 (got --shift)",
    ),
    (
        "swin --resolution 56x48x3",
        2,
        "--resolution must be an integer or height x width, such as 56 or 56x48 (got 56x48x3)",
    ),
    ("swin --shift-size 7", 2, "--shift-size must be smaller than --window 7 (got 7); largest: 6"),
    ("swin --no-shift --shift-size 3", 2, "--no-shift and --shift-size contradict each other; give one of them"),
    (
        "swin --shift --shift-size 0",
        2,
        "--shift and --shift-size 0 contradict each other; use --no-shift to disable the shift",
    ),
]


@pytest.mark.parametrize(("line", "code", "said"), WRONG, ids=lambda value: value if isinstance(value, str) else "")
def test_an_error_is_one_line(attnscope, tmp_path, line, code, said):
    (tmp_path / "wrong.toml").write_text("[vit]\ndimm = 3\n")
    (tmp_path / "broken.toml").write_text("[vit\n")
    (tmp_path / "value.toml").write_text("[vit]\ndim = 'x'\n")
    done = attnscope(*line.format(tmp=tmp_path).split())
    assert done.returncode == code
    assert done.stdout == ""
    assert done.stderr.startswith(f"attnscope: {said.format(tmp=tmp_path)}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("x", "ATTNSCOPE_SWIN_DIM must be an integer (got x)"),
        ("97", "ATTNSCOPE_SWIN_DIM must be divisible by --heads 3 (got 97); nearest: 96 or 99, or --heads 1 or 97"),
    ],
)
def test_an_error_in_a_variable_names_the_variable(attnscope, value, said):
    assert attnscope("swin", "--no-time", ATTNSCOPE_SWIN_DIM=value).stderr == f"attnscope: {said}\n"
    as_flag = said.replace("ATTNSCOPE_SWIN_DIM", "--dim")
    assert attnscope("swin", "--no-time", "--dim", value, ATTNSCOPE_SWIN_DIM="1").stderr == f"attnscope: {as_flag}\n"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("vit --tokens 10000000", "the run needs 8.5 PiB, but cpu has"),
        ("swin --resolution 30000", "--resolution"),
        ("vit --batch 1000000", "--batch"),
    ],
)
def test_a_size_beyond_the_memory_is_an_error_with_the_fix(attnscope, line, said):
    done = attnscope(*line.split())
    assert done.returncode == 3
    assert said in done.stderr
    assert re.search(r"use --no-time for shapes and costs only, or set --\w+ to at most \d+\n$", done.stderr)


@pytest.mark.parametrize("name", attentions.names())
def test_every_field_is_a_flag(attnscope, name):
    screen = attnscope(name, "--help").stdout
    for field in own_fields_first(attentions.spec_class(name)):
        assert f"--{field.name.replace('_', '-')} " in screen
        assert " ".join(field.metadata["help"].split()[:2]) in " ".join(screen.split())
    assert "Examples:" in screen


@pytest.mark.parametrize("name", attentions.names())
def test_the_examples_of_the_help_work(attnscope, name):
    for example in attentions.spec_class(name).EXAMPLES:
        done = attnscope(*example.split()[1:], *([] if "--audit" in example else ["--no-time"]))
        assert done.returncode == 0, done.stderr
        assert done.stdout


WITH_FORMATS = [name for name in (*attentions.names(), *OTHERS) if name != "explore"]
"""All commands but the live explorer, whose output is the screen."""


@pytest.mark.parametrize("name", WITH_FORMATS)
def test_help_lists_the_available_formats(attnscope, name):
    graphs = ", mermaid, dot" if name == "trace" else ""
    offers = f"svg, html{graphs}; by default" in " ".join(attnscope(name, "--help").stdout.split())
    words = {"diff": ["a.json", "b.json"], "trace": ["no.py:X"]}.get(name, ["--no-time"] * (name in attentions.names()))
    refused = "--format svg is not available for this command" in attnscope(name, *words, "--format", "svg").stderr
    assert offers is not refused


def test_help_and_version(attnscope):
    root = attnscope("--help")
    assert root.returncode == 0
    for name in attentions.names():
        assert re.search(rf"^  {name} ", root.stdout, re.MULTILINE)
    assert re.fullmatch(r"attnscope \d+\.\d+\.\d+\n", attnscope("--version").stdout)


def test_the_console_script_is_the_same():
    script = os.path.join(os.path.dirname(sys.executable), "attnscope")
    assert subprocess.run([script, "--version"], capture_output=True, text=True, check=True).stdout.startswith(
        "attnscope "
    )


def test_a_timed_run(attnscope):
    done = attnscope("swin", "--window", "7", "--shift", "--budget", "0.05")
    assert done.returncode == 0
    assert done.stderr == ""
    assert "145,108,992 MACs (290 MFLOPs) by shapes, closed form and fvcore ✓" in done.stdout
    for words in ("13.8× fewer", "global attention", "faster", "timing ", "next", "Ω(W-MSA) = 4hwC² + 2M²hwC"):
        assert words in done.stdout


@pytest.mark.parametrize(("words", "most"), [("vit", 24), ("swin --window 7 --shift", 30)])
def test_a_first_result_fits_a_terminal(attnscope, words, most):
    lines = attnscope(*words.split(), COLUMNS="80").stdout.splitlines()
    assert len(lines) <= most, lines
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    "words",
    [
        "vit --budget 0.05",
        "vit --no-time --backward --memory --details --explain",
        "swin --window 7 --shift --no-time --picture",
        "swin --scope model --no-time --details",
        "cross --no-time --explain",
        "compare",
        "compare --stages",
        "compare vit swin --over resolution=14:56:2x --over dim=96:384:2x",
        "windows --resolution 224 --shift",
        "windows --positions --order",
        "presets",
        "trace torchvision:swin_t",
        "peaks",
    ],
)
def test_a_pipe_is_at_most_120_columns_wide(attnscope, words):
    done = attnscope(*words.split())
    assert done.returncode == 0
    assert max(map(len, done.stdout.splitlines())) <= 120


def test_wide_shows_every_column(attnscope, tmp_path):
    narrow, wide = attnscope("vit", "--no-time").stdout, attnscope("vit", "--no-time", "--wide").stdout
    assert "columns hidden (--wide shows all): " in narrow
    assert "hidden" not in wide
    for title in ("letters", "input shape", "FLOPs", "elementwise", "read", "written", "live", "what it means"):
        assert f"  {title}" in wide.splitlines()[2]
    for flags, shown in (([], narrow), (["--wide"], wide)):
        file = tmp_path / "run.txt"
        assert attnscope("vit", "--no-time", *flags, "-o", str(file)).returncode == 0
        assert file.read_text(encoding="utf-8") == shown


def test_details_has_the_evidence(attnscope):
    shown = attnscope("vit", "--budget", "0.05", "--details").stdout
    labels = [line.split()[0] for line in shown.splitlines() if re.match(r" \w", line)]
    for label in ("kernels", "work", "counts", "formulas", "roofline", "runs", "machine"):
        assert label in labels
    for words in ("--kernel sdpa", "1,048,783,872 FLOPs: 2 for each MAC", "sum of steps / whole", "allocator pinned"):
        assert words in " ".join(shown.split())


@pytest.mark.parametrize("width", [60, 80, 120])
def test_explain_has_each_step_and_each_column(attnscope, width):
    shown = attnscope("swin", "--shift", "--no-time", "--explain", COLUMNS=str(width)).stdout
    assert max(map(len, shown.splitlines())) <= width
    table, rest = shown.split("\n Steps\n")
    steps, columns = rest.split("\n Columns\n")
    heads = re.findall(r"\S+(?: \S+)*", next(line for line in table.splitlines() if line.startswith(" step ")))
    explained = re.findall(r"^ (\S+(?: \S+)*) {2,}\S", columns.split("\n\n")[0], re.MULTILINE)
    assert explained == heads
    named = re.findall(r"^ (\w+)  ", steps, re.MULTILINE)
    assert named == re.findall(r"^ (\w+)  ", table.split("──\n")[1], re.MULTILINE)


def test_json_names_the_command(attnscope):
    data = json.loads(attnscope("vit", "--dim", "96", "--heads", "3", "--no-time", "--json").stdout)
    assert data["command"] == "attnscope vit --dim 96 --heads 3 --no-time --json"
    assert data["spec"]["dim"] == 96
    assert data["time"] is None


def test_csv_can_be_read(attnscope):
    rows = list(csv.DictReader(io.StringIO(attnscope("vit", "--no-time", "--format", "csv").stdout)))
    assert rows[0]["step"] == "project"
    assert int(rows[-1]["macs"]) == 524_391_936


@pytest.mark.parametrize(
    ("ending", "begins"),
    [
        (".json", "{"),
        (".csv", "step,"),
        (".md", "**ViT"),
        (".svg", "<svg"),
        (".html", "<!doctype html>"),
        (".txt", " ViT"),
        (".MD", "**ViT"),
        ("", " ViT"),
    ],
)
def test_a_file_is_written_in_the_format_of_its_extension(attnscope, tmp_path, ending, begins):
    file = tmp_path / f"out{ending}"
    file.write_text("before")
    done = attnscope("vit", "--no-time", "-o", str(file))
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"written to {file}\n"
    assert file.read_text(encoding="utf-8").startswith(begins)
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_a_given_format_overrides_the_extension(attnscope, tmp_path):
    for words in (["--format", "csv"], ["--json"]):
        assert attnscope("vit", "--no-time", "-o", str(tmp_path / "x.pdf"), *words).returncode == 0
    assert (tmp_path / "x.pdf").read_text(encoding="utf-8").startswith("{")


def test_an_error_leaves_the_file_unchanged(attnscope, tmp_path):
    file = tmp_path / "out.json"
    file.write_text("precious")
    assert attnscope("vit", "--dim", "770", "-o", str(file)).returncode == 2
    assert file.read_text() == "precious"


def test_links_and_pipes_are_not_replaced(attnscope, tmp_path):
    plain, link, pipe = (tmp_path / name for name in ("plain.md", "link.md", "pipe.md"))
    plain.write_text("before")
    link.symlink_to(plain.name)
    os.mkfifo(pipe)
    assert attnscope("vit", "--no-time", "-o", str(link)).returncode == 0
    assert link.is_symlink()
    assert plain.read_text(encoding="utf-8").startswith("**ViT")
    reader = subprocess.Popen(["cat", str(pipe)], stdout=subprocess.PIPE)
    assert attnscope("vit", "--no-time", "-o", str(pipe)).returncode == 0
    assert pipe.is_fifo()
    reader.kill()  # without output it would wait forever
    assert reader.communicate()[0].startswith(b"**ViT")


@pytest.mark.parametrize(("flag", "shown"), [("-o", False), ("--save", True)])
def test_a_failed_write_is_an_error(flag, shown, tmp_path):
    """A limit of 512 bytes for a file simulates a full disk. The report is still printed."""
    file = tmp_path / "out.json"
    file.write_text("precious")
    limited = f"trap '' XFSZ; ulimit -f 1; exec {sys.executable} -B -m attnscope vit --no-time {flag} {file}"
    done = subprocess.run(["bash", "-c", limited], capture_output=True, text=True, encoding="utf-8")
    assert (done.returncode, done.stderr) == (2, f"attnscope: {file} cannot be written: File too large\n")
    assert ("524,391,936 MACs" in done.stdout) == shown
    assert file.read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full does not exist")
@pytest.mark.parametrize("words", ["vit --no-time", "vit --no-time --json", "vit --help", "--version"])
def test_a_full_disk_behind_stdout_is_an_error(words):
    line = f"{sys.executable} -m attnscope {words} > /dev/full"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 1
    assert done.stderr == "attnscope: the output cannot be written: No space left on device\n"


@pytest.mark.parametrize(("closed", "words", "code"), [(1, "vit", 0), (2, "vit", 0), (2, "vit --dim 770", 2)])
def test_a_closed_stream_is_ignored(closed, words, code):
    line = f"{sys.executable} -m attnscope {words} --budget 0.01 {closed}>&-"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, encoding="utf-8")
    assert (done.returncode, done.stderr) == (code, "")
    assert bool(done.stdout) == (closed == 2 and code == 0)


def test_flags_override_environment_config_preset_and_defaults_in_this_order(attnscope, tmp_path):
    config = tmp_path / "mine.toml"
    config.write_text("[vit]\nheads = 6\nimage = [64, 96]\nqkv-bias = false\n")

    def spec(*words, **env):
        return json.loads(attnscope("vit", "--no-time", "--json", *words, **env).stdout)["spec"]

    assert spec("--preset", "vit-b-16-224")["heads"] == 12
    both = ["--config", str(config), "--preset", "vit-b-16-224"]
    assert spec(*both) == spec(*both[2:], *both[:2])
    assert (spec(*both)["heads"], spec(*both)["image"], spec(*both)["qkv_bias"]) == (6, [64, 96], False)
    assert spec(*both, ATTNSCOPE_VIT_HEADS="4")["heads"] == 4
    assert spec(*both, "--heads", "3", ATTNSCOPE_VIT_HEADS="4")["heads"] == 3


@pytest.mark.parametrize(
    ("words", "env", "field", "value"),
    [
        ("vit --image 384", {"ATTNSCOPE_VIT_TOKENS": "50"}, "image", [384, 384]),
        ("vit --tokens 50", {"ATTNSCOPE_VIT_IMAGE": "384"}, "tokens", 50),
        ("vit --no-cls --config {tmp}/tokens.toml", {}, "tokens", None),
        ("vit --config {tmp}/tokens.toml", {"ATTNSCOPE_VIT_PATCH": "8"}, "patch", [8, 8]),
        ("vit --config {tmp}/tokens.toml --preset vit-b-16-384", {}, "tokens", 50),
        ("swin --no-shift", {"ATTNSCOPE_SWIN_SHIFT_SIZE": "3"}, "shift_size", None),
        ("swin --shift-size 0", {"ATTNSCOPE_SWIN_SHIFT": "1"}, "shift", None),
        ("swin --shift", {"ATTNSCOPE_SWIN_SHIFT_SIZE": "2"}, "shift_size", [2, 2]),
        ("vit", {"ATTNSCOPE_VIT_FORMAT": "csv"}, "tokens", None),
    ],
)
def test_the_stronger_source_of_contradicting_fields_is_used(attnscope, tmp_path, words, env, field, value):
    (tmp_path / "tokens.toml").write_text("[vit]\ntokens = 50\n")
    done = attnscope(*words.format(tmp=tmp_path).split(), "--no-time", "--json", **env)
    assert done.stderr == ""
    assert json.loads(done.stdout)["spec"][field] == value


def test_a_switch_is_true_or_false_in_the_environment_and_in_a_file(attnscope, tmp_path):
    maybe = tmp_path / "maybe.toml"
    maybe.write_text('[vit]\ncls = "maybe"\n')
    assert attnscope("vit", ATTNSCOPE_VIT_CLS="may be").stderr == (
        "attnscope: ATTNSCOPE_VIT_CLS must be true or false (got 'may be')\n"
    )
    assert attnscope("vit", "--config", str(maybe)).stderr == (
        f"attnscope: --config {maybe}: cls must be true or false (got 'maybe')\n"
    )


@pytest.mark.parametrize(
    ("table", "words", "said"),
    [
        ("heads = 7", [], "--dim must be divisible by heads 7 (got 768); nearest: 763 or 770, or heads 6 or 8"),
        ("kernel = 3", [], "kernel 3 is unknown; available: compile, eager, "),
        ("dim = 770", ["--heads", "12"], "dim must be divisible by --heads 12 (got 770); nearest: "),
    ],
)
def test_an_error_begins_with_the_config_file_that_sets_a_field(attnscope, tmp_path, table, words, said):
    mine = tmp_path / "mine.toml"
    mine.write_text(f"[vit]\n{table}\n")
    done = attnscope("vit", "--no-time", "--config", str(mine), *words)
    assert done.returncode == 2
    assert done.stderr.startswith(f"attnscope: --config {mine}: {said}")


@pytest.mark.parametrize(
    ("command", "text", "said"),
    [
        ("vit", "[vti]\nheads = 3", " must have a table [vit] (got [vti]); did you mean [vit]?"),
        ("vit", "[[vit]]\nheads = 3", " must have a table [vit] (got [[vit]]); write [vit]"),
        ("vit", "vit = 3", " must have a table [vit] (got vit = …); write [vit]"),
        ("swinv2", "[swin]\nheads = 3", " must have a table [swinv2] (got [swin]); add it"),
        ("vit", "", " must have a table [vit] (got nothing); add it"),
        ("vit", '[vit]\nconfig = "x.toml"', ": a config file must not set config; write its keys in this file"),
    ],
)
def test_a_config_file_without_its_table_or_with_another_file_is_an_error(attnscope, tmp_path, command, text, said):
    mine = tmp_path / "mine.toml"
    mine.write_text(text)
    done = attnscope(command, "--no-time", "--config", str(mine))
    assert (done.returncode, done.stderr) == (2, f"attnscope: --config {mine}{said}\n")


def test_contradicting_values_from_one_source_are_an_error(attnscope, tmp_path):
    both = tmp_path / "both.toml"
    both.write_text("[vit]\ntokens = 50\nimage = 384\n")
    for words, env, said in [
        (["--config", str(both)], {}, f"--config {both}: tokens and image both set"),
        (
            [],
            {"ATTNSCOPE_VIT_TOKENS": "50", "ATTNSCOPE_VIT_IMAGE": "384"},
            "ATTNSCOPE_VIT_TOKENS and ATTNSCOPE_VIT_IMAGE both set",
        ),
    ]:
        assert attnscope("vit", *words, "--no-time", **env).stderr.startswith(f"attnscope: {said}")
    assert attnscope("vit", "--no-time", "--format", "csv", ATTNSCOPE_VIT_JSON="1").stdout.startswith("step,")


def test_each_flag_has_a_config_key_and_an_environment_variable(attnscope, tmp_path):
    config = tmp_path / "mine.toml"
    config.write_text('[vit]\nformat = "csv"\n')
    said = attnscope("vit", "--no-time", "--config", str(config))
    assert (said.stdout[:5], said.stderr) == ("step,", "")
    assert attnscope("vit", "--no-time", ATTNSCOPE_VIT_FORMAT="csv").stdout.startswith("step,")
    assert attnscope("vit", "--no-time", ATTNSCOPE_VIT_KV_HEADS="5").returncode == 2
    for name in (*attentions.names(), *OTHERS):
        keys = [param.envvar for param in build(name).params if param.opts[0].startswith("-")]
        assert len(set(keys)) == len(keys)
        assert (f"ATTNSCOPE_{name.upper()}_FORMAT" in keys) is (name in WITH_FORMATS)


def test_strict_sets_the_exit_code(attnscope, tmp_path):
    assert attnscope("vit", "--no-time", "--strict").returncode == 0
    patched = tmp_path / "patched.py"
    patched.write_text(
        "import sys\n"
        "from attnscope import ViTSpec\n"
        "ViTSpec.closed_form = lambda spec: {'score': 1}\n"
        "from attnscope.cli import main\n"
        "sys.argv[0] = 'attnscope'\n"
        "main()\n"
    )
    for words, code in [([], 0), (["--strict"], 1)]:
        done = subprocess.run(
            [sys.executable, str(patched), "vit", "--no-time", *words], capture_output=True, text=True, encoding="utf-8"
        )
        assert done.returncode == code
        assert "disagree ✗" in done.stdout
        assert done.stderr == ("attnscope: --strict failed: the counts disagree; see the output\n" if words else "")


def test_width_and_quiet(attnscope):
    for width in (60, 80, 120):
        screen = attnscope("swin", "--shift", "--no-time", COLUMNS=str(width)).stdout
        assert max(map(len, screen.splitlines())) <= width
        assert "columns hidden (--wide shows all): letters" in screen
    assert "next" not in attnscope("vit", "--no-time", "-q").stdout


def test_a_table_is_ascii_if_the_encoding_is_not_utf8(attnscope):
    done = attnscope("swin", "--shift", "--no-time", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert done.stdout.isascii()
    assert "1x56x56x96" in done.stdout


@pytest.mark.parametrize(
    "line",
    [
        *("vit --no-time --json", "vit --no-time --format csv", "vit --no-time --format md"),
        *("vit --no-time --format svg", "presets --format md", "windows --json", "compare --json"),
        *("vit --no-time --format html", "presets --format html"),
    ],
)
def test_machine_readable_formats_are_utf8_on_any_terminal(line):
    command = [sys.executable, "-m", "attnscope", *line.split()]
    ascii_only, utf8 = (
        subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": encoding})
        for encoding in ("ascii", "utf-8")
    )
    assert (ascii_only.returncode, ascii_only.stderr) == (0, b"")
    assert ascii_only.stdout == utf8.stdout
    assert not ascii_only.stdout.isascii()


def test_color_follows_flags_and_environment(attnscope):
    assert "\x1b[" not in attnscope("vit", "--no-time").stdout
    assert "\x1b[" in attnscope("vit", "--no-time", FORCE_COLOR="1", TERM="xterm").stdout
    assert "\x1b[" not in attnscope("vit", "--no-time", FORCE_COLOR="1", NO_COLOR="1").stdout
    assert "\x1b[" in attnscope("vit", "--no-time", "--color", "always", NO_COLOR="1", TERM="xterm").stdout


def test_a_real_terminal_has_colors_and_its_own_width():
    """A pseudo-terminal has 70 columns."""
    master, slave = pty.openpty()
    import fcntl
    import struct
    import termios

    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 70, 0, 0))
    env = {**os.environ, "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"}
    process = subprocess.Popen([sys.executable, "-m", "attnscope", "vit", "--no-time"], stdout=slave, env=env)
    os.close(slave)
    output = b""
    while True:
        try:
            read = os.read(master, 4096)
        except OSError:  # the other end is closed on Linux
            break
        if not read:
            break
        output += read
    os.close(master)
    assert process.wait() == 0
    text = output.decode()
    assert "\x1b[" in text
    plain = re.sub(r"\x1b\[[\d;]*m", "", text)
    assert max(len(line.rstrip()) for line in plain.splitlines()) <= 70
    assert "columns hidden (--wide shows all)" in plain


def test_a_closed_pipe_is_not_an_error():
    line = f"{sys.executable} -m attnscope vit --no-time | head -1"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.stdout.startswith(" ViT attention")
    assert done.stderr == ""


@pytest.fixture
def completed(attnscope):
    """Return a function that completes words as a shell does."""

    def complete(words):
        env = {
            "_ATTNSCOPE_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split(" ")) - 1),
        }
        return attnscope(**env).stdout.split()

    return complete


def test_completion_has_commands_flags_and_values(completed):
    assert {"vit", "swin"} <= set(completed("attnscope "))
    assert "--window" in completed("attnscope swin --win")
    assert "sdpa" in completed("attnscope vit --kernel ")


def test_completion_has_the_presets_of_the_command(completed):
    texts = {path.stem: path.read_text(encoding="utf-8") for path in presets().values()}
    for name in networks.names():
        assert set(completed(f"attnscope {name} --preset ")) == {each for each in texts if f"[{name}]" in texts[each]}
    assert completed("attnscope cross --preset ") == []
    assert completed("attnscope vit --preset deit-s-d") == ["deit-s-distilled-224"]
    assert set(completed("attnscope compare --preset ")) == {each for each in texts if "depths" in texts[each]}


def test_presets_are_listed_and_have_timms_names(attnscope):
    listed = json.loads(attnscope("presets", "--json").stdout)
    by_name = {preset["name"]: preset for preset in listed}
    assert by_name["swin-b-384"]["macs"] == 47_083_134_976
    assert by_name["vit-l-16-384"]["params"] == 304_715_752

    def report(*words):
        return json.loads(attnscope("swin", *words, "--scope", "model", "--no-time", "--json").stdout)

    ours, timms = report("--preset", "swin-b-384"), report("--preset", "swin_base_patch4_window12_384")
    assert ours["totals"] == timms["totals"]
    assert ours["totals"]["macs"] == 47_083_134_976
    assert [figure["explained_by"][0] for figure in ours["published"]["figures"]] == [
        "MACs, truncated",
        "MACs",
        "fvcore: LayerNorm added",
    ]
    larger = report("--preset", "swin-b-384", "--image", "512")
    assert larger["spec"]["image"] == [512, 512]
    assert larger["published"]["figures"] == []  # the published figures are for another size


def test_the_error_for_an_unknown_preset_names_those_of_the_command(attnscope):
    listed = attnscope("swin", "--preset", "resnet50").stderr.partition("available: ")[2].strip().split(", ")
    assert set(listed) == {path.stem for path in presets().values() if "[swin]" in path.read_text(encoding="utf-8")}
    assert len(listed) == len(set(listed))
    near, _, how = attnscope("vit", "--preset", "foo").stderr.partition("nearest: ")[2].strip().partition("; ")
    of_vit = {path.stem for path in presets().values() if "[vit]" in path.read_text(encoding="utf-8")}
    assert len({*near.split(", ")} & of_vit) == 3
    assert how == "attnscope presets lists all"


def test_of_many_names_that_another_command_lists_the_nearest_are_given_or_none():
    names = [f"name{number}" for number in range(40)]
    assert did_you_mean("e", names, many="x lists all") == "nearest: name9, name8, name7; x lists all"
    assert did_you_mean("xyz", names) == f"available: {', '.join(sorted(names))}"
    assert did_you_mean("xyz", names, many="x lists all") == "x lists all"
    assert did_you_mean("xyz", names[:3]) == "available: name0, name1, name2"


def test_a_stage_and_a_block_are_selected(attnscope):
    def lines(*words):
        return attnscope("swin", *words, "--no-time", "--format", "csv").stdout.splitlines()

    opened = [line.split(",")[:2] for line in lines("--scope", "model", "--stage", "2")]
    assert opened[1:3] == [["2", "patch merging"]] * 2
    attention = json.loads(attnscope("swin", "--stage", "2", "--block", "2", "--no-time", "--json").stdout)["spec"]
    assert (attention["dim"], attention["resolution"], attention["shift_size"]) == (192, [28, 28], [3, 3])
    wrong = attnscope("swin", "--scope", "model", "--resolution", "56", "--no-time")
    assert wrong.returncode == 2
    assert "--resolution applies only to --scope attention (got --scope model); use --image instead" in wrong.stderr


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("short\nsecond", "short"),
        ("x" * 100, "x" * 100),
        ("x" * 101, "x" * 100 + " …"),
        ("word " * 19 + "seven words", "word " * 19 + "seven …"),
        ("word " * 20 + "more", "word " * 19 + "word …"),
        ("", ""),
    ],
)
def test_a_long_line_of_another_library_ends_after_a_word(message, line):
    assert in_a_line(ValueError(message)) == f"ValueError: {line}"


def test_a_value_of_megabytes_is_not_repeated(attnscope):
    done = attnscope("presets", "x" * 100_000)
    assert (done.returncode, len(done.stderr) < 1000) == (2, True)
    assert done.stderr.startswith("attnscope: attnscope presets got an argument too many (xxx")
    assert "… (99" in done.stderr
