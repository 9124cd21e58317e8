"""Modules as contenders: counts of a trace, times in turn, and the verdict of a gate."""

import json
from fractions import Fraction

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from attnscope import SwinSpec, UsageError, compare, contender
from attnscope.analyses.contenders import read_contender
from attnscope.analyses.gate import gate_comparison
from attnscope.analyses.modules import candidates_of, count_modules, of_spec, race_modules, spec_for
from attnscope.cli.modules import candidates, counts_of, is_module
from attnscope.core.errors import AttnscopeError
from attnscope.render.compare import render_comparison
from attnscope.render.findings import finding
from attnscope.render.screen import Screen
from attnscope.reports.gate import CANNOT_TELL, FAIL, PASS

OLD = """
import torch
from torch import nn

class Attn(nn.Module):
    def __init__(self, dim=24, heads=3):
        super().__init__()
        self.heads, self.qkv, self.proj = heads, nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x):
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) * (c // self.heads) ** -0.5).softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(b, n, c))
"""
FUSED = OLD.replace("weights = (q", "out = nn.functional.scaled_dot_product_attention(q, k, v)  # (q").replace(
    "(weights @ v)", "out"
)
TWICE = OLD.replace("return self.proj(", "self.qkv(x)\n        return self.proj(")
WIDER = OLD.replace("nn.Linear(dim, dim)", "nn.Sequential(nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim))")
BROKEN = OLD.replace("self.qkv(x)", "self.qkv(x[..., :3])")
SOURCES = {"old": OLD, "fused": FUSED, "twice": TWICE, "wider": WIDER, "broken": BROKEN}


@pytest.fixture
def files(tmp_path):
    for name, source in SOURCES.items():
        (tmp_path / f"{name}.py").write_text(source)
    return lambda *names: [f"{tmp_path / name}.py:Attn" if name in SOURCES else name for name in names]


def meet(names, shape="2,49,24", **settings):
    found, left_out, title = candidates(names, [shape], [], settings, 1, 0)
    return found, count_modules(found, title=title, left_out=left_out, is_timed=True)


def test_a_contender_is_a_module_if_it_is_a_file_a_library_or_a_package():
    modules = ["my.py:Attn", "folder/my.py", "timm:vit_tiny_patch16_224", "hf:vit", "torch.nn:Identity"]
    others = ["swin", "swin:window=14,shift", "vit-b-16-224", "preset:swin-t-224:window=8", "swim"]
    assert [is_module(text) for text in modules] == [True] * 5
    assert [is_module(text) for text in others] == [False] * 5


def test_counts_are_those_of_the_counters_for_modules_and_attentions(files):
    labels = files("old", "wider", "vit", "swin")
    found, compared = meet(labels, shape="2,49,24", heads=3)
    for each in found:
        with FlopCounterMode(display=False) as counter:
            module, inputs = each.build(torch.device("cpu"))
            module(*inputs)
        assert compared.points[0].costs[each.label] == each.counts["macs"] == counter.get_total_flops() // 2
        assert each.counts["params"] == sum(p.numel() for p in module.parameters())
    assert compared.part == "module"
    assert compared.points[0].grid is None
    assert compared.points[0].costs[labels[0]] == compared.points[0].costs["vit"]


def test_an_attention_has_the_tokens_of_the_input():
    swin, vit, video = (read_contender(name) for name in ("swin", "vit", "swin3d"))
    assert spec_for(swin, (2, 14, 28, 96), {}).input_shape == (2, 14, 28, 96)
    assert spec_for(swin, (2, 196, 64), {}).input_shape == (2, 14, 14, 64)
    assert spec_for(vit, (1, 197, 768), {}).input_shape == (1, 197, 768)
    assert (spec_for(vit, (1, 197, 768), {}).heads, spec_for(vit, (1, 197, 768), {"heads": 12}).heads) == (24, 12)
    assert spec_for(video, (1, 4, 14, 14, 96), {}).input_shape == (1, 4, 14, 14, 96)
    assert spec_for(read_contender("vit-b-16-224"), (2, 3, 64, 96), {}).input_shape == (2, 3, 64, 96)
    for taker, shape, rule in (
        (swin, (1, 197, 96), "197 are not a square"),
        (swin, (96,), "must be b,n,c or b,h,w,c for swin"),
        (read_contender("vit-b-16-224"), (1, 196, 768), "must be b,3,height,width"),
    ):
        with pytest.raises(UsageError, match=rule):
            spec_for(taker, shape, {})


