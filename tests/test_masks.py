"""Masks that `trace` sees on the way from q·kᵀ to the softmax, beside biases and other scores."""

from math import inf

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import attnscope
from attnscope.ops.attention import CAUSAL_AT, MASK_AT, NATIVE_MASK_AT
from attnscope.render.trace import attention_line

SDPA = F.scaled_dot_product_attention


class Layers(nn.Module):
    """Attention of 50 tokens with four heads of 16 channels, whose scores a function changes."""

    def __init__(self, change=lambda self, scores: scores):
        super().__init__()
        self.qkv, self.bias, self.change = nn.Linear(64, 192), nn.Parameter(torch.zeros(4, 50, 50)), change
        self.register_buffer("table", torch.full((50, 50), -inf).triu(1))

    def split(self, x):
        return self.qkv(x).reshape(*x.shape[:2], 3, 4, 16).permute(2, 0, 3, 1, 4)

    def forward(self, x, *more):
        q, k, v = self.split(x)
        return self.change(self, q @ k.transpose(-1, -2) / 4, *more).softmax(-1) @ v


class Fused(Layers):
    def forward(self, x, *more):
        return self.change(self, *self.split(x), *more)


class Multihead(Layers):
    """torch's module, called by a function."""

    def __init__(self, change):
        super().__init__(change)
        self.attention = nn.MultiheadAttention(64, 4, batch_first=True)

    def forward(self, x):
        return self.change(self, x)[0]


def lower(tensor):
    return torch.ones(50, 50, dtype=torch.bool, device=tensor.device).tril()


def above(tensor):
    return torch.full((50, 50), -inf, device=tensor.device).triu(1)


def distances(tensor):
    places = torch.arange(50, device=tensor.device)
    return (places[:, None] - places).abs()


CASES = {
    "causal by its name": (Fused(lambda self, q, k, v: SDPA(q, k, v, is_causal=True)), "causal"),
    "causal by its place": (Fused(lambda self, q, k, v: SDPA(q, k, v, None, 0.0, True)), "causal"),
    "boolean": (Fused(lambda self, q, k, v: SDPA(q, k, v, lower(q))), "masked"),
    "triangle": (Fused(lambda self, q, k, v: SDPA(q, k, v, attn_mask=above(q))), "masked"),
    "constant": (Fused(lambda self, q, k, v: SDPA(q, k, v, self.table)), "masked or biased"),
    "learned": (Fused(lambda self, q, k, v: SDPA(q, k, v, self.bias)), None),
    "learned and masked": (Fused(lambda self, q, k, v: SDPA(q, k, v, self.bias + above(q))), "masked"),
    "fused": (Fused(lambda self, q, k, v: SDPA(q, k, v)), None),
    "filled": (Layers(lambda self, scores: scores.masked_fill(~lower(scores), -inf)), "masked"),
    "filled in place": (Layers(lambda self, scores: scores.masked_fill_(self.table < 0, -inf)), "masked"),
    "chosen": (Layers(lambda self, scores: torch.where(lower(scores), scores, -inf)), "masked"),
    "added": (Layers(lambda self, scores: scores + self.table), "masked or biased"),
    "bias and mask": (
        Layers(lambda self, scores: (scores + self.bias).flatten(0, 1).add_(self.table).unflatten(0, (-1, 4))),
        "masked or biased",
    ),
    "learned positions": (Layers(lambda self, scores: scores + self.bias.flatten(1)[:, :2500].view(4, 50, 50)), None),
    "highest scores": (
        Layers(lambda self, scores: scores.masked_fill(scores < scores.amax(-1, keepdim=True) / 2, -inf)),
        None,
    ),
    "less the highest": (Layers(lambda self, scores: scores - scores.amax(-1, keepdim=True)), None),
    "number": (Layers(lambda self, scores: scores + torch.ones((), device=scores.device)), None),
    "distances": (Layers(lambda self, scores: scores - distances(scores)), "masked or biased"),
    "distances as floats": (Layers(lambda self, scores: scores - distances(scores).float()), "masked or biased"),
    "eager": (Layers(), None),
    "module": (Multihead(lambda self, x: self.attention(x, x, x)), None),
    "module with a mask": (
        Multihead(lambda self, x: self.attention(x, x, x, attn_mask=self.table)),
        "masked or biased",
    ),
    "module with padding": (
        Multihead(lambda self, x: self.attention(x, x, x, key_padding_mask=lower(x)[:2])),
        "masked",
    ),
    "causal module": (
        Multihead(lambda self, x: self.attention(x, x, x, attn_mask=self.table, need_weights=False, is_causal=True)),
        "causal",
    ),
}


