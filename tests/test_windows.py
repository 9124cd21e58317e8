"""`attnscope windows`: its data, its pictures and the command."""

import csv
import io
import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from attnscope import SwinSpec, UsageError, WindowAttentionV2, resize_bias_table
from attnscope.analyses.windows import look_at_windows
from attnscope.attentions.swin.attention import WindowAttention, relative_position_index, shift_mask, window_partition
from attnscope.core.windows import LARGEST_DRAWN, Windows, position_row
from attnscope.render.dots import BRAILLE, BRAILLE_DOTS, HALVES, HALVES_ASCII, braille, halves
from attnscope.render.plane import MOST_LINES, Picture, draw
from attnscope.render.screen import Screen
from attnscope.render.windows import render_windows
from attnscope.render.windows.partition import SMALL, Letters, plane_parts, planes
from attnscope.render.windows.parts import room
from tests.test_windows_geometry import grids, image_tokens

VIEWS = {
    "partition": {},
    "token": {"token": (0, 0)},
    "layers": {"token": (0, 0), "layers": 5},
    "positions": {"positions": True},
    "order": {"order": True},
}


def letters_of(picture: Picture) -> list[list[str]]:
    """Return the letters of a picture without its title and lines."""
    texts = [line.plain for line in picture.lines]
    rows = [re.sub(r"[ │┊]", "", text) for text in texts if re.fullmatch(r"[A-Z+](?: ?[A-Z+│┊])*", text)]
    return [list(row) for row in rows]


def windows_of(picture: Picture) -> tuple[int, int]:
    """Return the number of windows in a picture, down and across: its borders plus one."""
    texts = [line.plain for line in picture.lines]
    rows = [text for text in texts if re.fullmatch(r"[A-Z+](?: ?[A-Z+│┊])*", text)]
    rules = [text for text in texts if re.fullmatch("[─┼│]*─[─┼│]*", text)]
    (across,) = {row.count("│") for row in rows}
    assert all(rule.count("┼") == across for rule in rules)
    return len(rules) + 1, across + 1


@st.composite
def specs(draw: st.DrawFn, largest: int = 500) -> SwinSpec:
    window = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    shift = draw(st.integers(0, window[0] - 1)), draw(st.integers(0, window[1] - 1))
    sides = draw(st.integers(1, largest)), draw(st.integers(1, largest))
    return SwinSpec(resolution=sides, window=window, shift_size=shift, batch=draw(st.integers(1, 3)))


