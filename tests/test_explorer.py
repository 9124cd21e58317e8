"""The live explorer: its keys and panes at three sizes, its copied commands, its worker process and its terminal."""

import asyncio
import gc
import inspect
import json
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from textual import events
from textual.pilot import Pilot

from attnscope import attentions, networks
from attnscope.analyses.worker import Request, Run
from attnscope.attentions import discovery
from attnscope.attentions.draft import Draft
from attnscope.cli.output import check_file
from attnscope.networks.presets import presets
from attnscope.tui.explorer import Explorer, Tools
from attnscope.tui.panes import PANES
from attnscope.tui.widgets import Explanation
from tests import golden
from tests.golden import FOLDER, explorer_screen

SIZES = ((80, 24), (120, 40), (200, 60))
VIT, SWIN = (attentions.spec_class(name) for name in ("vit", "swin"))

sized = pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")


def lines_of(app: Explorer) -> list[str]:
    """Return the lines on the screen."""
    strips = app.screen._compositor.render_strips()
    return ["".join(segment.text for segment in strip).rstrip() for strip in strips]


def text_of(app: Explorer) -> str:
    return "\n".join(lines_of(app))


def drive(
    drive_it: Callable[[Explorer, Pilot], Awaitable[None]], draft: Draft, size=(80, 24), tools=None, ascii=False
) -> None:
    """Run the explorer without a terminal and drive it."""

    async def run() -> None:
        app = Explorer(draft, tools, ascii)
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            await drive_it(app, pilot)

    asyncio.run(run())


async def press(pilot: Pilot, *keys: str) -> None:
    await pilot.press(*keys)
    await pilot.pause()


def row_of(app: Explorer, name: str) -> str:
    """Return the line of the fields with this name."""
    return next(line for line in lines_of(app) if re.match(rf"[ ▸>]{name} ", line))


@sized
def test_keys_change_fields_and_everything_follows(size):
    async def check(app: Explorer, pilot: Pilot) -> None:
        assert app.row.name == "attention"
        assert "vit" in row_of(app, "attention")
        await press(pilot, "down", "down")
        assert app.row.name == "dim"
        assert " ← 756  768  780 →   dim: Embedding dimension." in lines_of(app)
        await press(pilot, "right")
        assert "‹ 780 ›" in row_of(app, "dim")
        assert "dim 780" in lines_of(app)[0]
        assert app.session.report.totals.macs == VIT(dim=780).plan().macs
        assert re.search(r"project .*1×197×2340 \*", text_of(app))  # a changed cell is marked
        await press(pilot, "shift+left")
        assert app.session.draft.spec.dim == 384
        await press(pilot, "u")
        assert app.session.draft.spec.dim == 780
        await press(pilot, "u", "u")
        assert app.session.draft.spec.dim == 768
        assert "nothing to undo" in lines_of(app)[-2]
        await press(pilot, "r")
        assert app.session.draft.spec.dim == 780
        await press(pilot, "r", "r")
        assert "nothing to redo" in lines_of(app)[-2]
        assert app.session.draft.spec.dim == 384
        await press(pilot, "backspace")
        assert app.session.draft.spec == VIT()
        await press(pilot, "up", "up", "left")
        names = attentions.names()
        assert app.session.draft.kind.name == names[names.index("vit") - 1]
        await press(pilot, "right", "down", "right", "right")
        assert app.session.draft.command == "attnscope vit --scope model"

    drive(check, Draft(VIT), size)


def test_a_key_before_the_first_report_is_not_lost():
    class Typed(Explorer):
        CSS_PATH = Path(inspect.getfile(Explorer)).with_name("explorer.tcss")

        def on_mount(self) -> None:
            super().on_mount()
            self.simulate_key("down")

    async def check() -> None:
        app = Typed(Draft(VIT))
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            assert app.row.name == "scope"
            assert "▸scope" in text_of(app)

    asyncio.run(check())


