"""Spell the call in Python that traces a module again."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from attnscope.core.dtypes import dtype_name
from attnscope.tracing.isolation import Inputs
from attnscope.tracing.tensors import shape_of

PLAIN = (bool, int, float, str, type(None))


class _UnspelledError(Exception):
    """A value that has no literal."""


def python_call(inputs: Inputs, options: Mapping[str, Any]) -> str:
    """Return a call of `attnscope.trace` for the variable `module`, with random inputs of the same shapes.

    Inputs that have no literal are the variables `inputs` and `keywords`.

    Args:
        inputs: the positional and the keyword arguments of the forward.
        options: the keyword arguments of `trace`; None is left out.
    """
    args, keywords = inputs
    try:
        words = [_spelled(arg) for arg in args]
        named = {key: _spelled(value) for key, value in keywords.items()}
        words += [f"kwargs={{{', '.join(f'{key!r}: {value}' for key, value in named.items())}}}"] if named else []
    except _UnspelledError:
        words = ["*inputs", *["kwargs=keywords"] * bool(keywords)]
    words += [f"{name}={value!r}" for name, value in options.items() if value is not None]
    return f"attnscope.trace({', '.join(['module', *words])})"


def _spelled(value: Any) -> str:
    if isinstance(value, Tensor):
        return _spelled_tensor(value)
    if isinstance(value, PLAIN):
        return repr(value)
    if type(value) in (list, tuple):
        items = ", ".join(map(_spelled, value))
        return f"[{items}]" if isinstance(value, list) else f"({items}{',' * (len(value) == 1)})"
    if type(value) is dict:
        return f"{{{', '.join(f'{_spelled(key)}: {_spelled(item)}' for key, item in value.items())}}}"
    raise _UnspelledError


def _spelled_tensor(tensor: Tensor) -> str:
    """Return random numbers, since zeros may take another time, or zeros, which are valid indices."""
    if type(tensor) is not Tensor or tensor.is_quantized:
        raise _UnspelledError
    shape = tuple(shape_of(tensor))
    dtype, is_random = dtype_name(tensor.dtype), tensor.is_floating_point()
    make = "torch.rand" if is_random else "torch.ones" if dtype == "bool" else "torch.zeros"
    return f"{make}({shape}{'' if dtype == 'float32' else f', dtype=torch.{dtype}'})"
