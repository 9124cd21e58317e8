"""Comparisons: exact costs and crossovers against brute force, omitted points, and output of the command."""

import csv
import io
import json
import xml.etree.ElementTree as ET
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from attnscope import SwinSpec, UsageError, ViTSpec, attentions
from attnscope.analyses.comparison import compare
from attnscope.analyses.contenders import read_contender
from attnscope.analyses.crossovers import cheaper_from
from attnscope.analyses.quantities import COUNTED, block_macs, macs
from attnscope.analyses.timed_comparison import measured_ratios
from attnscope.attentions.complexity import Growth, break_even, growth
from attnscope.networks.presets import read_stages
from attnscope.plan.memory import Memory
from attnscope.render.chart import Axis, Line, log_log
from attnscope.render.compare import MOST_ROWS, render_comparison, thinned
from attnscope.render.compare_columns import point_columns
from attnscope.render.findings import finding, formulas, time_finding
from attnscope.render.screen import Screen
from attnscope.reports.comparison import Measured, TimeCrossover
from tests.golden import comparisons

GROWTHS = st.builds(Growth, st.integers(0, 500), st.integers(1, 300), st.integers(0, 9))


# solving for break-even points


@given(GROWTHS, GROWTHS)
def test_break_even_is_the_last_change_of_sign(one, other):
    lead = [one(tokens) - other(tokens) for tokens in range(2000)]
    met = break_even(one, other)
    assert met == break_even(other, one)
    if met is None:
        assert all(a * b > 0 for a, b in pairwise(lead[1:])) or not any(lead[1:])
    elif met.exact:
        assert lead[met.low] == 0
        assert all(lead[met.low + 1 :]) or met.low == len(lead) - 1
    else:
        assert met.high == met.low + 1
        assert met.high >= len(lead) or lead[met.low] * lead[met.high] < 0


@given(growths=GROWTHS, side=st.integers(1, 9))
def test_growth_is_derived_from_any_closed_form(growths, side):
    assert growth(lambda s: growths(s * s), side) == growths


def test_costs_that_are_not_quadratic_in_tokens_have_no_growth():
    for macs_of in (lambda side: side**6, lambda side: side**6 + 2**side):
        assert growth(macs_of, 1) is None


@given(
    heads=st.integers(1, 8), width=st.integers(1, 64), window=st.integers(1, 16), batch=st.integers(1, 3),
)  # fmt: skip
def test_the_crossover_equals_that_of_the_closed_forms(heads, width, window, batch):
    dim = heads * width
    found = compare(
        ("vit", "swin"), {"resolution": [window, 3 * window]}, dim=dim, heads=heads, window=window, batch=batch
    )
    layer, block = found.crossovers
    assert (layer.tokens, block.tokens) == (window**2, window**2)
    assert (layer.balance, block.balance) == (2 * dim, 6 * dim)
    assert layer.values == f"(2×{dim} + {window**2}) / (2×{dim} + hw)"
    assert block.values == f"(6×{dim} + {window**2}) / (6×{dim} + hw)"
    assert (layer.formula, block.formula) == ("(2C + M²) / (2C + hw)", "(6C + M²) / (6C + hw)")
    grid = {"dim": dim, "heads": heads, "window": window}
    at_even = [attentions.spec_class(name).on_grid((window, window), grid) for name in ("vit", "swin")]
    assert macs(at_even[0]) == macs(at_even[1])
    exact = Fraction(2 * dim + 9 * window**2, 2 * dim + window**2)
    assert found.points[1].ratio["swin"] == pytest.approx(float(exact), rel=1e-12)


def test_the_default_comparison_has_the_expected_figures():
    found = compare()
    point = found.points[found.reference]
    assert point.at == {"image": 224}
    assert point.costs == {"vit": 2_003_828_736, "swin": 145_108_992, "swin:shift": 145_108_992}
    assert [f"{stage.ratio['swin']:.2f}" for stage in compare(stages=read_stages()).points] == [
        "13.81",
        "2.70",
        "1.18",
        "1.00",
    ]
    with_first = [each for each in found.crossovers if each.first == "vit"]
    assert {(each.tokens, each.balance, each.fewer) for each in with_first} == {
        (49, balance, other) for balance in (192.0, 576.0) for other in ("swin", "swin:shift")
    }
    between_others = [each for each in found.crossovers if each.first == "swin"]
    assert [(each.always, each.fewer) for each in between_others] == [(1.0, None)] * 2
    assert finding(found) == (
        "At 224 px (a common size; 56×56 tokens), swin needs 13.8× fewer MACs than global attention. They break even "
        "at 49 tokens without padding (hw = M²). Above 192 tokens (hw = 2C), the quadratic term of global attention "
        "exceeds its projections."
    )


