"""The effects of one step and of its backward: costs, allocations, frees and saved tensors.

The operation of a step runs once on a tape, on abstract tensors. The record of the tape is stored relative to the step.
The runs of a whole network are then added up, without running each of them.
"""

import sys
from collections.abc import Sequence
from typing import NamedTuple

from attnscope.ops.tape import PARAMETER, Back, Node, Run, Tape, is_shared
from attnscope.ops.tensor import Shape, Storage, Tensor


class Made(NamedTuple):
    """An output of a step.

    Args:
        key: of its storage; a negative key is the storage of input `-key - 1`.
        strides: its strides.
        value: its number among the values of the tape.
    """

    key: int
    strides: Shape
    value: int


class LastSave(NamedTuple):
    """The state of a step when autograd saves its last tensor for the backward.

    A checkpoint stops to recompute there, in the last step that saves a tensor.

    Args:
        macs: the MACs so far.
        peak: peak memory so far, outputs included.
    """

    macs: int
    peak: int


class Forward(NamedTuple):
    """The forward of a step.

    Args:
        macs, flops, bytes_read, bytes_written: its costs; `flops` are elementwise.
        fused_macs: the MACs of fused attention kernels, which `macs` includes.
        runs: the calls of operators.
        outputs: its outputs.
        sizes: bytes of each storage that its outputs own, by key.
        scratch: peak memory in inference, in addition to its outputs.
        training_scratch: the same in training, where saved tensors are not freed.
        saved: keys of the storages that it saves, in order, without those of Python numbers.
        kept: bytes that it saves in addition to its inputs and outputs.
        kept_numbers: bytes of the Python numbers that it saves.
        holds_more: an operator has a workspace of unknown size, so that peak memory is a lower bound.
        keeps_unknown: the tensors that it saves depend on the device.
        drops: training replaces its outputs by other tensors.
        nodes: the autograd graph of the step.
        inputs, weights: the numbers of its input values and of its parameters.
        savers: the number of nodes that save each storage, by key.
        bytes_of: bytes of each storage that it saves in addition, by key.
        last_save: the state when it saves its last tensor; None if it saves none.
    """

    macs: int
    flops: int
    fused_macs: int
    bytes_read: int
    bytes_written: int
    runs: tuple[Run, ...]
    outputs: tuple[Made, ...]
    sizes: dict[int, int]
    scratch: int
    training_scratch: int
    saved: tuple[int, ...]
    kept: int
    kept_numbers: int
    holds_more: bool
    keeps_unknown: bool
    drops: bool
    nodes: tuple[Node, ...]
    inputs: tuple[int, ...]
    weights: tuple[int, ...]
    savers: dict[int, int]
    bytes_of: dict[int, int]
    last_save: LastSave | None


def forward_of(tape: Tape, inputs: Sequence[Tensor], weights: Sequence[Tensor], outputs: Sequence[Tensor]) -> Forward:
    """Summarize the operation of a step that ran on a tape.

    Args:
        tape: the tape on which it ran.
        inputs: its inputs; the storage of input i has the key -i - 1.
        weights: its parameters.
        outputs: its outputs, to which the caller still refers.
    """
    events, tape.events = tape.events, []
    savers: dict[int, int] = {}
    for node in tape.nodes:
        for key in {each.key for each in node.saved}:
            savers[key] = savers.get(key, 0) + 1
    savers.pop(PARAMETER, None)
    saved = list(savers)
    made = {each.storage.key: each.storage.nbytes for each in outputs if each.storage.key > 0}
    allocated = dict(reversed([(key, nbytes) for key, nbytes in events if nbytes >= 0]))
    stays = set(saved)
    saving = [node for node in tape.nodes if node.saved]
    held = peak_at_last_save = peak = training = training_peak = 0
    for number, (key, nbytes) in enumerate(events, start=1):
        held += nbytes
        if nbytes > 0 or key not in stays:
            training += nbytes
        if held > peak:
            peak = held
        if training > training_peak:
            training_peak = training
        if saving and number <= saving[-1].events:
            peak_at_last_save = training_peak
    owned = sum(made.values())
    own = {key: allocated[key] for key in saved if key > 0 and key not in made}
    return Forward(
        tape.macs,
        tape.flops,
        tape.fused_macs,
        tape.bytes_read,
        tape.bytes_written,
        tuple(tape.runs),
        tuple([Made(each.storage.key, each.strides, each.value) for each in outputs]),
        made,
        peak - owned,
        training_peak - owned,
        tuple([key for key in saved if key not in tape.numbers]),
        sum([nbytes for key, nbytes in own.items() if key not in tape.numbers]),
        sum([nbytes for key, nbytes in own.items() if key in tape.numbers]),
        tape.holds_more,
        tape.keeps_unknown,
        tape.drops,
        tuple(tape.nodes),
        tuple([each.value for each in inputs]),
        tuple([each.value for each in weights]),
        savers,
        own,
        LastSave(saving[-1].macs, peak_at_last_save) if saving else None,
    )


