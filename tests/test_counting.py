"""Counts of operators that hide their work: in place, inside others, in threads, in gradients, on tensors of every kind."""

import csv
import io
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from multiprocessing.pool import ThreadPool
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention.flex_attention import flex_attention
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode, flop_registry

import attnscope
from attnscope import UsageError, ops
from attnscope.render import render
from attnscope.render.screen import Screen
from attnscope.tracing.costs import cost_of, is_known, name_of
from attnscope.tracing.targets import find_target, parse_input
from attnscope.tracing.trace import TraceOptions, trace_target


class Calls(nn.Module):
    """A module that runs a function of its linear layers and its inputs."""

    def __init__(self, call):
        super().__init__()
        self.call = call
        self.first, self.second = nn.Linear(5, 6), nn.Linear(5, 6)

    def forward(self, *x):
        return self.call(self, *x)


def traced(call, *x, **options):
    return attnscope.trace(Calls(call), *x, **options)


def macs(call, *x, **options):
    """Return the MACs of a function, all of which must be known."""
    report = traced(call, *x, **options)
    assert not report.uncounted
    return report.totals.macs


def rand(*shape, dtype=torch.float32):
    return torch.randn(shape, dtype=dtype)


everywhere = pytest.mark.parametrize("device", [None, "cpu"], ids=["meta", "cpu"])
X = rand(4, 5)


# in place, complex, broadcast


@everywhere
@pytest.mark.parametrize(
    ("call", "shapes", "expected"),
    [
        (lambda _, c, a, b: c.clone().baddbmm_(a, b), [(3, 4, 6), (3, 4, 5), (3, 5, 6)], 360),
        (lambda _, c, a, b: c.clone().addmm_(a, b), [(4, 6), (4, 5), (5, 6)], 120),
        (lambda _, c, a, b: c.clone().addbmm_(a, b), [(4, 6), (3, 4, 5), (3, 5, 6)], 360),
        (lambda _, c, a, b: c.clone().addmv_(a, b), [(4,), (4, 5), (5,)], 20),
        (lambda _, c, a, b: c.clone().addr_(a, b), [(4, 5), (4,), (5,)], 20),
        (lambda _, a, b: torch.mm(a, b, out=a.new_empty(4, 6)), [(4, 5), (5, 6)], 120),
        (lambda _, a, b: torch.einsum("bik,bkj->ij", a, b), [(3, 4, 5), (3, 5, 6)], 360),
        (lambda _, a, b: torch.outer(a, b), [(4,), (5,)], 0),  # a product of each pair: elementwise
    ],
)
def test_products_in_place_and_into_a_given_tensor_are_exact(call, shapes, expected, device):
    assert macs(call, *[rand(*shape) for shape in shapes], device=device) == expected


def test_a_tensor_to_write_into_is_not_read():
    (_, row) = traced(lambda _, a, b: torch.mm(a, b, out=a.new_empty(4, 6)), X, rand(5, 6)).steps
    assert (row.bytes_read, row.bytes_written) == (4 * (20 + 30), 4 * 24)


SUMS = {
    "addmm": [(4, 6), (4, 5), (5, 6)],
    "baddbmm": [(3, 4, 6), (3, 4, 5), (3, 5, 6)],
    "addbmm": [(4, 6), (3, 4, 5), (3, 5, 6)],
    "addmv": [(4,), (4, 5), (5,)],
    "addr": [(4, 6), (4,), (6,)],
}
"""The operators that compute β·C + α·A·B, and the shapes of C, A and B."""


@everywhere
@pytest.mark.parametrize(
    ("factors", "flops", "is_read"),
    [
        ({}, 1, True),
        ({"alpha": 1.0}, 1, True),
        ({"alpha": 0.5}, 2, True),
        ({"beta": 2, "alpha": 0.5}, 3, True),
        ({"beta": 0, "alpha": 0.5}, 1, False),
        ({"beta": 0.0}, 0, False),
    ],
)
@pytest.mark.parametrize("name", SUMS)
def test_a_product_that_is_scaled_and_added_counts_each_operation_on_an_element(name, factors, flops, is_read, device):
    added, *operands = [rand(*shape) for shape in SUMS[name]]
    report = traced(lambda _, *x: getattr(torch, name)(*x, **factors), added, *operands, device=device)
    read = sum(each.nbytes for each in operands) + is_read * added.nbytes
    assert (report.totals.other_flops, report.totals.bytes_read) == (flops * added.numel(), read)
    assert (report.totals.bytes_written, report.uncounted) == (added.nbytes, [])


