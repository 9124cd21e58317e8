"""Build the entries of a TraceReport for the attentions found in a module, with their shares of the whole."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, NamedTuple

from attnscope.attentions.complexity import GRID, WINDOWED, Term
from attnscope.attentions.observed import LINEAR, NEIGHBOURHOOD, TOKENS, Observed
from attnscope.attentions.spec import Spec
from attnscope.core.axes import Shape, spell
from attnscope.core.interval import Interval
from attnscope.core.neighbourhood import AllTokens, Neighbourhood, OtherSequence
from attnscope.core.sizes import plural
from attnscope.profiling.intervals import paired_interval
from attnscope.reports.report import AttentionFound, Family, Formula, StepTime, Time
from attnscope.reports.report import Neighbourhood as NeighbourhoodFigures
from attnscope.tracing.calls import Call
from attnscope.tracing.families import family_of
from attnscope.tracing.flow.formula import Inside, Sizes, mixes_heads, written
from attnscope.tracing.flow.masks import CAUSAL
from attnscope.tracing.flow.record import Node
from attnscope.tracing.recognition import Attention
from attnscope.tracing.times import CallTimes


class Cost(NamedTuple):
    """MACs and seconds of some calls, and their shares of the whole; None if unknown."""

    macs: int
    macs_share: float | None
    seconds: float | None
    time_share: float | None
    time_shares: Interval | None = None
    """The interval of `time_share`, from its value in each run."""


@dataclass(frozen=True)
class Forward:
    """All calls of a forward, and their times if they were measured."""

    calls: Sequence[Call]
    times: CallTimes
    whole: Time | None

    @cached_property
    def macs(self) -> int:
        """Return the MACs of all calls that have a formula."""
        return sum(call.macs for call in self.calls)

    def share(self, macs: int) -> float | None:
        """Return the given MACs as a fraction of all MACs of the forward; None if it has none."""
        return macs / self.macs if self.macs else None

    def cost(self, indices: Iterable[int]) -> Cost:
        """Return the cost of the calls at these indices together."""
        indices = list(indices)
        macs = sum(self.calls[index].macs for index in indices)
        if self.whole is None:
            return Cost(macs, self.share(macs), None, None)
        time = self.times.of(indices)
        seconds = time.interquartile_mean_s if time else 0.0
        return Cost(macs, self.share(macs), seconds, self.whole.share_of_steps(seconds), self._shares(time))

    def _shares(self, time: StepTime | None) -> Interval | None:
        """Return the interval of the fraction of the time of all calls; None if it is unknown."""
        together = self.times.of(range(len(self.calls)))
        if time is None or together is None or not all(together.samples_s):
            return None
        found = paired_interval([one / run for one, run in zip(time.samples_s, together.samples_s, strict=True)])
        return found and found.including(time.interquartile_mean_s / together.interquartile_mean_s)

    def inside(self, paths: Iterable[str]) -> list[int]:
        """Return the indices of the calls inside the modules at these paths; the path "" is the whole module."""
        return sorted({index for path in paths for index in self._below.get(path, ())})

    def macs_inside(self, path: str) -> int:
        """Return the MACs of the calls inside the module at a path."""
        if path not in self._macs_below:
            self._macs_below[path] = sum(self.calls[index].macs for index in self._below.get(path, ()))
        return self._macs_below[path]

    @cached_property
    def _macs_below(self) -> dict[str, int]:
        return {}

    @cached_property
    def _below(self) -> dict[str, list[int]]:
        """Return the indices of the calls inside each module, by its path."""
        below: dict[str, list[int]] = {"": list(range(len(self.calls)))}
        for index, call in enumerate(self.calls):
            path = call.path
            while path:
                below.setdefault(path, []).append(index)
                path = path.rpartition(".")[0]
        return below


def attentions_found(attentions: Sequence[Attention], forward: Forward) -> list[AttentionFound]:
    """Return one entry for each group of equal attentions in modules of equal MACs, with their shares of the whole."""
    kinds: dict[object, list[Attention]] = {}
    for attention in attentions:
        module = forward.macs_inside(attention.path)
        kinds.setdefault((attention.likeness, mask_of(attention), module), []).append(attention)
    return [_found(equal, forward) for equal in kinds.values()]


def _found(equal: Sequence[Attention], forward: Forward) -> AttentionFound:
    """Build the entry of a group of equal attentions."""
    first = equal[0]
    neighbourhood = neighbourhood_of(first)
    spec, is_whole = _family(first, forward)
    core_macs = sum(one.macs for one in equal)
    core = forward.cost({index for one in equal for index in range(one.first, one.last + 1)})
    around = forward.cost(forward.inside({one.path for one in equal}))
    # a single call may compute more than attention, such as projections
    does_more = core.macs != core_macs and first.first == first.last
    return AttentionFound(
        path=first.path,
        kind=first.kind,
        times=len(equal),
        tokens=first.tokens,
        keys=first.keys,
        heads=first.heads,
        head_dim=first.head_dim,
        scope=neighbourhood.kind,
        windows=first.places.windows,
        window=first.places.sides if first.places.windows > 1 else None,
        core_macs=core_macs,
        core_macs_share=forward.share(core_macs),
        core_s=None if does_more else core.seconds,
        core_time_share=None if does_more else core.time_share,
        core_time_shares=None if does_more else core.time_shares,
        module_macs=around.macs,
        module_macs_share=around.macs_share,
        module_s=around.seconds,
        module_time_share=around.time_share,
        module_time_shares=around.time_shares,
        complexity=_complexity(spec, first, forward, is_whole),
        family=Family(spec.name, spec.command(batch=1), spec.neighbourhood.describe()) if spec and is_whole else None,
        neighbourhood=NeighbourhoodFigures.of(neighbourhood),
        mistakes=list(first.mistakes),
        is_rotated=first.rotation is not None,
        mask=mask_of(first),
    )


def mask_of(attention: Attention) -> str | None:
    """Return what is known of a mask that hides keys of a query, beside that of shifted or padded windows."""
    return attention.mask if attention.places.windows == 1 or attention.mask == CAUSAL else None


@dataclass(frozen=True, slots=True)
class Groups(Neighbourhood):
    """Windows of tokens, each with its own keys, at unknown positions on the grid.

    Args:
        count: number of windows of one image.
        size: number of tokens of a window.
        own_keys: number of keys of a window; it differs from `size` if keys are added or pooled.
        sides: sizes of a window along each axis of the image; None if unknown.
        more: number of tokens of a window that are not from the image, such as registers.
        is_other: whether the keys of a window are not its own tokens.
    """

    kind: ClassVar[str] = "windowed"
    noun: ClassVar[str] = "windows"

    count: int
    size: int
    own_keys: int
    sides: Shape | None
    more: int = 0
    is_other: bool = False

    def describe(self, sized: bool = True) -> str:
        """Return `64 windows of 7×7`, or `64 windows of 49 tokens, window unknown` if the sides are unknown."""
        sides = self.sides or ()
        size = spell(sides) if len(sides) > 1 else plural(self.size, "token") + ("" if sides else ", window unknown")
        size += f" and {plural(self.more, 'more token')}" if self.more and len(sides) > 1 else ""
        size += ", keys of another sequence" if self.is_other else ""
        return f"{self.count} {self.noun} of {size}" if sized else f"{self.count} {self.noun}"

    @property
    def tokens(self) -> int:
        """Return the number of tokens in all windows of one image."""
        return self.count * self.size

    @property
    def keys(self) -> int:
        """Return the number of keys of a query, which are those of its window."""
        return self.own_keys


class DilatedGroups(Groups):
    """Windows of tokens at a regular distance, so that each spans the image: MaxViT's grid attention."""

    __slots__ = ()
    kind: ClassVar[str] = "grid"
    noun: ClassVar[str] = "dilated windows"


