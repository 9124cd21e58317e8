"""The command line: parse, one call, print."""

import gc
import sys


def main() -> None:
    """Run the command line, without the garbage collector: nothing is worth collecting, and all starts sooner so."""
    gc.disable()
    try:
        from attnscope.cli.main import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


__all__ = ["main"]