def test_a_typed_value_is_set_or_refused_in_place():
    async def check(app: Explorer, pilot: Pilot) -> None:
        await press(pilot, "down", "down", "enter", *"770", "enter")
        refused = "--dim must be divisible by --heads 12 (got 770); nearest: 768 or 780, or --heads 11 or 14"
        assert refused in text_of(app)
        assert app.session.draft.spec.dim == 768
        assert app.focused.id == "prompt"
        await press(pilot, "backspace", "backspace", "backspace", *"792", "enter")
        assert app.session.draft.spec.dim == 792
        assert app.focused.id == "fields"
        await press(pilot, "enter", "1", "escape")
        assert app.session.draft.spec.dim == 792
        await press(pilot, "up", "up", "enter", *"swni", "enter")
        assert "the attention swni is unknown; did you mean swin?" in text_of(app)

    drive(check, Draft(VIT), (120, 40))


EXPECTED = {
    "steps": ("output shape", "add_mask", "13 steps", "verified"),
    "complexity": ("MACs", "global", "swin", "resolution", "B is the current state", "Ω(W-MSA)"),
    "neighbourhood": ("keys of one query", "@ is the query", "one layer"),
    "memory": ("live over the steps", "██", "live", "peak activation memory"),
    "roofline": ("FLOP/B", "t measures the steps"),
    "network": ("Set scope to model",),
    "shard": ("windows=2 on 2 ranks", "bytes sent", "others", "attnscope shard swin --shift --plan"),
}


@sized
def test_every_pane_shows_what_it_should(size):
    async def check(app: Explorer, pilot: Pilot) -> None:
        for place, name in enumerate(PANES, start=1):
            await press(pilot, str(place))
            assert app.shown_panes[0] == name
            assert len(app.shown_panes) == (1 if size[0] < 150 else 2)
            view = "\n".join(line.text.plain for line in app.query_one("#pane").lines)
            for words in EXPECTED[name]:
                assert words in view, (name, words)
            assert f"[{place} {name}]" in text_of(app)

    drive(check, Draft(SWIN, {"shift": True}), size)


@sized
def test_the_network_pane_has_the_stages_of_a_network(size):
    async def check(app: Explorer, pilot: Pilot) -> None:
        await press(pilot, "6")
        view = "\n".join(line.text.plain for line in app.query_one("#pane").lines)
        assert all(words in view for words in ("stage 1", "stage 4", "head", "parts"))
        await press(pilot, "tab", "down")
        assert app.view.id == "pane"
        await press(pilot, "question_mark")
        assert "in the module" in text_of(app)

    drive(check, Draft(networks.spec_class("swin"), {"scope": "model"}), size)


@pytest.mark.parametrize("network", networks.names())
def test_the_network_pane_shows_shares_and_nothing_that_was_not_computed(network):
    async def check(app: Explorer, pilot: Pilot) -> None:
        await press(pilot, "6")
        heading, *rest = [line.text.plain for line in app.query_one("#pane").lines]
        assert "% MACs" in heading
        assert "bwd live" not in heading
        assert not any("?" in line for line in rest)
        assert {line.find("%") for line in rest if "%" in line} == {heading.index("% MACs") + 5}  # aligned

    drive(check, Draft(networks.spec_class(network), {"scope": "model"}), (120, 40))


@sized
def test_a_pinned_state_is_compared_in_every_table(size):
    async def check(app: Explorer, pilot: Pilot) -> None:
        await press(pilot, "p")
        assert "A pinned" in lines_of(app)[0]
        await press(pilot, "down", "down", "right")
        for place in ("1", "4", "5"):
            await press(pilot, place)
            view = "\n".join(line.text.plain for line in app.query_one("#pane").lines)
            assert "Δ" in view
            assert "Δ is B − A; A is attnscope swin" in view
            assert "Δ live" in view or place != "4"
        await press(pilot, "1")
        difference = SWIN(dim=99).plan().macs - SWIN().plan().macs
        view = "\n".join(line.text.plain for line in app.query_one("#pane").lines)
        assert re.search(rf"steps .*\+{difference / 1e6:.2f} M", view)
        await press(pilot, "2")
        assert "A the pinned one" in "\n".join(line.text.plain for line in app.query_one("#pane").lines)
        await press(pilot, "p")
        assert "A pinned" not in lines_of(app)[0]

    drive(check, Draft(SWIN), size)


