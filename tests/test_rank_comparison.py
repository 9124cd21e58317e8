"""Tests of `compare --over ranks=…`: what one rank sends, computes and holds."""

import subprocess
import sys

import pytest

from attnscope.analyses.ranks import compare_ranks
from attnscope.analyses.shard import plan_shards
from attnscope.attentions.vit.spec import ViTSpec
from attnscope.core.errors import UsageError
from attnscope.plan.links import parse_device, parse_link
from attnscope.render.compare import render_comparison
from attnscope.render.page import comparison as page
from attnscope.render.screen import Screen
from tests.schema import check

RATES = {"link": parse_link("nvlink4,5us"), "device": parse_device("h100", "float32")}


def test_a_contender_without_a_plan_has_all_that_are_legal() -> None:
    found = compare_ranks(["vit"], [1, 2, 4, 8])
    assert list(found.names.values()) == ["tp", "sp", "ulysses", "ring", "context"]
    for point in found.points:
        for label, sent in point.costs.items():
            plan = f"{label.removeprefix('vit:plan=')}={point.at['ranks']}"
            if sent is None:
                assert "12 heads on 8 ranks" in point.refused[label]
            else:
                assert sent == plan_shards(ViTSpec(), plan).totals.bytes_sent
    assert [point.refused.keys() for point in found.points[:3]] == [{}.keys()] * 3
    assert len(found.points[3].refused) == 3
    assert found.entries is not None
    assert [entry.values["macs"] for entry in found.entries[:5]] == [ViTSpec().plan().macs] * 5
    assert found.reference == 2  # the most ranks that all of them can have


def test_plans_of_different_attentions_have_one_input() -> None:
    found = compare_ranks(["vit:plan=tp", "swin:plan=windows,shift"], [2, 4], heads=4)
    u = 56 * 56 * 96 * 4
    assert [list(point.costs.values()) for point in found.points] == [[u, 129_024], [3 * u // 2, 129_024]]
    assert list(found.names.values()) == ["vit:plan=tp", "swin:shift,plan=windows"]
    assert found.title == "bytes sent by one rank in the forward · 3,136 tokens · dim 96 · 4 heads · float32"


def test_communication_exceeds_computation_from_a_number_of_ranks_on() -> None:
    found = compare_ranks(["vit"], [1, 2, 4], **RATES)
    assert found.communication_from == {f"vit:plan={plan}": 2 for plan in ("tp", "sp", "ulysses", "ring", "context")}
    slow = compare_ranks(["vit"], [1, 2, 4], link=RATES["link"], device=parse_device("1GFLOPS,1GB/s", "float32"))
    assert set(slow.communication_from.values()) == {None}
    text = render_comparison(slow, "table", Screen(width=100))
    assert "Communication exceeds computation not up to 4 ranks with" in text
    assert compare_ranks(["vit"], [2]).communication_from == {}
    assert found.entries is not None
    values = found.entries[5].values
    assert values["link-per-bound"] == pytest.approx(values["link"] / values["bound"])  # type: ignore[operator]


@pytest.mark.parametrize("form", ["table", "csv", "md", "json", "svg"])
@pytest.mark.parametrize("width", [60, 80, 120])
def test_all_forms_have_each_plan(form: str, width: int) -> None:
    found = compare_ranks(["swin:shift"], [2, 4], plan="windows", **RATES)
    text = render_comparison(found, form, Screen(width=width))
    assert "129,024" in text or "129024" in text or "126.0" in text
    if form == "table":
        assert max(map(len, text.splitlines())) <= width
    assert page.comparison_page(found).panels


def test_the_data_matches_the_schema() -> None:
    check(compare_ranks(["vit"], [2, 8], **RATES).to_json())


@pytest.mark.parametrize(
    ("contenders", "ranks", "values", "message"),
    [
        (["vit"], [2], {"plan": "tq"}, "tq is unknown"),
        (["vit:plan=tp", "vit"], [2], {"plan": "tp"}, "a contender must appear once (got vit:plan=tp twice)"),
        (["vit"], [2], {"quantity": "flops"}, "is not a quantity of ranks; use sent, macs"),
        (["vit"], [2], {"quantity": "link"}, "requires link; add it"),
        (["vit"], [2], {"window": 7}, "window is not a field of vit"),
        (["linear"], [64], {}, "must be legal on one of these numbers of ranks"),
        (["vit"], [8], {"plan": "tp"}, "12 heads on 8 ranks); 2, 3, 4, 6 or 12"),
        (["vit:plan=windows"], [1, 2, 4], {}, "is a sequence"),  # legal on one rank only, which cuts nothing
        (["vot"], [2], {}, "is not an attention"),
        (["vit:plan=tp", "vit:plan=sp"], range(1, 1000), {}, "at most 1000 plans"),
    ],
)
def test_mistakes_are_one_line(
    contenders: list[str], ranks: list[int], values: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError) as error:
        compare_ranks(contenders, ranks, **values)  # type: ignore[arg-type]
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def run(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", "attnscope", "compare", *words], capture_output=True, text=True)


def test_the_command_line() -> None:
    found = run("vit", "--plan", "ulysses", "--over", "ranks=2:4:2x", "--where", "sent<500000", "--format", "csv")
    assert found.stdout.splitlines() == [
        "ranks,contender,bytes_sent,macs,params,bytes_peak",
        found.stdout.splitlines()[1],
    ]
    assert found.stdout.splitlines()[1].startswith("4,vit:plan=ulysses,458496,")
    for words, message in (
        (["vit", "swin", "--plan", "tp"], "--plan requires several numbers of ranks; add --over ranks=1:16:2x"),
        (["vit", "--over", "ranks=2", "--time"], "--time does not apply to --over ranks"),
        (["vit", "swin", "--quantity", "sent"], "--quantity sent is of one of several ranks; add --over ranks=1:16:2x"),
    ):
        wrong = run(*words)
        assert (wrong.returncode, wrong.stdout) == (2, "")
        assert message in wrong.stderr
        assert len(wrong.stderr.splitlines()) == 1