def test_a_product_in_another_dtype_has_the_same_factors():
    a, b, c = (torch.empty(shape, dtype=torch.float16, device="meta") for shape in ((4, 5), (5, 6), (4, 6)))
    arguments = (c, a, b, torch.float32)
    costs = [
        cost_of(torch.ops.aten.addmm.dtype, arguments, factors, c) for factors in ({"alpha": 0.5}, {"beta": 0}, {})
    ]
    assert [cost.other_flops for cost in costs] == [2 * 24, 0, 24]


@everywhere
def test_memory_that_is_filled_is_not_read(device):
    calls = (
        lambda _, x: x.new_zeros(7),
        lambda _, x: torch.full_like(x[0, :].expand(7, 5)[:, 0], 3),
        lambda _, x: torch.rand(7, dtype=x.dtype),
    )
    for call in calls:
        totals = traced(call, X, device=device).totals
        assert (totals.bytes_read, totals.bytes_written, totals.other_flops) == (0, 28, 0)


@everywhere
def test_memory_that_is_only_allocated_moves_no_bytes(device):
    calls = (
        lambda _, x: x.new_empty(7),
        lambda _, x: torch.empty_like(x),
        lambda _, x: torch.empty(3),
        lambda _, x: x.new_empty_strided((2, 3), (3, 1)),
    )
    for call in calls:
        totals = traced(call, X, device=device).totals
        assert (totals.bytes_read, totals.bytes_written, totals.other_flops) == (0, 0, 0)


@everywhere
def test_a_complex_product_has_four_real_ones(device):
    a, b = rand(3, 4, 5, dtype=torch.complex64), rand(3, 5, 6, dtype=torch.complex64)
    assert macs(lambda _, a, b: a @ b, a, b, device=device) == 4 * 3 * 4 * 5 * 6
    assert macs(lambda _, a: a @ a.mH, a, device=device) == 4 * 3 * 4 * 5 * 4


@everywhere
@pytest.mark.parametrize("inference", [False, True])
@pytest.mark.parametrize(
    ("query", "key", "value", "expected"),
    [
        ((1, 6, 5, 8), (2, 6, 7, 8), (2, 6, 7, 8), 2 * 6 * 5 * 7 * 16),
        ((2, 6, 5, 8), (1, 6, 7, 8), (1, 6, 7, 8), 2 * 6 * 5 * 7 * 16),
        ((2, 1, 5, 8), (2, 6, 7, 8), (2, 6, 7, 4), 2 * 6 * 5 * 7 * 12),
        ((5, 8), (7, 8), (7, 8), 5 * 7 * 16),
        ((2, 3, 4, 5, 8), (2, 3, 4, 7, 8), (2, 3, 4, 7, 8), 24 * 5 * 7 * 16),
    ],
)
def test_fused_attention_broadcasts(query, key, value, expected, inference, device):
    def attend(_, *x):
        with torch.inference_mode(inference):
            return F.scaled_dot_product_attention(*x)

    assert macs(attend, rand(*query), rand(*key), rand(*value), device=device) == expected


# higher-order and custom operators


@everywhere
def test_flex_attention_is_one_call_of_fused_attention(device):
    q = rand(2, 3, 128, 16)
    report = traced(lambda _, q: flex_attention(q, q, q), q, device=device)
    assert report.totals.macs == 2 * 3 * 128 * 128 * 32
    assert [row.macs for row in report.steps if row.op == "flex_attention"] == [report.totals.macs]
    assert [found.kind for found in report.attentions] == ["fused"]


def test_a_modified_score_has_unknown_elementwise_flops():
    def call(_, q):
        return flex_attention(q, q, q, score_mod=lambda score, b, h, i, j: score * 2)

    report = traced(call, rand(1, 1, 128, 16), device="cpu")
    row = next(row for row in report.steps if row.op == "flex_attention")
    assert (row.macs, row.other_flops) == (128 * 128 * 32, None)


def test_fused_attention_on_the_cpu_is_counted():
    """Use the shapes of the 8 layers in the Mimi encoder, whose attention FlopCounterMode omits on the CPU."""
    q = rand(1, 8, 17, 64)
    assert macs(lambda self, q: F.scaled_dot_product_attention(q, q, q), q, device="cpu") == 2_367_488 // 8
    assert 2 * 8 * 17 * 17 * 64 * 8 == 2_367_488 == 1_788_444_672 - 1_786_077_184


def loop(module, x):
    from torch._higher_order_ops.while_loop import while_loop

    def body(count, x):
        return count + 1, module.first(x)[:, :5].clone()

    return while_loop(lambda count, x: count < 3, body, (torch.tensor(0), x))


HIGHER_ORDER = {
    "cond": (lambda self, x: torch.cond(x.sum() > 0, self.first, self.second, (x,)), 120),
    "while_loop": (loop, 3 * 120),
    "checkpoint": (lambda self, x: checkpoint(self.first, x, use_reentrant=False), 120),
    "reentrant checkpoint": (lambda self, x: checkpoint(self.first, x, use_reentrant=True), 120),
}