@pytest.mark.parametrize("device", [None, "cpu"])
@pytest.mark.parametrize(("module", "mask"), CASES.values(), ids=CASES)
def test_a_mask_is_what_hides_keys_and_neither_learned_nor_scores(module, mask, device):
    [found] = attnscope.trace(module, torch.rand(2, 50, 64), device=device).attentions
    assert found.mask == mask
    assert (found.tokens, found.keys, found.heads, found.core_macs) == (50, 50, 4, 2 * 2 * 50**2 * 64)
    assert (f"global attention, {mask}, N = 50" if mask else "global attention, N = 50") in attention_line(found)


def test_a_frozen_bias_is_not_a_mask():
    for change in (lambda self, scores: scores + self.bias, lambda self, scores: scores + self.bias * 2):
        [found] = attnscope.trace(Layers(change).requires_grad_(False), torch.rand(2, 50, 64)).attentions
        assert found.mask is None


def test_an_attention_with_a_mask_has_a_formula_and_no_family():
    x = torch.rand(2, 50, 64)
    for is_causal in (True, False):
        module = Multihead(
            lambda self, x, is_causal=is_causal: self.attention(
                x, x, x, attn_mask=self.table if is_causal else None, need_weights=False, is_causal=is_causal
            )
        )
        [found] = attnscope.trace(module, x).attentions
        assert (found.family is None) == is_causal
        assert [term.name for term in found.complexity] == ["Ω(MSA)"]


@pytest.mark.parametrize(
    ("mask", "expected"), [(torch.rand(50, 50), "masked or biased"), (torch.rand(50, 50) < 1, "masked")]
)
def test_an_input_is_a_mask_if_it_is_boolean(mask, expected):
    fused = Fused(lambda self, q, k, v, mask: SDPA(q, k, v, mask))
    [found] = attnscope.trace(fused, torch.rand(2, 50, 64), mask).attentions
    assert found.mask == expected


@pytest.mark.parametrize("mask", ["masked", None])
def test_a_mask_that_a_submodule_receives_is_what_it_is_in_the_whole(mask):
    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(4, 50, 50))
            self.attention = Layers(lambda self, scores, mask: scores + mask)

        def forward(self, x):
            return self.attention(x, above(x)[None] if mask else self.bias[None] * 2)

    for submodule in (None, "attention"):
        [found] = attnscope.trace(Whole(), torch.rand(2, 50, 64), submodule=submodule).attentions
        assert found.mask == mask


def test_blocks_of_queries_are_one_attention_if_only_some_have_a_mask():
    class Blocks(Layers):
        def forward(self, x):
            q, k, v = self.split(x)
            masks = lower(x)[:25], None
            blocks = zip(q.split(25, 2), masks, strict=True)
            return torch.cat([SDPA(each, k, v, mask) for each, mask in blocks], 2)

    [found] = attnscope.trace(Blocks(), torch.rand(2, 50, 64)).attentions
    assert (found.tokens, found.mask) == (50, "masked")


def test_attentions_that_differ_in_their_mask_have_an_entry_each():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleList([CASES["causal by its name"][0], CASES["fused"][0]])

        def forward(self, x):
            return [part(x) for part in self.parts]

    report = attnscope.trace(Both(), torch.rand(2, 50, 64))
    assert [(found.mask, found.times) for found in report.attentions] == [("causal", 1), (None, 1)]


def test_masks_of_windows_have_no_word():
    class Windows(Layers):
        def split(self, x):
            x = x.unflatten(2, (2, 4)).unflatten(1, (2, 4)).transpose(2, 3).reshape(-1, 16, 64)
            return super().split(x)

    shifted = Windows(lambda self, scores: scores.masked_fill(lower(scores)[:16, :16], -100))
    [found] = attnscope.trace(shifted, torch.rand(2, 8, 8, 64)).attentions
    assert (found.windows, found.window, found.mask) == (4, (4, 4), None)


@pytest.mark.parametrize("names", [(CAUSAL_AT, "is_causal"), (MASK_AT | NATIVE_MASK_AT, "attn_mask attn_bias mask")])
def test_masks_are_at_their_places_in_the_schemas_of_torch(names):
    places, known = names
    for name, at in places.items():
        found = getattr(torch.ops.aten, name).default._schema.arguments
        assert [place for place, each in enumerate(found) if each.name in known.split()] == ([] if at is None else [at])
