"""Counting conventions: what papers print, and what tools print for the networks of libraries."""

import contextlib
import io
import json
import warnings
from collections import defaultdict
from dataclasses import replace
from decimal import Decimal

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from attnscope import ViTSpec
from attnscope.analyses.figure import conventions_that_give, explain_figure, parse_figure
from attnscope.analyses.published import compare_published
from attnscope.attentions.pvt.spec import PVTSpec
from attnscope.attentions.spec import own_fields
from attnscope.attentions.xca.spec import XCASpec
from attnscope.core.errors import UsageError
from attnscope.networks.configs import read_preset
from attnscope.networks.conventions import conventions, counts_per_image
from attnscope.networks.hiera.spec import HieraNetworkSpec
from attnscope.networks.maxvit.spec import MaxViTNetworkSpec
from attnscope.networks.presets import presets
from attnscope.networks.pvt.spec import PVTNetworkSpec
from attnscope.networks.sam.spec import SAMNetworkSpec
from attnscope.networks.sources import EXCEPTIONS, SOURCES, TRUNCATED
from attnscope.networks.swin.spec import SwinNetworkSpec, SwinV2NetworkSpec
from attnscope.networks.twins.spec import TwinsNetworkSpec
from attnscope.networks.vit.spec import ViTNetworkSpec
from attnscope.networks.xca.spec import XCiTNetworkSpec
from attnscope.render.figure import figure_lines
from benchmarks import works

