"""Half precision: every module is near float64 in float16, bfloat16 and under autocast, and NaN is a warning."""

import contextlib
import copy
import itertools
import json
import math

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from attnscope import (
    SwinSpec,
    SwinV2Spec,
    ViTAttention,
    ViTSpec,
    WindowAttention,
    WindowAttentionV2,
    attentions,
    explore,
    trace,
)
from attnscope.analyses.contenders import arrange
from attnscope.analyses.paper_comparison import on_paper
from attnscope.analyses.timed_comparison import race
from attnscope.attentions.cross.spec import CrossSpec
from attnscope.attentions.swinv2 import attention as swinv2
from attnscope.attentions.swinv2.attention import normalized, shortest_length
from attnscope.core.dtypes import DTYPE_BYTES
from attnscope.networks.layers import LayerScale
from attnscope.networks.sam.spec import SAMNetworkSpec
from attnscope.networks.swin.spec import SwinNetworkSpec, SwinV2NetworkSpec
from attnscope.networks.vit.spec import ViTNetworkSpec
from attnscope.ops.kernels import COMPILED
from attnscope.profiling.outputs import not_finite
from tests.strategies import specs, specs_of

HALVES = [torch.float16, torch.bfloat16]
PLACES = [*itertools.product(HALVES, [False, True])]
"""Each half dtype for the whole module, and under autocast with float32 parameters."""
ULPS = 4
"""Largest error in units of the last place of the largest output value, which is near 1 for most attentions."""
ULPS_OF_V2 = 8
"""The same for Swin V2: its logits reach 26 (a cosine times 10, plus a bias up to 16), and those of others about 3."""


def error_in_ulps(module, inputs, dtype, autocast):
    """Return the error of a half-precision forward against float64 with the same weights and inputs.

    Its unit is the dtype's epsilon times the largest output value.
    """
    if not autocast:
        module, inputs = copy.deepcopy(module).to(dtype), [x.to(dtype) for x in inputs]
    with torch.no_grad():
        with torch.autocast("cpu", dtype) if autocast else contextlib.nullcontext(), own_convolutions(module):
            half = module(*inputs)
        # the compiled kernels have no float64
        exact = with_kernel(copy.deepcopy(module).double(), "eager")(*[x.double() for x in inputs])
    assert half.isfinite().all()
    return ((half.double() - exact).abs().max() / exact.abs().max() / torch.finfo(dtype).eps).item()


@contextlib.contextmanager
def own_convolutions(module):
    """Convolve without oneDNN: in 3.12, a bfloat16 result of one position can be wrong where a CPU has avx512_bf16."""
    has_convolution = any(isinstance(part, nn.Conv2d) for part in module.modules())
    torch.backends.mkldnn.set_flags(not has_convolution)
    try:
        yield
    finally:
        torch.backends.mkldnn.set_flags(True)


def with_kernel(module, kernel):
    for each in module.modules():
        if hasattr(each, "kernel"):
            each.kernel = kernel
    return module


def inputs_of(spec):
    return [torch.randn(shape) for shape in spec.input_shapes]


