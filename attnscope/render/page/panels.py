"""Panels that pages of all results have: the conclusion, and the command with its environment."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from attnscope.render import words
from attnscope.render.page.document import Panel

SAME_COUNTS = "The same command on the same machine gives the same counts."


@dataclass(frozen=True)
class Figure:
    """A key figure: its name, its value in words, its exact value, and a remark."""

    name: str
    value: str
    exact: str = ""
    remark: str = ""


def conclusion_panel(text: str, lines: Sequence[tuple[str, str]], figures: Sequence[Figure] = ()) -> Panel:
    """Return the first panel of a page.

    Args:
        text: the conclusion.
        lines: the evidence: a label and a text each; a label that repeats is shown once.
        figures: the key figures.
    """
    shown = [("" if label == before else label, line) for (before, _), (label, line) in pairwise([("", ""), *lines])]
    content = {"conclusion": _sentence(text), "figures": figures, "lines": shown}
    return Panel("conclusion", "Conclusion", "", "conclusion", content, brief=True)


def evidence_panel(
    command: str | None, groups: Mapping[str, Mapping[str, Any]], lines: Sequence[str] = (), lead: str = SAME_COUNTS
) -> Panel:
    """Return the command and groups of names and values.

    Args:
        command: the command line, if there was one.
        groups: names and values, by the title of the group.
        lines: sentences above them.
        lead: what the command gives again.
    """
    shown = {
        title: [(name.replace("_", " "), _value(value)) for name, value in of.items()]
        for title, of in groups.items()
        if of
    }
    content = {"command": command, "groups": shown, "lines": lines}
    return Panel("environment", "Environment and command", lead, "environment", content)


def _sentence(text: str) -> str:
    """Return a text with a capital letter and a full stop."""
    return f"{text[:1].upper()}{text[1:].removesuffix('.')}."


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return words.NONE if value is None else str(value)
