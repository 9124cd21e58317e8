"""The HTML document around the panels: its styles, its scripts, its policy, and the JSON of the run."""

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnscope.core.errors import UsageError
from attnscope.core.packages import describe_missing
from attnscope.core.text import visible
from attnscope.core.version import __version__
from attnscope.render.page.charts import hits_data

if TYPE_CHECKING:
    from jinja2 import Environment

FOLDER = Path(__file__).parent / "templates"
STYLES = ("panels.css", "page.css")
SCRIPTS = ("inflate.js", "state.js", "flow.js", "tables.js", "scaling.js", "neighbourhood.js")
"""The scripts in the order in which they run; each finds its panel, or does nothing."""
KEY = re.compile(r' *(?:"(?:[^"\\]|\\.)*": )?')
"""The beginning of a line of JSON: its indentation and its key, if it has one."""


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
    style = "".join([*map(_text, STYLES), column_rules(page.panels)])
    script = "".join(map(_text, SCRIPTS))
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    numbers = {name: number for number, name in enumerate(dict.fromkeys(page.steps))}
    hits = {
        panel.name: [hits_data(chart, numbers) for chart in panel.content.get("charts", ()) if chart.hits]
        for panel in page.panels
    }
    data = {
        "steps": front_coded(list(numbers)),
        "panels": {panel.name: panel.data for panel in page.panels if panel.data is not None},
        "hits": {name: of for name, of in hits.items() if of},
    }
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
            data=packed(in_json(data)),
            numbers=numbers,
            result=packed(in_columns(page.result)),
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
        .render(page=page, panels=panels, style=_text("panels.css") + column_rules(panels), has_script=False)
    )


def column_rules(panels: Sequence[Panel]) -> str:
    """Return the styles of left-aligned and hidden columns, by the classes of a table.

    A class of the table is shorter than one of each of its cells.
    """
    tables = [panel.content["table"] for panel in panels if "table" in panel.content]
    columns = range(1, 1 + max((len(table.heads) for table in tables), default=0))
    left, hidden = (
        ",".join(f".attnscope .{word}-{column} {cell}:nth-child({column})" for column in columns)
        for word, cell in (("left", "td"), ("off", "tr>"))
    )
    return f"{left}{{text-align:left;white-space:normal;min-width:8rem}}{hidden}{{display:none}}" if columns else ""


def in_json(value: Any) -> str:
    """Return JSON without spaces."""
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def front_coded(names: Sequence[str]) -> list[str]:
    """Return each name as the number of its first characters that the name before has, a space, and the rest.

    Steps of a network share long paths with their neighbours: `stages.0.blocks.0.conv.expand`, `23 project`.
    """
    found = []
    for last, name in pairwise(["", *names]):
        same = [a == b for a, b in zip(last, name, strict=False)]
        shared = (*same, False).index(False)
        units = len(name[:shared].encode("utf-16-le", "surrogatepass")) // 2  # the length in JavaScript
        found.append(f"{units} {name[shared:]}")
    return found


def first_number(keys: Sequence[str], numbers: Mapping[str, int]) -> int | None:
    """Return the number of the first step of a list; None if the numbers of its steps are not consecutive.

    The elements of a list of consecutive steps need no numbers.
    """
    found = [numbers.get(key, -1) for key in keys]
    return found[0] if found and found[0] >= 0 and found == [*range(found[0], found[0] + len(found))] else None


def in_columns(text: str) -> str:
    """Return JSON with the values of each key next to each other, which gzip halves: its window is 32 KiB.

    The first line has the number of the column of each line of the JSON. Each other line is a column: what its lines
    begin with, then the rest of each of them, separated by tabs. Within JSON, a tab is an escape sequence.
    """
    columns: dict[str, list[str]] = {}
    order = []
    for line in text.split("\n"):
        match = KEY.match(line)
        start = match[0] if match else ""
        columns.setdefault(start, [start]).append(line[len(start) :])
        order.append(start)
    numbers = {start: str(number) for number, start in enumerate(columns)}
    return "\n".join([" ".join(numbers[start] for start in order), *("\t".join(column) for column in columns.values())])


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
    made = Environment(
        autoescape=True,
        finalize=lambda value: visible(value) if type(value) is str else value,
        loader=FileSystemLoader(FOLDER),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["first_number"] = first_number
    return made


@cache
def _text(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Return the hash by which a policy allows one inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
