"""Tests of PVT's attention: the battery, timm's outputs, and the commands."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from timm.models.pvt_v2 import Attention

import attnscope
from attnscope.testing import AttentionBattery

from .attention import SpatialReductionAttention
from .spec import SRASpec

SMALL = {"dim": 12, "heads": 3, "resolution": (4, 10), "reduction": 2}


class TestBattery(AttentionBattery):
    specs = (
        SRASpec(**SMALL),
        SRASpec(**SMALL, batch=3),
        SRASpec(**SMALL, batch=3, qkv_bias=False),
        SRASpec(**{**SMALL, "resolution": (7, 11), "reduction": 3}),  # a row and two columns are not part of any key
        SRASpec(**{**SMALL, "resolution": (5, 7), "reduction": 5}, batch=2),  # a single key
        SRASpec(**{**SMALL, "reduction": 1}),
        SRASpec(**{**SMALL, "reduction": 1}, batch=3, kv_heads=1),
        SRASpec(**{**SMALL, "heads": 4, "kv_heads": 2}, batch=2),
        SRASpec(**SMALL, batch=2, dtype="float64"),
        SRASpec(**SMALL, batch=2, dtype="bfloat16"),
        SRASpec(**SMALL, batch=2, kernel="sdpa"),
        SRASpec(**SMALL, batch=2, kernel="math"),
        SRASpec(**{**SMALL, "reduction": 1}, kernel="sdpa"),
        SRASpec(**SMALL, attn_drop=0.1, proj_drop=0.1),
        SRASpec(resolution=28),  # large enough for torch to run the convolution with a BLAS library
    )


@pytest.mark.parametrize("reduction", [1, 2, 3, 7])
@pytest.mark.parametrize("resolution", [(7, 7), (8, 11)])
@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_outputs_equal_those_of_timm(resolution, reduction, kernel):
    reference = Attention(12, num_heads=3, sr_ratio=reduction).double().eval()
    spec = SRASpec(dim=12, heads=3, resolution=resolution, reduction=reduction, kernel=kernel)
    module = spec.build().double().eval()
    module.load_state_dict(reference.state_dict())
    x = torch.randn(2, resolution[0] * resolution[1], 12, dtype=torch.float64)
    torch.testing.assert_close(module(x), reference(x, resolution), rtol=1e-12, atol=1e-12)


def test_macs_follow_the_formula_of_the_paper():
    """Check the four stages of PVT-Small at 224 pixels: 2NC² + M·R²C²[R>1] + 2MC² + 2NMC."""
    for side, dim, heads, reduction in ((56, 64, 1, 8), (28, 128, 2, 4), (14, 320, 5, 2), (7, 512, 8, 1)):
        n, m = side**2, (side // reduction) ** 2
        macs = 2 * n * dim**2 + m * reduction**2 * dim**2 * (reduction > 1) + 2 * m * dim**2 + 2 * n * m * dim
        assert SRASpec(dim=dim, heads=heads, resolution=side, reduction=reduction).plan().macs == macs


def test_module_is_built_without_a_spec():
    module = SpatialReductionAttention(12, 3, resolution=(4, 10), reduction=2)
    assert module(torch.randn(2, 40, 12)).shape == (2, 40, 12)


def test_patch_larger_than_the_grid_is_rejected():
    with pytest.raises(attnscope.UsageError, match=r"reduction must not exceed resolution 7x9 \(got 8\); largest: 7"):
        SRASpec(resolution=(7, 9), reduction=8)


@pytest.fixture
def run(tmp_path):
    """Return a function that runs `attnscope --attention` with this folder and returns the output."""

    def run(*words: str) -> str:
        command = [sys.executable, "-m", "attnscope", "--attention", str(Path(__file__).parent), *words]
        env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "COLUMNS": "200"}
        return subprocess.run(command, capture_output=True, encoding="utf-8", check=True, timeout=300, env=env).stdout

    return run


def test_command_has_the_flags_and_the_notes(run):
    screen = run("sra", "--resolution", "15", "--no-time")
    assert "15×15 tokens · 1×1 keys" in screen
    assert "161 tokens at the bottom and on the right are in no key, because they do not fill a patch of 8×8" in screen
    assert "--reduction" in run("sra", "--help")


def test_attention_is_timed_and_verified(run):
    words = ("sra", "--resolution", "16", "--budget", "0.05", "--audit", "--backward", "--memory", "--json")
    report = json.loads(run(*words))
    assert report["audit"]["agree"]
    assert report["audit"]["torch"] == report["totals"]["macs"]
    assert report["backward"]["macs"] == report["backward"]["torch"]
    assert all(step["time"] for step in report["steps"])


def test_attention_is_compared(run):
    comparison = json.loads(run("compare", "vit", "sra", "swin", "--over", "resolution=14,28,56", "--json"))
    assert comparison["agree"]
    macs = [point["costs"]["sra"] for point in comparison["points"]]
    assert macs == [SRASpec(dim=96, heads=3, resolution=side).plan().macs for side in (14, 28, 56)]
