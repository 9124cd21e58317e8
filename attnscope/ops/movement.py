"""Views and copies: operations that change shape, order or position of elements without arithmetic."""

from collections.abc import Sequence

from attnscope.ops.formats import format_strides, is_channels_last
from attnscope.ops.operation import filled, gathered, nothing, register
from attnscope.ops.tape import Back, Gradients, Tape
from attnscope.ops.tensor import Shape, Tensor, elementwise_strides, view_strides

register(
    """view reshape _unsafe_view _reshape_alias permute transpose t expand unsqueeze squeeze detach alias lift_fresh lift
    _conj as_strided swapaxes view_as_real unflatten expand_as""",
    is_view=True,
)
register(
    "select slice unbind split split_with_sizes unsafe_split unsafe_split_with_sizes unsafe_chunk chunk",
    is_view=True,
)
register(
    """is_same_size _has_same_storage_numel _efficientzerotensor profiler._record_function_enter_new
    profiler._record_function_enter profiler._record_function_exit""",
    is_view=True,
)
register(
    """view_as_complex _indices _values indices values crow_indices col_indices ccol_indices row_indices
    _nested_view_from_buffer _nested_get_values _nested_view_from_jagged""",
    is_view=True,
)
register(
    "embedding index index_select gather take slice_scatter select_copy slice_copy narrow_copy diagonal_copy",
    moves=gathered,
)
register(
    """clone copy _to_copy contiguous cat stack roll repeat repeat_interleave tile flip rot90
    constant_pad_nd pad reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d
    replication_pad3d pixel_shuffle pixel_unshuffle channel_shuffle"""
)
register(
    """im2col col2im masked_fill masked_scatter where tril triu one_hot meshgrid index_put _index_put_impl scatter
    select_scatter upsample_nearest2d _upsample_nearest_exact2d resize set unfold_copy as_strided_copy index_copy"""
)
register(
    """alias_copy detach_copy expand_copy permute_copy split_copy split_with_sizes_copy squeeze_copy t_copy transpose_copy
    unbind_copy unsqueeze_copy view_as_complex_copy view_as_real_copy view_copy _reshape_copy _reshape_alias_copy
    lift_fresh_copy"""
)
register("empty empty_like empty_strided empty_permuted new_empty new_empty_strided", moves=nothing)
register(
    """new_zeros new_ones new_full scalar_tensor zeros zeros_like ones ones_like full full_like fill zero
    arange linspace eye rand randn rand_like randn_like randint randperm""",
    moves=filled,
)
register("bernoulli normal uniform native_dropout")
register("sort topk argsort nonzero _unique2 unique_dim bucketize histc _local_scalar_dense _assert_async equal")
register("_to_sparse _to_sparse_csr _to_dense _coalesce sparse_mask to_mkldnn mkldnn_reorder_conv2d_weight int_repr")
register("_sparse_coo_tensor_with_dims _sparse_coo_tensor_with_dims_and_tensors")
register("_nested_tensor_from_mask _nested_tensor_from_mask_left_aligned _nested_tensor_from_tensor_list")
register(
    """_nested_from_padded to_padded_tensor _jagged_to_padded_dense_forward _padded_dense_to_jagged_forward
    _nested_view_from_buffer_copy _pack_padded_sequence _pad_packed_sequence"""
)


def view(tape: Tape, x: Tensor, shape: Shape) -> Tensor:
    """Return a view with another shape.

    Raises:
        ValueError: the strides do not allow a view of this shape.
    """
    strides = view_strides(x.shape, x.strides, shape)
    if strides is None:
        raise ValueError(
            f"shape {x.shape} with strides {x.strides} cannot be viewed as {shape}; use reshape, which copies"
        )
    made = tape.view(x, shape, strides)
    tape.remember(_reshape_back, [x], [made], meta=x.shape)
    return made


def reshape(tape: Tape, x: Tensor, shape: Shape) -> Tensor:
    """Return a view with another shape, or a copy if the strides do not allow a view."""
    strides = view_strides(x.shape, x.strides, shape)
    if strides is None:
        return view(tape, clone(tape, x), shape)
    made = tape.view(x, shape, strides)
    tape.remember(_reshape_back, [x], [made], meta=x.shape)
    return made


def clone(tape: Tape, x: Tensor) -> Tensor:
    """Return a contiguous copy."""
    made = tape.tensor(x.shape, itemsize=x.itemsize)
    tape.ran("clone", [x], made)
    tape.remember(pass_back, [x], [made])
    return made


