"""Matrix products: linear layers and matmuls, with the copies that torch makes of non-contiguous operands."""

from math import nan, prod
from numbers import Number
from typing import Any

from attnscope.ops.elementwise import add_, scale
from attnscope.ops.movement import expand, reduce_to, reshape, transpose, view
from attnscope.ops.operation import Arguments, Moved, argument, each_out, register
from attnscope.ops.tape import Back, Gradients, Tape
from attnscope.ops.tensor import FLOAT32_BYTES, Description, Tensor, UnknownSizeError


def _products(first: Any, second: Any) -> int:
    """Count the products of two matrices, or of batches of them; those of a sparse matrix with its stored elements.

    Raises:
        UnknownSizeError: both are sparse or nested, so that the number depends on their elements.
    """
    if not isinstance(second, Description):
        return int(first.numel() * second.shape[-1])
    if isinstance(first, Description):
        raise UnknownSizeError
    return int(first.shape[-2] * second.numel())


def _mm(arguments: Arguments, out: Any) -> int:
    return _products(*arguments[:2])


def _added_mm(arguments: Arguments, out: Any) -> int:
    return _products(*arguments[1:3])


def _linear(arguments: Arguments, out: Any) -> int:
    return out.numel() * arguments[1].shape[-1]


def _linear_bias(arguments: Arguments, out: Any) -> int:
    return out.numel() if argument(arguments, 2) is not None else 0


def _matmul(arguments: Arguments, out: Any) -> int:
    return out.numel() * arguments[0].shape[-1]


def _factors(arguments: Arguments) -> tuple[Any, Any]:
    """Return β and α of β·C + α·A·B, which are 1 if they are omitted; an overload has a dtype before them."""
    numbers = [each for each in arguments[3:] if isinstance(each, Number | None)]
    beta, alpha = (1 if number is None else number for number in (*numbers, None, None)[:2])
    return beta, alpha


def _scaled_sum(arguments: Arguments, out: Any) -> int:
    """Count the FLOPs of β·C + α·A·B beside those of A·B, for each element of the result.

    A factor of 1 multiplies nothing. If β is 0, nothing is added.
    """
    beta, alpha = _factors(arguments)
    flops = (alpha != 1) + (beta != 0) + (beta not in (0, 1))
    return int(flops * out.numel())


def _with_added(arguments: Arguments, out: Any) -> Moved:
    """Return what β·C + α·A·B reads and writes; it does not read C if β is 0."""
    beta, _ = _factors(arguments)
    return Moved(arguments if beta != 0 else arguments[1:], out)


register("mm bmm _int_mm", macs=_mm)
register("addmm _addmm_activation baddbmm addbmm _sparse_addmm", macs=_added_mm, flops=_scaled_sum, moves=_with_added)
register("mv dot vdot", macs=lambda arguments, out: arguments[0].numel())
register("addmv", macs=lambda arguments, out: arguments[1].numel(), flops=_scaled_sum, moves=_with_added)
register("addr", macs=each_out(), flops=_scaled_sum, moves=_with_added)
register("linear mkldnn_linear", macs=_linear, flops=_linear_bias)
register("matmul", macs=_matmul)
register(
    "quantized.linear quantized.linear_relu quantized.linear_dynamic quantized.linear_relu_dynamic",
    macs=_matmul,
    flops=lambda arguments, out: None,  # the weight and the bias are packed
)


