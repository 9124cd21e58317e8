"""The command line: parse, one call, print."""

import gc


def main() -> None:
    """Run the command line, without the garbage collector: nothing is worth collecting, and all starts sooner so."""
    gc.disable()
    from attnscope.cli.main import main as run

    run()


__all__ = ["main"]
