"""The widgets of the explorer: scrolling lines with a cursor, a line of tabs, and a window with an explanation."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import Reactive
from textual.screen import ModalScreen
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widget import Widget
from textual.widgets import Input, Static

from attnscope.render.explorer.lines import Line
from attnscope.render.screen import Screen


class LineView(ScrollView, can_focus=True, inherit_bindings=False):
    """Lines of which those with a topic can have the cursor."""

    class Picked(Message):
        """The user clicked a line."""

        def __init__(self, view: "LineView", line: int, column: int) -> None:
            super().__init__()
            self.view, self.line, self.column = view, line, column

    class Resized(Message):
        """A layout changed the size of the view."""

        def __init__(self, view: "LineView") -> None:
            super().__init__()
            self.view = view

    virtual_size: Reactive[Size] = Reactive(Size(0, 0), layout=False)  # a layout draws the whole screen

    def __init__(self, id: str, ascii: bool = False) -> None:
        super().__init__(id=id)
        self.lines: Sequence[Line] = ()
        self.cursor = 0
        """The number of the line with the cursor."""
        self._marker = ">" if ascii else "▸"
        self._style: Any = None
        """The style of all lines, found once for a drawing."""

    @property
    def width(self) -> int:
        """Return the columns for lines."""
        return max(self.scrollable_content_region.width, 1)

    @property
    def topic(self) -> str:
        """Return what explains the line with the cursor; empty if no line can have it."""
        topic = self.lines[self.cursor].topic if self.cursor < len(self.lines) else None
        return "" if topic is None else topic()

    def show(self, lines: Sequence[Line]) -> None:
        """Show other lines; the cursor stays on its line if that can have it. Only lines that differ are drawn."""
        before, self.lines = self.lines, lines
        widest = max((line.width for line in lines), default=0)
        room = self.scrollable_content_region
        size = Size(max(widest, room.width), max(len(lines), room.height))
        self.virtual_size = size
        cursor = min(self.cursor, max(len(lines) - 1, 0))
        if lines and not lines[cursor].topic:
            cursor = next((place for place in self._places if place >= cursor), next(iter(self._places), 0))
        changed = {place for place in (cursor, self.cursor) if cursor != self.cursor}
        self.cursor = cursor
        top = int(self.scroll_offset.y)
        for place in range(top, top + self.size.height):
            old, new = (of[place] if place < len(of) else None for of in (before, lines))
            if old is not new and (old is None or new is None or not new.looks_like(old)):
                changed.add(place)
        for place in changed:
            self.refresh_line(place)

    def watch_virtual_size(self, size: Size) -> None:
        """Show the scrollbar that the lines need; only a scrollbar that appears or goes needs a layout."""
        self._scroll_update(size)

    @property
    def _places(self) -> list[int]:
        return [place for place, line in enumerate(self.lines) if line.topic]

    def put_cursor(self, line: int) -> None:
        """Put the cursor on a line and scroll to it."""
        self.refresh_line(self.cursor)
        self.cursor = line
        self.refresh_line(line)
        self.scroll_to(y=min(max(self.scroll_y, line - self.size.height + 1), line), animate=False)
        if line == next(iter(self._places), None):
            self.scroll_to(y=0, animate=False)  # with the heading

    def move(self, by: int) -> None:
        """Move the cursor by lines that can have it, or scroll if no line can."""
        places = self._places
        if not places:
            self.scroll_to(y=self.scroll_y + by, animate=False)
            return
        after = [place for place in places if (place > self.cursor if by > 0 else place < self.cursor)]
        if after:
            self.put_cursor((after if by > 0 else after[::-1])[min(abs(by), len(after)) - 1])
        else:  # the lines beyond the last one that can have the cursor
            self.scroll_to(y=self.scroll_y + by, animate=False)

    def render_lines(self, crop: Region) -> list[Strip]:
        """Return lines of the screen, all in the same style."""
        self._style = self.rich_style
        return super().render_lines(crop)

    def render_line(self, y: int) -> Strip:
        """Return a line of the screen."""
        left, top = self.scroll_offset
        width, base = self.size.width, self._style
        place = top + y
        if place >= len(self.lines):
            return Strip.blank(width, base)
        line = self.lines[place]
        text = line.text
        if place == self.cursor and line.topic:
            text = text.copy()
            text.plain = f"{self._marker}{text.plain[1:]}"
            if self.has_focus:
                text.stylize("reverse")
        return Strip(text.render(self.app.console)).crop_extend(left, left + width, base).apply_style(base)

    def on_resize(self) -> None:
        """Report the new size: the lines were made for the old one."""
        self.post_message(self.Resized(self))

    def on_focus(self) -> None:
        """Draw the cursor of a view that has the focus."""
        self.refresh()

    def on_blur(self) -> None:
        """Draw the cursor of a view without the focus."""
        self.refresh()

    def on_click(self, event: events.Click) -> None:
        """Put the cursor on the clicked line."""
        line = int(event.y + self.scroll_offset.y)
        if line < len(self.lines) and self.lines[line].topic:
            self.post_message(self.Picked(self, line, int(event.x + self.scroll_offset.x)))


class Prompt(Input):
    """A line of text. Its keys act in their order, also if several come at once; those after the last go to the app.

    Args:
        accept: a function that takes the text.
        leave: a function that closes the prompt without its text.
    """

    ACTIONS: ClassVar[dict[str, str]] = {"escape": "leave"} | {
        key: binding.action
        for binding in Input.BINDINGS
        if isinstance(binding, Binding)
        for key in binding.key.split(",")
    }
    """The action of each key, by its name."""

    def __init__(self, accept: Callable[[str], None], leave: Callable[[], None]) -> None:
        super().__init__(id="prompt", compact=True)
        self._accept, self._leave = accept, leave
        self.is_open = False
        """A flag: the prompt takes keys."""

    async def _on_key(self, event: events.Key) -> None:
        action = self.ACTIONS.get(event.key)
        if not self.is_open:
            self.app.post_message(events.Key(event.key, event.character))
        elif action is not None and not event.is_printable:
            await self.app.run_action(action, self)
        else:
            return
        event.stop()
        event.prevent_default()

    async def action_submit(self) -> None:
        """Hand the text on."""
        self._accept(self.value)

    def action_leave(self) -> None:
        """Close the prompt without its text."""
        self._leave()


class Tabs(Widget):
    """The names of the panes in one line; a click chooses one."""

    class Chosen(Message):
        """The user clicked the name of a pane."""

        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(id="tabs")
        self.names = names
        self.shown: Sequence[str] = names[:1]
        """The panes on the screen."""

    def show(self, shown: Sequence[str]) -> None:
        """Show which panes are on the screen."""
        self.shown = shown
        self.refresh()

    def labels(self) -> list[str]:
        """Return the label of each pane: its key and its name; only the key of others where the names do not fit."""
        full = [self._label(name, f"{place} {name}") for place, name in enumerate(self.names, start=1)]
        if len("".join(full)) <= self.size.width:
            return full
        return [
            self._label(name, f"{place} {name}" if name in self.shown else str(place))
            for place, name in enumerate(self.names, start=1)
        ]

    def _label(self, name: str, words: str) -> str:
        return f"[{words}]" if name in self.shown else f" {words} "

    def render_line(self, y: int) -> Strip:
        """Return the line."""
        from textual.content import Content

        words = "".join(self.labels())
        content = Content(words)
        start = 0
        for name, label in zip(self.names, self.labels(), strict=True):
            if name in self.shown:
                content = content.stylize("bold reverse", start, start + len(label))
            start += len(label)
        return Strip(content.render_segments(self.visual_style)).crop_extend(0, self.size.width, self.rich_style)

    def on_click(self, event: events.Click) -> None:
        """Choose the clicked pane."""
        start = 0
        for name, label in zip(self.names, self.labels(), strict=True):
            if start <= event.x < start + len(label):
                self.post_message(self.Chosen(name))
            start += len(label)


class Explanation(ModalScreen[None]):
    """A window with an explanation; any of its keys or a click closes it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,enter,space,question_mark,q", "dismiss", "Close", priority=True),
    ]

    def __init__(self, words: str, screen: Screen) -> None:
        super().__init__()
        self.words = "\n".join(map(screen.text, words.splitlines()))

    def compose(self) -> ComposeResult:
        """Build the window."""
        with VerticalScroll(id="explanation"):
            yield Static(self.words, markup=False)

    def on_click(self) -> None:
        """Close the window."""
        self.dismiss()