def test_a_break_even_can_be_between_two_numbers_of_tokens():
    found = compare(("vit", "swinv2:window=8"), {"resolution": [14, 56]})
    assert ". They break even between 95 and 96 tokens without padding. " in finding(found)
    assert formulas(found)[0] == (
        "layer without padding: swinv2:window=8 / global attention, break-even between 95 and 96 tokens; "
        "with padding, fewer from 18×18 tokens on"
    )
    assert formulas(compare(("swin:kv_heads=1", "vit")))[0].endswith("; with padding, more from 11×11 tokens on")


def test_a_crossover_with_shared_heads_has_no_formula():
    for layer in compare(("swin", "swin:kv_heads=1"), {"resolution": [14, 28]}).crossovers:
        assert layer.formula is layer.values is None
        assert layer.always < 1


SIZES = [(96, 7), (96, 8), (24, 2), (768, 7), (48, (3, 7)), (8, 1), (96, 30)]
PAIRS = [(labels, *size) for labels in (("vit", "swin"), ("swin", "vit")) for size in SIZES]
PAIRS += [(("swin", "swin:window=4x6"), *size) for size in ((96, 7), (24, 2), (8, 1), (96, 30))]


@pytest.mark.parametrize(("labels", "dim", "window"), PAIRS)
def test_padding_no_longer_matters_from_a_given_size_on(labels, dim, window):
    layer, block = compare(labels, {"resolution": [42]}, dim=dim, heads=2, window=window).crossovers
    sides = range(1, 500)
    specs = [
        [read_contender(label).at((s, s), {"dim": dim, "heads": 2, "window": window}) for s in sides]
        for label in labels
    ]
    for crossing, cost in ((layer, lambda spec, s: macs(spec)), (block, lambda spec, s: block_macs(spec))):
        costs = [[cost(spec, side) for spec, side in zip(of_one, sides, strict=True)] for of_one in specs]
        lead = [theirs - ours for ours, theirs in zip(*costs, strict=True)]
        from_on = {
            sign: max((side for side, ahead in zip(sides, lead, strict=True) if sign * ahead >= 0), default=0) + 1
            for sign in (1, -1)
        }
        found = {1: crossing.padded_from, -1: crossing.first_padded_from}
        if crossing.pads:
            assert found == {sign: side if side < sides[-1] else None for sign, side in from_on.items()}
        else:
            assert found == {1: None, -1: None}


def test_a_range_of_cheaper_sides_begins_with_the_smallest_side_that_both_allow():
    slow, fast = Growth(0, 1, 0), Growth(0, 0, 1)

    def cost(side):
        if side < 8:
            raise UsageError("side must be at least 8")
        return slow(side**2)

    costs = cost, lambda side: fast(side**2)
    assert cheaper_from((slow, fast), costs, unit=8) == (8, None)
    assert cheaper_from((fast, slow), costs[::-1], unit=8) == (None, 8)


def test_padding_is_mentioned_only_where_an_attention_pads():
    both_pad = compare(("swin", "swinv2"), {"resolution": range(16, 65, 16)})
    assert formulas(both_pad) == [
        f"{scope} without padding: swinv2 / swin, no break-even: always more; with padding, more from 177×177 tokens on"
        for scope in ("layer", "block")
    ]
    never_pads = compare(("vit", "cross"), {"resolution": [14, 28]}, keys=49)
    omitted = compare(("vit", "swin"), {"resolution": [14, 28]}, pad=False)
    for found in (never_pads, omitted):
        assert "padding" not in f"{finding(found)} {formulas(found)}"
        assert "break even at 49 tokens" in finding(found)


def test_the_result_says_why_it_describes_a_point():
    assert finding(compare(over={"resolution": range(7, 17)})).startswith("At resolution 12 (the middle of the range; ")
    assert finding(compare(over={"window": [4, 7]})).startswith("At window 7 (a common size; 56×56 tokens), ")
    assert finding(compare(over={"resolution": [12]})).startswith("At resolution 12 (12×12 tokens), ")