@sized
def test_a_typed_plan_shards_the_state_or_is_refused_in_place(size):
    def view(app: Explorer) -> str:
        return " ".join(line.text.plain.strip() for line in app.query_one("#pane").lines)

    async def check(app: Explorer, pilot: Pilot) -> None:
        await press(pilot, "d")
        assert app.shown_panes[0] == "shard"
        await press(pilot, *"windows=4", "enter")
        assert app.session.sharding_of(app.session.draft).totals.bytes_sent == 129_024
        assert "129,024 B by one rank" in view(app)
        await press(pilot, "d", *"tp=2", "enter")
        assert app.focused.id == "prompt"
        assert app.session.mesh == "windows=4"
        assert "--plan tp must divide the heads (got 3 heads on 2 ranks)" in text_of(app)
        await press(pilot, "escape", "p", "down", "down", "shift+right")  # twice the channels
        assert "+129,024 B" in view(app)
        heading = app.query_one("#pane").lines[1].text.plain
        assert "Δ bytes sent" in heading or size == (80, 24)
        await press(pilot, "tab", "down", "question_mark")
        assert "MACs of one rank" in text_of(app)

    drive(check, Draft(SWIN, {"shift": True}), size)


def test_a_state_that_its_plan_cannot_cut_says_why():
    async def check(app: Explorer, pilot: Pilot) -> None:
        await press(pilot, "d", *"tp=3", "enter", "down", "down", "down", "left")
        assert app.session.draft.spec.heads == 2
        assert "--plan tp must divide the heads (got 2 heads on 3 ranks)" in text_of(app)
        await press(pilot, "d", "backspace", "enter")
        assert "tp=2 on 2 ranks" in text_of(app) or "windows=2 on 2 ranks" in text_of(app)

    drive(check, Draft(SWIN), (120, 40))


@sized
def test_arrows_move_the_token_of_the_neighbourhood(size):
    async def check(app: Explorer, pilot: Pilot) -> None:
        await press(pilot, "3", "tab", "up", "up", "right")
        assert app.token == (26, 29)
        view = " ".join(line.text.plain for line in app.query_one("#pane").lines)
        assert "row 26, column 29" in view
        assert re.search(r"21–27\s+28–34", view)
        for _ in range(4):
            await press(pilot, "pageup")
        assert app.token == (0, 29)  # stays in the grid

    drive(check, Draft(SWIN), size)


@sized
def test_a_change_that_fits_draws_no_whole_screen(size):
    """A layout draws every line; other keys draw the lines that differ."""

    async def check(app: Explorer, pilot: Pilot) -> None:
        await press(pilot, "down", "down", "down", "right")
        laid_out: list[bool] = []
        lay_out = app.screen._refresh_layout
        app.screen._refresh_layout = lambda *words, **named: laid_out.append(True) or lay_out(*words, **named)
        before = app.query_one("#pane").virtual_size
        await press(pilot, "right", "u", "r")
        assert app.query_one("#pane").virtual_size == before
        assert not laid_out

    drive(check, Draft(SWIN), size)


@sized
def test_a_table_that_fits_has_no_bar_to_scroll_it(size):
    async def drive_it(app, pilot):
        for name in PANES:
            await press(pilot, str(list(PANES).index(name) + 1), "p", "down", "right", "p", "p")
            for view in (app._pane, app._companion):
                widest = max((line.text.cell_len for line in view.lines), default=0)
                assert view.show_horizontal_scrollbar == (widest > view.width)

    drive(drive_it, Draft(SWIN), size)


