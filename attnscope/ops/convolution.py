"""Convolutions: their costs, their memory formats and their backward."""

from math import prod
from typing import Any

from attnscope.ops.formats import format_strides, in_format, is_channels_last
from attnscope.ops.operation import Arguments, argument, register
from attnscope.ops.tape import Back, Gradients, Tape
from attnscope.ops.tensor import Tensor


def _macs(arguments: Arguments, out: Any) -> int:
    """Count the products of each output with its kernel window and group; of each input if transposed."""
    weight, transposed = arguments[1], bool(argument(arguments, 6))
    return (arguments[0] if transposed else out).numel() * prod(weight.shape[1:])


def _plain_macs(arguments: Arguments, out: Any) -> int:
    return out.numel() * prod(arguments[1].shape[1:])


def _bias(arguments: Arguments, out: Any) -> int:
    return out.numel() if argument(arguments, 2) is not None else 0


def _transposed_macs(arguments: Arguments, out: Any) -> int:
    return arguments[0].numel() * prod(arguments[1].shape[1:])


def _backward_macs(arguments: Arguments, out: Any) -> int:
    """Count the forward's MACs for each of the gradients of the input and of the weight that is computed."""
    grad, x, weight, transposed, (of_x, of_weight, _) = *arguments[:3], arguments[7], arguments[10]
    return (x if transposed else grad).numel() * prod(weight.shape[1:]) * (of_x + of_weight)


def _backward_bias(arguments: Arguments, out: Any) -> int:
    """Count the sum over the gradient that is the gradient of the bias."""
    return arguments[0].numel() if arguments[10][2] else 0


register("convolution_backward convolution_backward_overrideable", macs=_backward_macs, flops=_backward_bias)
register("cudnn_convolution_transpose", macs=_transposed_macs)
register("convolution _convolution convolution_overrideable", macs=_macs, flops=_bias)
register("mkldnn_convolution", macs=_plain_macs, flops=_bias)
register("cudnn_convolution _conv_depthwise2d torchvision.deform_conv2d", macs=_plain_macs)


def convolution(tape: Tape, x: Tensor, weight: Tensor, bias: Tensor | None, shape: tuple[int, ...]) -> Tensor:
    """Convolve (b, i, height, width) with (o, i, p, q) into an output of the given shape.

    A channels-last input gives a channels-last result, with a channels-last copy of the weights. Any other input is
    copied if it is not contiguous. The library also holds a workspace while it runs. It is at least the reordered
    weights with oneDNN (float32 and bfloat16), or else the columns of the equivalent matmul. Any further workspace
    depends on the CPU.
    """
    laid = in_format(tape, x, is_channels_last(x.shape, x.strides))
    made = tape.tensor(shape, format_strides(shape, is_channels_last(x.shape, x.strides)))
    tape.hold(_workspace(tape, x, weight, shape))
    tape.holds_more = True
    tape.ran("convolution", [x, weight, bias], made)
    taken = [x, weight] if bias is None else [x, weight, bias]
    tape.remember(_convolution_back, taken, [made], saved=[x, weight], meta=shape)
    del laid
    return made


def _workspace(tape: Tape, x: Tensor, weight: Tensor, shape: tuple[int, ...]) -> int:
    """Return a lower bound of the library's workspace in bytes: oneDNN's reordered weights, or the columns of a matmul.

    torch uses oneDNN for float32 if the input or the kernel is large enough (`ConvParams::use_mkldnn`). A 1×1 kernel is
    a matmul that reads the image in place and needs no workspace.
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
    laid = in_format(tape, grad, channels_last)
    of_x = tape.tensor(x.shape, format_strides(x.shape, channels_last)) if back.needs[0] else None
    of_weights = [tape.tensor(size) for size in (weight.shape, weight.shape[:1])[: len(back.needs) - 1]]
    del laid
    tape.macs += grad.numel() * prod(weight.shape[1:]) * sum(back.needs[:2])
    return [of_x, *of_weights]
