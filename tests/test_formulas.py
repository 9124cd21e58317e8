"""Printed formulas: each gives the printed number if evaluated with the printed values of its letters."""

import math
import re
from collections.abc import Iterator

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import attnscope
from attnscope import SwinNetworkSpec, SwinSpec, ViTNetworkSpec, ViTSpec, attentions, window_partition
from attnscope.analyses.comparison import compare
from attnscope.analyses.windows import look_at_windows
from attnscope.attentions.cross.spec import CrossSpec
from attnscope.attentions.spec import Spec
from attnscope.core.formula import over_stages, symbol
from attnscope.networks.presets import read_stages
from attnscope.networks.swin.spec import SwinV2NetworkSpec
from attnscope.render import render
from attnscope.render.compare import render_comparison
from attnscope.render.screen import Screen
from attnscope.render.windows import render_windows
from examples.qk_norm.spec import QKNormSpec
from examples.sra.spec import SRASpec
from tests.sampling import examples
from tests.strategies import cross_specs, small_swins, small_vits, specs, swin_specs, vit_specs

LINE = re.compile(r" = (\S.*?) += +([\d,]+) MACs$")
VALUE = re.compile(r"(?P<name>[^\s,=()]+) = (?P<value>\([^)]*\)|[\d×]+)")
SUBSCRIPTS = "₀₁₂₃₄₅₆₇₈₉"
POWERS = {"²": 2, "³": 3}


class Reader:
    """A parser of formulas in mathematical notation, which evaluates them with values for their letters.

    Adjacent letters are multiplied; Σ sums the following product over the stages; an index selects a stage.
    """

    def __init__(self, formula: str, values: dict[str, tuple[int, ...]]) -> None:
        self.text, self.values, self.at = formula.replace(" ", "").replace("·", ""), values, 0
        self.names = sorted(values, key=len, reverse=True)
        self.stages = max(map(len, values.values()))

    def evaluate(self) -> int:
        total = self.sum(stage=0)
        assert self.at == len(self.text), self.text[self.at :]
        return total

    def takes(self, words: str) -> bool:
        found = self.text.startswith(words, self.at)
        self.at += len(words) * found
        return found

    def sum(self, stage: int) -> int:
        total = self.product(stage)
        while self.takes("+"):
            total += self.product(stage)
        return total

    def product(self, stage: int) -> int:
        value = self.factor(stage)
        while self.at < len(self.text) and self.text[self.at] not in "+)":
            value *= self.factor(stage)
        return value

    def factor(self, stage: int) -> int:
        value = self.base(stage)
        for sign, power in POWERS.items():
            if self.takes(sign):
                return value**power
        return value

    def base(self, stage: int) -> int:
        if self.takes("Σ("):
            start = self.at
            return sum(self.again(start, each) for each in range(self.stages))
        if self.takes("("):
            return self.again(self.at, stage)
        if number := re.compile(r"\d+").match(self.text, self.at):
            self.at = number.end()
            return int(number[0])
        name = next((name for name in self.names if self.takes(name)), None)
        assert name, f"no value is printed for what follows in {self.text[self.at :]}"
        if index := re.compile(f"[{SUBSCRIPTS}]+").match(self.text, self.at):
            self.at = index.end()
            stage = int("".join(str(SUBSCRIPTS.index(digit)) for digit in index[0])) - 1
        return self.values[name][stage if len(self.values[name]) > 1 else 0]

    def again(self, start: int, stage: int) -> int:
        self.at = start
        value = self.sum(stage)
        assert self.takes(")")
        return value


def values_in(text: str) -> dict[str, tuple[int, ...]]:
    """Return the values of the letters in a text such as `hw = (196, 49), M² = 7×7`."""
    texts = {found["name"]: found["value"].strip("()").split(", ") for found in VALUE.finditer(text)}
    return {name: tuple(math.prod(map(int, each.split("×"))) for each in values) for name, values in texts.items()}


