"""Errors that are reported to the user in one line, without a traceback."""

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

FIELD = re.compile(r"\{\{|\}\}|\{(\w+)\}")
"""A field of a message, in braces, or an escaped brace."""

LONGEST_LINE = 100
"""Characters of a third-party error that are shown."""


class AttnscopeError(Exception):
    """Base class of errors whose message is one line: the field, the rule, the value and the nearest legal value.

    The message has fields of a Spec in braces, as in `{dim} 770 is not divisible by {heads} 12`. The command line shows
    them as flags, and Python as arguments. Escape any other text, such as a path, with `literal`.
    """

    exit_code = 1
    spell: "Callable[[str], str] | None" = None
    """The function of the command line that spells a field by the source of its value; None spells all as flags."""
    locate: "Callable[[str], str] | None" = None
    """The function of the command line that returns the file with the value of a field, if any; None for no files."""

    def __str__(self) -> str:
        return _spelled(self.args[0], str)

    def in_flags(self) -> str:
        """Return the message with the fields as flags: `--dim 770 is not divisible by --heads 12`.

        The files that set some of the fields come first: `--config mine.toml: dim 770 is not divisible by --heads 12`.
        """
        return self._files() + _spelled(self.args[0], self.spell or flag)

    def _files(self) -> str:
        """Return the files that set fields of the message, each followed by a colon."""
        if self.locate is None:
            return ""
        files = dict.fromkeys(self.locate(found[1]) for found in FIELD.finditer(self.args[0]) if found[1])
        return "".join(f"{file}: " for file in files if file)


class UsageError(AttnscopeError, ValueError):
    """An error for an illegal value of a flag, an argument or a field."""

    exit_code = 2


class FolderError(UsageError):
    """An error for an attention folder whose Spec, steps and module contradict each other."""


class PlanError(AttnscopeError, ValueError):
    """An error for a step whose operation and axis letters contradict each other."""


class DeviceError(AttnscopeError, RuntimeError):
    """An error for a device that is not available, or for a size that exceeds its memory."""

    exit_code = 3


FAILURES = (Exception, SystemExit)
"""Types of errors in the user's code. Its `sys.exit()` would end attnscope too, without a message."""
OUT_OF_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "invalid buffer size: ", "alloc_failed")
"""Parts of out-of-memory messages: of CUDA and MPS, of the CPU on Windows and elsewhere, of Metal and of cuBLAS."""


BEYOND_ADDRESSES = (
    "storage size calculation overflowed",
    "integer multiplication overflow",
    "overflow when unpacking long",
)
"""Parts of torch's messages for a tensor whose bytes, or elements along an axis, overflow a 64-bit integer."""


def message_of(error: BaseException) -> str:
    """Return the message of a third-party error; "" if its own `__str__` raises."""
    try:
        return str(error)
    except Exception:
        return ""


def ran_out_of_memory(error: BaseException) -> bool:
    """Return whether an allocator ran out of memory, or a tensor exceeds the 64-bit address space."""
    message = message_of(error).lower()
    return (
        isinstance(error, MemoryError)
        or (isinstance(error, RuntimeError) and any(part in message for part in OUT_OF_MEMORY))
        or exceeds_addresses(error)
    )


def exceeds_addresses(error: BaseException) -> bool:
    """Return whether a tensor exceeds the 64-bit address space, which also happens on the meta device."""
    message = message_of(error).lower()
    return isinstance(error, RuntimeError | TypeError) and any(part in message for part in BEYOND_ADDRESSES)


def in_a_line(error: BaseException) -> str:
    """Return the type and the first line of a third-party error: `ValueError: first line`.

    A line of more than 100 characters ends after a word, with `…`.
    """
    line = (message_of(error).splitlines() or [""])[0]
    if len(line) > LONGEST_LINE:
        line = f"{line[: LONGEST_LINE + 1].rpartition(' ')[0] or line[:LONGEST_LINE]} …"
    return f"{type(error).__name__}: {line}"


def _spelled(line: str, spell: Callable[[str], str]) -> str:
    """Replace each field in braces by its spelling, and undo `literal`."""
    return FIELD.sub(lambda found: spell(found[1]) if found[1] else found[0][0], line)


