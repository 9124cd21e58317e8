"""Sources of published figures, and the conventions that hold for all of their rows."""

from collections.abc import Mapping

MACS, FVCORE, PATCHES = "MACs", "fvcore: LayerNorm added", "MACs without the class token"
WITHOUT_SDPA = "fvcore without SDPA"
LAYERS = "MACs of convolutions and linear layers"
MICROSOFT, WITHOUT_BIAS_MLP = "Microsoft's flops()", "MACs without the bias MLP"
WITHOUT_POSITIONS = "MACs without the relative positions"
WITH_LOOKUPS = "fvcore with position lookups"
TRUNCATED = ", truncated"

SOURCES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "the Swin paper, table 1": {"vit": (PATCHES,), "swin": (MACS,)},
    "Microsoft's README": {"swin": (MACS, MICROSOFT), "swinv2": (WITHOUT_BIAS_MLP, MICROSOFT)},
    "the DeiT III README": {"vit": (FVCORE + TRUNCATED,)},
    "EfficientViT-SAM, arXiv 2402.05008": {"sam": (WITHOUT_POSITIONS,)},
    "the PVT v2 paper, table 2": {"pvt": (FVCORE,)},
    "the Hiera paper": {"hiera": (FVCORE,)},
    "NAT's README": {"nat": (MACS,)},
    "the CSWin README": {"cswin": (MACS,)},
    "the Twins paper": {"twins": (MACS,)},
    "the Twins README": {"twins": (LAYERS,)},
    "PVT's get_flops.py": {"pvt": (FVCORE + TRUNCATED,)},
    "PaddleClas": {"pvt": (WITHOUT_SDPA,)},
    "timm's benchmark tables": {
        **dict.fromkeys(("vit", "sam", "swin", "swinv2", "pvt", "hiera", "xca"), (FVCORE,)),
        "maxvit": (WITH_LOOKUPS,),
    },
    "torchvision's weights": {"vit": (MACS,), "swin": (MACS,), "swinv2": (MACS,)},
}
"""The conventions of each source, for each command.

A figure alone often fits several conventions, above all with few digits. A convention explains it only if it gives the
other rows of the source, too. The tests verify this for all presets. The Swin paper's 47.0 is the only exception: no
convention gives it and all other rows.
"""
EXCEPTIONS = {("the Swin paper, table 1", "47.0")}
"""Figures that the conventions of their source do not give."""
