"""Find the targets of `attnscope trace`: resolve a name to a module and its inputs.

    timm:swin_tiny_patch4_window7_224    torchvision:swin_t    hf:vit    my_file.py:MyAttention    package.module:factory

Networks are built with random weights, so that nothing is downloaded.
"""

import ast
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attnscope.core.dtypes import SYNONYMS
from attnscope.core.errors import UsageError, did_you_mean
from attnscope.tracing.targets.libraries import LIBRARIES
from attnscope.tracing.targets.own import from_file, from_package
from attnscope.tracing.targets.target import InputSpec, Target

__all__ = ["InputSpec", "Target", "file_of", "find_target", "parse_argument", "parse_input"]

INTEGERS = ("int64", "int32", "int16", "int8", "uint8")
WORDS = {"true": True, "false": False, "none": None}
"""Values of arguments, by their names in any case."""
DTYPES = ("float32", "float64", "bfloat16", "float16", *INTEGERS, "bool", "complex64")


def find_target(name: str, args: Mapping[str, Any], inputs: Sequence[InputSpec] = ()) -> Target:
    """Return the target of a name.

    Args:
        name: a name in one of the forms above.
        args: keyword arguments of the factory or class.
        inputs: shapes of the inputs; empty to find them from the module.

    Raises:
        UsageError: the target does not exist; the message says what to install or which names are available.
    """
    prefix, colon, rest = name.partition(":")
    if prefix in LIBRARIES and colon:
        target = LIBRARIES[prefix](rest, dict(args))
    elif (in_file := file_of(name)) is not None:
        target = from_file(name, *in_file, args)
    elif colon and rest:
        target = from_package(name, prefix, rest, args)
    else:
        raise UsageError(
            f"{name} does not name a module; use timm:NAME, torchvision:NAME, hf:TYPE, my_file.py:MyAttention or "
            "package.module:factory"
        )
    target.inputs = list(inputs)
    return target


def file_of(name: str) -> tuple[Path, str] | None:
    """Return the file and the attribute of a target `FILE.py:NAME` or `FILE.py`; None for a target of another kind."""
    prefix, colon, _ = name.partition(":")
    if ".py" not in name or (prefix in LIBRARIES and colon):
        return None
    path, _, attribute = (name, "", "") if name.endswith(".py") else name.rpartition(":")
    return Path(path), attribute


def parse_input(text: str) -> InputSpec:
    """Parse the shape of an input: `1,49,96`, `1x3x224x224`, `1,16:int64` or `mask=49,49:bool`.

    Raises:
        UsageError: the text does not have one of these forms.
    """
    name, equals, rest = text.rpartition("=")
    sizes, colon, dtype = rest.partition(":")
    if equals and not name.strip().isidentifier():
        raise UsageError(f"{{input}} {text}: the name must be an identifier, as in mask=49,49:bool (got {name!r})")
    if colon and dtype not in DTYPES:
        raise UsageError(
            f"{{input}} {text}: dtype {dtype} is unknown; {did_you_mean(dtype, DTYPES, synonyms=SYNONYMS)}"
        )
    try:
        shape = tuple([int(size, 10) for size in re.split("[,x×]", sizes)]) if sizes.strip() else ()
    except ValueError:
        raise UsageError(f"{{input}} must be a shape such as 1,49,96 or mask=49,49:bool (got {text})") from None
    if any(size < 0 for size in shape):
        raise UsageError(f"{{input}} {text}: sizes must be non-negative integers, such as 1,49,96")
    return InputSpec(shape, dtype or None, name.strip() or None)


def parse_argument(text: str) -> tuple[str, Any]:
    """Parse an argument: `dim=96`, `bias=False`, `sizes=(7,7)` or `act=gelu`.

    `true`, `false` and `none` are those of Python in any case, and `384x384` is (384, 384). Other values are read as Python
    literals if they are, else as strings.

    Raises:
        UsageError: the text has no name before an equals sign, or no value after it.
    """
    name, equals, value = text.partition("=")
    if not equals or not name.strip().isidentifier():
        raise UsageError(f"{{arg}} must be NAME=VALUE, such as dim=96 (got {text})")
    if not value.strip():
        raise UsageError(f"{{arg}} {text} has no value; use NAME=VALUE, such as {name.strip()}=96")
    return name.strip(), _value(value)


def _value(text: str) -> Any:
    """Return the value that a text means; the text itself if it is neither a word nor a literal."""
    lowered = text.strip().lower()
    if lowered in WORDS:
        return WORDS[lowered]
    if re.fullmatch(r"\d+([x×]\d+)+", lowered) and not lowered.startswith("0x"):
        return tuple(map(int, re.split("[x×]", lowered)))
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError):
        return text
