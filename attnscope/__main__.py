"""`attnscope` and `python -m attnscope`."""

from attnscope.cli import main as run


def main() -> None:
    """Run the command line, and end the process with its exit code."""
    try:
        run()
    except SystemExit as end:
        from attnscope.profiling.process import leave

        leave(end.code)


if __name__ == "__main__":
    main()
