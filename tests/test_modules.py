"""Attention modules: equal to timm's and torchvision's; they can be trained, pickled, exported and compiled."""

import copy
import io
import itertools
import pickle
import re
from dataclasses import replace

import pytest
import timm.layers
import timm.models.swin_transformer as timm_swin
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.models.swin_transformer import ShiftedWindowAttention

from attnscope import (
    CrossAttention,
    SwinNetworkSpec,
    SwinSpec,
    SwinV2NetworkSpec,
    UsageError,
    ViTAttention,
    ViTNetworkSpec,
    ViTSpec,
    WindowAttention,
    attentions,
    window_partition,
    window_reverse,
)
from attnscope.attentions.swin.attention import relative_position_index, shift_mask
from attnscope.attentions.swinv2.attention import WindowAttentionV2
from attnscope.attentions.swinv2.spec import SwinV2Spec
from attnscope.core.windows import Windows

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


def assert_same(ours, theirs, x, tolerance):
    """Assert that outputs and gradients of the input and of all parameters agree."""
    results = []
    for module in (ours, theirs):
        leaf = x.clone().requires_grad_()
        module.zero_grad()
        y = module(leaf)
        (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)).sum().backward()
        grads = {name: parameter.grad for name, parameter in module.named_parameters()}
        results.append((y.detach(), leaf.grad, grads))
    (y, grad, grads), (y_theirs, grad_theirs, grads_theirs) = results
    assert grads.keys() == grads_theirs.keys()
    for a, b in [(y, y_theirs), (grad, grad_theirs), *((grads[name], grads_theirs[name]) for name in grads)]:
        torch.testing.assert_close(a, b, atol=tolerance * max(1.0, b.abs().max().item()), rtol=0)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("qkv_bias", [True, False])
def test_vit_equals_timms(dtype, kernel, qkv_bias):
    theirs = timm.layers.Attention(24, num_heads=3, qkv_bias=qkv_bias).to(dtype)
    theirs.fused_attn = kernel == "sdpa"
    ours = ViTAttention(24, 3, qkv_bias=qkv_bias, kernel=kernel).to(dtype)
    ours.load_state_dict(theirs.state_dict())
    assert_same(ours, theirs, torch.randn(2, 17, 24, dtype=dtype), TOLERANCE[dtype])


class TimmBlock(nn.Module):
    """The attention of timm's Swin block with partition and roll, without norm and MLP."""

    def __init__(self, resolution, heads, window, shift, dim):
        super().__init__()
        block = timm_swin.SwinTransformerBlock(dim, resolution, heads, window_size=window, shift_size=shift)
        block.norm1 = block.norm2 = nn.Identity()
        self.block = block

    def forward(self, x):
        return self.block._attn(x)

    def named_parameters(self, *args, **kwargs):
        return self.block.attn.named_parameters(*args, **kwargs)

    def state_dict(self, *args, **kwargs):
        return self.block.attn.state_dict(*args, **kwargs)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize(
    ("resolution", "window", "shift"),
    [((8, 12), 4, 0), ((8, 12), 4, 2), ((6, 8), (3, 4), (1, 2)), ((14, 14), 7, 3)],
)
def test_swin_equals_timms(dtype, kernel, resolution, window, shift):
    theirs = TimmBlock(resolution, 3, window, shift, 12).to(dtype)
    theirs.block.attn.fused_attn = False
    ours = WindowAttention(12, 3, window, shift, kernel=kernel).to(dtype)
    ours.load_state_dict(theirs.state_dict())
    assert_same(ours, theirs, torch.randn(2, *resolution, 12, dtype=dtype), TOLERANCE[dtype])


@given(
    st.tuples(st.integers(1, 13), st.integers(1, 13)),
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.data(),
)
@settings(max_examples=40)
def test_padded_and_shifted_swin_equals_torchvisions(resolution, window, data):
    shift = data.draw(st.tuples(*(st.integers(0, side - 1) for side in window)))
    theirs = ShiftedWindowAttention(6, list(window), list(shift), 3).double()
    nn.init.normal_(theirs.relative_position_bias_table)
    ours = WindowAttention(6, 3, window, shift, kernel=data.draw(st.sampled_from(["eager", "sdpa"]))).double()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, *resolution, 6, dtype=torch.float64)
    # its mask has −100 and ours −inf; exp(−100) is 1e-44
    assert_same(ours, theirs, x, 1e-10)


