"""The command line: it parses the arguments, makes one call, and prints the result."""

import gc
import sys


def main() -> None:
    """Run the command line without the garbage collector: a run leaves little garbage, and imports are faster."""
    gc.disable()
    try:
        from attnscope.cli.program import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


__all__ = ["main"]