VIT = {"image": (48, 48), "patch": (16, 16), "dim": 24, "heads": 4, "depth": 2, "classes": 10}
SWIN = {"image": (56, 56), "dim": 12, "heads": 3, "depths": (2, 2), "window": (7, 7), "classes": 10}
ODD = {**SWIN, "image": (64, 64)}
V2 = {**SWIN, "image": (64, 64), "window": (8, 8)}
PVT = {"image": (72, 56), "dim": 8, "depths": (2, 1, 1, 1), "classes": 10}
PVT_OF_TIMM = {"embed_dims": (8, 16, 40, 64), "num_heads": (1, 2, 5, 8), "depths": (2, 1, 1, 1), "num_classes": 10}
HIERA = {"image": (64, 96), "dim": 8, "depths": (1, 2, 2, 2), "classes": 10}
HIERA_OF_TIMM = {"img_size": (64, 96), "embed_dim": 8, "stages": (1, 2, 2, 2), "num_classes": 10}
SAM = {"image": (80, 48), "dim": 16, "heads": 2, "depth": 3, "window": 2, "global_blocks": (2,), "classes": 10}
SAM_OF_TIMM = {"img_size": (80, 48), "embed_dim": 16, "num_heads": 2, "depth": 3, "window_size": 2}
SAM_OF_TIMM |= {"global_attn_indexes": (1,), "num_classes": 10}
ROPE = {"image": (48, 64), "dim": 24, "heads": 3, "depth": 2, "classes": 10}
EVA02 = {**ROPE, "rope": "eva02", "key_bias": False, "mlp_ratio": 8 / 3}
DINOV3 = {"rope": "dinov3", "registers": 4, "pos_embed": "none", "layer_scale": True, "pool": "mean"}
ROPE_OF_TIMM = {"img_size": (48, 64), "embed_dim": 24, "num_heads": 3, "depth": 2, "num_classes": 10}
XCIT = {"image": (64, 96), "dim": 16, "heads": 2, "depth": 2, "class_depth": 2, "classes": 10}
XCIT_OF_TIMM = {"img_size": (64, 96), "embed_dim": 16, "num_heads": 2, "depth": 2, "cls_attn_layers": 2}
XCIT_OF_TIMM |= {"num_classes": 10}
TWINS = {"dim": 8, "heads": 1, "multiples": (1, 2, 5, 8), "depths": (2, 1, 3, 2), "classes": 10}
TWINS_OF_TIMM = {"embed_dims": (8, 16, 40, 64), "num_heads": (1, 2, 5, 8), "depths": (2, 1, 3, 2), "num_classes": 10}
TWINS_OF_TIMM |= {"mlp_ratios": (4, 4, 4, 4)}
MAXVIT = {"image": (64, 96), "dim": 8, "heads": 1, "multiples": (1, 2, 3, 4), "depths": (2, 1, 1, 2), "stem": 12}
MAXVIT |= {"partition": (2, 3), "classes": 10}
MAXVIT_OF_TIMM = {"img_size": (64, 96), "embed_dim": (8, 16, 24, 32), "depths": (2, 1, 1, 2), "stem_width": 12}
MAXVIT_OF_TIMM |= {"head_hidden_size": 32, "transformer_dim_head": 8, "transformer_window_size": (2, 3)}
MAXVIT_OF_TIMM |= {"transformer_grid_size": (2, 3), "num_classes": 10}
SPECS = {
    "vit": ViTNetworkSpec(**VIT),
    "vit with registers": ViTNetworkSpec(**{**VIT, "classes": 0}, layer_scale=True, registers=2),
    "vit that averages": ViTNetworkSpec(**VIT, layer_scale=True, cls=False, pool_norm=True),
    "swin": SwinNetworkSpec(**SWIN),
    "swin padded": SwinNetworkSpec(**ODD),
    "swinv2": SwinV2NetworkSpec(**V2),
    "pvt": PVTNetworkSpec(**PVT),
    "pvt linear": PVTNetworkSpec(**PVT, linear=True),
    "sam": SAMNetworkSpec(**SAM, abs_pos=False, neck=0),
    "sam with a neck": SAMNetworkSpec(**SAM, neck=8),
    "eva02": ViTNetworkSpec(**{**EVA02, "patch": 8}, mlp="swiglu-packed", pool="mean", pool_norm=True),
    "eva02 clip": ViTNetworkSpec(**EVA02, mlp="swiglu", mlp_norm=True, inner_norm=True),
    "eva02 gap": ViTNetworkSpec(
        **{**EVA02, "mlp_ratio": 4}, cls=False, registers=1, layer_scale=True, pool_norm=True, pos_embed="none"
    ),
    "rope-vit": ViTNetworkSpec(**ROPE, rope="axial", pos_embed="none", layer_scale=True),
    "rope-vit mixed": ViTNetworkSpec(**ROPE, rope="mixed", pos_embed="patches", layer_scale=True),
    "dinov3": ViTNetworkSpec(**ROPE, **DINOV3, qkv_bias=False),
    "dinov3 plus": ViTNetworkSpec(**ROPE, **DINOV3, key_bias=False, mlp="swiglu"),
    "xcit": XCiTNetworkSpec(**XCIT, tokens_norm=False),
    "xcit with patches of 8": XCiTNetworkSpec(**XCIT, patch=8),
    "twins": TwinsNetworkSpec(**TWINS, image=(224, 160), window=7),
    "twins padded": TwinsNetworkSpec(**TWINS, image=(64, 96), window=3),
    "twins without windows": TwinsNetworkSpec(**TWINS, image=(64, 96), window=0),
    "maxvit": MaxViTNetworkSpec(**MAXVIT),
    "hiera": HieraNetworkSpec(**HIERA),
    "hiera in units": HieraNetworkSpec(**HIERA, unit_stages=3),
}
TIMM = {
    "pvt": ("pvt_v2_b0", PVT_OF_TIMM),
    "pvt linear": ("pvt_v2_b0", {**PVT_OF_TIMM, "linear": True}),
    "sam": ("samvit_base_patch16_224", SAM_OF_TIMM),
    "sam with a neck": ("samvit_base_patch16", {**SAM_OF_TIMM, "neck_chans": 8}),
    "eva02": ("eva02_tiny_patch14_224", {**ROPE_OF_TIMM, "patch_size": 8}),
    "eva02 clip": ("eva02_base_patch16_clip_224", ROPE_OF_TIMM),
    "eva02 gap": ("vit_medium_patch16_rope_reg1_gap_256", ROPE_OF_TIMM),
    "rope-vit": ("vit_small_patch16_rope_224", ROPE_OF_TIMM),
    "rope-vit mixed": ("vit_small_patch16_rope_mixed_ape_224", ROPE_OF_TIMM),
    "dinov3": ("vit_small_patch16_dinov3", ROPE_OF_TIMM),
    "dinov3 plus": ("vit_small_plus_patch16_dinov3_qkvb", ROPE_OF_TIMM),
    "xcit": ("xcit_nano_12_p16_224", XCIT_OF_TIMM),
    "xcit with patches of 8": ("xcit_tiny_12_p8_224", XCIT_OF_TIMM),
    "twins": ("twins_svt_small", {**TWINS_OF_TIMM, "img_size": (224, 160)}),
    "twins padded": ("twins_svt_small", {**TWINS_OF_TIMM, "img_size": (64, 96), "wss": (3, 3, 3, 3)}),
    "twins without windows": ("twins_pcpvt_small", {**TWINS_OF_TIMM, "img_size": (64, 96)}),
    "maxvit": ("maxvit_tiny_tf_224", MAXVIT_OF_TIMM),
    "hiera": ("hiera_tiny_224", HIERA_OF_TIMM),
    "hiera in units": ("hiera_tiny_224", {**HIERA_OF_TIMM, "mask_unit_attn": (True, True, True, False)}),
}
"""Networks that timm builds with fused attention and without: the name of timm's network, and its arguments."""