@pytest.mark.parametrize(("dtype", "autocast"), PLACES, ids=str)
@given(specs(kernels=("eager", "sdpa", "math")))
@settings(max_examples=100)
def test_every_attention_is_near_float64(dtype, autocast, spec):
    """The Specs are random: kernels, padding, shift, mask and shared heads."""
    is_v2 = isinstance(spec, SwinV2Spec)
    # a key of a few channels can be so short that a single rounding changes its direction
    assume(not is_v2 or spec.dim // spec.heads >= 4)
    bound = ULPS_OF_V2 if is_v2 else ULPS
    assert error_in_ulps(spec.build().eval(), inputs_of(spec), dtype, autocast) <= bound


@pytest.mark.parametrize(("dtype", "autocast"), PLACES, ids=str)
@pytest.mark.parametrize("name", sorted({*attentions.names()} - {"vit", "cross", "swin", "swinv2"}))
@given(data=st.data())
@settings(max_examples=25, suppress_health_check=[HealthCheck.filter_too_much])  # few draws are legal
def test_every_family_is_near_float64(name, dtype, autocast, data):
    # in linear attention only the direction of a query counts, which a rounding changes if few channels are left by ReLU
    wide = {"head_dim": 12} if name == "linear" else {}
    spec = data.draw(specs_of(attentions.spec_class(name), **wide))
    assert error_in_ulps(spec.build().eval(), inputs_of(spec), dtype, autocast) <= ULPS


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize(("dtype", "autocast"), PLACES, ids=str)
@pytest.mark.parametrize("kernel", COMPILED)
@pytest.mark.parametrize(
    "spec",
    [
        ViTSpec(dim=48, heads=3, tokens=17),
        CrossSpec(dim=48, heads=3, tokens=17, keys=9),
        SwinSpec(dim=48, heads=3, resolution=(10, 10), shift=True),
        SwinV2Spec(dim=48, heads=3, resolution=(10, 10), shift=True),
    ],
    ids=lambda spec: spec.name,
)
def test_compiled_kernels_are_near_float64(spec, kernel, dtype, autocast):
    if kernel == "flex" and torch.__version__ < "2.6":
        pytest.skip("FlexAttention has no CPU kernel before torch 2.6")
    module = with_kernel(spec.build().eval(), kernel)
    bound = ULPS_OF_V2 if isinstance(spec, SwinV2Spec) else ULPS
    assert error_in_ulps(module, inputs_of(spec), dtype, autocast) <= bound


NETWORKS = [
    ViTNetworkSpec(dim=24, heads=3, depth=3, image=(48, 32), classes=5),
    ViTNetworkSpec(
        dim=24,
        heads=3,
        depth=3,
        image=(48, 32),
        classes=0,
        rope="dinov3",
        registers=2,
        pos_embed="none",
        mlp="swiglu",
        mlp_norm=True,
        layer_scale=True,
        qk_norm=True,
        key_bias=False,
        pool="mean",
    ),
    SAMNetworkSpec(dim=24, heads=3, depth=3, image=(80, 64), window=(3, 3), global_blocks=(2,), neck=16),
    SwinNetworkSpec(dim=24, heads=3, depths=(2, 2), image=(36, 20), window=(4, 4), classes=5),
    SwinV2NetworkSpec(dim=24, heads=3, depths=(2, 2), image=(36, 20), window=(4, 4), classes=5),
]


@pytest.mark.parametrize(("dtype", "autocast"), PLACES, ids=str)
@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("spec", NETWORKS, ids=lambda spec: spec.name)
def test_every_network_is_near_float64(spec, kernel, dtype, autocast):
    """Errors of the blocks add up, so the bound is that of an attention for each block, and for embedding and head."""
    module = with_kernel(spec.build().eval(), kernel)
    for norm in (each for each in module.modules() if isinstance(each, nn.LayerNorm)):
        nn.init.ones_(norm.weight)  # those of Swin V2 start at 0, which would hide its attentions
    for scale in (each for each in module.modules() if isinstance(each, LayerScale)):
        nn.init.ones_(scale.gamma)  # those near 0 would hide the branches
    blocks = sum(hasattr(each, "mlp") for each in module.modules())
    assert error_in_ulps(module, inputs_of(spec), dtype, autocast) <= ULPS * (2 + blocks)


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("shift", [0, 4])
@pytest.mark.parametrize(("dtype", "autocast"), PLACES, ids=str)
def test_swinv2_on_a_padded_grid_is_near_float64(dtype, autocast, shift, kernel):
    """The keys of padding tokens are zero, since Swin V2 has no bias for keys."""
    module = WindowAttentionV2(96, 3, 8, shift, kernel=kernel).eval()
    assert error_in_ulps(module, [torch.randn(1, 10, 10, 96)], dtype, autocast) <= ULPS_OF_V2


@pytest.mark.parametrize("name", DTYPE_BYTES)
def test_zero_keys_stay_zero_and_their_gradients_are_finite(name):
    dtype = getattr(torch, name)
    zero = torch.zeros(2, 3, 4, 8, dtype=dtype, requires_grad=True)
    q, k = normalized(zero, zero)
    assert not q.any()
    assert not k.any()
    k.sum().backward()
    assert zero.grad.isfinite().all()


@pytest.mark.parametrize("name", DTYPE_BYTES)
def test_other_keys_have_the_length_1(name):
    dtype = getattr(torch, name)
    tiny = torch.full((1, 1, 1, 4), shortest_length(dtype), dtype=dtype)
    for x in (torch.randn(2, 3, 4, 8).to(dtype), tiny, 1000 * tiny):
        lengths = normalized(x, x)[1].double().norm(dim=-1)
        torch.testing.assert_close(lengths, torch.ones_like(lengths), atol=4 * torch.finfo(dtype).eps, rtol=0)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("kind", [WindowAttention, WindowAttentionV2])
def test_training_on_a_padded_grid_has_finite_gradients(kind, dtype):
    module = kind(24, 3, 4, 2).to(dtype)
    module(torch.randn(2, 5, 6, 24, dtype=dtype)).float().square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in module.parameters())


