"""A progress bar on stderr, where stderr is a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(quiet: bool = False) -> Iterator[Callable[[int, int, str], None]]:
    """A bar for the length of a with block; is told how many of how many are done, and what is next.

    Nothing is drawn where stderr is no terminal, or nobody wants it.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda done, total, words: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    with Progress(
        BarColumn(24), MofNCompleteColumn(), TextColumn("{task.description}"),
        console=Console(stderr=True), transient=True,
    ) as bar:  # fmt: skip
        task = bar.add_task("starting", total=None)
        yield lambda done, total, words: bar.update(task, completed=done, total=total, description=words)
