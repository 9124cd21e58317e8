"""Attentions outside the package: from a folder or an installed distribution, without changes to the package."""

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import attnscope as public
from attnscope import UsageError, ViTSpec, attentions
from attnscope.attentions import discovery
from attnscope.cli.extension import OTHERS
from tests.test_imports import modules_after

INIT = '''"""Multi-query attention: all heads share one head of keys and values."""

from .spec import SharedSpec as Spec
from .steps import plan

__all__ = ["Spec", "plan"]
'''
SPEC = '''
from dataclasses import dataclass
from typing import ClassVar

from attnscope.attentions.spec import option
from attnscope.attentions.vit.spec import ViTSpec


@dataclass(frozen=True, kw_only=True)
class SharedSpec(ViTSpec):
    """Global attention whose heads share one head of keys and values (Shazeer, arXiv 1911.02150)."""

    name: ClassVar[str] = "NAME"
    title: ClassVar[str] = "Multi-query attention"
    SUMMARY: ClassVar[str] = "Global attention with one head of keys and values."
    EXAMPLES: ClassVar[tuple[str, ...]] = ("attnscope NAME --no-time",)

    def next_command(self) -> tuple[str, str]:
        return "attnscope compare NAME:margin=1 vit", "beside global attention"

    kv_heads: int | None = option(1, "Heads of keys and values.")
    margin: int = option(0, "Tokens beyond the image's.", low=0)

    @property
    def sequence(self) -> int:
        return super().sequence + self.margin
'''
STEPS = """
from attnscope.attentions.vit import steps as vit


def plan(spec):
    return vit.plan(spec)
"""
ATTENTION = """
from attnscope.attentions.vit.attention import build as build_vit


def build(spec):
    return build_vit(spec)
"""


def write(folder: Path, name: str = "shared", **files: str) -> Path:
    """Write the folder of an attention; keyword arguments replace the text of files."""
    folder.mkdir(parents=True)
    texts = {"__init__": INIT, "spec": SPEC, "steps": STEPS, "attention": ATTENTION, **files}
    for file, text in texts.items():
        if text:
            (folder / f"{file}.py").write_text(text.replace("NAME", name), encoding="utf-8")
    return folder


@pytest.fixture
def shared(tmp_path):
    return write(tmp_path / "shared_heads")


@pytest.fixture
def in_python(monkeypatch, tmp_path):
    """Unload the attentions that a test loads, after the test."""
    monkeypatch.setattr(discovery, "_loaded", {})
    monkeypatch.setattr(discovery, "_folders", set())
    yield
    for name, module in list(sys.modules.items()):
        if str(tmp_path) in (getattr(module, "__file__", None) or ""):
            del sys.modules[name]


def test_a_folder_adds_a_command(attnscope, shared):
    helped = attnscope("--attention", str(shared), "--help").stdout
    assert re.search(r"^  shared +Global attention with one head of keys and values\.$", helped, re.MULTILINE)
    own = attnscope("--attention", str(shared), "shared", "--help", COLUMNS="100").stdout
    assert "--margin" in own
    assert "Tokens beyond the image's." in own
    assert f"attnscope --attention {shared} shared --no-time" in " ".join(own.replace("\\\n", "").split())
    report = json.loads(attnscope("--attention", str(shared), "shared", "--margin", "3", "--no-time", "--json").stdout)
    assert report["spec"]["attention"] == "shared"
    assert report["totals"]["macs"] == sum(ViTSpec(tokens=200, kv_heads=1).closed_form().values())
    assert report["steps"][0]["inputs"] == [[1, 200, 768]]
    assert report["next"][0] == f"attnscope --attention {shared} compare shared:margin=1 vit"


def test_an_attention_in_a_folder_is_measured_and_verified(attnscope, shared):
    words = ("shared", "--tokens", "8", "--budget", "0.05", "--audit", "--backward", "--json")
    report = json.loads(attnscope("--attention", str(shared), *words).stdout)
    assert report["audit"]["agree"]
    assert report["audit"]["torch"] == report["totals"]["macs"]
    assert report["time"]["runs"]
    assert report["backward"]["macs"]


def test_the_environment_variable_names_folders(attnscope, shared, tmp_path):
    other = write(tmp_path / "other_heads", "other")
    folders = os.pathsep.join(map(str, (shared, other)))
    for name in ("shared", "other"):
        done = attnscope(name, "--no-time", ATTNSCOPE_ATTENTION=folders, **{f"ATTNSCOPE_{name}_TOKENS".upper(): "5"})
        assert "5 tokens" in done.stdout


def test_an_attention_in_a_folder_can_be_compared(attnscope, shared):
    done = attnscope("--attention", str(shared), "compare", "shared", "shared:margin=4", "swin", "--json")
    comparison = json.loads(done.stdout)
    assert done.returncode == 0
    assert comparison["agree"]
    assert "margin" in attnscope("--attention", str(shared), "compare", "--help").stdout


