"""When a stream shows colours, for screens and for help."""

import os
from collections.abc import Mapping
from typing import TextIO


def shows_color(stream: TextIO, env: Mapping[str, str] = os.environ) -> bool:
    """Return whether to write colours to a stream: to a terminal, or with FORCE_COLOR, but never with NO_COLOR."""
    if env.get("NO_COLOR") or env.get("TERM") == "dumb":
        return False
    return stream.isatty() or bool(env.get("FORCE_COLOR"))