@pytest.mark.parametrize("resolution", [(10, 15), (3, 3), (7, 20)])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_swin_without_padding_equals_torchvisions(dtype, resolution):
    theirs = ShiftedWindowAttention(12, [7, 7], [3, 3], 3).to(dtype)
    ours = WindowAttention(12, 3, 7, 3).to(dtype)
    ours.load_state_dict(theirs.state_dict())
    assert_same(ours, theirs, torch.randn(2, *resolution, 12, dtype=dtype), TOLERANCE[dtype])


def test_softmax_includes_the_padding():
    """With 3×3 tokens in a 7×7 window, uniform scores and no biases, the output is 9/49 of the mean."""
    module = WindowAttention(4, 1, 7, qkv_bias=False).double()
    with torch.no_grad():
        module.relative_position_bias_table.zero_()
        module.qkv.weight.zero_()
        module.qkv.weight[8:] = torch.eye(4)
        module.proj.weight.copy_(torch.eye(4))
        module.proj.bias.zero_()
        x = torch.randn(1, 3, 3, 4, dtype=torch.float64)
        torch.testing.assert_close(module(x), (x.mean((1, 2), keepdim=True) * 9 / 49).expand_as(x))


@given(
    st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3)),
    st.integers(1, 4),
    st.integers(1, 4),
)
def test_reverse_is_the_inverse_of_partition(shape, p, q):
    b, r, s, c = shape
    x = torch.arange(b * r * p * s * q * c).view(b, r * p, s * q, c)
    windows = window_partition(x, (p, q))
    assert windows.shape == (b * r * s, p, q, c)
    assert torch.equal(window_reverse(windows, (p, q), r * p, s * q), x)
    assert torch.equal(window_reverse(windows.flatten(1, 2), (p, q), r * p, s * q), x)
    strided = torch.stack([x, x], -1)[..., 0].transpose(1, 2)  # not contiguous, as a channels-last image or a slice
    assert torch.equal(window_reverse(window_partition(strided, (q, p)), (q, p), s * q, r * p), strided)


def test_windows_are_ordered_by_image_first():
    x = torch.arange(2)[:, None, None, None].expand(2, 4, 4, 1)
    assert window_partition(x, 2).flatten(1).unique(dim=1).flatten().tolist() == [0] * 4 + [1] * 4


def test_a_grid_that_windows_do_not_divide_raises():
    with pytest.raises(ValueError, match=r"the grid must be divisible by the window 2×2 \(got 5×4\); pad it first"):
        window_partition(torch.zeros(1, 5, 4, 1), 2)
    with pytest.raises(ValueError, match=r"divisible by the window 2×2 \(got 4×5\); give the padded size"):
        window_reverse(torch.zeros(4, 2, 2, 1), 2, 4, 5)


def test_the_relative_position_index_is_that_of_the_paper():
    assert relative_position_index((2, 2)).tolist() == [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]
    assert relative_position_index((2, 3))[0].tolist() == [7, 6, 5, 2, 1, 0]
    index = relative_position_index((7, 7))
    assert (index[0, 0], index[0, 48], index[48, 0], index.unique().numel()) == (84, 0, 168, 169)


def test_the_mask_has_the_expected_number_of_masked_pairs():
    def masked(height, window, shift):
        return shift_mask(Windows(height, height, window, shift), torch.zeros(1)).isinf().sum((1, 2)).tolist()

    assert masked(8, (4, 4), (2, 2)) == [0, 128, 128, 192]
    assert masked(14, (7, 7), (3, 3)) == [0, 1176, 1176, 1776]


