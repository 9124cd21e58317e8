"""Options of a block that is not part of a network: those of its attention and of its MLP."""

from collections.abc import Mapping
from dataclasses import Field, dataclass, fields
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


def _declared(name: str) -> "Field[Any]":
    """Return the declaration of a field of networks."""
    (declared,) = (each for each in fields(NetworkSpec) if each.name == name)
    return declared


MLP_OPTION = _declared("mlp_ratio").metadata
"""The arguments of `option` for the field `mlp_ratio` of a block, without its default."""


@dataclass(frozen=True, kw_only=True)
class BlockSpec(ComposedSpec):
    """A block of an attention: norm, attention, residual, norm, MLP, residual.

    `block_class` adds the fields of the attention, whose output has the shape of its input. A subclass describes blocks
    with other parts.

    Raises:
        UsageError: if a value of the attention is not allowed, if the MLP has no hidden channel, or if the attention
            has no such block.
    """

    ATTENTION: ClassVar[type[Spec]]
    """The Spec class of the attention."""
    MODULE_FILE: ClassVar[str] = "network"
    SAID: ClassVar[tuple[str, ...]] = ("scope",)
    PATH: ClassVar[str] = "attn"
    """Path of the attention in the module."""
    OTHERS: ClassVar[str] = " and MLP"
    """Continuation of a list that begins with the attention: the other parts with MACs."""

    MLP: ClassVar[str] = "MLP"
    """Name of the part whose hidden size is `mlp_ratio` times the embedding dimension."""

    mlp_ratio: float = option(_declared("mlp_ratio").default, **MLP_OPTION)
    checkpoint: str = option("none", **_declared("checkpoint").metadata)
    scope: str = option("block", "Part of a network: block.", choices=("block",))

    def __post_init__(self) -> None:
        super().__post_init__()
        if reason := without_block(self.ATTENTION):
            raise UsageError(f"{{scope}} block is not available for {self.name}: {reason}; use {{scope}} attention")
        self.hidden(self.width)  # raises an error if the hidden size is 0

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how pickle makes it again, in another process too: no module has the class that `block_class` makes."""
        block, attention = type(self).__bases__
        return _unpickled, (attention, block, {name: getattr(self, name) for name in own_fields(type(self))})

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
        return prod(self._attention.input_shape[1:]) // self.width

    def headline(self) -> list[str]:
        """Describe this Spec in a few words each."""
        return ["block", *self._attention.headline(), f"{self.MLP} {self.hidden(self.width)}"]

    def closed_form(self) -> dict[str, int]:
        """Return the MACs of each step with MACs: those of the attention, and those of the other parts."""
        attention = {f"{self.PATH}.{name}": macs for name, macs in self._attention.closed_form().items()}
        return attention | {name: self.batch * macs for name, macs in self.others_form().items()}

    def others_form(self) -> dict[str, int]:
        """Return the MACs of each step outside the attention, for one image: 2NCE for an MLP of hidden size E."""
        mlp = self.tokens_of_mlp * self.width * self.hidden(self.width)
        return {"mlp.expand": mlp, "mlp.contract": mlp}

    def complexity(self) -> Complexity:
        """Return the formulas of the attention and of global attention, each with the other parts of the block."""
        alone, others = self._attention.complexity(), self.others_cost()
        own, reference = (
            Term(f"{term.name}{self.OTHERS}", term.cost + others) for term in (alone.own, alone.reference)
        )
        supposed = alone.supposed and Term(f"{alone.supposed.name}{self.OTHERS}", alone.supposed.cost + others)
        return Complexity(self.batch, own, reference, alone.saving, supposed)

    def counterpart(self) -> None:
        """Return None: only attentions are timed beside global attention."""
        return

    def next_command(self) -> tuple[str, str]:
        """Return the suggested next command and the reason for it."""
        return self._attention.command(), "its attention alone"

    @property
    def token_count(self) -> Expression:
        """Return the number of tokens of one image by the name that it has in the formula of the attention."""
        letters = self._attention.complexity().own.cost.symbols
        names = [each.name for each in letters if each.name in TOKENS and each.values == (self.tokens_of_mlp,)]
        return symbol(*names[:1] or TOKENS[:1], self.tokens_of_mlp)

    def others_cost(self) -> Expression:
        """Return the MACs outside the attention for one image: those of the MLP, such as `8hwC²`."""
        tokens, C, hidden = self.token_count, symbol("C", self.width), self.hidden(self.width)
        if hidden == MLP_RATIO * self.width:
            return 2 * MLP_RATIO * tokens * C**2
        return 2 * tokens * C * symbol("E", hidden)


_COMMON = own_fields(Spec)  # type: ignore[type-abstract]


def without_block(attention: type[Spec]) -> str:
    """Return the reason why an attention has no block, or an empty text."""
    taken = [name for name in ("scope", *OF_NETWORKS) if name in own_fields(attention)]
    if taken:
        return f"the attention has a field {taken[0]} of its own"
    return attention.WITHOUT_BLOCK


@cache
def block_class(attention: type[Spec], block: type[BlockSpec] = BlockSpec) -> type[BlockSpec]:
    """Return the Spec class of the blocks of an attention, with the fields of both.

    Args:
        attention: the Spec class of the attention.
        block: the Spec class of blocks, whose folder has the steps and the module.
    """
    members: dict[str, Any] = {"ATTENTION": attention, "__module__": block.__module__, "__doc__": block.__doc__}
    # The fields that all attentions have are those of `block` otherwise, with the defaults of the base Spec.
    changed = {
        field.name: field for field in fields(attention) if field.name in _COMMON and field not in _COMMON.values()
    }
    members |= {name: option(field.default, **field.metadata) for name, field in changed.items()}
    members["__annotations__"] = {name: field.type for name, field in changed.items()}
    made = type(f"Block{attention.__name__}", (block, attention), members)
    return dataclass(frozen=True, kw_only=True)(made)


def _unpickled(attention: type[Spec], block: type[BlockSpec], values: Mapping[str, Any]) -> BlockSpec:
    """Return the Spec of a block with these values of its fields."""
    return block_class(attention, block)(**values)