def timms(name, fused):
    timm = pytest.importorskip("timm")
    spec = SPECS[name]
    timm.layers.set_fused_attn(fused)
    try:
        if name in TIMM:
            official, arguments = TIMM[name]
            return timm.create_model(official, **arguments)
        if isinstance(spec, ViTNetworkSpec):
            sizes = {"embed_dim": spec.dim, "depth": spec.depth, "num_heads": spec.heads, "reg_tokens": spec.registers}
            others = {"init_values": 1.0 if spec.layer_scale else None, "class_token": spec.cls}
            others["global_pool"] = "token" if spec.cls else "avg"
            others["no_embed_class"] = bool(spec.registers)
            official = "vit_base_patch16_224"
            return timm.create_model(official, img_size=spec.image, num_classes=spec.classes, **sizes, **others)
        official = "swinv2_tiny_window8_256" if name == "swinv2" else "swin_tiny_patch4_window7_224"
        sizes = {"embed_dim": spec.dim, "depths": spec.depths, "num_heads": (3, 6), "window_size": spec.window[0]}
        return timm.create_model(official, img_size=spec.image, num_classes=10, **sizes)
    finally:
        timm.layers.set_fused_attn(True)


def torchvisions(name):
    torchvision = pytest.importorskip("torchvision")
    spec = SPECS[name]
    if name == "vit":
        return torchvision.models.VisionTransformer(
            48, 16, spec.depth, spec.heads, spec.dim, 4 * spec.dim, num_classes=10
        )
    swin = torchvision.models.swin_transformer
    v2 = {"block": swin.SwinTransformerBlockV2, "downsample_layer": swin.PatchMergingV2} if name == "swinv2" else {}
    return swin.SwinTransformer(
        list(spec.patch), spec.dim, list(spec.depths), [3, 6], list(spec.window), num_classes=10, **v2
    )


NETWORKS = {
    ("vit", "timm"): lambda: timms("vit", True),
    ("vit", "timm without fused attention"): lambda: timms("vit", False),
    **{
        (name, library): lambda name=name, fused=fused: timms(name, fused)
        for name in ("vit with registers", "vit that averages", *TIMM)
        for library, fused in (("timm", True), ("timm without fused attention", False))
    },
    ("vit", "torchvision"): lambda: torchvisions("vit"),
    ("swin", "timm"): lambda: timms("swin", False),
    ("swin", "torchvision"): lambda: torchvisions("swin"),
    ("swin padded", "torchvision"): lambda: torchvisions("swin padded"),
    ("swinv2", "timm"): lambda: timms("swinv2", False),
    ("swinv2", "torchvision"): lambda: torchvisions("swinv2"),
}


def thop(network, image):
    thop = pytest.importorskip("thop", reason="thop is not installed")
    return int(thop.profile(network, (image,), verbose=False)[0])


def ptflops(network, image, backend="pytorch"):
    ptflops = pytest.importorskip("ptflops", reason="ptflops is not installed")
    quiet = {"as_strings": False, "print_per_layer_stat": False, "verbose": False, "backend": backend}
    return ptflops.get_model_complexity_info(network, tuple(image.shape[1:]), **quiet)[0]


def ptflops_aten(network, image):
    return ptflops(network, image, "aten")


def torchinfo(network, image):
    torchinfo = pytest.importorskip("torchinfo", reason="torchinfo is not installed")
    return torchinfo.summary(network, input_data=image, verbose=0).total_mult_adds


def calflops(network, image):
    pytest.importorskip("calflops", reason="calflops is not installed")
    return works.calflops_flops(network, image)


def deepspeed(network, image):
    profiler = pytest.importorskip("deepspeed.profiling.flops_profiler", reason="DeepSpeed is not installed")
    quiet = {"print_profile": False, "detailed": False, "warm_up": 0, "as_string": False}
    with torch.no_grad():  # as in evaluation, where nn.MultiheadAttention takes its fused path
        flops, macs, _ = profiler.get_model_profile(network, args=[image], **quiet)
    return int(flops), int(macs)


def fvcore(network, image):
    from fvcore.nn import FlopCountAnalysis

    return FlopCountAnalysis(network, image).unsupported_ops_warnings(False).uncalled_modules_warnings(False).total()


def flop_counter(network, image):
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image)
    return counter.get_total_flops()


TOOLS = (thop, ptflops, ptflops_aten, torchinfo, calflops, deepspeed, fvcore, flop_counter)


def expected(tool, spec, library):
    """Return what the conventions say that a tool prints for a network of a library."""
    figures = {count.name: count.figure for count in counts_per_image(spec)}
    fused = library != "timm without fused attention" and not spec.name.startswith("swin")

    def first(*names):
        return next(figures[name] for name in names if name in figures)

    if tool is thop:
        return figures[f"thop on {library}"]
    if tool is ptflops:
        return figures[f"ptflops on {library}"]
    if tool is torchinfo:
        return figures[f"torchinfo's mult-adds on {library}"]
    if tool is calflops:
        return figures[f"calflops' FLOPs on {library}"]
    if tool is deepspeed:
        return figures[f"DeepSpeed's FLOPs on {library}"], first(f"DeepSpeed's MACs on {library}", "MACs")
    if tool is ptflops_aten:
        computes_products = spec.name in ("sam", "maxvit")  # the bias has a gradient
        usual = "MACs with biases, without SDPA" if fused and not computes_products else "MACs with biases"
        return first(f"ptflops with backend aten on {library}", usual)
    if tool is fvcore:
        return first(f"fvcore on {library}", "fvcore without SDPA" if fused else "fvcore: LayerNorm added")
    ways = ("in evaluation mode", "without SDPA", "with position lookups")
    return first(*(f"FlopCounterMode {way} on {library}" for way in ways), "FLOPs")