@pytest.mark.parametrize("name", HIGHER_ORDER)
@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's own
def test_the_work_of_higher_order_operators_is_exact(name):
    call, expected = HIGHER_ORDER[name]
    assert macs(call, X, device="cpu") == expected


DECIDED = """
import torch
from torch import nn
from torch._higher_order_ops.while_loop import while_loop


class Layers(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(5, 5), nn.Linear(5, 6)


class Branches(Layers):
    def forward(self, ids):
        return torch.cond(ids.sum() < 0, self.first, self.second, (ids.float(),))


class Loops(Layers):
    def forward(self, ids):
        start = torch.zeros((), dtype=torch.int64)
        step = lambda count, x: (count + 1, torch.cond(count > 1, self.first, lambda x: x.clone(), (x,)))
        return while_loop(lambda count, x: count < 4, step, (start, ids.float()))
"""


@pytest.mark.parametrize(("name", "expected"), {"Branches": 4 * 5 * 6, "Loops": 2 * 4 * 5 * 5}.items())
@pytest.mark.parametrize("device", [None, "cpu"])
@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's own
def test_known_values_decide_what_a_higher_order_operator_runs(name, expected, device, tmp_path):
    (tmp_path / "decided.py").write_text(DECIDED)
    target = find_target(f"{tmp_path / 'decided.py'}:{name}", {}, [parse_input("4,5:int64")])
    options = TraceOptions(
        time=False, device=device, group="op", depth=None, submodule=None, budget=0.01, threads=1, seed=0, command=None
    )  # fmt: skip
    report = trace_target(target, options)
    assert (report.totals.macs, report.environment["device"]) == (expected, device or "meta")
    assert not report.uncounted
    assert not any(note.startswith("ran on") for note in report.notes)