def test_keys_that_come_at_once_act_in_their_order():
    """As from a paste, or a slow connection that bundles them."""

    def post(app: Explorer, *keys: str) -> None:
        for key in keys:
            app.post_message(events.Key(key, key if len(key) == 1 else None))

    async def check(app: Explorer, pilot: Pilot) -> None:
        await press(pilot, "down", "down")
        post(app, "enter", *"79", "backspace", *"80", "enter", "right", "p", "3")
        await pilot.pause(0.5)
        assert (app.session.draft.spec.dim, app.pane) == (792, "neighbourhood")
        assert app.session.pinned is app.session.draft
        post(app, "enter", *"77", "0", "enter", "escape", "u", "question_mark", "escape", "2", "down")
        await pilot.pause(0.5)
        assert (app.session.draft.spec.dim, app.pane, app.hint) == (780, "complexity", "")
        post(app, "tab", "down", "shift+tab", "right")
        await pilot.pause(0.5)
        assert app.view is app._fields

    drive(check, Draft(VIT))


def test_the_quality_of_a_measurement_is_that_of_the_state_that_was_measured():
    async def check(app: Explorer, pilot: Pilot) -> None:
        measured, report = app.session.draft, golden.timed(app.session.report)
        await press(pilot, "down", "down", "right")
        app._finish(measured, ("report", report))
        assert app.hint.startswith(" the state before: ")
        app._finish(app.session.draft, ("report", golden.timed(app.session.report)))
        assert "the state before" not in app.hint

    drive(check, Draft(VIT))


def test_a_full_collection_of_garbage_is_rare():
    async def check(app: Explorer, pilot: Pilot) -> None:
        assert gc.isenabled()
        assert gc.get_threshold()[2] >= 500

    threshold = gc.get_threshold()
    try:
        drive(check, Draft(VIT))
    finally:
        gc.set_threshold(*threshold)
        gc.unfreeze()


@pytest.mark.parametrize(
    ("size", "words"), [((80, 24), "not all lines fit that separate patches"), ((120, 40), "lines separate patches")]
)
def test_the_legend_says_whether_all_lines_are_drawn(size, words):
    async def check(app: Explorer, pilot: Pilot) -> None:
        await press(pilot, "3")
        lines = [line.text.plain for line in app.query_one("#pane").lines]
        assert words in " ".join(line.strip() for line in lines)
        assert any("│" in line for line in lines) == (size == (120, 40))

    drive(check, Draft(attentions.spec_class("pvt")), size)


def test_an_attention_without_a_grid_says_why_it_has_no_picture():
    async def check(app: Explorer, pilot: Pilot) -> None:
        await press(pilot, "3", "tab", "up")
        view = " ".join(line.text.plain for line in app.query_one("#pane").lines)
        assert "global attention: 197 keys for each query" in view
        assert "has no picture" in view

    drive(check, Draft(VIT))


@sized
def test_the_focused_row_is_explained(size):
    async def check(app: Explorer, pilot: Pilot) -> None:
        await press(pilot, "down", "down", "question_mark")
        assert isinstance(app.screen, Explanation)
        assert "dim: Embedding dimension." in text_of(app)
        assert "default 768" in text_of(app)
        await press(pilot, "escape", "tab", "down", "down", "question_mark")
        assert "29,805,312 MACs" in text_of(app)  # of score
        await press(pilot, "question_mark")
        assert not isinstance(app.screen, Explanation)

    drive(check, Draft(VIT), size)


def test_the_palette_finds_presets_and_commands():
    async def check(app: Explorer, pilot: Pilot) -> None:
        await press(pilot, "slash")
        await pilot.pause(0.3)
        assert "vit-s-32-224" in text_of(app)
        found = next(preset for preset in presets() if preset.command == "swinv2")
        await press(pilot, *found.name)
        await pilot.pause(0.5)
        await press(pilot, "enter")
        await pilot.pause(0.3)
        await press(pilot, "enter")
        await pilot.pause(0.2)
        assert app.session.draft.spec == found.spec
        await press(pilot, "ctrl+p")
        await press(pilot, *"pin as")
        await pilot.pause(0.5)
        await press(pilot, "enter")
        await pilot.pause(0.3)
        await press(pilot, "enter")
        await pilot.pause(0.2)
        assert app.session.pinned is not None

    drive(check, Draft(VIT))


