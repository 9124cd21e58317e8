"""ViT's attention with rotary positions, registers, QK norm and no key bias: the battery, references and the formula."""

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.layers import AttentionRope
from timm.layers.pos_embed_sincos import RotaryEmbeddingCat, RotaryEmbeddingDinoV3, RotaryEmbeddingMixed
from timm.models.eva import EvaAttention
from torch import nn

from attnscope import UsageError, ViTSpec
from attnscope.attentions.vit.attention import EPS, ViTAttention
from attnscope.attentions.vit.rope import ROTATIONS
from attnscope.testing import AttentionBattery, hold_elementwise_flops, hold_macs, hold_trace
from tests.families.conftest import macs_of
from tests.sampling import examples
from tests.strategies import KERNELS, of_heads

SMALL = {"dim": 24, "heads": 3, "image": (6, 10), "patch": (2, 2)}
HALVES = [name for name, rotation in ROTATIONS.items() if rotation.halves]


class TestBattery(AttentionBattery):
    specs = (
        *(
            ViTSpec(**SMALL, rope=rope, **fields)
            for rope in ("axial", "mixed", "dinov3")
            for fields in (
                {"batch": 2},
                {"cls": False},
                {"registers": 4, "qk_norm": True, "key_bias": False},
                {"registers": 2, "batch": 2, "kernel": "sdpa"},
                {"batch": 2, "dtype": "float64"},
                {"batch": 2, "dtype": "bfloat16", "registers": 1},
                {"attn_drop": 0.1, "proj_drop": 0.1, "qkv_bias": False},
            )
        ),
        ViTSpec(**SMALL, rope="eva02", kv_heads=1, batch=2, qk_norm=True, key_bias=False),
        ViTSpec(**SMALL, rope="axial", kv_heads=1, kernel="sdpa"),
        ViTSpec(**SMALL, qk_norm=True, batch=2, kv_heads=1),
        ViTSpec(**SMALL, qk_norm=True, registers=3, kernel="sdpa"),
        ViTSpec(**SMALL, key_bias=False, batch=2),
        ViTSpec(**SMALL, inner_norm=True, batch=2, rope="eva02"),
        ViTSpec(**SMALL, key_bias=False, kv_heads=1, dtype="bfloat16"),
        ViTSpec(**SMALL, registers=4, cls=False),
    )


@st.composite
def rotating_specs(draw):
    """Draw Specs whose heads have the channels that rotate in pairs along both axes."""
    rope = draw(st.sampled_from([None, *ROTATIONS]))
    heads = of_heads(draw(st.tuples(st.integers(1, 2), st.integers(1, 1 if rope == "mixed" else 3))))
    return ViTSpec(
        **heads,
        dim=4 * heads["heads"] * draw(st.integers(1, 3)),
        rope=rope,
        image=draw(st.tuples(st.integers(1, 5), st.integers(1, 5))),
        patch=(1, 1),
        cls=draw(st.booleans()),
        registers=draw(st.none() | st.integers(0, 4)),
        batch=draw(st.integers(1, 3)),
        qk_norm=draw(st.booleans()),
        inner_norm=draw(st.booleans()),
        **draw(st.sampled_from([{}, {"key_bias": False}, {"qkv_bias": False}])),
        kernel=draw(st.sampled_from(KERNELS)),
    )


@given(rotating_specs())
@examples(50)
def test_letters_closed_form_counters_and_trace_agree(spec):
    hold_macs(spec)
    hold_elementwise_flops(spec)
    hold_trace(spec)


def table_of(module, halves):
    """Return timm's table of a module's angles: the sine without the signs of a pair, then the cosine, (…, l, 2d)."""
    cos, sin = module.angles(module.places) if hasattr(module, "freqs") else (module.cos, module.sin)
    signs = torch.tensor([-1, 1])
    pairs = (2, -1) if halves else (-1, 2)
    unsigned = sin.unflatten(-1, pairs) * (signs[:, None] if halves else signs)
    return torch.cat([unsigned.flatten(-2), cos], dim=-1).detach()


OPTIONS = [
    {"qk_norm": True},
    {"key_bias": False, "inner_norm": True},
    {"registers": 4, "qk_norm": True, "key_bias": False},
]
PREFIXES = [{"registers": 4}, {"cls": False}]
CASES = [(rope, fields) for rope in ("axial", "eva02", "dinov3") for fields in PREFIXES + OPTIONS]
CASES += [(None, fields) for fields in OPTIONS]


