"""Exploration in a process of its own, which another process starts, watches and ends.

The request and the answers are pickles: a Request on stdin, then on stdout `("progress", what, share)` now and then, and
at last `("report", report)` or `("error", message)`.
"""

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attnscope.attentions.draft import Draft
from attnscope.core.errors import AttnscopeError
from attnscope.profiling.fresh_processes import PATH, reason

PROGRAM = f"{PATH}from attnscope.analyses.worker import answer; answer()"


@dataclass(frozen=True)
class Request:
    """An exploration to run: the values of a draft, and the options of the run.

    Args:
        attention: name of the attention.
        is_network: whether the draft is one of a network built from it.
        given: the values of the draft.
        folder: the folder of an attention outside this package; None for another one.
        options: arguments of `explore`.
    """

    attention: str
    is_network: bool
    given: Mapping[str, Any]
    folder: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, draft: Draft, **options: Any) -> "Request":
        """Return the request for a draft."""
        from attnscope.networks.composed import ComposedSpec

        kind = draft.kind
        folder = None if kind.is_built_in() else Path(sys.modules[kind.home()].__file__ or "").parent
        return cls(kind.name, issubclass(kind, ComposedSpec), dict(draft.given), folder, options)


class Run:
    """A run of `explore` in a process of its own."""

    def __init__(self, request: Request) -> None:
        path = [entry for entry in sys.path if isinstance(entry, str)]
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", PROGRAM, json.dumps(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONIOENCODING": "utf-8"},
            start_new_session=True,  # Ctrl-C in the terminal is for the interface
        )
        assert self._process.stdin
        pickle.dump(request, self._process.stdin)
        self._process.stdin.close()
        self._process.stdin = None

    def answers(self) -> Iterator[tuple[Any, ...]]:
        """Yield the answers as they come; the last one is a report or an error. Nothing follows after `cancel`."""
        assert self._process.stdout
        last = "progress"
        while last == "progress":
            try:
                answer = pickle.load(self._process.stdout)
            except (EOFError, pickle.UnpicklingError, OSError, ValueError):
                break
            last = answer[0]
            yield answer
        _, wrote = self._process.communicate()
        if last == "progress" and self._process.returncode >= 0:
            text = (wrote or b"").decode("utf-8", "replace")
            done = subprocess.CompletedProcess[str]([], self._process.returncode, "", text)
            yield "error", reason(done)

    def cancel(self) -> None:
        """End the process."""
        self._process.kill()


def answer() -> None:
    """Answer the request on stdin: explore, and write progress and the report to stdout."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not be between the answers
    request: Request = pickle.load(sys.stdin.buffer)

    def say(*words: Any) -> None:
        pickle.dump(words, out)
        out.flush()

    try:
        say("report", _explore(request, lambda what, share: say("progress", what, share)))
    except AttnscopeError as error:
        say("error", error.in_flags())


def _explore(request: Request, progress: Any) -> Any:
    from attnscope import attentions, networks
    from attnscope.profiling import process

    if request.folder is not None:
        attentions.load(request.folder)
    process.pin_allocator()
    process.import_torch()
    from attnscope.analyses.explore import explore

    kind = networks.spec_class if request.is_network else attentions.spec_class
    draft = Draft(kind(request.attention), request.given)
    return explore(draft.spec, progress=progress, **request.options)
