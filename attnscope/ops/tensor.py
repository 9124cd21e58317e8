"""Abstract tensors: a shape, strides and a storage without data, which determine copies and views as in torch.

The attributes and methods that the formulas of the registry use (`shape`, `numel`, `dim`, `element_size`, `nbytes`,
`stride`) have torch's names. The same formula therefore prices a step of a plan and a call of a real module.
"""

import math
from collections.abc import Callable, Sequence

Shape = tuple[int, ...]

FLOAT32_BYTES = 4
"""Bytes of a float32; narrower dtypes are summed in float32, and repacked for matmuls."""


class Storage:
    """The memory of one or more tensors.

    Args:
        key: identifies the storage.
        nbytes: its size in bytes.
        on_free: called with the key and the size after the last reference is gone.
    """

    __slots__ = ("key", "nbytes", "on_free")

    def __init__(self, key: int, nbytes: int, on_free: "Callable[[int, int], None] | None" = None) -> None:
        self.key = key
        self.nbytes = nbytes
        self.on_free = on_free

    def __del__(self) -> None:
        if self.on_free is not None:
            self.on_free(self.key, self.nbytes)


class Tensor:
    """A tensor without data.

    Args:
        shape: the size of each axis.
        strides: the stride of each axis, in elements.
        storage: its memory.
        itemsize: bytes of one element.
        value: its number among the values of a tape, for autograd.
        is_view: it shares the memory of another tensor, which it keeps alive as a view in torch does.
    """

    __slots__ = ("is_view", "itemsize", "shape", "storage", "strides", "value")

    def __init__(
        self, shape: Shape, strides: Shape, storage: Storage, itemsize: int, value: int = -1, is_view: bool = False
    ) -> None:
        self.shape = shape
        self.strides = strides
        self.storage = storage
        self.itemsize = itemsize
        self.value = value
        self.is_view = is_view

    def numel(self) -> int:
        return math.prod(self.shape)

    def dim(self) -> int:
        return len(self.shape)

    def element_size(self) -> int:
        return self.itemsize

    def stride(self) -> Shape:
        return self.strides

    @property
    def nbytes(self) -> int:
        return self.itemsize * math.prod(self.shape)

    def is_contiguous(self) -> bool:
        return is_contiguous(self.shape, self.strides)


class Description:
    """The sizes of a real tensor that is not an array in memory, such as a sparse or a nested one.

    Args:
        shape: its shape; that of the padded tensor if it is nested.
        elements: the number of elements that it stores; None if it is unknown.
        itemsize: bytes of one element.
        nbytes: its bytes; None if it has no storage of its own.
        is_complex: its elements are complex numbers.
    """

    __slots__ = ("elements", "is_complex_", "itemsize", "nbytes", "shape")

    def __init__(self, shape: Shape, elements: int | None, itemsize: int, nbytes: int | None, is_complex: bool) -> None:
        self.shape = shape
        self.elements = elements
        self.itemsize = itemsize
        self.nbytes = nbytes
        self.is_complex_ = is_complex

    def numel(self) -> int:
        """Return the number of stored elements.

        Raises:
            UnknownSizeError: the number is unknown.
        """
        if self.elements is None:
            raise UnknownSizeError
        return self.elements

    def dim(self) -> int:
        return len(self.shape)

    def element_size(self) -> int:
        return self.itemsize

    def is_complex(self) -> bool:
        return self.is_complex_


class UnknownSizeError(Exception):
    """An error for a formula that needs a size that is unknown."""


def contiguous_strides(shape: Sequence[int]) -> Shape:
    """Return the strides of a contiguous tensor of this shape."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def is_contiguous(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Return whether a tensor is contiguous; axes of size 1 may have any stride."""
    expected = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True


def is_dense(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Return whether a tensor is non-overlapping and dense, in any order of its axes."""
    expected = 1
    for stride, size in sorted((stride, size) for size, stride in zip(shape, strides, strict=True) if size != 1):
        if stride != expected:
            return False
        expected *= size
    return True


def view_strides(shape: Sequence[int], strides: Sequence[int], wanted: Sequence[int]) -> Shape | None:
    """Return the strides of a view with another shape, or None if only a copy can have it (torch's `computeStride`).

    Only axes that are contiguous with each other can be merged or split.
    """
    elements = math.prod(shape)
    if math.prod(wanted) != elements:
        return None
    if not shape or not elements:
        return contiguous_strides(wanted)
    found: list[int] = []
    at = len(wanted) - 1
    base = strides[-1]
    in_tensor = in_view = 1
    for axis in range(len(shape) - 1, -1, -1):
        in_tensor *= shape[axis]
        if axis == 0 or (shape[axis - 1] != 1 and strides[axis - 1] != in_tensor * base):
            while at >= 0 and (in_view < in_tensor or wanted[at] == 1):
                found.append(in_view * base)
                in_view *= wanted[at]
                at -= 1
            if in_view != in_tensor:
                return None
            if axis > 0:
                base = strides[axis - 1]
                in_tensor = in_view = 1
    return tuple(reversed(found))


def elementwise_strides(shape: Shape, operands: Sequence[tuple[Shape, Shape]]) -> Shape:
    """Return the strides of the result of an elementwise operator, like torch's TensorIterator.

    The axes of the result have the memory order of the operands. If the operands differ, the first one decides;
    broadcast axes are ignored.

    Args:
        shape: the shape of the result.
        operands: the shape and strides of each operand.
    """
    if all(is_contiguous(of_shape, strides) and of_shape == shape for of_shape, strides in operands):
        return contiguous_strides(shape)
    rank = len(shape)
    aligned = [
        (
            [0] * (rank - len(of_shape))
            + [0 if size == 1 else stride for size, stride in zip(of_shape, strides, strict=True)]
        )
        for of_shape, strides in operands
    ]
    order = list(range(rank - 1, -1, -1))  # smallest stride first

    def compare(first: int, second: int) -> int:
        for strides in aligned:
            one, other = strides[first], strides[second]
            if one == 0 or other == 0:
                continue
            if one != other:
                return -1 if one < other else 1
            if shape[first] > shape[second]:
                return 1
        return 0

    for index in range(1, rank):
        moving = index
        for before in range(index - 1, -1, -1):
            comparison = compare(order[before], order[moving])
            if comparison > 0:
                order[before], order[moving] = order[moving], order[before]
                moving = before
            elif comparison < 0:
                break
    found, step = [0] * rank, 1
    for axis in order:
        found[axis] = step
        step *= shape[axis]
    return tuple(found)


def broadcast(*shapes: Shape) -> Shape:
    """Return the shape to which all the given shapes broadcast."""
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    return tuple([max(sizes) if 0 not in sizes else 0 for sizes in zip(*padded, strict=True)])


def distinct_elements(tensor: "Tensor") -> int:
    """Return the number of elements in memory, where an expanded axis counts once."""
    return math.prod([size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride])