def printed(screen: str) -> Iterator[tuple[str, dict[str, tuple[int, ...]], int]]:
    """Yield each formula on a screen with the values printed below it and its number."""
    lines = screen.splitlines()
    for index, line in enumerate(lines):
        if found := LINE.search(line):
            below = next(text for text in lines[index:] if "with " in text)
            yield found[1], values_in(below.split("with ", 1)[1]), int(found[2].replace(",", ""))


def hold_formulas(screen: str, at_least: int = 1) -> None:
    """Raise an AssertionError if a formula on a screen does not give its number."""
    found = list(printed(screen))
    assert len(found) >= at_least
    for formula, values, macs in found:
        assert Reader(formula, values).evaluate() == macs, (formula, values)


def screen_of(spec: Spec, focus: tuple[str, ...] = ()) -> str:
    return render(attnscope.explore(spec, time=False, focus=focus), "table", Screen())


def trace_of(spec: Spec) -> attnscope.TraceReport:
    with torch.device("meta"):
        inputs = [torch.empty(shape) for shape in spec.input_shapes]
    return attnscope.trace(spec.build(), *inputs)


heads = st.integers(1, 3)
sra_specs = st.builds(
    lambda heads, width, **rest: SRASpec(dim=heads * width, heads=heads, **rest),
    heads=heads,
    width=st.integers(1, 4),
    kv_heads=st.sampled_from([None, 1]),
    resolution=st.tuples(st.integers(4, 9), st.integers(4, 9)),
    reduction=st.integers(1, 4),
    batch=st.integers(1, 3),
)
qk_norm_specs = st.builds(
    lambda heads, width, **rest: QKNormSpec(dim=heads * width, heads=heads, **rest),
    heads=heads,
    width=st.integers(1, 4),
    kv_heads=st.sampled_from([None, 1]),
    tokens=st.integers(1, 12),
    batch=st.integers(1, 3),
)


@settings(max_examples=100)
@given(specs() | small_vits | small_swins | sra_specs | qk_norm_specs)
@example(SwinSpec(dim=8, heads=4, kv_heads=2, resolution=(50, 60), window=(7, 8), shift=True, batch=2))
@example(CrossSpec(kv_heads=1, batch=3))
@example(SwinNetworkSpec(image=(256, 200), kv_heads=1, mlp_ratio=2.5, batch=2))
@example(SwinNetworkSpec(depths=(1,) * 11, dim=2, heads=1, image=64))
@example(SwinV2NetworkSpec(stage=3, image=200))
@example(ViTNetworkSpec(distilled=True, kv_heads=4, mlp_ratio=3.0, batch=2))
def test_a_formula_gives_the_number_beside_it(spec):
    """The default screen has one formula. With details, the formulas of both attentions that are compared follow."""
    hold_formulas(screen_of(spec))
    hold_formulas(screen_of(spec, focus=("details",)), at_least=3 if len(spec.complexity().terms) > 1 else 1)


@settings(max_examples=30)
@given(specs() | small_vits | small_swins)
def test_a_formula_of_training_gives_the_number_beside_it(spec):
    hold_formulas(render(attnscope.explore(spec, time=False, backward=True), "table", Screen()))


MERGED = SwinNetworkSpec(depths=(1, 1, 1), dim=3, heads=1, image=(10, 18), patch=2, window=(1, 3))


def hold_formulas_of_trace(spec: Spec) -> None:
    """Hold the formulas on the screen of a trace, and all formulas of its JSON, of which the screen may fold some."""
    traced = trace_of(spec)
    found = [formula for each in traced.attentions for formula in each.complexity]
    hold_formulas(render(traced, "table", Screen()), at_least=1 if found else 0)
    for formula in found:
        assert Reader(formula.formula, values_in(formula.values)).evaluate() == formula.macs


@examples(100)
@given(small_vits | small_swins)
@example(SwinNetworkSpec(depths=(1, 1), dim=6, heads=1, image=(40, 48), window=7, batch=2))
@example(MERGED)
def test_a_formula_in_the_trace_of_a_network_gives_the_number_beside_it(spec):
    hold_formulas_of_trace(spec)