def test_a_config_file_has_a_table_for_an_attention_in_a_folder(attnscope, shared, tmp_path):
    (tmp_path / "mine.toml").write_text("[shared]\nmargin = 7\n", encoding="utf-8")
    done = attnscope("--attention", str(shared), "shared", "--config", str(tmp_path / "mine.toml"), "--no-time")
    assert "204 tokens" in done.stdout


@pytest.mark.parametrize(("typed", "word", "completed"), [("share", 3, "shared"), ("shared --mar", 4, "--margin")])
def test_shells_complete_an_attention_in_a_folder(attnscope, shared, typed, word, completed):
    line = f"attnscope --attention {shared} {typed}"
    done = attnscope(_ATTNSCOPE_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(word))
    assert done.stdout.split() == [completed]


def test_python_loads_a_folder_once(shared, in_python):
    spec = attentions.load(shared)
    assert attentions.load(str(shared)) is spec
    assert attentions.spec_class("shared") is spec
    assert "shared" in attentions.names()
    report = public.explore(spec(dim=8, heads=2, tokens=3), device="meta")
    assert report.audit.agree


REFUSED = {
    "no spec.py": (
        {"spec": ""},
        "lacks spec.py; the folder of an attention contains __init__.py, spec.py, steps.py, att",
    ),
    "two files": ({"steps": "", "attention": ""}, "lacks steps.py, attention.py; "),
    "syntax": ({"spec": "x = 1\nclass\n"}, "spec.py:2: SyntaxError: invalid syntax"),
    "name": (
        {"spec": "import math\n\nmath.tau2\n"},
        "spec.py:3: AttributeError: module 'math' has no attribute 'tau2'",
    ),
    "import": (
        {"steps": "import no_such_module\n"},
        "steps.py:1: ModuleNotFoundError: No module named 'no_such_module'",
    ),
    "braces": ({"steps": "raise ValueError('{dim} of\\nmine')\n"}, "steps.py:1: ValueError: {dim} of mine"),
    "no Spec": (
        {"__init__": "x = 1\n"},
        "__init__.py has no Spec, a subclass of attnscope.attentions.spec.Spec",
    ),
    "no class": ({"__init__": "Spec = 5\n"}, "__init__.py has no Spec, a subclass of"),
    "not its own": ({"__init__": "from attnscope import ViTSpec as Spec\n"}, "ViTSpec is not defined in "),
    "no size": (
        {"spec": SPEC.replace("    EX", '    SIZE_FIELD = "size"\n    EX')},
        "SharedSpec has the SIZE_FIELD 'size', which must be one of its fields: ",
    ),
    "built in": (
        {"spec": SPEC.replace("NAME", "swin")},
        "spec.py: the name swin is that of a built-in attention; rename SharedSpec",
    ),
    "a command": (
        {"spec": SPEC.replace("NAME", "trace")},
        "the name trace must not be that of another command; rename the attention",
    ),
    "capital": (
        {"spec": SPEC.replace("NAME", "Mine")},
        "has the name 'Mine'; it must be lowercase letters, digits, - and _",
    ),
}


@pytest.mark.parametrize(("files", "message"), REFUSED.values(), ids=REFUSED)
def test_a_broken_folder_is_a_one_line_error(attnscope, tmp_path, files, message):
    folder = write(tmp_path / "mine", **files)
    done = attnscope("--attention", str(folder), "shared", "--no-time")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"attnscope: --attention {folder}: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("files", "words", "message"),
    [
        ({"steps": STEPS.replace("vit.plan", "vit.plam")}, ["--no-time"], "steps.py:6: AttributeError: "),
        (
            {"attention": f"import torch\n\ntorch.no_such\n{ATTENTION}"},
            ["--device", "meta"],
            "attention.py:3: AttributeError: ",
        ),
        (
            {"attention": ATTENTION.replace("return build_vit(spec)", "raise KeyError('heads')")},
            ["--device", "meta"],
            "attention.py:6: KeyError: 'heads'",
        ),
    ],
    ids=["plan", "import", "build"],
)
def test_a_later_failure_is_a_one_line_error(attnscope, tmp_path, files, words, message):
    folder = write(tmp_path / "mine", **files)
    done = attnscope("--attention", str(folder), "shared", *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_missing_folder_is_an_error_with_the_expected_files(attnscope, tmp_path):
    done = attnscope("--attention", str(tmp_path / "no"), "vit", "--no-time")
    assert done.returncode == 2
    assert "no is not a folder; give the folder that contains __init__.py, spec.py" in done.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("json", "another Python module is named json; rename the folder"),
        ("shared-heads", "the folder shared-heads cannot be a Python package; rename it to shared_heads"),
    ],
)
def test_the_name_of_a_folder_must_be_a_free_package_name(tmp_path, in_python, name, message):
    with pytest.raises(UsageError, match=message):
        attentions.load(write(tmp_path / name))
    assert json.dumps({}) == "{}"