def test_a_window_larger_than_the_grid_is_padded_as_by_its_command():
    point = compare(("vit", "swin"), {"resolution": [5]}).points[0]
    assert point.costs["swin"] == macs(SwinSpec(dim=96, heads=3, resolution=5, window=7))
    assert point.padding["swin"] == pytest.approx(24 / 49)


def test_a_varied_window_has_no_size_in_its_description():
    found = compare(("vit", "swin:shift"), {"window": [4, 7]})
    assert found.contenders[1].words == "Swin attention, windows, shifted (window varies)"
    assert formulas(found)[0].startswith("layer at window 7 without padding: ")


def test_a_narrow_screen_drops_padding_before_the_cost_of_a_contender():
    labels = ("vit", "swin", "swinv2", "cross", "swin:window=14", "swin:window=4", "swin:window=2")
    ranks = {column.key: column.rank for column in point_columns(compare(labels, {"resolution": [7, 15]}))}
    padding = [rank for key, rank in ranks.items() if key.endswith("padding")]
    assert len(padding) > 1
    assert max(ranks[f"{label}_macs"] for label in labels) < min(padding)


def test_two_window_attentions_never_break_even():
    found = compare(("swin", "swin:window=14"), {"resolution": [28, 56]})
    layer = found.crossovers[0]
    assert (layer.tokens, layer.formula, layer.balance) == (None, None, None)
    assert layer.always == pytest.approx((192 + 196) / (192 + 49))
    assert found.crossovers[0].values == "(2×96 + 196) / (2×96 + 49)"


# compared quantities and points


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_costs_are_those_of_the_plans(kernel):
    over = {"resolution": [7, 12, 28], "window": [3, 7]}
    for quantity in COUNTED:
        for point in compare(over=over, quantity=quantity, kernel=kernel, batch=2).points:
            common = {"dim": 96, "heads": 3, "batch": 2, "kernel": kernel}
            side, window = point.at["resolution"], point.at["window"]
            specs = {
                "vit": ViTSpec(tokens=side**2, **common),
                "swin": SwinSpec(resolution=side, window=window, **common),
                "swin:shift": SwinSpec(resolution=side, window=window, shift=True, **common),
            }
            for label, spec in specs.items():
                plan = attentions.plan(spec)
                weights = [step.output_bytes for step in plan.steps if step.name == "softmax"]
                expected = {
                    "macs": plan.macs,
                    "flops": plan.flops,
                    "block": plan.macs + 2 * 8 * side**2 * 96**2,
                    "attention": sum(weights),
                    "peak": Memory(plan).peak,
                    "params": plan.params,
                    "bytes": sum(step.times * (step.bytes_read + step.bytes_written) for step in plan.steps),
                    "training": None if None in Memory(plan).training else max(Memory(plan).training),
                }
                assert point.costs[label] == expected[quantity]


def test_attention_bytes_are_the_size_of_the_scores():
    point = compare(over={"resolution": [56]}, quantity="attention").points[0]
    assert point.costs["vit"] == 4 * 3 * 3136**2
    assert point.costs["swin"] == point.costs["swin:shift"] == 4 * 3 * 3136 * 49


def test_padded_points_are_marked_or_omitted():
    over = {"resolution": [14, 15, 28]}
    padded = compare(over=over)
    assert [set(point.padding) for point in padded.points] == [set(), {"swin", "swin:shift"}, set()]
    assert padded.points[1].padding["swin"] == pytest.approx(1 - 225 / 441)
    whole = compare(over=over, pad=False)
    assert [point.grid for point in whole.points] == [(14, 14), (28, 28)]
    assert whole.left_out[0].at == {"resolution": 15}
    assert "nearest: 14 or 21" in whole.left_out[0].reason


def test_invalid_points_are_omitted_and_reported_once_per_rule():
    found = compare(("vit", "swin"), {"window": [4, 57, 58, 59, 7]}, pad=False)
    assert [point.at["window"] for point in found.points] == [4, 7]
    assert [(each.at, each.count) for each in found.left_out] == [({"window": 57}, 3)]
    assert (
        "window 57: a grid side of 56 tokens is not divisible by window 57; nearest: 57; same for 2 more"
        in " ".join(render_comparison(found, "table", Screen()).split())
    )


