"""Ctrl-C and SIGTERM end a command with a line and an exit code; `python -m tests.fuzz.interrupts` tries more moments."""

import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from attnscope.cli.output import write_text
from tests.fuzz.interrupts import COMMANDS, NET, fault

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("words", "after_s"), [(COMMANDS[0], 0.3), (COMMANDS[1], 6.0), (COMMANDS[3], 2.5)])
def test_a_signal_ends_a_command_in_a_line(words, after_s, number, tmp_path):
    (tmp_path / "net.py").write_text(NET)
    assert fault(words, number, after_s, tmp_path) in ("", "faster")


def test_a_signal_that_the_caller_ignores_stays_ignored(tmp_path):
    """A shell ignores Ctrl-C in what runs in the background."""
    code = (
        "import signal, os\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "import sys; sys.argv = ['attnscope', '--version']\n"
        "from attnscope.cli.interruption import interruptible\n"
        "with interruptible():\n    os.kill(os.getpid(), signal.SIGINT)\nprint('done')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "done\n")


def test_the_callers_handlers_are_restored():
    code = (
        "import signal\nfrom attnscope.cli.interruption import interruptible\n"
        "before = signal.getsignal(signal.SIGTERM)\n"
        "with interruptible():\n    assert signal.getsignal(signal.SIGTERM) != before\n"
        "assert signal.getsignal(signal.SIGTERM) == before\nprint('same')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "same\n"


@pytest.mark.parametrize(("signals", "code"), [(1, 130), (2, -signal.SIGINT)])
def test_a_signal_waits_for_the_import_of_torch_and_a_second_one_does_not(signals, code):
    """An exception within torch's C++ ends the process with SIGABRT."""
    program = (
        "import os, signal, sys\nfrom attnscope.cli.interruption import interruptible\n"
        "from attnscope.profiling.process import import_torch\n"
        "class Importing:\n    def find_spec(self, name, *_):\n"
        "        if name == 'torch.distributed':\n"
        f"            for _ in range({signals}): os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Importing())\n"
        "with interruptible():\n    try: import_torch()\n"
        "    finally: print(hasattr(sys.modules['torch'], 'compile'), flush=True)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert done.stdout == ("True\n" if signals == 1 else "")


@pytest.mark.parametrize(("name", "after"), [("fdopen", False), ("chmod", True), ("replace", False), ("replace", True)])
def test_a_write_that_is_interrupted_leaves_the_old_or_the_new_file(name, after, tmp_path, monkeypatch):
    """The signal arrives just before or just after a call of the system."""
    file = tmp_path / "run.json"
    file.write_text("old")
    call = getattr(os, name)

    def interrupted(*arguments: Any) -> Any:
        if after:
            call(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, name, interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_text("new", file)
    assert file.read_text() == ("new" if name == "replace" and after else "old")
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