def test_a_click_selects_changes_and_chooses():
    async def check(app: Explorer, pilot: Pilot) -> None:
        place = next(index for index, line in enumerate(lines_of(app)) if line.startswith(" dim "))
        await pilot.click("#fields", offset=(2, place - 1))
        await pilot.pause()
        assert app.row.name == "dim"
        line = lines_of(app)[place]
        await pilot.click("#fields", offset=(line.index("›"), place - 1))
        await pilot.pause()
        assert app.session.draft.spec.dim == 780
        await pilot.click("#fields", offset=(line.index("‹"), place - 1))
        await pilot.pause()
        assert app.session.draft.spec.dim == 768
        tabs = lines_of(app)[1][app.query_one("#tabs").region.x :]
        await pilot.click("#tabs", offset=(tabs.index("4"), 0))
        await pilot.pause()
        assert app.pane == "memory"

    drive(check, Draft(VIT))


def test_a_resize_adapts_the_layout():
    async def check(app: Explorer, pilot: Pilot) -> None:
        for width, height, panes in ((80, 24, 1), (200, 60, 2), (100, 60, 2), (80, 24, 1), (40, 10, 1)):
            await pilot.resize_terminal(width, height)
            await pilot.pause()
            assert len(app.shown_panes) == panes
            assert len(lines_of(app)) == height
            assert max(map(len, lines_of(app))) <= width

    drive(check, Draft(SWIN))


def test_after_a_resize_the_panes_are_as_if_it_had_started_so():
    """The panes had the lines of the size before, since the views have their size only after the layout."""
    sizes = ((200, 60), (80, 24), (120, 40), (60, 20), (160, 30), (80, 24))
    fresh: list[list[str]] = []

    async def start(app: Explorer, pilot: Pilot) -> None:
        fresh.append(lines_of(app))

    async def check(app: Explorer, pilot: Pilot) -> None:
        for size, expected in zip(sizes, fresh, strict=True):
            await pilot.resize_terminal(*size)
            await pilot.pause()
            assert lines_of(app) == expected

    for size in sizes:
        drive(start, Draft(SWIN), size)
    drive(check, Draft(SWIN))


@sized
def test_it_is_readable_in_ascii(size):
    async def check(app: Explorer, pilot: Pilot) -> None:
        await press(pilot, "p", "down", "down", "right")
        for place in range(1, len(PANES) + 1):
            await press(pilot, str(place))
            assert text_of(app).isascii(), [line for line in lines_of(app) if not line.isascii()]
            assert "?" not in text_of(app).replace("? help", "")
        for window in ("question_mark", "slash", "ctrl+p"):
            await press(pilot, window)
            await pilot.pause(0.3)
            assert text_of(app).isascii(), [line for line in lines_of(app) if not line.isascii()]
            await press(pilot, "escape")

    drive(check, Draft(SWIN), size, ascii=True)


def test_without_color_it_has_the_colors_of_the_terminal(monkeypatch):
    """Textual made text and background black."""

    async def check(app: Explorer, pilot: Pilot) -> None:
        await press(pilot, "p", "down", "down", "right")  # marks have a color
        styles = [segment.style for strip in app.screen._compositor.render_strips() for segment in strip]
        colors = {color.name for style in styles if style for color in (style.color, style.bgcolor) if color}
        assert colors == {"default"}
        assert re.search(r"project .*×297 \*", text_of(app))

    monkeypatch.setenv("NO_COLOR", "1")
    drive(check, Draft(SWIN), (120, 40))


def test_the_screen_is_as_expected():
    """After an intended change, run `python -m tests.golden` and review the difference."""
    assert explorer_screen() == (FOLDER / "explorer.svg").read_text(encoding="utf-8")


STARTS = {
    "attention": (lambda: Draft(SWIN), SIZES[0]),
    "network": (lambda: Draft(networks.spec_class("swin"), {"scope": "model"}), SIZES[0]),
    "linear": (lambda: Draft(attentions.spec_class("linear")), SIZES[1]),
    "preset": (lambda: Draft.of(next(each.spec for each in presets() if each.name == "pvt-v2-b2-li-224")), SIZES[2]),
}
"""A draft and a size of the terminal, by name."""


