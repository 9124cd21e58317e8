"""Modules as contenders of `attnscope compare`: which they are, and their comparison with attentions and networks."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnscope import attentions
from attnscope.analyses.contenders import PRESET, read_contender
from attnscope.core.errors import UsageError
from attnscope.networks import configs

if TYPE_CHECKING:
    from attnscope.analyses.gate import Bounds
    from attnscope.profiling.candidates import Candidate
    from attnscope.reports.comparison import LeftOut, Point

PREFIXES = ("timm", "torchvision", "hf")
"""Prefixes of modules of libraries."""
GATED = ("macs", "flops", "params", "peak")
"""The counts that --fail-above limits."""


def is_module(text: str) -> bool:
    """Return whether a contender is a module for `attnscope trace`: FILE.py:NAME, timm:NAME or PACKAGE.MODULE:NAME."""
    name, colon, rest = text.strip().partition(":")
    if text.startswith(PRESET) or name in attentions.names() or name in configs.presets():
        return False
    return ".py" in text or Path(text).suffix == ".py" or bool(colon and rest and (name in PREFIXES or "." in name))


def candidates(
    names: Sequence[str],
    inputs: Sequence[str],
    arguments: Sequence[str],
    settings: Mapping[str, Any],
    threads: int,
    seed: int,
) -> "tuple[list[Candidate], list[LeftOut], str]":
    """Return the candidates, those that failed with their reasons, and the input in words.

    Raises:
        UsageError: a contender or an argument is not allowed.
        AttnscopeError: fewer than two contenders can be compared.
    """
    from attnscope.analyses.comparison import check_labels
    from attnscope.analyses.modules import candidates_of, of_spec, spec_for
    from attnscope.analyses.paper_comparison import words_of
    from attnscope.tracing.candidate import candidate
    from attnscope.tracing.targets import parse_argument, parse_input

    check_labels(names)
    shapes = [parse_input(text) for text in inputs]
    args = dict(parse_argument(text) for text in arguments)
    given = {name: value for name, value in settings.items() if value is not None}

    def of_attention(text: str) -> "Candidate":
        contender = read_contender(text)
        if not shapes:
            shape = "1,3,224,224" if contender.is_network else "1,56,56,96"
            raise UsageError(f"{{input}} is required to compare {text} with a module; use a shape such as {shape}")
        spec = spec_for(contender, shapes[0].shape, given)
        return of_spec(text, words_of(contender, spec), spec)

    makers: dict[str, Callable[[], Candidate]] = {
        name: partial(candidate, name, args, shapes, threads, seed) if is_module(name) else partial(of_attention, name)
        for name in names
    }
    found, left_out = candidates_of(makers)
    return found, left_out, f"input {', '.join(map(str, shapes))}" if shapes else ""


def counts_of(found: "Sequence[Candidate]") -> "Callable[[Point, str, str], Bounds]":
    """Return a function that returns a count of a candidate, for `gate_comparison`."""
    by_label = {each.label: each for each in found}

    def count(point: "Point", label: str, quantity: str) -> "Bounds":
        each = by_label[label]
        exact = each.counts.get(quantity)
        return exact, each.at_least.get(quantity) if exact is None else exact

    return count
