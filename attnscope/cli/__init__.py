"""The command line: it parses the arguments, makes one call, and prints the result."""

import gc

from attnscope.cli.interruption import interruptible


def main() -> None:
    """Run the command line without the garbage collector: a run leaves little garbage, and imports are faster."""
    gc.disable()
    with interruptible():
        from attnscope.cli.program import main as run

        run()


__all__ = ["main"]
