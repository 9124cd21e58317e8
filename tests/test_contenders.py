"""Contenders of every kind in a comparison: presets, contenders that refuse a size or a setting, and all pairs."""

import json
from fractions import Fraction
from itertools import combinations

import pytest
from rich.cells import cell_len

from attnscope import UsageError, attentions
from attnscope.analyses.comparison import compare
from attnscope.analyses.contenders import CONTENDERS, arrange, read_contender
from attnscope.analyses.crossovers import LARGEST_SEARCHED
from attnscope.analyses.entries import Order, entries_of_specs, set_entries
from attnscope.analyses.fitting import TRAINING, read_limit, set_fits
from attnscope.analyses.gate import gate_comparison
from attnscope.analyses.paper_comparison import on_paper
from attnscope.analyses.quantities import COUNTED, QUANTITIES, block_macs, bounds_of, macs
from attnscope.analyses.timed_comparison import race
from attnscope.networks.presets import read_network
from attnscope.profiling.building import FORWARD, needed_bytes
from attnscope.render.compare import render_comparison
from attnscope.render.findings import finding, formulas
from attnscope.render.page import render_page
from attnscope.render.screen import Screen
from attnscope.reports.gate import CANNOT_TELL, FAIL, PASS

NETWORKS = ("vit-b-16-224", "swin-t-224", "vit-h-14-224")
MANY = ("vit", "swin", "nat:neighborhood=7", "pvt:reduction=4", "cswin", "xca", "hiera")


# networks


def test_a_preset_is_a_contender_with_the_costs_of_its_whole_network():
    found = compare(NETWORKS, {"image": [224, 448]}, batch=2)
    for point in found.points:
        assert point.grid is None
        for label in NETWORKS:
            side = point.at["image"]
            spec = read_network(label)
            spec = type(spec)(**{**spec.as_dict(), "image": (side, side), "batch": 2})
            assert point.costs[label] == spec.plan().macs
    assert found.agree
    assert found.contenders[0].words == "ViT, patch 16, dim 768, 12 heads, 12 blocks"
    assert found.part == "network"
    assert found.title == "MACs of the network · batch 2 · float32"


def test_a_preset_has_values_of_its_own_and_answers_to_the_name_of_timm():
    found = compare(("swin-t-224", "swin_tiny_patch4_window7_224:window=14", "preset:vit-b-16-224"), {"image": [224]})
    small, large, _ = found.points[0].costs.values()
    assert small < large
    assert found.contenders[1].words.endswith(", window 14")
    with pytest.raises(UsageError, match="image must be the same for all networks"):
        compare(("swin-t-224:image=448", "vit-b-16-224"))


def test_an_image_that_a_network_cannot_take_is_skipped_and_reported_with_its_name():
    found = compare(NETWORKS, {"image": [224, 240, 256, 300]})
    assert [point.at["image"] for point in found.points] == [224, 240, 256]
    assert [set(point.refused) for point in found.points] == [set(), {"vit-h-14-224"}, {"vit-h-14-224"}]
    assert found.points[1].costs["vit-h-14-224"] is None
    assert found.points[1].ratio["vit-h-14-224"] is None
    assert {(each.contender, each.count) for each in found.left_out} == {("vit-h-14-224", 3), ("vit-b-16-224", 1)}
    shown = " ".join(render_comparison(found, "table", Screen(width=120)).split())
    assert "vit-h-14-224 at image 240: image must be divisible by patch 14 (got 240); nearest: 238 or 252" in shown
    assert "vit-b-16-224 at image 300: image must be divisible by patch 16" in shown
    plain = json.loads(found.to_json())["points"]
    assert "refused" not in plain[0]
    assert list(plain[1]["refused"]) == ["vit-h-14-224"]


def test_the_break_even_of_networks_is_between_two_images_that_both_can_take():
    found = compare(("vit-b-16-224", "swin-b-224"), {"image": [224, 448]})
    (crossing,) = found.crossovers
    low, high = crossing.sides
    costs = [compare(("vit-b-16-224", "swin-b-224"), {"image": [side]}).points[0].costs for side in (low, high)]
    assert high - low == crossing.unit == 16
    assert costs[0]["vit-b-16-224"] < costs[0]["swin-b-224"]
    assert costs[1]["vit-b-16-224"] > costs[1]["swin-b-224"]
    assert (crossing.fewer, crossing.tokens) == ("swin-b-224", None)
    assert f"They break even more than once, the last time between {low} px and {high} px" in finding(found)
    once = compare(("vit-b-16-224", "vit-s-16-224"), {"image": [224, 448]})
    assert not once.crossovers[0].is_last_of_several
    always = compare(("vit-h-14-224", "swin-t-224"))
    assert "They have no break-even up to 4,088 px: swin-t-224 always needs fewer." in finding(always)


