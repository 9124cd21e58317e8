"""Convolutions."""

from math import prod
from typing import Any

from attnscope.ops.operation import Arguments, argument, register
from attnscope.ops.tape import Back, Gradients, Tape
from attnscope.ops.tensor import Shape, Tensor, contiguous_strides, is_contiguous


def _macs(arguments: Arguments, out: Any) -> int:
    """Each output takes the kernel's window of the channels of its group; transposed, each input gives it."""
    weight, transposed = arguments[1], bool(argument(arguments, 6))
    return (arguments[0] if transposed else out).numel() * prod(weight.shape[1:])


def _plain_macs(arguments: Arguments, out: Any) -> int:
    return out.numel() * prod(arguments[1].shape[1:])


def _bias(arguments: Arguments, out: Any) -> int:
    return out.numel() if argument(arguments, 2) is not None else 0


register("convolution _convolution convolution_overrideable", macs=_macs, flops=_bias)
register("mkldnn_convolution", macs=_plain_macs, flops=_bias)
register("cudnn_convolution _conv_depthwise2d torchvision.deform_conv2d", macs=_plain_macs)


def convolution(tape: Tape, x: Tensor, weight: Tensor, bias: Tensor | None, shape: tuple[int, ...]) -> Tensor:
    """Convolve (b, i, height, width) with (o, i, p, q) into this shape.

    If the channels of the input lie side by side, so do those of the result, and the weights are copied to lie so too; an
    input that lies otherwise is copied into one run of memory. While it runs, the library holds its operands in an order of
    its own: at least the weights with oneDNN (float32 and bfloat16), else the columns of the matmul that it makes of them.
    How much more depends on the processor.
    """
    laid = _laid(tape, x, is_channels_last(x.shape, x.strides))
    made = tape.tensor(shape, _strides(shape, is_channels_last(x.shape, x.strides)))
    tape.hold(_workspace(tape, x, weight, shape))
    tape.holds_more = True
    tape.ran("convolution", [x, weight, bias], made)
    taken = [x, weight] if bias is None else [x, weight, bias]
    tape.remember(_convolution_back, taken, [made], saved=[x, weight], meta=shape)
    del laid
    return made


def is_channels_last(shape: Shape, strides: Shape) -> bool:
    """Return whether torch takes these strides of a (b, c, height, width) for channels last, `suggest_memory_format`.

    An image of one channel and one place is in doubt, and is not.
    """
    if len(shape) != 4 or strides[1] == 0:
        return False
    least = 0
    for axis in (1, 3, 2, 0):
        if strides[axis] < least or (axis == 0 and least == strides[1]):
            return False
        least = strides[axis] * max(shape[axis], 1)
    return True


def _strides(shape: Shape, channels_last: bool) -> Shape:
    """Return the strides of a new tensor, channels last or contiguous."""
    if not channels_last:
        return contiguous_strides(shape)
    _, c, height, width = shape
    return height * width * c, 1, width * c, c


def _laid(tape: Tape, x: Tensor, channels_last: bool) -> Tensor:
    """Return the tensor in this order of memory: itself, or a copy."""
    if channels_last:
        order = (0, 2, 3, 1)
        there = is_contiguous([x.shape[axis] for axis in order], [x.strides[axis] for axis in order])
    else:
        there = x.is_contiguous()
    return x if there else tape.tensor(x.shape, _strides(x.shape, channels_last))


def _workspace(tape: Tape, x: Tensor, weight: Tensor, shape: tuple[int, ...]) -> int:
    """Return what the library holds at least: oneDNN's weights in its own order, or the columns of a matmul.

    torch takes oneDNN for float32 where the input or the kernel is large enough (`ConvParams::use_mkldnn`). A kernel of one
    element is a matmul of the image as it lies.
    """
    if prod(weight.shape[2:]) == 1:
        return 0
    if is_channels_last(x.shape, x.strides):
        return weight.nbytes
    columns = shape[0] * prod(weight.shape[1:]) * prod(shape[2:]) * tape.itemsize
    is_large = min(weight.shape[2:]) > 3 or x.shape[0] > 1 or x.numel() > 20480
    return weight.nbytes if tape.itemsize == 4 and is_large else min(columns, weight.nbytes)


def _convolution_back(back: Back) -> Gradients:
    tape, (x, weight), grad = back.tape, back.saved, back.grad
    tape.holds_more = True
    channels_last = is_channels_last(x.shape, x.strides)
    laid = _laid(tape, grad, channels_last)
    of_x = tape.tensor(x.shape, _strides(x.shape, channels_last)) if back.needs[0] else None
    of_weights = [tape.tensor(size) for size in (weight.shape, weight.shape[:1])[: len(back.needs) - 1]]
    del laid
    tape.macs += grad.numel() * prod(weight.shape[1:]) * sum(back.needs[:2])
    return [of_x, *of_weights]
