"""Write the MACs of an attention in letters: those of its scores, its weighted sum, and the layers around them."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import NamedTuple

from attnscope.attentions.complexity import padded_tokens, window_keys
from attnscope.core.axes import Shape, spell
from attnscope.core.formula import POWERS, Expression, symbol
from attnscope.tracing.flow.axes import FEATURE, Axis
from attnscope.tracing.flow.projections import channels, data_of, is_projection, projections_after
from attnscope.tracing.flow.record import Node, Value
from attnscope.tracing.flow.rules import EXPANDED, operands

FARTHEST = 80
"""The largest number of operators around an attention that are searched."""
ROLES = ("q", "k", "v")
Inside = Callable[[Node], bool]


@dataclass(frozen=True, eq=False, slots=True)
class Core:
    """The tensors of an attention whose queries have scores with keys.

    Args:
        inputs: the query, key and value of each part of the attention.
        results: the weighted sum of each part.
        nodes: the operators that multiply.
        consumers: the operators that take each tensor.
    """

    inputs: tuple[Value, ...]
    results: tuple[Value, ...]
    nodes: tuple[Node, ...]
    consumers: Mapping[Value, Sequence[Node]]


class Sizes(NamedTuple):
    """The sizes of an attention.

    Args:
        images: batch size.
        heads: number of heads.
        head_dim: channels of a query in a head.
        queries: number of queries of an image.
        keys: number of keys of a query.
        window: sides of a window, or its number of tokens if they are unknown; None if keys are not those of a window.
        padding: number of padding tokens among the queries.
        is_other: whether keys come from another sequence.
        is_linear: whether queries multiply the product of keys and values, so that `keys` are the channels of a head.
    """

    images: int
    heads: int
    head_dim: int
    queries: int
    keys: int
    window: Shape | int | None
    padding: int
    is_other: bool
    is_linear: bool = False


class Written(NamedTuple):
    """The MACs of an attention for one image, and those of global attention with the same channels.

    `is_pooled` is True if there are fewer queries than tokens.
    """

    own: Expression
    reference: Expression
    is_pooled: bool


def written(core: Core, sizes: Sizes, inside: Inside) -> tuple[Written, int] | None:
    """Return the formulas of an attention and the MACs of its operators; None if one of them has no letters.

    Args:
        core: its tensors.
        sizes: its sizes.
        inside: whether an operator may belong to it.
    """
    layer = _Layer(core, inside)
    if not layer.is_known:
        return None
    found = _Formula(layer, sizes).written()
    nodes = {*core.nodes, *layer.inputs, *layer.others, *layer.outputs}
    macs = sum(node.macs for node in nodes)
    return (found, macs) if found is not None and found.own.value * sizes.images == macs else None


def mixes_heads(core: Core, heads: int) -> bool:
    """Return whether a layer between the products of an attention makes new heads from all heads."""
    layer = _Layer(core, lambda node: True)
    return any(_mixes(node, heads) and layer.is_of_scores(node) for node in layer.others)


class _Layer:
    """The operators with MACs around an attention.

    `inputs` make its queries, keys and values, with the role of each, `outputs` take its results, and `others` are between
    both. `is_known` is False if the search met an operator that it does not know.
    """

    def __init__(self, core: Core, inside: Inside) -> None:
        self.core, self.inside = core, inside
        self.is_known = len(core.inputs) % len(ROLES) == 0
        self.inputs: dict[Node, list[str]] = {}
        self.outputs: list[Node] = []
        self.others: list[Node] = []
        for place, value in enumerate(core.inputs):
            self.find_inputs(value, ROLES[place % len(ROLES)])
        self.outputs = [node for node in projections_after(core.results, core.consumers, core.inputs) if inside(node)]
        ends = [data_of(node) for node in self.outputs] or list(core.results)
        self.others = self.find_others(ends)
        for node in (*self.outputs, *self.others):
            self.inputs.pop(node, None)
        self.is_known &= all(map(self.is_for_this, self.inputs))

    def find_inputs(self, value: Value, role: str) -> None:
        """Find the projections of a query, key or value, and the convolutions that make it alone."""
        queue = [(value, False)]
        seen = {value}
        for each, is_projected in queue:
            node = each.maker
            if node is None or len(seen) > FARTHEST:
                continue
            before = [value for value in node.inputs if not value.is_weight]
            if node.macs:
                if not self.inside(node) or not is_projection(node):
                    continue
                is_spatial = _mixes_tokens(node) or _kernel(node) > 1 or _is_depthwise(node)
                if is_projected and not (is_spatial and self.is_for_this(node)):
                    continue
                roles = self.inputs.setdefault(node, [])
                if role not in roles:
                    roles.append(role)
                is_projected |= not (_is_depthwise(node) or _mixes_tokens(node))
                before = [data_of(node)]
            for value in before:
                if value not in seen:
                    seen.add(value)
                    queue.append((value, is_projected))

    def is_for_this(self, node: Node) -> bool:
        """Return whether all products that take the result of an operator belong to the attention."""
        own = {*self.inputs, *self.outputs, *self.others, *self.core.nodes}
        seen = {*node.outputs}
        queue = [*node.outputs]
        for value in queue:
            for taker in self.core.consumers.get(value, ()):
                if taker.macs and taker not in own:
                    return False
                if not taker.macs:
                    new = [out for out in taker.outputs if out not in seen]
                    seen.update(new)
                    queue += new
            if len(seen) > FARTHEST:
                return False
        return True

    def is_of_scores(self, node: Node) -> bool:
        """Return whether a layer takes scores, rather than what queries, keys or values are made from."""
        queue = [data_of(node)]
        seen = {*queue, *self.core.inputs}
        for value in queue:
            if value.maker in self.core.nodes:
                return True
            if value.maker is None or value.maker in self.inputs or len(seen) > FARTHEST:
                continue
            new = [before for before in value.maker.inputs if before not in seen and not before.is_weight]
            seen.update(new)
            queue += new
        return False

    def find_others(self, ends: Iterable[Value]) -> list[Node]:
        """Find the other operators on which the result depends: of relative positions, between heads, beside values."""
        queue, found = [*ends], []
        seen = {*queue, *self.core.inputs}
        for value in queue:
            node = value.maker
            if node is None or (node in self.inputs and node not in self.core.nodes):
                continue
            before = list(node.inputs)
            if node.macs and node not in self.core.nodes:
                if not self.inside(node):
                    continue
                found.append(node)
                if is_projection(node):
                    before = [data_of(node)] if self.is_of_scores(node) else []
            new = [value for value in before if value not in seen and not value.is_weight]
            seen.update(new)
            queue += new
            if len(seen) > FARTHEST:
                self.is_known = False
                break
        return list(dict.fromkeys(found))


@dataclass
class _Letters:
    """Letters for sizes of one kind; a size has the same letter everywhere."""

    names: Iterator[str]
    of: dict[int, Expression] = field(default_factory=dict)

    def __call__(self, size: int, name: str = "", spelled: str = "") -> Expression:
        if size not in self.of:
            name = name or self.new()
            self.of[size] = symbol(name, size, spelled=(spelled,) if spelled else ())
        return self.of[size]

    def new(self) -> str:
        """Return the next name."""
        name = next(self.names, None)
        if name is None:
            raise _UnknownError
        return name


class _Formula:
    """The formula of an attention, a term for each operator."""

    hw: Expression
    main: int

    def __init__(self, layer: _Layer, sizes: Sizes) -> None:
        self.layer, self.sizes = layer, sizes
        self.inner = sizes.heads * sizes.head_dim
        pairs = sizes.images * sizes.queries * sizes.keys
        core = sum(node.macs for node in layer.core.nodes)
        # both products of linear attention make the channels of the values
        self.values = core // max(pairs, 1) // 2 if sizes.is_linear else core // max(pairs, 1) - self.inner
        self.core_widths = [self.values if sizes.is_linear else self.inner, self.values]
        self.is_whole = core == pairs * sum(self.core_widths) and self.values > 0
        self.tokens, self.channels, self.kernels = (
            _Letters(iter(names)) for names in (("m", "l", "p"), ("E", "F", "J"), ("k", "r", "s"))
        )

    def written(self) -> Written | None:
        """Return the formulas; None if an operator has no letters."""
        if not self.is_whole:
            return None
        try:
            self.name_sizes()
            own, reference = self.terms()
        except _UnknownError:
            return None
        is_pooled = not self.sizes.is_other and self.sizes.queries < self.main
        return Written(_sum(own), _sum(reference), is_pooled)

    def name_sizes(self) -> None:
        """Give the sizes of the attention their letters."""
        sizes, inputs = self.sizes, self.layer.inputs
        projected = [node for node in inputs if not _is_depthwise(node) and not _mixes_tokens(node)]
        self.main = max([sizes.queries, *map(self.places, projected)])
        if sizes.is_other:
            self.tokens(sizes.queries, "Nq")
            self.tokens(sizes.keys, "Nk")
        elif sizes.padding:
            self.tokens.of[sizes.queries] = padded_tokens((sizes.queries - sizes.padding,), (sizes.queries,))
            self.hw = self.tokens(sizes.queries - sizes.padding, "hw")
        else:
            self.hw = self.tokens(self.main, "hw")
            self.tokens(sizes.queries, "n")
        if sizes.window is None and not sizes.is_linear:
            self.tokens(sizes.keys, "M")
        self.channels(channels(data_of(projected[0]), projected[0]) if projected else self.inner, "C")
        self.channels(self.inner, "D")
        self.channels(self.values, "V")
        for node in projected:
            if inputs[node] in (["k"], ["v"]):
                self.channels(channels(node.outputs[0], node), "G")
        for node in self.layer.outputs:
            self.channels(channels(node.outputs[0], node), "O")

    def terms(self) -> tuple[list[Expression], list[Expression]]:
        """Return the terms of the attention, and those of global attention with the same channels."""
        sizes = self.sizes
        D, V = self.channels(self.inner), self.channels(self.values)
        own: list[Expression] = []
        reference: list[Expression] = []
        for places, products, is_reduction in self.layers():
            own += [self.tokens(places) * product for product in products]
            reference += [] if sizes.is_other or is_reduction else [self.hw * product for product in products]
        queries, keys = self.tokens(sizes.queries), self.keys()
        for width in map(self.channels, self.core_widths):
            own.append(queries * width * keys if sizes.is_linear else keys * queries * width)
        reference += [] if sizes.is_other else [self.hw * self.hw * D, self.hw * self.hw * V]
        return own + self.other_terms(queries, keys), reference

    def keys(self) -> Expression:
        """Return the number of keys of a query; in linear attention, that of the channels of a head."""
        sizes = self.sizes
        if sizes.is_linear:
            return symbol("d", sizes.head_dim)
        return self.tokens(sizes.keys) if sizes.window is None else window_keys(sizes.window)

    def layers(self) -> list[tuple[int, list[Expression], bool]]:
        """Return the tokens, the MACs for each of them, and whether it only reduces tokens, of each layer.

        Equal layers of the parts of a loop are one, if their tokens together are those of the image.
        """
        inputs = [(node, self.widths(node)) for node in sorted(self.layer.inputs, key=_is_depthwise)]
        outputs = [(node, [self.channels(channels(node.outputs[0], node))]) for node in self.layer.outputs]
        alike: dict[tuple[object, ...], tuple[list[int], list[Expression], bool]] = {}
        for node, widths in (*inputs, *outputs):
            is_reduction = _is_depthwise(node) or _mixes_tokens(node) or _kernel(node) > 1
            products = list(self.products(node, widths))
            roles = tuple(self.layer.inputs.get(node, ["o"]))
            alike.setdefault((roles, *map(str, products)), ([], products, is_reduction))[0].append(self.places(node))
        return [
            (count, products, is_reduction)
            for places, products, is_reduction in alike.values()
            for count in ([sum(places)] if sum(places) in self.tokens.of else places)
        ]

    def places(self, node: Node) -> int:
        """Return the number of tokens of an image for which an operator makes channels."""
        out = node.outputs[0]
        if _mixes_tokens(node):
            return out.shape[-1]
        if (
            len(out.axes) > 2
            and "conv" not in node.name
            and (_are_of_features(out.axes[0]) or _has_weights_apart(node))
        ):
            raise _UnknownError  # each head or token has a weight of its own, so that rows are not tokens
        places = prod(out.shape) // max(channels(out, node), 1)
        if "conv" in node.name and _is_depthwise(node):  # heads may be images of the convolution
            places = node.macs // max(_kernel(node) * self.depth(node), 1)
        if places % self.sizes.images:
            raise _UnknownError
        return places // self.sizes.images

    def mixed_tokens(self, node: Node) -> Expression:
        """Return the MACs for each token of a matmul that makes tokens of all tokens."""
        tokens = data_of(node).shape[-1]
        width, rest = divmod(node.macs, self.sizes.images * tokens * node.outputs[0].shape[-1])
        if rest:
            raise _UnknownError
        return self.tokens(tokens) * self.channels(width)

    def depth(self, node: Node) -> int:
        """Return the channels of a depthwise convolution, those of all heads if each head is an image of it."""
        count = channels(node.outputs[0], node)
        return (
            count * self.sizes.heads
            if count * self.sizes.heads in (self.inner, self.values)
            and (node.outputs[0].shape[0] % (self.sizes.images * self.sizes.heads) == 0)
            else count
        )

    def widths(self, node: Node) -> list[Expression]:
        """Return the letters of the output channels of a projection of queries, keys or values."""
        roles = self.layer.inputs[node]
        count = self.depth(node) if _is_depthwise(node) else channels(node.outputs[0], node)
        if len(roles) == 1 or _mixes_tokens(node) or (_is_depthwise(node) and count in self.channels.of):
            return [self.channels(count)]
        own = {"q": self.inner, "k": self.inner, "v": self.values}
        shared = count - (self.inner if "q" in roles else 0)
        if sum(own[role] for role in roles) != count and self.inner == self.values and {"k", "v"} <= {*roles}:
            if shared <= 0 or shared % 2 or self.inner % (shared // 2):
                raise _UnknownError
            own |= {"k": shared // 2, "v": shared // 2}  # heads share their keys
        if sum(own[role] for role in roles) != count:
            raise _UnknownError
        return [self.channels(own[role], "G") for role in ROLES if role in roles]

    def products(self, node: Node, widths: Iterable[Expression]) -> Iterator[Expression]:
        """Yield the MACs of a projection for each token, one for each of its outputs."""
        if _mixes_tokens(node):
            yield self.mixed_tokens(node)
            return
        kernel = self.kernel(node)
        for width in widths:
            if _is_depthwise(node):
                yield kernel * width
            elif _kernel(node) * channels(data_of(node), node) != prod(node.args[1].shape[1:]) and "conv" in node.name:
                raise _UnknownError  # groups of channels
            else:
                yield kernel * (self.channels(channels(data_of(node), node)) * width)

    def kernel(self, node: Node) -> Expression | int:
        """Return the letter for the number of places of a kernel; 1 for a single place."""
        size = _kernel(node)
        if size == 1:
            return 1
        sides = node.args[1].shape[2:]
        name = "" if size in self.kernels.of else self.kernels.new() + POWERS[len(sides)]
        return self.kernels(size, name, spell(sides))

    def placed(self, node: Node) -> tuple[int, int] | None:
        """Return the number of queries that a product gives positions, and of positions for each; None for another one.

        They may be all queries, or all but a few, such as a class token.
        """
        sizes, rows = self.sizes, self.sizes.images * self.inner
        if _contracted(node) != sizes.head_dim or not _is_with_table(node):
            return None
        if node.macs % (rows * sizes.queries) == 0:
            return sizes.queries, node.macs // (rows * sizes.queries)
        count = node.outputs[0].shape[-1]
        places, rest = divmod(node.macs, rows * count)
        return (places, count) if not rest and places < sizes.queries else None

    def other_terms(self, queries: Expression, keys: Expression) -> list[Expression]:
        """Return the terms of relative positions, of mixed heads, and of layers beside the values."""
        sizes, D = self.sizes, self.channels(self.inner)
        terms, positions = [], Counter[int]()
        pairs = sizes.images * sizes.queries
        for node in self.layer.others:
            macs = node.macs
            if macs == pairs * sizes.keys * sizes.heads**2 and _mixes(node, sizes.heads):
                H = symbol("H", sizes.heads)
                terms.append(keys * queries * H**2)
            elif (placed := self.placed(node)) is not None:
                queries_with, count = placed
                positions[queries_with] += count
            elif is_projection(node) and "conv" in node.name and _is_depthwise(node):
                terms.append(self.tokens(self.places(node)) * self.kernel(node) * self.channels(self.depth(node)))
            elif is_projection(node) and channels(node.outputs[0], node) in self.channels.of:
                (product,) = self.products(node, [self.channels(channels(node.outputs[0], node))])
                terms.append(self.tokens(self.places(node)) * product)
            else:
                raise _UnknownError
        if len(positions) > 1:
            raise _UnknownError
        with_places = [self.tokens(places) * symbol("R", count) * D for places, count in positions.items()]
        return with_places + terms


class _UnknownError(Exception):
    """An operator whose MACs have no letters."""


def _sum(terms: Sequence[Expression]) -> Expression:
    total = terms[0] if terms else Expression(())
    for term in terms[1:]:
        total += term
    return total


def _kernel(node: Node) -> int:
    """Return the number of places of the kernel of a convolution; 1 for a matmul."""
    return prod(node.args[1].shape[2:]) if "conv" in node.name else 1


def _is_depthwise(node: Node) -> bool:
    """Return whether each channel of a convolution comes from one channel."""
    return "conv" in node.name and node.args[1].shape[1] == 1 and node.args[1].shape[0] == node.args[0].shape[1]


def _mixes_tokens(node: Node) -> bool:
    """Return whether a matmul makes new tokens of all tokens, for each channel."""
    axis = node.outputs[0].axes[-1:] if "conv" not in node.name else ()
    return any(atom.root.how == "pooled" for atoms in axis for atom in atoms)


def _are_of_features(axis: Axis) -> bool:
    return any(atom.root.kind == FEATURE for atom in axis)


def _has_weights_apart(node: Node) -> bool:
    """Return whether each matrix of a batch is multiplied by a weight of its own, such as the rotation of a token."""
    weights = [value for value in operands(node) if value is not None and value.is_weight and len(value.axes) > 2]
    return any(atom.root.how != EXPANDED for value in weights for atom in value.axes[0])


def _contracted(node: Node) -> int:
    """Return the size over which a matmul sums; 0 for another operator."""
    factor = data_of(node) if "conv" not in node.name else None
    return factor.shape[-1] if factor is not None and factor.shape else 0


def _is_with_table(node: Node) -> bool:
    """Return whether a matmul is of data with a table of the module, or with positions that no input changes."""
    return any(value.is_constant for value in node.inputs) and not all(value.is_constant for value in node.inputs)


def _mixes(node: Node, heads: int) -> bool:
    """Return whether an operator makes new heads from all heads."""
    weights = [value.shape for value in node.inputs if value.is_weight and len(value.shape) > 1]
    sides = [shape[:2] if "conv" in node.name else shape[-2:] for shape in weights]
    return is_projection(node) and (heads, heads) in sides