def test_every_counted_quantity_of_networks_has_a_value_or_a_lower_bound():
    for quantity in COUNTED:
        if quantity == "block":
            continue
        point = compare(("vit-b-16-224", "swin-t-224"), {"image": [224]}, quantity=quantity).points[0]
        for label in ("vit-b-16-224", "swin-t-224"):
            assert point.costs[label] or point.at_least[label] > 10**6, quantity
    bounded = compare(("vit-b-16-224", "swin-t-224"), {"image": [224]}, quantity="training")
    assert "≥ 133.3 MiB" in render_comparison(bounded, "table", Screen())


WRONG = [
    (("vit-b-16-224", "swin"), {}, {}, "networks must be compared with networks"),
    (("swin", "vit-b-16-22"), {}, {}, "'vit-b-16-22' is not an attention or a preset; did you mean vit-b-16-224?"),
    (("swin:", "vit"), {}, {}, "swin: has no setting after the colon; write swin or swin:FIELD=VALUE"),
    (("vit-b-16-224", "swin-t-224"), {}, {"quantity": "block"}, "block is of attentions"),
    (("vit-b-16-224", "swin-t-224"), {}, {"resolution": 14}, "resolution is not a field of"),
    (("vit", "swin"), {}, {"quantity": "latency"}, "latency requires times"),
]


@pytest.mark.parametrize(("labels", "over", "settings", "message"), WRONG)
def test_contenders_that_do_not_belong_together_are_refused(labels, over, settings, message):
    with pytest.raises(UsageError, match=message):
        compare(labels, over, **settings)


# contenders that refuse a size or a setting


def test_a_contender_that_cannot_take_a_shared_setting_has_the_nearest_one_that_it_can():
    found = compare(("vit", "cswin"), {"resolution": [14, 28]})
    (adapted,) = found.adaptations
    assert (adapted.contender, adapted.field, adapted.value, adapted.instead_of) == ("cswin", "heads", 2, 3)
    own = attentions.spec_class("cswin").on_grid((14, 14), {"dim": 96, "heads": 2})
    assert found.points[0].costs["cswin"] == macs(own)
    shown = " ".join(render_comparison(found, "table", Screen()).split())
    assert "adapted cswin has heads 2 instead of 3: heads must be even" in shown
    window = compare(("vit", "swin", "hiera"), {"resolution": [14, 28, 56]}, window=(7, 7))
    assert [(each.contender, each.value) for each in window.adaptations] == [("hiera", (8, 8))]


def test_a_setting_that_all_contenders_refuse_is_an_error():
    with pytest.raises(UsageError, match="dim must be divisible by heads 3"):
        compare(("vit", "swin"), dim=97)
    assert not compare(("vit", "swin")).adaptations


def test_a_size_that_one_contender_refuses_keeps_the_results_of_the_others():
    found = compare(("vit", "swin", "cswin"), {"heads": [1, 2, 3]}, resolution=14)
    assert not found.adaptations  # sizes that vary are not changed
    assert [set(point.refused) for point in found.points] == [{"cswin"}, set(), {"cswin"}]
    assert all(point.costs["swin"] for point in found.points)
    assert found.points[found.reference].at == {"heads": 2}
    for form in ("table", "md", "csv", "json", "svg"):
        assert render_comparison(found, form, Screen(width=80))


def test_a_baseline_that_refuses_a_size_has_no_ratio_there():
    found = compare(("cswin", "vit", "swin"), {"heads": [1, 2]}, resolution=14)
    assert found.points[0].ratio == {"vit": None, "swin": None}
    assert found.points[1].ratio["vit"] < 1


def test_hiera_keeps_the_dimension_that_all_contenders_share():
    found = compare(("vit", "hiera", "hiera:out-dim=192"), {"resolution": [56]})
    meeting = arrange(("vit", "hiera", "hiera:out-dim=192"), {"resolution": [56]}, {})
    specs = meeting.specs(meeting.place({"resolution": 56}))
    assert [specs[label].out_dim for label in ("hiera", "hiera:out-dim=192")] == [96, 192]
    assert found.points[0].costs["hiera"] < found.points[0].costs["hiera:out-dim=192"]


# break-evens of all pairs


