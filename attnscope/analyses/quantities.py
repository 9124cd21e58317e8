"""The quantities that a comparison compares, each a function of a Spec or of a measured time. No torch."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from attnscope.attentions.complexity import mlp
from attnscope.attentions.spec import Spec
from attnscope.networks.spec import NetworkSpec
from attnscope.plan.memory import Memory
from attnscope.reports.comparison import Number


@dataclass(frozen=True)
class Quantity:
    """A quantity of an attention or a network.

    Args:
        title: what it is, for one attention layer; `{part}` is the layer or the network.
        unit: "B" for bytes, "" for a count.
        of: returns it for a Spec; None if it is unknown. The function is None for a measured quantity.
        at_least: returns a lower bound for a Spec whose value is unknown.
        of_time: returns it for a Spec and the median time of one forward in seconds.
        of_layers: whether it exists for attentions only, and not for networks.
        of_ranks: whether it exists for one of several ranks only.
        more_is_better: whether a larger value is better.
    """

    title: str
    unit: str
    of: Callable[[Spec], Number] | None = None
    at_least: Callable[[Spec], int] | None = None
    of_time: Callable[[Spec, float], float] | None = None
    of_layers: bool = False
    of_ranks: bool = False
    more_is_better: bool = False

    @property
    def is_measured(self) -> bool:
        """Return whether the quantity follows from a measured time."""
        return self.of_time is not None


def macs(spec: Spec) -> int:
    """Return the MACs by the paper's closed form, which the audit compares with the steps.

    The closed form of a network is that of one image. A position bias is computed once for a batch, so that the MACs of
    several images follow from the steps.
    """
    if isinstance(spec, NetworkSpec):
        return spec.macs() if spec.batch == 1 else spec.plan().macs
    return sum(spec.closed_form().values())


def block_macs(spec: Spec) -> int:
    """Return the MACs of the layer and of the MLP that follows it in a block; the MLP has no padding tokens."""
    dim = dim_of(spec)
    return macs(spec) + mlp(math.prod(spec.input_shape) // dim, dim)


def attention_bytes(spec: Spec) -> int:
    """Return the bytes of the attention weights, the output of softmax; 0 if a fused kernel does not store them."""
    return sum(step.times * step.output_bytes for step in spec.plan().steps if step.name.endswith("softmax"))


def moved_bytes(spec: Spec) -> int:
    """Return the bytes that the steps read and write."""
    return sum(step.times * (step.bytes_read + step.bytes_written) for step in spec.plan().steps)


def peak_bytes(spec: Spec) -> int | None:
    """Return the peak activation memory of the forward; None if it is unknown."""
    return Memory(spec.plan()).peak


def training_bytes(spec: Spec) -> int | None:
    """Return the peak memory of the forward of training, with the tensors saved for the backward; None if unknown."""
    of_steps = Memory(spec.plan()).training
    return None if None in of_steps else max(size for size in of_steps if size is not None)


def dim_of(spec: Spec) -> int:
    """Return the embedding dimension: the size of the channel axis of the input."""
    return spec.input_shape[spec.CHANNEL_AXIS]


QUANTITIES = {
    "macs": Quantity("MACs of {part}", "", macs),
    "block": Quantity("MACs of one block, MLP included", "", block_macs, of_layers=True),
    "flops": Quantity("FLOPs of {part} (2 per MAC)", "", lambda spec: 2 * macs(spec)),
    "attention": Quantity("size of the attention matrix", "B", attention_bytes),
    "peak": Quantity("peak activation memory", "B", peak_bytes, lambda spec: Memory(spec.plan()).least_peak),
    "params": Quantity("parameters of {part}", "", lambda spec: spec.plan().params),
    "bytes": Quantity("bytes moved by {part}", "B", moved_bytes),
    "training": Quantity(
        "peak memory of the training forward",
        "B",
        training_bytes,
        lambda spec: Memory(spec.plan()).least_training_peak,
    ),
    "latency": Quantity("latency of {part}", "s", of_time=lambda spec, seconds: seconds),
    "throughput": Quantity(
        "images per second", "images/s", of_time=lambda spec, seconds: spec.batch / seconds, more_is_better=True
    ),
    "latency-per-mac": Quantity("latency per MAC", "s/MAC", of_time=lambda spec, seconds: seconds / macs(spec)),
    "sent": Quantity("bytes sent by {part} in the forward", "B", of_ranks=True),
    "link": Quantity("time of the collectives of {part}", "s", of_ranks=True),
    "bound": Quantity("roofline lower bound of the steps of {part}", "s", of_ranks=True),
    "link-per-bound": Quantity("time of the collectives over the lower bound of the steps", "", of_ranks=True),
}
"""The quantities by name."""

OTHER_WORDS = {
    "memory": "peak",
    "time": "latency",
    "speed": "throughput",
    "fps": "throughput",
    "parameters": "params",
    "communication": "sent",
}
"""Other words for quantities, which errors suggest the names for."""

COUNTED = [name for name, quantity in QUANTITIES.items() if quantity.of is not None]
"""The names of the quantities that follow from the Specs, without a measurement."""


OF_RANKS = ("sent", "macs", "params", "peak", "link", "bound", "link-per-bound")
"""The quantities of one of several ranks."""


def bounds_of(quantity: Quantity, spec: Spec) -> tuple[int | None, int | None]:
    """Return the exact value of a counted quantity, None if it is unknown, and its lower bound."""
    exact = None if quantity.of is None else quantity.of(spec)
    if exact is not None:
        return int(exact), int(exact)
    return None, quantity.at_least(spec) if quantity.at_least else None
