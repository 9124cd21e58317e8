"""Record which operator made each tensor of a forward, without keeping the tensors."""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from attnscope.core.axes import Shape
from attnscope.ops.attention import Attend
from attnscope.tracing.flow.axes import Axes
from attnscope.tracing.tensors import is_array, shape_of, storage_of, tensors_in, tensors_within

ALIGNMENT = 16
"""Bytes of a row of channels, a multiple of which fast kernels need on CUDA."""
PLAIN = (Tensor, nn.Parameter)
"""Classes of tensors that operators make."""
STRIDED = "as_strided"
"""The view with any strides. Its last argument becomes the strides of the tensor of which it is a view."""
INPUT, TABLE = "input", "table"
"""Sources of tensors that no operator made: an input of the forward, and a parameter, buffer or constant."""


@dataclass(slots=True, eq=False)
class Value:
    """A tensor of a forward: its shape, and the Node that made it; None for an input, a parameter or a constant.

    `axes`, `is_constant` and `is_product` are set by `attnscope.tracing.flow.rules`. A constant depends on no input. A
    product depends on a matmul. So it is not a weight, even if it is constant: queries that are learned and projected.

    `is_real` is True for floating-point and complex numbers, which may have a gradient. `is_trainable` is True for a
    tensor that no operator made and that requires one. `is_parameter` is True for a parameter, even if it is frozen.

    `origin` is what an input of a submodule was in the forward of the whole; None if it is unknown.
    """

    shape: Shape
    maker: "Node | None" = None
    source: str = ""
    is_real: bool = True
    is_trainable: bool = False
    is_parameter: bool = False
    axes: Axes = ()
    is_constant: bool = False
    is_product: bool = False
    origin: "Value | None" = None

    @property
    def is_weight(self) -> bool:
        """Return whether the values are those of parameters, not computed by a matmul."""
        return self.is_constant and not self.is_product


@dataclass(slots=True, eq=False)
class Node:
    """An operator that ran.

    Args:
        name: its name in aten, such as `bmm`.
        args: its positional arguments, with a Value for each tensor.
        outputs: the Value of each tensor that it returned.
        macs: its MACs; 0 if unknown.
        call: the torch call in which it ran; None if it is a view outside of any.
        fused: the attention that it computes, for a fused operator.
        is_aligned: whether fast kernels accept the memory layout of its arguments, for a fused operator.
    """

    name: str
    args: list[Any]
    outputs: list[Value]
    macs: int
    call: Any
    fused: Attend | None = None
    is_aligned: bool = True

    @property
    def inputs(self) -> "Iterator[Value]":
        """Yield the Values among the arguments."""
        for arg in self.args:
            if isinstance(arg, Value):
                yield arg
            elif isinstance(arg, list):
                yield from (item for item in arg if isinstance(item, Value))


