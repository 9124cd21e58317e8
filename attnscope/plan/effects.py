"""The effects of one step: its costs, the storages that come and go, what is saved, and the same for its backward.

A step's operation runs once on a tape, on tensors without numbers. What the tape says is put relative to the step, so that
the runs of a whole network are added up without running every one of them.
"""

import sys
from collections.abc import Sequence
from typing import NamedTuple

from attnscope.ops.tape import PARAMETER, Back, Node, Run, Tape, is_shared
from attnscope.ops.tensor import Shape, Storage, Tensor


class Made(NamedTuple):
    """An output: the key of its storage (negative: that of the input -key - 1), its strides, and its number as a value."""

    key: int
    strides: Shape
    value: int


class Forward(NamedTuple):
    """The forward of a step.

    Args:
        macs, flops, bytes_read, bytes_written: its costs; `flops` are elementwise.
        fused_macs: those of the MACs that one attention kernel does.
        runs: the operators that run.
        outputs: what it makes.
        sizes: bytes of each storage that its outputs own, by key.
        scratch: bytes that it holds in addition to its outputs at its fullest moment in inference.
        training_scratch: the same in training, where what is saved stays.
        saved: keys of the storages that it saves, in their order, those of numbers left out.
        kept: bytes that it saves in addition to its inputs and outputs.
        kept_numbers: bytes of the numbers that it saves.
        holds_more: it holds more than is known while it runs.
        keeps_unknown: it saves something that only the device knows.
        drops: another tensor takes the place of what it makes in training.
        nodes: the graph for its backward.
        inputs, weights: the values of what it takes, by number.
        savers: how many of its nodes save each storage, by key.
        bytes_of: bytes of each storage that it saves in addition, by key.
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


def forward_of(tape: Tape, inputs: Sequence[Tensor], weights: Sequence[Tensor], outputs: Sequence[Tensor]) -> Forward:
    """Sum up what running a step's operation on a tape did.

    Args:
        tape: on which it ran.
        inputs: what it took; the storage of input i has the key -i - 1.
        weights: its parameters.
        outputs: what it made, still referred to.
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
    held = peak = training = training_peak = 0
    for key, nbytes in events:
        held += nbytes
        if nbytes > 0 or key not in stays:
            training += nbytes
        if held > peak:
            peak = held
        if training > training_peak:
            training_peak = training
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
    )


class Gradient(NamedTuple):
    """The gradient of an input: the key of its storage (negative: that of the gradient of output -key - 1), its strides,
    and whether it is a view.
    """

    key: int
    strides: Shape
    is_view: bool


class Event(NamedTuple):
    """Memory comes, the first time that its key is there, or goes (nbytes < 0, or 0 if it is empty). `saved` frees one
    reference to what the forward saved under this key.
    """

    key: int
    nbytes: int
    saved: bool = False


class BackwardEffects(NamedTuple):
    """The backward of a step.

    Args:
        events: storages that come and go; negative keys are those of the gradients that came.
        gradients: for each input, None where nothing goes back to it.
        stays: keys of the storages that gradients of parameters have for good.
        macs: its multiply-accumulates, without those of an attention kernel.
        holds_more: it holds more than is known while it runs.
    """

    events: tuple[Event, ...]
    gradients: tuple[Gradient | None, ...]
    stays: tuple[int, ...]
    macs: int
    holds_more: bool


def backward_of(
    forward: Forward, shapes: Sequence[Shape], needs: Sequence[bool], grads: Sequence[Shape | None], itemsize: int
) -> BackwardEffects:
    """Run the nodes of a step backwards, as autograd does.

    Args:
        forward: of the step.
        shapes: of its outputs.
        needs: for each of its inputs, whether its gradient is needed.
        grads: for each of its outputs, the strides of the gradient that came; None where none did.
        itemsize: bytes of one number.
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
        came = [buffers.pop(value, None) for value in node.outputs]
        if not any(wanted) or all(grad is None for grad in came):
            continue
        kept = [Tensor(each.shape, each.strides, _SAVED, each.itemsize) for each in node.saved]
        outs = list(node.backward(Back(tape, came, kept, wanted, node.meta)))
        came.clear()
        events += [Event(key, nbytes) for key, nbytes in tape.events]
        tape.events.clear()
        events += [Event(key, 0, saved=True) for key in dict.fromkeys([each.key for each in node.saved])]
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


def _accumulated(tape: Tape, before: Tensor, grad: Tensor) -> Tensor:
    """Add a gradient to the one that is there: in place if nobody else refers to its memory, as the base of a view does."""
    if not before.is_view and before.storage.key > 0 and sys.getrefcount(before.storage) == 2:
        return before
    return tape.tensor(grad.shape)