@pytest.mark.parametrize("name", HIGHER_ORDER)
def test_higher_order_operators_can_be_timed(name):
    """Run them in another process: torch compiles them, and then allocates more memory in other tests of the process."""
    code = (
        "import warnings\n"
        "warnings.simplefilter('ignore')\n"
        "from tests.test_counting import HIGHER_ORDER, X, traced\n"
        f"call, expected = HIGHER_ORDER[{name!r}]\n"
        "report = traced(call, X, device='cpu', time=True, budget=0.01)\n"
        "assert report.totals.macs == expected and not report.uncounted\n"
        "assert all(row.time is not None for row in report.steps), report.warnings\n"
    )
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@torch.library.custom_op("attnscope_counting::project", mutates_args=())
def project(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return torch.relu(x @ weight.T)


@project.register_fake
def _(x, weight):
    return x.new_empty(x.shape[0], weight.shape[0])


@torch.library.custom_op("attnscope_counting::accumulate", mutates_args=("into",))
def accumulate(into: torch.Tensor, x: torch.Tensor, weight: torch.Tensor) -> None:
    into.addmm_(x, weight.T)


@torch.library.custom_op("attnscope_counting::outside_torch", mutates_args=())
def outside_torch(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(x.numpy() @ weight.detach().numpy().T)


@outside_torch.register_fake
def _(x, weight):
    return x.new_empty(x.shape[0], weight.shape[0])


def test_the_kernel_of_a_custom_operator_is_looked_into():
    def accumulated(self, x):
        into = x.new_zeros(4, 6)
        accumulate(into, x, self.first.weight)
        return into

    assert macs(lambda self, x: project(x, self.first.weight), X, device="cpu") == 120
    assert macs(accumulated, X, device="cpu") == 120


@pytest.mark.parametrize(("operator", "device"), [(project, None), (outside_torch, "cpu"), (outside_torch, None)])
def test_a_custom_operator_whose_work_is_not_seen_is_unknown(operator, device):
    report = traced(lambda self, x: operator(x, self.first.weight) + self.second(x), X, device=device)
    assert report.totals.macs == 120
    assert [row.macs for row in report.steps] == [None, 120, 0]
    assert [row.macs_at_least for row in report.steps] == [0, 120, 0]
    assert [entry.op for entry in report.uncounted] == [f"attnscope_counting::{operator._name}"]


def test_a_formula_for_flop_counter_mode_counts():
    from torch.utils.flop_counter import flop_registry, register_flop_formula

    operator = torch.ops.attnscope_counting.project
    register_flop_formula(operator)(lambda x, weight, *_, out_shape=None, **__: 2 * x[0] * x[1] * weight[0])
    try:
        (row,) = traced(lambda self, x: project(x, self.first.weight), X).steps
    finally:
        del flop_registry[operator]
    assert (row.macs, row.other_flops) == (120, None)


def test_an_unknown_operator_keeps_the_known_part_of_its_call():
    class Together(torch.autograd.Function):
        """A linear layer, and an operator without a formula, in one torch call: the backward of a sum."""

        @staticmethod
        def forward(ctx, x, weight):
            ctx.save_for_backward(weight)
            return x @ weight.T

        @staticmethod
        def backward(ctx, grad):
            (weight,) = ctx.saved_tensors
            return torch.ops.attnscope_counting.outside_torch(grad, weight.T.contiguous()) + grad @ weight, None

    def call(self, x):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(Together.apply(x, self.first.weight).sum(), x)[0]

    report = traced(call, X)
    row = next(row for row in report.steps if row.op == "grad")
    assert (row.macs, row.macs_at_least) == (None, 120)
    assert report.totals.macs == 240


# gradients


def by_backward(self, x):
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        self.first(x).tanh().sum().backward(inputs=[x])
    return x.grad


def by_grad(self, x):
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        return torch.autograd.grad(self.first(x).tanh().sum(), x)[0]


@pytest.mark.parametrize(
    "options", [{}, {"device": "cpu"}, {"time": True, "budget": 0.01}], ids=["meta", "cpu", "timed"]
)
@pytest.mark.parametrize("call", [by_backward, by_grad])
def test_gradients_inside_a_forward_are_exact(call, options):
    assert macs(call, X, **options) == 2 * 120


def test_calls_that_return_no_tensor_are_rows():
    def assign(self, x):
        x = x.clone()
        x[0] = self.first(x)[0, :5]
        return x

    report = traced(assign, X, time=True, budget=0.01)
    assert [row.op for row in report.steps] == ["clone", "linear", "getitem", "setitem"]
    assert report.steps[-1].bytes_written == 4 * 5
    assert report.time is not None


# threads


def in_pool(self, x):
    with ThreadPoolExecutor(2) as pool:
        one, other = [pool.submit(branch, x) for branch in (self.first, self.second)]
        return one.result() + other.result()


def in_threads(self, x):
    made = {}

    def run(name):
        made[name] = self.get_submodule(name)(x)

    threads = [threading.Thread(target=run, args=(name,)) for name in ("first", "second")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return made["first"] + made["second"]


def in_thread_pool(self, x):
    with ThreadPool(2) as pool:
        one, other = pool.map(lambda branch: branch(x), [self.first, self.second])
        return one + other


class DifferentiatesInThread(nn.Linear):
    def forward(self, x):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            thread = threading.Thread(target=lambda: super(type(self), self).forward(x).sum().backward(inputs=[x]))
            thread.start()
            thread.join()
        return x.grad


@pytest.mark.parametrize("settings", [{}, {"device": "cpu"}, {"time": True, "budget": 0.01}], ids=str)
def test_a_thread_computes_gradients_if_the_forward_does(settings):
    report = attnscope.trace(DifferentiatesInThread(4, 6), torch.ones(3, 4), **settings)
    assert report.totals.macs == 2 * 3 * 4 * 6


EARLIER = {}
"""Pools whose threads run before the trace."""


@pytest.fixture(scope="module")
def earlier_pools():
    with ThreadPoolExecutor(1) as executor, ThreadPool(1) as threads:
        executor.submit(int).result()
        EARLIER.update(executor=executor, threads=threads)
        yield


def in_earlier_threads(self, x):
    one, other = EARLIER["threads"].map(lambda branch: branch(x), [self.first, self.second])
    return one + other


def in_an_earlier_pool(self, x):
    pool = EARLIER["executor"]
    return pool.submit(self.first, x).result() + pool.submit(torch.matmul, x, self.second.weight.T).result()


@pytest.mark.parametrize(
    "options", [{}, {"device": "cpu"}, {"time": True, "budget": 0.01}], ids=["meta", "cpu", "timed"]
)
@pytest.mark.parametrize("call", [in_pool, in_threads, in_thread_pool, in_an_earlier_pool, in_earlier_threads])
def test_work_in_threads_is_exact_and_in_its_place(earlier_pools, call, options):
    report = traced(call, X, **options, group="op")
    assert report.totals.macs == 240
    assert report.steps[-1].op == "add"


def test_threads_of_others_are_not_recorded_and_left_as_they_were(earlier_pools):
    start, submit = threading.Thread.start, ThreadPoolExecutor.submit
    running, stop = threading.Event(), threading.Event()

    def work():
        while not stop.is_set():
            EARLIER["executor"].submit(torch.mm, X, X.T).result()
            running.set()

    other = threading.Thread(target=work)
    other.start()
    running.wait()
    try:
        assert macs(lambda self, x: self.first(x), X) == 120
    finally:
        stop.set()
        other.join()
    assert (threading.Thread.start, ThreadPoolExecutor.submit) == (start, submit)


# recurrent layers


LAYERS = {
    "LSTM": (nn.LSTM, {}, 4 * 7 * (5 + 7)),
    "GRU": (nn.GRU, {}, 3 * 7 * (5 + 7)),
    "RNN": (nn.RNN, {}, 7 * (5 + 7)),
    "RNN with ReLU": (nn.RNN, {"nonlinearity": "relu"}, 7 * (5 + 7)),
    "bidirectional": (nn.LSTM, {"bidirectional": True}, 2 * 4 * 7 * (5 + 7)),
    "two layers": (nn.GRU, {"num_layers": 2}, 3 * 7 * (5 + 7) + 3 * 7 * (7 + 7)),
    "projected": (nn.LSTM, {"proj_size": 3}, 4 * 7 * (5 + 3) + 3 * 7),
    "projected, two layers, bidirectional": (
        nn.LSTM,
        {"proj_size": 3, "num_layers": 2, "bidirectional": True},
        2 * (4 * 7 * (5 + 3) + 3 * 7) + 2 * (4 * 7 * (6 + 3) + 3 * 7),
    ),
    "without biases": (nn.LSTM, {"bias": False}, 4 * 7 * (5 + 7)),
    "batch first": (nn.GRU, {"batch_first": True}, 3 * 7 * (5 + 7)),
}
"""Recurrent layers from 5 to 7 channels: class, options, and MACs of a step."""


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("name", LAYERS)
def test_recurrent_layers_are_exact_on_every_device(name):
    kind, options, each = LAYERS[name]
    layer, x = kind(5, 7, **options), rand(4, 3, 5)
    on_meta, on_cpu = attnscope.trace(layer, x), attnscope.trace(layer, x, device="cpu")
    assert on_meta.totals.macs == 12 * each
    assert not on_meta.uncounted
    assert on_meta.totals == on_cpu.totals


@pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN", "RNN with ReLU", "two layers", "projected", "without biases"])
def test_elementwise_flops_of_recurrent_layers_are_those_of_their_operators(name):
    """Compare with the same layer as a chain of torch's cells, or of one operator at a time."""
    kind, options, _ = LAYERS[name]
    layer = kind(5, 7, **options).eval()
    with torch.device("meta"):
        layer, x = layer.to("meta"), torch.empty(4, 3, 5)

    from attnscope.tracing.calls import watch

    counted = sum(call.other_flops for call in watch(layer, lambda: layer(x)).calls)
    from unittest.mock import patch

    with patch("attnscope.tracing.calls.WHOLE", frozenset()):
        unfused = watch(layer, lambda: layer(x)).calls
    assert counted == sum(call.other_flops for call in unfused)
    assert sum(call.macs for call in unfused) == attnscope.trace(layer, x).totals.macs


@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_packed_sequences_count_their_steps(kind, gates):
    layer = kind(5, 7)

    def call(_, x):
        return layer(pack_padded_sequence(x, torch.tensor([4, 2, 1], device="cpu")))[0].data

    assert macs(call, rand(4, 3, 5), device="cpu") == (4 + 2 + 1) * gates * 7 * (5 + 7)


@everywhere
@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTMCell, 4), (nn.GRUCell, 3), (nn.RNNCell, 1)])
def test_recurrent_cells_are_exact(kind, gates, device):
    report = attnscope.trace(kind(5, 7), X, device=device)
    assert report.totals.macs == 4 * gates * 7 * (5 + 7)
    assert not report.uncounted