@settings(max_examples=100)
@given(vit_specs() | cross_specs() | swin_specs() | sra_specs | qk_norm_specs)
def test_a_formula_equals_the_sum_of_the_steps(spec):
    """The bias MLP of Swin V2 is excluded: it runs once for all images."""
    form = spec.closed_form()
    form.pop("bias_mlp", None)
    own = spec.complexity().own.of_batch(spec.batch)
    assert own.macs == sum(form.values()) == spec.complexity().own_macs


@examples(50)
@given(swin_specs(kernels=("eager",)) | vit_specs(kernels=("eager",)) | cross_specs(kernels=("eager",)))
def test_a_formula_of_trace_gives_the_number_beside_it(spec):
    hold_formulas_of_trace(spec)


def test_trace_has_the_same_formula_with_padding_and_batch_as_explore():
    spec = SwinSpec(dim=24, heads=3, resolution=(10, 12), window=7, batch=2)
    traced = attnscope.trace(attentions.build(spec), torch.randn(2, 10, 12, 24))
    [found] = traced.attentions
    own = attnscope.explore(spec, time=False).complexity.formulas
    assert found.complexity == own
    assert "hw = 120, C = 24, HW = 196 with padding, M² = 7×7" in render(traced, "table", Screen())


def test_the_padding_of_a_patch_merging_is_not_that_of_the_windows_after_it():
    """The grids of the stages are 5×9, 3×5 and 2×3. Merging pads the first two, and windows of 1×3 pad 3×5."""
    hw = [dict(values_in(each.complexity[0].values))["hw"] for each in trace_of(MERGED).attentions]
    padding = [dict(values_in(each.complexity[1].values)).get("HW") for each in trace_of(MERGED).attentions]
    assert (hw, padding) == ([(45,), (15,), (6,)], [None, (18,), None])


def test_padding_has_its_own_letter():
    reference, own = SwinSpec(resolution=(50, 60), window=(7, 8)).complexity().terms
    assert (reference.formula, reference.values) == ("4hwC² + 2(hw)²C", "hw = 3000, C = 96")
    assert (own.formula, own.values) == ("4HWC² + 2M²HWC", "HW = 3584 with padding, C = 96, M² = 7×8")


def test_a_batch_size_above_one_has_a_letter():
    assert [term.formula for term in ViTSpec(batch=2).complexity().terms] == [
        "b(4hwC² + 2(hw)²C)",
        "b(4hwC² + 2M²hwC)",
    ]
    assert ViTSpec().complexity().own.values == "hw = 197, C = 768"


def test_a_network_has_the_values_of_each_stage():
    own = SwinNetworkSpec(window=(12, 12)).complexity().own
    assert own.formula == "3p²hw₁C₁ + Σ(L(4HWC² + 8hwC² + 2M²HWC) + 2mhwC²) + C₄·classes"
    values = [
        "p² = 4×4",
        "hw = (3136, 784, 196, 49)",
        "C = (96, 192, 384, 768)",
        "L = (2, 2, 6, 2) blocks",
        "HW = (3600, 1296, 576, 49) with padding",
        "M² = (12×12, 12×12, 12×12, 7×7)",
        "m = (0, 1, 1, 1) mergings",
        "classes = 1000",
    ]
    assert own.values == ", ".join(values)


def test_the_json_has_the_values_as_numbers():
    formula = attnscope.explore(SwinNetworkSpec(), time=False).to_dict()["complexity"]["formulas"][-1]
    assert {letter["name"]: letter["value"] for letter in formula["letters"]} == {
        "p²": 16,
        "hw": [3136, 784, 196, 49],
        "C": [96, 192, 384, 768],
        "L": [2, 2, 6, 2],
        "M²": [49, 49, 49, 49],
        "m": [0, 1, 1, 1],
        "classes": 1000,
    }


# ratios in a comparison


