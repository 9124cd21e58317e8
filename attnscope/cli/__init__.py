"""The command line: parse, one call, print."""

from attnscope.cli.main import main

__all__ = ["main"]
