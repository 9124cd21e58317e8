"""Warnings about flags and variables without effect; result and exit code do not change."""

import re
from pathlib import Path

import pytest

from attnscope import attentions, networks
from attnscope.attentions.spec import own_fields
from attnscope.core.errors import UsageError
from tests.conftest import Run

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.parametrize(
    ("words", "name", "nearest"),
    [
        ("vit", "ATTNSCOPE_VIT_HEDS", "ATTNSCOPE_VIT_HEADS"),
        ("vit", "ATTNSCOPE_VIT_HEADSS", "ATTNSCOPE_VIT_HEADS"),
        ("vit", "ATTNSCOPE_VTI_DIM", "ATTNSCOPE_VIT_DIM"),
        ("vit", "ATTNSCOPE_ATENTION", "ATTNSCOPE_ATTENTION"),
        ("vit", "ATTNSCOPE_SWIN_DEPTH", "ATTNSCOPE_SWIN_DEPTHS"),
        ("vit", "ATTNSCOPE_SWINV2_HEAD", "ATTNSCOPE_SWINV2_HEADS"),
        ("swin", "ATTNSCOPE_BUDGET", "ATTNSCOPE_SWIN_BUDGET"),
        ("vit", "ATTNSCOPE_DIM", "ATTNSCOPE_VIT_DIM"),
        ("vit", "ATTNSCOPE_BUGET", "ATTNSCOPE_VIT_BUDGET"),
        ("presets", "ATTNSCOPE_PRESETS_FORMT", "ATTNSCOPE_PRESETS_FORMAT"),
        (f"--attention {EXAMPLES / 'sra'} sra", "ATTNSCOPE_SRA_REDUCTIONS", "ATTNSCOPE_SRA_REDUCTION"),
    ],
)
def test_the_warning_about_a_misspelled_variable_has_the_nearest_name(
    attnscope: Run, words: str, name: str, nearest: str
):
    line = [*words.split(), *["--no-time"] * (words != "presets")]
    done = attnscope(*line, **{name: "3"})
    text = f"attnscope: warning: the environment variable {name} is unknown and has no effect; did you mean {nearest}"
    assert done.stderr.startswith(text)
    assert done.stderr.count("\n") == 1
    assert (done.returncode, done.stdout) == (0, attnscope(*line).stdout)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ATTNSCOPE_VIT_DIM", "96"),
        ("ATTNSCOPE_SWIN_PRESET", "swin-t-224"),
        ("ATTNSCOPE_TRACE_INPUT", "1,49,96"),
        ("ATTNSCOPE_TRACE_INPUTS", "1,49,96"),  # the name of the parameter in Python
        ("ATTNSCOPE_ATTENTION", str(EXAMPLES / "sra")),
        ("ATTNSCOPE_UNALIKE", "1"),
        ("ATTNSCOPE_MINE_TEMPERATURE", "2"),  # a variable of an attention that is not loaded
        ("_ATTNSCOPE_VIT_HEDS", "1"),
    ],
)
def test_other_variables_have_no_warning(attnscope: Run, name: str, value: str):
    assert attnscope("vit", "--no-time", **{name: value}).stderr == ""


def test_help_does_not_warn(attnscope: Run):
    assert attnscope("vit", "--help", ATTNSCOPE_VIT_HEDS="3").stderr == ""


@pytest.mark.parametrize(
    ("line", "messages"),
    [
        ("vit --no-time --budget 1", ["--budget has no effect with --no-time; remove one of them"]),
        ("vit --no-time --no-input-grad", ["--no-input-grad has no effect without --backward; add it"]),
        ("vit --no-time --input-grad", ["--input-grad has no effect without --backward; add it"]),
        (
            "compare --device cuda --threads 2",
            [f"{flag} has no effect without --time; add it" for flag in ("--device", "--threads")],
        ),
        ("vit --no-time --backward --no-input-grad", []),
        ("vit --budget 0.01", []),
    ],
)
def test_a_flag_without_the_flag_that_it_needs_has_a_warning(attnscope: Run, line: str, messages: list[str]):
    done = attnscope(*line.split())
    assert done.stderr.splitlines() == [f"attnscope: warning: {each}" for each in messages]
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("trace timm:x --fail-above macs=1", "--fail-above requires --against; add --against REV"),
        ("trace timm:x --cannot-tell fail", "--cannot-tell requires --fail-above; add --fail-above LIMITS"),
        ("diff a.json b.json --cannot-tell fail", "--cannot-tell requires --fail-above; add --fail-above LIMITS"),
    ],
)
def test_a_gate_without_the_flag_that_it_needs_is_an_error(attnscope: Run, line: str, message: str):
    """A check that forgot the flag would always pass."""
    done = attnscope(*line.split())
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"attnscope: {message}\n")


