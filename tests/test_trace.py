"""`attnscope.trace`: costs against FlopCounterMode, rows, attention, restored state, and times."""

import copy
import json
import math
import runpy
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

import attnscope
from attnscope.render.trace import lines_of
from attnscope.tracing.call_timing import Overhead
from attnscope.tracing.folding import _name_of_all
from attnscope.tracing.trace import ForwardError
from tests.sampling import some

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "trace.py"


def flop_counter_macs(module, *inputs, **keywords):
    """Return FlopCounterMode's count on meta without the native fast path.

    FlopCounterMode cannot count native fast paths and fused kernels.
    """
    module, inputs = copy.deepcopy(module).to("meta"), [tensor.to("meta") for tensor in inputs]
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        module.eval().requires_grad_(False)  # FlopCounterMode's module tracker fails on some networks with gradients
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            module(*inputs, **keywords)
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
    return counter.get_total_flops() / 2


def network(library, name):
    with torch.device("meta"):
        module = timm.create_model(name) if library == "timm" else torchvision.models.get_model(name)
        x = torch.empty(1, *getattr(module, "pretrained_cfg", {}).get("input_size", (3, 224, 224)))
    return module.eval(), x


class Calls(nn.Module):
    """A module that calls a function in its forward."""

    def __init__(self, forward):
        super().__init__()
        self.forward = forward


def macs_of(function, *inputs, **settings):
    return attnscope.trace(Calls(function), *inputs, **settings).totals.macs


# costs

HANDFUL = [
    ("timm", "vit_tiny_patch16_224"),
    ("timm", "swin_tiny_patch4_window7_224"),
    ("timm", "mobilenetv3_small_100"),
    ("timm", "cait_xxs24_224"),
    ("torchvision", "swin_v2_t"),
    ("torchvision", "vit_b_32"),
]


@pytest.mark.parametrize(("library", "name"), HANDFUL)
def test_macs_equal_flop_counter_mode(library, name):
    module, x = network(library, name)
    report = attnscope.trace(module, x)
    assert report.totals.macs == flop_counter_macs(module, x)
    assert not report.uncounted
    assert report.totals.params == sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.slow
def test_macs_of_networks_equal_flop_counter_mode():
    lists = runpy.run_path(str(BENCHMARK))
    names = [("timm", name) for name in lists["TIMM"]] + [("torchvision", name) for name in lists["TORCHVISION"]]
    assert len(names) >= 40
    for library, name in some(names, 12):
        module, x = network(library, name)
        assert attnscope.trace(module, x).totals.macs == flop_counter_macs(module, x), name