@dataclass
class Flow:
    """All operators that ran in a forward, in their order.

    `before` has those of the whole module that ran before the forward of a submodule; None for the whole.
    """

    before: "Flow | None" = None
    nodes: list[Node] = field(default_factory=list)
    values: dict[int, tuple[Any, Value]] = field(default_factory=dict)
    """The Value of each tensor, by its identity, with a reference that shows whether the tensor still lives."""
    given: list[tuple[Any, Value]] = field(default_factory=list)
    """The inputs of the forward among these."""
    inputs: list[Value] = field(default_factory=list)
    """The inputs of the forward."""
    results: list[Value] = field(default_factory=list)
    """The tensors that the forward returns."""

    @property
    def history(self) -> list[Node]:
        """Return all operators, after those that ran before a submodule."""
        return [*(self.before.nodes if self.before else ()), *self.nodes]

    @property
    def first_inputs(self) -> list[Value]:
        """Return the inputs of the whole module."""
        return self.before.inputs if self.before else self.inputs

    def begin(self, inputs: Any) -> None:
        """Record the inputs of the forward."""
        for tensor in tensors_in(inputs):
            value = self._keep(tensor, _value_of(tensor, source=INPUT))
            value.origin = self.before._kept(tensor) if self.before else None
            self.given.append(self.values[id(tensor)])
        self.inputs = [value for _, value in self.given]
        if self.before:
            self.before.end(())

    def end(self, result: Any) -> None:
        """Record the result of the forward, and release the references to its tensors."""
        self.results = [self._value(tensor) for tensor in tensors_within(result)]
        self.values.clear()
        self.given.clear()

    @contextmanager
    def swappable(self) -> Iterator[None]:
        """Make `torch.utils.swap_tensors` accept tensors of this Flow within a `with` block.

        It refuses tensors with weak references, which would refer to other contents. So the Flow forgets such tensors.
        """
        module: Any = torch.utils
        module.weakref = SimpleNamespace(**{**vars(weakref), "getweakrefs": self._references_of_others})
        try:
            yield
        finally:
            module.weakref = weakref

    def _references_of_others(self, value: Any) -> list[Any]:
        """Return the weak references to a value without that of this Flow, which forgets it."""
        if self._kept(value) is not None:
            del self.values[id(value)]
            self.given = [(each, kept) for each, kept in self.given if each() is not value]
        return weakref.getweakrefs(value)

    def add(self, name: str, args: Any, out: Any, macs: int, call: Any, fused: Attend | None) -> None:
        """Record an operator that ran, with its positional arguments and its result."""
        is_aligned = fused is None or all(map(_is_aligned, tensors_in(args[:3])))
        if name == STRIDED:
            args = (*args[:3], args[0].stride())
        node = Node(name, [self._recorded(arg) for arg in args], [], macs, call, fused, is_aligned)
        for tensor in (out,) if isinstance(out, Tensor) else tensors_in(out):
            node.outputs.append(self._keep(tensor, _value_of(tensor, node)))
        if name == "copy_" and isinstance(base := getattr(out, "_base", None), Tensor):
            # a part of a tensor was written, so that the whole depends on what was written
            written = Node("write", [self._value(base), *node.inputs], [], 0, call)
            written.outputs.append(self._keep(base, _value_of(base, written)))
            self.nodes.append(written)
        self.nodes.append(node)

    def wrap(self, out: Any, args: Any, since: int) -> None:
        """Record the results of a call that are of a subclass, which wraps what an operator made under another identity.

        Args:
            out: the result of the call.
            args: its arguments, which it returns as another class if it ran no operator.
            since: the number of nodes before the call.
        """
        for tensor in tensors_in(out):
            if type(tensor) in PLAIN or self._kept(tensor) is not None:
                continue
            made = [value for node in reversed(self.nodes[since:]) for value in node.outputs]
            taken = [value for each in tensors_in(args) if (value := self._kept(each)) is not None]
            alike = [value for value in made + taken if value.shape == shape_of(tensor)]
            if alike:
                self._keep(tensor, alike[0])

    def _recorded(self, arg: Any) -> Any:
        if isinstance(arg, Tensor):
            return self._value(arg)
        if isinstance(arg, list | tuple):
            return [self._value(item) if isinstance(item, Tensor) else item for item in arg]
        return arg

    def _value(self, tensor: Tensor) -> Value:
        kept = self._kept(tensor)
        if kept is not None:
            return kept
        # `as_subclass` of an input is neither a torch call nor an operator
        given = [] if type(tensor) in PLAIN else self.given
        same = [value for each, value in given if _is_same(each(), tensor)]
        return self._keep(tensor, same[0] if same else _value_of(tensor, source=TABLE))

    def _kept(self, tensor: Tensor) -> Value | None:
        kept = self.values.get(id(tensor))
        return kept[1] if kept is not None and kept[0]() is tensor else None

    def _keep(self, tensor: Tensor, value: Value) -> Value:
        self.values[id(tensor)] = weakref.ref(tensor), value
        return value


def _value_of(tensor: Tensor, maker: Node | None = None, source: str = "") -> Value:
    is_real = tensor.dtype.is_floating_point or tensor.dtype.is_complex
    is_table = source == TABLE
    is_parameter = is_table and isinstance(tensor, nn.Parameter)
    return Value(shape_of(tensor), maker, source, is_real, is_table and tensor.requires_grad, is_parameter)


def _is_same(one: Tensor | None, other: Tensor) -> bool:
    """Return whether two tensors are the same array in memory."""
    if one is None or one.shape != other.shape or not (is_array(one) and is_array(other)):
        return False
    storages = storage_of(one), storage_of(other)
    return None not in storages and len({storage._cdata for storage in storages}) == 1


def _is_aligned(tensor: Tensor) -> bool:
    """Return whether the channels of a query, key or value are neighbours in memory, in units of 16 bytes."""
    return is_array(tensor) and tensor.stride(-1) == 1 and not tensor.shape[-1] * tensor.element_size() % ALIGNMENT
