"""Folding of repeated modules of a trace into one row, alone or as a repeated sequence."""

import pytest
import torch
from torch import nn

import attnscope

KINDS = (nn.ReLU, nn.GELU, nn.Tanh, nn.Sigmoid, nn.SiLU)


def block(kind, width=4):
    """Return a block of two calls, so that it is a separate row at depth 1."""
    return nn.Sequential(nn.Linear(width, width), kind())


def rows(*modules, **settings):
    """Return path, repeats and calls of each row."""
    report = attnscope.trace(nn.Sequential(*modules), torch.zeros(2, 4), **{"depth": 1, **settings})
    assert sum(row.times * row.calls for row in report.steps) == report.calls
    assert sum(row.times * row.macs for row in report.steps) == report.totals.macs
    return [(row.path, row.times, row.calls) for row in report.steps]


@pytest.mark.parametrize(
    ("period", "times", "path"),
    [
        (1, 2, "0–1"), (1, 3, "0–2"), (2, 2, "0,2"), (2, 3, "0,2…4"), (3, 2, "0,3"), (3, 3, "0,3…6"), (4, 2, "0,4"),
        (4, 3, "0,4…8"),
    ],
)  # fmt: skip
def test_a_repeated_sequence_of_up_to_four_blocks_is_folded(period, times, path):
    first, *others = rows(*[block(kind) for _ in range(times) for kind in KINDS[:period]])
    assert first == (path, times, 2)
    assert [row[1:] for row in others] == [(times, 2)] * (period - 1)


def test_a_longer_sequence_is_not_folded():
    assert rows(*[block(kind) for _ in range(2) for kind in KINDS]) == [(str(index), 1, 2) for index in range(10)]


def test_blocks_before_and_after_a_repeat_are_separate_rows():
    found = rows(block(nn.GELU), *[block(nn.ReLU) for _ in range(3)], block(nn.GELU))
    assert found == [("0", 1, 2), ("1–3", 3, 2), ("4", 1, 2)]


def test_the_repeat_that_covers_the_most_blocks_is_folded():
    """A repeated sequence of three starts with two identical blocks."""
    turn = [nn.ReLU, nn.ReLU, nn.GELU]
    found = rows(*[block(kind) for _ in range(2) for kind in turn])
    assert found == [("0,3", 2, 2), ("1,4", 2, 2), ("2,5", 2, 2)]


def test_blocks_of_different_sizes_are_not_folded():
    wide = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4))
    assert rows(block(nn.ReLU), wide, block(nn.ReLU)) == [("0", 1, 2), ("1", 1, 3), ("2", 1, 2)]


def test_repeats_within_repeats_are_folded():
    stages = [nn.Sequential(*[block(nn.ReLU) for _ in range(3)]) for _ in range(2)]
    assert rows(*stages) == [("0–1", 2, 6)]
    assert rows(*stages, depth=2) == [("0–1.0–2", 6, 2)]
    assert rows(*stages, depth=3) == [("0–1.0–2.0", 6, 1), ("0–1.0–2.1", 6, 1)]


def test_calls_of_the_forward_itself_are_not_folded():
    class Twice(nn.Module):
        def forward(self, x):
            return torch.relu(torch.relu(x))

    report = attnscope.trace(Twice(), torch.zeros(2, 4))
    assert [(row.name, row.times, row.calls) for row in report.steps] == [("relu", 1, 1), ("relu", 1, 1)]


def test_grouping_by_op_adds_up_all_calls_of_a_function():
    report = attnscope.trace(nn.Sequential(block(nn.ReLU), block(nn.GELU)), torch.zeros(2, 4), group="op")
    assert {row.name: row.times * row.calls for row in report.steps} == {"linear": 2, "relu": 1, "gelu": 1}


def test_a_row_has_the_inputs_of_its_first_call_and_the_outputs_of_its_last():
    inner = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 3))
    row, relu = attnscope.trace(nn.Sequential(inner, nn.ReLU()), torch.zeros(2, 4), depth=1).steps
    assert (row.inputs[0], row.outputs[-1]) == ((2, 4), (2, 3))
    assert (row.calls, row.module, row.op, row.macs, row.params) == (3, "Sequential", "", 2 * (32 + 24), 40 + 27)
    assert (relu.calls, relu.module, relu.op) == (1, "ReLU", "relu")