A, B = torch.randn(2, 3, 5, 7), torch.randn(2, 3, 7, 11)
Q, K = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 13, 8)
EXACT = {
    "matmul": (lambda a, b: a @ b, (A, B), 2 * 3 * 5 * 7 * 11),
    "broadcast": (lambda a, b: a @ b, (A, B[0, 0]), 2 * 3 * 5 * 7 * 11),
    "einsum": (lambda a, b: torch.einsum("bhnd,bhdm->bhnm", a, b), (A, B), 2 * 3 * 5 * 7 * 11),
    "baddbmm": (torch.baddbmm, (torch.randn(2, 5, 11), A[:, 0], B[:, 0]), 2 * 5 * 7 * 11),
    "vector": (lambda a, b: a @ b, (A[0, 0], B[0, 0, :, 0]), 5 * 7),
    "linear": (F.linear, (A, torch.randn(9, 7), torch.randn(9)), 2 * 3 * 5 * 7 * 9),
    "sdpa": (lambda q, k: F.scaled_dot_product_attention(q, k, k), (Q, K), 2 * 3 * 5 * 13 * (8 + 8)),
    "sdpa by name": (
        lambda q, k: F.scaled_dot_product_attention(query=q, key=k, value=k, attn_mask=None, scale=0.5),
        (Q, K),
        2 * 3 * 5 * 13 * (8 + 8),
    ),
    "sdpa of one head": (
        lambda q, k: F.scaled_dot_product_attention(q, k, k),
        (Q[:, 0], K[:, 0]),
        2 * 5 * 13 * (8 + 8),
    ),
    "sdpa of matrices": (lambda q, k: F.scaled_dot_product_attention(q, k, k), (Q[0, 0], K[0, 0]), 5 * 13 * (8 + 8)),
    "conv": (
        lambda x, w: F.conv2d(x, w, stride=2, padding=1, groups=2),
        (torch.randn(2, 4, 9, 9), torch.randn(6, 2, 3, 3)),
        2 * 6 * 5 * 5 * 2 * 9,
    ),
    "transposed conv": (
        lambda x, w: F.conv_transpose2d(x, w, stride=2),
        (torch.randn(1, 4, 5, 5), torch.randn(4, 3, 2, 2)),
        4 * 5 * 5 * 3 * 4,
    ),
}


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize("name", EXACT)
def test_macs_of_one_call_are_exact(name, device):
    function, inputs, macs = EXACT[name]
    assert macs_of(function, *inputs, device=device) == macs


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_calls_on_inference_tensors_are_counted(device):
    with torch.inference_mode():
        x, w = torch.randn(4, 7), torch.randn(9, 7)
    assert macs_of(F.linear, x, w, device=device) == 4 * 7 * 9


def test_native_fast_paths_run_and_are_counted():
    x = torch.randn(2, 10, 64)
    attention = nn.MultiheadAttention(64, 4, batch_first=True)
    layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)
    scores, tokens = 2 * 4 * 10 * 10, 2 * 10
    of_attention = 6 * scores + 4 * 64 * tokens  # scale, softmax, and biases of q, k, v and the output
    of_layer = (2 * 5 + 1 + 2) * 64 * tokens + (
        1 + 1
    ) * 128 * tokens  # norms, bias, residuals; bias and ReLU of the MLP
    for module, inputs, native, other_flops in (
        (attention, (x, x, x), "_native_multi_head_attention", of_attention),
        (layer, (x,), "_transformer_encoder_layer_fwd", of_attention + of_layer),
    ):
        on_cpu, on_meta = attnscope.trace(module, *inputs, device="cpu"), attnscope.trace(module, *inputs)
        assert [row.op for row in on_cpu.steps] == [native]
        assert on_cpu.totals.macs == on_meta.totals.macs == flop_counter_macs(module, *inputs)
        assert on_cpu.totals.other_flops == other_flops
        [found] = on_cpu.attentions
        assert (found.tokens, found.heads, found.head_dim, found.core_macs) == (10, 4, 16, 2 * 2 * 4 * 10 * 10 * 16)


@pytest.mark.parametrize(
    "module",
    [nn.LSTM(8, 5, num_layers=2, bidirectional=True), nn.LSTM(8, 5, bias=False), nn.GRU(8, 5), nn.RNN(8, 5)],
    ids=str,
)
def test_recurrent_layers_cost_the_same_in_one_kernel_and_as_operators(module):
    """oneDNN has an LSTM kernel for the CPU; on meta, torch runs separate operators."""
    x = torch.randn(7, 3, 8)
    on_cpu, on_meta = (attnscope.trace(module, x, device=device) for device in ("cpu", "meta"))
    assert not on_cpu.uncounted
    assert not on_meta.uncounted
    assert on_cpu.totals.macs == on_meta.totals.macs == flop_counter_macs(module, x) > 0
    assert on_cpu.totals.other_flops == on_meta.totals.other_flops


def test_views_cost_nothing():
    report = attnscope.trace(
        Calls(lambda x: x.view(6, 4).t().unsqueeze(0)[0].expand(4, 6).detach()), torch.randn(2, 3, 4)
    )
    assert [row.name for row in report.steps] == ["view", "t", "unsqueeze", "getitem", "expand", "detach"]
    for row in report.steps:
        assert (row.macs, row.other_flops, row.bytes_read, row.bytes_written) == (0, 0, 0, 0)