class TestPictures:
    @given(grids())
    def test_tokens_with_the_same_letter_attend_to_each_other(self, grid: Windows) -> None:
        drawing = draw(planes(grid), 200, Screen(), most=100)
        assert drawing.letter == (1, 1)
        (height, width), letters = grid.padded, Letters(grid)
        down, across = grid.axes
        groups = [[(down.group(y), across.group(x)) for x in range(width)] for y in range(height)]
        rolled = [[groups[y][x] for x in across.rolled] for y in down.rolled]
        planes_of = {1: groups, 2: rolled}
        for number, expected in planes_of.items():
            if not grid.is_shifted or not letters.each:
                continue
            shown = letters_of(drawing.pictures[number])
            pairs = {(expected[y][x], shown[y][x]) for y in range(height) for x in range(width) if shown[y][x] != "+"}
            assert len({group for group, _ in pairs}) == len({letter for _, letter in pairs}) == len(pairs)

    @given(grids())
    def test_exactly_the_padding_is_drawn_as_plus(self, grid: Windows) -> None:
        pictures = draw(planes(grid), 200, Screen(), most=100).pictures
        (height, width), (down, across) = grid.padded, grid.axes
        plain = [[y >= grid.height or x >= grid.width for x in range(width)] for y in range(height)]
        rolled = [[plain[y][x] for x in across.rolled] for y in down.rolled]
        for picture, expected in zip(pictures, (plain, plain, rolled), strict=False):
            assert [[letter == "+" for letter in row] for row in letters_of(picture)] == expected

    @given(grids())
    def test_a_mask_names_the_groups_that_the_picture_shows(self, grid: Windows) -> None:
        letters = Letters(grid)
        down, across = grid.axes
        for mask in grid.masks:
            places = [(y, x) for y in down.window_tokens(mask.rows[0]) for x in across.window_tokens(mask.columns[0])]
            groups: dict[str, bool] = {}
            for y, x in places:
                letter, _ = letters.mark(letters.number(down, y), letters.number(across, x))
                groups[letter] = groups.get(letter, False) or (y < grid.height and x < grid.width)
            expected = {letter if is_image else "+" for letter, is_image in groups.items()}
            named = letters.of(mask).split()
            assert set(named) == expected
            assert len(named) == len(expected)

    @given(grids())
    def test_kinds_of_tokens_in_a_window_are_its_groups(self, grid: Windows) -> None:
        letters = Letters(grid, each=False)
        for axis in grid.axes:
            for window in range(axis.count):
                tokens = axis.window_tokens(window)
                pairs = {(axis.group(token), letters.number(axis, token)) for token in tokens}
                assert len({group for group, _ in pairs}) == len({kind for _, kind in pairs}) == len(pairs)

    def test_windows_are_separated_by_lines_and_groups_by_dots(self) -> None:
        pictures = draw(planes(Windows(4, 4, (2, 2), (1, 1))), 80, Screen()).pictures
        assert [line.plain for line in pictures[2].lines if line][-6:] == [
            "A A │ B ┊ C",
            "A A │ B ┊ C",
            "────┼──────",
            "D D │ E ┊ F",
            "┈┈┈┈│┈┈┈┈┈┈",
            "G G │ H ┊ I",
        ]

    @settings(max_examples=40)
    @given(specs(), st.sampled_from(sorted(VIEWS)), st.sampled_from([60, 80, 120]), st.booleans())
    def test_a_picture_fits_the_screen_and_has_fewer_than_250_lines(
        self, spec: SwinSpec, view: str, width: int, ascii: bool
    ) -> None:
        text = render_windows(look_at_windows(spec, **VIEWS[view]), "table", Screen(width=width, ascii=ascii))
        assert max(map(cell_len, text.splitlines())) <= width
        assert text.count("\n") < 250
        assert not ascii or text.isascii()

    @pytest.mark.parametrize("view", VIEWS)
    def test_color_adds_only_color(self, view: str) -> None:
        report = look_at_windows(SwinSpec(resolution=(20, 24), shift=True), **VIEWS[view])
        plain, colored = (render_windows(report, "table", Screen(width=80, color=color)) for color in (False, True))
        assert "\x1b[" in colored
        stripped = re.sub(r"\x1b\[[\d;]*m", "", colored)
        assert [line.rstrip() for line in stripped.splitlines()] == plain.splitlines()

    def test_a_scaled_plane_keeps_its_edges_and_has_a_note(self) -> None:
        text = render_windows(look_at_windows(SwinSpec(resolution=448, shift=True)), "table", Screen(width=80))
        rolled = text.split("kernel")[1]
        assert all(letter in rolled for letter in "ABCDEFGHI")
        assert "scaled: each letter represents up to " in text
        assert "drawn coarser than the windows: not all borders of 64×64 windows fit" in text

    @settings(max_examples=200)
    @given(specs(), st.integers(40, 200), st.booleans())
    def test_every_window_has_a_border_or_a_note_says_that_some_do_not(
        self, spec: SwinSpec, width: int, small: bool
    ) -> None:
        grid, screen, most = spec.windows, Screen(width=width), SMALL if small else MOST_LINES
        drawing = draw(planes(grid), room(screen), screen, most)
        text = screen.draw(plane_parts(grid, screen, most))
        drawn = [windows_of(picture) for picture in drawing.pictures]
        if "drawn coarser than the windows" in text:
            assert not drawing.complete
            down, across = (2 * axis.group_count - 1 for axis in grid.axes)
            runs = [2 * count + 2 for count in (down, across)]  # one more letter for padding or a cut window
            assert runs[0] > most or runs[1] > room(screen)
        else:
            groups = tuple(axis.group_count for axis in grid.axes)
            assert drawn == [grid.counts, groups, grid.counts][: len(drawn)]

    @pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
    def test_pictures_of_the_examples_show_all_windows(self, width: int) -> None:
        screen = Screen(width=width)
        for spec, most in (
            (SwinSpec(resolution=(50, 60), window=8), MOST_LINES),
            (SwinSpec(shift=True), MOST_LINES),
            (SwinSpec(shift=True), SMALL),
        ):
            drawing = draw(planes(spec.windows), room(screen), screen, most)
            assert windows_of(drawing.pictures[0]) == spec.windows.counts
            assert drawing.complete

    @pytest.mark.parametrize("sides", [(LARGEST_DRAWN, LARGEST_DRAWN), (1, LARGEST_DRAWN), (LARGEST_DRAWN, 1)])
    def test_the_largest_plane_is_drawn(self, sides: tuple[int, int]) -> None:
        spec = SwinSpec(resolution=sides, window=7, shift=True)
        for options in ({}, {"token": (0, 0), "layers": 35}):
            text = render_windows(look_at_windows(spec, **options), "table", Screen(width=60))
            assert max(map(cell_len, text.splitlines())) <= 60

    def test_an_svg_does_not_load_external_resources(self) -> None:
        for options in VIEWS.values():
            svg = render_windows(look_at_windows(SwinSpec(resolution=14, shift=True), **options), "svg", Screen())
            ET.fromstring(svg)
            assert set(re.findall(r"https?://[^\"')\s]+", svg)) == {"http://www.w3.org/2000/svg"}
            assert "@import" not in svg
            assert "@font-face" not in svg

    @given(st.lists(st.lists(st.integers(0, 1), min_size=7, max_size=7), min_size=1, max_size=9))
    def test_braille_dots_equal_the_matrix(self, matrix: list[list[int]]) -> None:
        height, width = len(matrix), len(matrix[0])
        cells = braille(matrix)
        dots = [
            [int(bool(ord(cells[y // 4][x // 2]) - BRAILLE & BRAILLE_DOTS[y % 4][x % 2])) for x in range(width)]
            for y in range(height)
        ]
        assert dots == matrix
        for ascii, alphabet in ((False, HALVES), (True, HALVES_ASCII)):
            lines = halves(matrix, ascii)
            assert [
                [alphabet.index(lines[y // 2][x]) >> y % 2 & 1 for x in range(width)] for y in range(height)
            ] == matrix


class TestData:
    @given(grids())
    def test_masks_and_index_of_the_json_equal_the_modules(self, grid: Windows) -> None:
        spec = SwinSpec(resolution=(grid.height, grid.width), window=grid.window, shift_size=grid.shift, batch=2)
        data = json.loads(look_at_windows(spec).to_json())
        r, s = grid.counts
        n = grid.window[0] * grid.window[1]
        masks = torch.empty(r, s, n, n)
        for mask in data["masks"]:
            (top, bottom), (left, right) = mask["window_rows"], mask["window_columns"]
            masks[top : bottom + 1, left : right + 1] = torch.tensor(mask["mask"]).float()
            assert mask["windows"] == (bottom - top + 1) * (right - left + 1)
            assert mask["blocked"] == sum(map(sum, mask["mask"])) == round(mask["share"] * mask["pairs"])
        assert torch.equal(masks.flatten(0, 1).bool(), shift_mask(grid, masks).isinf())
        assert data["index"]["index"] == relative_position_index(grid.window).tolist()
        module = WindowAttention(2, 1, grid.window)
        assert data["index"]["table_rows"] == len(module.relative_position_bias_table)

    @given(grids())
    def test_groups_of_the_json_give_the_mask(self, grid: Windows) -> None:
        spec = SwinSpec(resolution=(grid.height, grid.width), window=grid.window, shift_size=grid.shift)
        groups = look_at_windows(spec).to_dict()["groups"]
        pitch = int(re.search(r"down\[y\]·(\d+)", groups["rule"])[1])
        numbers = torch.tensor(groups["down"])[:, None] * pitch + torch.tensor(groups["across"])
        tokens = image_tokens(grid)
        in_windows = numbers[tokens[..., 0], tokens[..., 1]]
        apart = in_windows[:, :, None] != in_windows[:, None, :]
        assert torch.equal(apart, shift_mask(grid, torch.zeros(())).isinf())
        assert len(numbers.unique()) == groups["count"]

    @given(grids())
    def test_the_order_is_that_of_the_window_batch(self, grid: Windows) -> None:
        spec = SwinSpec(resolution=(grid.height, grid.width), window=grid.window, shift_size=grid.shift, batch=2)
        report, (height, width) = look_at_windows(spec, order=True), grid.padded
        images = torch.arange(2 * height * width).reshape(2, height, width, 1)
        down, across = grid.roll
        batch = window_partition(images.roll((-down, -across), (1, 2)), grid.window).flatten(1)
        assert report.order_rows == len(batch)
        for row, tokens in enumerate(batch.tolist()):
            line = report.order_row(row)
            assert tokens == [(line.image * height + y) * width + x for y in line.rows for x in line.columns]

    def test_a_token_has_its_windows_and_receptive_fields(self) -> None:
        report = look_at_windows(SwinSpec(resolution=14, shift=True), token=(5, 9), layers=2)
        plain, shifted = report.looks
        assert (plain.rows, plain.columns, plain.tokens) == ((0, 6), (7, 13), 49)
        assert (shifted.rows, shifted.columns, shifted.tokens) == ((3, 9), (3, 9), 49)
        assert [(field.layer, field.shifted, field.share) for field in report.fields] == [
            (1, False, 0.25),
            (2, True, 1),
        ]

    def test_attended_padding_is_not_part_of_the_image(self) -> None:
        look = look_at_windows(SwinSpec(resolution=3, window=7), token=(1, 1)).looks[0]
        assert (look.rows, look.tokens, look.share, look.padding) == ((0, 2), 9, 1, 40)

    @pytest.mark.parametrize("view", VIEWS)
    def test_csv_has_the_rows_of_the_view(self, view: str) -> None:
        report = look_at_windows(SwinSpec(resolution=56, shift=True), **VIEWS[view])
        rows = list(csv.DictReader(io.StringIO(render_windows(report, "csv", Screen()))))
        if view == "partition":
            *masks, total = rows
            assert [row["windows"] for row in rows] == ["49", "7", "7", "1", "64"]
            assert sum(int(row["windows"]) * int(row["blocked"]) for row in masks) == int(total["blocked"]) == 18_240
        if view == "positions":
            assert all(int(row["row"]) == position_row((7, 7), int(row["dy"]), int(row["dx"])) for row in rows)
            assert [int(row["row"]) for row in rows] == list(range(169))
        assert len(rows) == {"partition": 5, "token": 2, "layers": 7, "positions": 169, "order": 64}[view]
        assert render_windows(report, "md", Screen()).count("\n| ") >= len(rows)

    def test_large_windows_omit_their_matrices_with_a_note(self) -> None:
        data = look_at_windows(SwinSpec(resolution=64, window=64)).to_dict()
        assert data["index"]["index"] is None
        assert data["masks"][0]["mask"] is None
        assert "1024" in data["left_out"][0]
        assert look_at_windows(SwinSpec(resolution=64, window=32)).to_dict()["left_out"] == []

    @pytest.mark.parametrize(
        ("spec", "options", "message"),
        [
            ({}, {"token": (56, 0)}, "token 56,0 is outside of the grid; row must be between 0 and 55"),
            ({}, {"token": (0, -1)}, "token 0,-1 is outside of the grid; column must be between 0 and 55"),
            ({}, {"layers": 4}, "layers requires token; add one, such as --token 28,28"),
            ({}, {"layers": 0}, "layers must be between 1 and 35 (got 0)"),
            ({}, {"token": (0, 0), "layers": 36}, "layers must be between 1 and 35 (got 36)"),
            ({"resolution": 16_385}, {}, "resolution must be at most 16384 in a picture (got 16385)"),
            ({"window": 10**9}, {}, "window must be at most 16384 in a picture (got 1000000000)"),
        ],
    )
    def test_invalid_views_raise_a_usage_error(self, spec: dict, options: dict, message: str) -> None:
        with pytest.raises(UsageError) as error:
            look_at_windows(SwinSpec(**spec), **options)
        assert str(error.value) == message


class TestCommand:
    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ("--token 5", "--token must be a row and a column, such as 5,9 (got 5)"),
            ("--token 5,x", "--token must be a row and a column, such as 5,9 (got 5,x)"),
            ("--token 14,0", "--token 14,0 is outside of the grid; row must be between 0 and 13"),
            ("--layers 4", "--layers requires --token; add one, such as --token 7,7"),
            ("--token 0,0 --layers 0", "--layers must be between 1 and 35 (got 0)"),
            ("--window 0", "--window must be at least 1 (got 0)"),
            ("--shift-size 7", "--shift-size must be smaller than --window 7 (got 7); largest: 6"),
            ("--resolution 70000", "--resolution must be at most 16384 in a picture (got 70000)"),
        ],
    )
    def test_an_error_of_windows_is_one_line(self, attnscope, words: str, message: str) -> None:
        done = attnscope("windows", *words.split())
        assert (done.returncode, done.stdout, done.stderr) == (2, "", f"attnscope: {message}\n")

    def test_the_example_of_the_help_shows_windows_groups_and_masks(self, attnscope) -> None:
        done = attnscope("windows", "--resolution", "14", "--window", "7", "--shift", COLUMNS="80")
        assert done.returncode == 0
        assert "14×14 tokens in 4 windows of 7×7, shifted by 3" in done.stdout
        assert " C C C │ A A A A A A A │ B B B B" in done.stdout
        assert " D D D D D D D │ E E E E ┊ F F F" in done.stdout
        assert "1 window without a mask, 1 right edge, 1 bottom edge, 1 corner" in done.stdout
        assert "49.0% of pairs blocked" in done.stdout

    def test_every_next_command_runs(self, attnscope) -> None:
        command = "attnscope swin --resolution 14 --no-time"
        seen = []
        while command not in seen and len(seen) < 8:
            seen.append(command)
            done = attnscope(*command.split()[1:], *(["--no-time"] if "attnscope swin" in command else []))
            assert done.returncode == 0, (command, done.stderr)
            command = re.search(r"^ next +(attnscope .*?)(?:   |$)", done.stdout, re.MULTILINE)[1]
        assert [word for word in ("--shift", "--token", "--positions", "--order") if word in " ".join(seen)] == [
            "--shift",
            "--token",
            "--positions",
            "--order",
        ]

    def test_swin_with_picture_shows_a_small_version(self, attnscope) -> None:
        done = attnscope("swin", "--shift", "--no-time", "--picture", COLUMNS="80")
        assert "I│G│G│G│G│G│G│G│H" in done.stdout
        assert "49 windows without a mask, 7 right edge, 7 bottom edge, 1 corner" in done.stdout
        plain = attnscope("swin", "--shift", "--no-time", COLUMNS="80")
        assert "without a mask" not in plain.stdout

    def test_an_attention_without_windows_has_no_picture(self, attnscope) -> None:
        done = attnscope("vit", "--picture")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == "attnscope: --picture requires windows, but ViT attention has none; use attnscope swin\n"

    def test_the_picture_is_svg_and_the_data_is_json(self, attnscope, tmp_path) -> None:
        picture = tmp_path / "picture.svg"
        assert attnscope("windows", "--shift", "-o", str(picture)).returncode == 0
        ET.fromstring(picture.read_text(encoding="utf-8"))
        data = json.loads(attnscope("windows", "--shift", "--format", "json").stdout)
        assert data["grid"]["roll"] == [3, 3]
        assert [mask["blocked"] for mask in data["masks"]] == [0, 1176, 1176, 1776]

    def test_quiet_hides_the_suggested_next_command(self) -> None:
        report = look_at_windows(replace(SwinSpec(), shift=True))
        assert "next" not in render_windows(report, "table", Screen(quiet=True))


@pytest.mark.parametrize("pretrained", ["6x3", "1", "12"])
def test_the_distances_of_swin_v2_are_those_that_its_bias_mlp_reads(attnscope, pretrained):
    words = ("windows", "--window", "4x6", "--positions", "--pretrained-window", pretrained)
    found = json.loads(attnscope(*words, "--json").stdout)["distances"]
    p, q = (int(side) for side in (pretrained if "x" in pretrained else f"{pretrained}x{pretrained}").split("x"))
    module = WindowAttentionV2(12, 3, (4, 6), pretrained_window=(p, q))
    pairs = torch.stack(torch.meshgrid(torch.tensor(found["down"]), torch.tensor(found["across"]), indexing="ij"), -1)
    torch.testing.assert_close(pairs, module.relative_coords_table)
    screen = attnscope(*words).stdout
    assert f"3: {found['down'][-1]:.3f}" in screen
    assert f"5: {found['across'][-1]:.3f}" in screen


@pytest.mark.parametrize(("words", "pretrained"), [([], (4, 6)), (["--pretrained-window", "12"], (12, 12))])
def test_the_positions_of_swin_v2_have_its_distances(attnscope, words, pretrained):
    """Without a window in pre-training, it is the window itself."""
    words = ("windows", "swinv2", "--window", "4x6", "--positions", *words)
    table = WindowAttentionV2(12, 3, (4, 6), pretrained_window=pretrained).relative_coords_table
    found = json.loads(attnscope(*words, "--json").stdout)
    pairs = [torch.tensor(found["distances"][axis]) for axis in ("down", "across")]
    torch.testing.assert_close(torch.stack(torch.meshgrid(*pairs, indexing="ij"), -1), table)
    assert (found["resized"] is None) == (pretrained == (4, 6))
    assert found["next"][0].startswith("attnscope windows swinv2 ")
    screen = attnscope(*words).stdout
    assert "M: {}×{} tokens".format(*pretrained) in screen
    assert f"5: {table[-1, -1, 1]:.3f}" in screen
    rows = list(csv.DictReader(attnscope(*words, "--format", "csv").stdout.splitlines()))
    in_csv = torch.tensor([[float(row["distance_dy"]), float(row["distance_dx"])] for row in rows])
    torch.testing.assert_close(in_csv, table.flatten(0, 1))
    assert "distance of dy" in attnscope(*words, "--format", "md").stdout


@pytest.mark.parametrize(
    ("window", "new"), [((7, 7), (12, 12)), ((12, 12), (7, 7)), ((4, 7), (8, 14)), ((7, 1), (7, 3)), ((7, 7), (7, 7))]
)
def test_the_resized_table_of_swin_is_that_of_a_checkpoint(window, new):
    spec = SwinSpec(resolution=tuple(2 * side for side in new), window=new)
    report = look_at_windows(spec, positions=True, pretrained_window=window)
    table = torch.randn((2 * window[0] - 1) * (2 * window[1] - 1), 3)
    resized = resize_bias_table(table, window, new)
    down, across = (report.to_dict()["resized"][axis] for axis in ("down", "across"))
    for row, (by_y, by_x) in zip(resized, product(down, across), strict=True):
        parts = [
            y["weight"] * x["weight"] * table[position_row(window, y["offset"], x["offset"])]
            for y, x in product(by_y, by_x)
        ]
        torch.testing.assert_close(sum(parts), row, rtol=1e-4, atol=1e-5)


def test_the_resized_table_of_swin_is_beside_the_original(attnscope):
    words = ("windows", "--resolution", "24", "--window", "12", "--positions", "--pretrained-window", "7")
    screen = attnscope(*words, COLUMNS="100").stdout
    assert "a table for 7×7 tokens is resized to 12×12" in screen
    assert "11: 6" in screen
    picture = screen.partition("and resized to 23×23\n")[2].splitlines()
    assert picture[0].split() == ["9" * 13, "9" * 23]
    assert len([line for line in picture if re.fullmatch(r"\s+(\d{13}\s+)?\d{23}\s*", line)]) == 23
    assert "too wide for a picture" in attnscope(*words, COLUMNS="40").stdout


def test_distances_are_part_of_the_positions(attnscope):
    done = attnscope("windows", "--pretrained-window", "8")
    assert done.returncode == 2
    assert done.stderr.strip().endswith("--pretrained-window requires --positions; add it")
    assert json.loads(attnscope("windows", "--json").stdout)["distances"] is None
