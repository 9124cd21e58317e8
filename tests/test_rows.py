"""Rows of a trace: modules that are shared or run several times, and columns that add up to their feet."""

import csv
import io
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import attnscope
from attnscope.core.errors import UsageError
from attnscope.core.sizes import plural
from attnscope.render import render, words
from attnscope.render.columns import ADD_UP
from attnscope.render.screen import Screen
from attnscope.render.trace import line_columns, lines_of
from attnscope.tracing.folding import GROUPS, ROWS
from attnscope.tracing.selection import SORTS
from tests.sampling import examples

X = torch.zeros(2, 4)


class Tree(nn.Module):
    """A module with any submodules, which it has and calls in the order of `program`.

    An item of the program is the index of a submodule, or the name of a torch function.
    """

    def __init__(self, held, submodules, program):
        super().__init__()
        if held == "attributes":
            for index, submodule in enumerate(submodules):
                setattr(self, f"part{index}", submodule)
        elif held == "list":
            self.parts = nn.ModuleList(submodules)
        else:
            self.parts = nn.Sequential(*submodules)
        self.called = lambda: list(self.parts if held != "attributes" else map(self.get, range(len(submodules))))
        self.program = program

    def get(self, index):
        return getattr(self, f"part{index}")

    def forward(self, x):
        for item in self.program:
            x = getattr(torch, item)(x) if isinstance(item, str) else self.called()[item](x)
        return x


@st.composite
def trees(draw):
    """Draw a tree of modules in which any module may have several parents, several names and several runs."""
    pool = [nn.Linear(4, 4), nn.Linear(4, 4, bias=False), nn.GELU()]
    for _ in range(draw(st.integers(1, 5))):
        submodules = draw(st.lists(st.sampled_from(pool), min_size=1, max_size=4))
        items = st.one_of(st.integers(0, len(submodules) - 1), st.sampled_from(["relu", "tanh"]))
        program = draw(st.lists(items, max_size=4)) * draw(st.integers(1, 3))
        pool.append(Tree(draw(st.sampled_from(["attributes", "list", "sequence"])), submodules, program))
    return pool[-1]


def runs_of(module, x):
    """Return the number of runs of leaf modules, by class, without a trace."""
    runs = {"Linear": 0, "GELU": 0}
    hooks = []
    for submodule in module.modules():
        if type(submodule).__name__ in runs:
            kind = type(submodule).__name__
            hooks.append(submodule.register_forward_hook(lambda *_, kind=kind: runs.update({kind: runs[kind] + 1})))
    module(x)
    for hook in hooks:
        hook.remove()
    return runs


def assert_adds_up(report):
    """Assert that each column adds up to its foot, in JSON, CSV and on the screen."""
    totals = report.totals
    for key in ("macs", "flops", "other_flops", "bytes_read", "bytes_written"):
        assert sum(row.times * getattr(row, key) for row in report.steps) == getattr(totals, key), key
    assert sum(row.new_params for row in report.steps) + report.unused_params == totals.params
    assert sum(row.times * row.calls for row in report.steps) == report.calls
    *rows, foot = csv.DictReader(io.StringIO(render(report, "csv", Screen())))
    for key in ("macs", "flops", "other_flops", "params", "bytes_read", "bytes_written"):
        assert sum(int(row[key]) for row in rows) == int(foot[key]), key
    lines = [line for line in lines_of(report) if line.row]
    assert [line.row for line in lines] == report.steps
    for column in line_columns(report):
        if column.key in ADD_UP:
            assert sum(column.value(line) for line in lines) == column.total, column.key


@examples(60)
@given(trees(), st.sampled_from([*GROUPS]), st.sampled_from([None, 1, 2, 3, 9]))
def test_columns_of_a_tree_with_shared_modules_add_up(module, group, depth):
    report = attnscope.trace(module, X, group=group, depth=depth)
    assert_adds_up(report)


@examples(60)
@given(trees())
def test_each_run_of_a_shared_module_is_in_a_row_below_its_caller(module):
    report = attnscope.trace(module, X, depth=9)
    runs = runs_of(module, X)
    for kind, op in (("Linear", "linear"), ("GELU", "gelu")):
        rows = [row for row in report.steps if row.op == op]
        assert sum(row.times for row in rows) == runs[kind]
        assert {row.module for row in rows} <= {kind}
    assert max([row.calls for row in report.steps], default=0) <= 1