# memory of fused attention


class Attends(nn.Module):
    """An attention module of torch outside its native path."""

    def __init__(self):
        super().__init__()
        self.layer = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        with torch.enable_grad():
            return self.layer(x, x, x, need_weights=False)[0]


@pytest.mark.parametrize(
    "module", [Calls(lambda _, x: F.scaled_dot_product_attention(x, x, x)), Attends()], ids=["call", "module"]
)
def test_fused_attention_on_meta_holds_no_scores(module):
    x = rand(1, 1024, 8)
    on_meta, on_cpu = attnscope.trace(module, x), attnscope.trace(module, x, device="cpu")
    assert on_meta.environment["device"] == "meta"
    assert on_meta.totals.peak_bytes < 1024 * 1024  # a quarter of the scores of one head
    counts = ("macs", "other_flops", "bytes_read", "bytes_written", "peak_bytes")
    assert [getattr(on_meta.totals, name) for name in counts] == [getattr(on_cpu.totals, name) for name in counts]


@pytest.mark.parametrize(
    "module", [nn.MultiheadAttention(8, 2, batch_first=True), nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)]
)
def test_native_paths_cost_the_same_on_meta_and_leave_no_trace(module):
    name = torch.utils.backend_registration._privateuse1_backend_name
    x = (rand(2, 5, 8),) * (3 if isinstance(module, nn.MultiheadAttention) else 1)
    on_meta, on_cpu = attnscope.trace(module.eval(), *x), attnscope.trace(module, *x, device="cpu")
    assert [row.op for row in on_meta.steps] == [row.op for row in on_cpu.steps]
    assert on_meta.totals == on_cpu.totals
    assert torch.utils.backend_registration._privateuse1_backend_name == name