def test_modules_are_timed_in_turn_and_have_a_verdict(files):
    labels = files("old", "fused", "twice")
    found, compared = meet(labels)
    race_modules(compared, found, device="cpu", budget=0.05)
    point = compared.points[0]
    assert list(point.times) == labels
    assert len({len(time.samples_s) for time in point.times.values()}) == 1
    assert set(point.measured_ratio) == set(labels[1:])
    loose = gate_comparison(compared, {"time": Fraction(1000)}, counts_of(found))
    assert (loose.verdict, len(loose.checks)) == (PASS, 2)
    strict = gate_comparison(compared, {"time": Fraction(1, 1000)}, counts_of(found))
    assert strict.verdict == FAIL
    exact = gate_comparison(compared, {"macs": Fraction(1), "params": Fraction(1)}, counts_of(found))
    assert [check.verdict for check in exact.checks] == [PASS, PASS, FAIL, PASS]
    assert "(1." in exact.line
    assert "above 1×" in exact.line


def test_an_interval_around_the_limit_does_not_decide(files):
    labels = files("old", "fused")
    found, compared = meet(labels)
    race_modules(compared, found, device="cpu", budget=0.02)
    compared.points[0].measured_interval = {labels[1]: (0.8, 1.25)}
    undecided = gate_comparison(compared, {"time": Fraction(11, 10)}, counts_of(found))
    assert undecided.verdict == CANNOT_TELL
    assert "use a longer --budget" in undecided.line
    compared.points[0].times.clear()
    assert gate_comparison(compared, {"time": Fraction(2)}, counts_of(found)).verdict == CANNOT_TELL


def test_outputs_are_compared_with_the_same_weights(files):
    labels = files("old", "fused", "twice", "wider")
    found, compared = meet(labels)
    race_modules(compared, found, device="cpu", budget=0.01)
    fused, twice, wider = (compared.same_outputs[label] for label in labels[1:])
    assert 0 < fused < 1e-5
    assert twice == 0
    assert wider is None
    screen = " ".join(render_comparison(compared, "table", Screen(width=300)).split())
    assert "twice.py:Attn has the same outputs with the same weights" in screen


def test_a_module_that_fails_is_reported_and_the_others_are_compared(files):
    labels = files("old", "fused", "broken")
    found, compared = meet(labels)
    assert [each.label for each in found] == labels[:2]
    (failed,) = compared.left_out
    assert failed.contender == labels[2]
    assert "failed at" in failed.reason
    assert labels[2] in render_comparison(compared, "table", Screen())
    gated = gate_comparison(compared, {"macs": Fraction(1)}, counts_of(found))
    assert gated.verdict == CANNOT_TELL  # what was not compared passes no gate
    with pytest.raises(AttnscopeError, match="failed at"):
        meet(files("old", "broken"))


def test_a_module_that_fails_on_the_device_leaves_the_times_of_the_others(files):
    def refuse(device):
        raise RuntimeError("no such kernel")

    labels = files("old", "fused")
    found, _ = meet(labels)
    vit = spec_for(read_contender("vit"), (2, 49, 24), {"heads": 3})
    third = of_spec("vit", "global attention", vit)
    third = type(third)(**{**vars(third), "build": refuse})
    found = [*found, third]
    compared = count_modules(found, is_timed=True)
    race_modules(compared, found, device="cpu", budget=0.01)
    assert list(compared.points[0].times) == labels
    assert [(each.contender, each.reason) for each in compared.not_timed] == [("vit", "no such kernel")]


def test_candidates_that_are_all_wrong_raise_the_first_error():
    def wrong():
        raise AttnscopeError("it cannot run")

    with pytest.raises(AttnscopeError, match="it cannot run"):
        candidates_of({"a": wrong, "b": wrong})


def test_the_command_judges_a_change(attnscope, files, tmp_path):
    old, fused, twice, broken = files("old", "fused", "twice", "broken")
    same = attnscope("compare", old, fused, "--input", "1,49,24", "--fail-above", "macs=1", "--json")
    assert same.returncode == 0
    assert same.stderr.startswith("PASS: macs of ")
    plain = json.loads(same.stdout)
    assert plain["gate"]["verdict"] == PASS
    assert [entry["contender"] for entry in plain["entries"]] == [old, fused]
    assert attnscope("compare", old, twice, "--input", "1,49,24", "--fail-above", "macs=1").returncode == 1
    undecided = attnscope("compare", old, fused, broken, "--input", "1,49,24", "--fail-above", "macs=1")
    assert undecided.returncode == 4
    mistakes = {
        (old, fused, "--input", "1,49,24", "--over", "batch=1,2"): "--over does not apply to modules",
        (old, fused, "--input", "1,49,24", "--fail-above", "1.1"): "--fail-above time requires times; add --time",
        (old, fused, "--input", "1,49,24", "--fail-above", "saved=1"): "saved is not compared; available: macs",
        ("vit", "swin", "--input", "1,49,24"): "--input and --arg require a module",
    }
    for words, message in mistakes.items():
        done = attnscope("compare", *words)
        assert (done.returncode, done.stdout) == (2, "")
        assert message in done.stderr
        assert done.stderr.count("\n") == 1


