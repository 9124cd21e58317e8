"""The ShardingReport as plain data: what each step of an attention is, needs and sends on one of several ranks."""

from dataclasses import asdict, dataclass, field
from typing import Any

from attnscope.core.axes import Shape
from attnscope.core.shown import Shown
from attnscope.core.text import in_json
from attnscope.plan.links import Device, Link
from attnscope.plan.sharding import Transfer

SCHEMA = 1


@dataclass
class ShardedStep:
    """One step on one rank.

    Args:
        name, doc: the step and its meaning.
        pattern: its axis letters.
        outputs: the shapes of its outputs on one device.
        local_outputs: the distinct shapes of its outputs among ranks, after its collectives; the largest are first.
        before, after: the collectives before and after the step, of the rank that sends the most.
        rounds: the number of blocks of keys for which it runs, one after another.
        macs, params: its MACs and parameters on that rank.
        bytes_live: its peak activation memory on that rank, with what collectives receive; None if it is unknown.
        bytes_sent: bytes that the rank sends in the forward.
        backward_bytes_sent: bytes that it sends in the backward, without the gradients of parameters.
        gradient_bytes_sent: bytes that it sends to sum the gradients of parameters that several ranks have.
        bound_s: the roofline lower bound of its time on that rank; None without the rates of a device.
        bytes_live_at_least: a lower bound of `bytes_live`, which is equal to it if it is known.
        times: the number of modules that run it; costs other than memory are those of all of them.
        whole: why each rank computes all of a part of a network; "" if it computes a part of it.
    """

    name: str
    doc: str
    pattern: str
    outputs: list[Shape]
    local_outputs: list[list[Shape]]
    before: list[Transfer]
    after: list[Transfer]
    rounds: int
    macs: int
    params: int
    bytes_live: int | None
    bytes_sent: int
    backward_bytes_sent: int
    gradient_bytes_sent: int
    bound_s: float | None
    bytes_live_at_least: int = 0
    times: int = 1
    whole: str = ""


@dataclass
class ShardedTotals:
    """Sums over the steps of the rank that sends the most.

    Args:
        bytes_sent: bytes that one rank sends in the forward, with ring algorithms.
        backward_bytes_sent, gradient_bytes_sent: as in a ShardedStep.
        macs: MACs of one rank.
        whole_macs: MACs on one device.
        params: parameters of one rank.
        whole_params: parameters on one device.
        peak_bytes: peak activation memory of one rank; None if it is unknown.
        collectives: the number of collectives in the forward.
        communication_s: seconds of the collectives on the link; None without one.
        bound_s: the roofline lower bound of the steps; None without the rates of a device.
        peak_bytes_at_least: a lower bound of `peak_bytes`, which is equal to it if it is known.
    """

    bytes_sent: int
    backward_bytes_sent: int
    gradient_bytes_sent: int
    macs: int
    whole_macs: int
    params: int
    whole_params: int
    peak_bytes: int | None
    collectives: int
    communication_s: float | None
    bound_s: float | None
    peak_bytes_at_least: int = 0


@dataclass
class OtherPlan:
    """Another plan for the same number of ranks: its bytes, or why it is illegal."""

    plan: str
    bytes_sent: int | None
    why: str = ""


@dataclass
class ShardingVerification:
    """The result of running the sharded module.

    Args:
        how: "a fake process group" or "gloo", and the kernel if it is not that of the attention.
        ranks: the number of ranks that were compared: all of a gloo run, one of a fake one.
        agrees: whether shapes, collectives, bytes and MACs equal the plan, and values those on one device.
        problems: the differences, one line each.
        output_error: the largest absolute difference of the output from that on one device; None without values.
        gradient_error: the same of the gradients of input and parameters.
    """

    how: str
    ranks: int
    agrees: bool
    problems: list[str]
    output_error: float | None = None
    gradient_error: float | None = None


@dataclass(repr=False)
class ShardingReport(Shown):
    """An attention on several ranks.

    Args:
        command: the command line.
        title: the headline.
        attention: the name of the attention.
        spec: its options.
        plan: the plan, as in `--plan`.
        ranks: the number of ranks.
        backward: whether the backward was requested.
        steps: its steps; the parts of a network, without letters.
        totals: sums over the steps.
        others: other plans for the same number of ranks.
        link, device: the rates of the times; None if they were not given.
        verification: the result of running the sharded module; None if it did not run.
        notes: what a user may not expect.
        next: the suggested next command, and the reason for it.
        environment: the versions of attnscope and of Python, and that of torch if the sharded module ran.
    """

    command: str | None
    title: str
    attention: str
    spec: dict[str, Any]
    plan: str
    ranks: int
    backward: bool
    steps: list[ShardedStep]
    totals: ShardedTotals
    others: list[OtherPlan]
    link: Link | None
    device: Device | None
    notes: list[str]
    next: tuple[str, str]
    verification: ShardingVerification | None = None
    environment: dict[str, Any] = field(default_factory=dict)
    schema: int = field(default=SCHEMA)

    def to_dict(self) -> dict[str, Any]:
        """Return plain dictionaries, lists and numbers."""
        data = asdict(self)
        return {"schema": data.pop("schema"), **data}

    def to_json(self) -> str:
        """Return the data as JSON."""
        return in_json(self.to_dict())