@pytest.mark.parametrize("start", STARTS)
def test_a_copied_command_gives_the_same_report(start, tmp_path, monkeypatch):
    """The command of every state that was copied in 500 random keys runs again."""
    from attnscope.cli.program import app as program

    keys = (
        "left",
        "right",
        "left",
        "right",
        "up",
        "down",
        "down",
        "shift+left",
        "shift+right",
        "u",
        "r",
        "p",
        "tab",
        "delete",
        *"1234567",
        "c",
    )
    saved: dict[str, dict[str, object]] = {}

    async def check(app: Explorer, pilot: Pilot) -> None:
        random.seed(start)
        for _ in range(20):
            for key in (*random.choices(keys, k=24), "c"):
                app.simulate_key(key)
            await pilot.pause()
            report = app.session.whole_report
            saved[app.copied[-1]] = json.loads(report.to_json())

    draft, size = STARTS[start]
    drive(check, draft(), size)
    assert len(saved) >= 6
    for index, (command, expected) in enumerate(saved.items()):
        file = tmp_path / f"{index}.json"
        words = shlex.split(command)[1:]
        assert words[-1] == "--no-time"
        program([*words, "--json", "-o", str(file)], standalone_mode=False)
        found = json.loads(file.read_text(encoding="utf-8"))
        ours = {"command", "next", "environment"}
        assert {key: value for key, value in found.items() if key not in ours} == {
            key: value for key, value in expected.items() if key not in ours
        }, command


def test_a_run_is_saved_or_refused_in_place(tmp_path):
    saved: list[tuple[str, Path]] = []

    def save(report, path) -> None:
        check_file("save", path)
        saved.append((report.command, path))

    async def check(app: Explorer, pilot: Pilot) -> None:
        await press(pilot, "s")
        app.query_one("#prompt").value = str(tmp_path / "no" / "run.json")
        await press(pilot, "enter")
        assert "--save must be in an existing folder" in text_of(app)
        await press(pilot, "escape", "s")
        app.query_one("#prompt").value = str(tmp_path / "run.json")
        await press(pilot, "enter")
        assert saved == [("attnscope vit --no-time", tmp_path / "run.json")]
        assert f"saved to {tmp_path}" in text_of(app)

    drive(check, Draft(VIT), (200, 60), Tools(save=save))


@pytest.mark.parametrize("ascii", [False, True], ids=["unicode", "ascii"])
def test_a_long_message_is_shown_as_a_whole_and_a_long_title_ends_with_an_ellipsis(ascii):
    """The fix of an error is at its end. After the message, the panes have their lines again."""

    async def check(app: Explorer, pilot: Pilot) -> None:
        height = app.query_one("#pane").size.height
        await press(pilot, *["down"] * 2, "enter")
        app.query_one("#prompt").value = "770"
        await press(pilot, "enter")
        shown = " ".join(text_of(app).split())
        assert "--dim must be divisible by --heads 12 (got 770); nearest: 768 or 780, or --heads 11 or 14" in shown
        await press(pilot, "escape")
        assert app.query_one("#pane").size.height == height
        app.change_to(
            Draft(networks.spec_class("swin"), {"scope": "model", "depths": (2, 2, 18, 2), "dim": 128, "heads": 4})
        )
        await press(pilot, "p")
        title = lines_of(app)[0]
        assert title.endswith(" ~" if ascii else " …")
        assert len(title) <= 80
        app.change_to(Draft(SWIN))
        await press(pilot, *["up"] * 9)
        assert re.search(r"attention: Windowed attention, as in .* […~]$", lines_of(app)[-2])

    drive(check, Draft(VIT), (80, 24), ascii=ascii)


def test_an_explanation_has_lines_and_a_prompt_leaves_no_text():
    async def check(app: Explorer, pilot: Pilot) -> None:
        await press(pilot, "question_mark")
        assert "\\x0a" not in app.screen.words
        assert app.screen.words.count("\n") > 1
        await press(pilot, "escape", "h", "escape")
        assert "Esc leaves it" not in text_of(app)

    drive(check, Draft(VIT), (200, 60))


