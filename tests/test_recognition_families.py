"""The families of attention that `trace` recognizes: in modules of timm and in those of attnscope itself."""

from importlib import import_module

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import attnscope
from attnscope import attentions
from attnscope.render import render
from attnscope.render.screen import Screen
from attnscope.reports.report import Formula, Letter, formula_values


def spec(name, **values):
    return attentions.spec_class(name)(**values)


OWN = [
    spec("cross", tokens=10, keys=30, dim=64, heads=4),
    spec("cswin", resolution=(8, 12), stripe=2, heads=4, batch=2),
    spec("cswin", resolution=8, stripe=8, heads=4),
    spec("hiera", resolution=16, window=8, dim=32, out_dim=64),
    spec("hiera", resolution=8, window=0, dim=64, out_dim=64),
    spec("linear", dim=64),
    spec("linear", dim=64, scales=(3, 5)),
    spec("maxvit", resolution=(14, 28), partition=7, grid=True),
    spec("pvt", resolution=(16, 24), reduction=4),
    spec("pvt", resolution=(16, 24), linear=True),
    spec("sam", resolution=(16, 20), window=8, dim=64, heads=4),
    spec("sam", resolution=(6, 8), window=0, dim=64, heads=4),
    spec("separable", resolution=(8, 12), dim=32),
    spec("swin", resolution=(14, 20), window=(7, 5), dim=48, batch=2),
    spec("swin", resolution=(13, 18), window=(4, 8), dim=48),
    spec("swin3d", resolution=(4, 8, 12), window=(2, 4, 6), dim=48),
    spec("swinv2", resolution=16, window=8, dim=48),
    spec("twins", resolution=(13, 20), window=(4, 7), dim=48),
    spec("twins", resolution=14, batch=2),
    spec("vit", tokens=50, dim=64, heads=4, batch=3),
    spec("vit", image=4, patch=1, dim=64, heads=4, rope="axial", cls=False),
    spec("vit", image=4, patch=1, dim=64, heads=4, rope="mixed"),
    spec("vit", image=4, patch=1, dim=64, heads=4, rope="dinov3", registers=4, batch=2),
]


def found_in(module, *shapes):
    return attnscope.trace(module.eval(), *[torch.rand(shape) for shape in shapes]).attentions


@pytest.mark.parametrize("own", OWN, ids=lambda own: own.command())
def test_own_modules_have_the_command_the_words_and_the_formula_of_their_family(own):
    (found,) = found_in(attentions.build(own), *own.input_shapes)
    formula = own.complexity().own.of_batch(own.batch)
    # a grid is a sequence of tokens in some modules, and Hiera's windows count their queries
    assert found.family.command == own.command(batch=1)
    assert found.family.words == own.neighbourhood.describe()
    assert found.complexity[-1].name == formula.name
    assert (found.complexity[-1].formula, found.complexity[-1].macs) == (formula.formula, formula.macs)
    assert formula.macs == sum(own.closed_form().values()) or own.name == "swinv2"  # its Ω has no MLP of the bias