def test_an_operator_without_a_formula_has_unknown_costs():
    @torch.library.custom_op("attnscope_tests::puzzle", mutates_args=())
    def puzzle(x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @puzzle.register_fake
    def _(x):
        return torch.empty_like(x)

    report = attnscope.trace(Calls(lambda x: puzzle(puzzle(x)) @ x), torch.randn(4, 4))
    assert [(entry.op, entry.calls) for entry in report.uncounted] == [("attnscope_tests::puzzle", 2)]
    assert [row.macs for row in report.steps] == [None, None, 64]
    assert report.totals.macs == 64
    assert json.loads(report.to_json())["steps"][0]["macs"] is None


# rows


@pytest.fixture(scope="module")
def vit():
    return network("timm", "vit_tiny_patch16_224")


@pytest.mark.parametrize("group", ["module", "line", "op"])
@pytest.mark.parametrize("depth", [None, 1, 2, 99])
def test_rows_add_up_to_the_totals(vit, group, depth):
    report = attnscope.trace(*vit, group=group, depth=depth)
    for key in ("macs", "flops", "other_flops", "bytes_read", "bytes_written"):
        assert sum(row.times * getattr(row, key) for row in report.steps) == getattr(report.totals, key)
    assert sum(row.times * row.calls for row in report.steps) == report.calls
    assert max(row.bytes_live for row in report.steps) == report.totals.peak_bytes


def test_repeated_blocks_are_folded(vit):
    report = attnscope.trace(*vit)
    [score] = [row for row in report.steps if row.op == "scaled_dot_product_attention"]
    assert (score.path, score.times, score.macs) == ("blocks.0–11.attn", 12, 2 * 197 * 197 * 192)
    assert score.source.startswith("timm/layers/attention.py:")
    assert "scaled_dot_product_attention" in score.code
    assert [row.params for row in report.steps if row.path == "blocks.0–11.attn.qkv"] == [3 * 192 * 192 + 3 * 192]


def test_alternating_blocks_are_folded():
    report = attnscope.trace(*network("timm", "swin_tiny_patch4_window7_224"), depth=4)
    stage = [(row.path, row.times) for row in report.steps if row.path.startswith("layers.2.blocks")]
    assert stage == [("layers.2.blocks.0,2…4", 3), ("layers.2.blocks.1,3…5", 3)]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["0", "1", "2"], "0–2"),
        (["0", "2", "4"], "0,2…4"),
        (["0", "2"], "0,2"),
        (["a", "b"], "a…b"),
        (["0", "5", "6"], "0…6"),
    ],
)
def test_the_name_of_folded_modules_lists_their_indices(names, expected):
    assert _name_of_all(names) == expected


def test_memory_is_that_of_the_tensors_alive():
    # x + 1 is freed after the product
    report = attnscope.trace(Calls(lambda x: (x + 1) * 2 + 3), torch.randn(1000))
    assert [row.bytes_live for row in report.steps] == [4000, 8000, 8000]
    assert report.totals.peak_bytes == 8000


# attention


def attentions(module, *inputs, **keywords):
    return [
        (found.kind, found.times, found.tokens, found.keys, found.heads, found.head_dim, found.scope, found.window)
        for found in attnscope.trace(module, *inputs, **keywords).attentions
    ]


def test_the_attention_of_a_vit_is_recognized(vit):
    assert attentions(*vit) == [("fused", 12, 197, 197, 3, 64, "global", None)]


