"""Find the family of a recognized attention: the Spec that has its sizes and its MACs."""

from collections.abc import Iterator, Sequence
from typing import Any

from attnscope.attentions import names, spec_class
from attnscope.attentions.observed import Observed
from attnscope.attentions.spec import Spec
from attnscope.core.errors import AttnscopeError


def family_of(seen: Observed, totals: Sequence[int]) -> tuple[Spec, int] | None:
    """Return the Spec of an observed attention, and the place of its MACs in `totals`; None if no family has them.

    Args:
        seen: the sizes of the attention.
        totals: MACs that the Spec may have, the most credible first.
    """
    exact_first = sorted(_specs(seen), key=lambda spec: seen.is_windowed and adds_bias(spec) != seen.is_biased)
    specs = [(spec, sum(spec.closed_form().values())) for spec in exact_first]
    return next(((spec, place) for place, total in enumerate(totals) for spec, macs in specs if macs == total), None)


def _specs(seen: Observed) -> Iterator[Spec]:
    """Yield the valid Specs of all families for an observed attention."""
    for name in names():
        family = spec_class(name)
        for values in family.candidates(seen):
            if None not in values.values() and (spec := _valid(family, values, seen.images)):
                yield spec


def adds_bias(spec: Spec) -> bool:
    """Return whether a step of an attention adds a position bias to the scores."""
    return any(step.name == "add_bias" for step in spec.plan().sized)


def _valid(family: type[Spec], values: dict[str, Any], batch: int) -> Spec | None:
    try:
        return family(**values, batch=batch)
    except AttnscopeError:
        return None
