"""`attnscope trace FILE.py:NAME --against REV`: checkouts of revisions, and the comparison of two of them."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from attnscope.analyses.revision import Checkout, checked_out
from attnscope.core.errors import AttnscopeError, UsageError

ROOT = Path(__file__).parents[1]
NET = """
from torch import nn

from helper import WIDTH


class {name}(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(8, WIDTH)

    def forward(self, x):
        return self.inner(x).relu()
"""


def git(folder, *words):
    done = subprocess.run(
        ["git", "--no-optional-locks", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b.c", *words],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@dataclass
class Repository:
    folder: Path
    net: Path

    def state(self):
        """Return what must not change: files, index, branches, worktrees, stashes and files of Git."""
        printed = [
            git(self.folder, *words)
            for words in (["status", "--porcelain", "--ignored"], ["branch", "-a"], ["worktree", "list"],
                          ["stash", "list"], ["reflog"], ["rev-parse", "HEAD"])
        ]  # fmt: skip
        own = self.folder / ".git"
        files = {str(path): path.read_bytes() for path in own.rglob("*") if path.is_file() and path.name != "index"}
        return printed, files, (own / "index").stat().st_mtime_ns, (own / "worktrees").exists()


@pytest.fixture
def repository(tmp_path):
    """Return a repository whose tag `old` has a helper and a class that the working tree changes."""
    folder = tmp_path / "user's repo"
    source = folder / "src"
    source.mkdir(parents=True)
    (source / "net.py").write_text(NET.format(name="Net"))
    (source / "helper.py").write_text("WIDTH = 4\n")
    git(tmp_path, "init", "-q", "-b", "main", str(folder))
    git(folder, "add", "src")
    git(folder, "commit", "-qm", "first")
    git(folder, "tag", "old")
    (source / "helper.py").write_text("WIDTH = 5\n")
    (source / "net.py").write_text(NET.format(name="Net") + NET.format(name="New").replace("8", "9"))
    (source / "late.py").write_text(NET.format(name="Net"))
    git(folder, "add", "src")
    git(folder, "commit", "-qm", "second")
    hook = folder / ".git" / "hooks" / "post-checkout"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch '{tmp_path}/hooked'\n")
    hook.chmod(0o755)
    return Repository(folder, source / "net.py")


def trace(folder, *words, **env):
    return subprocess.run(
        [sys.executable, "-m", "attnscope", "trace", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONIOENCODING": "utf-8", "PYTHONPATH": str(ROOT), **env},
        timeout=600,
    )


def test_a_checkout_has_the_files_of_the_revision_and_is_removed(repository, tmp_path):
    before = repository.state()
    with checked_out(repository.net, "old") as checkout:
        assert checkout.path_of(repository.net).read_text() == NET.format(name="Net")
        assert "WIDTH = 4" in (checkout.path_of(repository.net).parent / "helper.py").read_text()
        assert checkout.path_of(tmp_path) == tmp_path
        assert (checkout.changed, checkout.commit) == (0, git(repository.folder, "rev-parse", "old")[:7])
        folder = checkout.folder
    assert not folder.parent.exists()
    assert repository.state() == before
    assert not (tmp_path / "hooked").exists()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_checkout_is_removed_after_an_error(repository, error):
    before = repository.state()
    with pytest.raises(error), checked_out(repository.net, "old") as checkout:
        raise error
    assert not checkout.folder.exists()
    assert repository.state() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_checkout_is_removed_after_a_signal(repository, number):
    before = repository.state()
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom attnscope.analyses.revision import checked_out\n"
        "with checked_out(Path(sys.argv[1]), 'old') as found:\n    print(found.folder, flush=True)\n    time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(repository.net)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    folder = Path(process.stdout.readline().strip())
    assert folder.is_dir()
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert not folder.exists()
    assert repository.state() == before


def test_a_checkout_ignores_the_repository_of_a_hook(repository, monkeypatch, tmp_path):
    """Git sets GIT_DIR and GIT_INDEX_FILE for a hook, such as pre-push."""
    before = repository.state()
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
    with checked_out(repository.net, "old") as checkout:
        assert checkout.path_of(repository.net).is_file()
    monkeypatch.undo()
    assert repository.state() == before
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize(
    ("revision", "message"),
    [("nope", "must be a branch, a tag or a commit (got nope)"), ("", "(got '')"), ("--all", "(got --all)"),
     ("old:src", "must be a branch, a tag or a commit")],
)  # fmt: skip
def test_an_unknown_revision_is_one_line(repository, revision, message):
    with pytest.raises(UsageError) as error, checked_out(repository.net, revision):
        pass
    assert message in str(error.value)
    assert "git branch -a" in str(error.value)


def test_a_file_that_a_revision_cannot_have_is_one_line(repository, tmp_path):
    outside = tmp_path / "outside.py"
    outside.write_text("")
    for file, message in (
        (repository.net.parent / "late.py", "old has no file src/late.py; git log -- src/late.py"),
        (repository.net.parent / "none.py", "does not exist"),
        (outside, "requires a file in a Git repository"),
    ):
        with pytest.raises(UsageError) as error, checked_out(file, "old"):
            pass
        assert message in str(error.value)


def test_git_is_required(repository, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with (
        pytest.raises(AttnscopeError, match="requires Git, which was not found; install it"),
        checked_out(repository.net, "old"),
    ):
        pass


def test_the_search_path_has_the_folders_of_the_revision(repository, monkeypatch):
    source = str(repository.net.parent)
    monkeypatch.setattr(sys, "path", ["", source, str(repository.folder / ".venv"), str(ROOT), "/usr/lib"])
    with checked_out(repository.net, "old") as checkout:
        there = str(checkout.folder / "src")
        assert checkout.search_path() == ["", there, str(repository.folder / ".venv"), str(ROOT), "/usr/lib"]
        monkeypatch.chdir(source)
        assert str(checkout.working_folder()) == there
        files = [f"{there}/net.py", f"{source}/helper.py", "/elsewhere/net.py"]
        assert checkout.foreign(files) == [f"{source}/helper.py"]
        assert checkout.spelled(f"{there}/net.py:7: wrong") == "old:src/net.py:7: wrong"


def test_attnscope_itself_is_the_same_in_both_revisions(monkeypatch, tmp_path):
    (tmp_path / "revision").mkdir()
    monkeypatch.setattr(sys, "path", [str(ROOT)])
    assert Checkout(ROOT, tmp_path / "revision", "old", "1234567", 0).search_path() == [str(ROOT)]


def test_counts_of_two_revisions_are_compared_exactly(repository):
    """The class is the same; the revision imports its own helper."""
    before = repository.state()
    words = ("src/net.py:Net", "--input", "2,8", "--against", "old", "--no-time")
    done = trace(repository.folder, *words, "--fail-above", "macs=1", "--json")
    assert (done.returncode, done.stderr) == (1, "FAIL: macs 64 → 80 (1.25×, above 1×)\n")
    found = json.loads(done.stdout)
    assert (found["spec"], found["differing"], found["doubts"]) == ([], [], [])
    assert {"name": "params", "before": 36, "after": 45} in found["costs"]
    assert repository.state() == before
    passed = trace(repository.net.parent, "./net.py:Net", *words[1:], "--fail-above", "macs=1.25")
    assert passed.returncode == 0
    assert passed.stdout.splitlines()[-1] == "PASS: macs 64 → 80, at most 1.25×"
    assert passed.stdout.startswith(f" old ({git(repository.folder, 'rev-parse', 'old')[:7]}) → working tree\n")
    assert repository.state() == before


def test_uncommitted_changes_are_reported_and_compared(repository):
    (repository.net.parent / "helper.py").write_text("WIDTH = 8\n")
    done = trace(repository.folder, "src/net.py:Net", "--input", "2,8", "--against", "HEAD", "--no-time")
    assert done.returncode == 0
    shown = " ".join(done.stdout.split())
    assert "uncommitted changes in 1 file, which the second run includes; commit them" in shown
    assert git(repository.folder, "status", "--porcelain") == " M src/helper.py\n"


def test_what_a_revision_does_not_have_is_one_line(repository):
    missing = trace(repository.folder, "src/net.py:New", "--input", "2,9", "--against", "old", "--no-time")
    assert (missing.returncode, missing.stdout) == (2, "")
    assert missing.stderr == "attnscope: old:src/net.py:New: New does not exist; did you mean Net?\n"
    helper = repository.net.parent / "helper.py"
    (repository.net.parent / "net.py").write_text(
        f"import sys\nsys.path.insert(0, {str(helper.parent)!r})\nimport helper\n" + NET.format(name="Net")
    )
    git(repository.folder, "commit", "-qam", "imports the working tree")
    foreign = trace(repository.folder, "src/net.py:Net", "--input", "2,8", "--against", "HEAD", "--no-time")
    assert (foreign.returncode, foreign.stdout) == (2, "")
    assert f"src/net.py:Net in HEAD imports {helper} from the working tree; add" in foreign.stderr
    assert git(repository.folder, "worktree", "list").count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [(["timm:vit_tiny_patch16_224"], "--against requires a module of your repository, FILE.py:NAME"),
     (["src/net.py:Net", "--no-time", "--fail-above", "1.1"], "--fail-above time requires times; remove --no-time"),
     (["src/net.py:Net", "--processes", "4"], "--processes must be from 5 to 100 (got 4)"),
     (["src/net.py:Net", "--fail-above", "time"], "--fail-above must be QUANTITY=LIMIT (got time)"),
     (["src/net.py:Net", "--format", "svg"], "--format svg is not available")],
)  # fmt: skip
def test_mistakes_are_found_before_anything_runs(repository, words, message):
    done = trace(repository.folder, *words, "--against", "old")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert message in done.stderr


@pytest.mark.slow
def test_times_of_two_revisions_are_measured_in_turn(repository):
    before = repository.state()
    words = ("src/net.py:Net", "--input", "2,8", "--against", "old", "--budget", "0.02", "--processes", "5")
    done = trace(repository.folder, *words, "--fail-above", "time=100", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    whole = found["whole"]
    assert (found["processes"], len(whole["ratios"])) == (5, 5)
    assert whole["ratio_low"] == min(*whole["ratios"], whole["after_s"] / whole["before_s"])
    assert done.stderr.startswith("PASS: forward takes ")
    assert "5 processes of each, in turn" in done.stderr
    assert repository.state() == before