@pytest.mark.filterwarnings("ignore")  # the tools use what torch and Python have deprecated
@pytest.mark.parametrize("tool", TOOLS, ids=lambda f: f.__name__)
@pytest.mark.parametrize(("name", "library"), NETWORKS, ids=map(" of ".join, NETWORKS))
def test_a_tool_prints_what_its_convention_says(tool, name, library):
    torch.manual_seed(0)
    network, image = NETWORKS[name, library]().eval(), torch.randn(SPECS[name].image_shape)
    want = expected(tool, SPECS[name], library)
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        got = tool(network, image)
    if tool is flop_counter and library == "timm" and not name.startswith("swin"):
        # some versions of torch count fused attention
        assert got in (want, 2 * SPECS[name].macs())
        return
    assert got == want


PRINTED = {
    ("pvt-v2-b0-224", "timm"): (
        528_835_072,
        540_702_696,
        534_574_952,
        118_691_944,
        1_067_611_264,
        (1_143_828_608, 566_065_664),
        533_915_392,
        1_055_913_984,
    ),
    ("pvt-v2-b0-224", "timm without fused attention"): (
        528_835_072,
        540_702_696,
        572_683_624,
        118_691_944,
        1_067_611_264,
        (1_143_828_608, 566_065_664),
        572_024_064,
        1_132_131_328,
    ),
    ("pvt-v2-b2-li-224", "timm"): (
        3_750_280_512,
        3_814_535_016,
        3_771_286_440,
        422_153_704,
        7_543_715_520,
        (7_828_915_904, 3_888_850_944),
        3_767_164_736,
        7_492_501_504,
    ),
    ("pvt-v2-b2-li-224", "timm without fused attention"): (
        3_750_280_512,
        3_814_535_016,
        3_913_886_632,
        422_153_704,
        7_543_715_520,
        (7_828_915_904, 3_888_850_944),
        3_909_764_928,
        7_777_701_888,
    ),
    ("hiera-tiny-224", "timm"): (
        4_640_342_016,
        4_664_540_392,
        4_719_934_696,
        72_151_240,
        9_299_165_184,
        (9_820_142_592, 4_900_830_720),
        4_653_705_216,
        9_410_740_224,
    ),
    ("hiera-tiny-224", "timm without fused attention"): (
        4_640_342_016,
        4_664_540_392,
        4_915_395_304,
        72_151_240,
        9_299_165_184,
        (9_820_142_592, 4_900_830_720),
        4_914_193_920,
        9_801_661_440,
    ),
    ("sam-b-16-224", "timm"): (
        16_778_168_064,
        16_798_339_048,
        17_538_635_752,
        201_581_032,
        33_654_634_560,
        (35_070_801_984, 17_471_649_792),
        16_833_112_608,
        33_628_286_976,
    ),
    ("sam-b-16-224", "timm without fused attention"): (
        16_778_168_064,
        16_798_339_048,
        17_538_635_752,
        201_581_032,
        33_654_634_560,
        (35_070_801_984, 17_471_649_792),
        17_541_196_320,
        35_044_454_400,
    ),
    ("eva02-ti-14-224", "timm"): (
        1_052_098_560,
        1_058_068_992,
        1_399_332_096,
        32_958_336,
        2_793_878_976,
        (3_402_586_560, 1_697_518_080),
        1_399_086_528,
        2_786_328_576,
    ),
    ("eva02-ti-14-224", "timm without fused attention"): (
        1_052_098_560,
        1_058_068_992,
        1_703_685_888,
        32_958_336,
        2_793_878_976,
        (3_402_586_560, 1_697_518_080),
        1_703_440_320,
        3_395_036_160,
    ),
    ("eva02-b-16-clip-224", "timm"): (
        16_848_125_952,
        16_870_063_616,
        16_865_222_144,
        201_276_416,
        33_753_441_024,
        (35_184_096_000, 17_563_453_440),
        16_900_323_072,
        33_696_251_904,
    ),
    ("eva02-b-16-clip-224", "timm without fused attention"): (
        16_848_125_952,
        16_870_063_616,
        17_580_549_632,
        201_276_416,
        33_753_441_024,
        (35_184_096_000, 17_563_453_440),
        17_615_650_560,
        35_126_906_880,
    ),
    ("rope-vit-s-16-224", "timm"): (
        4_241_218_560,
        4_256_727_016,
        4_249_464_808,
        79_557_352,
        8_495_599_488,
        (9_210_926_976, 4_598_882_304),
        4_250_674_560,
        8_482_437_120,
    ),
    ("rope-vit-s-16-224", "timm without fused attention"): (
        4_241_218_560,
        4_256_727_016,
        4_607_128_552,
        79_557_352,
        8_495_599_488,
        (9_210_926_976, 4_598_882_304),
        4_608_338_304,
        9_197_764_608,
    ),
    ("rope-vit-s-16-mixed-ape-224", "timm"): (
        4_241_218_560,
        4_256_727_016,
        4_249_464_808,
        79_557_352,
        8_495_599_488,
        (9_210_926_976, 4_598_882_304),
        4_250_674_560,
        8_482_437_120,
    ),
    ("rope-vit-s-16-mixed-ape-224", "timm without fused attention"): (
        4_241_218_560,
        4_256_727_016,
        4_607_128_552,
        79_557_352,
        8_495_599_488,
        (9_210_926_976, 4_598_882_304),
        4_608_338_304,
        9_197_764_608,
    ),
    ("dinov3-s-16-256", "timm"): (
        5_617_483_776,
        5_634_419_712,
        5_624_798_208,
        96_876_288,
        11_252_404_608,
        (12_508_010_880, 6_245_286_912),
        5_630_011_776,
        11_234_967_552,
    ),
    ("dinov3-s-16-256", "timm without fused attention"): (
        5_617_483_776,
        5_634_419_712,
        6_252_601_344,
        96_876_288,
        11_252_404_608,
        (12_508_010_880, 6_245_286_912),
        6_257_814_912,
        12_490_573_824,
    ),
    ("dinov3-s-plus-16-256", "timm"): (
        7_464_812_544,
        7_481_748_480,
        7_476_937_728,
        103_972_608,
        14_947_062_144,
        (16_202_668_416, 8_092_615_680),
        7_477_340_544,
        14_929_625_088,
    ),
    ("dinov3-s-plus-16-256", "timm without fused attention"): (
        7_464_812_544,
        7_481_748_480,
        8_104_740_864,
        103_972_608,
        14_947_062_144,
        (16_202_668_416, 8_092_615_680),
        8_105_143_680,
        16_185_231_360,
    ),
    ("xcit-nano-12-16-224", "timm"): (
        538_209_792,
        541_073_256,
        553_990_888,
        59_334_600,
        1_071_902_848,
        (1_110_639_744, 550_952_448),
        557_101_696,
        1_101_703_168,
    ),
    ("xcit-nano-12-16-224", "timm without fused attention"): (
        538_209_792,
        541_073_256,
        554_091_752,
        59_334_600,
        1_071_902_848,
        (1_110_639_744, 550_952_448),
        557_202_560,
        1_101_904_896,
    ),
    ("twins-pcpvt-s-224", "timm"): (
        3_680_670_720,
        3_705_496_296,
        3_682_374_568,
        333_237_736,
        7_361_724_032,
        (7_646_924_416, 3_809_459_968),
        3_684_123_456,
        7_333_719_552,
    ),
    ("twins-pcpvt-s-224", "timm without fused attention"): (
        3_680_670_720,
        3_705_496_296,
        3_824_974_760,
        333_237_736,
        7_361_724_032,
        (7_646_924_416, 3_809_459_968),
        3_826_723_648,
        7_618_919_936,
    ),
    ("twins-svt-s-224", "timm"): (
        2_820_867_328,
        2_832_559_336,
        2_877_394_728,
        202_353_704,
        5_638_730_368,
        (5_874_758_272, 2_927_353_344),
        2_823_749_312,
        5_736_692_736,
    ),
    ("twins-svt-s-224", "timm without fused attention"): (
        2_820_867_328,
        2_832_559_336,
        2_936_401_704,
        202_353_704,
        5_638_730_368,
        (5_874_758_272, 2_927_353_344),
        2_941_763_264,
        5_854_706_688,
    ),
    ("maxvit-t-224", "timm"): (
        5_332_982_784,
        5_372_082_984,
        5_570_791_032,
        2_017_335_688,
        10_819_792_256,
        (11_173_834_112, 5_545_201_664),
        5_421_356_576,
        11_103_673_312,
    ),
    ("maxvit-t-224", "timm without fused attention"): (
        5_332_982_784,
        5_372_082_984,
        5_570_791_032,
        2_018_287_496,
        10_819_792_256,
        (11_173_834_112, 5_545_201_664),
        5_598_377_504,
        11_103_673_312,
    ),
}
"""The figures that TOOLS printed for timm 1.0.31's network of a preset."""