def literal(text: object) -> str:
    """Return a text with its braces escaped for the message of an AttnscopeError."""
    return str(text).replace("{", "{{").replace("}", "}}")


def flag(field: str) -> str:
    """Return the flag of a field: `--qkv-bias` for `qkv_bias`."""
    return "--" + field.replace("_", "-")


def quoted(word: object) -> str:
    """Return a word escaped for the message of an AttnscopeError, `''` if it is empty."""
    return literal(word) or "''"


MANY, FEW = 16, 3
"""The largest number of names that one message lists, and the number of the nearest ones that it lists of more."""


def did_you_mean(
    word: str,
    names: Iterable[str],
    also: Iterable[str] = (),
    many: str = "",
    synonyms: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Suggest the name closest to a word, `did you mean vit-b-16-224?`.

    Names that begin with the word are closest, then similar ones, and those whose first parts are similar. Case, `_`, `-`
    and `/` make no difference. If none is close, list the available names, or the nearest ones of more than MANY if `many`
    says how to list all.

    Args:
        word: the word that is not among the names.
        names: the available names.
        also: aliases, which are suggested but never listed.
        many: follows the nearest ones of more than MANY names, such as how to list all.
        synonyms: other words for some names; the name of a word is suggested.
    """
    names = sorted(names)
    if synonyms.get(word.lower()) in names:
        return f"did you mean {synonyms[word.lower()]}?"
    available = f"available: {', '.join(names) or 'none'}"
    plain = {_plain(name): name for name in [*also, *reversed(names)]}
    begun = _beginning_with(_plain(word), plain)
    if not begun:
        count = _plain(word).count("-") + 1
        beginnings = {"-".join(each.split("-")[:count]) for each in plain}
        near = difflib.get_close_matches(_plain(word), sorted(plain.keys() | beginnings), n=1)
        begun = [each for each in near if each in plain] or [
            each for beginning in near for each in _beginning_with(beginning, plain)
        ]
    if len(begun) > 1 and _plain(word) not in plain:
        listed = f"nearest: {', '.join(plain[each] for each in begun[:FEW])}"
        return f"{listed}; {many or available}" if len(begun) > FEW else listed
    if begun:
        return f"did you mean {plain[begun[0]]}?"
    if len(names) <= MANY or not many:
        return available
    nearest = difflib.get_close_matches(word, names, n=FEW, cutoff=0.01)  # names without a common letter are not near
    return f"nearest: {', '.join(nearest)}; {many}" if nearest else many


def _beginning_with(word: str, names: Iterable[str]) -> list[str]:
    """Return the names that begin with a word, those with the whole word and the shortest first; none for an empty word."""
    found = [each for each in names if word and each.startswith(word)]
    return sorted(found, key=lambda each: (not f"{each}-".startswith(f"{word}-"), len(each), each))


def _plain(name: str) -> str:
    """Return a name in lowercase, with `-` in place of other signs between its parts."""
    return name.lower().replace("_", "-").replace("/", "-")


def nearest_divisors(value: int, of: int, unit: int = 1) -> str:
    """Return the divisors of `of` closest to a value, below and above it: `1 or 3` for the value 2 and `of` 3.

    Args:
        value: the value that is not a divisor.
        of: the number to divide.
        unit: divides all of the divisors.
    """
    return " or ".join(str(divisor) for divisor in divisors_near(value, of, unit) if divisor)


def divisors_near(value: int, of: int, unit: int = 1) -> tuple[int, int]:
    """Return the divisors of `nearest_divisors` as numbers, the one below and the one above; 0 for none."""
    small = [number for number in range(1, math.isqrt(of) + 1) if of % number == 0]
    divisors = [number for number in {*small, *(of // number for number in small)} if number % unit == 0]
    below, above = (number for number in divisors if number < value), (number for number in divisors if number > value)
    return max(below, default=0), min(above, default=0)


def nearest_multiples(value: int, divisor: int) -> str:
    """Return the multiples of a divisor closest to a value, below and above it: `768 or 780` for 770 and 12."""
    below = value // divisor * divisor
    return " or ".join(str(multiple) for multiple in (below, below + divisor) if multiple > 0)
