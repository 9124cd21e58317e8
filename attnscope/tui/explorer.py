"""The live explorer: the app that turns keys and clicks into changes of the session, and shows its panes."""

import asyncio
import gc
import signal
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from textual import events
from textual.app import App, ComposeResult, SystemCommand
from textual.binding import Binding, BindingType
from textual.command import CommandPalette
from textual.containers import Container, Horizontal, Vertical
from textual.screen import ModalScreen
from textual.screen import Screen as Page
from textual.widgets import Static

from attnscope.analyses.worker import Request, Run
from attnscope.attentions.draft import Draft
from attnscope.core.errors import AttnscopeError
from attnscope.core.sizes import Pair
from attnscope.networks.presets import Preset
from attnscope.render.explorer.fields import field_lines
from attnscope.render.screen import Screen
from attnscope.reports.report import Report
from attnscope.tui.palette import AllPresets, Presets
from attnscope.tui.panes import MEMORY, PANES, SHARD, View, moved
from attnscope.tui.rows import Row, rows_of, value_in, values_beside
from attnscope.tui.session import Session
from attnscope.tui.widgets import Explanation, LineView, Prompt, Tabs

WIDE, TALL = 150, 44
"""Columns and lines from which two panes are shown, side by side or one above the other."""
ROOMY = 110
"""Columns from which the fields have more room."""
COLLECTIONS = 500
"""Collections of young objects until a full one; a key causes about two."""
SIGNS = {"slash": "/", "question_mark": "?"}
"""The signs of keys that have a name in Textual."""
WITHOUT_COMMAND = ("leave", "interrupt", "quit_now", "focus_next", "focus_previous")
"""Actions of keys that are not in the palette."""
KEYS = (
    "←→ value  ↑↓ row  Tab pane  Enter type  p pin  t time  d shard  c copy"
    "  s save  h page  / preset  ? help  u undo  q quit"
)


def _key(keys: str, action: str, description: str) -> Binding:
    """Return the binding of a key that acts before a widget gets it, so that keys act in their order."""
    return Binding(keys, action, description, priority=True)


@dataclass(frozen=True)
class Tools:
    """The parts of the command line that the explorer calls.

    Args:
        spell: a function that completes a command, with the folders of its attentions.
        save: a function that writes a report as JSON to a file.
        write_page: a function that writes the page of a report to a file.
        options: options of a timed run, as arguments of `explore`.
        flags: the same options as flags, for the copied command.
    """

    spell: Callable[[str], str] = str
    save: Callable[[Report, Path], None] = lambda report, path: None
    write_page: Callable[[Report, Path], None] = lambda report, path: None
    options: Mapping[str, Any] = field(default_factory=dict)
    flags: str = ""


