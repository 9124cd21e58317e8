"""Neighbourhoods: against the weights of real attentions, in words, and for other families of attention."""

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

import attnscope
from attnscope import CrossSpec, SwinNetworkSpec, SwinSpec, ViTNetworkSpec, ViTSpec, attentions
from attnscope.analyses.comparison import compare
from attnscope.analyses.crossovers import crossover
from attnscope.attentions.complexity import Complexity, Term, global_attention, growth
from attnscope.core.formula import symbol
from attnscope.core.neighbourhood import AllTokens, Neighbourhood, OtherSequence, widen
from attnscope.core.windows import Windows
from attnscope.render import render
from attnscope.render.compare import render_comparison
from attnscope.render.screen import Screen
from attnscope.reports.report import Neighbourhood as Figures
from tests.golden import timed
from tests.strategies import specs

# neighbourhoods against the weights of real attentions


class Weights(TorchDispatchMode):
    """A dispatch mode that keeps the outputs of softmax."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._softmax.default:
            self.found = result
        return result


def weights_of(spec):
    """Return the weights of one head of the first image: (windows, queries, keys)."""
    module = attentions.build(spec).eval()
    seen = Weights()
    with torch.no_grad(), seen:
        module(*(torch.randn(shape) for shape in spec.input_shapes))
    return seen.found.reshape(spec.batch, -1, spec.heads, *seen.found.shape[-2:])[0, :, 0]


def places_of(spec):
    """Return the padded grid, and the token of each row of the weights: (windows, queries)."""
    if not isinstance(spec, SwinSpec):
        tokens = spec.input_shape[1]
        return (tokens,), torch.arange(tokens)[None]
    (r, s), (p, q) = spec.windows.counts, spec.window
    grid = torch.arange(r * p * s * q).view(1, r * p, s * q, 1)
    rolled = grid.roll([-side for side in spec.windows.roll], (1, 2))
    return (r * p, s * q), attnscope.window_partition(rolled, spec.window).flatten(1)


@given(specs(kernels=("eager",)))
@example(SwinSpec(dim=2, heads=1, resolution=(5, 9), window=(3, 4), shift=True))
@example(SwinSpec(dim=2, heads=1, resolution=(2, 9), window=(3, 4), shift=True))
def test_a_query_attends_to_the_keys_of_its_neighbourhood(spec):
    """For every query, padding included, exactly the keys in reach have a weight."""
    look, weights, (sides, places) = spec.neighbourhood, weights_of(spec), places_of(spec)
    windows, queries, keys = weights.shape
    assert (windows * queries, keys) == (look.tokens, look.keys)
    assert look.tokens - look.padding_tokens == math.prod(spec.input_shape[1:-1])
    reach = [look.reach(axis, side) for axis, side in enumerate(sides)]
    for window, row in zip(places.tolist(), weights, strict=True):
        ids = window if isinstance(spec, SwinSpec) else range(keys)
        for query, weight in zip(window, row.tolist(), strict=True):
            attended = {key for key, each in zip(ids, weight, strict=True) if each > 0}
            place = (query,) if len(sides) == 1 else divmod(query, sides[1])
            spans = [reach[axis][at] for axis, at in enumerate(place)]
            wide = sides[1] if len(sides) == 2 else 0
            expected = {y * wide + x for y in spans[0] for x in spans[1]} if wide else set(spans[0])
            assert attended == expected


@given(specs())
def test_waste_is_the_share_of_padding(spec):
    look = spec.neighbourhood
    real = math.prod(spec.input_shape[1:-1])
    assert look.waste == 1 - real / look.tokens
    assert bool(look.waste) == (look.padding_tokens > 0)
    side = math.lcm(*look.alignment)
    assert spec.of_size(side).neighbourhood.waste == 0


@given(specs())
def test_the_complexity_has_terms_of_this_and_of_global_attention(spec):
    own = {**spec.closed_form()}
    own.pop("bias_mlp", None)  # runs once for all images and is not in the paper's formula
    complexity = spec.complexity()
    assert complexity.own_macs == sum(own.values())
    assert (complexity.own is complexity.reference) == (spec.neighbourhood.kind == "global")


# each Spec builds its geometry once


def test_a_spec_has_one_geometry():
    spec = SwinSpec(shift=True)
    assert spec.windows is spec.windows is spec.neighbourhood
    assert spec == SwinSpec(shift=True)
    assert hash(spec) == hash(SwinSpec(shift=True))
    assert "windows" not in spec.as_dict()
    network = SwinNetworkSpec()
    assert network.attention_of(network.stages[2], 4) is network.attention_of(network.stages[2], 0)


# neighbourhoods in words

PLAIN = {
    "vit": ViTSpec(dim=12, heads=3, tokens=50),
    "vit-sdpa": ViTSpec(dim=12, heads=3, tokens=50, kernel="sdpa"),
    "vit-model": ViTNetworkSpec(dim=12, heads=3, depth=2),
    "vit-block": ViTNetworkSpec(dim=12, heads=3, scope="block"),
    "cross": CrossSpec(dim=12, heads=3),
}
KEPT = ('"windowed_macs"', '"windowed_s"')
"""Deprecated keys of schema 1, which stay for one release."""


@pytest.mark.parametrize("form", ["table", "md", "csv", "json"])
@pytest.mark.parametrize("name", PLAIN)
def test_a_report_without_windows_does_not_mention_windows(name, form):
    report = attnscope.explore(PLAIN[name], budget=0.01, device="cpu", backward=True)
    report = dataclasses.replace(report, next=("", ""))  # the suggested command is about another attention
    assert "window" not in without(KEPT, render(report, form, Screen(quiet=True))).lower()


@pytest.mark.parametrize("form", ["table", "md", "csv", "json"])
@pytest.mark.parametrize("quantity", ["macs", "peak"])
def test_a_comparison_without_windows_does_not_mention_windows(form, quantity):
    compared = compare(("vit", "cross", "vit:kv_heads=1"), quantity=quantity)
    assert "window" not in render_comparison(compared, form, Screen(quiet=True)).lower()


@pytest.mark.parametrize("form", ["table", "md", "csv", "json"])
def test_a_trace_without_windows_does_not_mention_windows(form):
    for name in ("vit", "cross"):
        inputs = [torch.randn(shape) for shape in PLAIN[name].input_shapes]
        traced = attnscope.trace(attentions.build(PLAIN[name]), *inputs)
        keys = ('"windows"', '"window"')  # keys of every trace
        assert "window" not in without(keys, render(traced, form, Screen(quiet=True))).lower()


def without(keys: Sequence[str], text: str) -> str:
    for key in keys:
        text = text.replace(key, "")
    return text


def test_a_report_with_windows_mentions_them():
    """This shows that the tests above can fail."""
    report = attnscope.explore(SwinSpec(dim=12, heads=3, resolution=14), budget=0.01, device="cpu")
    assert ", windowed " in render(report, "table", Screen(quiet=True))


def test_the_time_compared_with_global_attention_has_the_name_of_its_kind():
    report = timed(attnscope.explore(SwinSpec(), time=False))
    pooled = dataclasses.replace(report.complexity, neighbourhood=Figures("pooled", "49 pooled keys", 3136, 0, 49))
    shown = render(dataclasses.replace(report, complexity=pooled), "table", Screen(quiet=True))
    assert ", pooled " in shown
    assert ", windowed " not in shown


def test_a_comparison_describes_the_neighbourhood_of_each_contender():
    compared = compare(("vit", "swin", "swin:shift", "swin:window=14", "cross"))
    assert [each.words for each in compared.contenders] == [
        "global attention",
        "Swin attention, 7×7 windows",
        "Swin attention, 7×7 windows, shifted",
        "Swin attention, 14×14 windows",
        "Cross-attention, all 196 tokens of the other sequence",
    ]
    varied = compare(("swin", "swin:window=14", "cross:keys=1"), {"window": [4, 7]})
    assert [each.words for each in varied.contenders] == [
        "Swin attention, windows (window varies)",
        "Swin attention, 14×14 windows",
        "Cross-attention, all 1 token of the other sequence, keys 1",
    ]


@pytest.mark.parametrize(
    ("spec", "figures"),
    [
        (ViTSpec(), ("global", "global attention", 197, 0, 197)),
        (CrossSpec(), ("cross", "all 196 tokens of the other sequence", 100, 0, 196)),
        (SwinSpec(), ("windowed", "7×7 windows", 3136, 0, 49)),
        (SwinSpec(resolution=(50, 60), window=(7, 8), shift=True), ("windowed", "7×8 windows, shifted", 3584, 584, 56)),
        (SwinNetworkSpec(stage=2, block=2), ("windowed", "7×7 windows, shifted", 784, 0, 49)),
        (ViTNetworkSpec(scope="block"), ("global", "global attention", 197, 0, 197)),
    ],
    ids=lambda value: str(value)[:30],
)
def test_the_json_has_the_neighbourhood(spec, figures):
    found = json.loads(attnscope.explore(spec, time=False).to_json())["complexity"]["neighbourhood"]
    assert found == dict(zip(("kind", "words", "tokens", "padding", "keys"), figures, strict=True))


@pytest.mark.parametrize("spec", [SwinNetworkSpec(), ViTNetworkSpec()], ids=["swin", "vit"])
def test_a_whole_network_has_no_single_neighbourhood(spec):
    assert attnscope.explore(spec, time=False).complexity.neighbourhood is None


@pytest.mark.parametrize("spec", [ViTSpec(), CrossSpec(), SwinSpec()], ids=lambda spec: spec.name)
def test_the_old_keys_keep_their_values(spec):
    figures = attnscope.explore(spec, time=False).complexity
    first, last = figures.formulas
    assert (figures.global_macs, figures.windowed_macs) == (first.macs, last.macs)
    assert (figures.own_macs, figures.reference_macs) == (first.macs if spec.name == "vit" else last.macs, first.macs)


# receptive fields


REACHES = st.integers(1, 9).flatmap(
    lambda side: st.lists(
        st.tuples(st.integers(0, side - 1), st.integers(1, 3), st.integers(1, 3)).map(
            lambda at: range(at[0], at[0] + at[1] * at[2], at[2])
        ),
        min_size=side,
        max_size=side,
    )
)


@given(st.lists(REACHES, min_size=1, max_size=1), st.integers(1, 4))
def test_layers_widen_what_a_token_depends_on(reaches, layers):
    """The expected sets are joined layer by layer."""
    (reach,) = reaches

    class Given(AllTokens):
        def reach(self, axis, side):
            return reach

    seen = [(token, token) for token in range(len(reach))]
    sets = [{token} for token in range(len(reach))]
    for _ in range(layers):
        seen = widen(seen, Given(len(reach)), 0)
        sets = [set().union(*(sets[key] for key in keys if key < len(reach))) for keys in reach]
    assert [tuple(each) for each in seen] == [(min(each), max(each)) for each in sets]


# families that attnscope does not have: the interface is sufficient for each of them


@dataclass(frozen=True, slots=True)
class Toy(Neighbourhood):
    """A base of neighbourhoods on a square grid."""

    kind: ClassVar[str] = "toy"

    side: int

    def describe(self, sized: bool = True) -> str:
        return type(self).__name__

    @property
    def tokens(self) -> int:
        return self.side**2

    @property
    def keys(self) -> int | None:
        return self.tokens


class Pooled(Toy):
    """PVT: each patch of R×R tokens is one key (Wang et al., arXiv 2102.12122); R = 4."""

    letter, field = "hw/R²", "sr_ratio"

    @property
    def keys(self) -> int:
        return (self.side // 4) ** 2


class Stripes(Toy):
    """CSWin: a cross of stripes, half of the heads down and half across (Dong et al., arXiv 2107.00652); s = 2."""

    @property
    def keys(self) -> int:
        return 2 * (self.side + self.side - 2)

    @property
    def parts(self) -> tuple[Neighbourhood, ...]:
        return Windows(self.side, self.side, (self.side, 2)), Windows(self.side, self.side, (2, self.side))


class Grid(Toy):
    """MaxViT's grid attention: P×P tokens at equal distances (Tu et al., arXiv 2204.01697); P = 4."""

    kind, letter, field = "grid", "P²", "partition"

    @property
    def keys(self) -> int:
        return 16

    @property
    def alignment(self) -> tuple[int, int]:
        return 4, 4

    def reach(self, axis: int, side: int) -> Sequence[range]:
        stride = side // 4
        return [range(token % stride, side, stride) for token in range(side)]