def test_a_contender_keeps_its_own_values():
    found = compare(("swin:window=14", "swin"), {"window": [4, 7]})
    assert len({point.costs["swin:window=14"] for point in found.points}) == 1
    assert len({point.costs["swin"] for point in found.points}) == 2
    assert read_contender("swin:window=7x5,shift,qkv-bias=false").own == {
        "window": (7, 5),
        "shift": True,
        "qkv_bias": False,
    }


def test_an_image_has_one_token_per_patch():
    in_pixels = compare(over={"image": [64, 128]}, patch=16)
    assert [point.grid for point in compare(over={"image": [224, 448]}, patch=16).points] == [(14, 14), (28, 28)]
    assert [point.grid for point in in_pixels.points] == [(4, 4), (8, 8)]


def test_stages_clip_their_windows_and_come_from_presets(tmp_path, monkeypatch):
    assert [stage.grid for stage in read_stages()] == [(56, 56), (28, 28), (14, 14), (7, 7)]
    assert compare(stages=read_stages(), window=14).points[3].ratio["swin"] == 1
    (tmp_path / "swin-x.toml").write_text("[swin]\ndim = 48\nheads = 2\ndepths = [1, 1]\nimage = 64\nwindow = 8\n")
    (tmp_path / "flat.toml").write_text("[vit]\ndim = 48\n")
    (tmp_path / "odd.toml").write_text("[swin]\ndepths = [1]\nimage = 'large'\n")
    paths = {path.stem: path for path in tmp_path.glob("*.toml")}
    monkeypatch.setattr("attnscope.networks.configs.presets", lambda: paths)
    assert [(s.dim, s.heads, s.grid, s.window) for s in read_stages("swin-x")] == [
        (48, 2, (16, 16), (8, 8)),
        (96, 4, (8, 8), (8, 8)),
    ]
    mistakes = {
        "swin-y": "did you mean swin-x",
        "flit": "available: odd, swin-x$",
    }  # a preset without stages is not suggested
    for name, message in {
        "flat": r"preset must be a network with stages \(got flat, which has no depths\)",
        "odd": r"image must be an integer \(got 'large'\)",
        **mistakes,
    }.items():
        with pytest.raises(UsageError, match=message):
            read_stages(name)


# rendering


def test_the_json_has_the_data_of_the_comparison():
    found = compare(("vit", "swin"), {"resolution": [14, 28], "dim": [96, 192]})
    plain = json.loads(found.to_json())
    assert plain == json.loads(json.dumps(found.to_dict()))
    assert plain["schema"] == 1
    assert len(plain["points"]) == 4
    assert plain["points"][0] == {
        "at": {"resolution": 14, "dim": 96},
        "grid": [14, 14],
        "costs": {"vit": 14601216, "swin": 9069312},
        "ratio": {"swin": 14601216 / 9069312},
        "padding": {},
    }


@pytest.mark.parametrize("name", comparisons())
def test_every_comparison_renders_in_every_form(name):
    comparison = comparisons()[name]
    assert json.loads(render_comparison(comparison, "json", Screen()))["points"]
    rows = list(csv.DictReader(io.StringIO(render_comparison(comparison, "csv", Screen()))))
    assert len(rows) == len(comparison.points)
    assert [int(row[f"swin_{comparison.quantity}"]) for row in rows] == [p.costs["swin"] for p in comparison.points]
    assert render_comparison(comparison, "md", Screen()).count("\n|") == len(comparison.points) + 2
    picture = render_comparison(comparison, "svg", Screen())
    ET.fromstring(picture)
    assert "http" not in picture.replace("http://www.w3.org/2000/svg", "")
    for width in (60, 80, 120):
        for ascii in (False, True):
            screen = render_comparison(comparison, "table", Screen(width=width, ascii=ascii))
            assert max(map(cell_len, screen.splitlines())) <= width
            assert screen.isascii() or not ascii
    colored = render_comparison(comparison, "table", Screen(width=80, color=True))
    assert "\x1b[" in colored
    assert "\x1b[" not in render_comparison(comparison, "table", Screen(width=80))


@pytest.mark.parametrize("form", ["table", "md"])
def test_the_break_even_is_only_shown_for_macs_and_flops(form):
    for quantity in COUNTED:
        shown = render_comparison(compare(quantity=quantity), form, Screen())
        assert ("break-even at 49 tokens" in shown) is (quantity in ("macs", "block", "flops")), quantity