@pytest.mark.parametrize(("preset", "library"), PRINTED, ids=map(" of ".join, PRINTED))
def test_figures_that_tools_printed_for_timms_networks(preset, library):
    spec = next(each.spec for each in presets() if each.name == preset)
    assert {tool.__name__: expected(tool, spec, library) for tool in TOOLS} == {
        tool.__name__: figure for tool, figure in zip(TOOLS, PRINTED[preset, library], strict=True)
    }


@pytest.mark.parametrize(
    ("preset", "figure", "name", "count"),
    [
        ("swin-t-224", "3.13G", "ptflops on torchvision", 3_128_183_416),
        ("swin-t-224", "2.978 GMACs", "thop on torchvision", 2_978_099_712),
        ("swin-t-224", "62.80M", "torchinfo's mult-adds on timm", 62_796_520),
        ("swin-t-224", "4490566656", "MACs", 4_490_566_656),
        ("swin-t-224", "8.98 GFLOPs", "FLOPs", 8_981_133_312),
        ("swin-t-224", "9.01G", "DeepSpeed's FLOPs on timm", 9_007_971_984),
        ("swin-t-224", "8.728G", "calflops' FLOPs on timm", 8_727_688_848),
        ("vit-b-16-224", "33.723G", "calflops' FLOPs on timm", 33_723_326_208),
        ("vit-b-16-224", "16.87G", "fvcore without SDPA", 16_867_412_736),
        ("vit-b-16-224", "12.02G", "ptflops on timm", 12_017_610_232),
        ("vit-b-16-224", "17.606G", "ptflops on torchvision", 17_606_030_584),
        ("vit-b-16-224", "173.23M", "torchinfo's mult-adds on torchvision", 173_232_616),
        ("vit-b-16-224", "35,153,981,184", "DeepSpeed's FLOPs on timm", 35_153_981_184),
        ("vit-b-16-224", "22.57G", "DeepSpeed's FLOPs on torchvision", 22_568_574_720),
        ("vit-b-16-224", "22.54G", "FlopCounterMode in evaluation mode on torchvision", 22_542_249_984),
        ("vit-b-16-224", "33.70G", "FlopCounterMode without SDPA on timm", 33_697_001_472),
        ("swin-t-224", "4.367398G", "ptflops on transformers", 4_367_398_120),
        ("swin-t-224", "63.15M", "torchinfo's mult-adds on transformers", 63_152_434),
        ("swin-t-224", "4,365,365,760", "thop on transformers", 4_365_365_760),
        ("swin-t-224", "9.0001G", "DeepSpeed's FLOPs on transformers", 9_000_099_840),
        ("vit-b-16-224", "16.86877G", "ptflops on transformers", 16_868_774_632),
        ("vit-b-16-224", "35.1467G", "DeepSpeed's FLOPs on transformers", 35_146_718_976),
        ("swinv2-t-w8-256", "4.0454G", "ptflops on torchvision", 4_045_391_848),
        ("swinv2-t-w8-256", "38.97M", "torchinfo's mult-adds on torchvision", 38_970_472),
        ("swinv2-t-w8-256", "11.915G", "DeepSpeed's FLOPs on timm", 11_914_973_184),
        ("deit-s-distilled-224", "3.238G", "ptflops on timm", 3_238_391_792),
        ("deit-s-distilled-224", "79.94M", "torchinfo's mult-adds on timm", 79_942_352),
        ("vit-little-16-reg4-gap-256", "4.87G", "ptflops on timm", 4_870_286_920),
        ("vit-little-16-reg4-gap-256", "12.69G", "DeepSpeed's FLOPs on timm", 12_687_289_920),
        ("swinv2-t-w8-256", "46.08M", "torchinfo's mult-adds on timm", 46_077_544),
    ],
)
def test_figures_that_tools_print_for_published_networks(preset, figure, name, count):
    """The counts come from runs of the tools on timm 1.0.31 and torchvision 0.29."""
    spec = next(each.spec for each in presets() if each.name == preset)
    first = explain_figure(figure, counts_per_image(spec)).explained_by[0]
    assert (first.name, first.figure) == (name, count)


