"""Convolutions."""

from math import prod
from typing import Any

from attnscope.ops.operation import Arguments, argument, register
from attnscope.ops.tape import Back, Gradients, Tape
from attnscope.ops.tensor import Tensor


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

    While it runs, the library holds its operands in an order of its own: at least the weights with oneDNN (float32 and
    bfloat16), else the columns of the matmul that it makes of them. How much more depends on the processor.
    """
    made = tape.tensor(shape)
    tape.hold(_workspace(tape, x, weight, shape))
    tape.holds_more = True
    tape.ran("convolution", [x, weight, bias], made)
    taken = [x, weight] if bias is None else [x, weight, bias]
    tape.remember(_convolution_back, taken, [made], saved=[x, weight], meta=shape)
    return made


def _workspace(tape: Tape, x: Tensor, weight: Tensor, shape: tuple[int, ...]) -> int:
    """Return what the library holds at least: oneDNN's weights in its own order, or the columns of a matmul.

    torch takes oneDNN for float32 where the input or the kernel is large enough (`ConvParams::use_mkldnn`).
    """
    columns = shape[0] * prod(weight.shape[1:]) * prod(shape[2:]) * tape.itemsize
    is_large = min(weight.shape[2:]) > 3 or x.shape[0] > 1 or x.numel() > 20480
    return weight.nbytes if tape.itemsize == 4 and is_large else min(columns, weight.nbytes)


def _convolution_back(back: Back) -> Gradients:
    tape, (x, weight), grad = back.tape, back.saved, back.grad
    tape.holds_more = True
    sizes = (x.shape, weight.shape, weight.shape[:1])
    made = [tape.tensor(size) if needed else None for size, needed in zip(sizes, back.needs, strict=False)]
    tape.macs += grad.numel() * prod(weight.shape[1:]) * sum(back.needs[:2])
    return made
