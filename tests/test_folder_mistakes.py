"""Mistakes in the folder of an attention: each is a one-line error that names the folder and the fix."""

import gc
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from attnscope import UsageError, attentions
from attnscope.attentions import Spec, discovery
from attnscope.cli import extension, main
from attnscope.ops.operation import OPERATIONS

SRA = Path(__file__).parent.parent / "examples" / "sra"


@dataclass
class Shown:
    code: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Return a function that runs the command in this process with `--attention`; unload what it loads after the test."""
    for registry, name in ((discovery, "_loaded"), (discovery, "_folders"), (extension, "_folders")):
        monkeypatch.setattr(registry, name, type(getattr(registry, name))())
    monkeypatch.setattr(sys, "path", [*sys.path])

    def run(folder: Path | str | None, *words: str) -> Shown:
        named = [] if folder is None else ["--attention", str(folder)]
        monkeypatch.setattr(sys, "argv", ["attnscope", *named, *words])
        with pytest.raises(SystemExit) as left:
            main()
        gc.enable()  # the command disables it
        return Shown(left.value.code, *capsys.readouterr())

    yield run
    for name, module in list(sys.modules.items()):
        if str(tmp_path) in (getattr(module, "__file__", None) or ""):
            del sys.modules[name]


def copy(folder: Path) -> Path:
    """Copy examples/sra without its tests."""
    shutil.copytree(SRA, folder, ignore=shutil.ignore_patterns("test_*", "__pycache__"))
    return folder


def spoil(folder: Path, file: str, old: str, new: str) -> Path:
    """Replace the first occurrence of a text in a file of a folder."""
    path = folder / file
    text, written = path.read_text(encoding="utf-8"), path.stat().st_mtime
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    os.utime(path, (written + 2, written + 2))  # compiled files tell versions apart by whole seconds and sizes
    return folder


def hold_one_line(shown: Shown, *words: str) -> None:
    """Assert that a command failed with exit code 2 and one line that contains these words."""
    assert (shown.code, shown.out) == (2, "")
    assert shown.err.startswith("attnscope: ")
    assert shown.err.count("\n") == 1
    for text in words:
        assert text in shown.err


@pytest.mark.parametrize("name", ["{dim}", "[red]x[/red]"])
def test_a_path_is_printed_verbatim(run, tmp_path, name):
    missing = tmp_path / name / "mine"
    hold_one_line(run(missing, "vit", "--no-time"), f"--attention {missing} is not a folder")
    folder = copy(missing)
    (folder / "spec.py").unlink()
    hold_one_line(run(folder, "sra", "--no-time"), f"{folder} lacks spec.py")
    copy(tmp_path / name / "whole")
    shown = run(tmp_path / name / "whole", "sra", "--no-time")
    suggested = " ".join(shown.out.replace("\\\n", " ").split())
    assert f"attnscope --attention '{tmp_path / name}/whole' compare" in suggested


REDUCTION = (
    'reduction: int = option(8, "Side of the patch of tokens reduced to one key/value token; 1 is global attention.")'
)
EXAMPLES = """(
        "attnscope sra --resolution 28 --dim 128 --heads 2 --reduction 4",
        "attnscope sra --resolution 800x1333 --no-time",
    )"""
FIELD = "    reduction: int"
NAME = 'name: ClassVar[str] = "sra"'
VIEW = 'op=op.view,\n    doc="reshape the sequence'

NEXT = (
    'return f"attnscope compare {compared} --resolution {spell_pair(self.resolution, \'x\')}", f"{why} on these tokens"'
)

MISTAKES = {
    "a field without an option": (
        "spec.py",
        REDUCTION,
        "reduction: int = 8",
        'SRASpec has a field reduction that is not declared with option(); write reduction: int = option(DEFAULT, "help")',
    ),
    "a field without a default": (
        "spec.py",
        REDUCTION,
        "reduction: int",
        "SRASpec has a field reduction that is not declared with option()",
    ),
    "a field that heads need": (
        "spec.py",
        '    kv_heads: int | None = option(None, KV_HEADS, shown="heads")\n',
        "",
        "SRASpec has no kv_heads, which every Headed has; give it a field, or kv_heads: ClassVar = VALUE",
    ),
    "a help that is not a string": (
        "spec.py",
        '"Number of attention heads."',
        "3",
        "SRASpec has a field heads that is not declared with option()",
    ),
    "a field that hides a method": (
        "spec.py",
        FIELD,
        f'    plan: int = option(1, "X.")\n{FIELD}',
        "SRASpec has a field plan, which hides Spec.plan; rename it",
    ),
    "a name that is a field": (
        "spec.py",
        NAME,
        'name: str = "sra"',
        "SRASpec has a field name, which hides Spec.name; rename it, or declare name: ClassVar",
    ),
    "a type without a flag": (
        "spec.py",
        FIELD,
        f'    sides: list[int] = option(None, "X.")\n{FIELD}',
        "SRASpec has a field sides of the type list[int]; it must be int, float, bool, str, Pair, Triple or Ints",
    ),
    "two types": (
        "spec.py",
        FIELD,
        f'    side: int | str = option(1, "X.")\n{FIELD}',
        "SRASpec has a field side of the type int | str; it must be",
    ),
    "types in quotes": (
        "spec.py",
        "from collections.abc",
        "from __future__ import annotations\nfrom collections.abc",
        "SRASpec has a field dim of the type int in quotes (remove `from __future__ import annotations`); it must be",
    ),
    "a default that is not a choice": (
        "spec.py",
        FIELD,
        f'    mode: str = option("c", "X.", choices=("a", "b"))\n{FIELD}',
        "SRASpec has an invalid default: --mode c is unknown; available: a, b",
    ),
    "a default that is not a pair": (
        "spec.py",
        "option((56, 56)",
        "option(56",
        "SRASpec has the default 56 of --resolution; it must be (56, 56)",
    ),
    "not a dataclass": (
        "spec.py",
        "@dataclass(frozen=True, kw_only=True)\nclass SRA",
        "class SRA",
        "SRASpec is not a dataclass; write @dataclass(frozen=True, kw_only=True) above it",
    ),
    "no name": ("spec.py", f"    {NAME}\n", "", 'SRASpec has no name; give it one: name: ClassVar[str] = "…"'),
    "a built-in name": (
        "spec.py",
        NAME,
        NAME.replace("sra", "vit"),
        "the name vit is that of a built-in attention; rename SRASpec",
    ),
    "a command's name": (
        "spec.py",
        NAME,
        NAME.replace("sra", "trace"),
        "the name trace must not be that of another command; rename",
    ),
    "a name with a space": (
        "spec.py",
        NAME,
        NAME.replace("sra", "s ra"),
        "SRASpec has the name 's ra'; it must be lowercase letters, digits, - and _, after a letter",
    ),
    "a name with a dash": ("spec.py", NAME, NAME.replace("sra", "-sra"), "SRASpec has the name '-sra'; it must be"),
    "examples without a tuple": (
        "spec.py",
        EXAMPLES,
        '"attnscope sra"',
        "SRASpec has EXAMPLES that are not a tuple of commands; write ('attnscope sra --no-time',)",
    ),
    "a size that is not a field": (
        "spec.py",
        'SIZE_FIELD: ClassVar[str] = "resolution"',
        'SIZE_FIELD: ClassVar[str] = "size"',
        "SRASpec has the SIZE_FIELD 'size', which must be one of its fields: batch, ",
    ),
    "a field that is not a size": (
        "spec.py",
        'SIZE_FIELD: ClassVar[str] = "resolution"',
        'SIZE_FIELD: ClassVar[str] = "kernel"',
        "SRASpec has the SIZE_FIELD 'kernel', which is not a size; its type must be int, Pair or Triple",
    ),
    **{
        f"no {member}": (
            "spec.py",
            f"def {member}(",
            f"def un{member}(",
            f"SRASpec does not define {member}; see attnscope.attentions.spec.Spec for what each returns",
        )
        for member in sorted(Spec.__abstractmethods__)
    },
    "a next command without a reason": (
        "spec.py",
        NEXT,
        'return "attnscope vit"',
        "SRASpec returns 'attnscope vit' as its next_command; return tuple[str, str]",
    ),
    "a next command without a program": (
        "spec.py",
        NEXT,
        'return "sra", "x"',
        "SRASpec suggests the next command 'sra'; give \"attnscope COMMAND …\"",
    ),
    "a neighbourhood that is a tuple": (
        "spec.py",
        "return ReducedKeys(*self.resolution, self.reduction) if",
        "return (1, 2) if",
        "SRASpec returns (1, 2) as its neighbourhood; return Neighbourhood",
    ),
    "no list of cautions": (
        "spec.py",
        "            return []\n",
        "            return None\n",
        "returns None as its cautions",
    ),
    "a method without a return": (
        "spec.py",
        "        return [f",
        "        [f",
        "SRASpec returns None as its headline; return list[str]",
    ),
    "a method that raises": (
        "spec.py",
        '        """Describe this Spec in a few words each."""',
        '        raise KeyError("mine")',
        "spec.py:121: KeyError: 'mine'",
    ),
    "defaults that raise": (
        "spec.py",
        "        super().__post_init__()\n",
        "        super().__post_init__()\n        1 / 0\n",
        "spec.py:88: ZeroDivisionError: division by zero",
    ),
    "defaults that are refused": (
        "spec.py",
        "option(8,",
        "option(57,",
        "SRASpec rejects its own defaults: --reduction must not exceed --resolution 56 (got 57); largest: 56",
    ),
    "no plan": ("steps.py", "def plan(", "def unplan(", "ImportError: cannot import name 'plan' from"),
    "no plan and no import of it": (
        "__init__.py",
        "from .steps import plan\n",
        "from . import steps\n\ndel steps.plan\nplan = None",
        "SRASpec needs a function plan(spec), which {folder}/steps.py does not define",
    ),
    "no build": (
        "attention.py",
        "def build(",
        "def unbuild(",
        "SRASpec needs a function build(spec), which {folder}/attention.py does not define",
    ),
    **{
        f"syntax of {file}": (file, '"""', 'class\n"""', f"{file}:1: SyntaxError: invalid syntax")
        for file in discovery.FILES
    },
    "an op that is None": (
        "steps.py",
        VIEW,
        VIEW.replace("op.view", "None"),
        "steps.py:18: TypeError: op must be an operation of attnscope.ops.recipes or a function",
    ),
    "a malformed letter": (
        "steps.py",
        "b c y x",
        "b c yy x",
        "steps.py:18: AxisError: cannot parse 'grid: b c yy x'",
    ),
    "a letter without a size": (
        "steps.py",
        '"r": spec',
        '"s": spec',
        "step reduce, grid: b c y x -> reduced: b c p q: no size for r; add it to the sizes of the plan",
    ),
    "an op that lacks a tensor": (
        "steps.py",
        VIEW,
        VIEW.replace("view", "add_mask"),
        "step unflatten, x: b (y x) c -> grid: b c y x: the pattern must have 2 input tensors for this operation (got 1)",
    ),
    "an op that returns nothing": (
        "steps.py",
        VIEW,
        VIEW.replace("op.view", "lambda tape, given: None"),
        "step unflatten, x: b (y x) c -> grid: b c y x: the operation must return tensors (got None)",
    ),
    "an op that raises": (
        "steps.py",
        VIEW,
        VIEW.replace("op.view", "lambda tape, given: given.y"),
        "step unflatten, x: b (y x) c -> grid: b c y x: AttributeError: 'Operands' object has no attribute 'y'",
    ),
    "a plan that is None": (
        "steps.py",
        "    return Plan",
        "    Plan",
        "plan(spec) in steps.py returns None; return Plan.of(",
    ),
    "a plan that is a list": (
        "steps.py",
        "    return Plan",
        "    return steps\n    Plan",
        "plan(spec) in steps.py returns a value of the type list; return Plan.of(",
    ),
    "a plan without steps": (
        "steps.py",
        "Plan.of(steps",
        "Plan.of([]",
        "plan(spec) in steps.py returns a plan without steps; return Plan.of(",
    ),
    "a plan that raises": (
        "steps.py",
        "spec.reduced\n",
        "spec.no\n",
        "steps.py:55: AttributeError: 'SRASpec' object has no",
    ),
}


@pytest.mark.parametrize(("file", "old", "new", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_the_spec_is_a_one_line_error(run, tmp_path, file, old, new, message):
    folder = spoil(copy(tmp_path / "mine"), file, old, new)
    hold_one_line(run(folder, "sra", "--no-time"), str(folder), message.format(folder=folder))


IN_THE_MODULE = {
    "a module that is None": (
        "attention.py",
        "    return Spatial",
        "    Spatial",
        "build(spec) in attention.py returns None; return an nn.Module",
    ),
    "a forward that leaves out steps": (
        "attention.py",
        "self.output(self.merge_heads(self.attention(q, k, v)))",
        "self.proj(self.mix(self.softmax(self.score(q, k)), v).transpose(1, 2).flatten(2))",
        "steps of the plan that did not run: merge_heads, output; forward must call the method of each step",
    ),
    "a forward that runs steps again": (
        "attention.py",
        "return self.sr(grid)",
        "return self.sr(self.unflatten(grid.flatten(2).transpose(1, 2)))",
        "steps that ran more than once: unflatten; forward must",
    ),
    "a forward in another order": (
        "attention.py",
        "q, k, v = self.queries_keys_values(x, context)",
        "kv, q = self.project_context(context), self.split_queries(self.project_queries(x))\n"
        "        k, v = self.split_context(kv)",
        "a step that ran too early: project_context; forward must",
    ),
    "a plan that leaves out steps": (
        "steps.py",
        "        merge_heads,\n",
        "",
        "steps that ran and are not in the plan: merge_heads; forward must",
    ),
    "a plan of other shapes": (
        "steps.py",
        '"n": spec.tokens',
        '"n": spec.tokens + 1',
        "project_queries must return 1×3137×64, by the plan (got 1×3136×64)",
    ),
    "a step that makes another shape": (
        "attention.py",
        "reduced.flatten(2).transpose(1, 2)",
        "reduced.flatten(2)",
        "flatten: patches must have shape b (p q) c (got 1×64×49): (p q) must be 49 (got 64)",
    ),
    "a step that returns nothing": (
        "attention.py",
        "        return self.sr(grid)",
        "        self.sr(grid)",
        "reduce: grid: b c y x -> reduced: b c p q must have 1 tensors on this side (got 0)",
    ),
    "no sizes": (
        "attention.py",
        '        return {**super().sizes, "y": y, "x": x, "r": self.reduction}\n',
        "",
        "SpatialReductionAttention needs a property sizes",
    ),
    "a module that raises": ("attention.py", "self.sr(grid)", "self.no(grid)", "attention.py:46: AttributeError: "),
}


@pytest.mark.parametrize(("file", "old", "new", "message"), IN_THE_MODULE.values(), ids=IN_THE_MODULE)
def test_a_mistake_in_the_module_is_a_one_line_error(run, tmp_path, file, old, new, message):
    folder = spoil(copy(tmp_path / "mine"), file, old, new)
    hold_one_line(run(folder, "sra", "--device", "meta"), str(folder), message.format(folder=folder))


@pytest.mark.parametrize(
    ("field", "words", "message"),
    [
        ('gain: float = option(1.0, "X.")', ["--gain", "-2.5"], None),
        ('gain: float = option(1.0, "X.")', ["--gain", "inf"], "--gain must be a finite number (got inf)"),
        ('gain: float = option(1.0, "X.", high=2)', ["--gain", "3"], "--gain must be a number of at most 2 (got 3.0)"),
        ('mode: str = option("a", "X.")', ["--mode", "b"], None),
    ],
)
def test_bounds_of_a_number_and_choices_of_a_string_are_optional(run, tmp_path, field, words, message):
    folder = spoil(copy(tmp_path / "mine"), "spec.py", FIELD, f"    {field}\n{FIELD}")
    shown = run(folder, "sra", "--no-time", *words)
    if message is None:
        assert (shown.code, shown.err) == (0, "")
    else:
        hold_one_line(shown, message)


@pytest.mark.parametrize(
    ("name", "better"),
    [("2sra", "attention_2sra"), ("class", "attention_class"), ("my-sra", "my_sra"), ("{x}", "_x_")],
)
def test_the_name_of_a_folder_must_be_a_package_name(run, tmp_path, name, better):
    message = f"the folder {name} cannot be a Python package; rename it to {better}"
    hold_one_line(run(copy(tmp_path / name), "sra", "--no-time"), message)


@pytest.mark.parametrize("mistake", ["a built-in name", "no headline", "defaults that raise"])
def test_a_rejected_folder_is_loaded_again(run, tmp_path, mistake):
    file, old, new, _ = MISTAKES[mistake]
    folder = spoil(copy(tmp_path / "mine"), file, old, new)
    with pytest.raises(UsageError):
        attentions.load(folder)
    spoil(folder, file, new, old)
    assert attentions.load(folder).name == "sra"


def test_a_rejected_folder_registers_its_operations_again(run, tmp_path):
    folder = copy(tmp_path / "mine")
    steps = folder / "steps.py"
    declaring = "from attnscope.ops.operation import register\nregister('of_a_folder')\n"
    steps.write_text(steps.read_text(encoding="utf-8") + declaring + "no_such_name\n", encoding="utf-8")
    with pytest.raises(UsageError):
        attentions.load(folder)
    spoil(folder, "steps.py", "no_such_name\n", "")
    assert attentions.load(folder).name == "sra"
    del OPERATIONS["of_a_folder"]


def test_the_error_names_the_environment_variable_that_names_the_folder(run, monkeypatch, tmp_path):
    folder = copy(tmp_path / "mine")
    monkeypatch.setenv("ATTNSCOPE_ATTENTION", f"{os.pathsep}{folder}{os.pathsep}")
    assert run(None, "sra", "--no-time").code == 0
    monkeypatch.setenv("ATTNSCOPE_ATTENTION", str(tmp_path / "no"))
    shown = run(None, "vit", "--no-time")
    hold_one_line(shown, f"attnscope: ATTNSCOPE_ATTENTION: {tmp_path / 'no'} is not a folder; give the folder that")
    hold_one_line(run("", "vit", "--no-time"), "--attention '' is not a folder; give the folder that contains")


@pytest.mark.parametrize(
    ("field", "taken"),
    [
        *[(name, f"--{name}") for name in ("json", "time", "budget", "memory", "help", "format")],
        ("no_time", "--no-time"),
        ("input_grad", "--input-grad"),
        ("no_qkv_bias", "--no-qkv-bias"),
        ("form", "form"),
    ],
)
def test_a_field_cannot_have_the_name_of_another_flag(run, tmp_path, field, taken):
    folder = spoil(copy(tmp_path / "mine"), "spec.py", FIELD, f'    {field}: int = option(1, "X.")\n{FIELD}')
    message = (
        f"{folder}/spec.py: SRASpec.{field} must not have the name of another flag (got {taken}); rename the field"
    )
    hold_one_line(run(folder, "sra", "--no-time"), message)


def test_a_field_cannot_have_the_name_of_a_flag_of_compare(run, tmp_path):
    folder = spoil(copy(tmp_path / "mine"), "spec.py", FIELD, f'    pad: int = option(1, "X.")\n{FIELD}')
    message = f"{folder}/spec.py: SRASpec.pad must not have the name of another flag (got --pad); rename the field"
    hold_one_line(run(folder, "compare", "vit", "sra"), message)


@pytest.mark.parametrize("field", ["scope", "context", "spec", "preset"])
def test_a_field_may_have_a_name_that_is_not_a_flag(run, tmp_path, field):
    folder = spoil(copy(tmp_path / "mine"), "spec.py", FIELD, f'    {field}: int = option(1, "X.")\n{FIELD}')
    shown = run(folder, "sra", "--no-time", f"--{field}", "2", "--json")
    assert (shown.code, shown.err) == (0, "")
    assert f'"{field}": 2' in shown.out