class Constants(TorchDispatchMode):
    """A mode that records the constants of operators that their dtype rounds to 0 or to infinity."""

    def __init__(self):
        super().__init__()
        self.seen, self.wrong = 0, []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tensors = [x for x in (*args, result) if isinstance(x, torch.Tensor) and x.is_floating_point()]
        for value in (*args, *(kwargs or {}).values()):
            if not isinstance(value, float) or not tensors or value == 0:
                continue
            self.seen += 1
            rounded = torch.tensor(value, dtype=tensors[0].dtype).item()
            if rounded == 0 or math.isinf(rounded) != math.isinf(value):
                self.wrong.append((str(func), value))
        return result


@pytest.mark.parametrize("name", DTYPE_BYTES)
@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize(
    "spec",
    [
        ViTSpec(dim=8, heads=2, tokens=5),
        CrossSpec(dim=8, heads=2, tokens=5, keys=3),
        SwinSpec(dim=8, heads=2, resolution=(5, 5), window=(4, 4), shift=True),
        SwinV2Spec(dim=8, heads=2, resolution=(5, 5), window=(4, 4), shift=True),
        *NETWORKS,
    ],
    ids=lambda spec: f"{spec.name} {type(spec).__name__}",
)
def test_every_constant_exists_in_its_dtype(spec, kernel, name):
    """Each eps, factor and value of a mask is neither 0 nor infinite unless it is meant to be."""
    dtype = getattr(torch, name)
    module = with_kernel(spec.build().to(dtype), kernel)
    with Constants() as constants:
        module(*[x.to(dtype) for x in inputs_of(spec)]).sum().backward()
    assert constants.seen
    assert not constants.wrong
    for mask in (each.shift_mask for each in module.modules() if isinstance(each, WindowAttention)):
        assert mask is None or set(mask.unique().tolist()) <= {0.0, float("-inf")}
    epsilons = [each.eps for each in module.modules() if isinstance(each, nn.LayerNorm)]
    assert all(torch.tensor(eps, dtype=dtype) > 0 for eps in epsilons)


