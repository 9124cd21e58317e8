"""Watching a module run step by step: whoever wants to puts himself around the methods that are tied to a Step.

When nobody listens they are the plain methods, at no cost.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from attnscope.plan.step import Step


@cache  # a timed run listens hundreds of times, each time to the same few classes
def step_methods(module_class: type) -> dict[str, Step]:
    """Return the methods of a class that are tied to a Step, by their names."""
    methods: dict[str, Step] = {}
    for base in reversed(module_class.__mro__):
        methods |= {name: method.step for name, method in vars(base).items() if isinstance(_step(method), Step)}
    return methods


def _step(method: object) -> object:
    return getattr(method, "step", None) if callable(method) else None


Listener = Callable[[str, Any, Step, Callable[..., Any]], Callable[..., Any]]
"""Is given a module's path, the module, a Step and its bound method, and returns what is called in place of the method."""


@contextmanager
def listening(module: Any, listener: Listener) -> Iterator[None]:
    """Put `listener` around every step of `module` and its submodules, for the length of a with block.

    The steps are shadowed on the instances and bared again at the end, also after an error, so that a module to which
    nobody listens pays nothing. A module that is listened to already is a RuntimeError.
    """
    shadowed: list[tuple[dict[str, Any], str]] = []
    try:
        for path, submodule in module.named_modules():
            for name, step in step_methods(submodule.__class__).items():
                if name in vars(submodule):
                    raise RuntimeError(f"step {name} of {type(submodule).__name__} is listened to already")
                vars(submodule)[name] = listener(path, submodule, step, getattr(submodule, name))
                shadowed.append((vars(submodule), name))
        yield
    finally:
        for attributes, name in shadowed:
            del attributes[name]
