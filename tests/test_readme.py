"""What the README shows is what happens."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def sessions() -> list[tuple[str, str]]:
    """Each command of a console block with what is shown below it."""
    found = []
    for block in blocks("console"):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, shown = part.partition("\n")
            found.append((command, shown))
    return found


@pytest.mark.parametrize(("command", "shown"), sessions(), ids=lambda value: value.split("\n")[0][:40])
def test_a_session_shows_what_is_printed(attnscope, command, shown):
    words = shlex.split(command)
    env = dict(word.split("=", 1) for word in words[: words.index("attnscope")])
    done = attnscope(*words[words.index("attnscope") + 1 :], **env)
    assert done.stdout == shown


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.splitlines()[-1][:40])
def test_a_python_block_runs(block, capsys):
    exec(compile(block, "README.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    for said in re.findall(r"print\(.*\)  # (\d+)$", block, re.MULTILINE):
        assert said in printed


def commands() -> list[str]:
    return re.findall(r"^    (attnscope .*?)(?:  +#.*)?$", README, re.MULTILINE)


@pytest.mark.parametrize("command", commands())
def test_a_command_works(attnscope, command, tmp_path):
    words = [str(tmp_path / word) if word.endswith(".json") else word for word in shlex.split(command)[1:]]
    if words[0] == "diff":
        attnscope("vit", "--budget", "0.02", "--save", words[1])
        shutil.copy(words[1], words[2])
    timed = "--time" in words or (words[0] in ("vit", "swin") and "--no-time" not in words)
    done = attnscope(*words, *(["--budget", "0.02"] if timed else []))
    assert done.returncode == 0, done.stderr


def test_the_first_screen():
    lines = README.splitlines()
    assert len(lines) < 150
    first = "\n".join(lines[:12])
    assert "python -m pip install -e . && attnscope vit --dim 768 --heads 12" in first
    assert 'python -m pip install -e ".[test]" && python -m pytest' in first


def test_what_it_links_to_is_there():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_no_address_of_a_registry_and_no_lock_file():
    for path in ROOT.glob("*"):
        assert not path.name.endswith((".lock", "-lock.json"))
