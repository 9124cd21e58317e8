"""The graph of a traced module: its edges follow the tensors, and Mermaid and DOT are valid with any name."""

import re

import pytest
import torch
from torch import nn

import attnscope
from attnscope.render import render
from attnscope.render.screen import Screen
from attnscope.reports.report import Edge

X = torch.zeros(2, 4)
NODE = r'\w+\["[^"#&<>\\`]*(?:(?:#\d+;|<br/>)[^"#&<>\\`]*)*"\]'
MERMAID = re.compile(rf" *(?:{NODE}|subgraph {NODE}|end|\w+ --> \w+)")


class Residual(nn.Module):
    """A branch of two layers, added to its reshaped input."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 4)
        self.drop = nn.Dropout()

    def forward(self, x):
        x = x.view(4, 2).view(2, 4)
        return self.drop(x + self.second(self.first(x)))


def test_edges_follow_the_tensors():
    report = attnscope.trace(Residual(), X)
    assert [row.name for row in report.steps] == ["view", "view", "linear", "linear", "add", "dropout"]
    edges = {(edge.source, edge.target) for edge in report.edges}
    assert edges == {(None, 0), (0, 1), (1, 2), (2, 3), (1, 4), (3, 4)}


def test_repeated_blocks_have_an_edge_back_to_the_first_row():
    report = attnscope.trace(nn.Sequential(*[Residual() for _ in range(3)]), X)
    edges = {(edge.source, edge.target) for edge in report.edges}
    assert {row.times for row in report.steps} == {3}
    assert edges == {(None, 0), (0, 1), (1, 2), (2, 3), (1, 4), (3, 4), (4, 0)}


@pytest.mark.parametrize("settings", [{}, {"depth": 1}, {"group": "op"}, {"group": "line"}, {"top": 2}, {"all": True}])
def test_edges_are_between_rows_of_any_table(settings):
    report = attnscope.trace(nn.Sequential(Residual(), Residual(), nn.Linear(4, 3)), X, **settings)
    positions = range(len(report.steps))
    assert all(edge.target in positions and (edge.source is None or edge.source in positions) for edge in report.edges)
    assert any(edge.source is None for edge in report.edges)
    assert len(set(report.edges)) == len(report.edges)
    assert Edge(0, 0) not in report.edges


@pytest.mark.parametrize("name", ["plain", 'a"b', "end", "#", "<b>", "a;b", "`x`", "back\\slash", "日本"])
def test_mermaid_is_valid_with_any_name(name):
    module = nn.Sequential()
    module.add_module(name, nn.Sequential(nn.Linear(4, 4), nn.ReLU()))
    module.add_module("after", nn.Linear(4, 4))
    first, *lines = render(attnscope.trace(module, X), "mermaid", Screen()).splitlines()
    assert first == "flowchart TD"
    for line in lines:
        assert MERMAID.fullmatch(line), line
    assert (
        sum(line.strip().startswith("subgraph") for line in lines) == sum(line.strip() == "end" for line in lines) == 1
    )


def test_a_graph_has_classes_shapes_macs_and_parameters():
    text = render(attnscope.trace(nn.Sequential(Residual(), nn.ReLU()), X), "mermaid", Screen())
    assert 'subgraph module0["0 Residual<br/>128 MACs, 76 params"]' in text
    assert 'row2["first linear<br/>2×4 → 2×8<br/>64 MACs, 40 params"]' in text
    assert "dropout" not in text
    assert "input --> row0" in text


def test_dot_escapes_quotes_and_closes_each_box():
    module = nn.Sequential()
    module.add_module('a"b\\', Residual())
    text = render(attnscope.trace(nn.Sequential(module, nn.ReLU()), X), "dot", Screen())
    assert 'label="0.a\\"b\\\\ Residual\\n128 MACs, 76 params"' in text
    outside = re.sub(r'"(?:[^"\\]|\\.)*"', "", text)
    assert '"' not in outside
    assert outside.count("{") == outside.count("}") == 2


@pytest.mark.parametrize(("file", "first"), [("g.mmd", "flowchart TD\n"), ("g.dot", "digraph {\n")])
def test_the_extension_of_a_file_selects_the_graph(attnscope, tmp_path, file, first):
    own = ["trace", "torch.nn:Linear", "--arg", "in_features=8", "--arg", "out_features=8", "--input", "1,8"]
    assert attnscope(*own, "-o", str(tmp_path / file)).returncode == 0
    assert (tmp_path / file).read_text(encoding="utf-8").startswith(first)
    other = attnscope("vit", "--no-time", "-o", str(tmp_path / file))
    assert other.returncode == 2
    assert "must have the extension" in other.stderr
    assert "not available for this command" in attnscope("vit", "--format", "mermaid").stderr