def test_a_page_is_written(tmp_path):
    written: list[tuple[str, Path]] = []

    async def check(app: Explorer, pilot: Pilot) -> None:
        await press(pilot, "h")
        assert app.query_one("#prompt").value == "vit.html"
        app.query_one("#prompt").value = str(tmp_path / "vit.html")
        await press(pilot, "enter")
        assert written == [("attnscope vit --no-time", tmp_path / "vit.html")]

    def write_page(report, path) -> None:
        written.append((report.command, path))

    drive(check, Draft(VIT), (200, 60), Tools(write_page=write_page))


def test_a_worker_process_measures_and_can_be_cancelled():
    async def check(app: Explorer, pilot: Pilot) -> None:
        await press(pilot, "t")
        assert app.run_in_progress is not None
        await press(pilot, "down", "down", "right")  # the interface does not wait
        assert app.session.draft.spec.dim == 9
        await wait_for(pilot, lambda: app.run_in_progress is None)
        assert "timing" in text_of(app) or "noisy" in text_of(app) or "steady" in text_of(app)
        assert app.session.report.time is None  # the times are those of the state before
        await press(pilot, "u")
        assert app.session.report.time is not None
        assert "time" in "\n".join(line.text.plain for line in app.query_one("#pane").lines)
        assert app.command == "attnscope vit --dim 8 --heads 1 --tokens 4 --budget 0.01"
        await press(pilot, "5")
        assert "time / bound" in "\n".join(line.text.plain for line in app.query_one("#pane").lines)
        await press(pilot, "t")
        worker = app.run_in_progress._process
        await press(pilot, "escape")
        await wait_for(pilot, lambda: app.run_in_progress is None)
        assert "cancelled" in text_of(app)
        assert worker.returncode is not None

    draft = Draft(VIT, {"dim": 8, "heads": 1, "tokens": 4})
    drive(check, draft, (120, 40), Tools(options={"budget": 0.01}, flags=" --budget 0.01"))


def test_the_end_of_a_measurement_keeps_the_question_of_a_prompt():
    async def check(app: Explorer, pilot: Pilot) -> None:
        await press(pilot, "t", "s")
        await wait_for(pilot, lambda: app.run_in_progress is None)
        assert "save the run to: Enter accepts, Esc leaves it" in text_of(app)
        await press(pilot, "escape")
        assert "timing" in text_of(app) or "noisy" in text_of(app) or "steady" in text_of(app)
        await press(pilot, "down")
        assert not app.hint

    draft = Draft(VIT, {"dim": 8, "heads": 1, "tokens": 4})
    drive(check, draft, (120, 40), Tools(options={"budget": 0.01}, flags=" --budget 0.01"))


async def wait_for(pilot: Pilot, is_done: Callable[[], bool]) -> None:
    for _ in range(1200):
        if is_done():
            await pilot.pause()
            return
        await pilot.pause(0.05)
    raise TimeoutError


def test_a_worker_process_loads_an_attention_of_a_folder(monkeypatch):
    monkeypatch.setattr(discovery, "_loaded", {})  # other tests list the attentions
    spec = attentions.load(Path(__file__).parents[1] / "examples" / "sra")
    *_, last = Run(Request.of(Draft(spec, {"dim": 32}), time=False)).answers()
    assert last[0] == "report"
    assert last[1].totals.macs == spec(dim=32).plan().macs


def test_a_worker_process_reports_an_error():
    request = Request.of(Draft(VIT, {"tokens": 10**9}), device="cpu", time=True)
    *_, last = Run(request).answers()
    assert last[0] == "error"
    assert "GiB" in last[1] or "TiB" in last[1] or "PiB" in last[1]


WITHOUT = "import sys; sys.modules['textual'] = None; from attnscope.cli import main; main()"
LOADED = """
import sys
from attnscope.attentions import spec_class
from attnscope.attentions.draft import Draft
from attnscope.tui.explorer import Explorer
app = Explorer(Draft(spec_class("vit")))
app.call_later(app.call_after_refresh, app.exit)
app.run(headless=True)
sys.exit(f"loaded {found}" if (found := {"torch", "numpy", "fvcore", "pydantic"} & {*sys.modules}) else 0)
"""