def test_a_small_ratio_is_not_rounded_to_zero():
    found = compare(("cross", "vit"))
    assert found.points[-1].ratio["vit"] < 0.005
    shown = render_comparison(found, "table", Screen())
    assert "0.0015×" in shown
    assert "0.00×" not in shown


def test_a_long_range_is_thinned_only_on_a_terminal():
    found = compare(("vit", "swin"), {"resolution": range(7, 1407, 7)})
    assert len(found.points) == 200
    shown = thinned(found.points, found.reference)
    assert len(shown) <= MOST_ROWS + 2
    assert found.points[found.reference] in shown
    assert found.points[-1] in shown
    assert f"{len(shown)} of 200 points; --format csv has all" in render_comparison(found, "table", Screen(width=80))
    assert "of 200 points" not in render_comparison(found, "table", Screen())


def test_charts_handle_constant_steep_and_empty_lines():
    across, up = Axis("side (px)", str), Axis("MACs", str)
    constant = [Line("one", [(7, 5.0), (7000, 5.0)]), Line("two", [(7, 5.0), (7000, 5.0)])]
    rows = [row.plain for row in log_log(constant, across, up, Screen(width=60))]
    assert any(row.endswith("one, two") for row in rows)
    steep = [Line("a very long label", [(x, 10.0**x) for x in range(1, 200)])]
    for width in (60, 80, None):
        assert all(cell_len(row.plain) <= (width or 100) for row in log_log(steep, across, up, Screen(width=width)))
    assert "⣀" not in "".join(row.plain for row in log_log(steep, across, up, Screen(width=60, ascii=True)))
    for found in (compare(kernel="sdpa", quantity="attention"), compare(kernel="sdpa", quantity="peak")):
        assert "swin" in render_comparison(
            found, "table", Screen(width=80)
        )  # nothing to draw: all values are 0 or unknown


def test_global_attention_is_not_called_vit():
    compared = compare(("vit", "vit:kv_heads=1", "swin"), {"resolution": [14, 28]})
    assert list(compared.names.values()) == ["global attention", "global attention (kv_heads 1)", "swin"]
    assert compared.labels == ["vit", "vit:kv_heads=1", "swin"]  # as typed, in JSON and CSV
    for form in ("table", "md"):
        shown = render_comparison(compared, form, Screen(quiet=True))
        as_typed = shown.replace("(vit)", "").replace("(vit:kv_heads=1)", "")
        assert "vit" not in as_typed
    assert "global attention (kv_heads 1) (vit:kv_heads=1)" in render_comparison(compared, "table", Screen())


def timed(first, other):
    """Return a comparison with one measured point; `first` and `other` are quartile, median and quartile in ms."""
    compared = compare(("vit", "swin"), {"resolution": [14, 28]})
    point = compared.points[compared.reference]
    point.times = {
        label: Measured(median / 1e3, low / 1e3, high / 1e3, [median / 1e3] * 3)
        for label, (low, median, high) in {"vit": first, "swin": other}.items()
    }
    point.measured_ratio = measured_ratios(point.times, "vit")
    point.measured_interval = {"swin": (first[0] / other[2], first[2] / other[0])}
    compared.environment |= {"torch": "2.15.0", "device": "cpu", "cpu_capability": "AVX512", "threads": 1, "cores": 2}
    compared.environment |= {"allocator": "pinned"}
    return compared


def test_an_interval_that_includes_1_has_no_exact_ratio():
    apart, alike = timed((9, 10, 11), (5, 6, 7)), timed((7, 10, 13), (6, 8.13, 12))
    distinct, overlapping = (render_comparison(compared, "table", Screen()) for compared in (apart, alike))
    assert "1.2–2.2×" in distinct
    assert " and runs 1.2–2.2× faster, unstable: use a longer --budget." in distinct
    assert "≈" not in distinct
    assert "1.23×" not in overlapping
    assert "≈ 0.5–2.2×" in overlapping
    assert "≈: unclear which is faster, the interval of the ratio includes 1" in overlapping
    assert ". It is unclear which is faster: the interval of the ratio includes 1." in overlapping
    rows = list(csv.DictReader(io.StringIO(render_comparison(alike, "csv", Screen()))))
    assert [float(row["measured_vit_over_swin"] or 0) for row in rows] == pytest.approx([0, 10 / 8.13])


