"""A tape: operations run on tensors without numbers, with what each allocates, frees, costs and saves for the backward.

The functions of this room (`matmul(tape, a, b)`) do what torch's do: they make views if the strides allow it and copies if
they do not, and drop temporaries when they return. A storage that nothing refers to any more is freed, so the events of a
tape are the allocator's, and its nodes hold what autograd's hold.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from attnscope.ops.operation import OPERATIONS, bytes_moved
from attnscope.ops.tensor import Shape, Storage, Tensor, contiguous_strides

PARAMETER = 0
"""The key of the storages of parameters and buffers, whose bytes are counted apart."""


class Saved(NamedTuple):
    """A tensor that a node keeps for its backward: the key of its storage, its layout, and the number of its value."""

    key: int
    shape: Shape
    strides: Shape
    itemsize: int


class Run(NamedTuple):
    """One operator that ran: its aten name, its costs, and the shapes that it took and made.

    `strides` are those of its first operand, from which a copy's cost follows.
    """

    name: str
    macs: int
    flops: int
    bytes_read: int
    bytes_written: int
    inputs: tuple[Shape, ...]
    output: Shape
    strides: Shape


class Back(NamedTuple):
    """The operands of a node's backward: the tape, the gradients of what the node made (None where none came), what
    the node saved, for each of its inputs whether its gradient is needed, and the node's `meta`.
    """

    tape: "Tape"
    grads: "list[Tensor | None]"
    saved: list[Tensor]
    needs: Sequence[bool]
    meta: Any

    @property
    def grad(self) -> Tensor:
        """The gradient of a node that made one tensor."""
        (grad,) = self.grads
        assert grad is not None
        return grad


Gradients = Sequence[Tensor | None]
"""For each input of a node its gradient, None where it is not needed."""


class Node(NamedTuple):
    """One operator as autograd remembers it."""

    backward: Callable[[Back], Gradients]
    inputs: tuple[int, ...]
    """The values that it took, by number; -1 for one that never needs a gradient."""
    outputs: tuple[int, ...]
    saved: tuple[Saved, ...]
    meta: Any
    """Shapes and the like that its backward needs."""


class Tape:
    """Records the allocations, costs and autograd nodes of some operations.

    Args:
        itemsize: bytes of one number.
        records: remember nodes for autograd.
    """

    def __init__(self, itemsize: int, records: bool = True) -> None:
        self.itemsize = itemsize
        self.records = records
        self.events: list[tuple[int, int]] = []
        """Storages in the order in which they come and go: the key, and the bytes, negative when it is freed."""
        self.runs: list[Run] = []
        self.nodes: list[Node] = []
        self.values = 0
        self.keys = PARAMETER
        self.holds_more = False
        """An operator holds more while it runs than is known: a library's workspace, or a kernel's."""
        self.keeps_unknown = False
        """Something is saved for the backward that only the device knows."""
        self.drops = False
        """In training another tensor takes the place of the result, as with dropout."""
        self.heads_apart = False
        """Attention kernels make their heads one behind the other, and not side by side for each token."""
        self.numbers: set[int] = set()
        """Storages of numbers that torch makes tensors of, a few bytes each."""
        self.fused_macs = 0
        """Those of the MACs that one attention kernel does."""
        self.macs = self.flops = self.bytes_read = self.bytes_written = 0

    def tensor(self, shape: Shape, strides: Shape | None = None, itemsize: int | None = None) -> Tensor:
        """Allocate a tensor, contiguous unless strides are given."""
        self.keys += 1
        strides = contiguous_strides(shape) if strides is None else strides
        made = Tensor(shape, strides, PARAMETER_STORAGE, itemsize or self.itemsize, self.values)
        self.values += 1
        made.storage = Storage(self.keys, made.nbytes, self._freed)
        self.events.append((self.keys, made.storage.nbytes))
        return made

    def external(self, shape: Shape, strides: Shape | None = None, key: int | None = None) -> Tensor:
        """Return a tensor that comes from outside; without a key it is a parameter or a buffer."""
        self.values += 1
        storage = PARAMETER_STORAGE if key is None else Storage(key, 0)
        strides = contiguous_strides(shape) if strides is None else strides
        return Tensor(shape, strides, storage, self.itemsize, self.values - 1)

    def view(self, of: Tensor, shape: Shape, strides: Shape) -> Tensor:
        """Return another view of a tensor's memory."""
        self.values += 1
        return Tensor(shape, strides, of.storage, of.itemsize, self.values - 1, is_view=True)

    def number(self) -> Tensor:
        """Allocate the double that torch makes of a Python number."""
        made = self.tensor((), itemsize=8)
        self.numbers.add(made.storage.key)
        return made

    def cast(self, is_double: bool) -> Tensor | None:
        """Allocate a number in the dtype of the tape, None if it is a double and so is the dtype."""
        return None if is_double and self.itemsize == 8 else self.tensor(())

    def hold(self, nbytes: int) -> None:
        """Allocate memory and free it at once: the workspace of an operator."""
        if nbytes:
            self.keys += 1
            self.events += [(self.keys, nbytes), (self.keys, -nbytes)]

    def ran(self, name: str, arguments: Sequence[Any], out: Any) -> None:
        """Note that an operator ran, with its costs from the registry."""
        operation = OPERATIONS[name]
        macs = operation.macs(arguments, out) if operation.macs else 0
        flops = operation.flops(arguments, out) if operation.flops else 0
        read, written = bytes_moved(operation, arguments, out)
        self.macs += macs
        self.flops += flops
        self.bytes_read += read
        self.bytes_written += written
        tensors = [each for each in arguments if isinstance(each, Tensor)]
        first = out[0] if isinstance(out, tuple) else out
        strides = tensors[0].strides if tensors else ()
        self.runs.append(
            Run(name, macs, flops, read, written, tuple([each.shape for each in tensors]), first.shape, strides)
        )

    def remember(
        self,
        backward: Callable[[Back], Gradients],
        inputs: Sequence[Tensor | None],
        outputs: Sequence[Tensor],
        saved: Sequence[Tensor] = (),
        meta: Any = None,
    ) -> None:
        """Add a node to the graph."""
        if not self.records:
            return
        self.nodes.append(
            Node(
                backward,
                tuple([-1 if each is None else each.value for each in inputs]),
                tuple([each.value for each in outputs]),
                tuple([Saved(each.storage.key, each.shape, each.strides, each.itemsize) for each in saved]),
                meta,
            )
        )

    def _freed(self, key: int, nbytes: int) -> None:
        self.events.append((key, -nbytes))


PARAMETER_STORAGE = Storage(PARAMETER, 0)


def is_shared(tensor: Tensor) -> bool:
    """Return whether somebody else refers to this very tensor, so that autograd copies it into a parameter's gradient."""
    return sys.getrefcount(tensor) > 3  # the caller's name, the argument, and getrefcount's own
