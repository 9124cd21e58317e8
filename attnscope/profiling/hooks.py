"""Hooks that wrap a module's step methods, for the length of a with block.

Otherwise they are the plain methods, at no cost.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from attnscope.plan.step import Step


def step_methods(module_class: type[Any]) -> dict[str, Step]:
    """Return the methods of a class that are tied to a Step, by their names.

    A class with other letters for those of inherited steps (`spelling`) has them spelled so.
    """
    if module_class not in _METHODS:
        _METHODS[module_class] = _step_methods(module_class)
    return _METHODS[module_class]


_METHODS: WeakKeyDictionary[type[Any], dict[str, Step]] = WeakKeyDictionary()


def _step_methods(module_class: type[Any]) -> dict[str, Step]:
    methods: dict[str, Step] = {}
    for base in reversed(module_class.__mro__):
        if spelling := vars(base).get("spelling"):
            methods = {name: step.spelled(**spelling) for name, step in methods.items()}
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
