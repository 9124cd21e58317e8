"""Text from elsewhere, such as the names of modules and files, in a form without effect on what shows it.

A class may be called `\\x1b]0;title\\x07`, which sets the title of a terminal, or `=1+1`, which a spreadsheet computes.
"""

import json
import re
from typing import Any

HIDDEN = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # control characters
    "\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # invisible, or of the direction
    "\ud800-\udfff"  # halves of pairs, which have no encoding
    "\U000e0000-\U000e0fff"  # invisible copies of ASCII
    "]"
)
"""Characters that a reader cannot see, but that change how other text looks or what a terminal does."""
FORMULA = re.compile("[=+\\-@\t\r\uff1d\uff0b\uff0d\uff20].", re.DOTALL)
"""The beginning of a cell that a spreadsheet computes (OWASP, CSV injection), also in full width. A lone dash is not."""
MARKUP = re.compile(r"[<\[\]`]")
"""Characters that begin a tag, a link, a picture or code in Markdown."""


def visible(text: str) -> str:
    """Return a text whose hidden characters are spelled as in Python: `\\x1b` is an escape character."""
    return HIDDEN.sub(lambda found: _spelled(found[0]), text)


def shortened(text: str, most: int) -> str:
    """Return a text of at most this many characters, or its beginning and how many more it has."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text) - most:,} more)"


def in_markdown(text: str) -> str:
    """Return a text for a cell or a line of Markdown, which then has no tag, link or code."""
    return MARKUP.sub(lambda found: "&lt;" if found[0] == "<" else f"\\{found[0]}", visible(text)).replace("|", "\\|")


def in_csv(text: str) -> str:
    """Return a text for a cell of CSV; `'` precedes a text that a spreadsheet would compute."""
    return f"'{visible(text)}" if FORMULA.match(text) else visible(text)


def in_json(value: Any, indent: int | None = 2) -> str:
    """Return a value as JSON with letters of all languages; hidden characters are escaped, `\\u202e`.

    Raises:
        ValueError: a number is NaN or infinite, which JSON does not have.
    """
    plain = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
    return HIDDEN.sub(lambda found: found[0] if found[0] == "\n" else _escaped(found[0]), plain)


def _spelled(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _escaped(character: str) -> str:
    return json.dumps(character)[1:-1]
