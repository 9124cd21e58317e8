"""Mistakes and refusals that are told to the user in one line, never as a traceback."""

import difflib
import math
import re
from collections.abc import Callable, Iterable


class AttnscopeError(Exception):
    """The value, the rule and the nearest legal value, in one line.

    Fields of a Spec stand in braces, `{dim} 770 is not divisible by {heads} 12`, so that the command line can name its
    flags and Python its arguments. Text from elsewhere, such as a path, goes through `literal`.
    """

    exit_code = 1

    def __str__(self) -> str:
        return _spelled(self.args[0], str)

    def in_flags(self) -> str:
        """The same line in the words of the command line: `--dim 770 is not divisible by --heads 12`."""
        return _spelled(self.args[0], flag)


class UsageError(AttnscopeError, ValueError):
    """A value that cannot be asked for."""

    exit_code = 2


class FolderError(UsageError):
    """The folder of an attention whose Spec, steps and module contradict each other."""


class PlanError(AttnscopeError, ValueError):
    """A step whose operation and letters contradict each other."""


class DeviceError(AttnscopeError, RuntimeError):
    """A device that is missing, or a size that does not fit in its memory."""

    exit_code = 3


OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "invalid buffer size: ", "alloc_failed")
"""How allocators say it: CUDA's and MPS's, the processor's on Windows and elsewhere, Metal's, cuBLAS's."""


BEYOND_ADDRESSES = (
    "storage size calculation overflowed",
    "integer multiplication overflow",
    "overflow when unpacking long",
)
"""How torch says that a tensor has more bytes, or more elements along an axis, than a 64-bit integer counts."""


def ran_out_of_memory(error: BaseException) -> bool:
    """Return whether a device has too little memory, by an allocator's words, or whether no memory could be enough."""
    words = str(error).lower()
    return (
        isinstance(error, MemoryError)
        or (isinstance(error, RuntimeError) and any(said in words for said in OUT_OF_MEMORY))
        or exceeds_addresses(error)
    )


def exceeds_addresses(error: BaseException) -> bool:
    """Return whether an error says that a tensor does not fit in a 64-bit address space, as it also may on meta."""
    words = str(error).lower()
    return isinstance(error, RuntimeError | TypeError) and any(said in words for said in BEYOND_ADDRESSES)


def in_a_line(error: BaseException) -> str:
    """`ValueError: what it says first`, of an error that is not ours."""
    said = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {said[:100]}"


def _spelled(line: str, spell: Callable[[str], str]) -> str:
    """Spell each field in braces, and undo `literal`."""
    return re.sub(r"\{\{|\}\}|\{(\w+)\}", lambda found: spell(found[1]) if found[1] else found[0][0], line)


def literal(text: object) -> str:
    """Double the braces of a text, so that in the line of an AttnscopeError it is shown as it is."""
    return str(text).replace("{", "{{").replace("}", "}}")


def flag(field: str) -> str:
    """The flag of a field: `qkv_bias` is `--qkv-bias`."""
    return "--" + field.replace("_", "-")


def quoted(word: object) -> str:
    """The word as it was typed; nothing is told as `''`. It stands in the line of an AttnscopeError."""
    return literal(word) or "''"


MANY = 12
"""Names that are told in a line, at the most, where there may be hundreds."""


def did_you_mean(word: str, known: Iterable[str], also: Iterable[str] = (), many: str = "") -> str:
    """` Did you mean vit-b-16-224?` where something close to `word` is known, else all that is known.

    `also` are other names of the same, told only where they are close; `many` is told in place of more than MANY names.
    """
    known = sorted(known)
    close = difflib.get_close_matches(word, [*known, *also], n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]}?"
    return many if many and len(known) > MANY else f"there is: {', '.join(known) or 'none'}"


def nearest_divisors(value: int, of: int) -> str:
    """`1 or 3`, the divisors of 3 around 2."""
    small = [number for number in range(1, math.isqrt(of) + 1) if of % number == 0]
    divisors = {*small, *(of // number for number in small)}
    below, above = (number for number in divisors if number < value), (number for number in divisors if number > value)
    return " or ".join(str(divisor) for divisor in (max(below, default=0), min(above, default=0)) if divisor)


def nearest_multiples(value: int, divisor: int) -> str:
    """`768 or 780`, the multiples of 12 around 770."""
    below = value // divisor * divisor
    return " or ".join(str(multiple) for multiple in (below, below + divisor) if multiple > 0)