@pytest.mark.parametrize(("library", "name"), [("timm", "swin_tiny_patch4_window7_224"), ("torchvision", "swin_t")])
def test_the_attention_of_swin_is_recognized(library, name):
    kind = "score-softmax-value"
    assert attentions(*network(library, name)) == [
        (kind, 2, 49, 49, 3, 32, "windowed", (7, 7)),
        (kind, 2, 49, 49, 6, 32, "windowed", (7, 7)),
        (kind, 6, 49, 49, 12, 32, "windowed", (7, 7)),
        (kind, 2, 49, 49, 24, 32, "global", None),
    ]


def test_the_number_of_windows_is_that_of_one_image():
    module, _ = network("timm", "swin_tiny_patch4_window7_224")
    report = attnscope.trace(module, torch.empty(3, 3, 224, 224, device="meta"))
    assert [found.windows for found in report.attentions] == [64, 16, 4, 1]


def test_a_forward_that_exits_fails_with_its_line():
    class Exits(nn.Module):
        def forward(self, x):
            sys.exit(3)

    with pytest.raises(ForwardError, match=r"the forward of .* failed at .*test_trace.py:\d+ .*: SystemExit: 3"):
        attnscope.trace(Exits(), torch.randn(2))


def test_a_forward_that_fails_between_two_calls_names_the_inputs_of_its_module():
    class Inner(nn.Module):
        def forward(self, x):
            _, _, _ = torch.relu(x).shape
            return x

    module = nn.Sequential(nn.Linear(4, 8), Inner())
    with pytest.raises(ForwardError, match=r"^1: the forward of 2×3×5×8 failed at .*test_trace.py:\d+ `_, _, _ = "):
        attnscope.trace(module, torch.randn(2, 3, 5, 4))


def test_the_line_of_an_error_keeps_its_braces():
    class Looks(nn.Module):
        def forward(self, x):
            return {"a": 5}["b"] * x

    with pytest.raises(ForwardError, match=r'`return \{"a": 5\}\["b"\] \* x`'):
        attnscope.trace(Looks(), torch.randn(2))


def test_the_complexity_is_that_of_explore():
    report = attnscope.trace(*network("torchvision", "swin_t"))
    own = attnscope.explore(attnscope.SwinSpec(dim=96, heads=3, resolution=56, window=7), time=False).complexity
    assert [formula.macs for formula in report.attentions[0].complexity] == [own.global_macs, own.windowed_macs]


class Einsum(nn.Module):
    def __init__(self):
        super().__init__()
        self.to_qkv = nn.Linear(24, 72)

    def forward(self, x):
        q, k, v = (t.unflatten(-1, (4, 6)) for t in self.to_qkv(x).chunk(3, -1))
        weights = torch.einsum("bnhd,bmhd->bhnm", q, k).softmax(dim=-1)
        return torch.einsum("bhnm,bmhd->bnhd", weights, v)


def test_attention_by_einsum_is_recognized_and_a_lone_softmax_is_not():
    assert attentions(Einsum(), torch.randn(2, 10, 24)) == [("score-softmax-value", 1, 10, 10, 4, 6, "global", None)]
    assert attentions(nn.Sequential(nn.Linear(8, 8), nn.Softmax(-1)), torch.randn(2, 8)) == []


def test_cross_attention_has_the_keys_of_the_other_sequence():
    q, k = torch.randn(1, 10, 64), torch.randn(1, 30, 64)
    [found] = attentions(nn.MultiheadAttention(64, 4, batch_first=True), q, k, k)
    assert found[2:7] == (10, 30, 4, 16, "cross")


@pytest.mark.parametrize(("n", "b"), [(10, 1), (10, 20), (4, 2), (1, 8)])
def test_multihead_attention_has_the_sequence_first_by_default(n, b):
    x = torch.randn(n, b, 64)
    module = nn.MultiheadAttention(64, 4)
    assert attentions(module, x, x, x)[0][2:7] == (n, n, 4, 16, "global")
    [formula] = attnscope.trace(module, x, x, x).attentions[0].complexity
    assert formula.macs == b * (4 * n * 64**2 + 2 * n**2 * 64)
    [inside] = attentions(nn.TransformerEncoderLayer(64, 4, 128), x)
    assert inside[2:7] == (n, n, 4, 16, "global")
    assert attentions(module, *[torch.randn(n, 64)] * 3)[0][2:7] == (n, n, 4, 16, "global")