def test_every_pair_has_a_break_even_or_is_always_cheaper_by_brute_force():
    """Check the fewer MACs of each pair on grids of its unit, on both sides of its break-even."""
    found = compare(MANY, {"resolution": [56]})
    labels = found.labels
    assert {(each.first, each.other) for each in found.crossovers} == set(combinations(labels, 2))
    values = {"dim": 96, "heads": 3}
    own = {each.contender: {each.field: each.value} for each in found.adaptations}
    cost_of = {"layer": macs, "block": block_macs}

    def cost(label, side, scope):
        contender = read_contender(label)
        return cost_of[scope](contender.at((side, side), {**values, **own.get(label, {})}))

    for each in found.crossovers:
        step = each.unit if not each.pads else 7 * each.unit
        sides = [side for side in range(step, 200, step) if side >= 14 and side % 7 == 0]
        below_above = each.tokens if isinstance(each.tokens, tuple) else (each.tokens or 0,) * 2
        for side in sides or [56]:
            lead = cost(each.other, side, each.scope) - cost(each.first, side, each.scope)
            if side**2 > below_above[1] and each.fewer:
                assert (lead > 0) == (each.fewer == each.first), (each, side)
            if each.always == 1:
                assert lead == 0
        assert each.searched_to is None or each.searched_to <= LARGEST_SEARCHED


def test_a_family_that_refuses_a_grid_is_not_said_to_pad_it():
    refuses = compare(("vit", "hiera"), {"resolution": [56]})
    assert {each.pads for each in refuses.crossovers} == {False}
    assert {each.unit for each in refuses.crossovers} == {8}
    leaves_out = compare(("vit", "pvt:reduction=4"), {"resolution": [56]})
    for found in (refuses, leaves_out):
        assert "padding" not in f"{finding(found)} {formulas(found)}"
        assert "no break-even: always fewer" in formulas(found)[0]
    assert "on grids with sides divisible by 8: hiera always needs fewer" in finding(refuses)
    both = compare(("hiera", "swin"), {"resolution": [56]}).crossovers[0]
    assert (both.pads, both.unit) == (True, 8)


def test_many_contenders_have_a_table_of_break_evens_instead_of_a_formula_each():
    found = compare(MANY, {"resolution": [56, 112]})
    for width in (60, 80, 120, None):
        screen = render_comparison(found, "table", Screen(width=width))
        assert "break-even in tokens: the row needs fewer MACs than the column" in " ".join(screen.split())
        assert "paper" not in screen
        assert max(map(cell_len, screen.splitlines())) <= (width or 1000)
    row = next(line for line in screen.splitlines() if line.strip().startswith("swin ") and "> 49" in line)
    assert row.split()[:3] == ["swin", ">", "49"]
    assert "break-even in" not in render_comparison(compare(MANY[:3]), "table", Screen())
    assert "hiera needs 19.3× fewer MACs than global attention, the fewest of 7" in finding(found)


def test_three_contenders_have_formulas_of_the_compared_quantity():
    found = compare(("vit", "swin", "xca"), {"resolution": [56]})
    screen = render_comparison(found, "table", Screen())
    assert "layer: xca / global attention" in screen
    assert "block" not in screen.partition("paper")[2]


# the memory


@pytest.mark.parametrize("labels", [("vit", "swin:window=8", "hiera"), ("swin-t-224", "vit-b-16-224")])
def test_the_largest_sizes_fit_in_the_memory_and_the_next_ones_do_not(labels):
    over = {"image": [224]}
    meeting, limit = arrange(labels, over, {"batch": 2}), 2**30
    comparison = compare(labels, over, batch=2)
    set_fits(comparison, meeting, limit)
    assert [fit.contender for fit in comparison.fits] == list(labels)
    place = meeting.place({"image": 224})
    for contender, fit in zip(meeting.contenders, comparison.fits, strict=True):
        spec = contender.at(place.grid, place.values)
        unit = spec.patch[0] if contender.is_network else spec.neighbourhood.alignment[0]
        for options, batch, side in (
            (FORWARD, fit.batch, fit.side),
            (TRAINING, fit.training_batch, fit.training_side),
        ):
            for value, more in ((batch, 1), (side, unit)):
                sized = [
                    contender.at(place.grid, {**place.values, "batch": size})
                    if value is batch
                    else contender.at((size, size), place.values)
                    for size in (value, value + more)
                ]
                fits = [needed_bytes(each.plan(), options) <= limit for each in sized]
                assert fits == [True, False], (fit, value)
        assert fit.is_exact is not contender.is_network  # the workspace of a convolution is unknown
    screen = render_comparison(comparison, "table", Screen(width=80))
    assert "largest that fits in 1.0 GiB: batch at " in screen
    assert ("≤" in screen.partition("largest that fits")[2]) is contender.is_network