TIMM = [
    ("pvt_v2.Attention(64, 2, sr_ratio=4)", [(1, 256, 64), (16, 16)], "pvt --heads 2 --resolution 16 --reduction 4"),
    ("pvt_v2.Attention(64, 2, linear_attn=True)", [(1, 256, 64), (16, 16)], "pvt --heads 2 --resolution 16 --linear"),
    ("twins.LocallyGroupedAttn(64, 2, ws=7)", [(1, 196, 64), (14, 14)], "twins --resolution 14"),
    ("twins.LocallyGroupedAttn(64, 2, ws=7)", [(1, 260, 64), (13, 20)], "twins --resolution 13x20"),
    (
        "swin_transformer.SwinTransformerBlock(64, (14, 14), 2)",
        [(1, 14, 14, 64)],
        "swin --dim 64 --heads 2 --resolution 14",
    ),
    ("twins.GlobalSubSampleAttn(64, 1, sr_ratio=7)", [(1, 196, 64), (14, 14)], "pvt --resolution 14 --reduction 7"),
    ("efficientvit_mit.LiteMLA(64, 64, dim=16)", [(1, 64, 14, 14)], "linear --dim 64"),
    ("xcit.XCA(192, 4)", [(1, 196, 192)], "xca"),
    ("davit.ChannelAttention(96, 3)", [(1, 49, 96)], "xca --dim 96 --heads 3 --resolution 7"),
    ("edgenext.CrossCovarianceAttn(96, 3)", [(1, 50, 96)], "xca --dim 96 --heads 3 --resolution 1x50"),
    ("mobilevit.LinearSelfAttention(32)", [(1, 32, 4, 25)], "separable --dim 32 --resolution 4x25 --patch 4x1"),
    ("cait.ClassAttn(64, 4)", [(1, 50, 64)], "cross --dim 64 --heads 4 --tokens 1 --keys 50"),
    ("cait.TalkingHeadAttn(64, 4)", [(1, 50, 64)], None),
    ("volo.OutlookAttention(64, 2, stride=2)", [(1, 14, 14, 64)], None),
    ("levit.Attention(64, 16, resolution=7)", [(1, 49, 64)], None),
    ("convit.GPSA(64, 4)", [(1, 196, 64)], None),
    ("eva.EvaAttention(64, 4, scale_norm=False)", [(2, 50, 64)], "vit --dim 64 --heads 4 --tokens 50"),
    (
        "vision_transformer_sam.Attention(64, 4, use_rel_pos=True, input_size=(8, 8))",
        [(1, 8, 8, 64)],
        "sam --dim 64 --heads 4 --resolution 8 --window 0",
    ),
    (
        "vision_transformer_sam.Block(64, 4, use_rel_pos=True, window_size=4, input_size=(4, 4))",
        [(1, 6, 8, 64)],
        "sam --dim 64 --heads 4 --resolution 6x8 --window 4",
    ),
    ("maxxvit.PartitionAttentionCl(64, 'block', CFG)", [(1, 14, 28, 64)], "swin --dim 64 --heads 2 --resolution 14x28"),
    (
        "maxxvit.PartitionAttentionCl(64, 'grid', CFG)",
        [(1, 14, 28, 64)],
        "maxvit --resolution 14x28 --grid",
    ),
    (
        "davit.SpatialBlock(96, 3)",
        [(1, 96, 13, 20)],
        "swin --resolution 13x20",
    ),
]


def of_timm(text):
    """Build a module of timm from its name in timm.models and its arguments."""
    path, _, arguments = text.partition("(")
    path, _, name = path.rpartition(".")
    module = import_module(f"timm.{path}" if "." in path else f"timm.models.{path}")
    values = {"CFG": module.MaxxVitTransformerCfg(window_size=(7, 7), grid_size=(7, 7))} if "CFG" in text else {}
    return eval(f"made({arguments}", {"made": getattr(module, name), **values})


@pytest.mark.parametrize(("text", "inputs", "command"), TIMM, ids=[case[0] for case in TIMM])
def test_modules_of_timm_are_those_of_their_family(text, inputs, command):
    pytest.importorskip("timm")
    shape, *sides = inputs
    module = of_timm(text)
    module.eval()
    (found,) = attnscope.trace(module, torch.rand(shape), *sides).attentions
    assert (found.family.command if found.family else None) == (command and f"attnscope {command}")


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("metaformer.Pooling()", (1, 64, 14, 14)),
        ("mlp_mixer.MixerBlock(64, 49)", (1, 49, 64)),
        ("focalnet.FocalModulation(64, 3, 2)", (1, 64, 14, 14)),
    ],
)
def test_modules_without_attention_have_none(text, shape):
    pytest.importorskip("timm")
    report = attnscope.trace(of_timm(text), torch.rand(shape))
    assert (report.attentions, report.other_softmaxes) == ([], [])