class Near(Toy):
    """DiNAT: the nearest K×K tokens, dilated by δ (Hassani et al., arXiv 2209.15001); K = 3, δ = 2."""

    letter, field = "K²", "kernel_size"

    @property
    def keys(self) -> int:
        return 9

    def reach(self, axis: int, side: int) -> Sequence[range]:
        found = []
        for token in range(side):
            last = (side - 1 - token % 2) // 2  # of the tokens at even or odd positions
            start = min(max(token // 2 - 1, 0), last - 2)
            found.append(range(token % 2 + 2 * start, token % 2 + 2 * start + 6, 2))
        return found


class Linear(Toy):
    """Linear attention: keys and values are summed without the query (Katharopoulos et al., arXiv 2006.16236)."""

    @property
    def keys(self) -> None:
        return None


class Channels(Linear):
    """XCiT: channels attend to channels, and each channel includes every token (El-Nouby et al., arXiv 2106.09681)."""


class Focal(Toy):
    """Focal attention: the window, tokens around it, pooled windows (Yang et al., arXiv 2107.00641); M 7, e 3, f 7."""

    @property
    def keys(self) -> int:
        return 49 + 4 * (49 - 16) + 49


class MaskUnits(Toy):
    """Hiera: queries are pooled by s within a mask unit of s·w tokens (Ryali et al., arXiv 2306.00989); s = 4, w = 4."""

    @property
    def tokens(self) -> int:
        return self.side**2 // 4

    @property
    def keys(self) -> int:
        return 16


SIDE, C, D = 16, 12, 4
FAMILIES = {
    # MACs of q·kᵀ and the weighted sum, from the papers
    Pooled(SIDE): 2 * (SIDE**4 // 16) * C,
    Stripes(SIDE): SIDE**2 * C * 2 * (SIDE + SIDE),
    Windows(SIDE, SIDE, (4, 4)): 2 * 16 * SIDE**2 * C,
    Grid(SIDE): 2 * 16 * SIDE**2 * C,
    Near(SIDE): 2 * 9 * SIDE**2 * C,
    Focal(SIDE): 2 * SIDE**2 * C * 230,
    MaskUnits(SIDE): 2 * (SIDE**2 // 4) * 16 * C,
    Linear(SIDE): None,
    Channels(SIDE): None,
}


@pytest.mark.parametrize("look", FAMILIES, ids=lambda look: type(look).__name__)
def test_every_family_has_a_neighbourhood(look):
    figures = Figures.of(look)
    channels = C // len(look.parts)  # each part of the heads has its own keys
    macs = None if figures.keys is None else sum(2 * part.tokens * part.keys * channels for part in look.parts)
    assert macs == FAMILIES[look]
    assert figures.padding == 0
    assert all(SIDE % unit == 0 for unit in look.alignment)
    seen = [(token, token) for token in range(SIDE)]
    for axis in (0, 1):
        reach = look.reach(axis, SIDE)
        assert len(reach) == SIDE
        assert all(0 <= keys[0] <= keys[-1] < SIDE for keys in reach)
        assert all(token in keys for token, keys in enumerate(reach))
        for part in look.parts:
            assert all({*keys} <= {*reach[token]} for token, keys in enumerate(part.reach(axis, SIDE)))
        widened = widen(seen, look, axis)
        assert [last - first for first, last in widened] == [keys[-1] - keys[0] for keys in reach]


@pytest.mark.parametrize("look", FAMILIES, ids=lambda look: type(look).__name__)
def test_the_keys_of_a_query_are_the_union_of_its_parts(look):
    query, sides = (9, 4), (SIDE, SIDE)
    places = [(y, x) for y in range(SIDE) for x in range(SIDE)]
    ranges = [[part.reach(axis, SIDE)[query[axis]] for axis in (0, 1)] for part in look.parts]
    expected = {(y, x) for y, x in places if any(y in down and x in across for down, across in ranges)}
    assert look.keys_of(query, sides) == expected
    assert len(look.parts) == 1 or look.keys == len(expected) < SIDE**2


def test_dilated_layers_have_large_receptive_fields():
    first = widen([(token, token) for token in range(SIDE)], Near(SIDE), 0)
    assert first[8] == (6, 10)
    assert widen(first, Near(SIDE), 0)[8] == (4, 12)
    assert widen(first, Grid(SIDE), 0)[8] == (0, 14)


def test_a_formula_uses_the_letters_of_its_family():
    both = [
        growth(lambda side: 4 * side**2 * C**2 + 2 * side**4 * C, 1),
        growth(lambda side: 4 * side**2 * C**2 + 2 * 9 * side**2 * C, 1),
    ]
    found = crossover("vit", "dinat", "layer", *both, (C, C), (AllTokens(SIDE**2), Near(SIDE)))
    assert (found.formula, found.values) == ("(2C + K²) / (2C + hw)", f"(2×{C} + 9) / (2×{C} + hw)")
    assert (found.equation, found.tokens) == ("hw = K²", 9)
    turned = crossover("dinat", "vit", "layer", *reversed(both), (C, C), (Near(SIDE), AllTokens(SIDE**2)))
    assert (turned.formula, turned.equation, turned.tokens) == ("(2C + hw) / (2C + K²)", "hw = K²", 9)


def test_global_attention_has_a_complexity_without_a_reference():
    """There is a single term if an attention is its own reference, and two terms otherwise."""
    own = global_attention(9, C)
    alone = Complexity(2, own, own, "")
    assert (alone.terms, alone.ratio, alone.own_macs) == ((own.of_batch(2),), 1, 2 * own.macs)
    other = Term("Ω(SRA)", 2 * symbol("hw", 9))
    assert Complexity(1, other, own, "with pooled keys").terms == (own, other)


def test_cross_attention_reaches_the_other_sequence():
    assert OtherSequence(3, 5).reach(0, 3) == [range(5)] * 3


@pytest.mark.parametrize("name", attentions.names())
def test_the_field_of_its_size_is_a_field_of_the_attention(name: str) -> None:
    spec = attentions.find_spec_class(name)()
    assert spec.neighbourhood.field in {"", *spec.as_dict()}