def linear(tape: Tape, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply by a weight of shape (out channels, in channels) and add a bias, like torch's `F.linear`."""
    if bias is None or (x.dim() > 2 and not x.is_contiguous()):
        made = matmul(tape, x, transpose(tape, weight))
        return made if bias is None else add_(tape, made, bias)
    rows = x if x.dim() == 2 else view(tape, x, (prod(x.shape[:-1]), x.shape[-1]))
    made = addmm(tape, bias, rows, transpose(tape, weight))
    return made if x.dim() == 2 else view(tape, made, (*x.shape[:-1], weight.shape[0]))


def addmm(tape: Tape, bias: Tensor, x: Tensor, other: Tensor) -> Tensor:
    """Multiply two matrices and add a bias of shape (o,): (rows, i), (i, o) -> (rows, o)."""
    made = _multiplied(tape, "addmm", x, other, [bias, x, other])
    tape.remember(_addmm_back, [bias, x, other], [made], saved=[x, other], meta=bias.shape)
    return made


def matmul(tape: Tape, x: Tensor, other: Tensor) -> Tensor:
    """Multiply batches of matrices, like torch's `matmul`: (…, n, i), (…, i, m) -> (…, n, m)."""
    if x.dim() == other.dim() == 2:
        return _product(tape, "mm", x, other)
    if other.dim() == 2:
        rows = reshape(tape, x, (prod(x.shape[:-1]), x.shape[-1]))
        return view(tape, _product(tape, "mm", rows, other), (*x.shape[:-1], other.shape[-1]))
    batch = x.shape[:-2]
    one, two = (
        reshape(tape, expand(tape, each, batch + each.shape[-2:]), (prod(batch), *each.shape[-2:]))
        for each in (x, other)
    )
    return view(tape, _product(tape, "bmm", one, two), (*batch, x.shape[-2], other.shape[-1]))


def scaled_product(tape: Tape, x: Tensor, other: Tensor, factor: float = nan) -> Tensor:
    """Compute x·otherᵀ·factor in one kernel, torch's `baddbmm`: (…, n, i), (…, m, i) -> (…, n, m).

    Args:
        tape: the tape that records the operation.
        x: (…, n, i).
        other: (…, m, i).
        factor: a Python number, by default an unknown one. The kernel multiplies by it, unless it is 1.

    The operator requires a tensor to add, which is a zero that it does not read.
    """
    batch = x.shape[:-2]
    zero = tape.tensor(())
    tape.ran("new_zeros", [x], zero)
    one, two = (reshape(tape, each, (prod(batch), *each.shape[-2:])) for each in (x, other))
    two = transpose(tape, two)
    made = _multiplied(tape, "baddbmm", one, two, [None, one, two, 0, factor])
    tape.remember(_scaled_product_back, [one, two], [made], saved=[one, two], meta=factor)
    made = view(tape, made, (*batch, x.shape[-2], other.shape[-2]))
    del zero
    return made


def _product(tape: Tape, name: str, x: Tensor, other: Tensor) -> Tensor:
    made = _multiplied(tape, name, x, other)
    tape.remember(_product_back, [x, other], [made], saved=[x, other], meta=name)
    return made


def _addmm_back(back: Back) -> Gradients:
    of_x, of_other = _operands_back(back, "mm", back.needs[1:])
    return [reduce_to(back.tape, back.grad, back.meta) if back.needs[0] else None, of_x, of_other]


def _scaled_product_back(back: Back) -> Gradients:
    """Return the gradients of the product, each multiplied by the factor."""
    tape, grad, (x, other) = back.tape, back.grad, back.saved
    of_x = of_other = None
    if back.needs[0]:
        of_x = _scaled(tape, _multiplied(tape, "bmm", grad, transpose(tape, other)), back.meta)
    if back.needs[1]:
        of_other = _scaled(tape, _multiplied(tape, "bmm", transpose(tape, x), grad), back.meta)
    return [of_x, of_other]


def _scaled(tape: Tape, x: Tensor, factor: float) -> Tensor:
    return x if factor == 1 else scale(tape, x)


def _product_back(back: Back) -> Gradients:
    return _operands_back(back, back.meta, back.needs)


def _operands_back(back: Back, name: str, needs: Any) -> Gradients:
    tape, grad, (x, other) = back.tape, back.grad, back.saved
    of_x = of_other = None
    if needs[0] and name == "mm" and _is_column_major(x):  # torch gives the gradient the memory layout of the matrix
        of_x = transpose(tape, _multiplied(tape, name, other, transpose(tape, grad)))
    elif needs[0]:
        of_x = _multiplied(tape, name, grad, transpose(tape, other))
    if needs[1] and name == "mm" and _is_column_major(other):
        of_other = transpose(tape, _multiplied(tape, name, transpose(tape, grad), x))
    elif needs[1]:
        of_other = _multiplied(tape, name, transpose(tape, x), grad)
    return [of_x, of_other]


def _is_column_major(matrix: Tensor) -> bool:
    return matrix.strides[0] == 1 and matrix.strides[1] == matrix.shape[0]


def _multiplied(tape: Tape, name: str, x: Tensor, other: Tensor, arguments: Arguments | None = None) -> Tensor:
    """Multiply matrices.

    The peak memory is a lower bound in some cases. BLAS may copy a matrix that has a single row or column, or no axis
    of stride 1. oneDNN repacks dtypes narrower than float32.

    Args:
        tape: the tape that records the operation.
        name: the aten name of the operator.
        x: (…, n, i).
        other: (…, i, m).
        arguments: the arguments of the operator; by default the two matrices.
    """
    made = tape.tensor((*x.shape[:-1], other.shape[-1]))
    thin = (x.shape[-1] == 1, other.shape[-1] == 1)
    is_thin = any(thin) if x.dim() == 3 else all(thin)
    is_scattered = any(1 not in operand.strides[-2:] for operand in (x, other))
    tape.holds_more |= tape.itemsize < FLOAT32_BYTES or is_thin or is_scattered
    tape.ran(name, [x, other] if arguments is None else arguments, made)
    return made
