"""Rotary position embeddings that `trace` recognizes, in the ways in which they are written."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import attnscope

TOKENS, DIM, HEADS = 16, 64, 4
CHANNELS = DIM // HEADS


class Rotated(nn.Module):
    """Attention whose queries and keys each go through `rotate`."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(DIM, 3 * DIM)
        self.proj = nn.Linear(DIM, DIM)
        frequencies = 100 ** (-torch.arange(0, CHANNELS, 2) / CHANNELS)
        self.register_buffer("angles", torch.outer(torch.arange(TOKENS).float(), frequencies))

    def rotate(self, x):
        raise NotImplementedError

    def rotate_both(self, q, k):
        return self.rotate(q), self.rotate(k)

    def attend(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v)

    def forward(self, x):
        B, N, C = x.shape
        q, k, v = self.qkv(x).reshape(B, N, 3, HEADS, CHANNELS).permute(2, 0, 3, 1, 4)
        q, k = self.rotate_both(q, k)
        return self.proj(self.attend(q, k, v).transpose(1, 2).reshape(B, N, C))

    @property
    def whole(self):
        """Return cosines and sines for all channels, those of the first half repeated."""
        return [torch.cat([part, part], -1) for part in (self.angles.cos(), self.angles.sin())]


class RotateHalf(Rotated):
    def rotate(self, x):
        cos, sin = self.whole
        first, second = x.chunk(2, -1)
        return x * cos + torch.cat([-second, first], -1) * sin


class InOneCall(RotateHalf):
    def rotate(self, x):
        cos, sin = self.whole
        first, second = x.chunk(2, -1)
        return torch.addcmul(x * cos, torch.cat([-second, first], -1), sin)


class Halves(Rotated):
    def rotate(self, x):
        (first, second), cos, sin = x.chunk(2, -1), self.angles.cos(), self.angles.sin()
        return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


class Written(RotateHalf):
    def attend(self, q, k, v):
        return (q @ k.transpose(-2, -1) / CHANNELS**0.5).softmax(-1) @ v


class PartOfTheChannels(Rotated):
    def rotate(self, x):
        rotated, rest = x.split([8, 8], -1)
        cos, sin = (torch.cat([part, part], -1) for part in (self.angles[:, :4].cos(), self.angles[:, :4].sin()))
        first, second = rotated.chunk(2, -1)
        return torch.cat([rotated * cos + torch.cat([-second, first], -1) * sin, rest], -1)


class Neighbours(Rotated):
    def rotate(self, x):
        cos, sin = (part.repeat_interleave(2, -1) for part in (self.angles.cos(), self.angles.sin()))
        return x * cos + torch.stack([-x[..., 1::2], x[..., ::2]], -1).reshape(x.shape) * sin


class WrittenInPlaces(Rotated):
    def rotate(self, x):
        cos, sin, out = self.angles.cos(), self.angles.sin(), torch.empty_like(x)
        out[..., ::2] = x[..., ::2] * cos - x[..., 1::2] * sin
        out[..., 1::2] = x[..., ::2] * sin + x[..., 1::2] * cos
        return out


class Complex(Rotated):
    def rotate(self, x):
        turns = torch.polar(torch.ones_like(self.angles), self.angles)
        return torch.view_as_real(torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2)) * turns).flatten(3)


class Learned(Neighbours):
    def __init__(self):
        super().__init__()
        angles = nn.Parameter(self.angles.clone())
        del self.angles
        self.angles = angles


class Scaled(RotateHalf):
    """Both products have a scale, as in rotary-embedding-torch and xPos."""

    def rotate(self, x):
        (cos, sin), (first, second) = self.whole, x.chunk(2, -1)
        scale = 1.1 ** (torch.arange(TOKENS)[:, None] / 8)
        return (x * cos * scale) + (torch.cat([-second, first], -1) * sin * scale)


