"""Hooks that wrap a module's step methods within a `with` block.

Outside of the block the methods are not wrapped, so that hooks cost nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from attnscope.plan.step import Step


def step_methods(module_class: type[Any]) -> dict[str, Step]:
    """Return the Step of each method of a class that is tied to one, by the method's name.

    A class may rename the letters of inherited steps in its attribute `spelling`; the result has the new letters.
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


def steps_of(module: Any) -> dict[str, Step]:
    """Return the Step of each method of a module, by the method's name.

    A module whose arguments decide which parameters a step has gives these steps in its attribute `own_steps`, by name.
    """
    return {**step_methods(module.__class__), **getattr(module, "own_steps", {})}


Listener = Callable[[str, Any, Step, Callable[..., Any]], Callable[..., Any]]
"""A function of a module's path, the module, a Step and its bound method; it returns a replacement for the method."""


@contextmanager
def listening(module: Any, listener: Listener) -> Iterator[None]:
    """Wrap every step of `module` and its submodules with `listener` within a `with` block.

    The wrappers are instance attributes that hide the methods of the class. They are removed at the end of the block, also
    after an error.

    Raises:
        RuntimeError: the module already has a listener.
    """
    shadowed: list[tuple[dict[str, Any], str]] = []
    try:
        for path, submodule in module.named_modules():
            for name, step in steps_of(submodule).items():
                if name in vars(submodule):
                    raise RuntimeError(f"step {name} of {type(submodule).__name__} already has a listener")
                vars(submodule)[name] = listener(path, submodule, step, getattr(submodule, name))
                shadowed.append((vars(submodule), name))
        yield
    finally:
        for attributes, name in shadowed:
            del attributes[name]
