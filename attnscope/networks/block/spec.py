"""Options of a block that is not part of a network: those of its attention and of its MLP."""

from dataclasses import dataclass, fields
from functools import cache, cached_property
from math import prod
from typing import Any, ClassVar

from attnscope.attentions.complexity import MLP_RATIO, Complexity, Term
from attnscope.attentions.spec import Spec, option, own_fields
from attnscope.core.errors import UsageError
from attnscope.core.formula import Expression, symbol
from attnscope.networks.composed import ComposedSpec
from attnscope.networks.spec import NetworkSpec

OF_NETWORKS = ("mlp_ratio", "checkpoint")
"""Fields of a network that a block has, too."""
TOKENS = ("hw", "N", "Nq", "thw")
"""Names of the number of tokens in formulas of attentions."""


def _again(name: str) -> Any:
    """Declare a field of networks again."""
    (declared,) = (each for each in fields(NetworkSpec) if each.name == name)
    return option(declared.default, **declared.metadata)


@dataclass(frozen=True, kw_only=True)
class BlockSpec(ComposedSpec):
    """A block of an attention: norm, attention, residual, norm, MLP, residual.

    `block_class` adds the fields of the attention, whose output has the shape of its input.

    Raises:
        UsageError: if a value of the attention is not allowed, if the MLP has no hidden channel, or if the attention
            has no such block.
    """

    ATTENTION: ClassVar[type[Spec]]
    """The Spec class of the attention."""
    MODULE_FILE: ClassVar[str] = "network"
    SAID: ClassVar[tuple[str, ...]] = ("scope",)

    mlp_ratio: float = _again("mlp_ratio")
    checkpoint: str = _again("checkpoint")
    scope: str = option("block", "Part of a network: block.", choices=("block",))

    def __post_init__(self) -> None:
        super().__post_init__()
        if reason := without_block(self.ATTENTION):
            raise UsageError(f"{{scope}} block is not available for {self.name}: {reason}; use {{scope}} attention")
        self.hidden(self.width)  # raises an error if the hidden size is 0

    @property
    def width(self) -> int:
        """Return the embedding dimension, the size of the channel axis."""
        return self._attention.input_shape[self.CHANNEL_AXIS]

    @cached_property
    def _attention(self) -> Spec:
        return self.ATTENTION(**{name: getattr(self, name) for name in own_fields(self.ATTENTION)})

    def attention(self) -> Spec:
        """Return the attention."""
        return self._attention

    @property
    def tokens_of_mlp(self) -> int:
        """Return the number of tokens of one image, without the padding for attention."""
        return prod(self._attention.input_shape[1:-1])

    def headline(self) -> list[str]:
        """Describe this Spec in a few words each."""
        return ["block", *self._attention.headline(), f"MLP {self.hidden(self.width)}"]

    def closed_form(self) -> dict[str, int]:
        """Return the MACs of each step with MACs: those of the attention, and 2NCE for an MLP of hidden size E."""
        mlp = self.batch * self.tokens_of_mlp * self.width * self.hidden(self.width)
        attention = {f"attn.{name}": macs for name, macs in self._attention.closed_form().items()}
        return {**attention, "mlp.expand": mlp, "mlp.contract": mlp}

    def complexity(self) -> Complexity:
        """Return the formulas of the attention and of global attention, each with the MLP."""
        alone = self._attention.complexity()
        own, reference = (Term(f"{term.name} and MLP", term.cost + self._mlp) for term in (alone.own, alone.reference))
        supposed = alone.supposed and Term(f"{alone.supposed.name} and MLP", alone.supposed.cost + self._mlp)
        return Complexity(self.batch, own, reference, alone.saving, supposed)

    def counterpart(self) -> None:
        """Return None: only attentions are timed beside global attention."""
        return

    def next_command(self) -> tuple[str, str]:
        """Return the suggested next command and the reason for it."""
        return self._attention.command(), "its attention alone"

    @property
    def _mlp(self) -> Expression:
        """Return the MACs of the MLP, such as `8hwC²`."""
        letters = self._attention.complexity().own.cost.symbols
        names = [each.name for each in letters if each.name in TOKENS and each.values == (self.tokens_of_mlp,)]
        tokens = symbol(*names[:1] or TOKENS[:1], self.tokens_of_mlp)
        C, hidden = symbol("C", self.width), self.hidden(self.width)
        if hidden == MLP_RATIO * self.width:
            return 2 * MLP_RATIO * tokens * C**2
        return 2 * tokens * C * symbol("E", hidden)


def without_block(attention: type[Spec]) -> str:
    """Return the reason why an attention has no block, or an empty text."""
    taken = [name for name in ("scope", *OF_NETWORKS) if name in own_fields(attention)]
    if taken:
        return f"the attention has a field {taken[0]} of its own"
    return attention.WITHOUT_BLOCK


@cache
def block_class(attention: type[Spec]) -> type[BlockSpec]:
    """Return the Spec class of the blocks of an attention, with the fields of both."""
    members = {"ATTENTION": attention, "__module__": __name__, "__doc__": BlockSpec.__doc__}
    made = type(f"Block{attention.__name__}", (BlockSpec, attention), members)
    return dataclass(frozen=True, kw_only=True)(made)
