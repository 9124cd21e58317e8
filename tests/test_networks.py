"""Networks: equal to timm's and torchvision's; exact MACs, training and receptive fields."""

import copy
import math
import pickle

import pytest
import timm
import torch
import torchvision
from hypothesis import given, settings
from torch import nn

import attnscope
from attnscope import UsageError, networks, trace_steps
from attnscope.analyses.published import compare_published
from attnscope.networks.presets import presets
from attnscope.networks.swin.spec import SwinNetworkSpec, SwinV2NetworkSpec
from attnscope.networks.vit.spec import ViTNetworkSpec
from attnscope.profiling.building import build
from attnscope.profiling.counters import count_with_fvcore, count_with_torch
from attnscope.profiling.verification import verify_steps
from tests.sampling import some
from tests.strategies import small_swins, small_vits

PRESETS = {preset.name: preset for preset in presets()}
ALL = pytest.mark.parametrize("preset", PRESETS.values(), ids=lambda preset: preset.name)
SOME = pytest.mark.parametrize("preset", some([*PRESETS.values()], 50), ids=lambda preset: preset.name)


def noisy(network: nn.Module) -> nn.Module:
    """Randomize all parameters, since a value of 0 or 1 can hide a mistake."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return network.eval()


def shallow(spec, **others):
    """Return arguments for a small version of the network, with few narrow blocks."""
    if isinstance(spec, ViTNetworkSpec):
        return {"dim": 24, "heads": 3, "depth": 2, "classes": 7, **others}
    return {"dim": 12, "heads": 3, "depths": (2, 2, 3, 2), "classes": 7, **others}


SMALL_VIT = {"embed_dim": 24, "num_heads": 3, "depth": 2, "num_classes": 7}
SMALL_SWIN = {"embed_dim": 12, "num_heads": (3, 6, 12, 24), "depths": (2, 2, 3, 2), "num_classes": 7}

AGREEMENT = [
    # Spec, timm's name and arguments, for pretraining and other resolutions and odd grids
    (ViTNetworkSpec(**shallow(ViTNetworkSpec())), "vit_base_patch16_224", SMALL_VIT),
    (
        ViTNetworkSpec(image=(96, 64), patch=(8, 8), **shallow(ViTNetworkSpec())),
        "vit_base_patch8_224",
        {**SMALL_VIT, "img_size": (96, 64)},
    ),
    (ViTNetworkSpec(image=(384, 384), patch=(32, 32), **shallow(ViTNetworkSpec())), "vit_base_patch32_384", SMALL_VIT),
    (
        ViTNetworkSpec(image=(96, 96), distilled=True, **shallow(ViTNetworkSpec())),
        "deit_tiny_distilled_patch16_224",
        {**SMALL_VIT, "img_size": 96},
    ),
    (SwinNetworkSpec(**shallow(SwinNetworkSpec())), "swin_tiny_patch4_window7_224", SMALL_SWIN),
    (
        SwinNetworkSpec(image=(384, 384), window=(12, 12), **shallow(SwinNetworkSpec())),
        "swin_base_patch4_window12_384",
        SMALL_SWIN,
    ),
    (
        SwinNetworkSpec(image=(448, 224), **shallow(SwinNetworkSpec())),
        "swin_tiny_patch4_window7_224",
        {**SMALL_SWIN, "img_size": (448, 224)},
    ),
    (SwinV2NetworkSpec(**shallow(SwinV2NetworkSpec())), "swinv2_tiny_window8_256", SMALL_SWIN),
    (
        SwinV2NetworkSpec(image=(192, 192), window=(12, 12), **shallow(SwinV2NetworkSpec())),
        "swinv2_base_window12_192",
        SMALL_SWIN,
    ),
    (
        SwinV2NetworkSpec(window=(16, 16), pretrained_windows=(12, 12, 12, 6), **shallow(SwinV2NetworkSpec())),
        "swinv2_base_window12to16_192to256",
        SMALL_SWIN,
    ),
    (
        SwinV2NetworkSpec(
            image=(128, 256), window=(8, 8), pretrained_windows=(12, 12, 12, 6), **shallow(SwinV2NetworkSpec())
        ),
        "swinv2_base_window12to16_192to256",
        {**SMALL_SWIN, "img_size": (128, 256), "window_size": 8},
    ),
]


@pytest.mark.parametrize(
    ("kernel", "dtype", "close"),
    [("eager", torch.float64, 1e-10), ("sdpa", torch.float64, 1e-10), ("eager", torch.float32, 1e-5)],
    ids=["eager-float64", "sdpa-float64", "eager-float32"],
)
@pytest.mark.parametrize(
    ("spec", "name", "arguments"), AGREEMENT, ids=lambda value: value if isinstance(value, str) else ""
)
def test_outputs_equal_timms(spec, name, arguments, kernel, dtype, close):
    theirs = noisy(timm.create_model(name, **arguments)).to(dtype)
    ours = networks.build(attnscope_with(spec, kernel=kernel)).to(dtype).eval()
    for buffer, same in zip(_tables(ours), _tables(theirs), strict=True):
        torch.testing.assert_close(buffer, same, rtol=0, atol=1e-6)
    if dtype == torch.float64:
        ours, theirs = _rebuilt_in_double(spec, kernel, name, arguments, theirs)
    assert not ours.load_state_dict(theirs.state_dict()).missing_keys
    image = torch.randn(1, 3, *spec.image, dtype=dtype)
    with torch.no_grad():
        torch.testing.assert_close(ours(image), theirs(image), rtol=0, atol=close)


def attnscope_with(spec, **others):
    from dataclasses import replace

    return replace(spec, **others)


def _tables(network):
    return [
        buffer
        for name, buffer in network.named_buffers()
        if name.endswith("relative_coords_table")
        for buffer in [buffer.flatten()]
    ]


def _rebuilt_in_double(spec, kernel, name, arguments, theirs):
    """Build both networks again in float64, so that the distances of V2 have the same dtype."""
    state = theirs.state_dict()
    ours = networks.build(attnscope_with(spec, kernel=kernel)).double().eval()
    again = timm.create_model(name, **arguments).double().eval()
    again.load_state_dict(state)
    return ours, again


TORCHVISION = [
    (ViTNetworkSpec(image=(64, 64), dim=24, heads=3, depth=2, classes=7), "VisionTransformer"),
    (SwinNetworkSpec(image=(100, 140), **shallow(SwinNetworkSpec())), "SwinTransformer"),
    (SwinV2NetworkSpec(image=(100, 140), **shallow(SwinV2NetworkSpec())), "SwinTransformerV2"),
]


@pytest.mark.parametrize(("spec", "family"), TORCHVISION, ids=lambda value: value if isinstance(value, str) else "")
def test_outputs_equal_torchvisions(spec, family):
    """Odd grids agree too, since both pad before they roll."""
    if family == "VisionTransformer":
        theirs = torchvision.models.VisionTransformer(64, 16, 2, 3, 24, 96, num_classes=7)
    else:
        from torchvision.models import swin_transformer as swin

        v2 = (
            {"block": swin.SwinTransformerBlockV2, "downsample_layer": swin.PatchMergingV2}
            if family.endswith("V2")
            else {}
        )
        theirs = swin.SwinTransformer([4, 4], 12, [2, 2, 3, 2], [3, 6, 12, 24], list(spec.window), num_classes=7, **v2)
    theirs = noisy(theirs).double()
    if family != "VisionTransformer":
        spec = _unclipped(spec)
    ours = networks.build(spec).double().eval()
    ours.load_state_dict(theirs.state_dict())
    image = torch.randn(2, 3, *spec.image, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ours(image), theirs(image), rtol=0, atol=1e-10)


def _unclipped(spec):
    """Return the Spec with an image so large that no stage clips its window; torchvision does not clip."""
    side = 8 * 4 * spec.window[0]
    return attnscope_with(spec, image=(side + 4, side + 20))


def test_official_checkpoints_load():
    """Microsoft's checkpoints merge at the end of a stage, name the head differently and include buffers."""
    spec = SwinNetworkSpec(**shallow(SwinNetworkSpec()))
    source = networks.build(spec)
    official = {}
    for name, tensor in source.state_dict().items():
        stage = name.split(".")[1]
        name = (
            name.replace(f"layers.{stage}.downsample", f"layers.{int(stage) - 1}.downsample")
            if "downsample" in name
            else name
        )
        official[name.replace("head.fc.", "head.")] = tensor
    official["layers.0.blocks.1.attn_mask"] = torch.zeros(64, 49, 49)
    official["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49)
    target = networks.build(spec)
    target.load_state_dict(official)
    for ours, theirs in zip(target.parameters(), source.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_position_embeddings_of_another_size_are_resampled_as_in_timm():
    theirs = noisy(timm.create_model("vit_base_patch16_224", **SMALL_VIT))
    ours = networks.build(ViTNetworkSpec(image=(320, 256), **shallow(ViTNetworkSpec())))
    ours.load_state_dict(theirs.state_dict())
    larger = timm.create_model("vit_base_patch16_224", **SMALL_VIT, img_size=(320, 256))
    from timm.layers import resample_abs_pos_embed

    expected = resample_abs_pos_embed(theirs.pos_embed, (20, 16), num_prefix_tokens=1)
    assert larger.pos_embed.shape == ours.pos_embed.shape
    torch.testing.assert_close(ours.pos_embed, expected, rtol=0, atol=1e-6)


@SOME
def test_plan_closed_form_and_timms_parameters_agree(preset):
    spec = preset.spec
    plan = networks.plan(spec)
    with torch.device("meta"):
        ours = networks.build(spec)
        theirs = timm.create_model(preset.timm, num_classes=spec.classes) if preset.timm else ours
    assert plan.params == preset.params == count(ours) == count(theirs)
    assert ours.load_state_dict(theirs.state_dict(), assign=True).missing_keys == []
    closed = spec.closed_form()
    assert plan.macs == preset.macs == sum(step.times * closed.get(step.places[0], 0) for step in plan.steps)
    planned = {name for step in plan.steps for path in (step.path, *step.also) for name in _weights(path, step)}
    assert planned == {name for name, _ in ours.named_parameters()}


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def _weights(path, step):
    return [f"{path}.{name}" if path else name for name in step.weights]


@ALL
def test_every_published_figure_is_explained(preset):
    figures = compare_published(preset.spec, networks.plan(preset.spec), preset.published).figures
    assert [figure.explained_by for figure in figures if not figure.explained_by] == []


@pytest.mark.parametrize(
    ("name", "params", "macs", "with_norms"),
    [
        ("vit-b-16-224", 86_567_656, 17_563_828_224, 17_582_740_224),
        ("deit-s-224", 22_050_664, 4_598_882_304, 4_608_338_304),
        ("vit-l-16-384", 304_715_752, 191_066_300_416, 191_211_058_176),
        ("swin-t-224", 28_288_354, 4_490_566_656, 4_509_194_496),
        ("swin-b-384", 87_903_584, 47_083_134_976, 47_191_515_136),
        ("swinv2-t-w8-256", 28_347_154, 5_939_690_496, 5_962_300_416),
    ],
)
def test_exact_figures_of_published_networks(name, params, macs, with_norms):
    """They were counted on timm's networks with torch's FlopCounterMode (2 for each MAC) and with fvcore."""
    preset = PRESETS[name]
    assert (preset.params, preset.macs) == (params, macs)
    assert compare_published(preset.spec, preset.spec.plan(), []).conventions["fvcore: LayerNorm added"] == with_norms


def test_conventions_are_those_of_the_sources():
    """The exact figures come from independent counts of these networks."""
    swin = SwinNetworkSpec()
    conventions = compare_published(swin, networks.plan(swin), []).conventions
    assert conventions["MACs"] == 4_490_566_656
    assert conventions["fvcore: LayerNorm added"] == 4_509_194_496
    assert conventions["Microsoft's flops()"] == 4_494_405_120
    v2 = SwinV2NetworkSpec()
    assert compare_published(v2, networks.plan(v2), []).conventions["Microsoft's flops()"] == 5_925_697_536
    vit = ViTNetworkSpec()
    conventions = compare_published(vit, networks.plan(vit), [{"figure": "16.87", "source": "timm's cards"}])
    assert conventions.conventions["MACs"] == 17_563_828_224
    assert conventions.conventions["fvcore: LayerNorm added"] == 17_582_740_224
    assert conventions.figures[0].explained_by == ["fvcore without SDPA"]


@given(small_vits | small_swins)
@settings(max_examples=20)
def test_plan_closed_form_run_and_counters_agree(spec):
    plan = networks.plan(spec)
    network = networks.build(spec).eval()
    inputs = torch.randn(spec.input_shape)
    verify_steps(network, (inputs,), plan)
    closed, counted = spec.closed_form(), count_with_fvcore(network, inputs)
    for step in plan.steps:
        assert closed.get(step.places[0], 0) == step.macs
        assert [counted.macs[where] for where in step.places] == [step.macs] * step.times
    assert sum(counted.macs.values()) == plan.macs
    assert counted.uncounted == []
    once = sum(step.times * step.macs for step in plan.steps if step.name == "bias_mlp")  # runs once for all images
    assert plan.macs == spec.complexity().own_macs + once
    if spec.is_whole:
        assert plan.params == spec.params() == count(network)
        assert plan.macs == spec.batch * (spec.macs() - once) + once


@pytest.mark.parametrize(
    "spec",
    [ViTNetworkSpec(**shallow(ViTNetworkSpec())), SwinV2NetworkSpec(**shallow(SwinV2NetworkSpec()))],
    ids=["vit", "swinv2"],
)
def test_macs_equal_flop_counter_mode(spec):
    network, plan = networks.build(spec).eval(), networks.plan(spec)
    counted = count_with_torch(network, torch.randn(spec.input_shape)).macs
    assert {where: macs for where, macs in counted.items() if macs} == {
        where: step.macs for step in plan.steps for where in step.places if step.macs
    }


@pytest.mark.parametrize("kind", [SwinNetworkSpec, SwinV2NetworkSpec], ids=["swin", "swinv2"])
@pytest.mark.parametrize(("grid", "window", "depths"), [((20, 14), 4, (3, 2)), ((13, 9), 3, (2, 2, 1))])
def test_the_receptive_field_of_a_token_is_where_its_gradient_is_not_zero(kind, grid, window, depths):
    """Compare the receptive field of the plan with the gradient of a real network's tokens."""
    spec = kind(image=grid, patch=(1, 1), dim=4, heads=1, depths=depths, window=(window, window), classes=2)
    network = noisy(networks.build(spec)).double()
    x = torch.randn(1, *grid, spec.dim, dtype=torch.float64, requires_grad=True)
    y = x
    for stage, layer in zip(spec.stages, network.layers, strict=True):
        y = layer.downsample(y)
        for index, block in enumerate(layer.blocks):
            y = block(y)
            seen = [0, 0]
            for token in y[0].flatten(0, 1):
                (gradient,) = torch.autograd.grad(token.sum(), x, retain_graph=True)
                there = gradient[0].abs().sum(-1) > 0
                for axis, lines in enumerate((there.any(1), there.any(0))):
                    places = lines.nonzero()
                    seen[axis] = max(seen[axis], int(places.max() - places.min()) + 1)
            assert spec.sees[stage.index, index] == tuple(seen)


def test_the_receptive_field_of_7x7_windows_doubles_from_1_to_8_layers():
    sees = SwinNetworkSpec(depths=(16,)).sees
    assert [sees[0, layers - 1] for layers in (1, 2, 4, 8)] == [(7, 7), (14, 14), (28, 28), (56, 56)]


@pytest.mark.parametrize(
    "spec",
    [
        ViTNetworkSpec(**shallow(ViTNetworkSpec(), image=(32, 32))),
        SwinNetworkSpec(**shallow(SwinNetworkSpec(), image=(64, 64), window=(4, 4))),
        SwinV2NetworkSpec(**shallow(SwinV2NetworkSpec(), image=(64, 64), window=(4, 4))),
    ],
    ids=lambda spec: spec.name,
)
def test_training_overfits_four_images(spec):
    network = networks.build(spec).train()
    images, labels = torch.randn(4, 3, *spec.image), torch.tensor([0, 1, 2, 3])
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(120):
        loss = nn.functional.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss < 0.05:
            break
    assert loss < 0.05


@pytest.mark.parametrize(
    "spec",
    [
        ViTNetworkSpec(**shallow(ViTNetworkSpec(), image=(32, 32))),
        SwinV2NetworkSpec(**shallow(SwinV2NetworkSpec(), image=(64, 64))),
    ],
    ids=lambda spec: spec.name,
)
def test_networks_can_be_copied_pickled_and_exported(spec):
    network, image = networks.build(spec).eval(), torch.randn(spec.input_shape)
    with torch.no_grad():
        expected = network(image)
        assert torch.equal(copy.deepcopy(network)(image), expected)
        assert torch.equal(pickle.loads(pickle.dumps(network))(image), expected)
        exported = torch.export.export(network, (image,)).module()
        torch.testing.assert_close(exported(image), expected)
    names = [step.name for step in trace_steps(network, image)]
    assert names[0] == "embed"
    assert names[-1] == "head"


@pytest.mark.parametrize("name", networks.names())
def test_steps_run_in_the_order_of_the_plan(name):
    spec = networks.spec_class(name)()
    verify_steps(*build(spec, torch.device("meta")), spec.plan())


@pytest.mark.parametrize("distilled", [False, True])
def test_an_exported_vit_takes_any_batch_size(distilled):
    network = ViTNetworkSpec(image=32, dim=12, heads=3, depth=1, distilled=distilled).build().eval()
    batch = {0: torch.export.Dim("b")}
    exported = torch.export.export(network, (torch.randn(2, 3, 32, 32),), dynamic_shapes=(batch,)).module()
    image = torch.randn(5, 3, 32, 32)
    torch.testing.assert_close(exported(image), network(image))


def test_a_new_v2_block_is_the_identity():
    spec = SwinV2NetworkSpec(scope="block", **shallow(SwinV2NetworkSpec()))
    x = torch.randn(spec.input_shape)
    assert torch.equal(networks.build(spec)(x), x)


def test_the_parts_of_a_network_add_up_to_its_totals():
    spec = SwinNetworkSpec(**shallow(SwinNetworkSpec(), image=(64, 64), window=(4, 4)))
    report = attnscope.explore(spec, budget=0.02, audit=True)
    assert report.audit.agree
    assert report.audit.ways == ["letters", "closed form", "fvcore", "torch"]
    parts = [row for row in report.parts if not row.is_stage]
    stages = [row for row in report.parts if row.is_stage]
    for key in ("macs", "flops", "other_flops", "params"):
        assert sum(getattr(row, key) for row in parts) == getattr(report.totals, key)
        for stage in stages:
            assert getattr(stage, key) == sum(getattr(row, key) for row in parts if row.stage == stage.stage)
    assert math.isclose(sum(row.time_s for row in parts), report.time.steps_sum_s, rel_tol=1e-9)
    assert [(row.name, row.times) for row in parts if row.stage == 3][1:] == [
        ("W-MSA block", 3)
    ]  # a single window is not shifted
    assert [row.sees for row in stages] == [(8, 8), (16, 16), (16, 16), (16, 16)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"stage": 5}, "stage must be between 1 and 4 (got 5)"),
        ({"stage": 1, "block": 3}, "block must be between 1 and 2 (got 3)"),
        ({"block": 1}, "block requires stage, because blocks are numbered within a stage; add stage"),
        ({"image": 226}, "image must be divisible by patch 4 (got 226); nearest: 224 or 228; pad_image pads it"),
        ({"dim": 97}, "dim must be divisible by heads 3 (got 97); nearest: 96 or 99, or heads 1 or 97"),
        ({"kv_heads": 2}, "kv_heads must divide heads 3 (got 2); nearest: 1 or 3"),
        ({"kv_heads": 2, "stage": 2}, "kv_heads must divide heads 3 (got 2); nearest: 1 or 3"),
        ({"kv_heads": 6, "stage": 2, "heads": 3}, "kv_heads must divide heads 3 (got 6); nearest: 3"),
        ({"depths": ()}, "depths must have at least one integer (got none)"),
    ],
)
def test_an_invalid_network_raises_a_usage_error(given, message):
    with pytest.raises(UsageError) as error:
        SwinNetworkSpec(**given)
    assert str(error.value) == message


