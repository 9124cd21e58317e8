"""A tape that runs operations on abstract tensors and records their costs, allocations and saved tensors.

The functions of this package, such as `matmul(tape, a, b)`, behave like torch's. They return views if the strides allow
it and copies otherwise, and drop temporaries when they return. A storage is freed after its last reference. The events
of a tape are therefore those of the allocator, and its nodes save the tensors that autograd's nodes save.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from attnscope.ops.operation import OPERATIONS, bytes_moved
from attnscope.ops.tensor import Shape, Storage, Tensor, contiguous_strides

PARAMETER = 0
"""The key of the storages of parameters and buffers, whose bytes are counted separately."""


class Saved(NamedTuple):
    """A tensor that a node saves for its backward: the key of its storage, its shape, strides and element size."""

    key: int
    shape: Shape
    strides: Shape
    itemsize: int


class Run(NamedTuple):
    """One call of an operator: its aten name, its costs, the shapes of its inputs and the shape of its output.

    `strides` are those of the first input, on which the cost of a copy depends.
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
    """The operands of the backward of a node.

    Args:
        tape: the tape that records the backward.
        grads: the gradient of each output of the node; None if it has no gradient.
        saved: the saved tensors of the node.
        needs: for each input of the node, whether it needs a gradient.
        meta: the `meta` of the node.
    """

    tape: "Tape"
    grads: "list[Tensor | None]"
    saved: list[Tensor]
    needs: Sequence[bool]
    meta: Any

    @property
    def grad(self) -> Tensor:
        """Return the gradient of a node with a single output."""
        (grad,) = self.grads
        assert grad is not None
        return grad


Gradients = Sequence[Tensor | None]
"""The gradient of each input of a node; None if the input needs no gradient."""


class Node(NamedTuple):
    """One node of the autograd graph.

    `macs` and `events` are what the tape had recorded when the node saved its last tensor. An operator saves its inputs
    before it computes, and its results after it.
    """

    backward: Callable[[Back], Gradients]
    inputs: tuple[int, ...]
    """The numbers of the input values; -1 for an input that never needs a gradient."""
    outputs: tuple[int, ...]
    saved: tuple[Saved, ...]
    meta: Any
    """Metadata for the backward, such as shapes."""
    macs: int = 0
    events: int = 0


class Tape:
    """A record of the allocations, costs and autograd nodes of a sequence of operations.

    Args:
        itemsize: bytes of one element.
        records: record autograd nodes.
    """

    def __init__(self, itemsize: int, records: bool = True) -> None:
        self.itemsize = itemsize
        self.records = records
        self.events: list[tuple[int, int]] = []
        """Allocations and frees in order: the key of the storage, and its bytes, which are negative for a free."""
        self.runs: list[Run] = []
        self.nodes: list[Node] = []
        self.values = 0
        self.keys = PARAMETER
        self.holds_more = False
        """True if an operator has a workspace of unknown size, so that peak memory is a lower bound."""
        self.keeps_unknown = False
        """True if the tensors saved for the backward depend on the device."""
        self.drops = False
        """True if training replaces the result by another tensor, as dropout does."""
        self.heads_apart = False
        """True if attention kernels lay their heads out one after another, instead of side by side for each token."""
        self.numbers: set[int] = set()
        """The keys of Python numbers that torch wraps in tensors of a few bytes."""
        self.returned: int | None = None
        """The number of events when the function of the current node returned in the backward; None if it still runs."""
        self.fused_macs = 0
        """The MACs of fused attention kernels, which `macs` includes."""
        self.macs = self.flops = self.bytes_read = self.bytes_written = 0

    def tensor(self, shape: Shape, strides: Shape | None = None, itemsize: int | None = None) -> Tensor:
        """Allocate a tensor, which is contiguous by default."""
        self.keys += 1
        strides = contiguous_strides(shape) if strides is None else strides
        made = Tensor(shape, strides, PARAMETER_STORAGE, itemsize or self.itemsize, self.values)
        self.values += 1
        made.storage = Storage(self.keys, made.nbytes, self._freed)
        self.events.append((self.keys, made.storage.nbytes))
        return made

    def external(self, shape: Shape, strides: Shape | None = None, key: int | None = None) -> Tensor:
        """Return a tensor that the tape does not allocate: an input if it has a key, else a parameter or buffer."""
        self.values += 1
        storage = PARAMETER_STORAGE if key is None else Storage(key, 0)
        strides = contiguous_strides(shape) if strides is None else strides
        return Tensor(shape, strides, storage, self.itemsize, self.values - 1)

    def view(self, of: Tensor, shape: Shape, strides: Shape) -> Tensor:
        """Return a view of the memory of a tensor."""
        self.values += 1
        return Tensor(shape, strides, of.storage, of.itemsize, self.values - 1, is_view=True)

    def number(self) -> Tensor:
        """Allocate the float64 tensor that torch makes of a Python number."""
        made = self.tensor((), itemsize=8)
        self.numbers.add(made.storage.key)
        return made

    def cast(self, is_double: bool) -> Tensor | None:
        """Allocate a scalar in the dtype of the tape; return None if that dtype and the number are both float64."""
        return None if is_double and self.itemsize == 8 else self.tensor(())

    def hold(self, nbytes: int) -> None:
        """Allocate the workspace of an operator and free it immediately."""
        if nbytes:
            self.keys += 1
            self.events += [(self.keys, nbytes), (self.keys, -nbytes)]

    def end_function(self) -> None:
        """Mark the end of a node's function in the backward; autograd then reduces the gradients of its operands."""
        if self.returned is None:
            self.returned = len(self.events)

    def ran(self, name: str, arguments: Sequence[Any], out: Any) -> None:
        """Record a call of an operator, with its costs from the registry."""
        operation = OPERATIONS[name]
        # the sizes of abstract tensors are known, and so are their counts
        macs: Any = operation.macs(arguments, out) if operation.macs else 0
        flops: Any = operation.flops(arguments, out) if operation.flops else 0
        read: Any
        written: Any
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
        """Add a node to the autograd graph.

        Args:
            backward: returns the gradient of each input.
            inputs: the inputs of the node; None for one that never needs a gradient.
            outputs: the outputs of the node.
            saved: the tensors that the node saves for its backward.
            meta: metadata for the backward.
        """
        if not self.records:
            return
        made = min([each.storage.key for each in outputs], default=PARAMETER)
        saves_results = any(each.storage.key >= made for each in saved)
        macs, events = self.macs, len(self.events)
        if saved and not saves_results:
            macs -= self.runs[-1].macs
            events = next(index for index, event in enumerate(self.events) if event[0] == made)
        self.nodes.append(
            Node(
                backward,
                tuple([-1 if each is None else each.value for each in inputs]),
                tuple([each.value for each in outputs]),
                tuple([Saved(each.storage.key, each.shape, each.strides, each.itemsize) for each in saved]),
                meta,
                macs,
                events,
            )
        )

    def _freed(self, key: int, nbytes: int) -> None:
        self.events.append((key, -nbytes))


PARAMETER_STORAGE = Storage(PARAMETER, 0)


def is_shared(tensor: Tensor) -> bool:
    """Return whether a gradient has other references, in which case autograd copies it into the parameter's `grad`."""
    return sys.getrefcount(tensor) > 3  # references of the caller, of the parameter `tensor` and of getrefcount itself
