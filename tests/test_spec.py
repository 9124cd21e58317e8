"""Valid Specs, and errors of invalid ones: the value, the rule and the nearest valid value."""

import dataclasses
import re

import pytest

from attnscope import SwinSpec, UsageError, ViTSpec, attentions
from attnscope.attentions.cswin.spec import CSWinSpec
from attnscope.attentions.hiera.spec import HieraSpec
from attnscope.attentions.spec import own_fields
from attnscope.core.sizes import LARGEST

WRONG = [
    (
        ViTSpec,
        {"dim": 770},
        "{dim} must be divisible by {heads} 12 (got 770); nearest: 768 or 780, or {heads} 11 or 14",
    ),
    (ViTSpec, {"dim": 5, "heads": 12}, "{dim} must be divisible by {heads} 12 (got 5); nearest: 12, or {heads} 5"),
    (ViTSpec, {"dim": 0}, "{dim} must be at least 1 (got 0)"),
    (ViTSpec, {"kv_heads": 5}, "{kv_heads} must divide {heads} 12 (got 5); nearest: 4 or 6"),
    (SwinSpec, {"kv_heads": 2}, "{kv_heads} must divide {heads} 3 (got 2); nearest: 1 or 3"),
    (SwinSpec, {"kv_heads": 4}, "{kv_heads} must divide {heads} 3 (got 4); nearest: 3"),
    (
        SwinSpec,
        {"dim": 10**12, "heads": 10**12, "kv_heads": 7},
        "{kv_heads} must divide {heads} 1000000000000 (got 7); nearest: 5 or 8",
    ),
    (ViTSpec, {"heads": -3}, "{heads} must be at least 1 (got -3)"),
    (ViTSpec, {"heads": 2.5}, "{heads} must be an integer (got 2.5)"),
    (ViTSpec, {"dim": True}, "{dim} must be an integer (got True)"),
    (ViTSpec, {"batch": 10**13}, f"{{batch}} must be at most {LARGEST} (got {10**13})"),
    (ViTSpec, {"tokens": 0}, "{tokens} must be at least 1 (got 0)"),
    (ViTSpec, {"image": 225}, "{image} must be divisible by {patch} 16 (got 225); nearest: 224 or 240"),
    (ViTSpec, {"image": (224, 7)}, "{image} must be divisible by {patch} 16 (got 224x7); nearest: 224x16"),
    (
        HieraSpec,
        {"resolution": (56, 55), "window": (9, 5), "q_stride": 1},
        "{resolution} must be divisible by {window} 9x5 (got 56x55); nearest: 54x55 or 63x55",
    ),
    (
        CSWinSpec,
        {"resolution": (12, 18), "stripe": 4},
        "{resolution} must be divisible by {stripe} 4 (got 12x18); nearest: 12x16 or 12x20, or {stripe} 3 or 6",
    ),
    (ViTSpec, {"image": (1, 2, 3)}, "{image} must be an integer or a pair of integers (got (1, 2, 3))"),
    (ViTSpec, {"image": "224"}, "{image} must be an integer (got '224')"),
    (ViTSpec, {"tokens": 5, "image": 224}, "{tokens} and {image} both set the number of tokens; give one of them"),
    (ViTSpec, {"tokens": 5, "cls": False}, "{tokens} and {cls} both set the number of tokens; give one of them"),
    (ViTSpec, {"qkv_bias": 1}, "{qkv_bias} must be true or false (got 1)"),
    (ViTSpec, {"qk_scale": float("nan")}, "{qk_scale} must be a number of at least 0 (got nan)"),
    (ViTSpec, {"qk_scale": float("inf")}, "{qk_scale} must be a number of at least 0 (got inf)"),
    (ViTSpec, {"attn_drop": 1.0}, "{attn_drop} must be a number of at least 0 and below 1 (got 1.0)"),
    (ViTSpec, {"proj_drop": -0.1}, "{proj_drop} must be a number of at least 0 and below 1 (got -0.1)"),
    (ViTSpec, {"dtype": "float23"}, "{dtype} float23 is unknown; did you mean float32?"),
    (ViTSpec, {"kernel": "x"}, "{kernel} x is unknown; available: compile, eager, efficient, flash, flex, math, sdpa"),
    (SwinSpec, {"dim": 100}, "{dim} must be divisible by {heads} 3 (got 100); nearest: 99 or 102, or {heads} 2 or 4"),
    (SwinSpec, {"window": (7, 0)}, "{window} must be at least 1 (got 0)"),
    (SwinSpec, {"resolution": -1}, "{resolution} must be at least 1 (got -1)"),
    (SwinSpec, {"shift_size": 7}, "{shift_size} must be smaller than {window} 7 (got 7); largest: 6"),
    (
        SwinSpec,
        {"shift_size": (3, 9), "window": (4, 8)},
        "{shift_size} must be smaller than {window} 8 (got 9); largest: 7",
    ),
    (
        SwinSpec,
        {"shift": False, "shift_size": 2},
        "{no_shift} and {shift_size} contradict each other; give one of them",
    ),
    (
        SwinSpec,
        {"shift": True, "shift_size": 0},
        "{shift} and {shift_size} 0 contradict each other; use --no-shift to disable the shift",
    ),
]


