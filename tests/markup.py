"""HTML as a browser reads it: every element is closed by its own end tag, or by one that HTML lets be left out."""

import re
from html.parser import HTMLParser

NO_VALUE = re.compile(r"\s[a-z-]+=(\s|>)")
"""An attribute with a sign but no value, which HTML does not allow; a text in quotation marks has no such sign."""
CELLS = frozenset({"td", "th"})
CLOSED_BY = {cell: CELLS | {"tr", "tbody"} for cell in CELLS} | {"tr": frozenset({"tr", "tbody"})}
"""The start tags that close an element without an end tag (HTML Living Standard, section 13.1.2.4)."""


class Balance(HTMLParser):
    """A parser that holds that every element is closed, and counts tags."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        while self.open and tag in CLOSED_BY.get(self.open[-1], ()):
            self.open.pop()
        assert not NO_VALUE.search(self.get_starttag_text() or "")
        self.open.append(tag)
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.open[-1] != tag and self.open[-1] in CLOSED_BY:
            self.open.pop()
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        self.seen.append(tag)