# tensors of every kind


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_a_padded_encoder_on_nested_tensors_is_exact():
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)

    def call(_, x):
        padding = torch.arange(5, device=x.device) >= torch.tensor([[5], [3]], device=x.device)
        return encoder(x, src_key_padding_mask=padding)

    encoder.eval()
    tokens, scores = 5 + 3, 2 * 5 * 5  # torch pads the scores of each image to the longest
    layer = 4 * tokens * 8 * 8 + 2 * scores * 8 + 2 * tokens * 8 * 16
    assert macs(call, rand(2, 5, 8), device="cpu") == 2 * layer


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_nested_tensors_count_their_elements(layout):
    def call(self, x):
        nested = torch.nested.nested_tensor([x[0], x[1, :3]], layout=layout)
        return torch.nested.to_padded_tensor(F.relu(self.first(nested)), 0.0)

    report = traced(call, rand(2, 4, 5), device="cpu")
    assert report.totals.macs == (4 + 3) * 5 * 6
    linear = next(row for row in report.steps if row.op == "linear")
    assert (linear.inputs[0], linear.outputs[0]) == ((2, 4, 5), (2, 4, 6))


def test_sparse_products_count_the_stored_elements():
    def call(self, x):
        adjacency = torch.eye(4, device=x.device).to_sparse()
        return self.first(torch.sparse.mm(adjacency, x))

    report = traced(call, X, device="cpu")
    assert report.totals.macs == 4 * 5 + 120
    row = next(row for row in report.steps if row.macs == 20)
    assert row.bytes_read is None  # a sparse tensor has no storage of its own
    assert report.totals.peak_bytes is None
    assert report.totals.peak_bytes_at_least > 0


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_quantized_and_mkldnn_tensors_pass():
    def quantized(self, x):
        weight = torch.quantize_per_tensor(self.first.weight.detach(), 0.1, 0, torch.qint8)
        return F.linear(x, weight.dequantize())

    assert macs(quantized, X, device="cpu") == 120
    report = traced(lambda self, x: (x.to_mkldnn() + x.to_mkldnn()).to_dense() @ x.T, X, device="cpu")
    assert report.totals.macs == 80
    assert report.steps[0].bytes_written is None


@pytest.mark.filterwarnings("ignore")  # torch deprecates its quantization
def test_a_quantized_linear_layer_is_exact():
    layer = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(5, 6)), {nn.Linear})
    (row, *_) = attnscope.trace(layer, X, device="cpu").steps
    assert (row.macs, row.other_flops) == (120, None)


def test_vmap_and_functional_gradients_are_exact():
    def mapped(self, x):
        return torch.func.vmap(lambda row: self.first.weight @ row)(x)

    def derived(self, x):
        return torch.func.grad(lambda x: (self.first.weight @ x).sum())(x)

    assert macs(mapped, X) == 120
    assert macs(derived, rand(5)) == 30 + 30


@pytest.mark.parametrize("is_within", [True, False])
def test_fake_tensors_are_those_of_meta(is_within):
    with FakeTensorMode() as mode:
        module, x = nn.Linear(5, 6), torch.randn(4, 5)
    with mode if is_within else nullcontext():
        report = attnscope.trace(module, x)
    assert (report.totals.macs, report.totals.params, report.notes) == (4 * 5 * 6, 5 * 6 + 6, [])
    with pytest.raises(UsageError, match="must not be on meta, which computes nothing"):
        attnscope.trace(module, x, device="cpu")


def test_a_fake_mode_inside_a_forward_and_around_a_trace_passes():
    def fakes(self, x):
        with FakeTensorMode():
            return torch.randn(4, 5) @ torch.randn(5, 6)

    x = rand(1, 2)
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert macs(lambda self, x: x @ x.t(), x) == 2
    assert macs(fakes, rand(1)) == 4 * 5 * 6


def test_forward_mode_gradients_are_exact():
    def tangent(self, x):
        return torch.func.jvp(self.first, (x,), (torch.ones_like(x),))[1]

    report = traced(tangent, rand(4, 5))
    assert report.uncounted == []
    assert report.totals.macs == 3 * 4 * 5 * 6  # the output, and a tangent by the input and one by the weight