@pytest.mark.parametrize(("spec", "fields", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_an_invalid_field_is_a_one_line_error(spec, fields, message):
    with pytest.raises(UsageError) as error:
        spec(**fields)
    assert str(error.value) == message.replace("{", "").replace("}", "")
    in_flags = error.value.in_flags()
    for field in dataclasses.fields(spec):
        if f"{{{field.name}}}" in message:
            assert f"--{field.name.replace('_', '-')} " in in_flags
    assert "{" not in in_flags


@pytest.mark.parametrize("name", attentions.names())
def test_two_invalid_fields_are_a_one_line_error(name):
    spec = attentions.spec_class(name)
    wrong = [0, -1, 10**30, "x", None, 2.5, (1, 2, 3), float("nan"), True]
    fields = [field.name for field in dataclasses.fields(spec)]
    for first in fields:
        for second in fields:
            for value in wrong:
                try:
                    spec(**{first: value, second: value})
                except UsageError as error:
                    assert "\n" not in str(error)  # noqa: PT017


def test_defaults_are_the_published_networks():
    assert ViTSpec().input_shape == (1, 197, 768)
    assert SwinSpec().input_shape == (1, 56, 56, 96)
    assert SwinSpec(shift=True).windows.shift == (3, 3)
    assert SwinSpec(shift=True, window=(4, 6)).windows.shift == (2, 3)


def test_an_image_has_one_token_per_patch_and_a_class_token():
    assert ViTSpec(image=384).sequence == 577
    assert ViTSpec(image=384, cls=False).sequence == 576
    assert ViTSpec(image=(224, 448), patch=(16, 32)).sequence == 197
    assert ViTSpec(tokens=50).sequence == 50
    assert dataclasses.replace(ViTSpec(), image=(32, 32)).sequence == 5


def test_padding_and_shifts_without_effect_are_cautions():
    assert SwinSpec().cautions() == []
    (padded,) = SwinSpec(resolution=50).cautions()
    assert padded.startswith("the grid is padded from 50×50 to 56×56: 20.3% of the tokens are padding")
    text = " ".join(SwinSpec(resolution=3, shift=True).cautions())
    assert "larger than the grid" in text
    assert "--window 3x3" in text
    assert "a single window is not shifted" in text
    (nothing,) = SwinSpec(window=1, shift=True).cautions()
    assert nothing == "the shift has no effect: half of a window of 1 token is 0"


def test_complexities_are_those_of_the_swin_paper():
    complexity = SwinSpec().complexity()
    assert (complexity.reference_macs, complexity.own_macs) == (2_003_828_736, 145_108_992)
    assert complexity.ratio == pytest.approx(13.81, abs=0.005)
    stages = [SwinSpec(dim=96 * 2**i, heads=3 * 2**i, resolution=56 // 2**i).complexity().ratio for i in range(4)]
    assert [round(ratio, 2) for ratio in stages] == [13.81, 2.70, 1.18, 1.00]
    assert SwinSpec(batch=3).complexity().own_macs == 3 * 145_108_992


@pytest.mark.parametrize("name", attentions.names())
def test_help_shows_the_default_of_the_scale_or_says_that_it_is_not_available(name):
    kind = attentions.spec_class(name)
    rules = own_fields(kind)["qk_scale"].metadata
    if rules["help"].startswith("Not available"):
        with pytest.raises(UsageError, match="qk_scale"):
            kind(qk_scale=0.5)
        return
    channels = re.fullmatch(r"1/√\((\w+)/heads\)", rules["shown"])[1]
    spec = kind()
    assert spec.score_scale == (getattr(spec, channels) // spec.heads) ** -0.5
    assert kind(qk_scale=0.5).score_scale == 0.5