@pytest.mark.parametrize("images_first", [True, False])
def test_multihead_attention_in_a_module_is_recognized_with_any_axis_order(images_first):
    class Around(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(64, 4)

        def forward(self, x):
            x = x.transpose(0, 1) if images_first else x
            return self.attention(x, x, x)[0]

    [found] = attentions(Around(), torch.randn(*((3, 10) if images_first else (10, 3)), 64))
    assert found[2:7] == (10, 10, 4, 16, "global")


# inputs, and state after a trace


def test_a_submodule_is_traced_with_its_real_inputs():
    module, x = network("timm", "swin_tiny_patch4_window7_224")
    report = attnscope.trace(module, x, submodule="layers.0.blocks.1.attn")
    assert report.steps[0].inputs == [(64, 49, 96)]
    assert report.totals.macs == 145_108_992
    assert report.attentions[0].windows == 64
    assert any("+" in row.code or row.op == "add" for row in report.steps)  # adds the mask of the shifted block


def test_a_submodule_that_is_missing_or_not_called_is_an_error(vit):
    with pytest.raises(attnscope.UsageError, match=r"blocks\.0\.atn does not exist; did you mean blocks\.0\.attn\?"):
        attnscope.trace(*vit, submodule="blocks.0.atn")
    with pytest.raises(
        attnscope.UsageError, match=r"xyz does not exist; the first submodules are: patch_embed, patch_embed\.proj, "
    ):
        attnscope.trace(*vit, submodule="xyz")
    module = Counting()
    module.unused = nn.Linear(1, 1)
    with pytest.raises(attnscope.UsageError, match="never called"):
        attnscope.trace(module, torch.randn(3, 4), submodule="unused")


class Counting(nn.Module):
    def __init__(self, fails=False):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.5).eval()
        self.register_buffer("runs", torch.zeros(()))
        self.fails = fails

    def forward(self, x):
        self.runs += 1
        x = self.drop(self.norm(self.linear(x))) + torch.rand(4)
        return x @ x if self.fails else x


@pytest.mark.parametrize(
    "settings", [{}, {"device": "cpu"}, {"time": True, "budget": 0.01}], ids=["meta", "cpu", "timed"]
)
@pytest.mark.parametrize("fails", [False, True])
def test_trace_restores_all_state(settings, fails):
    module, x = Counting(fails).train(), torch.randn(3, 4)
    module.drop.eval()
    hook = module.register_forward_hook(lambda *_: None)
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    call, overrides, random = nn.Module.__call__, torch.overrides.has_torch_function, torch.get_rng_state()
    attributes, threads, tracer = set(vars(module)), torch.get_num_threads(), sys.gettrace()
    if fails:
        with pytest.raises(ForwardError):
            attnscope.trace(module, x, **settings)
    else:
        attnscope.trace(module, x, **settings)
    assert (module.training, module.norm.training, module.drop.training) == (True, True, False)
    assert all(torch.equal(tensor, state[name]) for name, tensor in module.state_dict().items())
    assert list(module._forward_hooks) == [hook.id]
    assert set(vars(module)) == attributes
    assert nn.Module.__call__ is call
    assert torch.overrides.has_torch_function is overrides
    assert torch.equal(torch.get_rng_state(), random)
    assert (torch.get_num_threads(), sys.gettrace()) == (threads, tracer)
    assert not torch.overrides._get_current_function_mode_stack()


