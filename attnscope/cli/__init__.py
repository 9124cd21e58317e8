"""The command line: parse, one call, print."""

import gc


def main() -> None:
    """Run the command line. Most commands are over before there is any garbage worth collecting, and start sooner so."""
    gc.disable()
    from attnscope.cli.main import main as run

    run()


__all__ = ["main"]