RATIO = re.compile(
    r"(?P<scope>layer|block)(?P<place> at .+?)?(?P<unpadded> without padding)?: (?P<others>.+?) / (?P<first>.+?)"
    r" = (?P<letters>\(.+?\) / \(.+?\)) = (?P<numbers>\(.+?\) / \(.+?\)), (?P<rest>.*)"
)
QUANTITIES = {"layer": "macs", "block": "block"}


def hold_ratios(compared, dim, window, at_least=1):
    """Hold that each printed ratio equals that of the table at each point without padding."""
    found = list(RATIO.finditer(render_comparison(compared, "table", Screen())))
    assert len(found) >= at_least
    reference = compared.points[compared.reference]
    labels = {name: label for label, name in compared.names.items()}
    for each in found:
        if QUANTITIES[each["scope"]] != compared.quantity:
            continue
        assert bool(each["unpadded"]) == any(size > 1 for size in window)
        for label in (labels[name] for name in each["others"].split(", ")):
            for point in compared.points:
                if point.padding.get(label):
                    assert each["unpadded"]
                    continue
                C, hw = point.at.get("dim", dim), math.prod(point.grid)
                values = {"C": (C,), "M²": (math.prod(window),), "hw": (hw,)}
                over, under = (Reader(part[1:-1], values).evaluate() for part in each["letters"].split(" / "))
                assert under / over == pytest.approx(point.ratio[label], rel=1e-12)
                if reference.at.get("dim", dim) == C:
                    numbers = [_with_numbers(part[1:-1], hw) for part in each["numbers"].split(" / ")]
                    assert numbers == [over, under]


def hold_equations(compared, dim, window):
    """Hold that the printed equations of the break-even and of the quadratic term give the numbers of tokens."""
    text = render_comparison(compared, "table", Screen())
    C = compared.points[compared.reference].at.get("dim", dim)
    even = re.search(r"break even at ([\d,]+) tokens(?: without padding)? \(hw = (.*?)\)", text)
    quadratic = re.search(r"Above ([\d,]+) tokens \(hw = (.*?)\)", text)
    for tokens, formula in (found.groups() for found in (even, quadratic)):
        values = {"C": (C,), "M²": (math.prod(window),)}
        assert Reader(formula, values).evaluate() == int(tokens.replace(",", ""))


sizes = st.integers(1, 9)


@pytest.mark.parametrize("quantity", ["macs", "block"])
@given(
    width=st.integers(1, 64),
    window=st.tuples(sizes, sizes),
    batch=st.integers(1, 3),
    more=st.lists(st.integers(1, 40), max_size=4),
)
@settings(max_examples=20)
def test_a_printed_ratio_equals_that_of_the_table(quantity, width, window, batch, more):
    """The first three sides need no padding, if the window is not larger than the largest side of a grid."""
    whole = math.lcm(*window)
    compared = compare(
        ("vit", "swin"),
        {"resolution": sorted({whole, 2 * whole, 3 * whole, *more})},
        quantity=quantity,
        dim=2 * width,
        heads=2,
        window=window,
        batch=batch,
    )
    hold_ratios(compared, 2 * width, window)
    hold_equations(compared, 2 * width, window)


@pytest.mark.parametrize("quantity", ["macs", "block"])
@pytest.mark.parametrize("preset", ["swin-t-224", "swin-b-384"])
def test_a_printed_ratio_equals_that_of_each_stage_of_a_network(preset, quantity):
    stages = read_stages(preset)
    compared = compare(("vit", "swin", "swin:shift"), stages=stages, quantity=quantity)
    assert len(compared.points) == 4
    hold_ratios(compared, stages[0].dim, stages[0].window)
    hold_equations(compared, stages[0].dim, stages[0].window)


def _with_numbers(words: str, hw: int) -> int:
    """Evaluate a sum of products such as `2×96 + hw`."""
    return sum(
        math.prod(hw if each == "hw" else int(each) for each in product.split("×")) for product in words.split(" + ")
    )