class ByMinusOne(RotateHalf):
    """Signs are numbers: that of addcmul, and that of a factor."""

    def rotate(self, x):
        (first, second), cos, sin = x.chunk(2, -1), self.angles.cos(), self.angles.sin()
        return torch.cat([torch.addcmul(first * cos, second, sin, value=-1), second * cos + first * sin], -1)


class OfMatrices(Rotated):
    """The signs are in a table of 2×2 matrices, as in FLUX."""

    def rotate(self, x):
        cos, sin = self.angles.cos(), self.angles.sin()
        turns = torch.stack([cos, -sin, sin, cos], -1).unflatten(-1, (2, 2))
        pairs = x.unflatten(-1, (-1, 1, 2))
        return (turns[..., 0] * pairs[..., 0] + turns[..., 1] * pairs[..., 1]).flatten(-2)


class ComplexOfHalves(Rotated):
    def rotate(self, x):
        first, second = (part.contiguous() for part in x.chunk(2, -1))
        turned = torch.complex(first, second) * torch.polar(torch.ones_like(self.angles), self.angles)
        return torch.cat([turned.real, turned.imag], -1)


class OnlyPatches(Neighbours):
    """The first three tokens have no position."""

    def __init__(self):
        super().__init__()
        self.angles = self.angles[: TOKENS - 7]

    def rotate(self, x):
        return torch.cat([x[:, :, :7], super().rotate(x[:, :, 7:])], 2)


class ChannelsFirst(Halves):
    """Queries are (b, h, d, n) while they rotate."""

    def rotate(self, x):
        (first, second), cos, sin = x.mT.chunk(2, 2), self.angles.cos().mT, self.angles.sin().mT
        return torch.cat([first * cos - second * sin, second * cos + first * sin], 2).mT


class RotateHalfOfChannelsFirst(RotateHalf):
    def rotate(self, x):
        x, (cos, sin) = x.mT.contiguous(), (each.mT for each in self.whole)
        first, second = x[:, :, : CHANNELS // 2], x[:, :, CHANNELS // 2 :]
        return (x * cos + torch.cat([-second, first], -2) * sin).mT


class ChosenOften(RotateHalf):
    """Angles of positions that are an input, of which each layer keeps some, as in LightGlue."""

    def forward(self, x):
        whole = x[..., :1] * torch.arange(1.0, CHANNELS / 2 + 1)
        tables = [whole.repeat(1, 1, 2)[:, None].cos(), whole.repeat(1, 1, 2)[:, None].sin()]
        for _ in range(40):
            tables = [table[:, :, torch.arange(TOKENS)] for table in tables]
        self.tables = tables
        return super().forward(x)

    @property
    def whole(self):
        return self.tables


SHAPE = f"--dim {DIM} --heads {HEADS}"
GRID = f"attnscope vit {SHAPE} --image 4 --patch 1 --no-cls --rope"
COMMANDS = {
    RotateHalf: f"{GRID} dinov3",
    InOneCall: f"{GRID} dinov3",
    Halves: f"{GRID} dinov3",
    Written: f"{GRID} dinov3",
    PartOfTheChannels: f"{GRID} dinov3",
    Neighbours: f"{GRID} axial",
    WrittenInPlaces: f"{GRID} axial",
    Complex: f"{GRID} axial",
    Learned: f"{GRID} mixed",
    Scaled: f"{GRID} dinov3",
    ByMinusOne: f"{GRID} dinov3",
    OfMatrices: f"{GRID} axial",
    ComplexOfHalves: f"{GRID} dinov3",
    ChannelsFirst: f"{GRID} dinov3",
    RotateHalfOfChannelsFirst: f"{GRID} dinov3",
    ChosenOften: f"{GRID} dinov3",
    OnlyPatches: f"attnscope vit {SHAPE} --image 3 --patch 1 --cls --registers 6 --rope axial",
}


def found_in(module):
    (found,) = attnscope.trace(module.eval(), torch.rand(2, TOKENS, DIM)).attentions
    return found


@pytest.mark.parametrize("module", COMMANDS, ids=lambda module: module.__name__)
def test_rotated_queries_and_keys_are_named_and_have_the_command_of_their_family(module):
    found = found_in(module())
    assert found.is_rotated
    assert found.family.command == COMMANDS[module]


class OnlyQueries(RotateHalf):
    def rotate_both(self, q, k):
        return self.rotate(q), k


class Gated(Rotated):
    def rotate(self, x):
        first, second = x.chunk(2, -1)
        return x * self.whole[0] + torch.cat([first, second], -1) * self.whole[1]


class Mixed(Rotated):
    """A token is mixed with the one before."""

    def rotate(self, x):
        share = self.angles[:, :1]
        return x * share - x.roll(1, 2) * (1 - share)


class Flipped(Rotated):
    def rotate(self, x):
        return x * self.whole[0] + x.flip(-1) * self.whole[1]


class Flattened(Rotated):
    def rotate(self, x):
        return x * self.whole[0] + x.roll(1) * self.whole[1]


class OfHeads(Rotated):
    """Pairs of heads, not of channels, are summed."""

    def rotate(self, x):
        cos, sin = self.whole
        first, second = x.chunk(2, 1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], 1)