def test_the_suggested_command_leaves_out_a_flag_without_effect(attnscope: Run):
    done = attnscope("trace", "torch.nn:Linear", "--arg", "in_features=3", "--arg", "out_features=3", "--input", "2,3",
                     "--processes", "9", "--no-input-grad")  # fmt: skip
    assert "has no effect without --against; add it" in done.stderr
    suggested = next(line for line in done.stdout.splitlines() if line.startswith(" next"))
    assert "--processes" not in suggested
    assert "--no-input-grad" not in suggested


@pytest.mark.parametrize(
    ("line", "flag", "scope", "needed"),
    [
        ("vit --depth 3", "--depth", "attention", "--scope model"),
        ("vit --mlp-ratio 2", "--mlp-ratio", "attention", "--scope block"),
        ("vit --mlp-ratio 2 --classes 9 --scope block", "--classes", "block", "--scope model"),
        ("swin --classes 9 --scope model --stage 3", "--classes", "model", "--scope model without --stage"),
        ("swin --depths 2,2,18,2 --stage 2", "--depths", "attention", "--scope model without --stage"),
    ],
)
def test_the_warning_about_a_field_without_effect_has_the_scope_that_it_needs(
    attnscope: Run, line, flag, scope, needed
):
    done = attnscope(*line.split(), "--no-time")
    assert done.stderr == f"attnscope: warning: {flag} has no effect with --scope {scope}; it needs {needed}\n"
    assert done.returncode == 0
    wider, _, without = needed.partition(" without ")
    fixed = re.sub(rf"{without} \d", "", line) if without else line
    assert attnscope(*fixed.split(), *wider.split(), "--no-time").stderr == ""


@pytest.mark.parametrize(
    "line",
    [
        "vit --scope model --depth 3 --classes 9 --mlp-ratio 2",
        "vit --scope block --mlp-ratio 2 --block 2",
        "vit --depth 12 --classes 1000",  # the defaults
        "vit --distilled",
        "vit --block 3",
        "vit --image 384",
        "vit --preset vit-l-16-384",
        "swin --image 448",
        "swin --stage 5 --depths 2,2,2,2,2",
        "swin --stage 3 --block 17 --depths 2,2,18,2",
        "swin --scope model --stage 3 --depths 2,2,18,2",
        "swinv2 --pretrained-windows 12,12,12,6",
        "swinv2 --scope block --pretrained-windows 12,12,12,6",
        "swinv2 --scope model --pretrained-windows 12,12,12,6",
    ],
)
def test_a_field_with_an_effect_has_no_warning(attnscope: Run, line: str):
    assert attnscope(*line.split(), "--no-time").stderr == ""


@pytest.mark.parametrize("name", networks.names())
def test_the_error_for_a_field_of_an_attention_has_the_field_of_the_network(attnscope: Run, name: str):
    of_attention, of_network = (own_fields(spec) for spec in (attentions.spec_class(name), networks.spec_class(name)))
    values = {"shift": True}
    for field in of_attention.keys() - of_network.keys():
        with pytest.raises(UsageError) as error:
            networks.asked(name, {field: values.get(field, 4)}, "block")
        fix = re.search("; use (.*) instead", error.value.in_flags())
        assert fix is not None
        for flag in re.findall("--([a-z_-]+)", fix[1]):
            assert flag.replace("-", "_") in of_network


def test_the_error_for_shift_with_scope_block_has_the_flags_of_a_shifted_block(attnscope: Run):
    done = attnscope("swin", "--scope", "block", "--shift")
    assert done.returncode == 2
    text = (
        "--shift applies only to --scope attention (got --scope block); use --scope block --block 2 (shifted windows)"
    )
    assert done.stderr.startswith(f"attnscope: {text}")
    assert done.stderr.endswith(" or --block 1 (plain windows) instead\n")
    for block, shifts in (("1", False), ("2", True)):
        assert ("shift 3" in attnscope("swin", "--scope", "block", "--block", block, "--no-time").stdout) is shifts
    assert attnscope("swin", "--scope", "block", "--no-shift").stderr.startswith(
        "attnscope: --no-shift applies only to"
    )


def test_a_variable_without_effect_in_this_run_has_no_warning(attnscope: Run):
    assert attnscope("vit", "--no-time", ATTNSCOPE_VIT_BUDGET="1").stderr == ""
