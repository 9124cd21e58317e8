"""Memory formats of images: channels last, or contiguous."""

from attnscope.ops.tape import Tape
from attnscope.ops.tensor import Shape, Tensor, contiguous_strides, is_contiguous


def is_channels_last(shape: Shape, strides: Shape) -> bool:
    """Return whether torch's `suggest_memory_format` is channels last for a (b, c, height, width) of these strides.

    A tensor with one channel and one pixel is ambiguous; it is not channels last.
    """
    if len(shape) != 4 or strides[1] == 0:
        return False
    least = 0
    for axis in (1, 3, 2, 0):
        if strides[axis] < least or (axis == 0 and least == strides[1]):
            return False
        least = strides[axis] * max(shape[axis], 1)
    return True


def format_strides(shape: Shape, channels_last: bool) -> Shape:
    """Return the strides of a new (b, c, height, width) in channels-last or contiguous format."""
    if not channels_last:
        return contiguous_strides(shape)
    _, c, height, width = shape
    return height * width * c, 1, width * c, c


def has_format(x: Tensor, channels_last: bool) -> bool:
    """Return whether a (b, c, height, width) lies in memory without gaps, in channels-last or contiguous format."""
    if not channels_last:
        return x.is_contiguous()
    order = (0, 2, 3, 1)
    return is_contiguous([x.shape[axis] for axis in order], [x.strides[axis] for axis in order])


def in_format(tape: Tape, x: Tensor, channels_last: bool) -> Tensor:
    """Return the tensor in channels-last or contiguous format: itself if it has the format, else a copy."""
    if has_format(x, channels_last):
        return x
    return tape.tensor(x.shape, format_strides(x.shape, channels_last))