class Heads(nn.Module):
    """Heads with more or fewer channels together than a token, as in many small implementations."""

    def __init__(self, output):
        super().__init__()
        self.qkv, self.out = nn.Linear(24, 3 * 64), nn.Linear(64, output)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, 4, 16)).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize(
    ("output", "formula"), [(24, "4hwCD + 2(hw)²D"), (64, "3hwCD + hwD² + 2(hw)²D"), (40, "3hwCD + hwDO + 2(hw)²D")]
)
def test_the_formula_has_the_channels_of_the_projections(output, formula):
    report = attnscope.trace(Heads(output), torch.rand(2, 50, 24))
    (found,) = report.attentions
    (term,) = found.complexity
    assert (term.formula, term.macs, found.family) == (f"b({formula})", report.totals.macs, None)


class Mobile(nn.Module):
    """Keys and values of one head for all, from a convolution with stride 2, and a bias of each query with a table."""

    def __init__(self):
        super().__init__()
        self.q, self.kv, self.out = nn.Linear(64, 64), nn.Linear(64, 2 * 16), nn.Linear(64, 64)
        self.pool = nn.Conv2d(64, 64, 3, stride=2, padding=1, groups=64)
        self.table = nn.Parameter(torch.rand(16, 16))

    def forward(self, x):
        q = self.q(x.flatten(2).mT).unflatten(-1, (4, 16)).transpose(1, 2)
        k, v = self.kv(self.pool(x).flatten(2).mT).chunk(2, -1)
        scores = q @ k[:, None].mT + q @ self.table
        return self.out((scores.softmax(-1) @ v[:, None]).transpose(1, 2).flatten(2))


class ValuesOfTheirOwn(nn.Module):
    """Values with more channels than keys, beside which a convolution sees each position."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (nn.Conv2d(64, channels, 1) for channels in (16, 16, 32))
        self.beside, self.out = nn.Conv2d(32, 32, 3, padding=1, groups=32), nn.Conv2d(32, 64, 1)

    def forward(self, x):
        q, k, v = (layer(x) for layer in (self.q, self.k, self.v))
        mixed = v.flatten(2) @ (q.flatten(2).mT @ k.flatten(2)).softmax(-1).mT
        return self.out(mixed.view_as(v) + self.beside(v))


class SharedKeys(nn.Module):
    """Groups of heads that share keys and values, all from one projection."""

    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(64, 64 + 2 * 32), nn.Linear(64, 64)

    def forward(self, x):
        q, k, v = self.qkv(x).split([64, 32, 32], -1)
        q, k, v = (each.unflatten(-1, (-1, 16)).transpose(1, 2) for each in (q, k, v))
        k, v = (each.repeat_interleave(2, dim=1) for each in (k, v))
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class MixedHeads(Heads):
    """Talking heads: a layer between all heads before the softmax."""

    def __init__(self):
        super().__init__(24)
        self.heads = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, 4, 16)).permute(2, 0, 3, 1, 4)
        return self.out((self.heads(q @ k.mT).softmax(-1) @ v).transpose(1, 2).flatten(2))


class MixedHeadsTwice(MixedHeads):
    """Talking heads before and after the softmax (Shazeer et al. 2020)."""

    def __init__(self):
        super().__init__()
        self.weights = nn.Linear(4, 4)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, 4, 16)).permute(2, 0, 3, 1, 4)
        weights = self.weights(self.heads(q @ k.mT).softmax(-1).movedim(1, -1)).movedim(-1, 1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


class FewTokensWithMixedHeads(MixedHeads):
    """Re-attention: MACs between heads are as many as those of SAM's relative positions on this grid."""

    def __init__(self):
        super().__init__()
        self.heads = nn.Parameter(torch.rand(2, 4, 4))

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, 4, 16)).permute(2, 0, 3, 1, 4)
        weights = torch.einsum("bhij,hg->bgij", q @ k.mT, self.heads[0]).softmax(-1)
        weights = torch.einsum("bhij,hg->bgij", weights, self.heads[1])
        return self.out((weights @ v).transpose(1, 2).flatten(2))


class PositionsOfPairs(Heads):
    """A vector for each pair of positions, which queries multiply (Shaw et al. 2018)."""

    def __init__(self):
        super().__init__(24)
        self.pairs = nn.Parameter(torch.rand(50, 50, 16))

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, 4, 16)).permute(2, 0, 3, 1, 4)
        scores = q @ k.mT + torch.einsum("bhnd,nmd->bhnm", q, self.pairs)
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


