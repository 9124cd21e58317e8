"""Recognize attention in the flow of tensors: the scores of queries and keys, and the weighted sum that takes them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import TYPE_CHECKING, Any

from attnscope.attentions.observed import Rotation
from attnscope.core.axes import Shape
from attnscope.tracing.flow.axes import (
    BATCH,
    FEATURE,
    TABLE,
    TOKEN,
    Atom,
    Axis,
    best,
    kind_of,
    roots_of,
    size_of,
    sources_of,
)
from attnscope.tracing.flow.channels import channels_last
from attnscope.tracing.flow.contractions import MATMULS, RUNNING, Contraction
from attnscope.tracing.flow.formula import ROLES, Core
from attnscope.tracing.flow.masks import mask_of_fused, mask_of_pair, strongest
from attnscope.tracing.flow.pairs import Pair, Pairs, find_pairs, is_joint, values_axis
from attnscope.tracing.flow.places import Places, places_of, window_of
from attnscope.tracing.flow.projections import Layer, layer_of
from attnscope.tracing.flow.rearrangements import is_of_others
from attnscope.tracing.flow.record import Flow, Node, Value
from attnscope.tracing.flow.rotation import rotation_of
from attnscope.tracing.flow.rules import VIEWS, AxisRules, viewed_from
from attnscope.tracing.flow.uses import unused_among

if TYPE_CHECKING:
    from attnscope.tracing.calls import Call

NOT_PROJECTED = 12
"""The largest number of operators before q·kᵀ that are searched for the head that a loop selects."""
Consumers = Mapping[Value, Sequence[Node]]
"""The operators that take each tensor."""
SELECTED = {FEATURE: "heads", BATCH: "images"}
"""The parts of an attention that a loop computes one by one, by the kind of the axis in which it selects positions."""

NATIVE = ("_native", "_transformer")
"""The beginnings of the names of fused operators that have projections too."""
UNBATCHED = ("n", "c")
"""The axes of an input without a batch axis."""
CASTS = frozenset({"_to_copy"})
"""Operators that change the dtype alone."""
OVER_IMAGES = "q·kᵀ is over the batch axis: images attend to each other"
"""The mistake of a product that multiplies the first axis of the inputs with itself."""
STARTS = MATMULS | {"exp"}
"""Operators of which an attention without a softmax has one."""
ONE_SCORE = "the softmax is over a single score, so that its weight is always 1"
"""The mistake of a product that sums over all tokens of all channels."""


@dataclass(frozen=True)
class Attention:
    """One recognized attention.

    Args:
        kind: how it is computed: "score-softmax-value", "score-value" without a softmax, "fused", "linear", "separable",
            "predicted".
        scope: its neighbourhood: "tokens", "neighbourhood", "cross-shaped", "channel", "linear", "separable", or
            "predicted".
        tokens: number of queries of a window.
        keys: number of keys of a window; None if queries have no scores with keys.
        head_dim: channels of a head.
        places: the arrangement of the queries in heads and in the image.
        macs: MACs of both matmuls.
        layer: the attention with its projections; None if it is not recognized as a part of a layer.
        pooled: whether the keys are tokens of the queries too, but fewer, or more of them around a window.
        is_other: whether the keys surely come from another sequence than the queries, which may be as long.
        mistakes: what is likely to be a mistake in it.
        rotation: the rotary position embedding of queries and keys; None without one.
        mask: what is known of a mask of the scores: a word of `flow.masks`; None without one.
        path: the innermost module that contains it.
        projections: indices of the calls of its projections.
        first: index of the call of the score.
        last: index of the call of the weighted sum.
        core: its tensors, from which its formula follows.
    """

    kind: str
    scope: str
    tokens: int
    keys: int | None
    head_dim: int
    places: Places
    macs: int
    pooled: bool = False
    is_other: bool = False
    layer: Layer | None = None
    mistakes: tuple[str, ...] = ()
    rotation: Rotation | None = None
    mask: str | None = None
    path: str = ""
    projections: tuple[int, ...] = ()
    first: int = 0
    last: int = 0
    core: Core | None = field(default=None, compare=False, repr=False)

    @property
    def heads(self) -> int | None:
        """Return the number of heads; None if unknown."""
        return self.places.heads

    @property
    def likeness(self) -> tuple[object, ...]:
        """Return the key by which equal attentions are reported together."""
        return (
            self.kind,
            self.scope,
            self.tokens,
            self.keys,
            self.head_dim,
            self.places,
            self.pooled,
            self.is_other,
            self.mistakes,
            self.rotation,
            (self.layer.dim, self.layer.out_dim, self.layer.macs) if self.layer else None,
        )


@dataclass(frozen=True)
class Recognized:
    """The attentions of a forward in their order, and the calls of softmaxes that belong to none.

    `unused_softmaxes` are those of the latter on which no result of the forward depends, and `unused_macs` the MACs that
    are done for them alone.
    """

    attentions: list[Attention] = field(default_factory=list)
    other_softmaxes: "list[Call]" = field(default_factory=list)
    unused_softmaxes: "list[Call]" = field(default_factory=list)
    unused_macs: int = 0


def find_attention(flow: Flow, calls: "Sequence[Call]", batch: int) -> Recognized:
    """Find the attentions of a forward.

    Args:
        flow: all operators that ran.
        calls: all calls of the forward.
        batch: number of images in the input.
    """
    if not any(node.fused or "softmax" in node.name or node.name in STARTS for node in flow.nodes):
        return Recognized()
    found = _found(flow, calls, batch)
    if batch > 1 and _is_unbatched(found, flow):
        return _found(flow, calls, 1)
    return found


def _is_unbatched(found: "Recognized", flow: Flow) -> bool:
    """Return whether an attention is over the first axis of inputs, each position of which is surely a token.

    They have two axes at most, or a convolution makes one token of each, as of patches that are cut before the forward.
    """
    is_over_first = any(OVER_IMAGES in each.mistakes and each.places.windows == 1 for each in found.attentions)
    if not is_over_first:
        return False
    patches = {viewed_from(node.args[0], VIEWS | CASTS) for node in flow.history if _is_over_whole(node)}
    return all(len(value.shape) <= len(UNBATCHED) or value in patches for value in flow.first_inputs)


def _is_over_whole(node: Node) -> bool:
    """Return whether the kernel of a convolution is as large as what it is applied to, without padding."""
    return "conv" in node.name and node.args[0].shape[2:] == node.args[1].shape[2:]


def _found(flow: Flow, calls: "Sequence[Call]", batch: int) -> "Recognized":
    """Find the attentions of a forward whose batch size is known."""
    AxisRules(batch).apply(flow)
    if mixed := channels_last(flow):
        AxisRules(batch, mixed).apply(flow)
    pairs = find_pairs(flow)
    where = {id(call): index for index, call in enumerate(calls)}
    found = [
        (pair.second.node, part) for pair in pairs.found if (part := _of_pair(pair, batch, pairs.consumers)) is not None
    ]
    found += [(node, _of_fused(node, batch)) for node in flow.nodes if node.fused]
    order = {id(node): index for index, node in enumerate(flow.nodes)}
    found.sort(key=lambda each: order[id(each[0])])
    parts = [replace(part, cat=_cat_of(node.outputs[0], pairs.consumers)) for node, part in found]
    others = [node for node in pairs.others if id(node.call) in where]
    unused = unused_among(others, flow)
    return Recognized(
        [_placed(_in_layer(part, pairs), calls, where) for part in _whole(parts)],
        [node.call for node in others],
        [node.call for node in unused.softmaxes],
        unused.macs,
    )


@dataclass(frozen=True)
class _Part:
    """An attention before its calls are known, or a part of one: a slice of its queries, one head, or one window.

    `inputs` are its query, key and value, and `results` the weighted sums. `queries`, `keys`, and `channels` are the axes
    of q·kᵀ. `selected` are the positions at which the query was selected.
    `cat` is the operator that joins the result with others along their channels, before any projection. `softmaxes` are
    those of the scores.
    """

    nodes: tuple[Node, ...]
    found: Attention
    inputs: tuple[Value, ...]
    results: tuple[Value, ...]
    queries: Axis = ()
    keys: Axis = ()
    channels: Axis = ()
    selected: tuple[tuple[Axis, int], ...] = ()
    cat: Node | None = None
    softmaxes: frozenset[Node] = frozenset()


def _in_layer(part: _Part, pairs: Pairs) -> _Part:
    """Return an attention with its projections."""
    is_whole = len(part.inputs) <= len(ROLES)  # not joined from a loop over parts
    found = part.found
    if is_whole and (_are_apart(part.queries, part.keys) or _is_of_others(part)):
        found = replace(found, is_other=True, pooled=False)
    if all(node.name.startswith(NATIVE) for node in part.nodes):  # its projections are inside of the operator
        dims = part.inputs[0].shape[-1], part.results[0].shape[-1]
        return replace(part, found=replace(found, layer=Layer(*dims, macs=sum(node.macs for node in part.nodes))))
    inner = (found.heads or 1) * found.head_dim
    layer = layer_of(part.inputs, part.results, pairs.consumers, inner, found.macs)
    core = Core(part.inputs, part.results, part.nodes, pairs.consumers)
    rotation = _rotation(*part.inputs[:2]) if len(part.inputs) > 1 else found.rotation
    return replace(part, found=replace(found, layer=layer, core=core, rotation=rotation))


def _is_of_others(part: _Part) -> bool:
    """Return whether keys and values come from other images or frames than the queries.

    Where each query has keys of its own, the axis of the tokens is not among those of q·kᵀ.
    """
    if len(part.inputs) < len(ROLES):
        return False
    query, key, value = part.inputs
    return part.found.tokens > 1 and is_of_others(
        query, key, value, roots_of((*part.queries, *part.keys, *part.channels))
    )


def _rotation(query: Value, key: Value) -> Rotation | None:
    """Return the rotary position embedding of the queries, if the keys have one too."""
    found = rotation_of(query)
    return found if found and rotation_of(key) else None


def _placed(part: _Part, calls: "Sequence[Call]", where: dict[int, int]) -> Attention:
    """Return an attention with its calls."""
    indices = [where[id(node.call)] for node in part.nodes if id(node.call) in where] or [0]
    first, last = min(indices), max(indices)
    nodes = part.found.layer.nodes if part.found.layer else ()
    projections = tuple(where[id(node.call)] for node in nodes if id(node.call) in where)
    return replace(part.found, path=_around(calls, first, last), projections=projections, first=first, last=last)


def _around(calls: "Sequence[Call]", first: int, last: int) -> str:
    """Return the path of the innermost module that contains an attention."""
    ends = [calls[first].path.split("."), calls[last].path.split(".")]
    shared = 0
    while shared < min(map(len, ends)) and ends[0][shared] == ends[1][shared]:
        shared += 1
    return ".".join(ends[0][:shared])


def _of_fused(node: Node, batch: int) -> _Part:
    """Read a fused attention. Its sizes are exact; its axes tell heads and windows apart."""
    fused = node.fused
    assert fused is not None
    query, key = _query_and_key(node)
    rows, keys, channels = _axis(query, -2), _axis(key, -2), _axis(query, -1)
    outer = _outer(query, key)
    places = places_of(outer, rows, channels, batch, keys)
    is_native = node.name.startswith(NATIVE)
    heads = fused.heads if is_native or places.heads is None else places.heads
    if (heads or 0) * places.images * places.windows != fused.heads * fused.rows:  # some axes are unknown
        heads = fused.heads
        places = Places(heads, batch, fused.rows // batch if fused.rows % batch == 0 else fused.rows)
    found = Attention(
        kind="fused",
        scope="tokens",
        tokens=fused.queries,
        keys=fused.keys,
        head_dim=fused.head_dim,
        places=replace(places, heads=heads),
        macs=fused.macs,
        pooled=_are_of_queries(rows, keys),
        is_other=_are_others(rows, keys, _values_of(node), channels),
        mistakes=_mistakes(rows, keys, channels, places, ()),
        mask=mask_of_fused(node),
    )
    inputs = tuple(value for value in node.args[:3] if isinstance(value, Value))
    return _Part((node,), found, inputs, (node.outputs[0],), rows, keys, channels, _selected(query))


def _query_and_key(node: Node) -> tuple[Value, Value]:
    """Return the query and the key of a fused attention; an operator that has one input attends to itself."""
    query, key = node.args[0], node.args[1]
    return query, key if isinstance(key, Value) else query


def _values_of(node: Node) -> Axis:
    """Return the axis of the values of a fused attention that it sums over; () if it has no such argument."""
    value = node.args[2] if len(node.args) > len(("query", "key")) else None
    return _axis(value, -2) if isinstance(value, Value) else ()


def _are_of_queries(queries: Axis, keys: Axis) -> bool:
    """Return whether keys are made from the tokens of the queries, and not joined with those of another input.

    Both may be made from the same learned tokens, such as groups of different layers, without being of one sequence.
    """
    own = sources_of(queries)
    joined = [sources_of([part]) for atom in keys if atom.root.how == "cat" for part in atom.root.origin]
    has_others = any(part.isdisjoint(own) and all(root.how == "input" for root in part) for part in joined)
    themselves = {atom.root for atom in (*queries, *keys)}
    shared = roots_of(queries) & roots_of(keys)
    return any(root.kind != TABLE or root in themselves for root in shared) and not has_others


def _are_others(queries: Axis, keys: Axis, values: Axis, channels: Axis) -> bool:
    """Return whether keys and values come from one input, and queries from another one, or from learned tokens.

    Queries that are given, not projected, may be of the same tokens.
    """
    rows, columns = sources_of(queries), sources_of(keys)
    return (
        bool(rows and columns)
        and columns == sources_of(values)
        and rows.isdisjoint(columns)
        and all(root.how == "input" for root in columns)
        and all(root.how == "input" or root.kind == TABLE for root in rows)
        and not any(root.how == "input" for root in sources_of(channels))
    )


def _are_apart(one: Axis, other: Axis) -> bool:
    """Return whether two axes are slices of one axis that have no position in common."""
    if len(one) != 1 or len(other) != 1:
        return False
    slices = sorted([one[0], other[0]], key=lambda atom: atom.root.start)
    first, second = (atom.root for atom in slices)
    are_whole = all(atom.size == atom.root.size and atom.root.how == "slice" for atom in slices)
    return are_whole and first.origin == second.origin and first.start + first.size <= second.start


def _axis(value: Value, place: int) -> Axis:
    """Return an axis counted from the last one; () if the sizes of the tensor are unknown."""
    return value.axes[place] if len(value.axes) >= -place else ()


def _outer(query: Value, key: Value) -> Axis:
    """Return the axes before the last two, which queries and keys share."""
    both = sorted([value.axes[:-2] for value in (query, key)], key=len, reverse=True)
    longest = max(map(len, both), default=0)
    return tuple(
        atom
        for place in range(-longest, 0)
        for atom in best(_largest([axes[place] for axes in both if len(axes) >= -place]))
    )


def _largest(axes: list[Axis]) -> list[Axis]:
    most = max(map(size_of, axes), default=1)
    return [axis for axis in axes if size_of(axis) == most]


def _of_pair(pair: Pair, batch: int, consumers: Consumers) -> _Part | None:
    """Read an attention from its two contractions; return None for any other pair."""
    first, second = pair.first, pair.second
    if first is None:
        is_one = kind_of(second.rows) != TOKEN and _is_shared(pair, consumers)
        return _separable(pair, batch) if is_one else _predicted(pair, batch)
    if _is_over_tokens(first):
        return _over_channels(pair, batch) if pair.softmaxes else _linear(pair, batch)
    queries, keys, compared = first.rows, first.keys, first.columns
    mixed = roots_of(pair.mixed) if not pair.is_composed else roots_of(first.columns)
    if mixed & roots_of(first.rows) and not mixed & {atom.root for atom in first.columns}:
        queries, keys, compared = keys, queries, first.rows  # k·qᵀ
    shared = (
        () if _are_features(queries, keys) else tuple(atom for atom in queries if atom.root.kind == FEATURE)
    )  # they share their keys
    queries = tuple(atom for atom in queries if atom not in shared)
    places = places_of((*first.batch, *shared), queries, first.contracted, batch, keys)
    scope, count = "tokens", size_of(pair.mixed if is_joint(pair) else keys)
    tokens = size_of(queries)
    if any(atom.root.how == "top" for atom in pair.mixed):
        scope, count = "selected", size_of(pair.mixed)
    if tokens == 1 and places.windows > 1 and any(atom.root.how in ("window", "gather") for atom in keys):
        scope, tokens = "neighbourhood", places.windows
        places = replace(places, windows=1, sides=None, grid=False)
    found = Attention(
        kind="score-softmax-value" if pair.softmaxes else "score-value",
        scope=scope,
        tokens=tokens,
        keys=count,
        head_dim=size_of(first.contracted),
        places=places,
        macs=pair.macs,
        pooled=_are_of_queries(queries, keys),
        is_other=_are_others(queries, keys, values_axis(pair), first.contracted),
        mistakes=_mistakes(queries, keys, first.contracted, places, _wrong_axes(pair, queries, compared)),
        mask=mask_of_pair(pair, consumers) if scope == "tokens" else None,
    )
    if pair.is_reused:
        found = replace(found, rotation=_rotation(first.left, first.right))
        own = (pair.softmaxes[0][0], second.node)
        return _Part(own, found, (pair.values,), (second.out,), queries, keys, first.contracted)
    firsts = (first, *pair.more)
    inputs = tuple(value for each in firsts for value in (each.left, each.right, pair.values))
    nodes, results = (*(each.node for each in firsts), second.node), (second.out,)
    softmaxes = frozenset(node for node, _ in pair.softmaxes)
    selected = _selected(first.left)
    return _Part(nodes, found, inputs, results, queries, keys, first.contracted, selected, softmaxes=softmaxes)


def _over_channels(pair: Pair, batch: int) -> _Part:
    """Read attention over channels: q·kᵀ sums over tokens, so that channels have scores with channels."""
    first, second = pair.first, pair.second
    assert first is not None
    groups = [atom for atom in first.batch if atom.root.kind == FEATURE]
    places = places_of(first.batch, first.contracted, (), batch)
    found = Attention(
        kind="score-softmax-value",
        scope="channel",
        tokens=size_of(first.contracted),
        keys=None,
        head_dim=size_of(first.rows),
        places=replace(places, heads=size_of(groups)),
        macs=pair.macs,
        mistakes=() if first.columns else (ONE_SCORE,),
    )
    return _Part((first.node, second.node), found, (first.left, first.right, pair.values), (second.out,))


def _linear(pair: Pair, batch: int) -> _Part | None:
    """Read linear attention: kᵀ·v first, then the product with the queries, without scores of tokens with tokens."""
    first, second = pair.first, pair.second
    assert first is not None
    if not roots_of(second.batch) & roots_of(first.batch) and first.batch:
        return None
    is_causal = first.node.name in RUNNING
    queries = first.contracted if is_causal else second.rows if kind_of(second.rows) == TOKEN else second.keys
    if kind_of(queries) != TOKEN:
        return None
    shared = tuple(atom for atom in second.batch if not is_causal or atom not in queries)
    places = places_of(shared, queries, pair.mixed, batch)
    found = Attention(
        kind="linear",
        scope="causal" if is_causal else "linear",
        tokens=size_of(queries),
        keys=None,
        head_dim=size_of(pair.mixed),
        places=places,
        macs=pair.macs,
    )
    return _Part((first.node, second.node), found, (pair.values, first.left, first.right), (second.out,))


def _predicted(pair: Pair, batch: int) -> _Part | None:
    """Read a weighted sum of data whose weights are a softmax, but not one of scores: outlook, pooling, deformable."""
    second = pair.second
    if kind_of(pair.mixed) == BATCH:
        return None
    queries, channels = second.rows, second.keys
    if pair.weights is second.right:
        queries, channels = channels, queries
    places = places_of(second.batch, queries, channels, batch)
    tokens = size_of(queries) * places.windows
    found = Attention(
        kind="predicted",
        scope="predicted",
        tokens=tokens,
        keys=size_of(pair.mixed),
        head_dim=size_of(channels),
        places=replace(places, windows=1, sides=None, grid=False),
        macs=pair.macs,
    )
    return _Part((second.node,), found, (pair.values,), (second.out,))


def _is_shared(pair: Pair, consumers: Consumers) -> bool:
    """Return whether all tokens over which a weighted sum was taken are multiplied by that sum."""
    tokens, results = roots_of(pair.mixed), [pair.second.out]
    for result in results:
        for node in consumers.get(result, ()):
            if node.name in ("mul", "mul_"):
                return any(atom.root in tokens for value in node.inputs for axis in value.axes for atom in axis)
            if not node.macs and len(results) < NOT_PROJECTED:
                results += node.outputs
    return False


def _separable(pair: Pair, batch: int) -> _Part:
    """Read separable attention: one score for each token, and a weighted sum of keys that multiplies all values."""
    second = pair.second
    summed = tuple(atom for atom in pair.mixed if atom.root.kind == TOKEN)
    groups = tuple(atom for atom in second.batch if atom.root.kind == TOKEN)
    channels = tuple(atom for atom in (*second.rows, *second.keys) if atom.root.kind == FEATURE)
    scored = tuple(atom for atom in second.batch if atom.root.kind == FEATURE)  # channels with scores of their own
    places = places_of(second.batch, summed, channels, batch)
    found = Attention(
        kind="separable",
        scope="separable",
        tokens=size_of(pair.mixed) * size_of(groups),
        keys=None,
        head_dim=size_of(channels),
        places=replace(
            places, heads=size_of(scored), windows=1, sides=window_of(groups, summed)[0] or (1, 1), grid=False
        ),
        macs=pair.macs,
    )
    return _Part((second.node,), found, (pair.values,), (second.out,))


def _is_over_tokens(first: Contraction) -> bool:
    """Return whether a product of two tensors sums over tokens, so that its result has channels in both axes."""
    if kind_of(first.contracted) != FEATURE and kind_of(first.rows) == FEATURE == kind_of(first.keys):
        return True
    channels, tokens = (
        {_place_in_input(atom) for atom in axis} for axis in ((*first.rows, *first.keys), first.contracted)
    )
    if not first.rows and not first.keys:  # a single channel, or tokens of a single image in the place of channels
        return tokens in ({None}, {2, 3}) and all(atom.root.kind == TOKEN for atom in first.contracted)
    # an input of images, whose second axis has the channels; the sum is over its height and width
    return channels == {1} and tokens == {2, 3}


def _place_in_input(atom: Atom) -> int | None:
    return atom.root.start if atom.root.how == "input" else None


def _wrong_axes(pair: Pair, queries: Axis, compared: Axis) -> tuple[str, ...]:
    """Return what the softmaxes normalize over, if none is over the keys, which are `compared` with the queries."""
    axes = [axis for _, axis in pair.softmaxes if axis]
    keys = {atom.root for atom in compared}
    if not axes or any(roots_of(axis) & keys for axis in (*axes, *pair.divided)):
        return ()
    axis = axes[0]
    if kind_of(axis) == FEATURE:
        return ("heads",)
    if kind_of(axis) == BATCH:
        return ("the batch",)
    return ("the queries",) if roots_of(axis) & roots_of(queries) else ()


def _are_features(queries: Axis, keys: Axis) -> bool:
    """Return whether queries and keys are only features, such as the heads of a token."""
    return bool(queries and keys) and all(atom.root.kind == FEATURE for atom in (*queries, *keys))


def _are_heads(queries: Axis, keys: Axis, channels: Axis) -> bool:
    """Return whether queries and keys are the heads of a token, since no axis was transposed before q·kᵀ.

    Heads are a part of the axis that has the channels of a head too. Tokens that a product with learned queries made, as
    features of their channels, are not.
    """
    return _are_features(queries, keys) and bool(roots_of(queries) & roots_of(channels))


def _mistakes(rows: Axis, keys: Axis, channels: Axis, places: Places, normalized: tuple[str, ...]) -> tuple[str, ...]:
    """Return the sentences about what is likely to be a mistake."""
    found = [f"the softmax is over {axis}, not over the keys" for axis in normalized]
    if _are_heads(rows, keys, channels):
        found.append("q·kᵀ is over the heads: the heads of a token attend to each other")
    if _is_mixed(rows) and _is_mixed(keys):
        found.append("a view mixes tokens and channels before q·kᵀ; transpose the axes of heads and tokens instead")
    if any(atom.root.kind == BATCH for atom in rows) and not places.sequence_first:
        found.append(OVER_IMAGES)
    return tuple(found)


def _is_mixed(axis: Axis) -> bool:
    """Return whether a view made an axis of tokens and channels together."""
    return any({TOKEN, FEATURE} <= {atom.root.kind for atom in each.root.origin} for each in axis if not each.root.how)


def _selected(value: Value) -> tuple[tuple[Axis, int], ...]:
    """Return the axes and positions at which a query was selected before q·kᵀ, the nearest first."""
    found = []
    for _ in range(NOT_PROJECTED):
        maker = value.maker
        if maker is None or not maker.args or not isinstance(maker.args[0], Value):
            break
        if maker.name == "select":
            source, place, index = maker.args[:3]
            found.append((source.axes[place], index))
        elif maker.name == "unbind":
            place = maker.args[1] if len(maker.args) > 1 else 0
            found.append((maker.args[0].axes[place], maker.outputs.index(value)))
        elif maker.name == "convolution" or maker.name in MATMULS:
            break
        value = maker.args[0]
    return tuple(found)


def _cat_of(result: Value, consumers: Consumers) -> Node | None:
    """Return the operator that joins a result with others along their channels; None if it is projected first."""
    for _ in range(NOT_PROJECTED):
        for node in consumers.get(result, ()):
            if node.name == "cat":
                place = node.args[1] if len(node.args) > 1 else 0
                return node if result.axes and kind_of(result.axes[place]) == FEATURE else None
        same = [node for node in consumers.get(result, ()) if prod(node.outputs[0].shape) == prod(result.shape)]
        kept = [node.outputs[0] for node in same if not node.macs]
        if not kept:
            return None
        result = kept[0]
    return None


def _whole(parts: Sequence[_Part]) -> Sequence[_Part]:
    """Join the parts of an attention that loops compute: slices of its queries or keys, its heads, windows or images.

    The innermost loop is joined first; its results are the parts of the loop around it.
    """
    while len(joined := list(_runs(parts))) < len(parts):
        parts = joined
    return parts


def _runs(parts: Sequence[_Part]) -> Iterator[_Part]:
    """Join parts that follow each other in one loop."""
    run: list[_Part] = []
    for part in parts:
        step = _step(run[-1], part) if run else None
        if run and (step is None or (len(run) > 1 and step != _step(run[-2], run[-1]))):
            yield _joined(run)
            run = []
        run.append(part)
    if run:
        yield _joined(run)


def _step(one: _Part, other: _Part) -> str | None:
    """Return what the second of two parts of an attention continues with; None if they are not parts of one."""
    if one.softmaxes & other.softmaxes:
        return "scores" if _widths(one, other) or _alike(one, other, "keys", "pooled", "is_other") else None
    if _widths(one, other) is not None:
        return "stripes"
    if _moves(one.queries, other.queries) and one.keys == other.keys and _alike(one, other, "tokens"):
        return "queries"
    if one.queries == other.queries and _moves(one.keys, other.keys) and _alike(one, other, "keys"):
        return "keys"
    if one.found.likeness != other.found.likeness:
        return None
    if _moves(one.queries, other.queries) and _moves(one.keys, other.keys):
        return "windows"
    if one.inputs[:2] == other.inputs[:2]:  # the same scores weigh other values
        return "values"
    if _moves(one.channels, other.channels) or (one.cat is not None and one.cat is other.cat):
        return "heads"
    differing = [
        axis
        for (axis, index), (other_axis, other_index) in zip(one.selected, other.selected, strict=False)
        if axis == other_axis and index + 1 == other_index
    ]
    return SELECTED.get(kind_of(differing[0])) if len(differing) == 1 else None


def _alike(one: _Part, other: _Part, *but: str) -> bool:
    """Return whether two parts are alike, but for the values of these names: the last part of a loop may have fewer."""
    sizes: dict[str, Any] = dict.fromkeys(but, 0)
    return replace(one.found, **sizes).likeness == replace(other.found, **sizes).likeness


def _widths(one: _Part, other: _Part) -> Shape | None:
    """Return the widths of the vertical and the horizontal stripes of a cross, if two parts are its halves; else None.

    Each half has the same number of heads, and the stripes of one are as long as the grid in the other direction.
    """
    halves = [part.found.places for part in (one, other)]
    is_joined = (one.cat is not None and one.cat is other.cat) or bool(one.softmaxes & other.softmaxes)
    if not is_joined or halves[0].heads != halves[1].heads:
        return None
    planes = {places.plane for places in halves}
    stripes = [places.sides for places in halves]
    if len(planes) > 1 or any(sides is None or len(sides) != 2 for sides in (*planes, *stripes)):
        return None
    (height, width), (down, across) = planes.pop() or (), sorted([sides or () for sides in stripes], reverse=True)
    return (down[1], across[0]) if (down[0], across[1]) == (height, width) else None


def _moves(one: Axis, other: Axis) -> bool:
    """Return whether two axes are slices of the same axes, at other positions."""
    slices = [_slices(axis) for axis in (one, other)]
    return (
        bool(slices[0])
        and len(one) == len(other)
        and [origin for origin, _ in slices[0]] == [origin for origin, _ in slices[1]]
        and slices[0] != slices[1]
    )


def _slices(axis: Axis) -> list[tuple[Axis, int]]:
    """Return the axes and the positions of the slices in an axis."""
    return [(atom.root.origin, atom.root.start) for atom in axis if atom.root.how in ("slice", "steps")]


def _cross(one: _Part, other: _Part) -> Attention:
    """Return the attention in a vertical and a horizontal stripe, each for half of the heads, or with one softmax."""
    first, widths = one.found, _widths(one, other) or (0, 0)
    height, width = first.places.plane or (0, 0)
    is_shared = bool(one.softmaxes & other.softmaxes)
    heads = (first.heads or 1) * (1 if is_shared else 2)
    places = replace(first.places, heads=heads, windows=1, sides=widths, grid=False)
    keys = widths[0] * height + widths[1] * width - (0 if is_shared else prod(widths))
    macs = first.macs + other.found.macs
    return replace(first, scope="cross-shaped", tokens=height * width, keys=keys, places=places, macs=macs)


def _joined(run: list[_Part]) -> _Part:
    """Return the attention of which these are all parts."""
    if len(run) == 1:
        return run[0]
    step, first = _step(run[0], run[1]), run[0].found
    places, times = first.places, len(run)
    mask = strongest(part.found.mask for part in run)  # a loop may leave out the mask of blocks whose keys are all seen
    found = replace(first, macs=sum(part.found.macs for part in run), mask=mask)
    if step == "queries":
        found = replace(found, tokens=sum(part.found.tokens for part in run))
    elif step == "keys":
        found = replace(found, keys=sum(part.found.keys or 0 for part in run))
    elif step == "windows":
        sides = tuple(atom.size for atom in run[0].queries)
        is_dilated = any(atom.root.how == "steps" for atom in run[0].queries)
        found = replace(found, places=replace(places, windows=places.windows * times, sides=sides, grid=is_dilated))
    elif step == "stripes" or (step == "scores" and _widths(run[0], run[1])):
        found = _cross(*run[:2])
    elif step == "scores":
        keys = sum(part.found.keys or 0 for part in run)
        is_other = all(part.found.is_other for part in run)
        found = replace(found, keys=keys, pooled=any(part.found.pooled for part in run), is_other=is_other)
    elif step == "images":
        found = replace(found, places=replace(places, images=places.images * times))
    elif step != "values":
        found = replace(found, places=replace(places, heads=(first.heads or 1) * times))
    return replace(
        run[0],
        nodes=tuple(node for part in run for node in part.nodes),
        inputs=tuple(value for part in run for value in part.inputs),
        results=tuple(value for part in run for value in part.results),
        found=found,
    )