class Gradient(NamedTuple):
    """The gradient of an input.

    Args:
        key: of its storage; a negative key is the storage of the gradient of output `-key - 1`.
        strides: its strides.
        is_view: it is a view.
    """

    key: int
    strides: Shape
    is_view: bool


class Event(NamedTuple):
    """An allocation or a free of memory in the backward.

    Args:
        key: of the storage. Its first event allocates it, and its second event frees it.
        nbytes: its bytes; negative for a free, and 0 for empty storages.
        kind: what else it is, one of the following.
    """

    key: int
    nbytes: int
    kind: str = ""


UNPACKS = "unpacks"
"""A node reads its saved tensors, which a checkpoint then recomputes."""
RETURNS = "returns"
"""The function of a node returns: recomputed tensors, by key, lose the reference of this node."""
RELEASES = "releases"
"""A node drops its reference to a saved tensor, by key."""


class BackwardEffects(NamedTuple):
    """The backward of a step.

    Args:
        events: allocations and frees in order; negative keys are storages of the incoming gradients.
        gradients: the gradient of each input; None if it has no gradient.
        stays: keys of the storages of the gradients of parameters, which are not freed.
        macs: its multiply-accumulates, without those of an attention kernel.
        holds_more: an operator has a workspace of unknown size, so that peak memory is a lower bound.
    """

    events: tuple[Event, ...]
    gradients: tuple[Gradient | None, ...]
    stays: tuple[int, ...]
    macs: int
    holds_more: bool


def backward_of(
    forward: Forward, shapes: Sequence[Shape], needs: Sequence[bool], grads: Sequence[Shape | None], itemsize: int
) -> BackwardEffects:
    """Run the nodes of a step in reverse, as autograd does.

    Args:
        forward: the forward of the step.
        shapes: the shapes of its outputs.
        needs: for each input, whether it needs a gradient.
        grads: for each output, the strides of the incoming gradient; None if it has no gradient.
        itemsize: bytes of one element.
    """
    tape = Tape(itemsize, records=False)
    events: list[Event] = []
    parameters = set(forward.weights)
    needed = parameters | {value for value, need in zip(forward.inputs, needs, strict=True) if need}
    for node in forward.nodes:
        if not needed.isdisjoint(node.inputs):
            needed.update(node.outputs)
    buffers: dict[int, Tensor] = {}
    for number, (made, shape, strides) in enumerate(zip(forward.outputs, shapes, grads, strict=True)):
        if strides is not None:
            storage = Storage(-number - 1, 0, tape._freed)
            buffers[made.value] = Tensor(shape, strides, storage, itemsize)
            del storage
    stays: list[Storage] = []
    for node in reversed(forward.nodes):
        wanted = [value in needed for value in node.inputs]
        incoming = [buffers.pop(value, None) for value in node.outputs]
        if not any(wanted) or all(grad is None for grad in incoming):
            continue
        kept = [Tensor(each.shape, each.strides, _SAVED, each.itemsize) for each in node.saved]
        if node.saved:
            events.append(_UNPACK)
        outs = list(node.backward(Back(tape, incoming, kept, wanted, node.meta)))
        incoming.clear()
        tape.end_function()
        saved = dict.fromkeys([each.key for each in node.saved])
        events += [Event(key, nbytes) for key, nbytes in tape.events[: tape.returned]]
        events += [Event(key, 0, RETURNS) for key in saved]
        events += [Event(key, nbytes) for key, nbytes in tape.events[tape.returned :]]
        events += [Event(key, 0, RELEASES) for key in saved]
        tape.events.clear()
        tape.returned = None
        for index, value in enumerate(node.inputs):
            grad, outs[index] = outs[index], None
            if grad is None or not wanted[index]:
                continue
            if value in parameters:
                if is_shared(grad):
                    grad = tape.tensor(grad.shape)
                stays.append(grad.storage)
            elif value in buffers:
                buffers[value] = _accumulated(tape, buffers.pop(value), grad)
            else:
                buffers[value] = grad
            grad = None
        events += [Event(key, nbytes) for key, nbytes in tape.events]
        tape.events.clear()
    gradients = []
    for value, need in zip(forward.inputs, needs, strict=True):
        found = buffers.get(value) if need else None
        gradients.append(None if found is None else Gradient(found.storage.key, found.strides, found.is_view))
    return BackwardEffects(
        tuple(events), tuple(gradients), tuple([storage.key for storage in stays]), tape.macs, tape.holds_more
    )


_SAVED = Storage(PARAMETER, 0)
_UNPACK = Event(PARAMETER, 0, UNPACKS)


def _accumulated(tape: Tape, before: Tensor, grad: Tensor) -> Tensor:
    """Add a gradient to the previous one; in place if nothing else, such as a view's base, refers to its memory."""
    if not before.is_view and before.storage.key > 0 and sys.getrefcount(before.storage) == 2:
        return before
    return tape.tensor(grad.shape, itemsize=grad.itemsize)
