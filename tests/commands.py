"""Run commands in forks of a process that has imported torch: in a new process the imports take longer than most commands.

    with warm() as run:
        done = run("vit", "--no-time")

A fork has its own streams, environment and folder, parses its arguments and ends as a new process does. What differs is
that torch is imported already, so tests of the start take a new process.
"""

import atexit
import gc
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

STREAMS = ("stdin", "stdout", "stderr")
LIMIT_S = 300

Done = subprocess.CompletedProcess[str]


def cold(words: Sequence[str], stdin: str | None, env: Mapping[str, str]) -> Done:
    """Run a command in a new process."""
    return subprocess.run(
        [sys.executable, "-m", "attnscope", *words],
        capture_output=True,
        text=True,
        encoding="utf-8",
        input=stdin,
        env=dict(env),
        timeout=LIMIT_S,
    )


@contextmanager
def warm() -> Iterator[Callable[[Sequence[str], str | None, Mapping[str, str]], Done]]:
    """Start the process whose forks run commands, and return a function that runs one; it ends with the `with` block."""
    if sys.platform != "linux":  # elsewhere a fork after such imports may fail
        yield cold
        return
    own = _of_python(os.environ)
    with subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        lock = threading.Lock()

        def run(words: Sequence[str], stdin: str | None, env: Mapping[str, str]) -> Done:
            if _of_python(env) != own:
                return cold(words, stdin, env)
            with tempfile.TemporaryDirectory() as folder, lock:
                files = {name: Path(folder) / name for name in STREAMS}
                files["stdin"].write_text(stdin or "", encoding="utf-8")
                request = {"words": words, "env": dict(env), "at": os.getcwd(), "files": {**files}}
                server.stdin.write(json.dumps(request, default=str).encode() + b"\n")
                server.stdin.flush()
                code = int(server.stdout.readline())
                output, errors = (files[name].read_bytes().decode() for name in STREAMS[1:])
            return Done(["attnscope", *words], code, _with_newlines(output), _with_newlines(errors))

        yield run
        server.stdin.close()


def _of_python(env: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that Python reads when it starts; a fork cannot have others."""
    return {name: value for name, value in env.items() if name.startswith("PYTHON") and name != "PYTHONIOENCODING"}


def _with_newlines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")  # as text streams of subprocess do


def serve() -> None:
    """Fork for each request on stdin, and answer with the exit code; return in the fork."""
    import torch._dynamo  # noqa: F401

    import attnscope.cli.program  # noqa: F401

    gc.freeze()  # a collection in a fork would copy all of it
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    for line in requests:
        child = os.fork()
        if child == 0:
            requests.close()
            answers.close()
            become(**json.loads(line))
            return
        answers.write(b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        answers.flush()
    os._exit(0)


def become(words: Sequence[str], env: Mapping[str, str], at: str, files: Mapping[str, str]) -> None:
    """Give this process the arguments, environment, folder and streams of a new one."""
    os.environ.clear()
    os.environ.update(env)
    os.chdir(at)
    sys.path[0] = at
    sys.argv = ["attnscope", *words]
    encoding, _, errors = env.get("PYTHONIOENCODING", "utf-8").partition(":")
    for number, name in enumerate(STREAMS):
        opened = os.open(files[name], os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT)
        os.dup2(opened, number)
        os.close(opened)
        buffer = os.fdopen(number, "rb" if number == 0 else "wb", closefd=False)
        handled = "backslashreplace" if name == "stderr" else errors or "strict"
        stream = io.TextIOWrapper(buffer, encoding, handled, line_buffering=name == "stderr")
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def run_command() -> int:
    """Run the command, and return its exit code."""
    from attnscope.cli import main

    try:
        main()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 0
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def end(code: int) -> None:
    """End this process as Python does, but without taking apart all imported modules, which takes seconds."""
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


if __name__ == "__main__":
    sys.path[0] = os.getcwd()
    serve()
    end(run_command())
