"""Tests of plans on several ranks: bytes by the papers' formulas, uneven shards, and refusals with legal values."""

import json
import shlex
import subprocess
import sys
from collections.abc import Callable

import pytest

from attnscope import attentions, networks
from attnscope.analyses.shard import plan_shards, plans_for, usual_plan
from attnscope.attentions.cswin.spec import CSWinSpec
from attnscope.attentions.linear.spec import LinearSpec
from attnscope.attentions.maxvit.spec import MaxViTSpec
from attnscope.attentions.nat.spec import NATSpec
from attnscope.attentions.pvt.spec import PVTSpec
from attnscope.attentions.separable.spec import SeparableSpec
from attnscope.attentions.spec import Spec
from attnscope.attentions.swin.spec import SwinSpec
from attnscope.attentions.swin3d.spec import Swin3DSpec
from attnscope.attentions.twins.spec import TwinsSpec
from attnscope.attentions.vit.spec import ViTSpec
from attnscope.attentions.xca.spec import XCASpec
from attnscope.core.errors import UsageError
from attnscope.networks.vit.spec import ViTNetworkSpec
from attnscope.plan.links import Device, Link, parse_device, parse_link, spell_device, spell_link
from attnscope.plan.memory import Memory
from attnscope.plan.mesh import KINDS, chunk, parse_mesh
from attnscope.plan.sharding import ShardedPlan
from attnscope.render.screen import Screen
from attnscope.render.sharding import render_sharding, time_lines
from attnscope.reports.sharding import ShardingReport
from tests import schema

VIT = ViTSpec(tokens=192, dim=384, heads=6, batch=2)
U = 2 * 192 * 384 * 4
"""Bytes of one activation of VIT."""
SWIN = SwinSpec(shift=True)


def sends(spec: Spec, plan: str) -> int:
    return plan_shards(spec, plan).totals.bytes_sent


