"""The explanation of each attention: what it looks at, costs and gives up, and its paper."""

import re

import pytest

import attnscope
from attnscope import attentions
from attnscope.render import render
from attnscope.render.screen import Screen
from tests.golden import attentions_page
from tests.test_readme import ROOT


@pytest.mark.parametrize("name", attentions.names())
def test_each_attention_says_what_it_looks_at_costs_and_gives_up_and_its_paper(name):
    spec = attentions.spec_class(name)()
    about = spec.about()
    assert list(about) == ["looks at", "costs", "gives up", "paper"]
    assert spec.complexity().own.formula in about["costs"]
    assert re.search(r"arXiv \d{4}\.\d{5}", about["paper"])


def test_the_page_of_the_attentions_is_up_to_date():
    page = (ROOT / "docs" / "attentions.md").read_text(encoding="utf-8")
    assert page == attentions_page(), "write it again: python -m tests.golden"


def test_the_explanation_begins_with_the_attention():
    report = attnscope.explore(attentions.spec_class("nat")(), time=False, focus=("explain",))
    shown = render(report, "table", Screen(width=80))
    assert shown.index(" looks at  The K×K tokens around it") < shown.index("\n Steps\n")
    assert report.to_dict()["about"] == report.about