@pytest.mark.parametrize(
    ("name", "libraries"),
    [
        ("vit", {"timm", "timm without fused attention", "torchvision", "transformers"}),
        ("vit with registers", {"timm", "timm without fused attention"}),
        ("vit that averages", {"timm", "timm without fused attention"}),
    ],
)
def test_a_library_that_lacks_an_option_explains_nothing(name, libraries):
    counts = counts_per_image(SPECS[name])
    assert {each.name.partition(" on ")[2] for each in counts if " on " in each.name} == libraries


def test_a_part_of_a_network_has_figures_of_tools_that_hook():
    for spec in (SAMNetworkSpec(scope="block"), HieraNetworkSpec(stage=2), TwinsNetworkSpec(scope="block"), PVTSpec()):
        assert "thop on timm" in [each.name for each in counts_per_image(spec)]


@pytest.mark.parametrize(
    "spec",
    [
        HieraNetworkSpec(
            image=(32, 32)
        ),  # timm computes attention in one unit by products, and to all by a fused kernel
        HieraNetworkSpec(qkv_bias=False),
        MaxViTNetworkSpec(qkv_bias=False),
        TwinsNetworkSpec(window=(7, 14)),
        TwinsNetworkSpec(window=0, qkv_bias=False),
        SAMNetworkSpec(window=(7, 14), classes=10),
        SAMNetworkSpec(**{**SAM, "classes": 0}),  # timm's network averages the features nevertheless
        XCASpec(variant="davit"),
        PVTSpec(heads=2, kv_heads=1),
    ],
    ids=lambda spec: spec.name,
)
def test_what_a_library_builds_differently_has_no_figures_of_tools_that_hook(spec):
    names = [each.name for each in counts_per_image(spec)]
    assert "MACs" in names
    assert not [name for name in names if " on " in name]