def test_the_finding_reports_where_the_leader_is_unclear():
    compared = compare(("vit", "swin"), {"resolution": [14, 28]})
    never = TimeCrossover("vit", "swin", "resolution", None, None, None, [14, 28], [])
    assert time_finding(compared, never) == (
        "unclear whether swin or global attention is faster: the interval of the ratio includes 1 everywhere"
    )
    once = TimeCrossover("vit", "swin", "resolution", None, None, "vit", [14], [])
    assert time_finding(compared, once) == (
        "global attention is faster than swin at all measured values of resolution except 14, "
        "where the interval of the ratio includes 1"
    )


# output of the command

WRONG = [
    (["vit"], "a comparison requires two attentions (got only vit); add one, as in attnscope compare vit swin"),
    (["vit", "swim"], "'swim' is not an attention or a preset; did you mean swin?"),
    (["vit", "vit"], "an attention must appear once (got vit twice); set a field of one, as in swin:window=14"),
    (["vit", "swin:windw=3"], "swin has no field 'windw'; did you mean window?"),
    (["vit", "swin:window=x"], "window must be an integer or height x width, such as 56 or 56x48 (got 'x')"),
    (["vit:kernel", "swin"], "vit:kernel: kernel requires a value; write vit:kernel=VALUE"),
    (
        ["vit", "swin:resolution=4"],
        "resolution must be the same for all attentions; set --resolution or --image for all",
    ),
    (["--over", "resolution"], "--over must be FIELD=RANGE (got resolution), such as --over resolution=14:224:2x"),
    (["--over", "windoww=3"], "--over must be a size of these attentions (got windoww); did you mean window?"),
    (["--over", "window=9:3"], "--over window=9:3 must start at or below its stop (got 9 and 3); swap them: 3:9:1"),
    (
        ["--over", "window=9", "--over", "window=3"],
        "--over must vary different fields (got window twice); use one list: window=4,7",
    ),
    (
        ["--over", "window=9", "--over", "dim=3", "--over", "heads=3"],
        "--over must vary at most 2 fields (got 3: window, dim, heads); keep two of them",
    ),
    (["--over", "window=7", "--window", "7"], "--over window and --window both set window; give only one of them"),
    (["--no-pad", "--over", "resolution=4:6"], "a grid side of 6 tokens is not divisible by --window 7; nearest: 7"),
    (
        ["vit", "swin:window=7", "swin:window=14", "--over", "window=4,7"],
        "--over window has no effect: swin:window=7 and swin:window=14 set window; remove it from swin:window=7",
    ),
    (["--over", "dim=97"], "--dim must be divisible by --heads 3 (got 97); nearest: 96 or 99"),
    (["--image", "225"], "--image 225 is not divisible by --patch 4; nearest: 224 or 228"),
    (["--image", "224", "--resolution", "56"], "both set the grid; give only one of them"),
    (["--patch", "16", "--resolution", "56"], "--patch requires --image; add one, such as --image 224"),
    (["vit", "vit:dim=192", "--window", "7"], "--window is not a field of vit or vit:dim=192; remove it"),
    (["--stages", "--dim", "48"], "--dim and the stages both set dim; give only one of them"),
    (["--quantity", "mac"], "--quantity mac is unknown; did you mean macs?"),
    (["--preset", "vit-b-16-224"], "--preset must be a network with stages (got vit-b-16-224, which has no depths)"),
    (["--time", "--device", "meta"], "--device meta computes nothing"),
    (["--time", "--device", "gpu"], "--device gpu is unknown"),
    (["--alloc", "jemalloc"], "--alloc jemalloc is unknown"),
]


@pytest.mark.parametrize(("words", "message"), WRONG, ids=[" ".join(words) for words, _ in WRONG])
def test_an_error_is_one_line_with_the_fix(attnscope, words, message):
    done = attnscope("compare", *words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("attnscope: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


def test_the_command_runs_without_flags(attnscope):
    screen = attnscope("compare", COLUMNS="80").stdout
    assert "13.8× fewer MACs" in screen
    assert "break-even at 49 tokens" in screen
    assert "next" not in attnscope("compare", "-q").stdout


def test_the_chart_is_written_to_the_output_path(attnscope, tmp_path):
    path = tmp_path / "chart.svg"
    done = attnscope("compare", "-o", str(path))
    assert (done.returncode, done.stdout) == (0, "")
    text = "".join(ET.parse(path).getroot().itertext())
    assert "swin:shift" in text
    assert "13.8×" in text