def test_the_walk_detects_an_eps_that_float16_does_not_have(monkeypatch):
    monkeypatch.setattr(swinv2, "shortest_length", lambda dtype: 1e-12)
    with Constants() as constants:
        normalized(*torch.randn(2, 1, 1, 4, 8, dtype=torch.float16))
    assert {value for _, value in constants.wrong} == {1e-12}


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        ([torch.ones(4)], None),
        ([torch.ones(4), torch.tensor([1, 2])], None),
        ([torch.tensor([1.0, math.nan, -math.inf])], "2 NaN or infinite values of 3: check the weights"),
        (
            [torch.ones(1), torch.full((2,), math.inf, dtype=torch.float16)],
            "2 NaN or infinite values of 3: float16 ends",
        ),
        ([torch.full((2,), math.nan, device="meta")], None),
        ([torch.full((2,), math.nan).to_sparse()], None),
    ],
)
def test_an_output_that_is_not_finite_is_described(tensors, expected):
    warning = not_finite(tensors)
    assert warning is None if expected is None else expected in warning


@pytest.fixture
def overflowing(monkeypatch):
    """Make Swin V2 divide zero keys by zero in float16."""
    monkeypatch.setattr(swinv2, "shortest_length", lambda dtype: 1e-12)


def test_explore_warns_of_an_output_that_is_not_finite(overflowing):
    spec = SwinV2Spec(dim=8, heads=2, resolution=(10, 10), dtype="float16")
    report = explore(spec, budget=0.01, kernels=True)
    assert "NaN or infinite values of 800" in report.warnings[0]
    assert {"eager", "sdpa", "math"} <= {row.name for row in report.kernels if not row.finite}
    assert report.warnings[1].startswith("the output has NaN or infinite values with the kernel eager, sdpa")
    assert not any("infinite" in each for each in report.noise)
    assert "not finite: the output has NaN" in report._repr_html_().replace("\n", " ")


def test_compare_warns_of_an_output_that_is_not_finite(overflowing):
    settings = {"dim": 8, "heads": 2, "dtype": "float16"}
    meeting = arrange(["swin", "swinv2"], {"resolution": [9, 10]}, settings)
    comparison = on_paper(meeting, "macs", None)
    race(comparison, meeting, device="cpu", budget=0.01)
    about = [warning for warning in comparison.warnings if "infinite" in warning]
    assert len(about) == 1
    assert about[0].startswith("the output of swinv2 has")


def test_trace_warns_of_an_output_that_is_not_finite():
    module = ViTAttention(8, 2)
    x = torch.full((1, 3, 8), math.inf)
    assert not [each for each in trace(module, x).warnings if "infinite" in each]
    warnings = trace(module, x, time=True, budget=0.01).warnings
    assert "the output has 24 NaN or infinite values of 24: check the weights and the input" in warnings


@pytest.mark.parametrize("words", [("trace",), ("compare",)], ids=lambda words: words[0])
@pytest.mark.parametrize("form", ["table", "json", "md", "csv", "html"])
def test_every_format_warns_of_an_output_that_is_not_finite(attnscope, tmp_path, words, form):
    """A CSV has no place for a warning, which is then a line on stderr."""
    source = "import torch\nclass M(torch.nn.Linear):\n    def forward(self, x): return super().forward(x) * x.log()\n"
    for name in ("old", "new"):
        (tmp_path / f"{name}.py").write_text(source)
    files = [f"{tmp_path}/{name}.py:M" for name in (("old",) if words == ("trace",) else ("old", "new"))]
    arguments = ("--arg", "in_features=8", "--arg", "out_features=8", "--input", "1,4,8")
    done = attnscope(*words, *files, *arguments, "--time", "--budget", "0.01", "--format", form, COLUMNS="300")
    assert done.returncode == 0
    if form == "json":
        json.loads(done.stdout, parse_constant=pytest.fail)  # JSON has no NaN
    if words == ("compare",) and form == "table":
        assert "new.py:M has the same outputs with the same weights" in " ".join(done.stdout.split())
    assert "NaN or infinite values" in " ".join((done.stderr if form == "csv" else done.stdout).split())


def test_a_csv_without_warnings_has_no_other_line(attnscope):
    assert not attnscope("swin", "--no-time", "--format", "csv").stderr
    assert "\n* " not in attnscope("swin", "--no-time", "--format", "md").stdout
