"""The collectives that a rank runs, with the bytes that it sends, recorded below DTensor.

torch's CommDebugMode counts calls and not bytes, and does not see `send` and `recv`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

KINDS = {
    "allreduce_": "all-reduce",
    "_allgather_base_": "all-gather",
    "_reduce_scatter_base_": "reduce-scatter",
    "alltoall_base_": "all-to-all",
    "send": "send",
    "all_reduce": "all-reduce",
    "all_gather_into_tensor": "all-gather",
    "reduce_scatter_tensor": "reduce-scatter",
    "all_to_all_single": "all-to-all",
}
"""The collective of each operator of c10d, and of the functional collectives."""
SKIPPED = ("wait_tensor", "_wrap_tensor_autograd", "recv_", "barrier", "monitored_barrier_")

COUNTED_AS = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: torch.ops.aten._scaled_dot_product_flash_attention
}
"""The operator with the formula, for operators that torch's FLOP counter does not know."""


class Recorded(NamedTuple):
    """A collective that ran: its kind, and the bytes that this rank sent with ring algorithms."""

    kind: str
    bytes_sent: int


class Recorder(TorchDispatchMode):
    """A mode that records collectives, of c10d and functional ones, and counts FLOPs with torch's formulas.

    FlopCounterMode counts the operators of a DTensor at their global sizes. It also imports torch's compiler.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[Recorded] = []
        self.flops = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return False: torch would import its compiler, which takes longer than the run, to leave this mode out of it."""
        return False

    def __torch_dispatch__(
        self, operator: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if any(each.__name__ == "DTensor" for each in types):
            return NotImplemented  # its local tensors come here next
        namespace, _, name = operator._schema.name.partition("::")
        if namespace in ("c10d", "_c10d_functional") and name not in SKIPPED:
            self.found.append(_recorded(KINDS.get(name, name), args, kwargs or {}))
        made = operator(*args, **(kwargs or {}))
        if formula := flop_registry.get(COUNTED_AS.get(operator._overloadpacket, operator._overloadpacket)):
            self.flops += formula(*args, **(kwargs or {}), out_val=made)
        return made


def _recorded(kind: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Recorded:
    group = _group_of(args, kwargs)
    ranks, own = dist.get_world_size(group), dist.get_rank(group)
    listed = [each for values in args if isinstance(values, list) for each in values]
    tensors = [each for each in (*args, *listed) if isinstance(each, Tensor)]
    first = tensors[0]
    if kind == "all-reduce":
        sent = sum([2 * (ranks - 1) * -(-each.numel() // ranks) for each in tensors])
    elif kind == "all-gather":
        sent = (ranks - 1) * min(each.numel() for each in tensors)
    elif kind == "reduce-scatter":
        sent = (ranks - 1) * (max(each.numel() for each in tensors) // ranks)
    elif kind == "all-to-all":
        sizes = [each for each in args if isinstance(each, list) and all(isinstance(size, int) for size in each)]
        given = sizes[-1] if sizes and sizes[-1] else [1] * ranks
        rows = sum(given) or 1
        source = tensors[-1]
        sent = (sum(given) - given[own]) * (source.numel() // rows)
    else:
        sent = first.numel()
    return Recorded(kind, sent * first.element_size())


def _group_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Return the process group of a call: an object of torch's, or the name of a functional collective's."""
    for each in (*args, *kwargs.values()):
        if isinstance(each, dist.ProcessGroup):
            return each
        if hasattr(each, "_type") and "ProcessGroup" in str(each._type()):
            return dist.ProcessGroup.unbox(each)
    from torch.distributed import distributed_c10d

    resolve: Any = distributed_c10d._resolve_process_group  # type: ignore[attr-defined]
    return next(resolve(each) for each in (*args, *kwargs.values()) if isinstance(each, str))