def test_two_folders_cannot_share_a_name(tmp_path, in_python):
    attentions.load(write(tmp_path / "one"))
    with pytest.raises(UsageError, match="one is also named shared; rename one of them"):
        attentions.load(write(tmp_path / "two"))


def test_a_broken_folder_can_be_fixed_and_loaded_again(tmp_path, in_python):
    folder = write(tmp_path / "mine", __init__="1 / 0\n")
    with pytest.raises(UsageError, match=r"__init__\.py:1: ZeroDivisionError") as error:
        attentions.load(folder)
    assert isinstance(error.value.__cause__, ZeroDivisionError)
    (folder / "__init__.py").write_text(INIT, encoding="utf-8")
    assert attentions.load(folder).name == "shared"


@pytest.fixture(scope="module")
def distribution(tmp_path_factory):
    """Install a distribution with pip and return its PYTHONPATH.

    It contains an attention, a broken one, one named vit, and one whose entry point has a different name. A fifth entry
    point has no package.
    """
    home = tmp_path_factory.mktemp("distribution")
    package = home / "attnscope_shared"
    write(package / "shared")
    write(package / "broken", "broken", spec="import math\nmath.tau2\n")
    write(package / "vit", "vit")
    write(package / "renamed", "another")
    (package / "__init__.py").touch()
    points = "[attnscope.attentions]\n" + "".join(
        f"{name} = attnscope_shared.{name}\n" for name in ("shared", "broken", "vit", "gone", "renamed")
    )
    wheel = home / "attnscope_shared-1.0-py3-none-any.whl"
    info = "attnscope_shared-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        for file in sorted(package.rglob("*.py")):
            archive.write(file, file.relative_to(home))
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: attnscope-shared\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/entry_points.txt", points)
        archive.writestr(f"{info}/RECORD", "")
    target = home / "installed"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", target, wheel]
    subprocess.run(pip, check=True)
    return os.pathsep.join([str(target), *filter(None, [os.environ.get("PYTHONPATH")])])


def test_an_installed_attention_is_a_command(attnscope, distribution):
    helped = attnscope("--help", PYTHONPATH=distribution, COLUMNS="200").stdout
    assert re.search(r"^  shared +Global attention with one head of keys and values\.$", helped, re.MULTILINE)
    report = json.loads(attnscope("shared", "--no-time", "--json", PYTHONPATH=distribution).stdout)
    assert report["spec"]["attention"] == "shared"
    assert attnscope("compare", "shared", "vit", PYTHONPATH=distribution).returncode == 0


def test_installed_attentions_that_cannot_be_used_are_reported(attnscope, distribution):
    helped = attnscope("--help", PYTHONPATH=distribution).stdout
    commands, _, unusable = helped.partition(" cannot be used:")
    refused = "".join(unusable.split())
    assert "Global attention, as in ViT" in commands
    assert "broken" not in commands
    assert "spec.py:2:AttributeError:module'math'hasnoattribute'tau2'" in refused
    assert "thenamevitisthatofabuilt-inattention;renameSharedSpec" in refused
    assert "thepackageattnscope_shared.gonedoesnotexist" in refused
    assert "itsentrypointisnamedrenamed,butitsSpecisnamedanother" in refused
    done = attnscope("broken", "--no-time", PYTHONPATH=distribution)
    assert done.returncode == 2
    assert done.stderr.startswith("attnscope: the installed attention broken cannot be used: ")
    assert done.stderr.count("\n") == 1


def test_an_installed_attention_does_not_replace_a_built_in_one(attnscope, distribution):
    there = attnscope("vit", "--no-time", "--json", PYTHONPATH=distribution)
    assert json.loads(there.stdout)["title"].startswith("ViT attention")


def test_installed_attentions_are_only_loaded_if_needed(distribution, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", distribution)
    assert not [module for module in modules_after(["vit", "--no-time"]) if module.startswith("attnscope_shared")]
    loaded = modules_after(["--help"])
    assert "attnscope_shared.shared.spec" in loaded
    assert not {"torch", "importlib.metadata"} & loaded


def test_loading_a_folder_does_not_import_torch(shared):
    loaded = modules_after(["--attention", str(shared), "shared", "--no-time"])
    assert "shared_heads.steps" in loaded
    assert "torch" not in loaded


def test_no_attention_has_the_name_of_another_command():
    assert not set(OTHERS) & set(attentions.names())


def test_an_unknown_attention_is_an_error_with_the_nearest_name():
    with pytest.raises(UsageError, match=r"the attention svin is unknown; did you mean swin\?"):
        attentions.spec_class("svin")