def test_a_marker_of_the_profiler_costs_nothing():
    def marked(self, x):
        with torch.profiler.record_function("here"):
            return x + 1

    report = traced(marked, rand(4, 5))
    assert report.uncounted == []
    assert report.totals.other_flops == 4 * 5


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_operators_outside_of_torch_calls_do_not_make_a_forward_untimeable():
    def through_numpy(self, x):
        return x + torch.from_numpy(x.numpy())

    def nested(self, x):
        return torch.nested.nested_tensor([x[:1], x]).to_padded_tensor(0.0)

    for call in (through_numpy, nested):
        report = traced(call, rand(4, 5), time=True, budget=0.01)
        assert not any("not timed" in warning for warning in report.warnings)
        assert all(row.time is not None for row in report.steps if row.name in ("add", "to_padded_tensor"))


class Wrapped(torch.Tensor):
    """A subclass that wraps a tensor and runs every operator on it."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype, device=inner.device)

    def __init__(self, inner):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        args = [each.inner if isinstance(each, Wrapped) else each for each in args]
        return cls(func(*args, **(kwargs or {})))


def test_the_operators_of_a_subclass_are_counted_once():
    assert macs(lambda self, x: (Wrapped(x) @ self.first.weight.T).inner, X) == 120


def test_a_lazy_layer_passes():
    layer = nn.LazyLinear(6)
    layer(X)
    assert attnscope.trace(layer, X).totals.macs == 120


# gradients of fused attention and of convolutions


@pytest.mark.parametrize(
    ("call", "shape"),
    [
        (lambda x: F.conv2d(x, x.new_ones(6, 3, 3, 3)), (2, 3, 8, 8)),
        (lambda x: F.conv_transpose2d(x, x.new_ones(3, 6, 3, 3)), (2, 3, 8, 8)),
        (lambda x: F.scaled_dot_product_attention(x, x, x), (2, 3, 16, 8)),
    ],
)
def test_gradients_of_convolutions_and_fused_attention_are_exact(call, shape):
    def gradient(_, x):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(call(x).sum(), x)[0]

    report = traced(gradient, rand(*shape), device="cpu")
    row = next(row for row in report.steps if row.op == "grad")
    forward = max(row.macs for row in report.steps[:-1])
    # the gradient of a convolution's constant weight is not needed; attention's recomputes the scores
    assert row.macs == (forward * 5 // 2 if len({*shape}) == 4 and shape[2] != shape[3] else forward)


def test_the_gradient_of_fused_attention_is_exact_on_meta():
    def gradient(_, q):
        with torch.enable_grad():
            q = q.detach().requires_grad_()
            return torch.autograd.grad(F.scaled_dot_product_attention(q, q, q).sum(), q)[0]

    report = traced(gradient, rand(2, 3, 16, 8))
    assert report.environment["device"] == "meta"
    assert report.totals.macs == (2 + 4) * 2 * 3 * 16 * 16 * 8


# autocast


def test_bytes_under_autocast_are_unknown_on_meta():
    def call(self, x):
        before = x + 1
        with torch.autocast("cpu", dtype=torch.bfloat16):
            x = self.first(before)
        return x * 2

    on_meta, on_cpu = traced(call, X), traced(call, X, device="cpu")
    assert [row.bytes_written for row in on_meta.steps] == [4 * 20, None, None]
    assert [row.macs for row in on_meta.steps] == [row.macs for row in on_cpu.steps] == [0, 120, 0]
    assert on_meta.totals.peak_bytes is None
    assert on_cpu.steps[-1].bytes_written == 2 * 24


# how unknown counts are shown


def test_the_foot_shows_that_a_sum_is_unknown():
    def foot(call):
        report = traced(call, X)
        return render(report, "table", Screen()).split(" calls ")[1].splitlines()[0]

    known = foot(lambda self, x: self.first(x) * self.second(x))
    part = foot(lambda self, x: outside_torch(x, self.first.weight) + self.second(x))
    nothing = foot(lambda self, x: outside_torch(x, self.first.weight) + outside_torch(x, self.first.weight))
    assert known.split()[0] == "240"
    assert part.split()[:2] == ["≥", "120"]
    assert nothing.split()[0] == "?"


def test_lower_bounds_are_in_csv():
    report = traced(lambda self, x: outside_torch(x, self.first.weight) + self.second(x), X)
    rows = list(csv.DictReader(io.StringIO(render(report, "csv", Screen()))))
    assert [row["macs"] for row in rows] == ["", "120", "0", ""]
    assert [row["macs_at_least"] for row in rows] == ["0", "120", "0", "120"]


# no silent zero


PRODUCT = re.compile(
    r"mm|mv(?!l)|matmul|dot|conv|linear|attention|lstm|gru|rnn|einsum|outer|addr|kron|cdist|inner|encoder|matrix_power"
)
"""Names of operators that multiply matrices, and of some others."""
NO_PRODUCT = re.compile(r"gamma|cummax|cummin|linear1d|linear[23]d|hamming|convert_|_reorder_|dummy")
"""Names that PRODUCT matches although the operators multiply nothing."""


def aten_products():
    """Return every overload of aten's operators that multiply matrices, in place and with given results included."""
    names = {
        schema.name.removeprefix("aten::") for schema in torch._C._jit_get_all_schemas() if "aten::" in schema.name
    }
    of_flop_counter_mode = {getattr(packet, "__name__", "") for packet in flop_registry}
    packets = [
        getattr(torch.ops.aten, name)
        for name in sorted(names | of_flop_counter_mode)
        if hasattr(torch.ops.aten, name)
        and (name in of_flop_counter_mode or (PRODUCT.search(name) and not NO_PRODUCT.search(name)))
    ]
    return [getattr(packet, overload) for packet in packets for overload in packet.overloads()]


