"""Text from elsewhere: names of modules, files and saved runs that a terminal, a spreadsheet or a page would obey."""

import csv
import io
import json
import re
import xml.etree.ElementTree as ElementTree

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from attnscope import trace
from attnscope.core.text import FORMULA, HIDDEN, in_csv, in_json, in_markdown, visible
from attnscope.render import render
from attnscope.render.screen import Screen
from tests.markup import Balance

TITLE, TURN, CLEAR = "\x1b]0;owned\x07", "\u202e", "\x9b2J"
MARKUP = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
LINK = "[x](javascript:alert(1)) ![x](http://example.org/x.png) `code` |"
NAMES = (f"{TITLE}{TURN}{CLEAR}", MARKUP, LINK, "=1+1", "@SUM(A1)", "[bold]rich[/bold]", "two\nlines", "\ufeff\u200bx")


class Hostile(nn.Module):
    """Linear layers, each below a module whose class and attribute have one of NAMES."""

    def __init__(self) -> None:
        super().__init__()
        for name in NAMES:
            block = type(name, (nn.Sequential,), {})
            self.add_module(name.replace(".", ""), block(nn.Linear(8, 8)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.children():
            x = block(x)
        return x


@pytest.fixture(scope="module")
def report():
    return trace(Hostile(), torch.zeros(2, 8), all=True)


@pytest.mark.parametrize("form", ["table", "csv", "md", "svg", "html", "json", "mermaid", "dot"])
def test_no_format_has_a_hidden_character_of_a_name(report, form):
    shown = render(report, form, Screen(width=None))
    assert HIDDEN.sub("", shown.replace("\n", "")) == shown.replace("\n", "")
    assert "owned" in shown


def test_colors_are_the_only_escape_sequences_of_a_terminal(report):
    shown = render(report, "table", Screen(width=None, color=True))
    assert HIDDEN.search(re.sub(r"\x1b\[[\d;]*m", "", shown).replace("\n", "")) is None


def test_json_has_the_exact_names(report):
    rows = json.loads(render(report, "json", Screen()))["steps"]
    assert TITLE in "".join(row["path"] for row in rows)


def test_a_spreadsheet_computes_no_cell(report):
    rows = list(csv.reader(io.StringIO(render(report, "csv", Screen()))))
    assert not [cell for row in rows for cell in row if FORMULA.match(cell) and not _is_number(cell)]
    assert any("'=1+1" in cell for row in rows for cell in row)


def test_markdown_has_no_tag_link_or_picture(report):
    shown = render(report, "md", Screen())
    assert "<" not in shown
    assert not re.search(r"(?<!\\)[\[`]", shown)


def test_an_svg_and_the_table_of_a_notebook_have_no_element_of_a_name(report):
    image = ElementTree.fromstring(render(report, "svg", Screen()))
    table = Balance()
    table.feed(report._repr_html_())
    assert table.open == []
    for tags in ({element.tag.rpartition("}")[2] for element in image.iter()}, {*table.seen}):
        assert tags
        assert tags.isdisjoint({"script", "img"})


def test_graphs_keep_a_name_within_its_quotes(report):
    for form in ("mermaid", "dot"):
        for line in render(report, form, Screen()).splitlines():
            assert line.replace('\\"', "").count('"') in (0, 2), line


def test_errors_and_notes_on_stderr_show_names_escaped(attnscope, tmp_path):
    name = f"{TITLE}{TURN}x.py"
    for words in (["trace", f"{name}:Net"], ["vit", "--preset", name], ["diff", name, name], [name]):
        done = attnscope(*words)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
        assert HIDDEN.search(done.stderr.rstrip("\n")) is None
    written = attnscope("vit", "--no-time", "-o", str(tmp_path / f"{name}.txt"))
    assert "\\x1b]0;owned" in written.stderr
    assert HIDDEN.search(written.stderr.rstrip("\n")) is None


def test_a_saved_run_with_hostile_names_is_compared_without_effect(report, attnscope, tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}{TITLE}.json").write_text(report.to_json(), encoding="utf-8")
    files = [str(tmp_path / f"{name}{TITLE}.json") for name in ("a", "b")]
    for form in ("table", "md", "csv"):
        shown = attnscope("diff", *files, "--format", form).stdout
        assert HIDDEN.search(shown.replace("\n", "")) is None


@given(st.text())
def test_visible_text_has_no_hidden_character_and_keeps_all_others(text):
    shown = visible(text)
    assert HIDDEN.search(shown) is None
    assert HIDDEN.search(text) is not None or shown == text


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_json_keeps_every_value_exactly(value):
    shown = in_json(value)
    assert json.loads(shown) == json.loads(json.dumps(value))
    assert HIDDEN.search(shown.replace("\n", "")) is None


@pytest.mark.parametrize("sign", "=+-@\uff1d\uff0b\uff0d\uff20")
def test_a_sign_that_begins_a_formula_is_quoted_also_in_full_width(sign):
    assert in_csv(f"{sign}1+1") == f"'{sign}1+1"


@given(st.text())
def test_cells_of_csv_and_markdown_are_harmless(text):
    assert not FORMULA.match(in_csv(text))
    assert "<" not in in_markdown(text)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
