"""SAM's image encoder: equal to timm's; exact MACs, parameters, memory and receptive fields, and its published figure."""

from dataclasses import replace

import pytest
import torch
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch.utils.flop_counter import FlopCounterMode

from attnscope import UsageError
from attnscope.analyses.published import compare_published
from attnscope.networks.presets import presets
from attnscope.networks.sam.spec import SAMNetworkSpec
from attnscope.profiling.verification import verify_steps
from attnscope.testing import (
    hold_backward_memory,
    hold_elementwise_flops,
    hold_macs,
    hold_memory,
    hold_saved,
    hold_trace,
)

SMALL = {"dim": 24, "heads": 3, "depth": 4, "image": (160, 128), "window": 4, "global_blocks": (2, 4), "neck": 16}
SPECS = [
    SAMNetworkSpec(**SMALL),
    SAMNetworkSpec(**SMALL, classes=5, kernel="sdpa"),
    SAMNetworkSpec(**SMALL | {"neck": 0, "abs_pos": False, "global_blocks": (0,), "window": (5, 4)}, classes=5),
    SAMNetworkSpec(**SMALL | {"window": 0}, batch=2, norm_eps=1e-5),
]


def of_timm(spec):
    """Build timm's network of a Spec in float64, with random values of all parameters."""
    theirs = VisionTransformerSAM(
        img_size=spec.image,
        embed_dim=spec.dim,
        num_heads=spec.heads,
        depth=spec.depth,
        window_size=spec.window[0],
        global_attn_indexes=[block - 1 for block in spec.global_blocks],
        use_rel_pos=True,
        use_abs_pos=spec.abs_pos,
        neck_chans=spec.neck or None,
        num_classes=spec.classes,
        norm_layer=lambda dim, **others: torch.nn.LayerNorm(dim, spec.norm_eps, **others),
    )
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return theirs.double().eval()


@pytest.mark.parametrize("spec", [SPECS[0], SPECS[1], replace(SPECS[2], window=(4, 4)), SPECS[3]], ids=str)
def test_outputs_and_counts_equal_timms(spec):
    theirs, ours = of_timm(spec), spec.build().double().eval()
    ours.load_state_dict(theirs.state_dict())
    image = torch.randn(2, 3, *spec.image, dtype=torch.float64)
    with torch.no_grad():
        expected = theirs(image) if spec.classes else theirs.forward_features(image)
        torch.testing.assert_close(ours(image), expected, rtol=0, atol=1e-10)
    assert spec.params() == spec.plan().params == sum(parameter.numel() for parameter in theirs.parameters())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        theirs.to("meta")(image[:1].to("meta"))
    assert counter.get_total_flops() == 2 * spec.macs()


@pytest.mark.parametrize(
    "spec", [*SPECS, replace(SPECS[0], scope="block"), replace(SPECS[0], block=2, batch=2)], ids=str
)
def test_counts_memory_and_trace_agree(spec):
    hold_macs(spec)
    hold_elementwise_flops(spec)
    hold_trace(spec)
    hold_memory(spec)
    if spec.kernel == "eager":  # it is unknown what a fused kernel saves with a bias
        hold_saved(spec)
    hold_backward_memory(spec, input_grad=True)
    verify_steps(spec.build().eval(), (torch.randn(spec.input_shape),), spec.plan())
    assert (
        spec.plan().macs
        == spec.complexity().own_macs
        == sum(step.times * spec.closed_form().get(step.places[0], 0) for step in spec.plan().steps)
    )


def test_the_image_encoder_of_a_sam_checkpoint_loads():
    source, target = SPECS[0].build(), SPECS[0].build()
    names = {name: "image_encoder." + name.replace("mlp.fc", "mlp.lin") for name in source.state_dict()}
    official = {names[name]: tensor for name, tensor in source.state_dict().items()}
    target.load_state_dict(official | {"mask_decoder.iou_token.weight": torch.zeros(1, 256)})
    for ours, theirs in zip(target.parameters(), source.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_an_exported_encoder_takes_any_batch_size():
    network = replace(SPECS[0], depth=2, global_blocks=(2,)).build().eval()
    two, five = (torch.randn(count, 3, *network.spec.image) for count in (2, 5))
    exported = torch.export.export(network, (two,), dynamic_shapes=({0: torch.export.Dim("b")},)).module()
    with torch.no_grad():
        torch.testing.assert_close(exported(five), network(five))


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [
        ("sam-b-16-1024", 89_670_912, 486_038_667_264),
        ("sam-l-16-1024", 308_278_272, 1_492_840_153_088),
        ("sam-h-16-1024", 637_026_048, 2_980_541_415_424),
    ],
)
def test_exact_figures_of_sam(name, params, macs):
    """They were counted on timm's and transformers' encoders with torch's FlopCounterMode."""
    preset = next(each for each in presets() if each.name == name)
    assert (preset.params, preset.macs) == (params, macs)


def test_the_figure_of_papers_leaves_out_the_relative_positions():
    spec = next(each.spec for each in presets() if each.name == "sam-h-16-1024")
    published = compare_published(
        spec, spec.plan(), [{"figure": "2973", "source": "EfficientViT-SAM, arXiv 2402.05008"}]
    )
    assert published.conventions["MACs without the relative positions"] == 2_972_939_812_864
    assert published.figures[0].explained_by == ["MACs without the relative positions"]


def test_a_block_sees_its_window_until_the_first_global_block():
    assert [SPECS[0].sees(block) for block in range(3)] == [(4, 4), (10, 8), (10, 8)]
    parts = {row.part.title: row.part.sees for row in SPECS[2].plan().steps if row.part and "block" in row.part.title}
    assert parts == {"windowed block": (5, 4)}


def test_a_global_block_exists():
    with pytest.raises(UsageError, match=r"global_blocks must be between 1 and depth 4 \(got 5\)"):
        SAMNetworkSpec(**SMALL | {"global_blocks": (2, 5)})


def test_padding_of_the_windows_is_a_caution():
    assert SAMNetworkSpec().cautions() == [
        "windowed blocks pad their grid from 64×64 to 70×70 for attention: 16.4% of the tokens there are padding"
    ]
    assert SAMNetworkSpec(block=3).cautions() == []