@pytest.mark.parametrize("ranks", [2, 3, 6])
@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("tp", lambda p: 2 * (p - 1) * U // p),
        ("sp", lambda p: 2 * (p - 1) * U // p),
        ("ulysses", lambda p: 4 * (p - 1) * U // p**2),
        ("ring", lambda p: 2 * (p - 1) * U // p),
        ("context", lambda p: 2 * (p - 1) * U // p),
    ],
)
def test_bytes_are_those_of_the_papers(name: str, formula: Callable[[int], int], ranks: int) -> None:
    report = plan_shards(VIT, f"{name}={ranks}")
    assert report.totals.bytes_sent == formula(ranks)
    assert report.totals.macs * ranks == VIT.plan().macs


def kinds(report: ShardingReport, side: str) -> dict[str, list[tuple[str, str]]]:
    """Return the collectives of each step that has one."""
    found = {row.name: [(each.kind, each.tensor) for each in getattr(row, side)] for row in report.steps}
    return {name: each for name, pairs in found.items() if (each := [pair for pair in pairs if pair[0] != "copy"])}


def test_collectives_follow_from_the_letters() -> None:
    report = plan_shards(VIT, "tp=2")
    assert (kinds(report, "before"), kinds(report, "after")) == ({}, {"output": [("all-reduce", "y")]})
    report = plan_shards(VIT, "sp=2")
    assert kinds(report, "before") == {"project": [("all-gather", "x")]}
    assert kinds(report, "after") == {"output": [("reduce-scatter", "y")]}
    report = plan_shards(VIT, "ulysses=2")
    assert kinds(report, "before") == {
        "score": [("all-to-all", "q"), ("all-to-all", "k")],
        "mix": [("all-to-all", "v")],
        "merge_heads": [("all-to-all", "heads")],
    }
    report = plan_shards(VIT, "ring=2")
    assert kinds(report, "before") == {"score": [("ring", "k")], "mix": [("ring", "v")]}


def test_an_mlp_is_cut_along_its_hidden_channels() -> None:
    block = networks.asked("vit", {}, "block")
    u = 197 * 768 * 4
    report = plan_shards(block, "tp=4")
    assert kinds(report, "after") == {"output": [("all-reduce", "y")], "contract": [("all-reduce", "branch")]}
    assert report.totals.bytes_sent == 2 * (2 * 3 * u // 4)
    assert report.totals.macs * 4 == block.plan().macs
    report = plan_shards(block, "sp=3")
    assert [name for name, _ in kinds(report, "before").items()] == ["project", "expand"]
    rows = {row.name: row.local_outputs for row in report.steps}
    assert rows["residual1"] == [[(1, 66, 768)], [(1, 65, 768)]]
    assert sends(block, "ulysses=4") == sends(ViTSpec(), "ulysses=4")


def test_an_mbconv_is_cut_along_its_hidden_channels() -> None:
    block = networks.asked("maxvit", {}, "block")
    report = plan_shards(block, "tp=2")
    u = 56 * 56 * 64 * 4
    after = [(row.name, each.kind, each.tensor) for row in report.steps for each in row.after]
    attention = [("output", "all-reduce", "windows"), ("contract", "all-reduce", "branch")]
    mbconv = [("reduce", "all-reduce", "gate"), ("project", "all-reduce", "planes")]
    assert after == [*mbconv, *attention, *attention]
    assert report.totals.bytes_sent == 5 * u + 16 * 4  # MBConv, two attentions and two MLPs; 16 squeezed channels
    assert report.totals.macs * 2 == block.plan().macs
    shortcut, mix = report.steps[0], report.steps[6]
    assert (shortcut.name, shortcut.local_outputs) == ("pool_shortcut", [[(1, 64, 56, 56)]])
    assert (mix.name, mix.local_outputs, mix.params) == ("mix", [[(1, 128, 56, 56)]], 9 * 128)
    network = networks.asked("maxvit", {"depths": (1, 1, 2, 1)}, "model")
    parts = {row.name: row for row in plan_shards(network, "tp=2").steps}
    assert {name for name, row in parts.items() if row.whole} == {"stem", "head"}
    assert parts["stage 1, first block"].bytes_sent == report.totals.bytes_sent


def test_ranks_gather_the_scores_of_tokens_and_sum_their_contexts() -> None:
    report = plan_shards(SeparableSpec(), "windows=2")
    assert kinds(report, "before")["softmax"] == [("all-gather", "query")]
    assert kinds(report, "after")["sum_context"] == [("all-reduce", "context")]
    scores, context = 32 * 32 * 4, 128 * 4 * 4  # a score a token; a context for each place of a patch of 2×2
    assert report.totals.bytes_sent == scores // 2 + context
    assert report.totals.macs * 2 == report.totals.whole_macs


@pytest.mark.parametrize(("scales", "reach"), [((5,), 2), ((3, 7), 3), ((7, 3), 3)])
def test_rows_of_linear_attention_send_the_rows_that_its_convolutions_read(scales: tuple[int, ...], reach: int) -> None:
    spec = LinearSpec(scales=scales)
    report = plan_shards(spec, "windows=2")
    heads = 8 * (1 + len(scales))
    context = heads * 16 * 17 * 4
    assert report.totals.bytes_sent == reach * 14 * 384 * 4 + context
    assert kinds(report, "after") == {"sum_context": [("all-reduce", "context")]}
    assert report.totals.macs * 2 == spec.plan().macs


def test_windows_of_a_block_send_the_halos_of_its_attention() -> None:
    assert sends(networks.asked("swin", {"block": 1}, "block"), "windows=4") == 0
    assert sends(networks.asked("swin", {"block": 2}, "block"), "windows=4") == 129_024
    wide = networks.asked("swin", {"block": 2, "heads": 4, "dim": 96}, "block")
    assert sends(wide, "tp=2") == 2 * (2 * (56 * 56 * 96 * 4) // 2)


@pytest.mark.parametrize(
    ("name", "values", "plan", "sent"),
    [
        ("hiera", {"stage": 2}, "windows=4", 0),  # c is 96 channels in the attention, and 192 in the MLP
        ("pvt", {}, "context=2", 2 * 28 * 64 * 4 + 56 * 512 * 4),  # keys and values of 4 rows, and a row of hidden
    ],
)
def test_a_letter_may_have_another_size_in_the_next_layer(
    name: str, values: dict[str, int], plan: str, sent: int
) -> None:
    block = networks.asked(name, values, "block")
    assert sends(block, plan) == sent
    mesh = parse_mesh(plan)
    sharded = ShardedPlan.of(block.plan(), mesh, block.neighbourhood)
    assert sum(step.macs for rank in range(sharded.ranks) for step in sharded.of_rank(rank)) == block.plan().macs


def test_mask_units_with_pooled_queries_are_cut_between_units() -> None:
    block = networks.asked("hiera", {"stage": 2}, "block")
    report = plan_shards(block, "windows=4")
    rows = {row.name: row.local_outputs for row in report.steps}
    assert rows["widen"] == [[(1, 16, 56, 192)], [(1, 8, 56, 192)]]  # 7 rows of units, 8 tokens each
    assert rows["residual2"] == [[(1, 8, 28, 192)], [(1, 4, 28, 192)]]
    assert plan_shards(block, "tp=2").totals.macs > block.plan().macs // 2  # each rank widens all of the residual


U_OF_STAGE = [56 * 56 * 96 * 4, 28 * 28 * 192 * 4, 14 * 14 * 384 * 4, 7 * 7 * 768 * 4]
"""Bytes of one activation of each stage of Swin-T."""


def test_a_network_is_the_sum_of_its_parts_and_of_what_moves_between_them() -> None:
    swin = networks.asked("swin", {}, "model")
    report = plan_shards(swin, "windows=2", link=parse_link("nvlink4"), device=parse_device("h100", "float32"))
    shifts = 2 * 3 * (56 * 96 + 28 * 192 + 3 * 14 * 384) * 4  # stage 3 has three shifted blocks
    moved = 1 * 14 * 384 * 4 + 4 * 7 * 768 * 4  # rows of 7 and 7 become 8 and 6 to be merged; stage 4 has one window
    assert report.totals.bytes_sent == shifts + moved
    assert [row.name for row in report.steps if row.whole] == ["stage 4, W-MSA block", "norm and head"]
    assert report.totals.collectives == 2 * 5 + 2
    assert report.totals.communication_s == pytest.approx(report.totals.bytes_sent / 450e9)
    heads = plan_shards(swin, "tp=3")
    assert heads.totals.bytes_sent == sum(
        depth * 2 * 4 * u // 3 for depth, u in zip((2, 2, 6, 2), U_OF_STAGE, strict=True)
    )


@pytest.mark.parametrize(
    ("name", "plan"),
    [
        ("swin", "windows=1"),
        ("vit", "sp=1"),
        ("nat", "rows=1"),
        ("hiera", "windows=1"),
        ("sam", "windows=1"),
        ("pvt", "tp=1"),
    ],
)
def test_one_rank_has_the_whole_network(name: str, plan: str) -> None:
    network = networks.asked(name, {}, "model")
    report = plan_shards(network, plan)
    assert (report.totals.bytes_sent, report.totals.macs) == (0, network.plan().macs)
    assert report.totals.params == network.plan().params
    assert [row.whole for row in report.steps if "block" in row.name and row.whole] == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scope", ["attention", "block"])
@pytest.mark.parametrize("name", attentions.names())
def test_one_rank_cuts_nothing_by_any_plan(name: str, scope: str, kind: str) -> None:
    """Also by a plan that is illegal on more ranks, such as tp for the batch norm of linear attention."""
    spec = attentions.spec_class(name)() if scope == "attention" else networks.asked(name, {}, scope)
    totals = plan_shards(spec, f"{kind}=1").totals
    assert (totals.bytes_sent, totals.collectives, totals.macs) == (0, 0, spec.plan().macs)
    assert totals.params == spec.plan().params


def test_live_bytes_of_a_block_are_those_of_one_device_on_one_rank() -> None:
    for name, plan in (("swin", "windows=1"), ("vit", "tp=1"), ("nat", "tp=1")):
        block = networks.asked(name, {}, "block")
        assert plan_shards(block, plan).totals.peak_bytes == Memory(block.plan()).peak


def test_live_bytes_of_a_ring_are_a_lower_bound() -> None:
    totals = plan_shards(VIT, "ring=2").totals
    gathered = plan_shards(VIT, "context=2").totals
    q = VIT.batch * 96 * 384 * 4
    scores = VIT.batch * 6 * 96 * 96 * 4
    assert totals.peak_bytes is None
    assert 3 * q + 2 * scores <= totals.peak_bytes_at_least < (gathered.peak_bytes or 0)


def test_a_bias_table_of_a_block_is_computed_on_each_rank() -> None:
    assert sends(networks.asked("swinv2", {}, "block"), "windows=4") == 0


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_a_halo_does_not_depend_on_the_number_of_ranks(ranks: int) -> None:
    assert sends(SWIN, f"windows={ranks}") == 129_024  # two rolls of 3 rows of 56 tokens of 96 channels
    assert sends(SwinSpec(), f"windows={ranks}") == 0


def test_a_grid_of_ranks_sends_rows_and_columns() -> None:
    s, h, w, c, e = 3, 56, 56, 96, 4
    assert sends(SWIN, "windows=2x2") == 2 * (s * w // 2 + s * h // 2) * c * e
    assert sends(SWIN, "windows=4x2") == 2 * (s * w // 2 + s * h // 4) * c * e


def test_neighbourhoods_send_the_rows_of_their_reach() -> None:
    w, c, e = 56, 64, 4
    assert sends(NATSpec(), "rows=4") == 2 * 3 * w * 2 * c * e  # keys and values of 3 rows to both sides
    assert sends(NATSpec(), "rows=2") == 3 * w * 2 * c * e  # each rank has one neighbour
    assert sends(NATSpec(dilation=2), "rows=4") == 2 * 6 * w * 2 * c * e


def test_a_sparse_grid_is_transposed_there_and_back() -> None:
    report = plan_shards(MaxViTSpec(grid=True, partition=8, resolution=64), "rows=4")
    assert report.totals.bytes_sent == 2 * 3 * (64 * 64 * 64 * 4) // 4**2
    assert kinds(report, "before") == {"partition_grid": [("all-to-all", "tokens")]}
    assert kinds(report, "after") == {"reverse_grid": [("all-to-all", "tokens")]}


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_vertical_stripes_are_exchanged_for_rows(ranks: int) -> None:
    report = plan_shards(CSWinSpec(), f"windows={ranks}")
    u = 56 * 56 * 64 * 4
    assert report.totals.bytes_sent == 2 * (ranks - 1) * u // ranks**2  # half of q, k, v and of the output
    exchanged = [
        (row.name, each.kind, each.tensor) for row in report.steps for each in row.before if each.kind != "copy"
    ]
    assert exchanged == [("partition", "all-to-all", "qkv"), ("concatenate", "all-to-all", "columns")]
    assert report.totals.macs * ranks == CSWinSpec().plan().macs


def test_the_heads_of_both_directions_are_cut() -> None:
    report = plan_shards(CSWinSpec(heads=8), "tp=4")
    assert kinds(report, "after") == {"output": [("all-reduce", "tokens")]}
    assert {row.local_outputs[0][0][1] for row in report.steps if row.name == "score"} == {1}
    assert report.totals.macs * 4 == CSWinSpec(heads=8).plan().macs


def test_axes_of_a_mesh_combine() -> None:
    spec = SwinSpec(shift=True, heads=4, dim=96)
    halo = sends(spec, "windows=2")
    reduced = 2 * (56 * 56 * 96 * 4 // 2) // 2
    assert sends(spec, "tp=2,windows=2") == halo + reduced
    assert plan_shards(spec, "tp=2,windows=2").totals.macs * 4 == spec.plan().macs


def test_shared_keys_are_cut_with_the_heads() -> None:
    report = plan_shards(ViTSpec(kv_heads=4), "tp=4")
    rows = {row.name: row.local_outputs[0] for row in report.steps}
    assert rows["split_grouped"] == [(1, 3, 197, 64), (1, 1, 197, 64), (1, 1, 197, 64)]
    with pytest.raises(UsageError, match=r"4 key/value heads on 6 ranks\); 2 or 4"):
        plan_shards(ViTSpec(kv_heads=4), "tp=6")


def test_uneven_shards_are_those_of_torch_chunk() -> None:
    assert chunk(197, 2) == (99, 98)
    assert chunk(197, 4) == (50, 50, 50, 47)
    report = plan_shards(ViTSpec(), "sp=2")
    assert report.steps[-1].local_outputs == [[(1, 99, 768)], [(1, 98, 768)]]
    assert report.steps[0].before[0].bytes_sent == 99 * 768 * 4  # the gather is padded


def test_ranks_of_an_all_to_all_have_sums_that_match() -> None:
    sharded = ShardedPlan.of(ViTSpec().plan(), parse_mesh("ulysses=4"), ViTSpec().neighbourhood)
    sent = [sum(step.bytes_sent for step in sharded.of_rank(rank)) for rank in range(4)]
    assert sent[0] == sent[1] == sent[2] == (3 * 50 * 9 + 147 * 3) * 64 * 4
    assert sent[3] == (3 * 47 * 9 + 150 * 3) * 64 * 4


def test_padded_grids_are_cut_between_windows() -> None:
    report = plan_shards(SwinSpec(resolution=(50, 56), window=8), "windows=4")
    rows = {row.name: row.local_outputs for row in report.steps}
    assert rows["crop"] == [[(1, 16, 56, 96)], [(1, 2, 56, 96)]]
    assert rows["partition"] == [[(14, 64, 96)], [(7, 64, 96)]]


@pytest.mark.parametrize(
    ("spec", "plan", "message"),
    [
        (ViTSpec(), "tp=8", "12 heads on 8 ranks); 2, 3, 4, 6 or 12"),
        (ViTSpec(), "ulysses=5", "12 heads on 5 ranks); 2, 3, 4, 6 or 12"),
        (SwinSpec(), "windows=5", "8 rows of windows on 5 ranks); 2, 3, 4 or 8"),
        (SwinSpec(resolution=7), "windows=2", "1 row of windows on 2 ranks); use tp=3"),
        (SwinSpec(resolution=7, heads=1), "windows=2", "no plan for 2 to 16 ranks is legal"),
        (TwinsSpec(), "ring=5", "8 rows of tokens on 5 ranks); 2, 3, 4 or 8"),
        (LinearSpec(), "tp=57", "8 heads of each branch on 57 ranks); use windows=14"),
        (SeparableSpec(), "tp=4", "this attention has none; use windows=4"),
        (ViTSpec(), "tp=2,windows=2", "is a sequence; use ulysses=4 or tp=4 or context=4 or ring=4 or sp=4"),
        (XCASpec(), "ring=4", "normalizes an axis that it cuts; use sp=4 or tp=4"),
        (LinearSpec(), "windows=2x2", "aggregate reads rows and columns of other ranks; use windows=4"),
        (SwinSpec(), "windows=2x16", "8 columns of windows on 16 ranks); 2, 3, 4 or 8"),
        (ViTSpec(tokens=197), "ring=150", "197 tokens on 150 ranks); nearest: 99 or 197"),
        (ViTSpec(), "windows=2", "is a sequence; use tp=2 or ulysses=2 or context=2 or ring=2 or sp=2"),
        (PVTSpec(), "windows=2x2", "is a sequence; use context=4 or ring=4"),
        (SwinSpec(), "ring=2", "use windows"),
        (SwinSpec(), "sp=2", "is a grid; use windows=2"),
        (SwinSpec(), "tp=2,ring=2", "3 heads on 2 ranks); use windows=2x2 or windows=4"),
        (SwinSpec(), "tp=2,windows=2", "3 heads on 2 ranks); 3"),
        (Swin3DSpec(), "windows=2", "this attention has a volume; use tp=3"),
        (LinearSpec(), "tp=3", "8 heads of each branch on 3 ranks); use windows=3"),
        (NATSpec(), "rows=20", "56 rows on 20 ranks); nearest: 19 or 28"),
        (NATSpec(), "rows=2x2", "and this attention has none; use "),
        (ViTSpec(rope="axial"), "ring=2", "rotate_queries takes"),
        (ViTSpec(rope="mixed"), "ring=2", "rotate_queries takes sin for all tokens, which it does not cut; use"),
        (ViTSpec(rope="mixed"), "ulysses=2", "rotate_queries takes"),
        (PVTSpec(resolution=15, reduction=4), "ring=2", "reduce runs convolution, which mixes tokens"),
        (PVTSpec(), "context=8", "7 rows of tokens on 8 ranks); 2, 3, 4 or 7"),
        (SeparableSpec(), "windows=2x2", "softmax normalizes an axis that it cuts; use windows=4"),
        (XCASpec(), "context=2", "normalize normalizes an axis that it cuts"),
        (CSWinSpec(heads=4), "tp=4", "2 heads of each branch on 4 ranks); 2"),
        (CSWinSpec(), "tp=2", "1 head of each branch on 2 ranks); use windows=2"),
        (CSWinSpec(), "windows=2x2", "windows of this attention span all columns; use windows=4"),
        (CSWinSpec(resolution=(14, 4), stripe=2), "windows=3", "2 windows that span all rows on 3 ranks); 2"),
        (CSWinSpec(resolution=(4, 2), stripe=2), "windows=2", "1 window that spans all rows on 2 ranks); no plan"),
        (CSWinSpec(resolution=7, stripe=7), "windows=2", "1 row of windows on 2 ranks); use tp=2"),
        (ViTSpec(), "tp=2,sp=2", "both cut the heads"),
        (ViTSpec(), "ring=2,context=2", "both cut the tokens"),
        (ViTSpec(), "tp=2,tp=2", "each name once"),
        (ViTSpec(), "dp=2", "must be a list of name=ranks"),
        (ViTSpec(), "tp", "must have a number of ranks"),
        (ViTSpec(), "tp=2x2", "must have a number of ranks"),
        (ViTSpec(), "tp=0", "between 1 and"),
        (ViTSpec(), "ring=99999999999999999999", "between 1 and 65536 ranks (got 99999999999999999999)"),
        (ViTSpec(), f"ring={'9' * 5000}", "must have a number of ranks"),
        (ViTSpec(), "tp = 5", "12 heads on 5 ranks"),
        (ViTSpec(), "", "must be a list of name=ranks"),
    ],
)
def test_an_illegal_plan_says_why_and_what_is_legal(spec: Spec, plan: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        plan_shards(spec, plan)
    assert message in str(error.value)


def test_a_block_with_planes_has_no_rows_of_windows() -> None:
    with pytest.raises(UsageError, match="its input has channels first, and its windows have them last; use tp=2"):
        plan_shards(networks.asked("maxvit", {}, "block"), "windows=2")


def test_a_group_norm_needs_all_tokens() -> None:
    with pytest.raises(UsageError, match="norm1 normalizes all tokens and channels together"):
        plan_shards(networks.asked("separable", {}, "block"), "windows=2")


def test_other_plans_have_their_bytes_or_a_reason() -> None:
    others = {other.plan: other for other in plan_shards(ViTSpec(), "ring=5").others}
    assert set(others) == {"tp=5", "sp=5", "ulysses=5", "context=5"}
    assert others["context=5"].bytes_sent == sends(ViTSpec(), "ring=5")
    assert others["tp=5"].bytes_sent is None
    assert "12 heads on 5 ranks" in others["tp=5"].why


def test_rows_and_windows_are_names_of_one_plan() -> None:
    by_rows, by_windows = (plan_shards(NATSpec(), f"{name}=4") for name in ("rows", "windows"))
    assert by_rows.totals == by_windows.totals
    assert [other.plan for other in by_rows.others] == [other.plan for other in by_windows.others]


def test_times_follow_from_rates() -> None:
    report = plan_shards(VIT, "ring=2", link=parse_link("1GB/s,5us"), device=parse_device("1TFLOPS,1TB/s", "float32"))
    assert report.totals.communication_s == pytest.approx(report.totals.bytes_sent / 1e9 + 2 * 5e-6)
    assert report.totals.bound_s is not None
    assert report.totals.bound_s >= 2 * report.totals.macs / 1e12
    assert parse_link("nvlink4").bytes_per_s == 450e9
    for text in ("5", "GB/s", "nvlink9", "50GB/s,5", "50GB/s,fast", "-1GB/s"):
        with pytest.raises(UsageError, match="link"):
            parse_link(text)
    for text in ("h9", "5TFLOPS", "5,5", "0TFLOPS,1TB/s"):
        with pytest.raises(UsageError, match="peak"):
            parse_device(text, "float32")


def test_the_next_command_has_what_the_report_lacks() -> None:
    rates = {"link": parse_link("1GB/s,5us"), "device": parse_device("h100", "float32")}
    reports = [plan_shards(SwinSpec(), "windows=4", **given) for given in ({}, rates, {**rates, "backward": True})]
    flags = [report.next[0].removeprefix("attnscope shard swin --plan windows=4 ") for report in reports]
    given = "--link 1GB/s,5us --peak h100"
    assert flags == ["--link 50GB/s,5us --peak h100", f"{given} --backward", f"{given} --backward -o shard.html"]
    assert ["nothing to send on 1.00 GB/s" in str(time_lines(report)) for report in reports] == [False, True, True]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_next_command_keeps_the_rates_and_the_backward(dtype: str) -> None:
    spec = ViTSpec(dtype=dtype)
    for link, peak in (
        ("nvlink4,5us", "60TFLOPS,2TB/s"),
        ("50 GB/s,20us", "1.5TFLOPS,1TB/s"),
        ("pcie5", "1GFLOPS,1GB/s"),
    ):
        rates = {"link": parse_link(link), "device": parse_device(peak, dtype)}
        report = plan_shards(spec, "tp=4", **rates, backward=True)
        assert report.next[1] == "sends fewer bytes"
        words = shlex.split(report.next[0])
        assert words[words.index("--link") + 1] == link
        assert words[words.index("--peak") + 1] == peak
        assert words[-1] == "--backward"
        suggested = plan_shards(spec, "ulysses=4", link=rates["link"])
        assert suggested.next[1] == "the time that it takes"
        words = shlex.split(suggested.next[0])
        assert words[words.index("--link") + 1] == link
        parse_device(words[words.index("--peak") + 1], dtype)


def test_a_link_and_a_device_of_unknown_names_are_spelled_by_their_rates() -> None:
    link, device = Link("mine", 3e9, 2e-6), Device("mine", 5e12, 1e12)
    assert (spell_link(link), spell_device(device, "float32")) == (
        "3000000000B/s,2000ns",
        "5000000000000FLOPS,1000000000000B/s",
    )
    assert parse_link(spell_link(link)).bytes_per_s == 3e9
    assert parse_device(spell_device(device, "float32"), "float32").flops_per_s == 5e12


def test_the_gradient_of_each_collective_is_its_inverse() -> None:
    for plan in ("tp=2", "sp=2", "ulysses=2", "ring=2"):
        totals = plan_shards(VIT, plan).totals
        assert totals.backward_bytes_sent == totals.bytes_sent
    assert plan_shards(VIT, "tp=2").totals.gradient_bytes_sent == 0
    assert plan_shards(VIT, "ulysses=2").totals.gradient_bytes_sent == VIT.plan().params * 4


def test_a_thousand_ranks_and_a_million_tokens_need_no_torch() -> None:
    code = (
        "import sys; from attnscope.cli import main; sys.argv = ['attnscope', 'shard', 'vit', '--tokens', '1048576', "
        "'--heads', '1024', '--dim', '65536', '--plan', 'ulysses=1024', '--no-verify', '--json']\n"
        "try: main()\nexcept SystemExit: pass\nassert 'torch' not in sys.modules"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    schema.check(found.stdout)
    report = json.loads(found.stdout)
    assert report["schema"] == 1
    assert report["totals"]["bytes_sent"] == 4 * 1023 * (1048576 * 65536 * 4) // 1024**2


def test_the_command_prints_the_steps_of_a_rank() -> None:
    command = [
        "shard",
        "swin",
        "--shift",
        "--plan",
        "windows=2x2",
        "--backward",
        "--no-verify",
        "--link",
        "nvlink4,5us",
        "--peak",
        "h100",
    ]
    found = subprocess.run([sys.executable, "-m", "attnscope", *command], capture_output=True, text=True, check=True)
    assert "halo tokens" in found.stdout
    assert "129,024 B by one rank" in found.stdout
    assert "communication exceeds computation" in found.stdout
    command = ["shard", "--preset", "swin-t-224", "--scope", "model", "--plan", "windows=4", "--json"]
    found = subprocess.run([sys.executable, "-m", "attnscope", *command], capture_output=True, text=True, check=True)
    schema.check(found.stdout)
    assert "2 rows of windows on 4 ranks" in json.loads(found.stdout)["steps"][7]["whole"]
    command = ["shard", "swin3d", "--resolution", "4x14x14", "--plan", "tp=3", "--no-verify", "--json"]
    found = subprocess.run([sys.executable, "-m", "attnscope", *command], capture_output=True, text=True, check=True)
    assert json.loads(found.stdout)["spec"]["resolution"] == [4, 14, 14]
    wrong = subprocess.run(
        [sys.executable, "-m", "attnscope", "shard", "vit", "--shift", "--plan", "tp=8"], capture_output=True, text=True
    )
    assert wrong.returncode == 2
    assert wrong.stderr == "attnscope: vit does not have --shift; see attnscope vit --help\n"


@pytest.mark.parametrize(
    ("name", "plan"),
    [
        ("vit", "tp=2"),
        ("swin", "windows=2"),
        ("nat", "windows=2"),
        ("xca", "sp=2"),
        ("linear", "windows=2"),
        ("separable", "windows=2"),
        ("swin3d", "tp=3"),
    ],
)
def test_the_default_plan_is_legal_and_sends_the_fewest_bytes(name, plan):
    spec = attentions.spec_class(name)()
    assert usual_plan(spec) == plan
    ranks = int(plan.partition("=")[2])
    sent = [each.bytes_sent for each in plans_for(spec, ranks) if each.bytes_sent is not None]
    assert plan_shards(spec, plan).totals.bytes_sent == min(sent)


def test_a_narrow_screen_has_the_collectives_and_no_empty_column() -> None:
    report = plan_shards(ViTSpec(tokens=257, dim=1280, heads=16), "ulysses=8")
    screen = render_sharding(report, "table", Screen(width=60))
    assert screen.splitlines()[3].split() == ["step", "on", "a", "rank", "before", "bytes", "sent"]
    assert all(line in screen for line in ("all-to-all q, k", "all-to-all v", "all-to-all heads"))


@pytest.mark.parametrize("width", [80, 100])
def test_collectives_before_and_after_a_part_fit_on_lines_of_their_own(width: int) -> None:
    spec = ViTNetworkSpec(patch=14, dim=1280, heads=16, depth=32)
    lines = render_sharding(plan_shards(spec, "sp=8"), "table", Screen(width=width)).splitlines()
    heading = next(line for line in lines if line.startswith(" part"))
    assert {"before", "after"} <= {*heading.split()}
    block = next(index for index, line in enumerate(lines) if line.startswith(" block"))
    assert "all-gather x, branch;" in lines[block]
    assert lines[block + 1].strip() == "reduce-scatter y, branch"