class PositionsOfPatches(PositionsOfPairs):
    """The class token has no position (MViT)."""

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, 4, 16)).permute(2, 0, 3, 1, 4)
        scores = q @ k.mT
        scores[:, :, 1:, 1:] += torch.einsum("bhnd,nmd->bhnm", q[:, :, 1:], self.pairs[1:, 1:])
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


class Factorized(Heads):
    """Linear attention with a convolution of the values beside it (CoaT)."""

    def __init__(self):
        super().__init__(24)
        self.near = nn.Conv2d(64, 64, 3, padding=1, groups=64)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, 4, 16)).permute(2, 0, 3, 1, 4)
        plane = v.transpose(-1, -2).reshape(len(x), 64, 7, 7)
        near = self.near(plane).flatten(2).unflatten(1, (4, 16)).transpose(-1, -2)
        return self.out((q @ (k.softmax(2).mT @ v) + q * near).transpose(1, 2).flatten(2))


class WideValues(nn.Module):
    """Linear attention whose values have twice the channels of the keys."""

    def __init__(self):
        super().__init__()
        self.qk, self.v, self.out = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 64)

    def forward(self, x):
        q, k = self.qk(x).unflatten(-1, (2, 4, 8)).permute(2, 0, 3, 1, 4)
        v = self.v(x).unflatten(-1, (4, 16)).transpose(1, 2)
        return self.out((q.softmax(-1) @ (k.softmax(2).mT @ v)).transpose(1, 2).flatten(2))