class Explorer(App[list[str]]):
    """The live explorer; it returns the copied commands."""

    CSS_PATH = "explorer.tcss"
    COMMANDS: ClassVar[set[Any]] = {*App.COMMANDS, Presets}
    ENABLE_COMMAND_PALETTE = True
    BINDINGS: ClassVar[list[BindingType]] = [
        _key("left", "step(-1)", "Value below"),
        _key("right", "step(1)", "Value above"),
        _key("shift+left", "step(-1, 2)", "Half"),
        _key("shift+right", "step(1, 2)", "Twice"),
        _key("up", "move(-1)", "Row above"),
        _key("down", "move(1)", "Row below"),
        _key("pageup", "move(-10)", "Page above"),
        _key("pagedown", "move(10)", "Page below"),
        _key("enter", "type", "Type a value"),
        _key("backspace,delete", "unset", "Use the default"),
        *(_key(str(place), f"choose('{name}')", f"Show {name}") for place, name in enumerate(PANES, start=1)),
        _key("p", "pin", "Pin as A, compare B − A"),
        _key("t", "time", "Measure here, or cancel"),
        _key("d", "shard", "Type a plan of several devices"),
        _key("c", "copy", "Copy the command"),
        _key("s", "save", "Save the run"),
        _key("h", "write_page", "Write the page"),
        _key("slash", "preset", "Find a preset"),
        _key("question_mark", "explain", "Explain the row"),
        _key("u,ctrl+z", "undo", "Undo"),
        _key("r,ctrl+y", "redo", "Redo"),
        _key("escape", "leave", "Cancel"),
        _key("tab", "focus_next", "Next pane"),
        _key("shift+tab", "focus_previous", "Pane before"),
        _key("q", "quit", "Quit"),
        _key("ctrl+q", "quit_now", "Quit"),
        _key("ctrl+c", "interrupt", "Quit"),
    ]
    OF_PANES: ClassVar[frozenset[str]] = frozenset(
        binding.action.partition("(")[0] for binding in BINDINGS if isinstance(binding, Binding)
    ) - {"quit_now", "interrupt"}
    """The actions that wait while the prompt or a window takes the keys."""

    def __init__(self, draft: Draft, tools: Tools | None = None, ascii: bool = False) -> None:
        super().__init__(ansi_color=True)  # before the theme; otherwise NO_COLOR turns the terminal's colors into black
        self.theme = "ansi-dark"
        self.session = Session(draft)
        self.tools = tools or Tools()
        self.ascii = ascii
        self.pane = next(iter(PANES))
        self.token: Pair | None = None
        self.hint = ""
        self.copied: list[str] = []
        self.run_in_progress: Run | None = None
        self._rows = rows_of(draft)
        self._places: dict[int, Row] = {}
        self._asking: Callable[[str], None] | None = None
        self._news = ""

    # the widgets

    def compose(self) -> ComposeResult:
        """Build the widgets."""
        yield Static(id="title", markup=False)
        with Horizontal():
            yield LineView("fields", self.ascii)
            with Vertical(id="right"):
                yield Tabs(list(PANES))
                with Container(id="panes"):
                    yield LineView("pane", self.ascii)
                    yield LineView("companion", self.ascii)
        yield Static(id="hint", markup=False)
        yield Prompt(self._accept, self.action_leave)
        yield Static(id="keys", markup=False)

    def on_mount(self) -> None:
        """Show the first report, and end on signals as on `q`."""
        self._fields, self._pane = self.query_one("#fields", LineView), self.query_one("#pane", LineView)
        self._companion, self._tabs = self.query_one("#companion", LineView), self.query_one(Tabs)
        self._prompt = self.query_one(Prompt)
        self.set_class(self.ascii, "ascii")
        self._fields.focus()
        self._show_fields()  # keys may come before the first report

        # The command line disabled the collector, but this process may run for hours. A full collection takes as long
        # as a key may, so it is rare.
        gc.freeze()
        gc.set_threshold(*gc.get_threshold()[:2], COLLECTIONS)
        gc.enable()
        with suppress(NotImplementedError, RuntimeError):  # on Windows, or not in the main thread
            for name in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(name, self.exit, self.copied, 128 + name)
        self.call_after_refresh(self.update)

    def on_unmount(self) -> None:
        """End the worker process."""
        if self.run_in_progress is not None:
            self.run_in_progress.cancel()

    def on_resize(self, event: events.Resize) -> None:
        """Choose the layout that the size allows."""
        width, height = event.size
        self.set_class(width >= ROOMY, "roomy")
        self.set_class(width >= WIDE, "wide")
        self.set_class(width < WIDE and height >= TALL, "tall")
        self.call_after_refresh(self.update)

    # what is on the screen

    @property
    def shown_panes(self) -> list[str]:
        """Return the panes on the screen: the chosen one, and the next one if there is room."""
        names = list(PANES)
        place = names.index(self.pane)
        has_two = self.has_class("wide") or self.has_class("tall")
        return [self.pane, names[(place + 1) % len(names)]] if has_two else [self.pane]

    def update(self) -> None:
        """Show the current state."""
        self.session.needs_whole = MEMORY in self.shown_panes
        report, draft = self.session.report, self.session.draft
        screen = self._screen(self.size.width)
        pinned = "A pinned · " if self.session.pinned is not None else ""
        self._write("#title", self._cut(f" {pinned}{report.title}"))
        self._rows = rows_of(draft)
        self._show_fields()
        self._tabs.show(self.shown_panes)
        for name, view in zip(self.shown_panes, (self._pane, self._companion), strict=False):
            self._show_pane(name, view)
        keys = screen.text(KEYS)
        self._write("#keys", keys if len(keys) <= self.size.width else f"{keys[: self.size.width - 9]} ^p more")
        self._show_hint()

    def _show_fields(self) -> None:
        lines, self._places = field_lines(self._rows, self._screen(self._fields.width))
        self._fields.show(lines)

    def _show_pane(self, name: str, view: LineView) -> None:
        try:
            lines = PANES[name](View(self.session, self.token, self._screen(view.width), view.size.height))
        except AttnscopeError as error:
            self.hint = error.in_flags()
            return
        view.show(lines)

    def _show_hint(self) -> None:
        """Show the message in as many lines as it needs, since the fix of an error is at its end."""
        self.set_class(len(self.hint) > self.size.width, "long")  # a layout draws the whole screen, so it is rare
        self._write("#hint", self.hint or self._cut(self._beside()), layout=self.has_class("long"))

    def _cut(self, words: str) -> str:
        """Return a text that fits in a line of the screen, with an ellipsis at the end of a longer one."""
        width = self.size.width
        screen = self._screen(width)
        words = screen.text(words)  # in ASCII, an arrow has two signs
        return words if len(words) <= width else f"{words[: width - 2].rstrip(' ·')} {screen.text('…')}"

    def _beside(self) -> str:
        """Return the values beside that of the row with the cursor, and what the row is."""
        row = self.row
        if row is None:
            return ""
        below, above = values_beside(row, lambda draft: value_in(draft, row.name))
        return f" ← {below or '|'}  {row.value}  {above or '|'} →   {row.help.splitlines()[0]}"

    def _write(self, id: str, words: str, layout: bool = False) -> None:
        self.query_one(id, Static).update(self._screen(self.size.width).text(words), layout=layout)

    def _screen(self, width: int) -> Screen:
        return Screen(width=max(width, 20), color=True, ascii=self.ascii, quiet=True, pages=False)

    @property
    def row(self) -> Row | None:
        """Return the row of the fields that has the cursor."""
        return self._places.get(self._fields.cursor)

    @property
    def view(self) -> LineView:
        """Return the view with the focus, by default that of the fields."""
        return self.focused if isinstance(self.focused, LineView) else self._fields

    def _moves_token(self) -> bool:
        shown = dict(zip((self._pane, self._companion), self.shown_panes, strict=False))
        return shown.get(self.view) == "neighbourhood"

    def say(self, words: str) -> None:
        """Show a message until the next key."""
        self.hint = f" {words}"
        self._show_hint()

    def report_news(self, words: str) -> None:
        """Show a message of the measurement; while a prompt is open, its question stays."""
        if self._asking is None:
            self.say(words)
        else:
            self._news = f" {words}"

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Return whether a key acts on the panes: not while a window or the prompt takes the keys.

        Its binding has priority, so that keys act in their order, also if several come at once.
        """
        is_free = self._asking is None and not isinstance(self.screen, ModalScreen)
        return is_free or action not in self.OF_PANES

    # changes

    def change_to(self, draft: Draft) -> None:
        """Make a draft the current one, or show why it cannot be."""
        try:
            self.session.change_to(draft)
        except AttnscopeError as error:
            self.say(error.in_flags())
            return
        self.hint = ""
        self.update()

    def action_step(self, sign: int, factor: int = 1) -> None:
        """Change the field with the cursor to the next legal value, move the token, or scroll the pane."""
        self.hint = ""
        if self.view is self._fields:
            if self.row is not None:
                self.change_to(self.row.step(sign, factor))
        elif self._moves_token():
            self._move_token(0, sign * factor)
        else:
            self.view.scroll_to(x=self.view.scroll_x + 8 * sign, animate=False)

    def action_move(self, by: int) -> None:
        """Move the cursor or the token."""
        self.hint = ""
        if self._moves_token():
            self._move_token(by, 0)
            return
        self.view.move(by)
        if self.view is self._fields:
            self._show_fields()
        self._show_hint()

    def _move_token(self, down: int, across: int) -> None:
        self.token = moved(self.token, self.session, down, across)
        self._show_pane("neighbourhood", self.view)

    def action_unset(self) -> None:
        """Set the field with the cursor to its default."""
        if self.row is not None and self.view is self._fields and self.row.group:
            self._try(lambda: self.change_to(self.row.type("")) if self.row else None)

    def action_undo(self) -> None:
        """Go back to the state before."""
        self.hint = "" if self.session.undo() else " nothing to undo"
        self.update()

    def action_redo(self) -> None:
        """Return to the state that was undone."""
        self.hint = "" if self.session.redo() else " nothing to redo"
        self.update()

    def action_choose(self, name: str) -> None:
        """Show a pane."""
        self.pane, self.hint = name, ""
        self._pane.cursor = self._companion.cursor = 0
        self._pane.scroll_to(0, 0, animate=False)
        self.update()

    def action_pin(self) -> None:
        """Pin the current report as A, or remove the pin."""
        is_pinned = self.session.pin()
        self.hint = " pinned as A; tables show B − A" if is_pinned else " A is no longer pinned"
        self.update()

    def action_explain(self) -> None:
        """Explain the row with the cursor."""
        words = self.view.topic or "This line has no explanation. Move the cursor to a field or to a row of a table."
        self.push_screen(Explanation(words, self._screen(self.size.width)))

    def action_preset(self) -> None:
        """Find a preset."""
        self.push_screen(CommandPalette(providers=[AllPresets], placeholder="Find a preset"))

    def action_command_palette(self) -> None:
        """Find a command; the placeholder of Textual has a sign that ASCII has not."""
        if not isinstance(self.screen, CommandPalette):
            self.push_screen(CommandPalette(placeholder="Find a command", id="--command-palette"))

    def open_preset(self, preset: Preset) -> None:
        """Show the whole network of a preset."""
        self.change_to(Draft.of(preset.spec))

    def action_interrupt(self) -> None:
        """Quit as on a signal; Ctrl-C in the terminal is a key and no signal."""
        self.exit(self.copied, 128 + signal.SIGINT)

    async def action_quit(self) -> None:
        """Quit."""
        self.exit(self.copied)

    def action_quit_now(self) -> None:
        """Quit, also while the prompt or a window takes the keys."""
        self.exit(self.copied)

    # the prompt

    def ask(self, question: str, text: str, then: Callable[[str], None]) -> None:
        """Ask for a text below the hint; an error of `then` is shown in place."""
        self._asking = then
        self.say(f"{question}: Enter accepts, Esc leaves it")
        self._prompt.value = text
        self.add_class("asking")
        self._prompt.is_open = True
        self.screen.set_focus(self._prompt)  # at once, since the next key may be here

    def _accept(self, text: str) -> None:
        """Hand the typed text on, and show why it cannot be."""
        asking = self._asking
        if asking is not None and self._try(lambda: asking(text)):
            self._close_prompt()

    def _close_prompt(self) -> None:
        self._asking = None
        self._prompt.is_open = False
        self.hint, self._news = self.hint or self._news, ""
        self.remove_class("asking")
        self.screen.set_focus(self._fields)
        self._show_hint()

    def _try(self, change: Callable[[], object]) -> bool:
        try:
            change()
        except AttnscopeError as error:
            self.say(error.in_flags())
            return False
        return True

    def action_leave(self) -> None:
        """Close the prompt, or cancel the measurement."""
        if self._asking is not None:
            self.hint = ""
            self._close_prompt()
        elif self.run_in_progress is not None:
            self.run_in_progress.cancel()
        else:
            self.hint = ""
            self._show_hint()

    def action_type(self) -> None:
        """Ask for a value of the field with the cursor."""
        row = self.row
        if row is None or self.view is not self._fields:
            self.action_explain()
            return

        def accept(text: str) -> None:
            draft = row.type(text)
            self.session.report_of(draft)  # a refusal stays in the prompt
            self.change_to(draft)

        self.ask(row.name, row.value if row.is_given else "", accept)

    def action_shard(self) -> None:
        """Show the attention on several devices, and ask for the plan."""
        if SHARD not in self.shown_panes:
            self.action_choose(SHARD)

        def accept(text: str) -> None:
            self.session.shard_by(text.strip())
            self.hint = ""
            self.update()

        self.ask("plan, such as tp=4; empty for the best of 2 ranks", self.session.mesh, accept)

    # what leaves the explorer

    @property
    def command(self) -> str:
        """Return the command that gives the current report."""
        measured = self.session.report.time is not None
        flags = self.tools.flags if measured else " --no-time"
        return self.tools.spell(self.session.draft.command + flags)

    def action_copy(self) -> None:
        """Copy the command that gives the current report."""
        command = self.command
        self.copy_to_clipboard(command)
        self.copied.append(command)
        self.say(f"copied: {command}")

    def action_save(self) -> None:
        """Ask for a file and save the run to it."""
        self.ask_for_file("save the run to", ".json", self.tools.save)

    def action_write_page(self) -> None:
        """Ask for a file and write the page of the state to it."""
        self.ask_for_file("write the page to", ".html", self.tools.write_page)

    def ask_for_file(self, question: str, extension: str, write: Callable[[Report, Path], None]) -> None:
        """Ask for a file, then write the report of the state to it.

        Args:
            question: the words before the name of the file.
            extension: the extension of the suggested name.
            write: a function that writes the report to the file.
        """

        def answer(text: str) -> None:
            write(replace(self.session.whole_report, command=self.command), Path(text.strip()))
            self.hint = f" saved to {text.strip()}"

        self.ask(question, f"{self.session.draft.kind.name}{extension}", answer)

    # measurement

    def action_time(self) -> None:
        """Measure the current state in a process of its own, or cancel that."""
        if self.run_in_progress is not None:
            self.run_in_progress.cancel()
            return
        draft = self.session.draft
        command = self.tools.spell(draft.command + self.tools.flags)
        request = Request.of(draft, **{"command": command, **self.tools.options})
        self.run_in_progress = run = Run(request)
        self.say("measuring: t or Esc cancels")
        self.run_worker(lambda: self._follow(run, draft), thread=True)

    def _follow(self, run: Run, draft: Draft) -> None:
        """Pass the answers of the worker process on; this runs in a thread."""
        answer: tuple[Any, ...] = ("cancelled",)
        for answer in run.answers():
            if answer[0] == "progress":
                self.call_from_thread(self.report_news, f"measuring {answer[1]} {answer[2]:.0%}: t or Esc cancels")
        self.call_from_thread(self._finish, draft, answer)

    def _finish(self, draft: Draft, answer: tuple[Any, ...]) -> None:
        from attnscope.render.explorer.fields import quality

        self.run_in_progress = None
        if answer[0] == "report":
            self.session.keep_timed(draft, answer[1])
            self.update()
            of = "" if draft.command == self.session.draft.command else "the state before: "
            self.report_news(f"{of}{quality(answer[1])}")
        else:
            self.report_news(answer[1] if answer[0] == "error" else "the measurement was cancelled")

    # mouse and palette

    def on_line_view_resized(self, event: LineView.Resized) -> None:
        """Show the lines for the new size, which the view has only after the layout."""
        if event.view is self._fields:
            self._show_fields()
            return
        for name, view in zip(self.shown_panes, (self._pane, self._companion), strict=False):
            if event.view is view:
                self._show_pane(name, view)

    def on_line_view_picked(self, event: LineView.Picked) -> None:
        """Put the cursor on the clicked line; a click on the arrows of the current field changes it."""
        event.view.focus()
        if event.view is self._fields and event.line == self._fields.cursor and self.row is not None:
            words = self._fields.lines[event.line].text.plain
            for sign, arrows in ((-1, "‹<"), (1, "›>")):
                place = max(words.rfind(arrow, 1) for arrow in arrows)
                if abs(event.column - place) <= 1:
                    self.change_to(self.row.step(sign, 1))
                    return
        event.view.put_cursor(event.line)
        self._show_fields()
        self.hint = ""
        self._show_hint()

    def on_tabs_chosen(self, event: Tabs.Chosen) -> None:
        """Show the clicked pane."""
        self.action_choose(event.name)

    async def _run(self, action: str) -> None:
        """Run an action of the palette; an open prompt is left."""
        if self._asking is not None:
            self.action_leave()
        await self.run_action(action)

    def get_system_commands(self, screen: Page[Any]) -> Iterable[SystemCommand]:
        """Yield the actions of all keys for the command palette."""
        for binding in self.BINDINGS:
            if isinstance(binding, Binding) and binding.action not in (
                "leave",
                "interrupt",
                "quit_now",
                "focus_next",
                "focus_previous",
            ):
                action = binding.action
                yield SystemCommand(
                    self._screen(self.size.width).text(binding.description),
                    f"key {SIGNS.get(binding.key, binding.key)}",
                    lambda action=action: self.call_later(self._run, action),  # after the palette is closed
                )
