"""A progress bar on stderr if stderr is a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from attnscope.core.text import visible


@contextmanager
def progress_bar(quiet: bool = False) -> Iterator[Callable[[int, int, str], None]]:
    """Show a progress bar during a with block.

    The bar is hidden if stderr is not a terminal, or with `quiet`.

    Yields:
        a function that updates the bar: `(done, total, words)`, where `words` describes the current task.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda done, total, words: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    with Progress(
        BarColumn(24), MofNCompleteColumn(), TextColumn("{task.description}", markup=False),
        console=Console(stderr=True), transient=True,
    ) as bar:  # fmt: skip
        task = bar.add_task("starting", total=None)
        yield lambda done, total, words: bar.update(task, completed=done, total=total, description=visible(words))
