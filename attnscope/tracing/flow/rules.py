"""Find the axes of the tensors that each operator makes from those of its inputs.

Most operators keep the axes of their inputs: they work on each element, or along an axis. An axis whose size changes is a
new Root that came from the old one. The other operators have a rule.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod
from typing import Any

from attnscope.core.axes import Shape
from attnscope.tracing.flow.axes import (
    BATCH,
    FEATURE,
    TABLE,
    TOKEN,
    UNKNOWN,
    Axes,
    Axis,
    Root,
    best,
    joined,
    kind_of,
    roots_of,
    size_of,
    viewed,
)
from attnscope.tracing.flow.record import INPUT, STRIDED, Flow, Node, Value

Rule = Callable[["AxisRules", Node], Sequence[Axes]]
KNOWN = frozenset({BATCH, TOKEN, FEATURE})
POOLS_WITH_INDICES = (("max", "_with_indices"), ("adaptive_max", ""))
VIEWS = frozenset({"view", "_unsafe_view", "reshape", "expand", "unsqueeze", "squeeze", "clone", "contiguous"})
ORDERS = frozenset({"transpose", "permute", "t"})
EXPANDED = "expand"
"""The origin of an axis whose positions are all equal."""
RULES: dict[str, Rule] = {}
"""Rules of operators, by name; each returns the axes of each output."""


def rule(*names: str) -> Callable[[Any], Any]:
    """Add a function to the rules of the operators with these names."""

    def add(function: Any) -> Any:
        RULES.update(dict.fromkeys(names, function))
        return function

    return add


class AxisRules:
    """The axes of all values of a forward.

    Args:
        batch: number of images in the inputs. The first axis of an input with this size counts images.
        channels_last: tensors that no operator made, whose last axis surely counts channels.
    """

    def __init__(self, batch: int, channels_last: frozenset[Value] = frozenset()) -> None:
        self.batch = batch
        self.channels_last = channels_last
        self.begun: set[Value] = set()
        """The values that no operator made and whose axes are set."""
        self.made: dict[Any, Root] = {}
        """Roots that come from others in the same way, so that equal slices of one tensor have equal axes."""

    def apply(self, flow: Flow) -> None:
        """Set `axes` and `is_constant` of each value."""
        for node in flow.history:
            inputs = list(node.inputs)
            for value in inputs:
                self.begin(value)
            is_constant = all(value.is_constant for value in inputs)
            is_product = node.macs > 0 or any(value.is_product for value in inputs)
            found = self.of(node)
            for index, value in enumerate(node.outputs):
                value.is_constant, value.is_product = is_constant, is_product
                axes = found[index] if index < len(found) else ()
                value.axes = axes if _fit(axes, value.shape) else self.changed(inputs, value.shape)

    def of(self, node: Node) -> Sequence[Axes]:
        """Return the axes of each output of a node; none if its rule does not expect these arguments."""
        try:
            return RULES.get(node.name, same)(self, node)
        except (IndexError, TypeError, ValueError, ZeroDivisionError):
            # another version of torch, a nested or sparse tensor, or a scalar, which has no axis to take
            return ()

    def begin(self, value: Value) -> None:
        """Set the axes of a value that no operator made, unless they are set."""
        if value.maker is not None or value in self.begun:
            return
        self.begun.add(value)
        value.is_constant = value.source != INPUT
        if value.origin is not None and (axes := self.axes_before(value.origin)):
            value.axes = axes
            return
        kinds = [TABLE if value.is_constant else TOKEN] * len(value.shape)
        if not value.is_constant and value.shape:
            kinds[0] = BATCH if value.shape[0] == self.batch else TOKEN
        if value in self.channels_last:
            kinds[-1] = FEATURE
        how = "" if value.is_constant else "input"
        value.axes = tuple(
            Root(size, kind, how, start=place, rank=len(kinds)).whole
            for place, (size, kind) in enumerate(zip(value.shape, kinds, strict=True))
        )

    def axes_before(self, origin: Value) -> Axes:
        """Return the axes of an input of a submodule, if it is data whose axes are known in the whole; else ()."""
        self.begin(origin)
        is_known = not origin.is_constant and _fit(origin.axes, origin.shape) and _are_known(origin.axes)
        return origin.axes if is_known else ()

    def derived(self, axis: Axis, size: int, how: str = "", start: int = 0, kind: str = "") -> Axis:
        """Return a new axis that comes from another one; the same for the same arguments."""
        if how == "slice" and len(axis) == 1 and axis[0].root.how == "pad" and axis[0].size == axis[0].root.size:
            padded = axis[0].root
            if size_of(padded.origin) == size and padded.start == start:
                return padded.origin  # the padding is removed again
        if how == "slice" and (part := _part_of_joint(axis, size, start)):
            return part
        key = axis, size, how, start, kind
        if key not in self.made:
            self.made[key] = Root(size, kind or kind_of(axis), how, axis, start)
        return self.made[key].whole

    def changed(self, inputs: Sequence[Value], shape: Shape, how: str = "") -> Axes:
        """Return axes of a shape: those of the inputs with the same size at the same place from the right, or new ones."""
        data = [value for value in inputs if not value.is_constant] or list(inputs)
        if data and data[0].shape == shape and _are_known(data[0].axes):
            return data[0].axes
        axes: list[Axis] = []
        for place, size in enumerate(shape, -len(shape)):
            old = [value.axes[place] for value in data if len(value.shape) >= -place and len(value.axes) >= -place]
            same = [axis for axis in old if size_of(axis) == size]
            if same or size == 1:
                axes.append(best(same) if size > 1 else ())
            elif old and any(old):
                axes.append(self.derived(max(old, key=size_of), size, how))
            else:
                axes.append(Root(size, UNKNOWN).whole)
        return tuple(axes)


def _part_of_joint(axis: Axis, size: int, start: int) -> Axis:
    """Return the axis that was joined with others at a position; () if a slice is not one of those."""
    if len(axis) != 1 or axis[0].root.how != "cat" or axis[0].size != axis[0].root.size:
        return ()
    before = 0
    for part in axis[0].root.parts:
        if before == start and size_of(part) == size:
            return part
        before += size_of(part)
    return ()


def _fit(axes: Axes, shape: Shape) -> bool:
    """Return whether axes have these sizes; most of them are a single Atom."""
    return [axis[0].size if len(axis) == 1 else size_of(axis) for axis in axes] == [*shape]


def _are_known(axes: Axes) -> bool:
    return all([atom.root.kind in KNOWN for axis in axes for atom in axis])


def same(rules: AxisRules, node: Node) -> Sequence[Axes]:
    """Keep the axes of the inputs, which are broadcast."""
    inputs = list(node.inputs)
    return [rules.changed(inputs, value.shape) for value in node.outputs]


@rule("view", "_unsafe_view", "reshape", "_reshape_alias", "_reshape_copy", "view_copy", "unflatten", "flatten")
def _view(rules: AxisRules, node: Node) -> Sequence[Axes]:
    return [viewed(node.args[0].axes, node.outputs[0].shape)]


@rule("permute", "permute_copy")
def _permute(rules: AxisRules, node: Node) -> Sequence[Axes]:
    value, order = node.args[:2]
    return [tuple(value.axes[axis] for axis in order)]


@rule("t", "transpose", "swapaxes", "t_copy", "transpose_copy", "adjoint", "mT")
def _transpose(rules: AxisRules, node: Node) -> Sequence[Axes]:
    value = node.args[0]
    axes = list(value.axes)
    if len(axes) > 1:
        first, second = node.args[1:3] if len(node.args) > 2 else (-2, -1)
        axes[first], axes[second] = axes[second], axes[first]
    return [tuple(axes)]


@rule("unsqueeze", "unsqueeze_copy")
def _unsqueeze(rules: AxisRules, node: Node) -> Sequence[Axes]:
    value, place = node.args[:2]
    axes = list(value.axes)
    axes.insert(place % (len(axes) + 1), ())
    return [tuple(axes)]


@rule("squeeze", "squeeze_copy")
def _squeeze(rules: AxisRules, node: Node) -> Sequence[Axes]:
    value = node.args[0]
    places = node.args[1:2] if len(node.args) > 1 else list(range(len(value.shape)))
    places = places[0] if places and isinstance(places[0], list) else places
    gone = {place % len(value.shape) for place in places if value.shape[place] == 1}
    return [tuple(axis for place, axis in enumerate(value.axes) if place not in gone)]


@rule("select", "select_copy")
def _select(rules: AxisRules, node: Node) -> Sequence[Axes]:
    value, place = node.args[:2]
    return [_without(value.axes, place)]


@rule("unbind", "unbind_copy")
def _unbind(rules: AxisRules, node: Node) -> Sequence[Axes]:
    value = node.args[0]
    place = node.args[1] if len(node.args) > 1 else 0
    return [_without(value.axes, place)] * len(node.outputs)


def _without(axes: Axes, place: int) -> Axes:
    place %= len(axes)
    return axes[:place] + axes[place + 1 :]


def _replaced(axes: Axes, place: int, axis: Axis) -> Axes:
    place %= len(axes)
    return (*axes[:place], axis, *axes[place + 1 :])


@rule("slice", "slice_copy")
def _slice(rules: AxisRules, node: Node) -> Sequence[Axes]:
    value, place, start, _, step = [*node.args, *[None] * 5][:5]
    place, start = place or 0, start or 0
    old, size = value.shape[place], node.outputs[0].shape[place]
    if size == old:
        return [value.axes]
    start = max(start + old, 0) if start < 0 else start
    how = "slice" if step in (None, 1) else "steps"
    return [_replaced(value.axes, place, rules.derived(value.axes[place], size, how, start))]


@rule("split", "split_with_sizes", "chunk", "unsafe_split", "unsafe_chunk", "split_copy", "split_with_sizes_copy")
def _split(rules: AxisRules, node: Node) -> Sequence[Axes]:
    value = node.args[0]
    place = node.args[2] if len(node.args) > 2 else 0
    found, start = [], 0
    for part in node.outputs:
        size = part.shape[place]
        axis = value.axes[place]
        if size != value.shape[place]:
            axis = rules.derived(axis, size, "slice", start)
        found.append(_replaced(value.axes, place, axis))
        start += size
    return found


@rule("constant_pad_nd")
def _pad(rules: AxisRules, node: Node) -> Sequence[Axes]:
    value, padding = node.args[:2]
    axes = list(value.axes)
    for index in range(len(padding) // 2):
        place = len(axes) - 1 - index
        size = node.outputs[0].shape[place]
        if size != value.shape[place]:
            axes[place] = rules.derived(axes[place], size, "pad", padding[2 * index])
    return [tuple(axes)]


@rule("expand", "expand_copy")
def _expand(rules: AxisRules, node: Node) -> Sequence[Axes]:
    value, shape = node.args[0], node.outputs[0].shape
    axes = ((),) * (len(shape) - len(value.axes)) + value.axes
    return [
        tuple(
            axis if size_of(axis) == size else Root(size, UNKNOWN, EXPANDED).whole
            for axis, size in zip(axes, shape, strict=True)
        )
    ]


@rule("unfold", "unfold_copy")
def _unfold(rules: AxisRules, node: Node) -> Sequence[Axes]:
    """Take windows along an axis; those that overlap are new axes: the windows, and the tokens of a window."""
    value, place, size, step = node.args[:4]
    place %= len(value.shape)
    count = node.outputs[0].shape[place]
    axis = value.axes[place]
    if size == step and size * count == value.shape[place]:
        outer, inner = viewed((axis,), (count, size))
    else:
        outer, inner = rules.derived(axis, count, "windows"), rules.derived(axis, size, "window")
    return [(*_replaced(value.axes, place, outer), inner)]


@rule("im2col")
def _im2col(rules: AxisRules, node: Node) -> Sequence[Axes]:
    """Take windows of a plane: (b, c·k·k, windows)."""
    value, kernel, dilation, padding, stride = node.args[:5]
    *batch, channels, rows, columns = value.axes
    if list(kernel) == list(stride) and not any(padding) and {*dilation} == {1}:  # they do not overlap
        down, across = (
            viewed((axis,), (size_of(axis) // side, side)) for axis, side in zip((rows, columns), kernel, strict=True)
        )
        return [(*batch, (*channels, *down[1], *across[1]), joined((*down[0], *across[0])))]
    plane, count = joined((*rows, *columns)), node.outputs[0].shape[-1]
    windows = plane if size_of(plane) == count else rules.derived(plane, count, "windows")
    inside = [rules.derived(axis, size, "window") for axis, size in zip((rows, columns), kernel, strict=True)]
    return [(*batch, (*channels, *inside[0], *inside[1]), windows)]


@rule("col2im")
def _col2im(rules: AxisRules, node: Node) -> Sequence[Axes]:
    """Put windows together to a plane."""
    value, sides = node.args[:2]
    *batch, channels, windows = value.axes
    places = [rules.derived(windows, side, "fold", axis, kind=TOKEN) for axis, side in enumerate(sides)]
    return [(*batch, rules.derived(channels, node.outputs[0].shape[-3], "fold"), *places)]


@rule("cat", "concat", "concatenate")
def _cat(rules: AxisRules, node: Node) -> Sequence[Axes]:
    parts = [part for part in node.args[0] if len(part.shape) == len(node.outputs[0].shape)]
    place = node.args[1] if len(node.args) > 1 else 0
    place %= len(node.outputs[0].shape)
    size = node.outputs[0].shape[place]
    if len(parts) == 1 and parts[0].shape == node.outputs[0].shape:
        return [parts[0].axes]  # as einops.pack does with one tensor
    if (moved := _moved(parts)) is not None and moved[0] != place:
        at, outer, inner = moved
        return [_replaced(_replaced(parts[0].axes, at, inner), place, joined((*outer, *parts[0].axes[place])))]
    if size == len(parts) and _shifted(parts):
        axes, axes[place] = _stacked(rules, parts)
        return [tuple(axes)]
    longest_first = sorted(parts, key=lambda part: -part.shape[place])  # the other axes are those of most of the tokens
    axes = list(rules.changed(longest_first, node.outputs[0].shape))
    old = [part.axes[place] for part in parts]
    if size > 1:
        whole = _slices_of_one(old)
        axes[place] = whole if whole is not None else _joint(old, size)
    return [tuple(axes)]


def _joint(parts: Sequence[Axis], size: int) -> Axis:
    """Return the axis of several axes one after another, which is named after the longest."""
    data = [axis for axis in parts if kind_of(axis) in (BATCH, TOKEN, FEATURE)] or list(parts)
    longest = max(data, key=size_of)
    origin = tuple(atom for axis in parts for atom in axis)
    return Root(size, kind_of(longest), "cat", origin, parts=tuple(parts)).whole


def _moved(parts: Sequence[Value]) -> tuple[int, Axis, Axis] | None:
    """Return the axis of which tensors are the equal slices in order, while their other axes are the same; else None.

    It is the place of the axis, and both parts of it: the slices, and the positions in a slice. So are the heads of a
    projection that is split into one tensor for each head.
    """
    first = parts[0].axes if parts else ()
    if len(parts) < 2 or any(part.shape != parts[0].shape for part in parts):
        return None
    differing = [place for place, axis in enumerate(first) if any(part.axes[place] != axis for part in parts)]
    if len(differing) != 1:
        return None
    [place] = differing
    whole = _slices_of_one([part.axes[place] for part in parts])
    if whole is None:
        return None
    outer, inner = viewed((whole,), (len(parts), parts[0].shape[place]))
    return place, outer, inner


def _slices_of_one(parts: Sequence[Axis]) -> Axis | None:
    """Return the axis of which all these axes are the slices in order; None if they are not."""
    start = 0
    origin: Axis | None = None
    for axis in parts:
        if len(axis) != 1 or axis[0].root.how != "slice" or axis[0].root.start != start:
            return None
        if axis[0].size != axis[0].root.size or origin not in (None, axis[0].root.origin):
            return None
        origin = axis[0].root.origin
        start += axis[0].size
    return origin if origin is not None and size_of(origin) == start else None


@rule("stack")
def _stack(rules: AxisRules, node: Node) -> Sequence[Axes]:
    parts = node.args[0]
    place = node.args[1] if len(node.args) > 1 else 0
    axes, outer = _stacked(rules, parts)
    axes.insert(place % (len(axes) + 1), outer)
    return [tuple(axes)]


def _stacked(rules: AxisRules, parts: Sequence[Value]) -> tuple[list[Axis], Axis]:
    """Return the axes that tensors of one shape share, and the axis along which they are stacked.

    The latter has the equal slices of an axis, or the neighbours of each position, if the tensors are shifted. Otherwise
    it is unknown.
    """
    if (moved := _moved(parts)) is not None:
        at, outer, inner = moved
        return list(_replaced(parts[0].axes, at, inner)), outer
    axes = list(rules.changed(parts, parts[0].shape))
    shifted = _shifted(parts)
    for place, axis in shifted.items():
        axes[place] = axis
    around = tuple(atom for axis in shifted.values() for atom in axis)
    return axes, rules.derived(around, len(parts), "window") if around else Root(len(parts), UNKNOWN).whole


def _shifted(parts: Sequence[Value]) -> dict[int, Axis]:
    """Return the axes along which tensors are shifts of one tensor, by their places: rolled, or slices after padding."""
    if len(parts) < 2 or len({len(part.axes) for part in parts}) > 1:
        return {}
    if (rolled := _rolled(parts)) is not None:
        return rolled
    found: dict[int, Axis] = {}
    for place, first in enumerate(parts[0].axes):
        axes = [part.axes[place] for part in parts]
        unshifted = {_unshifted(axis) for axis in axes}
        if len(unshifted) > 1:
            return {}
        if any(axis != first for axis in axes):
            found[place] = unshifted.pop()
    return found


def _rolled(parts: Sequence[Value]) -> dict[int, Axis] | None:
    """Return the axes along which tensors are rolls of one tensor, by their places; None if they are not.

    There are none unless the rolls bring the neighbours of each token together: each place of a box once, at equal
    distances along each axis, which counts tokens.
    """
    shifts = []
    for part in parts:
        roll = part.maker if part.maker is not None and part.maker.name == "roll" else None
        if roll is not None and len(roll.args) < 3:  # without axes, it is flattened
            return None
        base, by = (part, {}) if roll is None else (roll.args[0], dict(zip(roll.args[2], roll.args[1], strict=True)))
        shifts.append((base, {place % len(part.shape): shift for place, shift in by.items()}))
    places = sorted({place for _, by in shifts for place in by})
    if not places or len({(viewed_from(base, VIEWS | ORDERS), base.axes) for base, _ in shifts}) > 1:
        return None
    axes = shifts[0][0].axes
    sizes = [size_of(axes[place]) for place in places]
    offsets = [
        tuple((by.get(place, 0) + size // 2) % size for place, size in zip(places, sizes, strict=True))
        for _, by in shifts
    ]
    along = [sorted(set(each)) for each in zip(*offsets, strict=True)]
    is_regular = all(len({after - before for before, after in pairwise(each)}) <= 1 for each in along)
    is_box = len(set(offsets)) == len(offsets) == prod(map(len, along))
    if not (is_regular and is_box) or any(kind_of(axes[place]) != TOKEN for place in places):
        return {}
    return {place: axes[place] for place in places}


def viewed_from(value: Value, views: frozenset[str] = VIEWS) -> Value:
    """Return the tensor of which another one is a view with the same elements, through views with these names."""
    while (
        value.maker is not None and value.maker.name in views and prod(value.maker.args[0].shape) == prod(value.shape)
    ):
        value = value.maker.args[0]
    return value


def _unshifted(axis: Axis) -> Axis:
    """Return the axis before it was padded, if another one is a slice of as many positions after that padding."""
    root = axis[0].root if len(axis) == 1 else None
    if root is None or root.how != "slice" or axis[0].size != root.size or len(root.origin) != 1:
        return axis
    padded = root.origin[0].root
    return padded.origin if padded.how == "pad" and size_of(padded.origin) == root.size else axis


@rule(STRIDED)
def _as_strided(rules: AxisRules, node: Node) -> Sequence[Axes]:
    """Find the axis of each stride. Two strides along one axis are those of windows, and of the tokens of a window.

    A stride of 0 is that of an expanded axis. Axes of more strides are unknown.
    """
    value, shape, strides, old = node.args[:4]
    axes: list[Axis] = [Root(size, UNKNOWN, EXPANDED).whole if size > 1 else () for size in shape]
    along: dict[int, list[int]] = {}
    for place in sorted(range(len(shape)), key=strides.__getitem__, reverse=True):
        if shape[place] > 1 and strides[place]:
            along.setdefault(_axis_of(strides[place], value.shape, old), []).append(place)
    for source, places in along.items():
        axis, sizes = value.axes[source], [shape[place] for place in places]
        steps = [strides[place] // old[source] for place in places]
        if len(places) == 1 and sizes[0] == value.shape[source]:
            found: Sequence[Axis] = [axis]
        elif len(places) == 1:
            found = [rules.derived(axis, sizes[0], "slice" if steps[0] == 1 else "steps")]
        elif steps == [sizes[-1], 1] and prod(sizes) == value.shape[source]:
            found = viewed((axis,), tuple(sizes))
        elif len(places) == 2:
            found = [rules.derived(axis, size, how) for size, how in zip(sizes, ("windows", "window"), strict=True)]
        else:
            found = [Root(size, UNKNOWN).whole for size in sizes]
        for place, each in zip(places, found, strict=True):
            axes[place] = each
    return [tuple(axes)]


def _axis_of(stride: int, shape: Shape, strides: Shape) -> int:
    """Return the axis along which a stride is a number of positions."""
    [place] = [
        place
        for place, (size, each) in enumerate(zip(shape, strides, strict=True))
        if size > 1 and each <= stride < each * size and stride % each == 0
    ]
    return place


@rule("repeat", "tile")
def _repeat(rules: AxisRules, node: Node) -> Sequence[Axes]:
    value, times = node.args[:2]
    axes = ((),) * (len(times) - len(value.axes)) + value.axes
    made = []
    for axis, count in zip(axes, times, strict=True):
        more = Root(count, UNKNOWN).whole
        made.append((*more, *axis))
    return [tuple(made)]


@rule(
    "sum", "mean", "amax", "amin", "max", "min", "prod", "logsumexp", "norm", "linalg_vector_norm", "any", "all", "var"
)
def _reduce(rules: AxisRules, node: Node) -> Sequence[Axes]:
    places = reduced_places(node)
    value, shape = node.args[0], node.outputs[0].shape
    if len(shape) == len(value.shape):
        axes = tuple(() if place in places else axis for place, axis in enumerate(value.axes))
    else:
        axes = tuple(axis for place, axis in enumerate(value.axes) if place not in places)
    return [axes] * len(node.outputs)


def reduced_places(node: Node) -> list[int]:
    """Return the axes along which an operator such as a sum reduces its first argument."""
    value = node.args[0]
    at = 2 if node.name in ("norm", "linalg_vector_norm") else 1
    places = node.args[at] if len(node.args) > at else None
    if isinstance(places, Value):  # an elementwise maximum
        return []
    if places is None or places == []:
        return list(range(len(value.shape)))
    return [place % len(value.shape) for place in (places if isinstance(places, list) else [places])]


@rule("mm", "addmm", "_addmm_activation", "linear", "addmm_")
def _mm(rules: AxisRules, node: Node) -> Sequence[Axes]:
    x, weight = operands(node)
    if x is None or weight is None or len(x.axes) < 2 or len(weight.axes) < 2:
        return same(rules, node)
    if node.name == "linear":
        return [(*x.axes[:-1], _features(rules, weight.axes[0], node.outputs[0].shape[-1]))]
    rows, columns = x.axes[0], weight.axes[1]
    if x.is_constant and not weight.is_constant:  # a weight that mixes tokens
        rows = rules.derived(weight.axes[0], size_of(rows), "pooled")
    else:
        columns = _columns(rules, x, weight, weight.is_constant)
    return [(rows, columns)]


@rule("bmm", "baddbmm", "baddbmm_", "addbmm")
def _bmm(rules: AxisRules, node: Node) -> Sequence[Axes]:
    x, y = operands(node)
    if x is None or y is None or len(node.outputs[0].shape) != 3:
        return same(rules, node)
    data = [value for value in (x, y) if not value.is_weight] or [x, y]
    images = best([value.axes[0] for value in data])
    if x.is_weight and not y.is_weight:
        return [(images, rules.derived(y.axes[1], x.shape[1], "pooled"), y.axes[2])]
    return [(images, x.axes[1], _columns(rules, x, y, y.is_weight))]


def operands(node: Node) -> tuple[Any, Any]:
    """Return the two factors of a matmul; None for one that is missing."""
    at = 1 if node.name.startswith(("addmm", "_addmm", "baddbmm", "addbmm")) else 0
    factors = [arg if isinstance(arg, Value) else None for arg in node.args[at : at + 2]]
    return (factors[0], factors[1]) if len(factors) == 2 else (None, None)


def _columns(rules: AxisRules, x: Value, factor: Value, is_weight: bool) -> Axis:
    """Return the last axis of a matmul: the output channels of a weight, or the keys of other data.

    A weight that sums over tokens, while the channels are in another axis, makes fewer or more tokens from them. Tokens may
    be learned. Keys that are also queries get a Root of their own, which tells the two apart.
    """
    rows, summed = x.axes[-2], x.axes[-1]
    columns = factor.axes[-1]
    if is_weight and kind_of(summed) in (TOKEN, TABLE) and any(atom.root.kind == FEATURE for atom in rows):
        return rules.derived(summed, size_of(columns), "pooled")
    if is_weight:
        return _features(rules, columns, size_of(columns))
    of_rows = roots_of(rows)
    apart = [
        Root(atom.size, atom.root.kind, "keys", (atom,)).whole if atom.root.line & of_rows else (atom,)
        for atom in columns
    ]
    return tuple(atom for axis in apart for atom in axis)


def _features(rules: AxisRules, axis: Axis, size: int) -> Axis:
    """Return the output channels of a weight with this axis."""
    return rules.derived(axis, size, "features", kind=FEATURE)


@rule("convolution", "_convolution", "mkldnn_convolution", "conv1d", "conv2d", "conv3d", "cudnn_convolution")
def _convolution(rules: AxisRules, node: Node) -> Sequence[Axes]:
    """Make new channels, unless each output channel comes from one input channel; places remain, or come from the old.

    If the channels are in the place of an image's sides, it makes new tokens.
    """
    x, weight = node.args[:2]
    shape = node.outputs[0].shape
    images, channels, *places = x.axes
    if kind_of(channels) in (TOKEN, TABLE) and any(kind_of(axis) == FEATURE for axis in places):
        channels = rules.derived(channels, shape[1], "pooled")
    elif len(weight.shape) < 2 or weight.shape[1] != 1 or shape[1] != x.shape[1] or x.shape[1] == 1:
        channels = _features(rules, weight.axes[0], shape[1])
    axes = [
        axis if size_of(axis) == size else rules.derived(axis, size, "pooled") if axis else Root(size, TOKEN).whole
        for axis, size in zip(places, shape[2:], strict=True)
    ]
    return [(images, channels, *axes)]


@rule(*[f"{name}_pool{sides}d" for name in ("avg", "max", "_adaptive_avg", "adaptive_avg") for sides in (1, 2, 3)])
@rule(*[f"{name}_pool{sides}d{end}" for name, end in POOLS_WITH_INDICES for sides in (2, 3)])
def _pool(rules: AxisRules, node: Node) -> Sequence[Axes]:
    return [rules.changed([node.args[0]], value.shape, "pooled") for value in node.outputs]


@rule("topk")
def _topk(rules: AxisRules, node: Node) -> Sequence[Axes]:
    value, place = node.args[0], node.args[2] if len(node.args) > 2 else -1
    axis = rules.derived(value.axes[place], node.outputs[0].shape[place], "top")
    return [_replaced(value.axes, place, axis)] * len(node.outputs)


@rule("embedding")
def _embedding(rules: AxisRules, node: Node) -> Sequence[Axes]:
    weight, indices = node.args[:2]
    return [(*indices.axes, _features(rules, weight.axes[1], weight.shape[1]))]


@rule("grid_sampler", "grid_sampler_2d", "grid_sampler_3d", "cudnn_grid_sampler")
def _grid_sampler(rules: AxisRules, node: Node) -> Sequence[Axes]:
    """Take tokens at given places; each place is a token, although the channels of a projection may count them."""
    value, grid = node.args[:2]
    places = [rules.derived(axis, size_of(axis), "gather", kind=TOKEN) if axis else () for axis in grid.axes[1:-1]]
    return [(*value.axes[:2], *places)]


@rule("index", "_unsafe_index")
def _index(rules: AxisRules, node: Node) -> Sequence[Axes]:
    value, indices = node.args[:2]
    places = [place for place, index in enumerate(indices) if isinstance(index, Value)]
    if len(places) != 1 or len(indices[places[0]].shape) == 0:
        return same(rules, node)
    [place] = places
    index = indices[place]
    old = value.axes[place]
    taken = [rules.derived(old, size, "gather", place) if size > 1 else () for place, size in enumerate(index.shape)]
    return [(*value.axes[:place], *taken, *value.axes[place + 1 :])]


@rule("scaled_dot_product_attention", "_scaled_dot_product_flash_attention", "_scaled_dot_product_efficient_attention")
@rule("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_cudnn_attention", "flex_attention")
def _attend(rules: AxisRules, node: Node) -> Sequence[Axes]:
    query, key, value = node.args[:3]
    if len(node.outputs[0].shape) != len(query.shape):
        return same(rules, node)
    outer = rules.changed([query, key, value], node.outputs[0].shape)[:-2]
    return [(*outer, query.axes[-2], value.axes[-1])]