class MixedTokens(nn.Module):
    """Linformer: keys and values of 16 tokens, each a weighted sum of all."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(64, 64) for _ in "qkvo"])
        self.to_keys, self.to_values = (nn.Parameter(torch.rand(49, 16)) for _ in "kv")

    def forward(self, x):
        q, k, v = (layer(x) for layer in self.layers[:3])
        k, v = (torch.einsum("bnd,nk->bkd", *each) for each in ((k, self.to_keys), (v, self.to_values)))
        q, k, v = (each.unflatten(-1, (4, 16)).transpose(1, 2) for each in (q, k, v))
        return self.layers[3](((q @ k.mT).softmax(-1) @ v).transpose(1, 2).flatten(2))


class StridedLoop(Heads):
    """A loop over every fourth token, each time with the same layers."""

    def forward(self, x):
        out = torch.empty_like(x)
        for start in range(4):
            out[:, start::4] = super().forward(x[:, start::4])
        return out


@pytest.mark.parametrize(
    ("module", "shape", "name", "formula"),
    [
        (Mobile, (2, 64, 8, 8), "Ω(own)", "2hwC² + 2MCG + Mk²C + 2MhwC + hwRC"),
        (ValuesOfTheirOwn, (2, 64, 8, 8), "Ω(MSA)", "2hwCD + 2hwCV + (hw)²D + (hw)²V + hwk²V"),
        (SharedKeys, (2, 50, 64), "Ω(MSA)", "2hwC² + 2hwCG + 2(hw)²C"),
        (MixedHeads, (2, 50, 24), "Ω(MSA)", "4hwCD + 2(hw)²D + (hw)²H²"),
        (MixedHeadsTwice, (2, 50, 24), "Ω(MSA)", "4hwCD + 2(hw)²D + 2(hw)²H²"),
        (FewTokensWithMixedHeads, (2, 16, 24), "Ω(MSA)", "4hwCD + 2(hw)²D + 2(hw)²H²"),
        (FewTokensWithMixedHeads, (2, 1, 24), "Ω(MSA)", "4hwCD + 2(hw)²D + 2(hw)²H²"),
        (PositionsOfPairs, (2, 50, 24), "Ω(MSA)", "4hwCD + 2(hw)²D + hwRD"),
        (PositionsOfPatches, (2, 50, 24), "Ω(MSA)", "4hwCD + 2(hw)²D + mRD"),
        (Factorized, (2, 49, 24), "Ω(linear)", "4hwCD + 2hwDd + hwk²D"),
        (WideValues, (2, 49, 64), "Ω(linear)", "2hwCD + 2hwC² + 2hwCd"),
        (MixedTokens, (2, 49, 64), "Ω(own)", "4hwC² + 4MhwC"),
        (lambda: StridedLoop(24), (2, 64, 24), "Ω(grid)", "4hwCD + 2M²hwD"),
    ],
)
def test_the_formula_has_a_term_for_each_layer(module, shape, name, formula):
    report = attnscope.trace(module(), torch.rand(shape))
    (found,) = report.attentions
    own = found.complexity[-1]
    assert (own.name, own.formula, own.macs) == (name, f"b({formula})", report.totals.macs)


@pytest.mark.parametrize(
    ("text", "inputs", "names"),
    [
        ("gcvit.WindowAttentionGlobal(64, 2, (7, 7))", [(4, 49, 64), (4, 49, 64)], ["Ω(MSA)"]),
        ("levit.Attention(64, 16, 4, attn_ratio=2, resolution=7)", [(2, 49, 64)], ["Ω(MSA)"]),
        ("levit.AttentionDownsample(64, 96, 16, 4, 2, resolution=7)", [(2, 49, 64)], ["Ω(MSA)", "Ω(own)"]),
        (
            "mvitv2.MultiScaleAttention(32, 64, (8, 8), 4, True, 'conv', (3, 3), (3, 3), (2, 2), has_cls_token=False)",
            [(2, 64, 32), (8, 8)],
            ["Ω(MSA)", "Ω(own)"],
        ),
        ("cait.TalkingHeadAttn(64, 4)", [(2, 49, 64)], ["Ω(MSA)"]),
        ("efficientformer_v2.Attention2d(96, resolution=7, stride=2)", [(1, 96, 7, 7)], ["Ω(MSA)"]),
        ("layers.halo_attn.HaloAttn(64, None, (8, 8), 1, 4, None, 4, 2)", [(2, 64, 8, 8)], ["Ω(MSA)", "Ω(W-MSA)"]),
    ],
)
def test_modules_of_timm_have_a_formula_with_all_of_their_macs(text, inputs, names):
    pytest.importorskip("timm")
    tensors = [torch.rand(value) if len(value) > 2 else value for value in inputs]
    report = attnscope.trace(of_timm(text), *tensors)
    (found,) = report.attentions
    assert [term.name for term in found.complexity] == names
    assert found.complexity[-1].macs == report.totals.macs


class Unwritten(Heads):
    """Scores to which those of a table for all pairs are added, made by a layer of the scores."""

    def __init__(self):
        super().__init__(24)
        self.positions = nn.Linear(50, 50)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, 4, 16)).permute(2, 0, 3, 1, 4)
        return self.out((self.positions(q @ k.mT).softmax(-1) @ v).transpose(1, 2).flatten(2))


class Landmarks(Heads):
    """Nyström attention: three softmaxes share the queries, keys and values, so that none of them has their MACs alone."""

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, 4, 16)).permute(2, 0, 3, 1, 4)
        some_q, some_k = (each.unflatten(2, (10, 5)).mean(3) for each in (q, k))
        one, two, three = ((a @ b.mT).softmax(-1) for a, b in ((q, some_k), (some_q, some_k), (some_q, k)))
        return self.out((one @ (two @ (three @ v))).transpose(1, 2).flatten(2))


class TurnedByMatrices(Heads):
    """Each token has a matrix of its own, which is not a projection of all tokens."""

    def __init__(self):
        super().__init__(24)
        self.turns = nn.Parameter(torch.rand(50, 16, 16))

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, 4, 16)).permute(2, 0, 3, 1, 4)
        q, k = (torch.einsum("bhnd,nde->bhne", each, self.turns) for each in (q, k))
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def test_a_layer_without_letters_has_no_formula():
    for module, attentions_in_it in ((TurnedByMatrices(), 1), (Unwritten(), 1), (Landmarks(24), 3)):
        found = found_in(module, (1, 50, 24))
        assert [each.complexity for each in found] == [[]] * attentions_in_it


class Swapped(nn.Module):
    def forward(self, x):
        return x.transpose(1, 2)


def test_layers_between_heads_are_not_the_relative_positions_of_a_family():
    """On this grid both have as many MACs."""
    module = FewTokensWithMixedHeads()
    module.qkv, module.out = nn.Linear(64, 192), nn.Linear(64, 64)
    (found,) = attnscope.trace(
        nn.Sequential(nn.Conv2d(3, 64, 4, 4), nn.Flatten(2), Swapped(), module), torch.rand(2, 3, 16, 16)
    ).attentions
    assert found.family is None
    assert found.complexity[-1].formula == "b(4hwC² + 2(hw)²C + 2(hw)²H²)"


class More(Heads):
    """A block: the module of the attention has other layers too."""

    def __init__(self):
        super().__init__(24)
        self.qkv, self.out, self.mlp = nn.Linear(24, 72), nn.Linear(24, 24), nn.Linear(24, 24)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, 4, 6)).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.mlp(x)


def test_a_module_that_does_more_has_the_formula_but_no_family():
    (found,) = found_in(More(), (1, 50, 24))
    assert [(term.name, term.macs) for term in found.complexity] == [("Ω(MSA)", 4 * 50 * 24**2 + 2 * 50**2 * 24)]
    assert found.family is None


class Deformable(nn.Module):
    """Values at predicted places of the image, with predicted weights."""

    def __init__(self):
        super().__init__()
        self.places, self.weights, self.value = nn.Linear(32, 8), nn.Linear(32, 4), nn.Conv2d(32, 32, 1)

    def forward(self, x):
        tokens = x.flatten(2).transpose(1, 2)
        places = self.places(tokens).view(1, -1, 4, 2).tanh()
        taken = F.grid_sample(self.value(x), places, align_corners=False)
        return (taken * self.weights(tokens).softmax(-1)[:, None]).sum(-1)


def test_weights_without_scores_are_a_kind_that_attnscope_does_not_know():
    report = attnscope.trace(Deformable(), torch.rand(1, 32, 8, 8))
    (found,) = report.attentions
    assert (found.scope, found.tokens, found.keys, found.complexity, found.family) == ("predicted", 64, 4, [], None)
    words = "here: attention of a kind that attnscope does not know: weights predicted without q·kᵀ, 64 queries, 4 keys"
    assert words in render(report, "table", Screen(width=250))


class Frames(nn.Module):
    """Attention in each frame of a video, with a class token that all frames share."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(32, 96)

    def forward(self, x):
        frames = x[:, 1:].view(1, 49, 8, 32).transpose(1, 2).reshape(8, 49, 32)
        frames = torch.cat([x[:, :1].expand(8, -1, -1), frames], 1)
        return F.scaled_dot_product_attention(*self.qkv(frames).unflatten(-1, (3, 4, 8)).permute(2, 0, 3, 1, 4))