@given(st.tuples(st.integers(1, 9), st.integers(1, 9)), st.tuples(st.integers(1, 4), st.integers(1, 4)), st.data())
def test_the_mask_follows_from_the_definition_without_a_roll(resolution, window, data):
    """Token i is in window ⌊(i − s)/M⌋ on each axis; a pair attends iff both tokens are in the same window."""
    grid = Windows(*resolution, window, data.draw(st.tuples(*(st.integers(0, side - 1) for side in window))))
    mask = shift_mask(grid, torch.zeros(1, dtype=torch.float64))
    places = torch.stack(torch.meshgrid(*map(torch.arange, grid.padded), indexing="ij"), -1)[None]
    shift, sides = torch.tensor(grid.roll), torch.tensor(window)
    rolled = places.roll((-grid.roll[0], -grid.roll[1]), dims=(1, 2))
    home = (rolled - shift).div(sides, rounding_mode="floor")
    home = window_partition(home, window).flatten(1, 2)
    apart = (home[:, :, None] != home[:, None, :]).any(-1)
    assert torch.equal(mask.isinf(), apart)
    assert not mask.isinf().all(-1).any()  # no row is masked completely


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_the_mask_follows_the_input_to_another_device(kernel):
    module = WindowAttention(dim=12, heads=3, window=4, shift=2, kernel=kernel)
    x = torch.randn(1, 8, 8, 12)
    here = module(x)
    there = {name: weight.to("meta") for name, weight in module.named_parameters()}
    assert torch.func.functional_call(module, there, x.to("meta")).is_meta
    assert torch.equal(module(x), here)


MODULES = {"vit": (ViTAttention, {}), "swin": (WindowAttention, {"window": 4, "shift": 2})}
MODULES["swinv2"] = WindowAttentionV2, MODULES["swin"][1]


@pytest.fixture(params=[*itertools.product(MODULES, ["eager", "sdpa"], [None, 2])], ids=str)
def case(request):
    name, kernel, kv_heads = request.param
    kind, fields = MODULES[name]
    x = torch.randn(2, 5, 12) if name == "vit" else torch.randn(2, 6, 9, 12)
    return kind(12, 4, **fields, kernel=kernel, kv_heads=kv_heads).eval(), x


def test_a_pickled_or_copied_module_has_the_same_output(case):
    module, x = case
    y = module(x)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(other(x), y)
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    module.load_state_dict(torch.load(file, weights_only=True))


def test_an_exported_module_has_the_same_output(case):
    module, x = case
    exported = torch.export.export(module, (x,)).module()
    torch.testing.assert_close(exported(x), module(x))


@pytest.mark.slow
# torch's compiler uses deprecated parts of torch
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_a_module_compiled_as_one_graph_has_the_same_output(case):
    module, x = case
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), module(x))


def test_a_module_can_be_trained_after_inference_mode(case):
    """A mask from a forward in inference mode must not prevent a later backward."""
    module, x = case
    with torch.inference_mode():
        module(x)
    module.train()(x).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in module.parameters())


def test_the_mask_follows_the_grid_the_dtype_and_the_module():
    module = WindowAttention(12, 3, 4, 2).eval()
    for shape, dtype in [
        ((1, 8, 8, 12), torch.float32),
        ((1, 8, 12, 12), torch.float32),
        ((1, 8, 8, 12), torch.float64),
    ]:
        fresh = WindowAttention(12, 3, 4, 2).to(dtype)
        fresh.load_state_dict(module.to(dtype).state_dict())
        x = torch.randn(shape, dtype=dtype)
        assert torch.equal(module(x), fresh(x))


def test_dropout_applies_in_training(case):
    module, x = case
    kind, fields = next((kind, fields) for kind, fields in MODULES.values() if kind is type(module))
    shared = {"kernel": module.kernel, "kv_heads": module.kv_heads}
    dropped = kind(12, 4, **fields, attn_drop=0.5, proj_drop=0.5, **shared)
    dropped.load_state_dict(module.state_dict())
    assert torch.equal(dropped.eval()(x), module(x))
    assert not torch.equal(dropped.train()(x), module(x))