class Normalized(Rotated):
    def rotate(self, x):
        return (x - x.mean(-1, keepdim=True)) * self.whole[0] + self.whole[1]


class Weighted(Rotated):
    """A module with learned weights of each position and channel."""

    def __init__(self):
        super().__init__()
        self.weights = nn.Parameter(torch.rand(2, TOKENS, CHANNELS))


class Lifted(Weighted):
    def rotate(self, x):
        (first, second), weights = x.chunk(2, -1), self.weights[..., : CHANNELS // 2]
        return torch.cat([first * weights[0] - second * weights[1], second], -1)


class Swapped(Weighted):
    def rotate(self, x):
        return x * self.weights[0] + x.roll(CHANNELS // 2, -1) * self.weights[1]


class ComplexGate(Weighted):
    def rotate(self, x):
        gate = torch.view_as_complex(self.weights[0].unflatten(-1, (-1, 2)))
        return torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous()) * gate).flatten(3)


class Hyperbolic(Rotated):
    def rotate(self, x):
        angles, (first, second) = torch.cat([self.angles, self.angles], -1), x.chunk(2, -1)
        return x * angles.cosh() - torch.cat([second, first], -1) * angles.sinh()


class BothSubtracted(Rotated):
    def rotate(self, x):
        (first, second), cos, sin = x.chunk(2, -1), self.angles.cos(), self.angles.sin()
        return torch.cat([first * cos - second * sin, second * cos - first * sin], -1)


OTHERS = [
    OnlyQueries,
    Gated,
    Mixed,
    Flipped,
    Flattened,
    OfHeads,
    Normalized,
    Lifted,
    Swapped,
    ComplexGate,
    Hyperbolic,
    BothSubtracted,
]


@pytest.mark.parametrize("module", OTHERS, ids=lambda module: module.__name__)
def test_other_sums_of_queries_rotate_nothing(module):
    found = found_in(module())
    assert not found.is_rotated
    assert found.family.command == f"attnscope vit {SHAPE} --tokens {TOKENS}"


class AlongALine(RotateHalf):
    """A sequence, such as one of words: its tokens are on no square."""

    def __init__(self):
        super().__init__()
        self.angles = torch.cat([self.angles, self.angles[:1]])


def test_a_rotated_sequence_without_a_grid_has_a_formula_and_no_family():
    module = AlongALine().eval()
    (found,) = attnscope.trace(module, torch.rand(2, TOKENS + 1, DIM)).attentions
    assert found.is_rotated
    assert found.family is None
    assert found.complexity[-1].formula == "b(4hwC² + 2(hw)²C)"
