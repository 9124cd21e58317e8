"""Reading of files that the user names."""

from pathlib import Path

from attnscope.core.errors import UsageError, literal

LARGEST = 2**26
"""The largest number of characters of a file; /dev/zero and the like have no end."""


def text_of(path: Path, name: str) -> str:
    """Return the text of a file.

    Args:
        path: the file.
        name: what an error calls it: its path, or its flag in braces and its path.

    Raises:
        UsageError: the system refuses the file, it is not UTF-8, or it has more than LARGEST characters.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:  # editors of Windows write a byte order mark
            text = file.read(LARGEST + 1)
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {literal(error.strerror)}") from None
    except ValueError:
        raise UsageError(f"{name} cannot be read: it is not a text file") from None
    if len(text) > LARGEST:
        raise UsageError(f"{name} must have at most {LARGEST:,} characters; choose another file")
    return text
