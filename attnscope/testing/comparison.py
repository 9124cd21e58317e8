"""Comparison of predictions with real runs: the module of a Spec, and one message for each difference."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from attnscope.attentions.spec import Spec
from attnscope.profiling.building import build, settled

CPU = torch.device("cpu")


@contextmanager
def built(spec: Spec) -> Iterator[tuple[nn.Module, tuple[Tensor, ...]]]:
    """Build a Spec's module in evaluation mode and its inputs, with a fixed seed and one thread in the context."""
    with settled(threads=1, seed=0, device=CPU):
        yield build(spec, CPU)


def fail(spec: Spec, what: str, where: str, predicted: object, real: object, hint: str) -> None:
    """Raise the error of a check.

    Args:
        spec: Spec that is tested.
        what: name of the quantity that differs.
        where: place of the step.
        predicted: predicted value.
        real: real value.
        hint: probable cause or fix.

    Raises:
        AssertionError: always.
    """
    raise AssertionError(
        f"{what} of {where}: predicted {_spell(predicted)}, real {_spell(real)}\n  hint: {hint}\n  spec: {spec}"
    )


def hold_equal(spec: Spec, what: str, predicted: Mapping[str, object], real: Mapping[str, object], hint: str) -> None:
    """Check that the predicted and the real value of each step are equal; a missing step has the value 0.

    Raises:
        AssertionError: if they differ; the message names the first step that differs.
    """
    for where in dict.fromkeys([*predicted, *real]):
        if predicted.get(where, 0) != real.get(where, 0):
            fail(spec, what, where, predicted.get(where, 0), real.get(where, 0), hint)


def _spell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else "nothing" if value is None else str(value)