@pytest.mark.parametrize(
    "options",
    [
        {"mlp": "swiglu"},
        {"key_bias": False},
        {"qk_norm": True},
        {"mlp_norm": True},
        {"rope": "eva02", "heads": 2, "qk_norm": True},
        {"rope": "eva02", "heads": 2, "kv_heads": 1},
    ],
)
def test_options_whose_calls_are_unknown_have_no_figures_of_tools_that_hook(options):
    assert not [each for each in counts_per_image(ViTNetworkSpec(**{**VIT, **options})) if " on " in each.name]


def test_microsofts_flops_do_not_pad():
    """`flops()` counts H·W/M² windows. Microsoft's code prints 5,870,008,320 for Swin-T at 256 pixels."""
    spec = SwinNetworkSpec(image=(256, 256))
    assert conventions(spec, spec.plan())["Microsoft's flops()"] == 5_870_008_320
    assert spec.plan().macs == 7_345_441_536


def test_a_convention_that_adds_nothing_explains_nothing():
    """An attention has no LayerNorm."""
    names = [count.name for count in counts_per_image(ViTSpec())]
    assert {"MACs", "MACs with biases"} < {*names}
    assert "fvcore: LayerNorm added" not in names


def test_a_figure_that_no_convention_gives_has_the_nearest():
    explained = explain_figure("34.9M", counts_per_image(SwinNetworkSpec()))
    assert explained.explained_by == []
    assert explained.nearest.name == "torchinfo's mult-adds on torchvision"
    assert explained.off == pytest.approx(34_368_232 / 34.9e6 - 1)


@pytest.mark.parametrize(
    ("figure", "distance"),
    [("34.9M", "1.5% less"), ("33.9M", "1.4% more"), ("4M", "8.59× the figure"), ("99T", "99.9% less")],
)
def test_how_far_the_nearest_convention_is(figure, distance):
    (line,) = figure_lines(explain_figure(figure, counts_per_image(SwinNetworkSpec())))
    assert line.endswith(f"({distance})")


@pytest.mark.parametrize(
    ("text", "number", "unit"),
    [
        ("4,490,566,656", "4490566656", 1),
        ("1,784 GMACs", "1784", 10**9),
        ("4.49e9", "4.49e9", 1),
        ("4.50E+09", "4.50e9", 1),
        ("4371851808.0", "4371851808.0", 1),  # thop prints a float
        (".53G", ".53", 10**9),
    ],
)
def test_forms_of_a_figure(text, number, unit):
    parsed = parse_figure(text)
    assert parsed == (Decimal(number), unit)
    assert parsed[0].as_tuple() == Decimal(number).as_tuple()  # the same digits


@pytest.mark.parametrize("digits", [28, 29, 40])
def test_a_figure_may_have_as_many_digits_as_are_allowed(digits):
    assert parse_figure("9" * digits) == (Decimal("9" * digits), 1)
    assert explain_figure("9" * digits, counts_per_image(SwinNetworkSpec())).explained_by == []


def test_a_figure_may_be_the_number_of_parameters():
    spec = SwinNetworkSpec()
    explained = explain_figure("28.3M", counts_per_image(spec), spec.plan().params)
    assert [(each.name, each.figure, each.how) for each in explained.explained_by] == [
        ("parameters", 28_288_354, "rounded")
    ]


def test_a_figure_may_have_more_digits_than_a_count():
    explained = explain_figure("4.4905666560000000000000000000000000000G", counts_per_image(SwinNetworkSpec()))
    assert [(each.name, each.how) for each in explained.explained_by] == [("MACs", "exact")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3,13G", r"a decimal point instead of a comma \(got 3,13G\); write 3\.13G"),
        ("4,49", r"a decimal point instead of a comma \(got 4,49\); write 4\.49G"),
        ("4.5", r"a unit if it is a fraction \(got 4\.5\); write 4\.5G"),
    ],
)
def test_a_figure_that_can_be_meant_is_suggested(text, message):
    with pytest.raises(UsageError, match=message):
        parse_figure(text)


@pytest.mark.parametrize(
    "text", ["", "G", "0G", "-3G", "3.1X", "1.2.3G", "nan", "inf", "1e400", "1e-3", "1,23,4", "４.５G", "9" * 400]
)
def test_what_is_not_a_figure(text):
    with pytest.raises(UsageError, match=r"must be a positive number with a unit, such as 3\.13G"):
        parse_figure(text)