def contiguous(tape: Tape, x: Tensor) -> Tensor:
    """Return the tensor itself if it is contiguous, else a contiguous copy."""
    return x if x.is_contiguous() else clone(tape, x)


def permute(tape: Tape, x: Tensor, axes: Sequence[int]) -> Tensor:
    """Return a view with the axes in another order."""
    made = tape.view(x, tuple([x.shape[axis] for axis in axes]), tuple([x.strides[axis] for axis in axes]))
    tape.remember(_permute_back, [x], [made], meta=tuple(axes))
    return made


def transpose(tape: Tape, x: Tensor, one: int = -2, other: int = -1) -> Tensor:
    """Return a view with two axes exchanged."""
    axes = list(range(x.dim()))
    axes[one], axes[other] = axes[other], axes[one]
    return permute(tape, x, axes)


def expand(tape: Tape, x: Tensor, shape: Shape) -> Tensor:
    """Return a view with axes of size 1 expanded to this shape."""
    strides = tuple(
        [
            0 if size == 1 and wanted != 1 else stride
            for size, stride, wanted in zip(x.shape, x.strides, shape, strict=True)
        ]
    )
    made = tape.view(x, shape, strides)
    tape.remember(_sum_back, [x], [made], meta=x.shape)
    return made


def select(tape: Tape, x: Tensor, axis: int, index: int = 0) -> Tensor:
    """Return a view of one index along an axis, without that axis."""
    made = tape.view(x, x.shape[:axis] + x.shape[axis + 1 :], x.strides[:axis] + x.strides[axis + 1 :])
    tape.remember(_new_back, [x], [made], meta=x.shape)
    return made


def narrow(tape: Tape, x: Tensor, axis: int, size: int) -> Tensor:
    """Return a view of consecutive indices along an axis."""
    made = tape.view(x, _with(x.shape, axis, size), x.strides)
    tape.remember(_new_back, [x], [made], meta=x.shape)
    return made


def stack(tape: Tape, parts: Sequence[Tensor], axis: int) -> Tensor:
    """Join tensors of one shape along a new axis, at this index of the result."""
    shape = parts[0].shape
    made = tape.tensor((*shape[:axis], len(parts), *shape[axis:]), itemsize=parts[0].itemsize)
    tape.ran("stack", parts, made)
    tape.remember(_stack_back, parts, [made], meta=axis)
    return made


def convert(tape: Tape, x: Tensor, itemsize: int) -> Tensor:
    """Convert to a dtype with elements of this many bytes; return the tensor itself if they have as many."""
    if x.itemsize == itemsize:
        return x
    made = tape.tensor(x.shape, elementwise_strides(x.shape, [(x.shape, x.strides)]), itemsize)
    tape.ran("_to_copy", [x], made)
    tape.remember(_convert_back, [x], [made], meta=x.itemsize)
    return made


def unbind(tape: Tape, x: Tensor) -> tuple[Tensor, ...]:
    """Return a view of each index along the first axis."""
    made = tuple([tape.view(x, x.shape[1:], x.strides[1:]) for _ in range(x.shape[0])])
    tape.remember(_unbind_back, [x], made, meta=x.shape)
    return made


def split(tape: Tape, x: Tensor, sizes: Sequence[int], axis: int) -> tuple[Tensor, ...]:
    """Return views of consecutive pieces along an axis, of the given sizes."""
    made = tuple([tape.view(x, _with(x.shape, axis, size), x.strides) for size in sizes])
    tape.remember(_split_back, [x], made, meta=(x.shape, [part.shape for part in made]))
    return made


def cat(tape: Tape, parts: Sequence[Tensor], axis: int) -> Tensor:
    """Concatenate tensors along an axis."""
    shape = _with(parts[0].shape, axis, sum([part.shape[axis] for part in parts]))
    made = tape.tensor(shape)
    tape.ran("cat", parts, made)
    tape.remember(_cat_back, parts, [made], meta=([part.shape for part in parts]))
    return made