@pytest.mark.parametrize("kind", [ViTNetworkSpec, SwinNetworkSpec])
def test_an_mlp_has_a_hidden_channel(kind):
    """The error names the smallest ratio, and that ratio is accepted."""
    for dim in range(1, 100):
        with pytest.raises(UsageError, match="mlp_ratio must be at least 1/dim") as refused:
            kind(dim=dim, heads=1, mlp_ratio=0.01)
        smallest = float(str(refused.value).split("smallest: ")[1])
        assert kind(dim=dim, heads=1, mlp_ratio=smallest).hidden(dim) == 1
    assert kind(dim=100, heads=1, mlp_ratio=0.01).hidden(100) == 1


def test_clipped_windows_and_padding_are_cautions():
    assert SwinNetworkSpec().cautions() == ViTNetworkSpec().cautions() == []
    clipped = SwinNetworkSpec(window=(12, 12))
    assert clipped.cautions()[-1] == "stage 4 clips the window to its grid: 7 (clip per-axis, as in timm)"
    large = SwinNetworkSpec(window=(100, 56)).complexity().own.values
    assert "M² = (56×56, 28×28, 14×14, 7×7)" in large
    padded, *_ = SwinNetworkSpec(image=(512, 512)).cautions()
    assert padded == "stage 1 pads its grid from 128×128 to 133×133 for attention: 7.4% of the tokens there are padding"
    (own,) = SwinNetworkSpec(image=(512, 512), stage=2).cautions()
    assert own.startswith("stage 2 pads its grid from 64×64 to 70×70")