def test_frames_with_a_class_token_are_not_dilated_windows():
    (found,) = found_in(Frames(), (1, 1 + 49 * 8, 32))
    assert (found.scope, found.windows, found.window, found.tokens) == ("windowed", 8, None, 50)


def test_the_family_is_in_the_screen_and_in_json():
    own = spec("pvt", resolution=(16, 24), reduction=4)
    report = attnscope.trace(attentions.build(own), torch.rand(own.input_shape))
    line = "the same as attnscope pvt --resolution 16x24 --reduction 4: keys of 4×4 patches"
    assert line in render(report, "table", Screen(width=250))
    assert report.to_dict()["attentions"][0]["family"] == {
        "name": "pvt",
        "command": "attnscope pvt --resolution 16x24 --reduction 4",
        "words": "keys of 4×4 patches",
    }


def test_equal_layers_of_torch_are_one_entry_with_the_formula_of_their_family():
    """The operator of `nn.MultiheadAttention` has projections inside, and other layers around it."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.attention = nn.LayerNorm(64), nn.MultiheadAttention(64, 4, batch_first=True)
            self.mlp = nn.Sequential(nn.LayerNorm(64), nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64))

        def forward(self, x):
            y = self.norm(x)
            x = x + self.attention(y, y, y, need_weights=False)[0]
            return x + self.mlp(x)

    [found] = attnscope.trace(nn.Sequential(Block(), Block(), Block()), torch.rand(1, 50, 64)).attentions
    assert (found.times, found.family.name) == (3, "vit")
    [formula] = found.complexity
    assert (formula.formula, formula.macs) == ("4hwC² + 2(hw)²C", 1139200)
    assert found.module_macs == 3 * formula.macs


class Registers(nn.Module):
    """Two attentions in windows of 4×6 tokens and registers, as in MaxViT with registers."""

    def __init__(self, registers: int, grid: bool = False):
        super().__init__()
        self.registers = nn.Parameter(torch.rand(registers, 32))
        self.qkv, self.again = nn.Linear(32, 96), nn.Linear(32, 96)
        self.grid = grid

    def attention(self, x, layer):
        return F.scaled_dot_product_attention(*layer(x).unflatten(-1, (3, 4, 8)).permute(2, 0, 3, 1, 4)).transpose(1, 2)

    def forward(self, x):
        if self.grid:
            windows = x.view(1, 4, 2, 6, 3, 32).permute(0, 2, 4, 1, 3, 5).reshape(6, 24, 32)
        else:
            windows = x.view(1, 2, 4, 3, 6, 32).transpose(2, 3).reshape(6, 24, 32)
        windows = torch.cat([self.registers.expand(6, -1, -1), windows], 1)
        windows = windows + self.attention(windows, self.qkv).flatten(2)
        windows = windows + self.attention(windows, self.again).flatten(2)
        return windows[:, len(self.registers) :]


@pytest.mark.parametrize("registers", [1, 4])
@pytest.mark.parametrize("grid", [False, True])
def test_windows_with_registers_have_their_sides_and_the_number_of_registers(registers, grid):
    report = attnscope.trace(Registers(registers, grid), torch.rand(1, 8, 18, 32))
    (found,) = report.attentions
    scope, noun = ("grid", "dilated windows") if grid else ("windowed", "windows")
    assert (found.scope, found.windows, found.window, found.times) == (scope, 6, (4, 6), 2)
    assert (found.tokens, found.keys, found.heads, found.family) == (24 + registers, 24 + registers, 4, None)
    words = f"6 {noun} of 4×6 and {registers} more {'token' if registers == 1 else 'tokens'}, N = {24 + registers}"
    assert words in render(report, "table", Screen(width=250))


def test_a_letter_with_another_value_in_each_formula_has_the_name_of_its_formula():
    formulas = [
        Formula(name, "", "", 1, letters=[Letter("hw", 9, "hw = 9"), Letter("C", dim, f"C = {dim}")])
        for name, dim in (("Ω(MSA)", 192), ("Ω(MUA)", 96))
    ]
    assert formula_values(formulas) == "hw = 9, C = 192 in Ω(MSA), C = 96 in Ω(MUA)"
    assert formula_values(formulas[:1]) == "hw = 9, C = 192"


class WithMore(nn.Module):
    """Attention of torch, in a module that may do more."""

    def __init__(self, more):
        super().__init__()
        self.qkv, self.out, self.more = nn.Linear(64, 192), nn.Linear(64, 64), nn.Linear(64, 64) if more else None

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, 4, 16)).permute(2, 0, 3, 1, 4)
        x = self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x if self.more is None else self.more(x)


def test_equal_attention_in_a_module_that_does_more_is_an_entry_of_its_own():
    module = nn.Sequential(WithMore(False), WithMore(True), WithMore(False))
    alone, more = found_in(module, (2, 25, 64))
    assert (alone.times, more.times) == (2, 1)
    assert more.module_macs - alone.module_macs // 2 == 2 * 25 * 64 * 64
    assert alone.family.command == "attnscope vit --dim 64 --heads 4 --tokens 25"
    assert more.family is None