def pad(tape: Tape, x: Tensor, shape: Shape) -> Tensor:
    """Pad with zeros or crop at the end of each axis, to this shape.

    If axes are only cropped, the result keeps their memory order. Otherwise it is in channels-last format if the
    tensor is, else contiguous.
    """
    is_cut = all(new <= old for new, old in zip(shape, x.shape, strict=True))
    if is_cut:
        strides = elementwise_strides(shape, [(shape, x.strides)])
    elif is_channels_last(x.shape, x.strides):
        strides = format_strides(shape, channels_last=True)
    else:
        strides = None
    made = tape.tensor(shape, strides)
    tape.ran("constant_pad_nd", [x], made)
    tape.remember(_pad_back, [x], [made], meta=x.shape)
    return made


def roll(tape: Tape, x: Tensor, axes: int) -> Tensor:
    """Roll along a number of axes, with one full copy for each axis; torch frees the copies when it returns."""
    copies = [tape.tensor(x.shape) for _ in range(axes)]
    made = copies[-1]
    tape.ran("roll", [x], made)
    tape.remember(_roll_back, [x], [made], meta=axes)
    return made


def gather(tape: Tape, table: Tensor, shape: Shape) -> Tensor:
    """Gather rows of a table by an integer index into this shape."""
    made = tape.tensor(shape)
    tape.ran("index", [table], made)
    tape.remember(_new_back, [table], [made], meta=table.shape)
    return made


def repeat(tape: Tape, x: Tensor, shape: Shape) -> Tensor:
    """Repeat a tensor, by copying, to this shape."""
    made = tape.tensor(shape)
    tape.ran("repeat", [x], made)
    tape.remember(_sum_back, [x], [made], meta=x.shape)
    return made


def sum_to(tape: Tape, x: Tensor, shape: Shape) -> Tensor:
    """Sum over the axes along which a tensor of this shape was broadcast; return `x` itself if no axis was."""
    if x.shape == shape:
        return x
    made = tape.tensor(shape, itemsize=x.itemsize)
    tape.ran("sum", [x], made)
    return made


def reduce_to(tape: Tape, grad: Tensor, shape: Shape) -> Tensor:
    """Sum a gradient to the shape of its tensor, as autograd does after the function of the node has returned."""
    tape.end_function()
    return sum_to(tape, grad, shape)


def _with(shape: Shape, axis: int, size: int) -> Shape:
    return (*shape[:axis], size, *shape[axis:][1:])


def pass_back(back: Back) -> Gradients:
    """Return the incoming gradients unchanged."""
    return back.grads


def _reshape_back(back: Back) -> Gradients:
    return [reshape(back.tape, back.grad, back.meta)]


def _permute_back(back: Back) -> Gradients:
    axes = back.meta
    return [permute(back.tape, back.grad, sorted(range(len(axes)), key=axes.__getitem__))]


def _sum_back(back: Back) -> Gradients:
    return [sum_to(back.tape, back.grad, back.meta)]


def _new_back(back: Back) -> Gradients:
    """Return a new tensor with the shape of the input."""
    return [back.tape.tensor(back.meta)]


def _unbind_back(back: Back) -> Gradients:
    """Stack the gradients; a missing one is an expanded scalar 0."""
    itemsize = next(grad.itemsize for grad in back.grads if grad is not None)
    zeros = [back.tape.tensor((), itemsize=itemsize) for grad in back.grads if grad is None]
    stacked = back.tape.tensor(back.meta, itemsize=itemsize)
    del zeros
    return [stacked]


def _stack_back(back: Back) -> Gradients:
    axis, grad = back.meta, back.grad
    shape, strides = (each[:axis] + each[axis + 1 :] for each in (grad.shape, grad.strides))
    return [back.tape.view(grad, shape, strides) if needed else None for needed in back.needs]


def _convert_back(back: Back) -> Gradients:
    return [convert(back.tape, back.grad, back.meta)]


def _split_back(back: Back) -> Gradients:
    """Concatenate the gradients; a missing one is a tensor of zeros."""
    shape, parts = back.meta
    zeros = [back.tape.tensor(part) for grad, part in zip(back.grads, parts, strict=True) if grad is None]
    joined = back.tape.tensor(shape)
    del zeros
    return [joined]


def _cat_back(back: Back) -> Gradients:
    grad = back.grad
    return [
        back.tape.view(grad, shape, grad.strides) if needed else None
        for shape, needed in zip(back.meta, back.needs, strict=True)
    ]


def _pad_back(back: Back) -> Gradients:
    return [pad(back.tape, back.grad, back.meta)]


def _roll_back(back: Back) -> Gradients:
    return [roll(back.tape, back.grad, back.meta)]