def test_a_memory_in_which_nothing_fits_has_no_sizes():
    comparison, meeting = compare(over={"resolution": [56]}), arrange(CONTENDERS, {"resolution": [56]}, {})
    set_fits(comparison, meeting, 1000)
    assert {(fit.batch, fit.training_side) for fit in comparison.fits} == {(None, None)}
    screen = render_comparison(comparison, "table", Screen(width=None))
    note = "nothing fits in 1000 Bytes; at batch 1 and 56×56 tokens, global needs "
    for shown in (screen, render_comparison(comparison, "md", Screen()), render_page(comparison)):
        assert note in shown
    assert "–" not in screen.partition(note)[2].partition(" result ")[0]
    spec = meeting.specs(meeting.place({"resolution": 56}))["vit"]
    (fit, *_) = comparison.fits
    assert (fit.needs, fit.training_needs) == tuple(needed_bytes(spec.plan(), run) for run in (FORWARD, TRAINING))
    set_fits(comparison, meeting, fit.needs)
    assert comparison.fits[0].batch == 1
    assert "nothing fits" not in render_comparison(comparison, "table", Screen(width=None))
    assert [read_limit(text) for text in ("16GiB", "800MB", "5k")] == [2**34, 8 * 10**8, 5000]
    for text in ("lots", "0", "-1", "16GiBs"):
        with pytest.raises(UsageError, match="memory_limit must be a size, such as 16GiB"):
            read_limit(text)


def test_the_progress_of_a_range_is_reported_for_each_point():
    over, seen = {"resolution": range(14, 140, 14)}, []
    meeting = arrange(CONTENDERS, over, {})
    comparison = on_paper(meeting, progress=lambda *each: seen.append(each))
    assert seen == [("9 points", index / 9) for index in range(9)]
    entries_of_specs(comparison, meeting, ["macs"], lambda *each: seen.append(each))
    assert seen[9:] == seen[:9]


# measured quantities, and gates over a range


@pytest.mark.parametrize("quantity", ["latency", "throughput", "latency-per-mac"])
def test_a_measured_quantity_follows_from_the_median_time(quantity):
    settings = {"dim": 24, "heads": 2, "window": (2, 2), "batch": 2}
    meeting = arrange(("vit", "swin"), {"resolution": [2, 4]}, settings)
    comparison = on_paper(meeting, quantity, is_timed=True)
    assert {cost for point in comparison.points for cost in point.costs.values()} == {None}
    race(comparison, meeting, device="cpu", budget=0.01)
    for point in comparison.points:
        specs = meeting.specs(meeting.place(point.at))
        for label, time in point.times.items():
            seconds = time.median_s
            expected = {"latency": seconds, "throughput": 2 / seconds, "latency-per-mac": seconds / macs(specs[label])}
            assert point.costs[label] == pytest.approx(expected[quantity])
        assert point.ratio["swin"] == pytest.approx(point.costs["vit"] / point.costs["swin"])
    for form in ("table", "md", "csv", "json", "svg"):
        assert render_comparison(comparison, form, Screen(width=80))
    order = Order(comparison, "time<1s", "-time", True)
    set_entries(comparison, entries_of_specs(comparison, meeting, order.quantities), order)
    times = [entry.values["latency"] for entry in comparison.entries]
    assert times == sorted(times, reverse=True)
    assert len(times) == 4
    header = render_comparison(comparison, "csv", Screen()).splitlines()[0].split(",")
    assert header[:5] == ["resolution", "contender", "macs", "params", "bytes_peak"]
    assert {"median_s", "measured_vit_over"} <= set(header)
    assert "contender" in render_comparison(comparison, "table", Screen(width=80))
    assert comparison.to_dataframe().shape[0] == 4


def test_a_gate_covers_every_point_and_what_was_not_compared():
    def judge(labels, over, limit, **settings):
        meeting = arrange(labels, over, {}, **settings)
        comparison = on_paper(meeting)

        def count(point, label, quantity):
            return bounds_of(QUANTITIES[quantity], meeting.specs(meeting.place(point.at))[label])

        return gate_comparison(comparison, {"macs": Fraction(limit)}, count)

    assert judge(("vit", "swin"), {"resolution": [14, 28]}, 1).verdict == PASS
    fails = judge(("swin", "vit"), {"resolution": [7, 14]}, 1)
    assert [check.verdict for check in fails.checks] == [PASS, FAIL]
    assert "macs of vit at resolution 14 9,069,312 → 14,601,216 (1.61×, above 1×)" in fails.line
    skipped = judge(("vit", "swin"), {"resolution": [14, 15]}, 1, pad=False)
    assert skipped.verdict == CANNOT_TELL
    assert "swin at resolution 15 was not compared: a grid side of 15 tokens" in skipped.line
    refused = judge(("vit", "swin", "cswin"), {"heads": [1, 2]}, 1)
    assert (refused.verdict, len(refused.checks)) == (CANNOT_TELL, 4)
    unknown = judge(("vit", "swin", "cswin"), {"heads": [2, 4]}, 1)
    assert unknown.verdict == PASS
