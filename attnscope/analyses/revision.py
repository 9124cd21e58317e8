"""A revision of the user's Git repository, checked out next to it for a while. Does not import torch.

The checkout is a worktree in a temporary folder. Files, branches, stashes and the index of the repository stay as they
are, and hooks do not run. The worktree is removed at the end, also after an error, Ctrl-C or a request to terminate.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from attnscope.core.errors import AttnscopeError, UsageError, literal, quoted
from attnscope.core.interruption import uninterrupted

OF_A_HOOK = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY")
"""Variables that Git sets for a hook. They would name that repository instead of the one of the file."""
OURS = Path(__file__).resolve().parents[2]
"""The folder of this package on the search path, which stays the same in both revisions."""


@dataclass(frozen=True)
class Checkout:
    """A revision in a folder of its own, beside the working tree that it belongs to.

    Args:
        root: the working tree of the user.
        folder: the folder with the files of the revision.
        revision: the revision, as the user typed it.
        commit: its abbreviated hash.
        changed: the number of files with changes that are not committed, in the working tree of the user.
    """

    root: Path
    folder: Path
    revision: str
    commit: str
    changed: int

    def path_of(self, path: Path) -> Path:
        """Return the place in this revision of a path in the working tree; any other path stays the same."""
        path = _resolved(path)
        return self.folder / path.relative_to(self.root) if path.is_relative_to(self.root) else path

    def working_folder(self) -> Path:
        """Return the place of the working folder in this revision; the root if this revision does not have it."""
        there = self.path_of(Path.cwd())
        return there if there.is_dir() else self.folder

    def search_path(self) -> list[str]:
        """Return `sys.path` with the folders of the working tree that this revision has in their places there.

        Installed packages stay, and so does attnscope itself.
        """
        return [self._entry(entry) for entry in sys.path if isinstance(entry, str)]

    def _entry(self, entry: str) -> str:
        there = self.path_of(Path(entry))
        return str(there) if entry and there.is_dir() and _resolved(Path(entry)) != OURS else entry

    def spelled(self, text: str) -> str:
        """Return a text with the paths of this revision in Git's spelling, `main:folder/file.py`."""
        return text.replace(f"{self.folder}{os.sep}", f"{self.revision}:")

    def foreign(self, files: list[str]) -> list[str]:
        """Return those of the files that belong to the working tree, although this revision was requested."""
        return [
            file
            for file in files
            if Path(file).is_relative_to(self.root) and not Path(file).is_relative_to(self.folder)
        ]


@contextmanager
def checked_out(file: Path, revision: str) -> Iterator[Checkout]:
    """Check out a revision of the repository of a file, for the time of a `with` block.

    Args:
        file: a file in a Git repository.
        revision: a branch, a tag or a commit.

    Raises:
        UsageError: the file does not exist, is not in a repository, or is not in this revision; or the revision does not
            exist.
        AttnscopeError: Git is not installed, or cannot check it out.
    """
    if not file.is_file():
        raise UsageError(f"file {literal(file)} does not exist; give the path of a file in a Git repository")
    root = _root_of(file)
    commit = _commit_of(root, revision)
    path = _resolved(file).relative_to(root).as_posix()
    if _git(root, "cat-file", "-e", f"{commit}:{path}").returncode:
        fix = f"git log -- {path} lists the revisions that have it"
        raise UsageError(f"{{against}} {literal(revision)} has no file {literal(path)}; {literal(fix)}")
    changed = _git(root, "status", "--porcelain", "--untracked-files=no").stdout.splitlines()
    with _terminable(), _temporary_folder() as parent:
        folder = parent / "revision"
        try:
            # hooks are the user's programs, and may change the repository
            added = _git(root, "-c", f"core.hooksPath={os.devnull}", "worktree", "add", "--detach", str(folder), commit)
            if added.returncode:
                raise AttnscopeError(f"{{against}} {literal(revision)} cannot be checked out: {_first_line(added)}")
            yield Checkout(root, folder, revision, commit[:7], len(changed))
        finally:
            with uninterrupted():
                _git(root, "worktree", "remove", "--force", "--force", str(folder))


def _root_of(file: Path) -> Path:
    """Return the root of the working tree of a file."""
    found = _git(_resolved(file).parent, "rev-parse", "--show-toplevel")
    if found.returncode or not found.stdout.strip():
        if "not a git repository" in found.stderr:
            fix = "run git init and commit the file, or compare saved runs with attnscope diff"
            raise UsageError(f"{{against}} requires a file in a Git repository (got {literal(file)}); {fix}")
        raise AttnscopeError(f"{{against}} cannot read the repository of {literal(file)}: {_first_line(found)}")
    return Path(found.stdout.rstrip("\n")).resolve()


def _commit_of(root: Path, revision: str) -> str:
    """Return the hash of the commit that a revision names."""
    found = None
    if revision and not revision.startswith("-"):
        found = _git(root, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    if found is None or found.returncode:
        is_shallow = _git(root, "rev-parse", "--is-shallow-repository").stdout.strip() == "true"
        fix = (
            "this clone is shallow: run git fetch --unshallow" if is_shallow else "git branch -a and git log list them"
        )
        raise UsageError(f"{{against}} must be a branch, a tag or a commit (got {quoted(revision)}); {fix}")
    return found.stdout.strip()


def _git(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run Git in a folder, in English. It does not refresh the index and cannot ask anything.

    Raises:
        AttnscopeError: Git is not installed.
    """
    inherited = {name: value for name, value in os.environ.items() if name not in OF_A_HOOK}
    settings = {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    try:
        return subprocess.run(
            ["git", "-C", str(folder), *words],
            env={**inherited, **settings},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
        )
    except FileNotFoundError:
        raise AttnscopeError("{against} requires Git, which was not found; install it, or add it to PATH") from None


def _first_line(done: "subprocess.CompletedProcess[str]") -> str:
    """Return the line of Git's output that has the reason of a failure."""
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    reasons = [line for line in lines if line.startswith(("fatal:", "error:"))]
    return literal((reasons or lines or [f"git ended with code {done.returncode}"])[0])


def _resolved(path: Path) -> Path:
    """Return an absolute path whose folder has no symbolic links; a link itself is a file of its repository."""
    path = path.absolute()
    return path.parent.resolve() / path.name


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="attnscope-")).resolve()
    try:
        yield folder
    finally:
        with uninterrupted():
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _terminable() -> Iterator[None]:
    """Turn a request to terminate into an exception within a `with` block, so that the block is left in order.

    A handler that is there stays: that of the command line raises too, and writes a line in the end.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
