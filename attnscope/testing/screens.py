"""Checks of the output: the report of an attention as JSON, and as a table at several widths."""

import json

from attnscope.analyses.explore import explore
from attnscope.attentions.spec import Spec
from attnscope.render import render
from attnscope.render.screen import Screen
from attnscope.testing.comparison import fail

WIDTHS = (60, 80, 120)


def hold_json(spec: Spec) -> None:
    """Check that the report of `explore` is valid JSON without NaN, and that its verification agrees.

    Raises:
        AssertionError: if a value is not valid JSON, or if the counts disagree.
    """
    report = explore(spec, time=False, backward=True)
    data = json.loads(
        report.to_json(), parse_constant=lambda name: fail(spec, "JSON", "the report", "a number", name, "")
    )
    for key, expected in spec.as_dict().items():
        shown = json.loads(json.dumps(expected))
        if data["spec"][key] != shown:
            fail(spec, "field in JSON", key, shown, data["spec"][key], "fields must be numbers, text or pairs")
    if not data["audit"]["agree"]:
        fail(spec, "verification", "the report", "agreement", data["audit"]["notes"], "closed_form() of the Spec")


def hold_screens(spec: Spec) -> None:
    """Check that the table fits 60, 80 and 120 columns, and that all formats show each step's name and meaning.

    Raises:
        AssertionError: if a line is wider than the screen, or if a step has no name or no meaning.
    """
    report = explore(spec, time=False, backward=True)
    for number, row in enumerate(report.steps, 1):
        if not row.name:
            fail(spec, "name", f"step {number}", "a name", None, "name_steps(globals()) below the steps")
        if not row.doc or "\n" in row.doc:
            fail(spec, "meaning", row.name, "one line", row.doc or None, "doc= of the Step")
    for width in WIDTHS:
        for line in render(report, "table", Screen(width=width)).splitlines():
            if len(line) > width:
                fail(spec, "width", repr(line), width, len(line), "shorten headline(), cautions() or a formula")
    for form in ("table", "md", "csv"):
        shown = render(report, form, Screen())
        for row in report.steps:
            if row.name not in shown or row.doc not in shown:
                fail(spec, form, row.name, "its name and its meaning", None, "doc= of the Step must be plain text")
