"""The HTML document around the panels: its styles, its scripts, its policy, and the JSON of the run."""

import base64
import gzip
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnscope.core.errors import UsageError
from attnscope.core.packages import describe_missing
from attnscope.core.text import visible
from attnscope.core.version import __version__

if TYPE_CHECKING:
    from jinja2 import Environment

FOLDER = Path(__file__).parent / "templates"
STYLES = ("panels.css", "page.css")
SCRIPTS = ("state.js", "flow.js", "tables.js", "scaling.js", "neighbourhood.js")
"""The scripts in the order in which they run; each finds its panel, or does nothing."""
ESCAPES = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&"}
"""Characters that could end a script, in the notation of JSON."""


@dataclass(frozen=True)
class Panel:
    """One section of a page.

    Args:
        name: its anchor, in letters and dashes.
        title: its heading.
        lead: the sentence below the heading.
        template: the file in `templates/` without its extension.
        content: the values for the template.
        data: what its script reads, as plain data.
        brief: whether a notebook shows it too; it must not need a script.
    """

    name: str
    title: str
    lead: str
    template: str
    content: dict[str, Any] = field(default_factory=dict)
    data: Any = None
    brief: bool = False


@dataclass(frozen=True)
class Page:
    """A page.

    Args:
        title: the title of the result.
        kind: the kind of the result, in a word or two.
        panels: the sections.
        result: the JSON of the run.
        command: the command line; None if the result was made in Python.
        missing: sentences on what this run does not have, and how to get it.
        steps: the names of the steps, as links have them.
    """

    title: str
    kind: str
    panels: Sequence[Panel]
    result: str
    command: str | None = None
    missing: Sequence[str] = ()
    steps: Sequence[str] = ()

    @property
    def headline(self) -> str:
        """Return the title up to its first dot: `Swin attention`."""
        return self.title.partition(" · ")[0]

    @property
    def details(self) -> str:
        """Return the rest of the title: `56×56 tokens · dim 96`."""
        return self.title.partition(" · ")[2]

    @property
    def file_name(self) -> str:
        """Return the name of the file in which a browser saves the JSON."""
        return f"attnscope-{self.kind.replace(' ', '-')}.json"


def draw(page: Page) -> str:
    """Return a page as HTML. Its policy allows its own script and style, and no request.

    Raises:
        UsageError: if Jinja2 is not installed.
    """
    style, script = ("".join(map(_text, names)) for names in (STYLES, SCRIPTS))
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    panels = [panel for panel in page.panels if panel.data is not None]
    names = list(dict.fromkeys(page.steps))
    return (
        environment()
        .get_template("page.html")
        .render(
            page=page,
            has_script=True,
            policy=policy,
            style=style,
            script=script,
            version=__version__,
            data=escaped_json({"steps": names, "panels": {panel.name: panel.data for panel in panels}}),
            numbers={name: number for number, name in enumerate(names)},
            result=packed(page.result),
        )
    )


def draw_fragment(page: Page) -> str:
    """Return the brief panels of a page for a notebook, with styles that apply to them alone.

    Raises:
        UsageError: if Jinja2 is not installed.
    """
    panels = [panel for panel in page.panels if panel.brief]
    return (
        environment()
        .get_template("fragment.html")
        .render(page=page, panels=panels, style=_text("panels.css"), has_script=False)
    )


def escaped_json(value: Any) -> str:
    """Return JSON that is safe in a script element: no character of it can end the element."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).translate(ESCAPES)


def packed(text: str) -> str:
    """Return a text compressed by gzip, in base64: the JSON of a network is ten times as long as this."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


@cache
def environment() -> "Environment":
    """Return the templates, which escape all values and show hidden characters.

    Raises:
        UsageError: if Jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ModuleNotFoundError:
        raise UsageError(describe_missing("jinja2")) from None
    return Environment(
        autoescape=True,
        finalize=lambda value: visible(value) if type(value) is str else value,
        loader=FileSystemLoader(FOLDER),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _text(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Return the hash by which a policy allows one inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
