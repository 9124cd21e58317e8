"""The reference pages: they are up to date, and complete."""

import re

import pytest

import attnscope
from attnscope import attentions
from attnscope.cli.extension import OTHERS
from tests import reference


@pytest.mark.parametrize("name", reference.PAGES)
def test_a_page_is_what_the_code_gives(name: str):
    """After a change of a flag or a docstring: `python -m tests.golden`."""
    assert (reference.FOLDER / name).read_text(encoding="utf-8") == reference.PAGES[name]()


def test_every_command_and_every_public_name_has_a_section():
    commands, python = (page() for page in reference.PAGES.values())
    assert set(re.findall(r"^## (\w+)$", commands, re.MULTILINE)) == {*attentions.names(), *OTHERS}
    named = re.findall(r"^### (\w+)$", python, re.MULTILINE)
    assert sorted([*named, "attentions", "__version__"]) == sorted(attnscope.__all__)


def test_every_flag_has_a_help():
    page = reference.commands_page()
    rows = re.findall(r"^\| `(.*)` \| (.*) \|$", page, re.MULTILINE)
    assert len(rows) > 150
    assert [name for name, text in rows if not text.strip()] == []