def own_heads(name, tensor, dim, heads, kv_heads):
    """Convert a parameter with shared key/value heads to one with a key/value head for each query head."""
    if not name.startswith(("qkv.", "v_bias")):
        return tensor
    queries = dim if name.startswith("qkv.") else 0
    groups = tensor[queries:].unflatten(0, (-1, kv_heads, dim // heads))
    return torch.cat([tensor[:queries], groups.repeat_interleave(heads // kv_heads, dim=1).flatten(0, 2)])


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("kv_heads", [1, 2])
@pytest.mark.parametrize("kind", [ViTSpec, SwinSpec, SwinV2Spec], ids=lambda kind: kind.name)
def test_shared_heads_equal_separate_heads_with_the_same_weights(kind, kv_heads, kernel):
    """Outputs and gradients agree; the gradient of a shared head is the sum over its query heads."""
    spec = kind.on_grid((6, 9), {"dim": 24, "heads": 4, "window": (4, 4), "shift": True, "batch": 2, "kernel": kernel})
    own, shared = (attentions.build(replace(spec, kv_heads=number)).double() for number in (None, kv_heads))
    for parameter in shared.parameters():
        nn.init.normal_(parameter)
    parameters = dict(shared.named_parameters())
    spread = {name: own_heads(name, parameter, 24, 4, kv_heads) for name, parameter in parameters.items()}
    own.load_state_dict({name: parameter.detach() for name, parameter in spread.items()})
    x = torch.randn(spec.input_shape, dtype=torch.float64)
    y = own(x)
    torch.testing.assert_close(shared(x), y, rtol=0, atol=1e-10)
    weights = torch.randn_like(y)
    (shared(x) * weights).sum().backward()
    (y * weights).sum().backward()
    folded = torch.autograd.grad(list(spread.values()), list(parameters.values()), [p.grad for p in own.parameters()])
    for (name, parameter), gradient in zip(parameters.items(), folded, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=0, atol=1e-8, msg=name)


def test_kv_heads_equal_to_heads_is_the_same_module():
    """Names and shapes are timm's, and the steps are the same."""
    for kind in (ViTSpec, SwinSpec, SwinV2Spec):
        plain, explicit = kind(), kind(kv_heads=kind().heads)
        assert attentions.plan(plain) == attentions.plan(explicit)
        states = [attentions.build(spec).state_dict() for spec in (plain, explicit)]
        assert len({tuple((name, tensor.shape) for name, tensor in state.items()) for state in states}) == 1


def test_qk_scale_replaces_the_default_scale():
    module, theirs = ViTAttention(12, 3, qk_scale=0.3).double(), ViTAttention(12, 3).double()
    theirs.load_state_dict(module.state_dict())
    with torch.no_grad():
        theirs.qkv.weight[:12] *= 0.3 * 4**0.5
        theirs.qkv.bias[:12] *= 0.3 * 4**0.5
    x = torch.randn(1, 5, 12, dtype=torch.float64)
    torch.testing.assert_close(module(x), theirs(x))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ViTAttention(10, 3), "dim must be divisible by heads 3 (got 10); nearest: 9 or 12, or heads 2 or 5"),
        (lambda: WindowAttention(12, 3, 4, 4), "shift_size must be smaller than window 4 (got 4); largest: 3"),
        (lambda: WindowAttention(12, 3, 0), "window must be at least 1 (got 0)"),
        (lambda: ViTAttention(12, 3, kernel="flush"), "kernel flush is unknown; did you mean flash?"),
    ],
)
def test_the_error_for_a_wrong_argument_has_the_python_name(make, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make()


VIT = ViTNetworkSpec(image=32, dim=12, heads=3, depth=1).build()
SWIN = SwinNetworkSpec(image=32, dim=6, heads=3, depths=(1, 1), window=7).build()
SWIN_V2 = SwinV2NetworkSpec(image=32, dim=6, heads=3, depths=(1, 1), window=7).build()


@pytest.mark.parametrize(
    ("module", "inputs", "said"),
    [
        (ViTAttention(12, 3), [(2, 12)], "the input of ViTAttention must have the shape (b, n, c = 12) (got (2, 12))"),
        (ViTAttention(12, 3), [(2, 7, 13)], "(b, n, c = 12) (got (2, 7, 13))"),
        (
            CrossAttention(12, 3),
            [(2, 7, 12), (2, 12)],
            "the context of CrossAttention must have the shape (b, m, c = 12)",
        ),
        (WindowAttention(12, 3), [(2, 12, 14, 14)], "(b, height, width, c = 12) (got (2, 12, 14, 14))"),
        (
            VIT,
            [(2, 3, 32, 16)],
            "the input of VisionTransformer must have the shape (b, i = 3, height = 32, width = 32)",
        ),
        (VIT, [(2, 32, 32, 3)], "(got (2, 32, 32, 3)); resize it, or build the network for its size"),
        (VIT.patch_embed, [(2, 32, 32, 3)], "PatchEmbed must have the shape (b, i = 3, height, width)"),
        (VIT.blocks[0], [(2, 5, 13)], "the input of Block must have the shape (b, n, c = 12) (got (2, 5, 13))"),
        (VIT.blocks[0].mlp, [(2, 13)], "the input of Mlp must have the shape (b, n, c = 12) (got (2, 13))"),
        (
            SWIN,
            [(2, 32, 32, 3)],
            "PatchEmbed must have the shape (b, i = 3, height, width) (got (2, 32, 32, 3)); reshape",
        ),
        (SWIN.layers[0], [(2, 64, 6)], "SwinBlock must have the shape (b, y, x, c = 6) (got (2, 64, 6))"),
        (SWIN.layers[1], [(2, 8, 8, 12)], "PatchMerging must have the shape (b, y, x, c = 6) (got (2, 8, 8, 12))"),
        (SWIN.layers[0].blocks[0].mlp, [(2, 64, 6)], "GridMlp must have the shape (b, y, x, c = 6)"),
        (SWIN_V2.layers[0], [(2, 8, 8, 12)], "SwinV2Block must have the shape (b, y, x, c = 6)"),
        (SWIN_V2.layers[1], [(2, 12, 8, 8)], "PatchMergingV2 must have the shape (b, y, x, c = 6)"),
        (WindowAttentionV2(12, 3), [(2, 196, 12)], "WindowAttentionV2 must have the shape (b, height, width, c = 12)"),
    ],
)
def test_an_input_of_another_shape_is_an_error_with_the_rule(module, inputs, said):
    with pytest.raises(UsageError, match=re.escape(said)):
        module(*(torch.zeros(shape) for shape in inputs))


def test_windows_of_another_shape_are_an_error_with_the_rule():
    with pytest.raises(ValueError, match=r"x must have the shape \(b, height, width, c\) \(got \(4, 4, 3\)\)"):
        window_partition(torch.zeros(4, 4, 3), 2)
    for shape in ((3, 2, 2, 5), (4, 3, 5), (4, 2, 2, 2, 5)):
        with pytest.raises(
            ValueError, match=r"the windows must have the shape \(b·4, 2, 2, c\) or \(b·4, 4, c\) \(got"
        ):
            window_reverse(torch.zeros(shape), 2, 4, 4)


def test_the_repr_has_the_arguments():
    assert "dim=12, heads=3, kernel='eager'\n" in repr(ViTAttention(12, 3))
    assert "dim=12, heads=3, kv_heads=1, kernel='sdpa'\n" in repr(CrossAttention(12, 3, kv_heads=1, kernel="sdpa"))
    shifted = "dim=12, heads=3, kernel='eager', window=(7, 7), shift=(3, 3)\n"
    for module in (WindowAttention(12, 3, shift=3), WindowAttentionV2(12, 3, window=7, shift=3)):
        assert shifted in repr(module)


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        (VIT, "image=(32, 32), patch=(16, 16), dim=12, depth=1, classes=1000"),
        (VIT.patch_embed, "dim=12, patch=(16, 16)"),
        (VIT.blocks[0], "dim=12, hidden=48"),
        (VIT.blocks[0].mlp, "dim=12, hidden=48"),
        (SWIN, "dim=6, classes=1000"),
        (SWIN.patch_embed, "dim=6, patch=(4, 4)"),
        (SWIN.layers[1], "dim=12, heads=6, window=(4, 4), depth=1"),
        (SWIN.layers[1].downsample, "dim=6"),
        (SWIN_V2.layers[0].blocks[0], "dim=6, hidden=24"),
    ],
)
def test_the_repr_of_a_network_and_of_its_layers_has_the_arguments(module, arguments):
    assert module.extra_repr() == arguments
    assert f"{type(module).__name__}(\n  {arguments}\n" in repr(module)
