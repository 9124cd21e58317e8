"""Specs of what is composed of an attention and other layers: networks, their parts, and blocks."""

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, ClassVar

from attnscope.attentions.spec import Spec
from attnscope.core.errors import UsageError
from attnscope.plan.plan import Plan


class ComposedSpec(Spec):
    """A Spec of blocks: of a whole network, a part of it, or a block alone."""

    mlp_ratio: float
    checkpoint: str
    scope: str
    INSTEAD: ClassVar[Mapping[str, str]] = {}
    """Replacement of a field that only the attention has, for an error message."""

    @property
    def is_whole(self) -> bool:
        """Return whether the Spec describes a whole network."""
        return False

    def attention(self) -> Spec:
        """Return the attention of the selected block, by default the first one."""
        raise NotImplementedError

    def hidden(self, dim: int) -> int:
        """Return the hidden size of the MLP in a block of this embedding dimension.

        Raises:
            UsageError: if it is 0.
        """
        hidden = int(dim * self.mlp_ratio)
        if not hidden:
            smallest = math.ceil(1e4 / dim) / 1e4
            raise UsageError(
                f"{{mlp_ratio}} must be at least 1/{{dim}}, or the MLP has no hidden channel "
                f"(got {self.mlp_ratio:g} with {{dim}} {dim}); smallest: {smallest:g}"
            )
        return hidden

    def checkpointed(self, part: str, plan: Plan) -> Plan:
        """Return the plan of a block or of its attention, which the backward recomputes if it is the checkpointed part."""
        return plan.checkpointed() if part == self.checkpoint else plan

    def shared(self) -> dict[str, Any]:
        """Return the values of the fields that all attentions have."""
        return {field.name: getattr(self, field.name) for field in fields(Spec)}