class Own(nn.Module):
    def __init__(self, tied):
        super().__init__()
        self.tied = tied

    def forward(self, x):
        return self.tied(x).relu()


def shown(module, *inputs, **settings):
    """Return path, function, repeats and calls of each row."""
    report = attnscope.trace(module, *inputs, **settings)
    return [(row.path, row.op, row.times, row.calls) for row in report.steps]


def test_a_tied_module_is_below_each_of_its_parents():
    tied = nn.Linear(4, 4)
    wider = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 4))
    module = nn.Sequential(Own(tied), wider, Own(tied))
    assert shown(module, X, depth=1) == [("0", "", 1, 2), ("1", "", 1, 2), ("2", "", 1, 2)]
    report = attnscope.trace(module, X)
    assert [(row.path, row.params, row.new_params) for row in report.steps if row.op == "linear"] == [
        ("0.tied", 20, 20),
        ("1.0", 40, 40),
        ("1.1", 36, 36),
        ("2.tied", 20, 0),
    ]


def test_a_module_with_several_names_runs_under_each():
    act = nn.GELU()
    names = [row[0] for row in shown(nn.Sequential(act, nn.Linear(4, 4), act), X)]
    assert names == ["0", "1", "2"]


def test_a_block_that_runs_three_times_is_a_row_of_three():
    class Unrolled(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = nn.Sequential(nn.Linear(4, 4), nn.ReLU())

        def forward(self, x):
            for _ in range(3):
                x = self.block(x)
            return x

    assert shown(Unrolled(), X, depth=1) == [("block", "", 3, 2)]
    report = attnscope.trace(Unrolled(), X, depth=1)
    assert (report.steps[0].params, report.steps[0].new_params, report.totals.params) == (20, 20, 20)


class Looped(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.unused = (nn.Linear(4, 4) for _ in range(3))

    def forward(self, x):
        for _ in range(3):
            x = self.b(self.a(x))
        return x


def test_a_loop_over_two_equal_modules_has_a_row_for_each():
    assert shown(Looped(), X) == [("a", "linear", 3, 1), ("b", "linear", 3, 1)]


def test_unused_parameters_are_in_a_note():
    report = attnscope.trace(Looped(), X)
    assert (report.totals.params, report.unused_params) == (60, 20)
    assert "the forward does not use 20 of the 60 parameters" in render(report, "table", Screen())
    assert_adds_up(report)


@pytest.mark.parametrize("depth", [1, 2])
def test_a_folded_row_has_the_inputs_and_outputs_of_its_module(depth):
    """The first call of the block takes a part of its input, and its last call returns a part of its output."""

    class Block(nn.Module):
        def forward(self, x, y):
            first, second = torch.sin(x[:1]), torch.cos(y)
            return torch.cat([first, x[1:]]), second.sum(1)

    class Blocks(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList([nn.ModuleList([Block()]) for _ in range(2)])

        def forward(self, x, y):
            for (block,) in self.blocks:
                x, _ = block(x, y)
            return x

    report = attnscope.trace(Blocks(), X, torch.zeros(3, 5), depth=depth)
    [row] = report.steps
    assert row.inputs == [(2, 4), (3, 5)]
    assert row.outputs == [(2, 4), (3,)]
    assert row.calls * row.times == report.calls


def test_calls_that_repeat_in_a_loop_are_folded_if_there_are_too_many():
    class Unrolled(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
            self.linear = nn.Linear(4, 4)

        def forward(self, x):
            for _ in range(ROWS):
                x = self.linear(x + 1).sigmoid()
            return self.cell(x)

    assert shown(Unrolled(), X) == [
        ("", "add", ROWS, 1),
        ("linear", "linear", ROWS, 1),
        ("", "sigmoid", ROWS, 1),
        ("cell.0", "linear", 1, 1),
        ("cell.1", "relu", 1, 1),
    ]
    assert len(shown(Unrolled(), X, depth=1)) == 3 * ROWS + 1
    labels = [line.label for line in lines_of(attnscope.trace(Unrolled(), X))]
    times = f"×{ROWS}"
    assert labels[:3] == [f"add {times}", f"linear {times}", f"sigmoid {times}"]


def test_calls_of_one_line_are_a_row_if_there_are_too_many_without_a_pattern():
    """The calls of a root that does the work itself are gathered by source line."""
    runs = 8 * ROWS
    choice = random.Random(0)
    blocks = sum([choice.random() < 0.5 or 0 * choice.randint(1, 5) for _ in range(runs)])
    choice = random.Random(0)

    class Irregular(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
            self.square = nn.Parameter(torch.zeros(4, 4))

        def forward(self, x):
            for _ in range(runs):
                if choice.random() < 0.5:
                    x = self.block(x)
                else:
                    part = x[: choice.randint(1, 5)].sum(0)
                    x = (part @ self.square).relu() + x
            return x

    report = attnscope.trace(Irregular(), X)
    others = runs - blocks
    assert [(row.path, row.name, row.times, row.calls) for row in report.steps] == [
        ("", "getitem, sum", 1, 2 * others),
        ("", "matmul, relu, add", 1, 3 * others),
        ("block.0", "linear", blocks, 1),
        ("block.1", "relu", blocks, 1),
    ]
    assert_adds_up(report)


class Bodies(nn.Module):
    """A forward that does the work of many networks itself, without a pattern and with a module of its own each time."""

    def __init__(self, count):
        super().__init__()
        self.layers = nn.ModuleList([nn.Sequential(nn.Linear(4, 4 + i), nn.Linear(4 + i, 4)) for i in range(count)])

    def forward(self, x):
        for index, layer in enumerate(self.layers):
            for _ in range(index % 7):
                x = (x + index).sin()
            x = layer(x) @ torch.ones(4, 4)
        return x


@pytest.mark.parametrize("count", [1, 9, 40, 90])
@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_default_table_has_at_most_sixty_lines_and_fits_the_width(count, width):
    report = attnscope.trace(Bodies(count), X)
    assert_adds_up(report)
    assert len(list(lines_of(report))) <= ROWS
    lines = render(report, "table", Screen(width=width)).splitlines()
    table = lines[3 : next(index for index, line in enumerate(lines) if line.startswith(" counts"))]
    assert max(map(len, table)) <= width
    total = words.metric(report.totals.macs)
    assert any(line.split()[:2] == [str(report.calls), "calls"] and total in line for line in table)


def test_a_root_with_more_modules_than_lines_has_a_row_for_the_rest():
    """The modules of the root differ, so that none of them can share a row."""
    root = nn.Sequential(*[nn.Sequential(nn.Linear(4, 5 + i), nn.Linear(5 + i, 4)) for i in range(2 * ROWS)])
    report = attnscope.trace(root, X)
    assert_adds_up(report)
    assert report.steps[-1].name == f"… {2 * (ROWS + 1)} calls in {ROWS + 1} more rows"
    assert [row.path for row in report.steps[:-1]] == [str(ROWS + 1 + i) for i in range(ROWS - 1)]


def test_neighbours_without_macs_share_a_row_if_there_are_too_many():
    """A run is as long as the calls between two that have MACs, and each repeat of a block has its own."""

    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x):
            for _ in range(3):
                x = self.linear(x).relu().sigmoid() + 1
            for function in random.Random(0).choices([torch.sin, torch.cos, torch.abs], k=6 * ROWS):
                x = function(x)
            return self.linear(x)

    report = attnscope.trace(Mixed(), X)
    assert [(row.name, row.times, row.calls) for row in report.steps] == [
        ("linear", 3, 1),
        (f"… {3 * 3 + 6 * ROWS} calls without MACs", 1, 3 * 3 + 6 * ROWS),
        ("linear", 1, 1),
    ]
    assert_adds_up(report)


def test_a_heading_has_the_class_and_the_sums_of_its_rows():
    block = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4))
    report = attnscope.trace(nn.Sequential(block, nn.Sequential(nn.Linear(4, 3), nn.ReLU())), X)
    heading, *_ = [line for line in lines_of(report) if line.row is None]
    assert heading.label == "0 Sequential"
    assert (heading.counts.macs, heading.counts.new_params) == (2 * 2 * 32, 40 + 36)
    report = attnscope.trace(nn.Sequential(block, nn.ReLU()), X, time=True, budget=0.02)
    heading, *rows = lines_of(report)
    assert heading.counts.time.interquartile_mean_s == pytest.approx(
        sum(line.row.time.interquartile_mean_s for line in rows[:3])
    )


def test_a_module_made_in_the_forward_has_no_place_in_the_tree():
    class Sliced(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))

        def forward(self, x):
            return self.layers[:2](x)

    assert [row[0] for row in shown(Sliced(), X)] == ["layers.0", "layers.1"]


def test_a_tied_module_is_traced_by_each_of_its_paths():
    class Wide(nn.Module):
        def __init__(self, tied):
            super().__init__()
            self.tied = tied

        def forward(self, x):
            return self.tied(torch.cat([x, x]))

    tied = nn.Linear(4, 4)
    module = nn.Sequential(Own(tied), Wide(tied))
    assert attnscope.trace(module, X, submodule="0.tied").steps[0].inputs == [(2, 4)]
    assert attnscope.trace(module, X, submodule="1.tied").steps[0].inputs == [(4, 4)]


# order and selection


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("sort", [sort for sort in SORTS if sort != "time"])
def test_the_largest_rows_come_first_and_the_others_are_one_row(group, sort):
    report = attnscope.trace(Bodies(9), X, group=group, sort=sort, top=1)
    assert_adds_up(report)
    *top, rest = report.steps
    figures = [SORTS[sort](row) for row in top]
    assert figures == sorted(figures, reverse=True)
    everything = attnscope.trace(Bodies(9), X, group=group, sort=sort, all=True).steps
    assert figures == [SORTS[sort](row) for row in everything[:1]]
    left = report.calls - sum(row.times * row.calls for row in top)
    assert rest.name == f"… {left} calls in {plural(len(everything) - 1, 'more row')}"
    assert rest.name in render(report, "table", Screen())


def test_rows_are_sorted_by_time_if_they_are_timed():
    report = attnscope.trace(Bodies(9), X, top=3, time=True, budget=0.02)
    times = [SORTS["time"](row) for row in report.steps[:-1]]
    assert report.sort == "time"
    assert times == sorted(times, reverse=True)
    assert attnscope.trace(Bodies(9), X, top=3).sort == "macs"


def test_all_rows_are_those_of_the_deepest_level():
    report = attnscope.trace(Bodies(40), X, all=True)
    assert len(report.steps) > ROWS
    assert report.steps == attnscope.trace(Bodies(40), X, depth=99).steps
    assert len(attnscope.trace(Bodies(40), X, sort="macs").steps) == ROWS


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sort": "flops"}, "{sort} flops is unknown; available: macs, time, params, bytes"),
        ({"sort": "time"}, "{sort} time needs measured times; add {time} or sort by macs"),
        ({"top": 0}, "{top} must be at least 1 (got 0)"),
        ({"all": True, "depth": 2}, "{all} and {depth} contradict each other; give one of them"),
        ({"all": True, "top": 2}, "{all} and {top} contradict each other; give one of them"),
    ],
)
def test_options_of_rows_that_contradict_are_an_error(settings, message):
    with pytest.raises(UsageError) as raised:
        attnscope.trace(nn.Linear(4, 4), X, **settings)
    assert raised.value.args[0] == message


def test_trainable_and_frozen_parameters_are_in_a_line():
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4, bias=False))
    module[0].requires_grad_(False)
    report = attnscope.trace(module, X)
    assert (report.totals.params, report.trainable_params) == (36, 16)
    screen = render(report, "table", Screen())
    assert "36 parameters: 16 trainable, 20 frozen (56%)" in screen


def test_rows_by_function_and_by_line_name_functions():
    report = attnscope.trace(Bodies(3), X, group="op")
    assert {row.name for row in report.steps} == {"add", "sin", "linear", "ones", "matmul"}
    lines = attnscope.trace(Bodies(3), X, group="line").steps
    assert {row.name for row in lines} == {"add, sin", "linear, ones, matmul"}
    assert "test_rows.py:" in render(attnscope.trace(Bodies(3), X, group="line"), "table", Screen())