@given(window=st.tuples(st.integers(1, 12), st.integers(1, 12)))
def test_the_formula_of_a_position_index_gives_its_row(window):
    report = look_at_windows(SwinSpec(resolution=14, window=window), positions=True)
    text = render_windows(report, "table", Screen()).replace("−", "-")
    formula, row = re.search(r"row (\(.*?\) \+ \(.*?\)|\(.*?\)·.*\)) = (\d+)", text).groups()
    p, q = window
    dy, dx = re.search(r"dy = (-?\d+), dx = (-?\d+)", text).groups()
    assert formula == f"({dy} + {p - 1})·{2 * q - 1} + ({dx} + {q - 1})"
    assert (int(dy) + p - 1) * (2 * q - 1) + int(dx) + q - 1 == int(row)


def test_the_number_of_offsets_is_that_of_its_product():
    for window in ((1, 1), (2, 3), (7, 7)):
        text = render_windows(look_at_windows(SwinSpec(window=window), positions=True), "table", Screen())
        rows, *numbers = map(int, re.search(r"(\d+) rows?, \(2·(\d+)−1\)·\(2·(\d+)−1\)", text).groups())
        assert tuple(numbers) == window
        assert math.prod(2 * number - 1 for number in numbers) == rows


@given(
    grid=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    window=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    shift=st.booleans(),
    batch=st.integers(1, 3),
)
def test_the_formulas_of_the_order_give_the_place_of_each_token(grid, window, shift, batch):
    """The places are those of torch's roll and of the partition in windows."""
    spec = SwinSpec(resolution=grid, window=window, shift=shift, batch=batch)
    text = render_windows(look_at_windows(spec, order=True), "table", Screen())
    [windows] = map(int, re.search(r"b·nW \+ w: .*, nW = (\d+)", text).groups())
    [across] = map(int, re.search(r"w = i·(\d+) \+ j", text).groups())
    [width] = map(int, re.search(r"t = y·(\d+) \+ x", text).groups())
    places = re.findall(r"(?:row|column) \([ij]·(\d+) \+ [yx] \+ (\d+)\) mod (\d+)", text)
    (p, down, height), (q, right, columns) = (tuple(map(int, place)) for place in places)

    tokens = torch.arange(batch * height * columns).view(batch, height, columns, 1)
    rolled = torch.roll(tokens, (-down, -right), (1, 2))
    for row, tokens_of_window in enumerate(window_partition(rolled, window).flatten(1).tolist()):
        b, w = divmod(row, windows)
        i, j = divmod(w, across)
        for t, token in enumerate(tokens_of_window):
            y, x = divmod(t, width)
            place = (i * p + y + down) % height, (j * q + x + right) % columns
            assert token == (b * height + place[0]) * columns + place[1]
    assert (down, right) == (spec.windows.roll if shift else (0, 0))


# algebra of formulas


def test_products_of_the_same_letters_are_added_up():
    hw, C = symbol("hw", 4), symbol("C", 3)
    cost = 4 * hw * C**2 + 2 * hw**2 * C + 8 * C * hw * C
    assert (str(cost), cost.value) == ("12hwC² + 2(hw)²C", 12 * 4 * 9 + 2 * 16 * 3)


def test_a_sum_in_a_product_is_printed_in_parentheses():
    a, b = symbol("A", 2), symbol("B", 3)
    assert (str(5 * (a + b)), (5 * (a + b)).value) == ("5(A + B)", 25)
    assert str(1 * (a + b)) == "A + B"
    assert str((a + b) * (a + b)) == "(A + B)²"


def test_a_sum_over_stages_has_each_stages_values():
    a, b = symbol("A", 1, 2, 3), symbol("B", 10)
    cost = over_stages(3, a * b) + a.in_stage(3)
    assert (str(cost), cost.value) == ("Σ(AB) + A₃", 60 + 3)
    assert [each.words for each in cost.symbols] == ["A = (1, 2, 3)", "B = 10"]