def test_the_conventions_of_a_source_give_all_of_its_rows():
    """A convention of SOURCES gives every row; every other way to count fails for at least one row."""
    rows = defaultdict(list)
    for preset in presets():
        figures = conventions(preset.spec, preset.spec.plan())
        for printed in preset.published:
            rounded, truncated = conventions_that_give(Decimal(printed["figure"]), 10**9, figures)
            ways = {*rounded, *(way + TRUNCATED for way in truncated)}
            if (printed["source"], printed["figure"]) not in EXCEPTIONS:
                rows[printed["source"], preset.command].append(ways)
    assert {(source, command) for source, ways in SOURCES.items() for command in ways} == set(rows)
    for (source, command), ways in rows.items():
        assert set(SOURCES[source][command]) <= set.intersection(*ways), (source, command)


@pytest.mark.parametrize("preset", presets(), ids=lambda preset: preset.name)
def test_published_figures_are_those_of_one_image(preset):
    one = compare_published(preset.spec, preset.spec.plan(), preset.published)
    eight = replace(preset.spec, batch=8)
    many = compare_published(eight, eight.plan(), preset.published)
    assert (many.figures, many.per_image) == (one.figures, one.per_image)
    assert many.conventions["MACs"] == eight.plan().macs
    assert all(figure.explained_by for figure in one.figures)


def test_the_command_explains_a_figure(attnscope):
    done = attnscope("swin", "--preset", "swin-t-224", "--explain-figure", "3.13G", "--wide")
    assert "3.13G is ptflops on torchvision: 3,128,183,416, rounded" in done.stdout
    done = attnscope("swin", "--preset", "swin-t-224", "--explain-figure", "34.9M", "--batch", "8", "--json")
    figure = json.loads(done.stdout)["figure"]
    assert figure["explained_by"] == []
    assert figure["nearest"]["figure"] == 34_368_232
    words = ("swin", "--preset", "swin-t-224", "--explain-figure", "3.13G", "--no-time", "--format")
    assert "\n* 3.13G is ptflops on torchvision: 3,128,183,416, rounded" in attnscope(*words, "md").stdout
    assert attnscope(*words, "csv").stderr.startswith("attnscope: 3.13G is ptflops on torchvision: 3,128,183,416")
    wrong = attnscope("swin", "--explain-figure", "many")
    assert wrong.returncode == 2
    assert wrong.stderr.strip().endswith(
        "--explain-figure must be a positive number with a unit, such as 3.13G (got many)"
    )


@pytest.mark.parametrize("preset", presets(), ids=lambda preset: preset.name)
def test_names_of_timms_checkpoints_have_their_number_of_classes(preset):
    """A checkpoint whose head is unknown is an error, and one without a head is, unless its network never has one."""
    timm = pytest.importorskip("timm")
    fields = own_fields(type(preset.spec))
    for name in timm.list_pretrained(f"{preset.timm}.*"):
        classes = timm.get_pretrained_cfg(name).num_classes
        if classes == 115_217 or (classes == 0 and preset.spec.classes):
            with pytest.raises(UsageError, match=r"\(got [\w.]+; many have none\)"):
                read_preset(name, preset.command, fields)
        else:
            assert read_preset(name, preset.command, fields).get("classes", 1000) == classes


@pytest.mark.parametrize(
    ("words", "note"),
    [
        (
            "--image 512 --window 9 --scope model",
            "preset swin-t-224, with image 512 instead of 224, window 9 instead of 7",
        ),
        ("--window 8", "preset swin-t-224, with window 8 instead of 7"),
        ("--kv-heads 1 --stage 2 --block 2", "preset swin-t-224, with kv_heads 1 instead of off"),
        ("--batch 4 --scope model", None),
        ("--stage 3 --block 2", None),
    ],
)
def test_what_overrides_a_preset_is_shown(attnscope, words, note):
    notes = json.loads(attnscope("swin", "--preset", "swin-t-224", *words.split(), "--no-time", "--json").stdout)[
        "notes"
    ]
    assert [each for each in notes if "preset" in each] == ([note] if note else [])


def test_trace_explains_a_figure(attnscope):
    words = ("trace", "timm:vit_tiny_patch16_224", "--explain-figure")
    assert "2.51G is FLOPs: 2,507,366,400" in attnscope(*words, "2.51G", "--wide").stdout
    left = 1_253_683_200 - 12 * 2 * 197**2 * 192
    assert (
        f"{left} is MACs without the products in attention: {left:,} (" in attnscope(*words, str(left), "--wide").stdout
    )
    assert "cannot tell: none of 6 known counts of this input is 9.9G" in attnscope(*words, "9.9G", "--wide").stdout
    assert "give its unit, such as 486M" in " ".join(attnscope(*words, "486", "--wide").stdout.split())
