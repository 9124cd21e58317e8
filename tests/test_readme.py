"""The README and the pages of docs/: their commands run, and print what the README shows."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [path for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))] if path.name != "mutation.md"]
SESSION = re.compile(r"(?<=```console\n)\$ (.*)\n((?:.*\n)*?)(?=```)")
"""A command of a console block, and the lines below it."""

PICTURE = ["windows", "--resolution", "14", "--window", "7", "--shift", "-o", "docs/windows.svg"]
"""The arguments of the command that draws the picture at the top."""


def sessions() -> list[tuple[str, str]]:
    """Return the commands of all console blocks, each with the lines below it."""
    return [found for page in PAGES for found in SESSION.findall(page.read_text(encoding="utf-8"))]


def python_blocks() -> list[str]:
    """Return the Python blocks of all pages that are complete: those that import attnscope."""
    blocks = [
        block
        for page in PAGES
        for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    ]
    imported = [block for block in blocks if "import attnscope" in block or "from attnscope" in block]
    return [block for block in imported if "torchrun" not in block]  # examples/sharding starts several processes


def arguments(command: str) -> tuple[list[str], dict[str, str]]:
    """Return the arguments of a command, and the environment variables in front of it; a screen has 80 columns."""
    words = shlex.split(command)
    start = words.index("attnscope")
    return words[start + 1 :], {"COLUMNS": "80"} | dict(word.split("=", 1) for word in words[:start])


@pytest.mark.parametrize(("command", "shown"), sessions(), ids=lambda value: value.split("\n")[0][:40])
def test_a_session_shows_what_is_printed(attnscope, command, shown):
    """After a change of the output: `python -m tests.golden`."""
    words, env = arguments(command)
    if words[0] == "trace" and sys.version_info >= (3, 12):
        pytest.skip("Python 3.11 keeps the tensors of an expression longer, so that more memory is live")
    assert attnscope(*words, **env).stdout == shown


def test_the_readme_shows_all_three_questions():
    assert len(SESSION.findall(README)) == 3
    assert all(shown.count("\n") >= 15 for _, shown in SESSION.findall(README))


@pytest.mark.parametrize("block", python_blocks(), ids=lambda block: block.splitlines()[-1][:40])
def test_a_python_block_runs(block, capsys):
    exec(compile(block, "README.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    for number in re.findall(r"print\(.*\)  # (\d+)$", block, re.MULTILINE):
        assert number in printed


def commands() -> list[str]:
    """Return the indented commands of all pages, each once."""
    texts = (page.read_text(encoding="utf-8") for page in PAGES)
    found = [
        command for text in texts for command in re.findall(r"^    (attnscope .*?)(?:  +#.*)?$", text, re.MULTILINE)
    ]
    # tests/test_rerun.py runs --rerun, which starts ten processes
    return [command for command in dict.fromkeys(found) if "--rerun" not in command]


def committed(folder: Path) -> Path:
    """Return the folder as a repository with the branch `main`, which has model.py:MyAttention."""
    (folder / "model.py").write_text("from torch import nn\n\nclass MyAttention(nn.Linear):\n"
                                     "    def __init__(self): super().__init__(384, 384)\n")  # fmt: skip
    for git in ("init -q -b main", "add model.py", "-c user.name=a -c user.email=a@b.c commit -qm first"):
        subprocess.run(["git", "-C", str(folder), *git.split()], check=True)
    return folder


def module_in(folder: Path, target: str, shape: str) -> str:
    """Return the target `FILE.py:NAME` in the folder, whose file has such a module for inputs of this shape."""
    file, _, name = target.partition(":")
    size = shape.split(",")[-1]
    source = f"class {name}(nn.Linear):\n    def __init__(self): super().__init__({size}, {size})\n"
    (folder / file).write_text(f"from torch import nn\n\n{source}")
    return str(folder / target)


@pytest.mark.parametrize("command", commands())
def test_a_command_works(attnscope, command, tmp_path):
    written = (".json", ".html", ".svg", ".csv")
    words = [str(tmp_path / word) if word.endswith(written) else word for word in shlex.split(command)[1:]]
    if words[0] == "--attention":
        words[1] = str(ROOT / "examples" / words[1])
    if words[0] == "diff":
        before, after = [word for word in words if word.endswith(".json")]
        attnscope("vit", "--budget", "0.02", "--save", before)
        shutil.copy(before, after)
    if "--against" in words:
        words[1] = str(committed(tmp_path) / words[1])
    if words[0] == "compare" and "--input" in words:
        shape = words[words.index("--input") + 1]
        words = [module_in(tmp_path, word, shape) if ".py:" in word else word for word in words]
    if words[0] == "explore":  # tests/test_explorer.py runs it in a terminal
        words.append("--help")
    takes_budget = "--help" not in words and words[0] not in ("diff", "peaks", "presets", "shard", "windows", "explore")
    timed = "--time" in words or (takes_budget and "--no-time" not in words and "compare" not in words)
    # a short run on a busy machine decides nothing about times
    undecided = ["--cannot-tell", "pass"] if "--fail-above" in words else []
    done = attnscope(*words, *(["--budget", "0.02"] if timed else []), *undecided)
    assert done.returncode == 0, done.stderr


def test_the_picture_is_what_its_command_draws(tmp_path):
    """After a change of the output: `python -m tests.golden`."""
    assert f"](docs/{Path(PICTURE[-1]).name})" in README
    (tmp_path / "docs").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "attnscope", *PICTURE],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0
    drawn = (tmp_path / PICTURE[-1]).read_text(encoding="utf-8")
    assert drawn == (ROOT / PICTURE[-1]).read_text(encoding="utf-8")


def test_the_setup_commands_are_at_the_top():
    first = "\n".join(README.splitlines()[:12])
    assert "python -m pip install -e . && attnscope vit --dim 768 --heads 12" in first
    assert 'python -m pip install -e ".[test]" && python -m pytest' in first


@pytest.mark.parametrize(
    "page",
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("benchmarks/*.md")],
    ids=lambda page: page.relative_to(ROOT).as_posix(),
)
def test_every_link_has_a_target(page):
    """Links to a section name a heading of the page."""
    for target, section in re.findall(r"\]\((?!http)([^)#]*)(?:#([^)]*))?\)", page.read_text(encoding="utf-8")):
        path = page.parent / target if target else page
        assert path.exists(), target
        if section:
            headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert section in anchors, f"{target}#{section}"


def test_the_site_has_each_page_once():
    """A new page needs an entry in `nav` of zensical.toml, and a link in docs/index.md."""
    site = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"]
    entries = [
        page
        for section in site
        for pages in section.values()
        for page in ([pages] if isinstance(pages, str) else pages)
    ]
    docs = ROOT / "docs"
    assert sorted(entries) == sorted(page.relative_to(docs).as_posix() for page in docs.rglob("*.md"))
    linked = re.findall(r"\]\(([\w/]+\.md)\)", (docs / "index.md").read_text(encoding="utf-8"))
    assert sorted({*linked, "index.md"}) == sorted(entries)


def test_no_address_of_a_registry_and_no_lock_file():
    for path in ROOT.glob("*"):
        assert not path.name.endswith((".lock", "-lock.json"))
