"""`windows ATTENTION`: pictures of the keys of one query, and receptive fields, of every attention on a grid."""

import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import attnscope
from attnscope import attentions
from attnscope.analyses.neighbourhood import look_at_neighbourhood
from attnscope.attentions.cswin.spec import CSWinSpec
from attnscope.attentions.nat.spec import NATSpec
from attnscope.attentions.spec import own_fields
from attnscope.cli.windows import drawable, pictured_fields
from attnscope.render.neighbourhood import render_neighbourhood
from attnscope.render.screen import Screen
from tests.strategies import specs_of

DILATED = """\
 Neighbourhood attention · 7×10 tokens · 3×3 neighbourhood, dilation 2

 keys of one query
 . . . . . . . . . .
 . . . . . . . . . .
 . o . o . o . . . .
 . . . . . . . . . .
 . o . @ . o . . . .
 . . . . . . . . . .
 . o . o . o . . . .
 @ is the query at row 4, column 3, from 0; o are its keys, . all other tokens
"""
UNSHIFTED = [name for name in drawable() if name not in ("swin", "swinv2")]


@pytest.fixture
def run(tmp_path):
    """Return a function that runs `attnscope windows` and returns the finished process."""

    def run(*words: str, columns: int = 100) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "attnscope", "windows", *words]
        env = {"COLUMNS": str(columns), "XDG_CACHE_HOME": str(tmp_path), "PATH": "", "PYTHONPATH": ":".join(sys.path)}
        return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120, env=env)

    return run


def test_a_dilated_neighbourhood_is_drawn_token_by_token():
    spec = NATSpec(resolution=(7, 10), neighborhood=3, dilation=2, dim=2, heads=1)
    report = look_at_neighbourhood(spec, token=(4, 3))
    assert render_neighbourhood(report, "table", Screen(width=100)).startswith(DILATED)
    assert (report.seen[0].rows, report.seen[0].columns) == ([2, 4, 6], [1, 3, 5])


@pytest.mark.parametrize("name", UNSHIFTED)
def test_each_attention_on_a_grid_is_drawn_in_every_format(run, name, tmp_path):
    for columns in (60, 80, 120):
        done = run(name, columns=columns)
        assert (done.returncode, done.stderr) == (0, "")
        assert "@" in done.stdout
        assert max(map(len, done.stdout.splitlines()[:-2])) <= columns
    data = json.loads(run(name, "--json").stdout)
    assert data["attention"] == name
    seen = data["seen"][0]
    assert seen["tokens"] == len({(y, x) for area in seen["areas"] for y in area["rows"] for x in area["columns"]})
    assert [set(seen[axis]) for axis in ("rows", "columns")] == [
        {place for area in seen["areas"] for place in area[axis]} for axis in ("rows", "columns")
    ]
    assert run(name, "--format", "csv").stdout.startswith("layer,")
    assert run(name, "--format", "md").stdout.startswith("**")
    picture = tmp_path / "picture.svg"
    assert run(name, "-o", str(picture)).returncode == 0
    assert picture.read_text(encoding="utf-8").startswith("<svg")


def test_a_cross_is_drawn_without_the_corners_and_two_layers_fill_them():
    spec = CSWinSpec(resolution=(4, 10), stripe=2)
    report = look_at_neighbourhood(spec, token=(3, 3), layers=2)
    keys = ["..oo......", "..oo......", "oooooooooo", "ooo@oooooo"]
    fields = ["2211222222", "2211222222", "1111111111", "111@111111"]
    drawn = [f" {' '.join(one)}    {' '.join(other)}" for one, other in zip(keys, fields, strict=True)]
    assert render_neighbourhood(report, "table", Screen(width=100)).splitlines()[3:7] == drawn
    assert [seen.tokens for seen in report.seen] == [24, 24, 40]
    assert spec.neighbourhood.keys == 24
    table = render_neighbourhood(report, "csv", Screen()).splitlines()
    assert table[1:] == ["one layer,0–3 / 2–3,2–3 / 0–9,24,0.6", *table[2:]]


@given(st.data())
@settings(max_examples=50)
def test_layers_of_a_cross_join_the_keys_of_each_token(data):
    """The expected tokens are joined one by one."""
    spec = data.draw(specs_of(CSWinSpec, stripe=data.draw(st.integers(1, 3)), kernel="eager"))
    sides, look = spec.resolution, spec.neighbourhood
    token = tuple(data.draw(st.integers(0, side - 1)) for side in sides)
    field = {token}
    for layer in look_at_neighbourhood(spec, token=token, layers=3).seen[1:]:
        field = {key for place in field for key in look.keys_of(place, sides)}
        assert field == {(y, x) for area in layer.areas for y in area.rows for x in area.columns}
        assert layer.tokens == len(field)