class Described:
    """A description that is the same for all sizes."""

    __slots__ = ()
    words: ClassVar[str]

    def describe(self, sized: bool = True) -> str:
        """Return the words for the keys."""
        return self.words


class OtherKeys(Described, OtherSequence):
    """Keys that are not the tokens of the queries, but another sequence."""

    __slots__ = ()
    words: ClassVar[str] = "all keys"


class PooledKeys(Described, OtherSequence):
    """Keys that come from the tokens of the queries, but are fewer or more: pooled, sub-sampled, or with others added."""

    __slots__ = ()
    kind: ClassVar[str] = "reduced"
    words: ClassVar[str] = "keys made from the same tokens"


class Surroundings(Described, OtherSequence):
    """The tokens around each query: neighbourhood attention."""

    __slots__ = ()
    kind: ClassVar[str] = "neighbourhood"
    words: ClassVar[str] = "each token's own neighbourhood"


class Selected(Described, OtherSequence):
    """The keys with the highest scores of each query, whose values are summed."""

    __slots__ = ()
    kind: ClassVar[str] = "selected"
    words: ClassVar[str] = "keys with the highest scores"


class Cross(Described, OtherSequence):
    """The vertical and the horizontal stripe through each query, for half of the heads each: cross-shaped windows."""

    __slots__ = ()
    kind: ClassVar[str] = "cross-shaped"
    words: ClassVar[str] = "cross of stripes"


