"""Pair contractions: the scores of an attention with the weighted sum that takes them, or kᵀ·v with the queries."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from math import prod

from attnscope.tracing.flow.axes import FEATURE, TOKEN, Axis, Root, kind_of, roots_of, size_of
from attnscope.tracing.flow.contractions import MATMULS, SUMS, Contraction, contractions
from attnscope.tracing.flow.record import Flow, Node, Value
from attnscope.tracing.flow.rules import RULES, operands, reduced_places, viewed_from

SOFTMAXES = frozenset({"_softmax", "softmax", "_safe_softmax", "_masked_softmax"})
EXPONENTIALS = frozenset({"exp", "exp_", "exp2"})
"""Operators of a softmax that is written out."""
FACTORS = ("weighted sum", "sum of the weights")
NEAREST = 4
"""The largest number of operators between a sum and a division by it."""
FARTHEST = 400
"""The largest number of values that are searched for the weighted sum of some scores."""


@dataclass(eq=False, slots=True)
class Pair:
    """Two contractions, the second of which takes the result of the first.

    Args:
        first: q·kᵀ; or kᵀ·v in linear attention; None if the weights have another source.
        second: the weighted sum.
        softmaxes: the operators between them that normalize, each with the axis.
        mixed: the axis of the first result over which the second sums.
        weights: the input of the second that comes from the first.
        divided: the axes over whose sums the weights are divided after a softmax.
        more: other products of queries and keys, whose scores are joined with the first along the keys.
        added: other products of queries and keys, whose scores or weights are added to those of the first.
        is_composed: whether the weights are a product with other scores.
        is_reused: whether another weighted sum has the same scores, with another softmax.
    """

    first: Contraction | None
    second: Contraction
    softmaxes: list[tuple[Node, Axis]]
    mixed: Axis
    weights: Value
    divided: tuple[Axis, ...] = ()
    more: tuple[Contraction, ...] = ()
    added: tuple[Contraction, ...] = ()
    is_composed: bool = False
    is_reused: bool = False

    @property
    def values(self) -> Value:
        """Return the factor of the second contraction that is not the weights."""
        return self.second.left if self.weights is self.second.right else self.second.right

    @property
    def macs(self) -> int:
        """Return the MACs of its products, without scores that count for another weighted sum."""
        firsts = [] if self.first is None or self.is_reused else [self.first, *self.more, *self.added]
        return sum(each.node.macs for each in (*firsts, self.second))


@dataclass(slots=True)
class Pairs:
    """All pairs of a forward, the softmaxes that belong to none, and the operators that take each tensor."""

    found: list[Pair] = field(default_factory=list)
    others: list[Node] = field(default_factory=list)
    consumers: dict[Value, list[Node]] = field(default_factory=dict)


def find_pairs(flow: Flow) -> Pairs:
    """Return the pairs of contractions in a flow whose axes are known, and the softmaxes outside of them."""
    return _Search(flow).run()


class _Search:
    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.consumers: dict[Value, list[Node]] = defaultdict(list)
        for node in flow.nodes:
            for value in node.inputs:
                self.consumers[value].append(node)
        self.all = list(contractions(flow))
        self.at = {_product_of(contraction): contraction for contraction in self.all}
        """The contractions, by the node that multiplies."""
        self.scores = _scores(flow, self.at)
        self.are_factors = False
        """True if the values that were followed last are a factor of other weights."""

    def run(self) -> Pairs:
        pairs = Pairs(consumers=self.consumers)
        taken: set[Node] = set()
        seconds: set[Node] = set()
        for first in self.all:
            if first.node in seconds or not first.contracted:
                continue
            pair = self.follow(first.out, frozenset(atom.root for atom in first.columns), first)
            if pair is not None and _is_attention(pair):
                pairs.found.append(pair)
                seconds.add(pair.second.node)
                taken |= {node for node, _ in pair.softmaxes}
        firsts = {pair.first.node for pair in pairs.found if pair.first}
        pairs.found = _one_for_each_sum(pairs.found)
        for node in self.flow.nodes:
            if node.name in SOFTMAXES and node not in taken and not node.outputs[0].is_constant:
                axis = softmax_axis(node)
                pair = self.follow(node.outputs[0], frozenset(atom.root for atom in axis), None) if axis else None
                if self.are_factors or (pair is not None and pair.second.node in firsts | seconds):
                    continue  # of the queries or keys of linear attention, or of weights that are added to others
                if pair is None or not _is_of_tokens(values_axis(pair)):
                    pairs.others.append(node)
                else:
                    pair.softmaxes.insert(0, (node, axis))
                    pairs.found.append(self.with_scores(pair, node))
                    seconds.add(pair.second.node)
        pairs.found += self.quotients()
        order = {node: index for index, node in enumerate(self.flow.nodes)}
        pairs.found.sort(key=lambda pair: order[pair.second.node])
        return pairs

    def follow(self, start: Value, columns: frozenset[Root], first: Contraction | None) -> Pair | None:
        """Follow values that still have these columns to the contraction that sums over them, or over the rows."""
        before: dict[Value, tuple[Value, Node] | None] = {start: None}
        rows = frozenset(atom.root for atom in first.rows) if first else frozenset()
        queue = [(start, columns)]
        self.are_factors = False
        for value, columns in queue:
            if len(before) > FARTHEST:
                return None
            for node in self.consumers[value]:
                second = self.at.get(node)
                if second is not None and first is not second and {second.left, second.right} <= self.scores.keys():
                    self.are_factors = True
                    if value is second.left and second.out not in before and second.columns:
                        before[second.out] = value, node
                        queue.append((second.out, frozenset(atom.root for atom in second.columns)))
                    continue
                if second is not None and first is not second:
                    mixed = _mixed(second, value, columns, rows)
                    if mixed is not None:
                        way = _way(before, value)
                        found = Pair(first, second, self.softmaxes(way), mixed, value, _divided(way))
                        found.is_composed = not self.at.keys().isdisjoint(way)
                        return found
                    if node.name not in ("mul", "mul_"):
                        continue
                for out in node.outputs:
                    kept = _kept(value, out, node, columns)
                    if out not in before and kept is not None:
                        before[out] = value, node
                        queue.append((out, kept))
        return None

    def with_scores(self, pair: Pair, softmax: Node) -> Pair:
        """Return a pair with the scores that a softmax normalizes, if it has all of them; they may have another one too."""
        scores = softmax.args[0]
        first = self.scores.get(scores)
        if first is None or prod(first.out.shape) != prod(scores.shape):
            return pair
        is_of_tokens = bool(roots_of(pair.mixed) & {atom.root for atom in (*first.rows, *first.columns)})
        return replace(pair, first=first, is_reused=True) if is_of_tokens else pair

    def quotients(self) -> Iterator[Pair]:
        """Yield the weighted sums of values that are divided by the same sums of their weights, which are exponentials.

        The sum may be over all tokens, or be a product with a table of tokens × tokens (Zhai et al. 2021).
        """
        for node in self.flow.nodes:
            if node.name not in ("div", "div_") or len(list(node.inputs)) != len(FACTORS):
                continue
            sums, norms = [_sums_before(value) for value in node.inputs]
            for total, norm in product(sums, norms):
                pair = _quotient(total, norm)
                if pair is not None:
                    yield pair

    def softmaxes(self, way: Sequence[Node]) -> list[tuple[Node, Axis]]:
        """Return the normalizing operators among those on the way to a weighted sum, with their axes."""
        found = []
        for node in way:
            if node.name in SOFTMAXES:
                found.append((node, softmax_axis(node)))
            elif node.name in EXPONENTIALS:
                found.append((node, self.summed_axis(node.outputs[0])))
        return found

    def summed_axis(self, value: Value) -> Axis:
        """Return the axis over which the exponentials of a written-out softmax are summed; () if they are not."""
        for node in self.consumers[value]:
            if node.name == "sum" and (axes := _reduced(node)):
                return axes
        return ()


def _scores(flow: Flow, contractions: Mapping[Node, Contraction]) -> dict[Value, Contraction]:
    """Return the scores of tokens with tokens in a flow, what is made of them alone, and their products.

    Each has the product of queries and keys that it comes from, rather than one with constants that is added.
    """
    found: dict[Value, Contraction] = {}
    for node in flow.nodes:
        each = contractions.get(node)
        if each is not None:
            is_score = {each.left, each.right} <= found.keys() or (
                kind_of(each.contracted) == FEATURE
                and bool(each.rows and each.columns)
                and FEATURE not in (kind_of(each.rows), kind_of(each.keys))
            )
            found |= {each.out: each} if is_score else {}
        elif not node.macs and (origins := [found[value] for value in node.inputs if value in found]):
            origin = min(origins, key=_is_of_constant)
            found |= {value: origin for value in node.outputs if value.is_real}
    return found


def _sums_before(value: Value) -> list[Node]:
    """Return the nearest operators before a value that sum over an axis."""
    found, queue = [], [value]
    for each in queue:
        node = each.maker
        if node is None or len(queue) > NEAREST**2:
            continue
        if node.name == "sum" or (node.name in MATMULS and any(value.is_weight for value in node.inputs)):
            found.append(node)
        elif not node.macs:
            queue += node.inputs
    return found


def _quotient(total: Node, norm: Node) -> Pair | None:
    """Return the pair of a weighted sum and the same sum of its weights; None for other sums."""
    summed = [_summand(node) for node in (total, norm)]
    if total.name != norm.name or None in summed:
        return None
    weighted, weights = summed
    maker = weighted.maker if weighted else None
    if maker is None or weights is None or maker.name not in ("mul", "mul_"):
        return None
    values = [value for value in maker.inputs if not _are_exponentials(value, weights)]
    if len(values) != 1:
        return None
    is_sum = total.name == "sum"
    mixed = _reduced(total) if is_sum else weights.axes[-2]
    rows = () if is_sum else total.outputs[0].axes[-2]
    if kind_of(mixed) != TOKEN or weights.shape != values[0].shape:
        return None
    kept = tuple(atom for axis in weights.axes for atom in axis if atom not in mixed)
    return Pair(
        None, Contraction(total, weights, values[0], total.outputs[0], kept, rows, (), (), mixed), [], mixed, weights
    )


def _summand(node: Node) -> Value | None:
    """Return what an operator sums: the factor that is not a weight of a matmul."""
    if node.name == "sum":
        return next(node.inputs, None)
    left, right = operands(node)
    if left is None or right is None or not left.is_weight or right.is_weight:
        return None
    return viewed_from(right)


def _are_exponentials(one: Value, other: Value) -> bool:
    """Return whether two tensors are the exponentials of the same tensor."""
    makers = one.maker, other.maker
    if None in makers or makers[0].name not in EXPONENTIALS:  # type: ignore[union-attr]
        return False
    return one is other or (makers[0].name == makers[1].name and makers[0].args[0] is makers[1].args[0])  # type: ignore[union-attr]


def _way(before: Mapping[Value, tuple[Value, Node] | None], value: Value) -> list[Node]:
    """Return the operators that made a value from the first one, in their order."""
    found = []
    while (step := before[value]) is not None:
        value, node = step
        found.append(node)
    return found[::-1]


def _divided(way: Sequence[Node]) -> tuple[Axis, ...]:
    """Return the axes over whose sums the operators on a way divide what is summed."""
    return tuple(
        axes
        for node in way
        if node.name in ("div", "div_") and (sums := _sum_in(node)) is not None and (axes := _reduced(sums))
    )


def _sum_in(division: Node) -> Node | None:
    """Return the sum or the norm by which an operator divides, to which a constant may be added, or None."""
    value = division.args[1]
    for _ in range(NEAREST):
        if not isinstance(value, Value) or value.maker is None:
            return None
        if value.maker.name in ("sum", "norm", "linalg_vector_norm"):
            return value.maker
        value = next(value.maker.inputs, None)
    return None


def _one_for_each_sum(pairs: Iterable[Pair]) -> list[Pair]:
    """Return one pair for each weighted sum.

    Its weights may come from several products of queries and keys. Those with a constant, such as positions, are a bias
    of the others. Scores that are joined along the keys are those of more keys. Other products are added.
    """
    groups: dict[Node, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(pair.second.node, []).append(pair)
    return [_one_of(group) if len(group) > 1 else group[0] for group in groups.values()]


def _one_of(pairs: Sequence[Pair]) -> Pair:
    """Return one pair for several with the same weighted sum."""
    of_data = [pair for pair in pairs if not _is_with_constant(pair)]
    found, *others = of_data or pairs
    firsts = tuple(pair.first for pair in others if pair.first is not None)
    if is_joint(found):
        more = tuple(pair.first for pair in pairs if pair is not found and pair.first is not None)
        return replace(found, more=more)
    return replace(found, added=firsts)


def _is_with_constant(pair: Pair) -> bool:
    return pair.first is not None and _is_of_constant(pair.first)


def _is_of_constant(product: Contraction) -> bool:
    return product.left.is_constant or product.right.is_constant


def is_joint(pair: Pair) -> bool:
    """Return whether the weights of a pair are joined with others along the keys."""
    columns = pair.first.columns if pair.first else ()
    return any(atom.root.how == "cat" for atom in pair.mixed) and size_of(pair.mixed) > size_of(columns)


def _product_of(contraction: Contraction) -> Node:
    node = contraction.node
    maker = node.args[0].maker if node.name in SUMS else None
    return maker if maker is not None else node


def _reduced(node: Node) -> Axis:
    return tuple(atom for place in reduced_places(node) for atom in node.args[0].axes[place])


def softmax_axis(node: Node) -> Axis:
    """Return the axis over which a softmax normalizes."""
    value = node.args[0]
    place = node.args[1] if len(node.args) > 1 and isinstance(node.args[1], int) else -1
    return value.axes[place] if value.axes else ()


def _kept(value: Value, out: Value, node: Node, columns: frozenset[Root]) -> frozenset[Root] | None:
    """Return the columns of a result, if it still has those of an input; else None.

    An operator on two tensors of one shape keeps the Roots of the first. Those of the second are at the same places. A
    single key has no Root: then all elements must remain.
    """
    if not columns:
        return columns if prod(value.shape) == prod(out.shape) else None
    if any(atom.root.line & columns for axis in out.axes for atom in axis):
        return columns
    if node.name in RULES or value.shape != out.shape:
        return None
    places = [place for place, axis in enumerate(value.axes) if any(atom.root.line & columns for atom in axis)]
    return frozenset(atom.root for place in places for atom in out.axes[place]) or None


def _mixed(second: Contraction, value: Value, columns: frozenset[Root], rows: frozenset[Root]) -> Axis | None:
    """Return the axis of a value that a contraction sums over, if it has these columns or rows; else None."""
    if value not in (second.left, second.right):
        return None
    if second.node.name in SUMS:
        axis = _summed(value, second.node)
    elif value is second.right and len(value.axes) > 1:
        axis = value.axes[-2]
    else:
        axis = second.contracted
    if not columns:
        return () if not axis else None
    roots = roots_of(axis)
    return axis if roots & columns or roots & rows else None


def _summed(factor: Value, node: Node) -> Axis:
    """Return the axis of a factor of a product over which a sum of the product is taken."""
    places = [place - len(node.args[0].shape) for place in reduced_places(node)]
    return tuple(atom for place in places if len(factor.axes) >= -place for atom in factor.axes[place])


def values_axis(pair: Pair) -> Axis:
    """Return the axis of the values that the second contraction sums over."""
    second = pair.second
    if second.node.name in SUMS:
        return _summed(pair.values, second.node)
    if pair.weights is second.right:
        return second.left.axes[-1]
    return second.right.axes[-2] if len(second.right.axes) > 1 else second.right.axes[-1]


def _is_of_tokens(axis: Axis) -> bool:
    """Return whether the largest part of an axis counts tokens; if several are as large, one of them."""
    largest = max([atom.size for atom in axis], default=0)
    return any(atom.root.kind == TOKEN for atom in axis if atom.size == largest)


def _is_attention(pair: Pair) -> bool:
    """Return whether two contractions without a softmax between them are linear attention, or scores of tokens."""
    first = pair.first
    if pair.softmaxes or first is None:
        return True
    if not first.columns or not first.rows:
        return False
    if kind_of(first.contracted) == FEATURE:
        return kind_of(first.rows) != FEATURE and kind_of(first.keys) != FEATURE
    return kind_of(first.contracted) == TOKEN and kind_of(first.rows) == kind_of(first.keys) == FEATURE
