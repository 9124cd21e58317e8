"""What `attnscope trace` can be pointed at: a name becomes a module and the inputs that it takes.

    timm:swin_tiny_patch4_window7_224    torchvision:swin_t    hf:vit    my_file.py:MyAttention    package.module:factory

Nothing is downloaded: networks are built with random weights.
"""

import ast
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attnscope.core.errors import UsageError, did_you_mean
from attnscope.tracing.targets.libraries import LIBRARIES
from attnscope.tracing.targets.own import from_file, from_package
from attnscope.tracing.targets.target import InputSpec, Target

__all__ = ["InputSpec", "Target", "find_target", "parse_argument", "parse_input"]

INTEGERS = ("int64", "int32", "int16", "int8", "uint8")
DTYPES = ("float32", "float64", "bfloat16", "float16", *INTEGERS, "bool", "complex64")


def find_target(name: str, args: Mapping[str, Any], inputs: Sequence[InputSpec] = ()) -> Target:
    """The target of this name.

    Args:
        name: as at the head of this file.
        args: what the factory or class is called with.
        inputs: shapes that were told; empty where they are to be found.

    Raises:
        UsageError: there is no such thing; the line says what to install or what there is.
    """
    prefix, colon, rest = name.partition(":")
    if prefix in LIBRARIES and colon:
        target = LIBRARIES[prefix](rest, dict(args))
    elif ".py" in name:
        path, _, attribute = name.rpartition(":") if not name.endswith(".py") else (name, "", "")
        target = from_file(name, Path(path), attribute, args)
    elif colon and rest:
        target = from_package(name, prefix, rest, args)
    else:
        raise UsageError(
            f"{name} names no module; there is: timm:NAME, torchvision:NAME, hf:TYPE, my_file.py:MyAttention, "
            "package.module:factory"
        )
    target.inputs = list(inputs)
    return target


def parse_input(text: str) -> InputSpec:
    """Read `1,49,96`, `1x3x224x224`, `1,16:int64` or `mask=49,49:bool`.

    Raises:
        UsageError: it is none of these.
    """
    name, equals, rest = text.rpartition("=")
    sizes, colon, dtype = rest.partition(":")
    if equals and not name.strip().isidentifier():
        raise UsageError(f"{{input}} {text}: {name!r} is no name of an argument")
    if colon and dtype not in DTYPES:
        raise UsageError(f"{{input}} {text}: {dtype} is no type; {did_you_mean(dtype, DTYPES)}")
    try:
        shape = tuple([int(size, 10) for size in re.split("[,x×]", sizes)]) if sizes.strip() else ()
    except ValueError:
        raise UsageError(f"{{input}} {text} is no shape; give sizes such as 1,49,96, or mask=49,49:bool") from None
    if any(size < 0 for size in shape):
        raise UsageError(f"{{input}} {text}: sizes are whole numbers from 0 on")
    return InputSpec(shape, dtype or None, name.strip() or None)


def parse_argument(text: str) -> tuple[str, Any]:
    """Read `dim=96`, `bias=False`, `sizes=(7,7)` or `act=gelu`: a Python literal, or else a word.

    Raises:
        UsageError: it has no name.
    """
    name, equals, value = text.partition("=")
    if not equals or not name.strip().isidentifier():
        raise UsageError(f"{{arg}} {text} has no name; give NAME=VALUE such as dim=96")
    try:
        return name.strip(), ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name.strip(), value