class PredictedWeights(Described, OtherSequence):
    """Values whose weights are a softmax of a projection, without q·kᵀ: outlook, deformable and pooling attention."""

    __slots__ = ()
    kind: ClassVar[str] = "predicted"
    words: ClassVar[str] = "weights predicted without q·kᵀ"


@dataclass(frozen=True, slots=True)
class Unscored(Described, Neighbourhood):
    """Tokens that have no scores with tokens."""

    count: int

    @property
    def tokens(self) -> int:
        """Return the number of queries of one image."""
        return self.count

    @property
    def keys(self) -> None:
        """Return None, since no query has scores with keys."""
        return None


class Channels(Unscored):
    """Scores of channels with channels, over all tokens: cross-covariance and channel attention (El-Nouby et al. 2021)."""

    __slots__ = ()
    kind: ClassVar[str] = "channel"
    words: ClassVar[str] = "attention over channels"


class Separable(Unscored):
    """One score for each token, and a weighted sum that multiplies all tokens (Mehta and Rastegari 2022)."""

    __slots__ = ()
    kind: ClassVar[str] = "linear"
    words: ClassVar[str] = "separable attention, one score for each token"


class Linear(Unscored):
    """The product kᵀ·v of all tokens, which each query multiplies: linear attention (Katharopoulos et al. 2020)."""

    __slots__ = ()
    kind: ClassVar[str] = "linear"
    words: ClassVar[str] = "linear attention, q·(kᵀ·v)"


class CausalLinear(Linear):
    """The sums of kᵀ·v of all tokens up to each one, which its query multiplies: causal linear attention."""

    __slots__ = ()
    words: ClassVar[str] = "causal linear attention, q·(cumulative sum of kᵀ·v)"


AROUND = {"neighbourhood": Surroundings, "selected": Selected, "cross-shaped": Cross, "predicted": PredictedWeights}
"""The neighbourhoods of attentions whose queries have keys of their own, by their scope."""
UNSCORED = {"channel": Channels, "linear": Linear, "causal": CausalLinear, "separable": Separable}
"""The neighbourhoods of attentions without scores of tokens with tokens, by their scope."""


def neighbourhood_of(attention: Attention) -> Neighbourhood:
    """Return the neighbourhood that a query of a recognized attention attends to."""
    windows, tokens, keys = attention.places.windows, attention.tokens, attention.keys
    if keys is None:
        return UNSCORED[attention.scope](windows * tokens)
    if attention.scope in AROUND:
        return AROUND[attention.scope](tokens, keys)
    if windows > 1:
        places = attention.places
        kind = DilatedGroups if places.grid else Groups
        return kind(windows, tokens, keys, places.sides, places.more, attention.is_other)
    if tokens == keys and not attention.is_other:
        return AllTokens(tokens)
    return (PooledKeys if attention.pooled else OtherKeys)(tokens, keys)


def _family(attention: Attention, forward: Forward) -> tuple[Spec | None, bool]:
    """Return the Spec with the sizes and the MACs of an attention, and whether it has all MACs of the module around."""
    seen = observed(attention)
    if seen is None or attention.layer is None or mask_of(attention):
        return None, False  # no family hides keys
    seen = replace(seen, is_biased=_is_biased(attention, forward))
    module = forward.inside([attention.path])
    layer = {*module, *attention.projections}
    totals = [sum(forward.calls[index].macs for index in indices) for indices in (module, layer)]
    found = family_of(seen, [*totals, attention.layer.macs])
    if found and attention.core and mixes_heads(attention.core, seen.heads):
        return None, False  # no family has layers between heads, whose MACs may be those of something else
    return (found[0], found[1] < len(totals)) if found else (None, False)