INSTALL = 'textual is not installed; run python -m pip install "attnscope[explore]"'
PIPED = "explore requires a terminal; for output in a pipe or a file, use: attnscope swin --shift"
REFUSED = "--dim must be divisible by --heads 12 (got 770); nearest: 768 or 780, or --heads 11 or 14"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-c", WITHOUT, "explore"], INSTALL),
        (["-m", "attnscope", "explore", "swin", "--shift"], PIPED),
        (["-m", "attnscope", "explore", "swni"], "the attention swni is unknown; did you mean swin?"),
        (["-m", "attnscope", "explore", "cswin-t-224"], PIPED.replace("swin --shift", "cswin --scope model")),
        (["-m", "attnscope", "explore", "vit", "--dim", "770"], REFUSED),
        (["-c", LOADED], ""),
    ],
    ids=["no Textual", "no terminal", "unknown", "preset", "refused", "no torch"],
)
def test_a_start_that_cannot_be_is_one_line(words, message):
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.stderr == (f"attnscope: {message}\n" if message else "")
    assert bool(done.returncode) is bool(message)


@pytest.fixture
def terminal() -> Iterator[Callable[..., str]]:
    """Return a function that runs a command of tmux in a session of its own."""
    socket = f"attnscope-{os.getpid()}"

    def tmux(*words: str) -> str:
        return subprocess.run(["tmux", "-L", socket, *words], capture_output=True, text=True, check=True).stdout

    tmux(
        "-f", os.devnull, "new-session", "-d", "-s", "test", "-x", "80", "-y", "24", "env PS1='ready$ ' bash --norc -i"
    )
    yield tmux
    tmux("kill-server")


def wait_for_text(tmux: Callable[..., str], words: str, seconds: float = 30) -> str:
    """Return the screen of the terminal once it has these words."""
    end = time.monotonic() + seconds
    screen = ""
    while time.monotonic() < end:
        screen = tmux("capture-pane", "-p", "-t", "test")
        if words in screen:
            return screen
        time.sleep(0.1)
    raise AssertionError(f"{words} is not on the screen:\n{screen}")


@pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")
def test_a_real_terminal_is_left_as_it_was(terminal):
    """Type, resize and quit; then Ctrl-C. The environment has COLUMNS and LINES, as that of some shells."""

    def send(*keys: str) -> None:
        terminal("send-keys", "-t", "test", *keys)

    python = f"COLUMNS=80 LINES=24 PYTHONPATH={Path(__file__).parents[1]} {sys.executable}"
    send(f"clear; stty -a | cksum; {python} -m attnscope explore swin --shift; echo code $?; stty -a | cksum", "Enter")
    wait_for_text(terminal, "[1 steps]")
    for key, expected in (("Down", "▸scope"), ("Down", "▸dim"), ("Right", "‹ 99 ›")):
        send(key)
        wait_for_text(terminal, expected)
    terminal("resize-window", "-t", "test", "-x", "160", "-y", "45")
    wait_for_text(terminal, "[2 complexity]")
    wait_for_text(terminal, "% MACs")
    terminal("resize-window", "-t", "test", "-x", "80", "-y", "24")
    wait_for_text(terminal, "92.2 M")
    send("c")
    wait_for_text(terminal, "copied: attnscope swin --dim 99 --shift --no-time")
    send("q")
    screen = wait_for_text(terminal, "code 0")
    assert "attnscope swin --dim 99 --shift --no-time\n" in screen
    assert len(set(re.findall(r"^\d+ \d+$", wait_for_text(terminal, "ready$"), re.MULTILINE))) == 1
    send(f"clear; {python} -m attnscope explore; echo code $?; stty -a | cksum", "Enter")
    wait_for_text(terminal, "[1 steps]")
    send("C-c")
    wait_for_text(terminal, "code 130")
