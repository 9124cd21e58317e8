"""Copy the iterators of Python that can be copied, since none can be set back."""

import inspect
import itertools
import warnings
from ast import literal_eval
from collections.abc import Callable, Iterator
from gc import get_referents
from types import FunctionType, GeneratorType, MethodWrapperType
from typing import Any

from attnscope.core.errors import UsageError

Twins = dict[int, tuple[Any, Any]]
"""Iterators and their twins by the identity of the iterator, which lives as long as the entry."""


def twin(value: Any, twins: Twins) -> Any:
    """Return a copy of an iterator over what it has left, for a forward to advance; any other value as it is.

    A tuple with iterators gets a twin too, and so does `itertools.count().__next__`. That of a generator which has begun
    refuses to be read. From Python 3.14 on, `count` is the only iterator of itertools with a twin.

    Args:
        value: an iterator, or any other value.
        twins: twins that exist. New ones are added, so that an iterator in two places has one twin.
    """
    kind = type(value)
    is_iterator = kind.__module__ in ("builtins", "itertools") and hasattr(kind, "__next__")
    if not is_iterator and not isinstance(value, tuple | MethodWrapperType):
        return value
    if id(value) not in twins:
        try:
            made = _twin_of(value, twins)
        except Exception:  # a counter of unusual numbers
            made = value
        twins[id(value)] = value, made
    return twins[id(value)][1]


def _twin_of(value: Any, twins: Twins) -> Any:
    """Return a new twin; the value itself if it needs none."""
    if isinstance(value, tuple):
        parts = [twin(part, twins) for part in value]
        is_same = all(made is part for made, part in zip(parts, value, strict=True))
        return value if is_same else tuple.__new__(type(value), parts)
    if isinstance(value, MethodWrapperType):
        owner = twin(value.__self__, twins)
        return value if owner is value.__self__ else getattr(owner, value.__name__)
    if isinstance(value, GeneratorType):
        return begun_anew(value, lambda part: twin(part, twins))
    if type(value) is itertools.count:  # its text has all that it needs
        return itertools.count(*literal_eval(f"{repr(value).removeprefix('count')[:-1]},)"))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Pickle, copy, and deepcopy support", DeprecationWarning)
        if hasattr(type(value), "__copy__"):  # of itertools.tee
            return value.__copy__()
        build, args, *state = value.__reduce__()
        made = build(*twin(args, twins))
        if state and state[0] is not None:
            made.__setstate__(twin(_state(state[0]), twins))
    return made


def _state(state: Any) -> Any:
    """Return the state of an iterator with a list of its own, since a cycle appends to it."""
    if type(state) is not tuple:
        return state
    return tuple([list(part) if type(part) is list else part for part in state])


def begun_anew(generator: Any, copy_part: Callable[[Any], Any]) -> Any:
    """Return a copy of a generator that has not begun. The copy of any other one raises UsageError when it is read.

    Args:
        generator: the generator, which stays as it is.
        copy_part: copies an argument of its function.
    """
    code, function = generator.gi_code, _function_of(generator)
    if function is None or inspect.getgeneratorstate(generator) != inspect.GEN_CREATED:
        return _unreadable(generator.__qualname__)
    values = {name: copy_part(value) for name, value in dict(generator.gi_frame.f_locals).items()}
    names = iter(code.co_varnames)
    args = [values[name] for name in itertools.islice(names, code.co_argcount)]
    keywords = {name: values[name] for name in itertools.islice(names, code.co_kwonlyargcount)}
    if code.co_flags & inspect.CO_VARARGS:
        args += values[next(names)]
    if code.co_flags & inspect.CO_VARKEYWORDS:
        keywords |= values[next(names)]
    return function(*args, **keywords)


def _function_of(generator: Any) -> Any:
    """Return the function whose call made a generator; None if it is unknown."""
    return next(
        (
            each
            for each in get_referents(generator)
            if isinstance(each, FunctionType) and each.__code__ is generator.gi_code
        ),
        None,
    )


def _unreadable(name: str) -> Iterator[Any]:
    """Return a generator in place of one that its reader would use up."""
    raise UsageError(
        f"the generator {name} has begun, and a trace would use it up; use a new one, a list or an iterator of itertools"
    )
    yield