@given(st.data())
@settings(max_examples=100)
def test_the_keys_are_those_of_the_neighbourhood_and_layers_join_them(data):
    name = data.draw(st.sampled_from(["nat", "maxvit"]))
    fixed = {"nat": {"kernel": "eager", "neighborhood": (3, 1)}, "maxvit": {}}[name]
    spec = data.draw(specs_of(attentions.spec_class(name), **fixed))
    sides = spec.resolution
    token = tuple(data.draw(st.integers(0, side - 1)) for side in sides)
    report = look_at_neighbourhood(spec, token=token, layers=3)
    reach = [spec.neighbourhood.reach(axis, side) for axis, side in enumerate(sides)]
    for axis, places in enumerate((report.seen[0].rows, report.seen[0].columns)):
        assert places == list(reach[axis][token[axis]])
    assert report.seen[1].tokens == report.seen[0].tokens == spec.neighbourhood.keys
    for axis in (0, 1):
        field = {token[axis]}
        for layer in report.seen[1:]:
            field = {key for place in field for key in reach[axis][place]}
            assert [layer.rows, layer.columns][axis] == sorted(field)


@pytest.mark.parametrize("name", drawable())
@given(data=st.data())
@settings(max_examples=30)
def test_only_pictured_fields_change_the_neighbourhood(name, data):
    kind = attentions.spec_class(name)
    changing = {kind.SIZE_FIELD, *kind.PICTURED}
    one = data.draw(specs_of(kind, kernel="eager", attn_drop=0.0, qk_scale=None, **NARROW.get(name, {})))
    same = {field: getattr(one, field) for field in changing}
    fixed = {**NARROW.get(name, {}), **same, "kernel": "eager", "attn_drop": 0.0, "qk_scale": None}
    assert data.draw(specs_of(kind, **fixed)).neighbourhood == one.neighbourhood


NARROW = {"nat": {"neighborhood": (3, 1)}, "linear": {"scales": (3,)}, "hiera": {"resolution": (4, 12)}}
"""Fields that make random Specs valid."""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["vit"], "vit has a sequence of tokens and not a grid, so that it has no picture"),
        (["nat", "--shift"], "nat does not have --shift; see attnscope nat --help"),
        (["nat", "--order"], "--order applies only to swin and swinv2 (got nat); leave it out"),
        (["nat", "--token", "14,0"], "--token 14,0 is outside of the grid; row must be between 0 and 13"),
        (["nat", "--layers", "36"], "--layers must be between 1 and 35 (got 36)"),
        (
            ["hiera", "--layers", "2"],
            "--layers needs as many queries as tokens; pooled queries reduce the grid of the next layer; use --q-stride 1",
        ),
        (["nta"], "the attention nta is unknown; did you mean nat?"),
    ],
)
def test_mistakes_are_one_line(run, words, message):
    done = run(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"attnscope: {message}")
    assert done.stderr.count("\n") == 1


def test_flags_are_the_pictured_fields_of_all_attentions():
    for name in drawable():
        kind = attentions.spec_class(name)
        assert {kind.SIZE_FIELD, *kind.PICTURED} <= pictured_fields().keys()
        assert set(kind.PICTURED) <= own_fields(kind).keys()


def test_a_neighbourhood_in_python_prints_and_has_a_notebook_form():
    report = attnscope.look_at_neighbourhood(NATSpec(resolution=14), layers=2)
    assert "after 2 layers" in str(report)
    assert "Neighbourhood attention" in report._repr_html_()
    assert list(report.to_dataframe()["tokens"]) == [49, 49, 169]


@pytest.mark.parametrize(("shift", "size"), [(False, None), (True, None), (True, 1), (True, (2, 5))])
def test_lines_separate_the_windows_of_this_layer(shift, size):
    """All keys of a query are in its cell, and no other token is, with a shift too."""
    look = attentions.spec_class("swin")(resolution=(14, 21), window=7, shift=shift, shift_size=size).neighbourhood
    for axis, side in enumerate((14, 21)):
        cells = [look.cell(axis, place) for place in range(side)]
        for place, keys in enumerate(look.reach(axis, side)):
            assert [other for other in range(side) if cells[other] == cells[place]] == list(keys)