def test_an_error_in_the_users_forward_has_the_users_traceback():
    with pytest.raises(ForwardError) as raised:
        attnscope.trace(Counting(fails=True), torch.randn(3, 4))
    message = str(raised.value)
    assert "matmul of 3×4 and 3×4 failed at" in message
    assert "test_trace.py" in message
    assert "`return x @ x if self.fails else x`" in message
    assert raised.value.exit_code == 1
    cause, files = raised.value.__cause__, []
    assert isinstance(cause, RuntimeError)
    trace = cause.__traceback__
    while trace is not None:
        files.append(Path(trace.tb_frame.f_code.co_filename).name)
        trace = trace.tb_next
    assert files
    assert set(files) == {"test_trace.py"}


def test_a_forward_that_cannot_run_on_meta_runs_on_the_cpu_with_a_note():
    report = attnscope.trace(Calls(lambda x: x * 2 if x.sum().item() > 0 else x), torch.ones(3))
    assert report.environment["device"] == "cpu"
    assert any(note.startswith("ran on cpu, since the forward failed on meta (") for note in report.notes)


def test_tensors_created_in_the_forward_are_on_meta():
    report = attnscope.trace(Calls(lambda x: x @ torch.ones(3, 3) + torch.arange(3)), torch.ones(3, 3))
    assert report.environment["device"] == "meta"
    assert report.totals.macs == 27


def test_the_same_tensor_as_two_inputs_stays_the_same():
    x = torch.randn(1, 4)
    assert [row.op for row in attnscope.trace(Calls(lambda a, b: a * 2 if a is b else a), x, x).steps] == ["mul"]


def test_keyword_and_nested_inputs_are_traced():
    report = attnscope.trace(
        Calls(lambda x, *, pair: x + pair[0] @ pair[1]), torch.ones(2, 2), pair=[torch.ones(2, 2)] * 2
    )
    assert report.totals.macs == 8


# times


def test_shares_of_times_below_the_overhead_are_unknown(monkeypatch):
    """On a machine that is busy in a moment, the overhead that is subtracted may be longer than a call."""
    monkeypatch.setattr("attnscope.tracing.call_timing._overhead", lambda *_: Overhead(1.0, 1.0))
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    report = attnscope.trace(layer, torch.randn(2, 3, 16), time=True, budget=0.01)
    [found] = report.attentions
    assert (report.time.steps_sum_s, found.module_time_share, found.module_time_shares) == (0.0, None, None)
    assert "? of the time" in str(report)
    assert "the steps sum to 0.00× the whole" in str(report)


def test_the_times_of_rows_add_up():
    module = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64))
    report = attnscope.trace(module, torch.randn(32, 64), time=True, budget=0.02)
    assert [row.op for row in report.steps] == ["linear", "gelu", "linear"]
    # the samples include all runs, not only those of the middle half
    assert all(len(row.time.samples_s) == report.time.runs for row in report.steps)
    means = [row.time.interquartile_mean_s for row in report.steps]
    assert all(
        min(row.time.samples_s) <= mean <= max(row.time.samples_s)
        for row, mean in zip(report.steps, means, strict=True)
    )
    assert max(means) > 0
    assert math.isclose(sum(row.times * row.time.interquartile_mean_s for row in report.steps), report.time.steps_sum_s)
    assert report.environment["device"] == "cpu"


def test_an_error_during_timing_names_the_users_line():
    class Late(nn.Module):
        runs = 0

        def forward(self, x):
            self.runs += 1
            if self.runs > 3:
                raise ValueError("too late")
            return x + 1

    with pytest.raises(ForwardError, match=r"the forward.* failed at .*test_trace.py:\d+ .*: ValueError: too late"):
        attnscope.trace(Late(), torch.randn(2), time=True, budget=0.01)


