"""Keep a setting, an attribute or the contents of a container: each function here returns one that restores it."""

import sys
from collections.abc import Callable, Container
from functools import partial
from typing import Any

Restore = Callable[[], object]

UNKNOWN: Any = object()
"""The value of a setting that cannot be read, so that it is not restored."""


def keep_setting(get: Callable[..., Any], set_: Callable[..., Any], *key: Any) -> Restore:
    """Return a function that sets the value that `get` returns now, unless it is UNKNOWN or unchanged."""
    value = get(*key)
    is_simple = isinstance(value, str | int | float)

    def restore() -> None:
        if value is UNKNOWN:
            return
        now = get(*key)
        if now is not value and not (is_simple and now == value):
            set_(*key, value)

    return restore


def keep_attribute(holder: Any, name: str) -> Restore:
    """Return a function that restores an attribute."""
    return partial(setattr, holder, name, getattr(holder, name))


def keep_contents(values: Any) -> Restore:
    """Return a function that restores the contents of a list or mapping in place."""
    before = values.copy()

    def restore() -> None:
        if isinstance(values, list):
            values[:] = before
        elif values != before:
            values.clear()
            values.update(before)

    return restore


def keep_names(namespace: dict[Any, Any], stays: Callable[[Any], bool] = lambda name: False) -> Restore:
    """Return a function that restores the values of a namespace, in which no name may be missing at any time.

    Args:
        namespace: the namespace.
        stays: returns whether a new name stays.
    """
    before = dict(namespace)

    def restore() -> None:
        for name in [*namespace]:
            if name not in before and not stays(name):
                del namespace[name]
        for name, value in before.items():
            if namespace.get(name, before) is not value:
                namespace[name] = value

    return restore


def is_of_import(value: Any, before: Container[str]) -> bool:
    """Return whether a class or object is of a module that was imported since, and stays as the module does."""
    module = value.__module__ if hasattr(value, "__module__") else type(value).__module__
    return module in sys.modules and module not in before