def _is_biased(attention: Attention, forward: Forward) -> bool:
    """Return whether a call between q·kᵀ and the weighted sum adds something to the scores, or a fused one takes a mask."""
    score, *others = forward.calls[attention.first : attention.last + 1]
    if not others:
        return len(score.inputs) > 3
    return any("add" in call.name.rpartition(".")[2] and call.macs == 0 for call in others)


def observed(attention: Attention) -> Observed | None:
    """Return the sizes of an attention from which the Spec of its family follows; None if it may have no family."""
    layer, places = attention.layer, attention.places
    if layer is None or not attention.heads or attention.mistakes or 0 in (places.images, attention.tokens):
        return None
    return Observed(
        scope=attention.scope,
        images=places.images,
        windows=places.windows,
        tokens=attention.tokens,
        keys=attention.keys,
        heads=attention.heads,
        dim=layer.dim,
        inner_dim=attention.heads * attention.head_dim,
        out_dim=layer.out_dim,
        sides=places.plane,
        window=None if places.more else places.sides,
        is_dilated=places.grid,
        key_sides=places.key_plane,
        is_other=attention.is_other or (not attention.pooled and attention.tokens != attention.keys),
        rotation=attention.rotation,
    )


def _complexity(spec: Spec | None, attention: Attention, forward: Forward, is_whole: bool) -> list[Formula]:
    """Return the formulas with all MACs of the module; or else those of the attention in it.

    A formula of a family takes precedence over one that is written from the layers.
    """
    if spec and is_whole:
        return _family_complexity(spec)
    formulas, has_all = _written_complexity(attention, forward)
    return _family_complexity(spec) if spec and not has_all else formulas


def _family_complexity(spec: Spec) -> list[Formula]:
    """Return the formulas of a family for the batch: that of global attention on the same tokens, and its own."""
    found = spec.complexity()
    terms = [found.own] if spec.neighbourhood.kind == OtherSequence.kind else [found.reference, found.own]
    return [Formula.of(term.name, term.cost) for term in dict.fromkeys(each.of_batch(found.batch) for each in terms)]


def _written_complexity(attention: Attention, forward: Forward) -> tuple[list[Formula], bool]:
    """Return the formulas of an attention for the batch, if its operators have letters, and whether they are all.

    They are those of global attention with the same channels, and its own. They have the MACs of the module, or else of
    the attention with the projections around it.
    """
    seen = observed(attention)
    if seen is None or seen.scope not in NAMES or attention.core is None:
        return [], False
    is_linear = seen.keys is None
    is_own = seen.windows > 1 and seen.tokens == seen.keys
    sizes = Sizes(
        images=seen.images,
        heads=seen.heads,
        head_dim=attention.head_dim,
        queries=seen.windows * seen.tokens,
        keys=attention.head_dim if seen.keys is None else seen.keys,
        window=(seen.window if seen.window and len(seen.window) > 1 else seen.tokens) if is_own else None,
        padding=attention.places.padding if seen.windows > 1 else 0,
        is_other=seen.is_other and not is_linear,
        is_linear=is_linear,
    )
    module = forward.cost(forward.inside([attention.path])).macs
    in_module = written(attention.core, sizes, _inside(attention.path))
    found = in_module if in_module and in_module[1] == module else written(attention.core, sizes, lambda node: True)
    if found is None:
        return [], False
    formulas, macs = found
    name = OWN if formulas.is_pooled else NAMES[seen.scope][neighbourhood_of(attention).kind]
    terms = [Term(GLOBAL, formulas.reference), Term(name, formulas.own)]
    terms = terms[1:] if sizes.is_other or name == GLOBAL else terms
    own = [Formula.of(term.name, term.cost) for term in (each.of_batch(seen.images) for each in terms)]
    return own, macs == module


GLOBAL, OWN = "Ω(MSA)", "Ω(own)"
NAMES = {
    TOKENS: {
        "global": GLOBAL,
        "windowed": WINDOWED,
        "grid": GRID,
        "reduced": OWN,
        "cross": "Ω(cross)",
    },
    NEIGHBOURHOOD: {"neighbourhood": "Ω(NA)"},
    LINEAR: {"linear": "Ω(linear)"},
}
"""Names of the formulas, by the scope and the kind of the neighbourhood."""


def _inside(path: str) -> Inside:
    """Return a function for whether an operator ran inside of the module at a path."""

    def inside(node: Node) -> bool:
        ran = node.call.path if node.call else ""
        return not path or ran == path or ran.startswith(f"{path}.")

    return inside