def test_contenders_without_a_common_input_are_refused(files):
    old, fused = files("old", "fused")
    mistakes = {
        ((old, fused), ()): "input is required, since Attn takes x",
        ((old, "swin"), ("1,50,24",)): "50 are not a square",
        (("swin", old), ()): "input is required to compare swin with a module",
        ((old, f"{old}n"), ("1,49,24",)): "Attnn does not exist; did you mean Attn?",
        ((old, old), ("1,49,24",)): "a contender must appear once",
        ((old,), ("1,49,24",)): "a comparison requires two contenders",
    }
    for (names, inputs), message in mistakes.items():
        with pytest.raises(UsageError, match=message.replace("?", "[?]")):
            candidates(names, inputs, [], {}, 1, 0)
    found, _, _ = candidates((old, fused), ["1,49,24"], [], {}, 1, 0)
    for quantity, message in (("training", "not a quantity of modules; use macs"), ("latency", "requires times")):
        with pytest.raises(UsageError, match=message):
            count_modules(found, quantity)


class TestModulesInPython:
    """`attnscope.compare` with modules that exist already, as in a notebook."""

    @staticmethod
    def contenders():
        old, new = torch.nn.MultiheadAttention(24, 3, batch_first=True), torch.nn.Linear(24, 24)
        x = torch.randn(2, 49, 24)
        return [contender("old", old, x, x, x, need_weights=False), contender("new", new, x), "swin:window=7"]

    def test_counts_are_those_of_the_trace_and_of_the_attention_on_the_same_tokens(self):
        (point,) = compare(self.contenders(), heads=3).points
        assert point.costs == {
            "old": 2 * 49 * 24 * 24 * 4 + 2 * 2 * 49 * 49 * 24,
            "new": 2 * 49 * 24 * 24,
            "swin:window=7": SwinSpec(dim=24, heads=3, resolution=7, batch=2).plan().macs,
        }

    def test_modules_are_timed_in_turn_and_remain_as_they_are(self):
        module, x = torch.nn.Linear(24, 24).train(), torch.randn(2, 49, 24)
        weight = module.weight.detach().clone()
        others = [contender("one", module, x), contender("two", torch.nn.Linear(24, 24), x)]
        found = compare(others, time=True, device="cpu", budget=0.01)
        assert found.points[0].times.keys() == {"one", "two"}
        assert found.same_outputs == {"two": 0.0}  # it has the weights of the first one
        assert torch.equal(module.weight, weight)
        assert module.training

    def test_contenders_without_macs_are_named(self):
        x = torch.zeros(1, 4, 8)
        names = {"one": torch.nn.Identity(), "two": torch.nn.Identity(), "linear": torch.nn.Linear(8, 8)}
        one, two, linear = (contender(name, module, x) for name, module in names.items())
        assert finding(compare([one, linear])).endswith("one needs no MACs.")
        assert finding(compare([linear, one])).endswith("one needs no MACs.")
        assert finding(compare([one, two])).endswith("one and two need no MACs.")

    def test_rows_are_sorted_and_filtered(self):
        found = compare(self.contenders(), heads=3, sort="-macs", where="macs>100K")
        assert [entry.contender for entry in found.entries] == ["old", "swin:window=7"]
        found = compare(("vit", "swin"), {"resolution": [14, 28]}, sort="macs", where="resolution=28")
        assert [entry.contender for entry in found.entries] == ["swin", "vit"]

    def test_a_comparison_over_a_range_is_timed_too(self):
        found = compare(("vit", "swin"), {"resolution": [7, 14]}, dim=24, heads=3, time=True, device="cpu", budget=0.01)
        assert [point.times.keys() for point in found.points] == [{"vit", "swin"}] * 2

    def test_the_largest_batch_that_fits_is_found(self):
        assert [fit.contender for fit in compare(memory_limit="16GiB").fits] == ["vit", "swin", "swin:shift"]

    def test_mistakes_are_explained(self):
        x = torch.zeros(2, 49, 24)
        with pytest.raises(UsageError, match="must begin with a tensor"):
            contender("old", torch.nn.Linear(24, 24))
        with pytest.raises(UsageError, match="must appear once"):
            compare([contender("old", torch.nn.Linear(24, 24), x)] * 2)
        with pytest.raises(UsageError, match="do not apply to modules"):
            compare(self.contenders(), {"batch": [1, 2]})
        with pytest.raises(UsageError, match="requires times"):
            compare(self.contenders(), sort="time")
        with pytest.raises(UsageError, match=r"must be a list, such as \['vit', 'swin'\]"):
            compare("vit")