@pytest.mark.parametrize(("rope", "fields"), CASES, ids=str)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_outputs_and_gradients_equal_those_of_timm(rope, fields, kernel, dtype, hold_equal):
    spec = ViTSpec(**SMALL, rope=rope, kernel=kernel, **fields)
    options = {
        "num_prefix_tokens": spec.prefix,
        "qk_norm": spec.qk_norm,
        "scale_norm": spec.inner_norm,
        "norm_layer": partial(nn.LayerNorm, eps=EPS),
        "rotate_half": rope in HALVES,
    }
    reference = (AttentionRope if spec.key_bias else EvaAttention)(24, 3, **options)
    table = table_of(spec.build().to(dtype), rope in HALVES) if rope else None
    hold_equal(spec, reference, lambda x: (x, table), dtype)


class MixedAttention(nn.Module):
    """timm's attention with the learned frequencies of its layer, whose angles follow the paper: exp(i(x·f_x + y·f_y)).

    Args:
        prefix: the number of tokens before the patches.
    """

    def __init__(self, prefix):
        super().__init__()
        self.freqs = nn.Parameter(torch.empty(2, 3, 4))
        self.attn = EvaAttention(24, 3, num_prefix_tokens=prefix, scale_norm=False)

    def forward(self, x):
        patch = torch.arange(15)
        column, row = ((patch % 5).to(x.dtype), (patch // 5).to(x.dtype))
        angles = torch.einsum("l,hu->hlu", column, self.freqs[0]) + torch.einsum("l,hu->hlu", row, self.freqs[1])
        turns = torch.polar(torch.ones_like(angles), angles)
        return self.attn(x, torch.cat([turns.imag.repeat_interleave(2, -1), turns.real.repeat_interleave(2, -1)], -1))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
def test_learned_frequencies_have_the_outputs_and_gradients_of_the_paper(kernel, dtype, hold_equal):
    spec = ViTSpec(**SMALL, rope="mixed", registers=2, key_bias=False, kernel=kernel)
    hold_equal(
        spec,
        MixedAttention(spec.prefix),
        dtype=dtype,
        loaded=lambda state: {name.removeprefix("attn."): value for name, value in state.items()},
    )


@pytest.mark.parametrize("grid", [(3, 5), (16, 16), (24, 10)])
def test_angles_equal_those_of_timm(grid):
    def ours(rope):
        return table_of(ViTAttention(32, 2, rope=rope, grid=grid), rope in HALVES)

    index = {"in_pixels": False, "feat_shape": grid}
    theirs = {
        "axial": RotaryEmbeddingCat(16, temperature=100.0, grid_indexing="xy", **index).get_embed(),
        "eva02": RotaryEmbeddingCat(16, temperature=10_000.0, ref_feat_shape=(16, 16), **index).get_embed(),
        "dinov3": RotaryEmbeddingDinoV3(16, temperature=100.0, feat_shape=grid).get_embed(),
    }
    for rope, table in theirs.items():
        torch.testing.assert_close(ours(rope), table, rtol=0, atol=1e-5, msg=lambda m, rope=rope: f"{rope}: {m}")


def test_initial_frequencies_and_their_angles_equal_those_of_timm():
    torch.manual_seed(0)
    reference = RotaryEmbeddingMixed(32, depth=1, num_heads=2, temperature=10.0, feat_shape=[3, 5])
    torch.manual_seed(0)
    module = ViTAttention(32, 2, rope="mixed", grid=(3, 5))
    torch.testing.assert_close(module.freqs, torch.zeros_like(module.freqs), rtol=0, atol=1.0)
    torch.testing.assert_close(module.freqs.norm(dim=0), reference.freqs[:, 0].norm(dim=0))
    with torch.no_grad():
        module.freqs.copy_(reference.freqs[:, 0])
    torch.testing.assert_close(table_of(module, halves=False), reference.get_embed()[0].detach(), rtol=0, atol=1e-5)


def test_learned_angles_of_narrow_dtypes_are_computed_in_float32():
    wide = ViTAttention(32, 2, rope="mixed", grid=(16, 16))
    with torch.no_grad():
        wide.freqs.copy_(wide.freqs.bfloat16())
    expected, _ = wide.angles(wide.places)
    narrow = ViTAttention(32, 2, rope="mixed", grid=(16, 16)).bfloat16()
    narrow.load_state_dict(wide.state_dict())
    found, _ = narrow.angles(narrow.places)
    assert torch.equal(found, expected.bfloat16())


@pytest.mark.parametrize(
    ("fields", "image", "patch"),
    [
        ({"dim": 384, "heads": 6, "registers": 4, "key_bias": False, "rope": "dinov3"}, 256, 16),
        ({"dim": 768, "heads": 12, "rope": "mixed"}, 224, 16),
        ({"dim": 768, "heads": 12, "rope": "eva02", "key_bias": False}, 224, 14),
    ],
)
def test_costs_follow_the_formula(fields, image, patch):
    """Check 4NC² + 2N²C, and 3 FLOPs for each rotated element of q and k, for blocks of published networks."""
    spec = ViTSpec(**fields, image=image, patch=patch)
    N, C, p = spec.sequence, spec.dim, spec.prefix
    assert spec.plan().macs == 4 * N * C**2 + 2 * N**2 * C
    reference = EvaAttention(C, spec.heads, scale_norm=False, num_prefix_tokens=p)
    d = C // spec.heads
    assert spec.plan().macs == macs_of(lambda: reference.to("meta")(torch.randn(1, N, C), torch.randn(N - p, 2 * d)))
    flops = {step.name: step.other_flops for step in spec.plan().steps}
    assert flops["rotate_queries"] + flops["rotate_keys"] == 6 * (N - p) * C


def test_outputs_equal_those_of_transformers_dinov3():
    pytest.importorskip("transformers", reason="transformers is not installed")
    from transformers import DINOv3ViTConfig
    from transformers.models.dinov3_vit import modeling_dinov3_vit as theirs

    sizes = {"hidden_size": 24, "num_attention_heads": 3, "image_size": (6, 10), "patch_size": 2}
    config = DINOv3ViTConfig(**sizes, num_register_tokens=4, key_bias=False, attn_implementation="eager")
    torch.manual_seed(0)
    reference, x = theirs.DINOv3ViTAttention(config).eval(), torch.randn(2, 20, 24)
    turns = theirs.DINOv3ViTRopePositionEmbedding(config).eval()(torch.zeros(1, 3, 6, 10))
    state = reference.state_dict()
    module = ViTSpec(**SMALL, registers=4, rope="dinov3", key_bias=False).build().eval()
    module.load_state_dict(
        {f"{name}_bias": state[f"{name}_proj.bias"] for name in "qv"}
        | {f"proj.{name}": state[f"o_proj.{name}"] for name in ("weight", "bias")}
        | {"qkv.weight": torch.cat([state[f"{name}_proj.weight"] for name in "qkv"])}
    )
    torch.testing.assert_close(module(x), reference(x, position_embeddings=turns)[0], rtol=1e-5, atol=1e-5)


def test_module_is_built_without_a_spec_and_knows_its_grid():
    module = ViTAttention(24, 3, rope="axial", grid=(3, 5), prefix=5, qk_norm=True, key_bias=False)
    assert module(torch.randn(2, 20, 24)).shape == (2, 20, 24)
    assert "rope='axial', grid=(3, 5), prefix=5" in repr(module)
    with pytest.raises(UsageError, match=r"must have the shape \(b, n = 20, c = 24\) \(got \(2, 19, 24\)\)"):
        module(torch.randn(2, 19, 24))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rope": "axial", "tokens": 196}, r"rope rotates by the row and the column .* use image instead"),
        ({"rope": "axial", "dim": 72}, r"rope requires .* \(got 72 / 12 = 6\); nearest: dim 48 or 96"),
        ({"rope": "mixed", "kv_heads": 3}, r"rope mixed learns .* \(got kv_heads 3\); remove it, or use rope axial"),
        ({"rope": "axail"}, r"rope axail is unknown; did you mean axial\?"),
        ({"qkv_bias": False, "key_bias": False}, r"no_key_bias requires a bias of q and v"),
        ({"tokens": 9, "registers": 4}, r"tokens and registers both set the number of tokens"),
        ({"registers": -1}, r"registers must be at least 0 \(got -1\)"),
    ],
)
def test_contradictions_are_rejected(fields, message):
    with pytest.raises(UsageError, match=message):
        ViTSpec(**fields)


def test_a_grid_of_a_comparison_has_positions():
    spec = ViTSpec.on_grid((6, 5), {"rope": "axial", "dim": 24, "heads": 3, "patch": 16, "registers": 2, "window": 7})
    assert (spec.grid, spec.sequence, spec.prefix, spec.rope) == ((6, 5), 32, 2, "axial")
    assert ViTSpec.on_grid((6, 5), {"dim": 24, "heads": 3}).tokens == 30
    video = ViTSpec.on_grid((6, 5), {"rope": "axial", "dim": 24, "heads": 3, "frames": 4, "batch": 2})
    assert (video.grid, video.batch) == ((6, 5), 8)
