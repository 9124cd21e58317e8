"""Find the parameters of a module among the tensors that a call takes: by identity, or by the memory of their views.

Operators inside TorchScript, a higher-order operator or a transform take views of a parameter, such as its transpose.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from attnscope.tracing.tensors import elements_of, is_array, storage_of
from attnscope.tracing.tree import named_parameters


@dataclass(frozen=True, slots=True)
class _Place:
    """A parameter and the bytes of its storage that it occupies, from `start` to before `end`.

    The storage is kept, so that no other one takes its identity.
    """

    parameter: Tensor
    start: int
    end: int
    storage: Any


class Parameters:
    """The parameters of a module, and those that no call has taken yet."""

    def __init__(self, module: nn.Module) -> None:
        parameters = [parameter for _, parameter in named_parameters(module)]
        self.unused = {id(parameter): parameter for parameter in parameters}
        self.own = dict(self.unused)
        self.places: dict[int, list[_Place]] = {}
        for parameter in parameters:
            if (storage := _memory_of(parameter)) is not None:
                self.places.setdefault(storage._cdata, []).append(_Place(parameter, *_extent(parameter), storage))

    def take(self, tensors: Iterable[Tensor]) -> int:
        """Return the number of elements of the parameters among these tensors that no call has taken yet."""
        if not self.unused:
            return 0
        taken = {id(each): each for tensor in tensors for each in self._of(tensor)}
        return sum(elements_of(self.unused.pop(key)) for key in taken if key in self.unused)

    def release(self) -> None:
        """Release the parameters, whose memory becomes free even if a cycle, such as that of an error, is left."""
        for found in (self.unused, self.own, self.places):
            found.clear()

    def __contains__(self, tensor: Tensor) -> bool:
        """Return whether a tensor is a parameter, or shares memory with one."""
        return bool(self._of(tensor))

    def _of(self, tensor: Tensor) -> list[Tensor]:
        if id(tensor) in self.own:
            return [tensor]
        storage = _memory_of(tensor)
        places = self.places.get(storage._cdata) if storage is not None else None
        if not places:
            return []
        start, end = _extent(tensor)
        return [place.parameter for place in places if place.start < end and start < place.end]


def _memory_of(tensor: Tensor) -> Any:
    """Return the storage of a tensor; None if it is not an array in memory."""
    return storage_of(tensor) if is_array(tensor) and not is_lazy(tensor) else None


def _extent(tensor: Tensor) -> tuple[int, int]:
    """Return the first byte of an array in its storage, and the one after its last."""
    sizes, start = tensor.shape, tensor.storage_offset()
    if 0 in sizes:
        return 0, 0
    last = sum((size - 1) * stride for size, stride in zip(sizes, tensor.stride(), strict=True))
    return int(start) * tensor.itemsize, int(start + last + 1) * tensor.itemsize
