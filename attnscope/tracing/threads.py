"""Follow the work of a forward into the threads that it starts and the executors that it uses.

Modes of torch belong to one thread. nn.DataParallel and forwards with branches in threads would otherwise be silent.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import thread as executors
from contextlib import contextmanager
from typing import Any

Task = Callable[..., Any]


@contextmanager
def followed(follow: Callable[[Task], Task]) -> Iterator[None]:
    """Pass each task that is given to a thread through `follow` within a `with` block.

    Args:
        follow: called in the thread that starts the task; returns the function to run instead of it.
    """
    start, submit = threading.Thread.start, ThreadPoolExecutor.submit

    def start_followed(self: threading.Thread) -> None:
        # the worker of an executor runs tasks of many callers, each of which `submit` follows
        if getattr(self, "_target", None) is not getattr(executors, "_worker", start):
            self.run = follow(self.run)  # type: ignore[method-assign]
        start(self)

    def submit_followed(self: ThreadPoolExecutor, task: Task, /, *args: Any, **kwargs: Any) -> Any:
        return submit(self, follow(task), *args, **kwargs)

    threading.Thread.start = start_followed  # type: ignore[method-assign]
    ThreadPoolExecutor.submit = submit_followed  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        threading.Thread.start = start  # type: ignore[method-assign]
        ThreadPoolExecutor.submit = submit  # type: ignore[method-assign]