@pytest.mark.parametrize(("mask", "share"), [(-100.0, 0.5), (float("-inf"), 0.0)])
def test_subnormal_weights_of_softmax_have_a_warning_with_the_remedy(mask, share):
    """exp(−100) is a subnormal float32, and exp(−inf) is 0."""
    masked = torch.zeros(4, 8)
    masked[:, 4:] = mask
    report = attnscope.trace(Calls(lambda scores, masked: (scores + masked).softmax(-1)), torch.zeros(4, 8), masked,
                             device="cpu")  # fmt: skip
    subnormal = [warning for warning in report.warnings if "subnormal" in warning]
    assert bool(subnormal) == bool(share)
    if subnormal:
        assert "CPU down several times: 50.0% of the weights of softmax in the module; mask with" in subnormal[0]
        assert "−inf" in subnormal[0]


def test_an_argument_that_is_not_a_module_is_a_usage_error():
    with pytest.raises(attnscope.UsageError, match=r"module must be an nn\.Module, such as .* \(got 3\)"):
        attnscope.trace(3)


def test_calls_of_a_clock_before_a_run_are_not_traced(monkeypatch):
    """The clock of a GPU clears the cache with a torch call."""
    from attnscope.profiling.clocks import CLOCKS, CpuClock

    class Flushing(CpuClock):
        def prepare(self):
            torch.ones(8).zero_()

    monkeypatch.setitem(CLOCKS, "cpu", Flushing)
    report = attnscope.trace(nn.Linear(4, 4), torch.randn(2, 4), time=True, budget=0.01)
    assert [(row.name, row.time is not None) for row in report.steps] == [("linear", True)]


def test_timing_on_meta_is_a_usage_error():
    with pytest.raises(attnscope.UsageError, match="meta computes nothing"):
        attnscope.trace(nn.Linear(2, 2), torch.ones(2), time=True, device="meta")


@pytest.mark.parametrize("settings", [{"time": True}, {"device": "cpu"}], ids=["time", "device"])
def test_a_module_on_meta_cannot_be_timed_or_moved(settings):
    module = nn.Linear(2, 2, device="meta")
    with pytest.raises(attnscope.UsageError, match="the module must not be on meta, which computes nothing"):
        attnscope.trace(module, torch.ones(2), **settings)
    assert attnscope.trace(module, torch.ones(2)).totals.macs == 4


# Python and notebooks


def test_attributes_are_the_keys_of_the_json(vit):
    report = attnscope.trace(*vit)
    plain = json.loads(report.to_json())
    assert plain["totals"]["flops"] == report.totals.flops == 2 * report.totals.macs
    assert plain["schema"] == 1
    assert set(plain) >= {
        "command",
        "spec",
        "environment",
        "steps",
        "totals",
        "time",
        "audit",
        "complexity",
        "warnings",
    }
    assert isinstance(report, attnscope.Report)


def test_a_notebook_shows_a_table(vit):
    report = attnscope.trace(*vit)
    html = report._repr_html_()
    assert html.startswith('<div><div class="attnscope embedded"><strong>VisionTransformer')
    assert html.count("<tr") == len(list(lines_of(report))) + 2
    assert "197" in report._repr_mimebundle_()["text/plain"]


@pytest.mark.parametrize("options", [{"device": "cpu"}, {"time": True}])
@pytest.mark.parametrize("kind", ["meta", "fake"])
def test_inputs_without_values_can_only_be_traced_on_meta(kind, options):
    with FakeTensorMode() if kind == "fake" else nullcontext():
        x = torch.randn(4, 5, device="cpu" if kind == "fake" else "meta")
    module = nn.Linear(5, 6)
    assert attnscope.trace(module, x).totals.macs == 120
    with pytest.raises(attnscope.UsageError, match="the inputs must have values to compute with"):
        attnscope.trace(module, x, **options)


def test_a_forward_that_needs_values_does_not_run_with_inputs_that_have_none():
    class AsksForValues(nn.Linear):
        def forward(self, x):
            return super().forward(x) if x.sum().item() > 0 else x

    with pytest.raises(ForwardError, match="cannot be called on meta tensors"):
        attnscope.trace(AsksForValues(5, 6), torch.randn(4, 5, device="meta"))