def is_composite(operator):
    try:
        return torch._C._dispatch_has_kernel_for_dispatch_key(operator.name(), "CompositeImplicitAutograd")
    except RuntimeError:  # an operator of TorchScript alone, which composes others
        return True


def test_no_product_is_silently_zero():
    """Each is priced, or is unknown, or is composed of others."""
    operators = aten_products()
    silent = [
        operator.name()
        for operator in operators
        if is_known(operator) and ops.find(name_of(operator)).macs is None and not is_composite(operator)
    ]
    assert not silent
    assert len(operators) > 150


def test_variants_of_a_product_have_one_formula_and_its_arguments():
    """A formula takes arguments by position: those of `addmm` are those of `addmm_`, `addmm.out` and `addmm.dtype`."""
    positions = {}
    for operator in aten_products():
        operation = ops.find(name_of(operator))
        if operation is None:
            continue
        names = [each.name for each in operator._schema.arguments if not each.kwarg_only][:3]
        first = positions.setdefault(operation.name, names)
        shared = min(len(first), len(names))
        assert names[:shared] == first[:shared] or operation.name in ("lstm", "gru", "rnn_tanh", "rnn_relu")
    assert {"mm", "bmm", "addmm", "baddbmm", "addbmm", "addmv", "mv", "dot", "vdot", "linear", "matmul"} <= set(
        positions
    )


@pytest.mark.parametrize(
    ("operator", "shapes"),
    [
        ("mm", [(4, 5), (5, 6)]),
        ("addmm", [(4, 6), (4, 5), (5, 6)]),
        ("bmm", [(3, 4, 5), (3, 5, 6)]),
        ("baddbmm", [(3, 4, 6), (3, 4, 5), (3, 5, 6)]),
    ],
)
def test_every_variant_agrees_with_flop_counter_mode(operator, shapes):
    x = [rand(*shape) for shape in shapes]
    with FlopCounterMode(display=False) as counter:
        made = getattr(torch.ops.aten, operator)(*x)
    packet = getattr(torch.ops.aten, operator)
    variants = [lambda _, *x: packet(*x), lambda _, *x: packet.out(*x, out=x[0].new_empty(made.shape))]
    if hasattr(torch.ops.aten, f"{operator}_"):
        variants.append(lambda _, first, *x: getattr(torch.ops.aten, f"{operator}_")(first.clone(), *x))
    assert {2 * macs(call, *x, device="cpu") for call in variants} == {counter.get_total_flops()}


def test_flop_counter_mode_agrees_on_plain_products():
    module = Calls(lambda self, x: F.conv1d(self.first(x)[None], torch.ones(3, 4, 2)) @ torch.ones(5, 2))
    with FlopCounterMode(display=False) as counter:
        module(X)
    assert 2 * macs(module.call, X, device="cpu") == counter.get_total_flops()


def test_an_operator_in_place_is_as_elementwise_as_out_of_place():
    names = {schema.name.removeprefix("aten::") for schema in torch._C._jit_get_all_schemas()}
    elementwise = {
        packet.__name__
        for name in names
        if (packet := getattr(torch.ops.aten, name, None)) is not None
        and any(torch.Tag.pointwise in getattr(packet, overload).tags for overload in packet.overloads())
    }
    in_place = [getattr(torch.ops.aten, f"{name}_") for name in sorted(elementwise) if f"{name}_" in names]
    unknown = [
        str(packet)
        for packet in in_place
        if not all(is_known(getattr(packet, overload)) for overload in packet.overloads())
    ]
    assert unknown == []
    assert len(in_place) > 50
    assert attnscope.trace(Changes(), torch.ones(3, 4)).totals.macs == 0


class Changes(nn.Module):
    def forward(self, x):
        return x.clone().abs_().ge_(0).copysign_(x)
