"""Predictions held against what ran: the module of a Spec to run, and one message for each difference."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from attnscope.attentions.spec import Spec
from attnscope.profiling.building import build, settled

CPU = torch.device("cpu")


@contextmanager
def built(spec: Spec) -> Iterator[tuple[nn.Module, tuple[Tensor, ...]]]:
    """Build the module of a Spec, in evaluation mode, and its inputs; with a seed, and with one thread while it is used."""
    with settled(threads=1, seed=0, device=CPU):
        yield build(spec, CPU)


def fail(spec: Spec, what: str, where: str, predicted: object, real: object, hint: str) -> None:
    """Raise the error of a check.

    Raises:
        AssertionError: always, with what differs, at which step, what is predicted and what is real, and a hint.
    """
    raise AssertionError(
        f"{what} of {where}: predicted {_spell(predicted)}, real {_spell(real)}\n  hint: {hint}\n  spec: {spec}"
    )


def hold_equal(spec: Spec, what: str, predicted: Mapping[str, object], real: Mapping[str, object], hint: str) -> None:
    """Hold what is predicted of each step against what is real; a step that is not mentioned has 0.

    Raises:
        AssertionError: they differ; the message tells the first step where they do.
    """
    for where in dict.fromkeys([*predicted, *real]):
        if predicted.get(where, 0) != real.get(where, 0):
            fail(spec, what, where, predicted.get(where, 0), real.get(where, 0), hint)


def _spell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else "nothing" if value is None else str(value)
