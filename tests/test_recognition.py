"""Recognition of attention by following tensors, in the styles in which people write it."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import attnscope
from attnscope.render import render
from attnscope.render.screen import Screen
from attnscope.tracing.flow.axes import TOKEN, Root, viewed

STYLES = []


def style(shape, *expected, others=0):
    """Add a module with its input shape, the words for each of its attentions, and its number of other softmaxes."""

    def add(module):
        STYLES.append(pytest.param(module, shape, expected, others, id=module.__name__))
        return module

    return add


class Layers(nn.Module):
    """A module with projections of 64 channels for four heads of 16."""

    def __init__(self):
        super().__init__()
        self.qkv, self.q, self.k, self.v = nn.Linear(64, 192), *[nn.Linear(64, 64) for _ in range(3)]

    def split(self, x):
        return self.qkv(x).reshape(*x.shape[:2], 3, 4, 16).permute(2, 0, 3, 1, 4)


def attend(q, k, v):
    return (q @ k.transpose(-1, -2) / 4).softmax(-1) @ v


GLOBAL = "global attention, N = 50, 4 heads of 16, score-softmax-value"


@style((1, 70, 70, 768), "25 windows of 14×14, N = 196, 12 heads of 64, fused")
class WindowsAndHeadsInOneAxis(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(768, 2304)

    def forward(self, x):
        b, h, w, c = x.shape
        x = x.view(b, h // 14, 14, w // 14, 14, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 196, c)
        q, k, v = self.qkv(x).reshape(-1, 196, 3, 12, 64).permute(2, 0, 3, 1, 4).reshape(3, -1, 196, 64).unbind(0)
        return F.scaled_dot_product_attention(q, k, v)


@style((1, 128, 16, 16), "4 windows of 8×8, 64 queries, 144 keys, 8 heads of 16, score-softmax-value")
class Halo(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.kv = nn.Conv2d(128, 128, 1), nn.Conv2d(128, 256, 1)

    def forward(self, x):
        q = self.q(x).reshape(8, 16, 2, 8, 2, 8).permute(0, 1, 3, 5, 2, 4).reshape(8, 16, -1, 4).transpose(1, 3)
        kv = F.pad(self.kv(x), (2, 2, 2, 2)).unfold(2, 12, 8).unfold(3, 12, 8).reshape(8, 32, 4, -1)
        k, v = kv.permute(0, 2, 3, 1).split(16, -1)
        return (q @ k.transpose(-1, -2)).softmax(-1) @ v


@style((1, 49, 64), "global attention, N = 49, 4 heads of 16, score-softmax-value")
class TalkingHeads(Layers):
    def __init__(self):
        super().__init__()
        self.before, self.after = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        q, k, v = self.split(x)
        return self.after(self.before(q @ k.transpose(-1, -2)).softmax(-1)) @ v


@style((2, 50, 64), GLOBAL)
class GatedPositions(Layers):
    """GPSA: the weighted sum of two softmaxes, one of which is not of scores."""

    def __init__(self):
        super().__init__()
        self.positions = nn.Linear(3, 4)
        self.register_buffer("relative", torch.rand(1, 50, 50, 3))

    def forward(self, x):
        q, k, v = self.split(x)
        positions = self.positions(self.relative).permute(0, 3, 1, 2).softmax(-1)
        return ((q @ k.transpose(-1, -2)).softmax(-1) + positions) @ v


@style((2, 50, 64), GLOBAL)
class ProjectionsOfEachHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.heads = nn.ModuleList(nn.ModuleList(nn.Linear(64, 16) for _ in range(3)) for _ in range(4))

    def forward(self, x):
        return torch.cat([attend(*[layer(x) for layer in head]) for head in self.heads], -1)


@style((2, 50, 64), GLOBAL)
class CascadedHeads(nn.Module):
    """EfficientViT: each head takes channels of its own, and the result of the head before it."""

    def __init__(self):
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(16, 48) for _ in range(4))

    def forward(self, x):
        results = []
        for head, part in zip(self.heads, x.chunk(4, -1), strict=True):
            part = part + results[-1] if results else part
            results.append(attend(*head(part).chunk(3, -1)))
        return torch.cat(results, -1)


def scaled(added, q, k, beta):
    """Return q·kᵀ/4 and an added tensor in one kernel, as in Megatron-LM and BLOOM."""
    q, k = (each.flatten(0, 1) for each in (q, k))
    return torch.baddbmm(added, q, k.transpose(1, 2), beta=beta, alpha=1 / 4).unflatten(0, (-1, 4))


@style((2, 50, 64), GLOBAL)
class ScaledIntoUnusedMemory(Layers):
    def forward(self, x):
        q, k, v = self.split(x)
        return scaled(torch.empty(8, 50, 50, device=x.device), q, k, 0).softmax(-1) @ v


@style((2, 50, 64), GLOBAL)
class ScaledAndNotAddedToAnInput(Layers):
    def forward(self, x):
        q, k, v = self.split(x)
        return scaled(x[:1, :, :1], q, k, 0).softmax(-1) @ v


@style((2, 50, 64), GLOBAL)
class ScaledAndAddedToABias(Layers):
    def __init__(self):
        super().__init__()
        self.bias, self.output = nn.Parameter(torch.rand(1, 50, 50)), nn.Linear(64, 64)

    def forward(self, x):
        q, k, v = self.split(x)
        mixed = scaled(self.bias, q, k, 1).softmax(-1) @ v
        return self.output(mixed.transpose(1, 2).flatten(2))


@style((2, 50, 64), GLOBAL)
class ScaledAndMixedByOneKernel(Layers):
    def forward(self, x):
        q, k, v = self.split(x)
        weights = scaled(q.new_empty(()), q, k, 0).softmax(-1)
        return torch.baddbmm(v.new_zeros(()), weights.flatten(0, 1), v.flatten(0, 1), alpha=2).unflatten(0, (-1, 4))


@style((2, 50, 64), "linear attention, q·(kᵀ·v), N = 50, 4 heads of 16, linear")
class LinearByScaledProducts(Layers):
    def forward(self, x):
        q, k, v = (each.relu().flatten(0, 1) for each in self.split(x))
        mixed = torch.baddbmm(q.new_empty(()), k.transpose(1, 2), v, beta=0, alpha=1 / 50)
        return torch.baddbmm(q.new_empty(()), q, mixed, beta=0, alpha=2).unflatten(0, (-1, 4))


@style((1, 196, 64), "attention over channels, 16×16 scores over N = 196, 4 heads of 16, score-softmax-value")
class CrossCovariance(Layers):
    def forward(self, x):
        q, k, v = self.qkv(x).reshape(1, 196, 3, 4, 16).permute(2, 0, 3, 4, 1)
        return (F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-1, -2)).softmax(-1) @ v


@style((2, 64, 8, 8), "attention over channels, 64×64 scores over N = 64, 1 head of 64, score-softmax-value")
class ChannelsOfAnInput(nn.Module):
    def forward(self, x):
        x = x.flatten(2)
        return (x @ x.transpose(1, 2)).softmax(-1) @ x


@style((1, 32, 32, 64), "16 dilated windows of 8×8, N = 64, 4 heads of 16, fused")
class Grid(Layers):
    def forward(self, x):
        x = x.view(1, 8, 4, 8, 4, 64).permute(0, 2, 4, 1, 3, 5).reshape(16, 64, 64)
        return F.scaled_dot_product_attention(*self.split(x))


@style((1, 64, 32, 32), "16 dilated windows of 8×8, N = 64, 4 heads of 16, score-softmax-value")
class GridOfChannelsFirst(Layers):
    def forward(self, x):
        x = x.view(1, 64, 8, 4, 8, 4).permute(0, 3, 5, 2, 4, 1).reshape(16, 64, 64)
        return attend(*self.qkv(x).unflatten(-1, (3, 4, 16)).permute(2, 0, 3, 1, 4))


@style((1, 196, 64), "linear attention, q·(kᵀ·v), N = 196, 4 heads of 16, linear")
class ReluLinear(Layers):
    def forward(self, x):
        q, k, v = self.split(x)
        return q.relu() @ (k.relu().transpose(-1, -2) @ v)


@style((2, 50, 64), "linear attention, q·(kᵀ·v), N = 50, 4 heads of 16, linear")
class EfficientAttention(Layers):
    def forward(self, x):
        q, k, v = self.split(x)
        return q.softmax(-1) @ (k.softmax(-2).transpose(-1, -2) @ v)


@style((2, 50, 64), "linear attention, q·(kᵀ·v), N = 50, 4 heads of 32, linear")
class Performer(Layers):
    def __init__(self):
        super().__init__()
        self.register_buffer("features", torch.rand(16, 32))

    def forward(self, x):
        q, k, v = self.split(x)
        q, k = ((each @ self.features).exp() for each in (q, k))
        return (q @ (k.transpose(-1, -2) @ v)) / (q * k.sum(2, keepdim=True)).sum(-1, keepdim=True)


@style((2, 50, 64), GLOBAL)
class WrittenOut(Layers):
    def forward(self, x):
        q, k, v = self.split(x)
        scores = q @ k.transpose(-1, -2) / 4
        weights = torch.exp(scores - scores.amax(-1, keepdim=True))
        return weights / weights.sum(-1, keepdim=True) @ v


@style((2, 50, 64), GLOBAL)
class LogSumExp(Layers):
    def forward(self, x):
        q, k, v = self.split(x)
        scores = q @ k.transpose(-1, -2)
        return (scores - scores.logsumexp(-1, keepdim=True)).exp() @ v


@style((1, 100, 64), "global attention, N = 100, 4 heads of 16, score-softmax-value")
class QuerySlices(Layers):
    def forward(self, x):
        q, k, v = self.split(x)
        return torch.cat([attend(each, k, v) for each in q.chunk(4, 2)], 2)


@style((2, 64, 64), "global attention, N = 64, 4 heads of 16, score-softmax-value")
class KeyBlocks(Layers):
    """The softmax of FlashAttention, block by block."""

    def forward(self, x):
        q, k, v = self.split(x)
        out, total, most = 0, 0, torch.full((2, 4, 64, 1), -1e30)
        for keys, values in zip(k.split(16, 2), v.split(16, 2), strict=True):
            scores = q @ keys.transpose(-1, -2)
            now = torch.maximum(most, scores.amax(-1, keepdim=True))
            weights, shrink = (scores - now).exp(), (most - now).exp()
            out, total, most = out * shrink + weights @ values, total * shrink + weights.sum(-1, keepdim=True), now
        return out / total


@style((2, 50, 64), GLOBAL)
class HeadSlices(Layers):
    def forward(self, x):
        heads = zip(*(each(x).split(16, -1) for each in (self.q, self.k, self.v)), strict=True)
        return torch.cat([attend(*head) for head in heads], -1)


@style((2, 50, 64), GLOBAL)
class UnevenSlices(Layers):
    def forward(self, x):
        q, k, v = self.split(x)
        return torch.cat([attend(some, k, v) for some in q.split(16, 2)], 2)


@style((2, 64, 64), "4 dilated windows of 16 tokens, N = 16, 4 heads of 16, score-softmax-value")
class StridedSlices(Layers):
    def forward(self, x):
        return torch.stack([attend(*self.split(x[:, start::4])) for start in range(4)])


@style((2, 50, 64), GLOBAL)
class HeadLoop(Layers):
    def forward(self, x):
        q, k, v = self.split(x)
        return torch.stack([attend(q[:, head], k[:, head], v[:, head]) for head in range(4)], 1)


@style((3, 50, 64), GLOBAL)
class ImageLoop(Layers):
    def forward(self, x):
        return torch.stack([attend(*image) for image in zip(*self.split(x), strict=True)])


@style((2, 8, 8, 64), "4 windows of 4×4, N = 16, 4 heads of 16, score-softmax-value")
class WindowLoop(Layers):
    def forward(self, x):
        windows = [window for rows in x.chunk(2, 1) for window in rows.chunk(2, 2)]
        return torch.stack([attend(*self.split(window.reshape(2, 16, 64))) for window in windows])


@style((1, 65, 64), "global attention, N = 65, 4 heads of 16, score-softmax-value")
class ReAttention(Layers):
    def __init__(self):
        super().__init__()
        self.mixing = nn.Parameter(torch.rand(4, 4))

    def forward(self, x):
        q, k, v = self.split(x)
        weights = torch.einsum("b h i d, b h j d -> b h i j", q, k).softmax(-1)
        weights = torch.einsum("b h i j, h g -> b g i j", weights, self.mixing)
        return torch.einsum("b h i j, b h j d -> b h i d", weights, v)


@style(
    (2, 64, 12, 16),
    "12 windows of 1×16, N = 16, 4 heads of 16, score-softmax-value",
    "16 windows of 12×1, N = 12, 4 heads of 16, score-softmax-value",
)
class Axial(Layers):
    def forward(self, x):
        rows = attend(*self.split(x.permute(0, 2, 3, 1).reshape(-1, 16, 64)))
        rows = rows.transpose(1, 2).reshape(2, 12, 16, 64)
        return attend(*self.split(rows.permute(0, 2, 1, 3).reshape(-1, 12, 64)))


@style((2, 192, 64), "8 windows of 12×2, N = 24, 4 heads of 16, score-softmax-value")
class Stripes(Layers):
    def forward(self, x):
        parts = [each(x).view(2, 12, 8, 2, 4, 16).permute(0, 2, 4, 1, 3, 5) for each in (self.q, self.k, self.v)]
        return attend(*[part.reshape(16, 4, 24, 16) for part in parts])


@style((1, 4, 8, 8, 64), "8 windows of 2×4×4, N = 32, 4 heads of 16, score-softmax-value")
class Video(Layers):
    def forward(self, x):
        x = x.view(1, 2, 2, 2, 4, 2, 4, 64).permute(0, 1, 3, 5, 2, 4, 6, 7)
        return attend(*self.split(x.reshape(-1, 32, 64)))


@style((2, 64, 8, 8), "each token's own neighbourhood, 64 queries, 9 keys, 4 heads of 16, score-softmax-value")
class Neighbourhood(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k = nn.Conv2d(64, 64, 1), nn.Conv2d(64, 64, 1)

    def forward(self, x):
        q, k = self.q(x).view(2, 4, 16, 1, 64), F.unfold(self.k(x), 3, padding=1).view(2, 4, 16, 9, 64)
        return ((q * k).sum(2, keepdim=True).softmax(3) * k).sum(3)


@style((2, 50, 64), "keys made from the same tokens, 50 queries, 10 keys, 4 heads of 16, score-softmax-value")
class Linformer(Layers):
    def __init__(self):
        super().__init__()
        self.pool = nn.Parameter(torch.rand(50, 10))

    def forward(self, x):
        q, k, v = self.split(x)
        return attend(q, *[torch.einsum("bhnd,nk->bhkd", each, self.pool) for each in (k, v)])


@style((2, 50, 64), GLOBAL)
class OneKeyHead(Layers):
    def forward(self, x):
        q, k = self.q(x).view(2, 50, 4, 16), self.k(x)[..., :16]
        return torch.einsum("bhij,bjd->bihd", torch.einsum("bihd,bjd->bhij", q, k).softmax(-1), k)


@style((2, 50, 64), GLOBAL)
class Sink(Layers):
    def __init__(self):
        super().__init__()
        self.sink = nn.Parameter(torch.rand(4, 1, 1))

    def forward(self, x):
        q, k, v = self.split(x)
        scores = torch.cat([q @ k.transpose(-1, -2), self.sink.expand(2, 4, 50, 1)], -1)
        return scores.softmax(-1)[..., :-1] @ v


@style((2, 50, 64), GLOBAL)
class KeysFirst(Layers):
    def forward(self, x):
        q, k, v = self.split(x)
        return (k @ q.transpose(-1, -2)).softmax(-2).transpose(-1, -2) @ v


@style((2, 50, 64), "all keys, 1 query, 50 keys, 4 heads of 16, score-softmax-value")
class LearnedQuery(Layers):
    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.rand(1, 1, 64))

    def forward(self, x):
        q = self.q(self.token).expand(2, -1, -1).view(2, 1, 4, 16).transpose(1, 2)
        _, k, v = self.split(x)
        return attend(q, k, v)


@style((2, 50, 64), "global attention, N = 50, 4 heads of 16, score-value")
class Sigmoid(Layers):
    def forward(self, x):
        q, k, v = self.split(x)
        return (q @ k.transpose(-1, -2)).sigmoid() @ v


@style((2, 10, 64), others=1)
class Experts(Layers):
    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(64, 3)

    def forward(self, x):
        branches = torch.stack([each(x) for each in (self.q, self.k, self.v)], -1)
        return (branches * self.gate(x).softmax(-1).unsqueeze(-2)).sum(-1)


@style((2, 48, 64), "global attention, N = 48, 4 heads of 16, score-softmax-value")
class QuerySlicesOfKeyBlocks(Layers):
    """A loop over queries, and inside of it a loop over keys with a running softmax."""

    def forward(self, x):
        q, k, v = self.split(x)
        return torch.cat([self.attend(part, k, v) for part in q.split(16, 2)], 2)

    def attend(self, q, k, v):
        largest, total = torch.full_like(q[..., :1], -1e9), torch.zeros_like(q[..., :1])
        result = torch.zeros_like(q)
        for keys, values in zip(k.split(12, 2), v.split(12, 2), strict=True):
            scores = q @ keys.transpose(-1, -2) / 4
            now = torch.maximum(largest, scores.amax(-1, keepdim=True))
            weights, old = (scores - now).exp(), (largest - now).exp()
            total, result = total * old + weights.sum(-1, keepdim=True), result * old + weights @ values
            largest = now
        return result / total


@style((2, 50, 64), "global attention, N = 50, 4 heads of 16, score-softmax-value")
class ScoresOfKeyBlocks(Layers):
    def forward(self, x):
        q, k, v = self.split(x)
        return torch.cat([q @ part.transpose(-1, -2) for part in k.split(20, 2)], -1).softmax(-1) @ v


@style((2, 50, 64), "keys made from the same tokens, 50 queries, 59 keys, 4 heads of 16, score-softmax-value")
class ScoresOfLearnedKeys(Layers):
    def __init__(self):
        super().__init__()
        self.keys, self.values = nn.Parameter(torch.rand(4, 9, 16)), nn.Parameter(torch.rand(2, 4, 9, 16))

    def forward(self, x):
        q, k, v = self.split(x)
        scores = [q @ k.transpose(-1, -2), q @ self.keys.transpose(-1, -2)]
        return torch.cat(scores, -1).softmax(-1) @ torch.cat([v, self.values], 2)


@style((2, 50, 64), GLOBAL)
class PositionsOfTransformerXL(Layers):
    def __init__(self):
        super().__init__()
        self.positions, self.content, self.place = (nn.Parameter(torch.rand(size)) for size in ((99, 64), 64, 64))

    def forward(self, x):
        q, k, v = self.split(x)
        r = self.k(self.positions).view(99, 4, 16).permute(1, 2, 0)
        content, place = (bias.view(4, 1, 16) for bias in (self.content, self.place))
        shifted = F.pad((q + place) @ r, (1, 0)).view(2, 4, 100, 50)[:, :, 1:].view(2, 4, 50, 99)[..., :50]
        return ((q + content) @ k.transpose(-1, -2) + shifted).softmax(-1) @ v


@style((2, 50, 64), GLOBAL)
class Differential(Layers):
    def forward(self, x):
        q, k, v = self.split(x)
        other_q, other_k = (layer(x).view(2, 50, 4, 16).transpose(1, 2) for layer in (self.q, self.k))
        other = (other_q @ other_k.transpose(-1, -2)).softmax(-1)
        return ((q @ k.transpose(-1, -2)).softmax(-1) - 0.5 * other) @ v


@style((2, 50, 64), "all keys, 7 queries, 50 keys, 1 head of 64, score-softmax-value")
class Slots(Layers):
    """The slots compete for a token, and the weights of a slot are then divided by their sum."""

    def __init__(self):
        super().__init__()
        self.slots = nn.Parameter(torch.rand(1, 7, 64))

    def forward(self, x):
        scores = torch.einsum("bid,bjd->bij", self.q(self.slots.expand(2, -1, -1)), self.k(x))
        weights = scores.softmax(1) + 1e-8
        return (weights / weights.sum(-1, keepdim=True)) @ self.v(x)


@style((2, 50, 64), GLOBAL)
class HeadsBesideImages(Layers):
    def forward(self, x):
        q, k, v = (torch.cat(layer(x).split(16, -1)) for layer in (self.q, self.k, self.v))
        return torch.cat(attend(q, k, v).chunk(4), -1)


@style((2, 50, 64), GLOBAL)
class HeadsStacked(Layers):
    def forward(self, x):
        q, k, v = (torch.stack(layer(x).split(16, -1)) for layer in (self.q, self.k, self.v))
        return torch.cat(attend(q, k, v).unbind(), -1)


@style((2, 50, 64), "keys with the highest scores, 50 queries, 8 keys, 4 heads of 16, score-softmax-value")
class TopKeys(Layers):
    def forward(self, x):
        q, k, v = self.split(x)
        scores, at = (q @ k.transpose(-1, -2)).topk(8)
        values = v.unsqueeze(2).expand(2, 4, 50, 50, 16).gather(3, at.unsqueeze(-1).expand(2, 4, 50, 8, 16))
        return (scores.softmax(-1).unsqueeze(-2) @ values).squeeze(-2)


@style(
    (2, 48, 64),
    "keys made from the same tokens, 6 queries, 48 keys, 4 heads of 16, score-softmax-value",
    "keys made from the same tokens, 48 queries, 6 keys, 4 heads of 16, score-softmax-value",
)
class Nystrom(Layers):
    def forward(self, x):
        q, k, v = self.split(x)
        few_q, few_k = (each.reshape(2, 4, 6, 8, 16).mean(3) for each in (q, k))
        left, middle, right = (
            (a @ b.transpose(-1, -2)).softmax(-1) for a, b in ((q, few_k), (few_q, few_k), (few_q, k))
        )
        inverse = middle.transpose(-1, -2) / middle.sum(-2).max()
        for _ in range(2):
            product = middle @ inverse
            inverse = 0.25 * inverse @ (13 * torch.eye(6, device=x.device) - product @ product)
        return (left @ inverse) @ (right @ v)


@style((2, 50, 64), "causal linear attention, q·(cumulative sum of kᵀ·v), N = 50, 4 heads of 16, linear")
class CausalLinear(Layers):
    def forward(self, x):
        q, k, v = (F.elu(each) + 1 for each in self.split(x))
        states = torch.einsum("bhnd,bhne->bhnde", k, v).cumsum(2)
        norm = torch.einsum("bhnd,bhnd->bhn", q, k.cumsum(2))
        return torch.einsum("bhnd,bhnde->bhne", q, states) / norm.unsqueeze(-1)


@style((2, 64, 8, 10), "linear attention, q·(kᵀ·v), N = 80, 1 head of 32, linear")
class ValuesFirst(nn.Module):
    """Double attention, whose values have more channels than its queries and keys (Chen et al. 2018)."""

    def __init__(self):
        super().__init__()
        self.v, self.k, self.q = nn.Conv2d(64, 48, 1), nn.Conv2d(64, 32, 1), nn.Conv2d(64, 32, 1)

    def forward(self, x):
        v, k, q = (layer(x).flatten(2) for layer in (self.v, self.k, self.q))
        return (v @ k.softmax(-1).transpose(-1, -2)) @ q.softmax(1)


@style(
    (2, 50, 64),
    "attention of a kind that attnscope does not know: weights predicted without q·kᵀ, N = 50, 64 heads of 1, predicted",
)
class AttentionFree(Layers):
    """Exponentials of the keys are the weights of the values, beside a table of tokens × tokens (Zhai et al. 2021)."""

    def __init__(self):
        super().__init__()
        self.positions = nn.Parameter(torch.rand(50, 50))

    def forward(self, x):
        q, k, v = self.q(x), self.k(x), self.v(x)
        table = self.positions.exp()
        return q.sigmoid() * (table @ (k.exp() * v)) / (table @ k.exp())


@style((2, 50, 64), "separable attention, one score for each token, N = 50, 64 heads of 1, separable")
class AttentionFreeSimple(Layers):
    def forward(self, x):
        q, k, v = self.q(x), self.k(x), self.v(x)
        return q.sigmoid() * ((k.exp() * v).sum(1, keepdim=True) / k.exp().sum(1, keepdim=True))


@style((2, 64, 8, 10), "cross of stripes, 80 queries, 18 keys, 1 head of 16, score-softmax-value")
class CrissCross(nn.Module):
    """One softmax over the column and the row of a query."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = nn.Conv2d(64, 16, 1), nn.Conv2d(64, 16, 1), nn.Conv2d(64, 64, 1)

    def forward(self, x):
        q, k, v = self.q(x), self.k(x), self.v(x)
        column = torch.einsum("bchw,bcgw->bhwg", q, k)
        row = torch.einsum("bchw,bchg->bhwg", q, k)
        weights = torch.cat([column, row], -1).softmax(-1)
        down, across = weights[..., :8], weights[..., 8:]
        return torch.einsum("bhwg,bcgw->bchw", down, v) + torch.einsum("bhwg,bchg->bchw", across, v)


@style((50, 64), GLOBAL)
class Unbatched(Layers):
    """Tokens without a batch axis, in the style of lessons."""

    def forward(self, x):
        q, k, v = (layer(x).view(50, 4, 16).transpose(0, 1) for layer in (self.q, self.k, self.v))
        return attend(q, k, v).transpose(0, 1).flatten(1)


@style((2, 50, 64), "all keys, 50 queries, 50 keys, 4 heads of 16, score-softmax-value")
class AsManyLatents(Layers):
    """As many learned queries as there are tokens."""

    def __init__(self):
        super().__init__()
        self.latents = nn.Parameter(torch.rand(50, 64))

    def forward(self, x):
        _, k, v = self.split(x)
        return attend(self.q(self.latents.expand(2, -1, -1)).view(2, 50, 4, 16).transpose(1, 2), k, v)


@style((2, 50, 64), GLOBAL)
class CosineSimilarity(Layers):
    """Queries and keys are expanded to one shape before they are multiplied."""

    def forward(self, x):
        q, k, v = self.split(x)
        return (10 * F.cosine_similarity(q.unsqueeze(3), k.unsqueeze(2), dim=-1)).softmax(-1) @ v


AROUND = "each token's own neighbourhood, 50 queries, 7 keys, 4 heads of 16, score-softmax-value"


class Shifts(Layers):
    """Keys and values are gathered around each token by `around`: (b, h, n, d) -> (b, h, n, 7, d)."""

    def forward(self, x):
        q, k, v = self.split(x)
        return attend(q.unsqueeze(3), self.around(k), self.around(v)).squeeze(3)


@style((2, 50, 64), AROUND)
class Rolled(Shifts):
    def around(self, tokens):
        return torch.stack([tokens.roll(shift, 2) for shift in range(-3, 4)], 3)


@style((2, 50, 64), AROUND)
class RolledAndKept(Shifts):
    def around(self, tokens):
        shifts = [tokens.transpose(1, 2).transpose(1, 2).roll(shift, 2) for shift in range(1, 4)]
        return torch.stack([*shifts, tokens, *[tokens.roll(-shift, -2) for shift in range(1, 4)]], 3)


ALONE = "50 windows of 1 token, 1 query, 7 keys, 4 heads of 16, score-softmax-value"


@style((2, 50, 64), ALONE)
class RolledChannels(Shifts):
    def around(self, tokens):
        return torch.stack([tokens.roll(shift, 3) for shift in range(7)], 3)


@style((2, 50, 64), ALONE)
class RolledHeads(Shifts):
    def around(self, tokens):
        return torch.stack([tokens.roll(shift, 1) for shift in range(7)], 3)


@style((2, 50, 64), ALONE)
class RolledAlike(Shifts):
    def around(self, tokens):
        return torch.stack([tokens.roll(1, 2)] * 7, 3)


@style((2, 50, 64), AROUND)
class SlicesOfPadded(Shifts):
    def around(self, tokens):
        padded = F.pad(tokens, (0, 0, 3, 3))
        return torch.stack([padded[:, :, start : start + 50] for start in range(7)], 3)


@style((2, 50, 64), AROUND)
class SlicesOfPaddedJoined(Shifts):
    def around(self, tokens):
        padded = F.pad(tokens, (0, 0, 3, 3)).unsqueeze(3)
        return torch.cat([padded[:, :, start : start + 50] for start in range(7)], 3)


@style((2, 50, 64), AROUND)
class Strided(Shifts):
    def around(self, tokens):
        padded = F.pad(tokens, (0, 0, 3, 3)).contiguous()
        image, head, token, channel = padded.stride()
        return padded.as_strided((2, 4, 50, 7, 16), (image, head, token, token, channel))


@style((2, 50, 64), GLOBAL)
class StridedExpansion(Layers):
    """Keys are repeated for all queries by a stride of 0."""

    def forward(self, x):
        q, k, v = self.split(x)
        k = k.contiguous().as_strided((2, 4, 50, 50, 16), (3200, 800, 0, 16, 1))
        return (q.unsqueeze(3) * k).sum(-1).softmax(-1) @ v


@style((2, 50, 64), "5 windows of 10 tokens, N = 10, 4 heads of 16, score-softmax-value")
class StridedWindows(Layers):
    """Windows that do not overlap, by `as_strided`."""

    def forward(self, x):
        q, k, v = (
            each.contiguous().as_strided((2, 4, 5, 10, 16), (3200, 800, 160, 16, 1)).contiguous()
            for each in self.split(x)
        )
        return attend(q, k, v)


@style((2, 16, 12, 64), "each token's own neighbourhood, 192 queries, 9 keys, 4 heads of 16, score-softmax-value")
class SlicesOfPlane(Layers):
    def forward(self, x):
        q, k, v = (layer(x).unflatten(-1, (4, 16)) for layer in (self.q, self.k, self.v))
        k, v = (
            torch.stack([each[:, y : y + 16, x : x + 12] for y in range(3) for x in range(3)], 4)
            for each in (F.pad(each, (0, 0, 0, 0, 1, 1, 1, 1)) for each in (k, v))
        )
        weights = (q.unsqueeze(4) * k).sum(-1).softmax(-1)
        return (weights.unsqueeze(-1) * v).sum(4)


@style((2, 64), others=1)
class Classes(Layers):
    def forward(self, x):
        return self.q(x).softmax(-1)


@style((2, 50, 64), "global attention, N = 50, 8 heads of 16, score-value")
class HeadsShareQueriesAndKeys(nn.Module):
    """The products of a state-space model: each group of four heads has one query and one key."""

    def __init__(self):
        super().__init__()
        self.v, self.q, self.k = nn.Linear(64, 128), nn.Linear(64, 32), nn.Linear(64, 32)

    def forward(self, x):
        v = self.v(x).unflatten(-1, (8, 16))
        q, k = (layer(x).unflatten(-1, (2, 16)).repeat_interleave(4, dim=2) for layer in (self.q, self.k))
        return torch.einsum("blsh,bshp->blhp", torch.einsum("blhn,bshn->blsh", q, k), v)


class MixesTokens(Layers):
    """Queries, keys and values of tokens that a weight made from all tokens."""

    def __init__(self, tokens=48, made=48):
        super().__init__()
        self.mix, self.learned = nn.Linear(tokens, made), nn.Parameter(torch.randn(1, 48, 64))

    def mixed(self, x):
        return self.mix(x.transpose(1, 2)).transpose(1, 2)

    def forward(self, x):
        x = attend(*self.split(self.mixed(x)))
        return self.v(x.transpose(1, 2).flatten(2))


OF_MIXED = "global attention, N = 48, 4 heads of 16, score-softmax-value"
style((1, 48, 64), OF_MIXED)(MixesTokens)


@style((2, 48, 64), OF_MIXED)
class MixesTokensTwice(MixesTokens):
    def mixed(self, x):
        return super().mixed(super().mixed(x).relu())


@style((1, 49, 64), "global attention, N = 48, 4 heads of 16, score-softmax-value")
class MixesPatches(MixesTokens):
    """The class token stays apart."""

    def mixed(self, x):
        return super().mixed(x[:, 1:])


@style((2, 48, 64), "keys made from the same tokens, 12 queries, 48 keys, 4 heads of 16, score-softmax-value")
class MixesQueries(MixesTokens):
    def __init__(self):
        super().__init__(made=12)

    def forward(self, x):
        (q, _, _), (_, k, v) = self.split(self.mixed(x)), self.split(x)
        return attend(q, k, v)


@style((2, 48, 64), "keys made from the same tokens, 48 queries, 12 keys, 4 heads of 16, score-softmax-value")
class MixesKeys(MixesTokens):
    def __init__(self):
        super().__init__(made=12)

    def forward(self, x):
        (q, _, _), (_, k, v) = self.split(x), self.split(self.mixed(x))
        return attend(q, k, v)


@style((1, 48, 64), "global attention, N = 48, 1 head of 64, score-softmax-value")
class MixesTokensOfOneHead(MixesTokens):
    def forward(self, x):
        return attend(*self.qkv(self.mixed(x)).chunk(3, -1))


@style((2, 30, 64), "all keys, 12 queries, 30 keys, 4 heads of 16, score-softmax-value")
class MixesLearnedTokens(MixesTokens):
    """A mixer makes group tokens of learned ones, not heads (Xu et al. 2022)."""

    def __init__(self):
        super().__init__(made=12)

    def forward(self, x):
        (q, _, _), (_, k, v) = self.split(self.mixed(self.learned.expand(len(x), -1, -1))), self.split(x)
        return attend(q, k, v)


@style((2, 30, 64), "all keys, 12 queries, 30 keys, 1 head of 64, score-softmax-value")
class MixesJoinedTokens(MixesLearnedTokens):
    """Learned tokens are joined with those of the input, and projected, before they are mixed."""

    def forward(self, x):
        joined = self.q(torch.cat([self.learned.expand(len(x), -1, -1), x], 1))
        learned, x = joined.split([48, 30], 1)
        return attend(self.k(self.mixed(learned)), self.k(x), self.v(x))


@style((2, 30, 64), "all keys, 12 queries, 24 keys, 1 head of 64, score-softmax-value")
class MixesLearnedTokensTwice(MixesLearnedTokens):
    """Queries and keys are two mixtures of the same learned tokens, and not one sequence."""

    def __init__(self):
        super().__init__()
        self.keys = nn.Linear(48, 24)

    def forward(self, x):
        learned = self.q(self.learned.expand(len(x), -1, -1)) + x.mean()
        keys = self.keys(learned.transpose(1, 2)).transpose(1, 2)
        return attend(self.k(self.mixed(learned)), self.k(keys), self.v(keys))


@style((2, 48, 64), "global attention, N = 12, 4 heads of 16, score-softmax-value")
class MixesTokensByConvolution(MixesTokens):
    def __init__(self):
        super().__init__()
        self.mix = nn.Conv1d(48, 12, 1)

    def mixed(self, x):
        return self.mix(x)


OF_NO_KIND = (
    "attention of a kind that attnscope does not know: weights predicted without q·kᵀ, N = 50, 4 heads of 16, predicted"
)


def fused_both_ways(self, x, context):
    """Return the tokens of two sequences that attend to each other, with the transpose of the same scores."""
    (q, _, v), (k, w, _) = self.split(x), self.split(context)
    scores = q @ k.transpose(-1, -2) / 4
    scores = scores - scores.max()
    return scores.softmax(-1) @ w, scores.transpose(-1, -2).softmax(-1) @ v


@style(
    (1, 70, 64),
    "all keys, 50 queries, 20 keys, 4 heads of 16, score-softmax-value",
    "all keys, 20 queries, 50 keys, 4 heads of 16, score-softmax-value",
)
class BothWays(Layers):
    """Fusion of images and text (Liu et al., arXiv 2303.05499)."""

    def forward(self, x):
        return torch.cat(fused_both_ways(self, *x.split([50, 20], 1)), 2)


@style((2, 50, 64), GLOBAL, "global attention, N = 50, 4 heads of 16, score-softmax-value")
class ReusesScores(Layers):
    """A later layer normalizes the scores of an earlier one again."""

    def forward(self, x):
        q, k, v = self.split(x)
        scores = q @ k.transpose(-1, -2) / 4
        x = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        v = self.v(x).unflatten(-1, (4, 16)).transpose(1, 2)
        return (scores * 2).softmax(-1) @ v


@style((2, 50, 64), GLOBAL, OF_NO_KIND)
class PredictsBesideScores(Layers):
    """The weights of the second sum do not come from the scores."""

    def __init__(self):
        super().__init__()
        self.weights = nn.Linear(64, 200)

    def forward(self, x):
        x = attend(*self.split(x)).transpose(1, 2).flatten(2)
        weights = self.weights(x).unflatten(-1, (4, 50)).transpose(1, 2).softmax(-1)
        return weights @ self.v(x).unflatten(-1, (4, 16)).transpose(1, 2)


def words(report):
    """Return the words for each attention without its path."""
    lines = [line for line in render(report, "table", Screen(width=250)).splitlines() if " here: " in line]
    return [line.partition(" here: ")[2].strip() for line in lines]


@pytest.mark.parametrize(("module", "shape", "expected", "others"), STYLES)
@pytest.mark.parametrize("device", [None, "cpu"])
def test_each_style_is_recognized(module, shape, expected, others, device):
    report = attnscope.trace(module(), torch.rand(shape), device=device)
    assert words(report) == list(expected)
    assert len(report.other_softmaxes) == others
    assert not any(found.mistakes for found in report.attentions)


def test_tokens_of_learned_queries_are_not_heads_of_the_attention_after_them():
    class Merger(Layers):
        """The patch merger of Renggli et al. 2022."""

        def __init__(self):
            super().__init__()
            self.queries = nn.Parameter(torch.randn(8, 64))

        def forward(self, x):
            x = self.v(x)
            return attend(*self.split((self.queries @ x.transpose(-1, -2)).softmax(-1) @ x))

    found = attnscope.trace(Merger(), torch.rand(2, 50, 64)).attentions[-1]
    assert (found.tokens, found.keys, found.heads, found.head_dim, found.mistakes) == (8, 8, 4, 16, [])


def test_heads_of_keys_that_are_given_are_those_of_the_queries():
    class Cached(Layers):
        def forward(self, x, keys, values):
            q, k, v = self.split(x)
            return attend(q, torch.cat([keys, k], 2), torch.cat([values, v], 2))

    report = attnscope.trace(Cached(), torch.rand(2, 1, 64), *[torch.rand(2, 4, 40, 16) for _ in range(2)])
    assert words(report) == ["all keys, 1 query, 41 keys, 4 heads of 16, score-softmax-value"]


def test_tokens_without_a_batch_axis_are_those_of_one_image():
    class Unbatched(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(64, 4)

        def forward(self, x):
            return self.attention(x, x, x, need_weights=False)[0]

    [found] = attnscope.trace(Unbatched(), torch.rand(50, 64)).attentions
    assert (found.scope, found.tokens, found.heads, found.mistakes) == ("global", 50, 4, [])
    assert [term.macs for term in found.complexity] == [4 * 50 * 64**2 + 2 * 50**2 * 64]


class Packed(Layers):
    """Patches of all images in one sequence, which are cut before the forward (MoonViT)."""

    def __init__(self, kernel):
        super().__init__()
        self.embed = nn.Conv2d(3, 64, kernel)

    def forward(self, patches):
        x = self.embed(patches[None].flatten(0, 1)).mean((2, 3))
        return attend(*self.split(x[None]))


def test_packed_patches_are_tokens_and_not_images():
    [found] = attnscope.trace(Packed(14), torch.rand(50, 3, 14, 14)).attentions
    assert (found.scope, found.tokens, found.heads, found.mistakes) == ("global", 50, 4, [])
    assert found.core_macs == 2 * 50**2 * 64


def test_images_of_more_than_a_patch_that_attend_to_each_other_are_a_mistake():
    [found] = attnscope.trace(Packed(7), torch.rand(50, 3, 14, 14)).attentions
    assert found.mistakes == ["q·kᵀ is over the batch axis: images attend to each other"]


@pytest.mark.parametrize("heads_apart", [True, False])
def test_keys_of_another_input_are_other_keys_if_they_are_as_many(heads_apart):
    class Cross(Layers):
        def forward(self, x, others):
            q, k, v = self.q(x), self.k(others), self.v(others)
            if heads_apart:
                q, k, v = (each.view(2, 50, 4, 16).transpose(1, 2) for each in (q, k, v))
            return F.scaled_dot_product_attention(q, k, v)

    report = attnscope.trace(Cross(), torch.rand(2, 50, 64), torch.rand(2, 50, 64))
    heads = "4 heads of 16" if heads_apart else "1 head of 64"
    assert words(report) == [f"all keys, 50 queries, 50 keys, {heads}, fused"]
    [found] = report.attentions
    assert found.scope == "cross"
    assert [(term.name, term.macs) for term in found.complexity] == [
        ("Ω(cross)", 2 * (3 * 50 * 64**2 + 2 * 50**2 * 64))
    ]


def test_keys_that_are_joined_with_those_of_another_input_are_not_made_from_the_queries():
    class Joined(Layers):
        def forward(self, x, others):
            both = torch.cat([others, x], 1)
            return attend(self.q(x), self.k(both), self.v(both))

    report = attnscope.trace(Joined(), torch.rand(2, 50, 64), torch.rand(2, 20, 64))
    assert words(report) == ["all keys, 50 queries, 70 keys, 1 head of 64, score-softmax-value"]


def test_keys_of_another_part_of_the_sequence_are_other_keys():
    class Halves(Layers):
        def forward(self, x):
            one, other = x.chunk(2, 1)
            return attend(self.q(one), self.k(other), self.v(other))

    report = attnscope.trace(Halves(), torch.rand(2, 50, 64))
    assert words(report) == ["all keys, 25 queries, 25 keys, 1 head of 64, score-softmax-value"]


def test_projections_after_a_residual_connection_are_not_of_the_attention():
    class Twice(Layers):
        def forward(self, x):
            x = x + attend(self.q(x), self.k(x), self.v(x))
            return x + attend(self.q(x), self.k(x), self.v(x))

    found = attnscope.trace(Twice(), torch.rand(2, 50, 64)).attentions
    assert [[term.macs for term in each.complexity] for each in found] == [[2 * (3 * 50 * 64**2 + 2 * 50**2 * 64)]]


def test_a_learned_term_that_is_added_to_a_product_of_data_does_not_make_a_projection_of_it():
    class Gated(Layers):
        def __init__(self):
            super().__init__()
            self.bias, self.gate = nn.Parameter(torch.rand(16)), nn.Linear(64, 256)

        def forward(self, x):
            gate = self.gate(x.mean(1)).view(-1, 1, 16, 16).expand(-1, 4, 16, 16)
            return torch.baddbmm(self.bias, attend(*self.split(x)).flatten(0, 1), gate.flatten(0, 1))

    (found,) = attnscope.trace(Gated(), torch.rand(2, 50, 64)).attentions
    assert [each.formula for each in found.complexity] == ["b(3hwC² + 2(hw)²C)"]


def test_an_attention_without_images_has_no_family():
    module = nn.MultiheadAttention(64, 4, batch_first=True)
    [found] = attnscope.trace(module, *[torch.rand(0, 50, 64)] * 3).attentions
    assert found.complexity == []


def test_queries_keys_and_values_of_three_inputs_may_be_one_sequence():
    class Given(Layers):
        def forward(self, q, k, v):
            return attend(self.q(q), self.k(k), self.v(v))

    report = attnscope.trace(Given(), *[torch.rand(2, 50, 64) for _ in range(3)])
    assert [found.scope for found in report.attentions] == ["global"]


def test_rows_of_heads_with_weights_of_their_own_are_not_tokens():
    class Absorbed(Layers):
        """Multi-head latent attention, whose keys are not multiplied by their weights (DeepSeek-V2)."""

        def __init__(self):
            super().__init__()
            self.up = nn.Parameter(torch.rand(4, 16, 64))

        def forward(self, x):
            q = torch.einsum("bnhd,hdc->bhnc", self.q(x).view(2, 50, 4, 16), self.up)
            keys = self.k(x)
            weights = torch.einsum("bhnc,bmc->bhnm", q, keys).softmax(-1)
            return torch.einsum("bhnm,bmc->bhnc", weights, keys)

    [found] = attnscope.trace(Absorbed(), torch.rand(2, 50, 64)).attentions
    assert (found.heads, found.head_dim, found.tokens) == (4, 64, 50)
    assert found.complexity == []


def test_one_softmax_over_two_sequences_has_the_keys_of_both():
    class Two(Layers):
        def forward(self, x, context):
            q, k, v = self.split(x)
            more_k, more_v = (layer(context).view(2, -1, 4, 16).transpose(1, 2) for layer in (self.k, self.v))
            scores = [q @ each.transpose(-1, -2) for each in (k, more_k)]
            weights = torch.cat(scores, -1).softmax(-1)
            return weights[..., :50] @ v + weights[..., 50:] @ more_v

    report = attnscope.trace(Two(), torch.rand(2, 50, 64), torch.rand(2, 13, 64))
    assert words(report) == ["keys made from the same tokens, 50 queries, 63 keys, 4 heads of 16, score-softmax-value"]


@pytest.mark.parametrize(("count", "expected"), [(1, "1 softmax"), (2, "2 softmaxes")])
def test_softmaxes_outside_of_attention_are_listed(count, expected):
    report = attnscope.trace(nn.Sequential(*[Experts() for _ in range(count)]), torch.rand(2, 10, 64))
    assert f"{expected} not recognized as attention" in render(report, "table", Screen())


class Leftover(Layers):
    """Scores of an earlier version, which only a plot needed: no result depends on them."""

    take = staticmethod(lambda scores: None)

    def forward(self, x):
        q, k, v = self.split(x)
        scores = q @ k.transpose(-1, -2)
        self.take(scores.softmax(-1))
        return F.scaled_dot_product_attention(q, k, v)


class Plotted(Leftover):
    take = staticmethod(lambda scores: scores.numpy())


class Written(Leftover):
    def forward(self, x):
        scores = x @ x.transpose(-1, -2)
        out = torch.zeros_like(scores)
        out[:, 1:] = scores.softmax(-1)[:, 1:]
        return out


def test_scores_of_two_directions_are_counted_once():
    there, back = attnscope.trace(BothWays(), torch.rand(1, 70, 64)).attentions
    assert (there.core_macs, back.core_macs) == (2 * 50 * 20 * 64, 50 * 20 * 64)
    assert back.complexity == []


def test_softmaxes_on_which_no_result_depends_are_unused():
    report = attnscope.trace(Leftover(), torch.rand(2, 50, 64))
    assert (report.unused_softmaxes, report.other_softmaxes) == ([""], [""])
    saved = 2 * 50 * 50 * 64
    assert f"no result depends on the softmax in the module; removing it saves {saved:,} MACs" in report.warnings
    assert "not recognized as attention" not in render(report, "table", Screen())
    for module in (Plotted(), Written()):
        report = attnscope.trace(module, torch.rand(2, 50, 64), device="cpu")
        assert (report.unused_softmaxes, report.other_softmaxes) == ([], [""])


class OverHeads(Layers):
    def forward(self, x):
        q, k, v = self.split(x)
        return (q @ k.transpose(-1, -2)).softmax(1) @ v


class OverQueries(Layers):
    def forward(self, x):
        q, k, v = self.split(x)
        return (q @ k.transpose(-1, -2)).softmax(2) @ v


class HeadsOfAToken(Layers):
    def forward(self, x):
        q, k, v = (each.transpose(1, 2) for each in self.split(x))
        return attend(q, k, v)


class HeadsOfATokenFused(Layers):
    def forward(self, x):
        return F.scaled_dot_product_attention(*(each.transpose(1, 2) for each in self.split(x)))


class ViewedAsHeads(Layers):
    def forward(self, x):
        return attend(*(layer(x).view(2, 4, 50, 16) for layer in (self.q, self.k, self.v)))


class OverImages(Layers):
    def forward(self, x):
        x = x.flatten(2).permute(2, 0, 1)
        return attend(self.q(x), self.k(x), self.v(x))


class OneScore(nn.Module):
    """A single channel without an axis of its own, so that the tokens are in the place of the channels."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(1, 3)

    def forward(self, x):
        q, k, v = self.qkv(x.flatten(2).transpose(1, 2)).unbind(-1)
        return attend(q, k, v)


@pytest.mark.parametrize(
    ("module", "shape", "mistake"),
    [
        (OverHeads, (2, 50, 64), "the softmax is over heads, not over the keys"),
        (OverQueries, (2, 50, 64), "the softmax is over the queries, not over the keys"),
        (HeadsOfAToken, (2, 50, 64), "q·kᵀ is over the heads: the heads of a token attend to each other"),
        (HeadsOfATokenFused, (2, 50, 64), "q·kᵀ is over the heads: the heads of a token attend to each other"),
        (
            ViewedAsHeads,
            (2, 50, 64),
            "a view mixes tokens and channels before q·kᵀ; transpose the axes of heads and tokens instead",
        ),
        (OverImages, (5, 64, 8, 8), "q·kᵀ is over the batch axis: images attend to each other"),
        (OneScore, (2, 1, 7, 7), "q·kᵀ is over the batch axis: images attend to each other"),
        (OneScore, (1, 1, 7, 7), "the softmax is over a single score, so that its weight is always 1"),
    ],
)
def test_a_mistake_has_a_warning(module, shape, mistake):
    report = attnscope.trace(module(), torch.rand(shape))
    [found] = report.attentions
    assert found.mistakes == [mistake]
    assert f"attention in the module: {mistake}" in report.warnings
    assert found.complexity == []


@st.composite
def rearrangements(draw):
    """Draw the shape of a tensor, and views and permutations of it."""
    shape = draw(st.lists(st.sampled_from([1, 2, 3, 4, 6, 8, 12]), min_size=1, max_size=4))
    steps, now = [], shape
    for _ in range(draw(st.integers(1, 5))):
        if draw(st.booleans()):
            order = draw(st.permutations(range(len(now))))
            steps.append(("permute", order))
            now = [now[axis] for axis in order]
        else:
            elements, now = torch.Size(now).numel(), []
            while elements > 1 and len(now) < 5:
                factor = draw(st.sampled_from([each for each in range(2, elements + 1) if elements % each == 0]))
                now.append(factor)
                elements //= factor
            now = [*now, elements] if elements > 1 else now
            steps.append(("view", now))
    return shape, steps


@settings(max_examples=300, deadline=None)
@given(rearrangements())
def test_atoms_are_the_positions_that_a_rearranged_tensor_has(drawn):
    """Each axis of a tensor counts the positions of the original axes that its Atoms say."""
    shape, steps = drawn
    tensor = torch.arange(torch.Size(shape).numel()).view(shape)
    roots = [Root(size, TOKEN) for size in shape]
    axes = tuple(root.whole for root in roots)
    for name, argument in steps:
        if name == "permute":
            tensor, axes = tensor.permute(argument), tuple(axes[axis] for axis in argument)
        else:
            tensor, axes = tensor.reshape(argument), viewed(axes, tuple(argument))
    assert tuple(tensor.shape) == tuple(torch.Size([atom.size for atom in axis]).numel() for axis in axes)
    if {atom.root for axis in axes for atom in axis} - set(roots):
        return  # a view has mixed axes, which the Atoms say
    strides = dict(zip(roots, torch.empty(shape).stride(), strict=True))
    positions = torch.zeros([])
    for axis in axes:
        along = torch.zeros([1])
        for atom in axis:
            steps_of = torch.arange(atom.size) * atom.stride * strides[atom.root]
            along = (along[:, None] + steps_of).flatten()
        positions = positions[..., None] + along
    assert torch.equal(positions.reshape(tensor.shape).long(), tensor)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("swin_t", [(64, (7, 7), 3), (16, (7, 7), 6), (4, (7, 7), 12), (1, None, 24)]),
        ("swin_v2_t", [(49, (8, 8), 3), (16, (8, 8), 6), (4, (8, 8), 12), (1, None, 24)]),
    ],
)
def test_windows_of_torchvision(name, expected):
    torchvision = pytest.importorskip("torchvision")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torchvision.models.get_model(name)
    report = attnscope.trace(module, torch.rand(1, 3, 224, 224))
    assert [(found.windows, found.window, found.heads) for found in report.attentions] == expected


class OfWindows(Layers):
    """Attention whose input has the windows of all images in its first axis, and other inputs that it does not read."""

    def forward(self, x, *others):
        return attend(*self.split(x))


class InWindows(nn.Module):
    """Windows of neighbours, or of tokens at a distance, in a network of its own."""

    def __init__(self, is_grid):
        super().__init__()
        self.attention, self.is_grid = OfWindows(), is_grid

    def forward(self, image):
        split = (4, 2, 4, 2) if self.is_grid else (2, 4, 2, 4)
        x = image.permute(0, 2, 3, 1).unflatten(2, split[2:]).unflatten(1, split[:2])
        x = x.permute(0, 2, 4, 1, 3, 5) if self.is_grid else x.transpose(2, 3)
        return self.attention(x.reshape(-1, 16, 64))


@pytest.mark.parametrize(("is_grid", "words_for_it"), [(False, "windows"), (True, "dilated windows")])
@pytest.mark.parametrize("images", [1, 2, 4])
def test_windows_of_a_submodule_are_those_of_the_whole(is_grid, words_for_it, images):
    image = torch.rand(images, 64, 8, 8)
    report = attnscope.trace(InWindows(is_grid), image, submodule="attention")
    assert words(report) == [f"4 {words_for_it} of 4×4, N = 16, 4 heads of 16, score-softmax-value"]
    [found], [of_whole] = report.attentions, attnscope.trace(InWindows(is_grid), image).attentions
    assert (found.family, found.complexity) == (of_whole.family, of_whole.complexity)


@pytest.mark.parametrize(
    "name", ["swin_tiny_patch4_window7_224", "maxvit_tiny_tf_224", "hiera_tiny_224", "gcvit_xxtiny", "mobilevitv2_050"]
)
def test_attentions_of_submodules_of_timm_are_those_of_the_whole(name):
    timm = pytest.importorskip("timm")
    module, image = timm.create_model(name), torch.rand(2, 3, 224, 224)
    for found in attnscope.trace(module, image).attentions[:3]:
        [alone] = attnscope.trace(module, image, submodule=found.path).attentions
        assert (alone.neighbourhood, alone.family, alone.heads) == (found.neighbourhood, found.family, found.heads)
        assert alone.core_macs * found.times == found.core_macs


@pytest.mark.parametrize(("images", "windows"), [(1, 128), (2, 64)])
def test_the_first_axis_of_an_input_has_windows_of_an_unknown_shape(images, windows):
    report = attnscope.trace(OfWindows(), torch.rand(128, 49, 64), torch.rand(images, 3, 8, 8))
    assert words(report) == [
        f"{windows} windows of 49 tokens, window unknown, N = 49, 4 heads of 16, score-softmax-value"
    ]
    [found] = report.attentions
    assert (found.window, found.family) == (None, None)


@pytest.mark.parametrize(
    "name", ["pvt_v2_b0", "levit_128s", "twins_svt_small", "volo_d1_224", "xcit_nano_12_p16_224", "mvitv2_tiny"]
)
def test_heads_are_those_of_the_modules_of_timm(name):
    timm = pytest.importorskip("timm")
    module = timm.create_model(name)
    report = attnscope.trace(module, torch.rand(1, 3, 224, 224))
    assert report.attentions
    for found in report.attentions:
        assert found.heads == module.get_submodule(found.path).num_heads


def test_attentions_that_are_projected_before_they_are_joined_are_not_heads_of_one():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.heads = nn.ModuleList(nn.ModuleList(nn.Linear(64, 16) for _ in range(3)) for _ in range(2))
            self.outs = nn.ModuleList(nn.Linear(16, 64) for _ in range(2))

        def forward(self, x):
            results = [attend(*[layer(x) for layer in head]) for head in self.heads]
            return torch.cat([out(result) for out, result in zip(self.outs, results, strict=True)], -1)

    (found,) = attnscope.trace(Two(), torch.rand(2, 50, 64)).attentions
    assert (found.heads, found.times) == (1, 2)


def test_an_empty_tensor_can_be_viewed():
    class Empty(nn.Module):
        def forward(self, x):
            return x[:0].reshape(0, 200).view(-1, 4, 50), (x @ x.mT).softmax(-1)

    report = attnscope.trace(Empty(), torch.rand(2, 50, 4))
    assert (0, 4, 50) in [shape for row in report.steps for shape in row.outputs]


class Selects(nn.Module):
    """A detector that finds nothing: views of tensors without elements, and a softmax of a scalar."""

    def forward(self, x):
        none = x[:, :0].view(2, 0, 2, 2).permute(0, 2, 1, 3).flatten(2)
        return none, x.sum().softmax(0)


def test_tensors_without_elements_and_axes_pass():
    assert attnscope.trace(Selects(), torch.ones(2, 3, 4)).attentions == []


class TwoValues(nn.Module):
    """The same queries and keys weigh two values, as in a differential transformer."""

    def __init__(self):
        super().__init__()
        self.projections = nn.ModuleList(nn.Linear(64, 64) for _ in range(4))
        self.out = nn.Linear(128, 64)

    def forward(self, x):
        q, k, *values = (each(x).unflatten(-1, (4, 16)).transpose(1, 2) for each in self.projections)
        both = [F.scaled_dot_product_attention(q, k, v) for v in values]
        return self.out(torch.cat(both, -1).transpose(1, 2).flatten(2))


def test_heads_that_weigh_two_values_are_counted_once():
    (found,) = attnscope.trace(TwoValues().eval(), torch.rand(2, 25, 64)).attentions
    assert (found.heads, found.head_dim, found.tokens, found.keys) == (4, 16, 25, 25)


class OfOtherFrames(nn.Module):
    """Frames of (b, t, n, c) attend to others: `choose` returns the tokens of the queries, and those of the keys."""

    def __init__(self, choose):
        super().__init__()
        self.choose = choose
        self.q, self.k, self.v, self.out = (nn.Linear(64, 64) for _ in range(4))

    def forward(self, x):
        here, there = self.choose(x)
        q, k, v = (
            each(y).unflatten(-1, (4, 16)).transpose(1, 2)
            for each, y in ((self.q, here), (self.k, there), (self.v, there))
        )
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def frames(x):
    return x.flatten(0, 1)


OF_OTHERS = "4 windows of 1×25, keys of another sequence"


@pytest.mark.parametrize(
    ("choose", "words"),
    [
        (lambda x: (x[:, 0], x[:, 1]), "all keys"),
        (lambda x: (x.unbind(1)[0], x.unbind(1)[2]), "all keys"),
        (lambda x: (frames(x), frames(x.flip(1))), OF_OTHERS),
        (lambda x: (frames(x), frames(x.roll(1, 1))), OF_OTHERS),
        (lambda x: (frames(x), torch.cat([*frames(x).chunk(2)][::-1])), OF_OTHERS),
        (lambda x: (frames(x), frames(x[:, :1].expand_as(x))), OF_OTHERS),
        (lambda x: (x[:, 1], x[:, 1]), "global attention"),
        (lambda x: (frames(x.flip(1)), frames(x.flip(1))), "4 windows of 1×25"),
        (lambda x: (frames(x), frames(x)), "4 windows of 1×25"),
    ],
    ids=["select", "unbind", "flip", "roll", "swap", "first", "the same", "both flipped", "each its own"],
)
def test_keys_of_another_frame_are_not_those_of_the_queries(choose, words):
    (found,) = attnscope.trace(OfOtherFrames(choose).eval(), torch.rand(1, 4, 25, 64)).attentions
    assert found.neighbourhood.words == words
    is_own = words in ("global attention", "4 windows of 1×25")
    assert (found.family is not None and found.family.name in ("vit", "twins")) == is_own


def test_parts_of_an_input_are_not_frames():
    """Queries, keys and values are the parts of one input."""

    class Given(nn.Module):
        def forward(self, qkv):
            return F.scaled_dot_product_attention(*qkv.unbind(1))

    (found,) = attnscope.trace(Given(), torch.rand(2, 3, 4, 25, 16)).attentions
    assert found.neighbourhood.words != OF_OTHERS
    assert "another" not in found.neighbourhood.words


class Kinds(nn.Module):
    """Many attentions that differ in sizes, and two that are alike."""

    def __init__(self):
        super().__init__()
        heads = [2, *range(2, 30, 2)]
        self.layers = nn.ModuleList([nn.MultiheadAttention(8 * count, count, batch_first=True) for count in heads])

    def forward(self, x):
        return torch.cat([layer(*[x.repeat(1, 1, layer.num_heads)] * 3)[0] for layer in self.layers], -1)


def test_many_attentions_have_a_line_each_below_what_they_share():
    report = attnscope.trace(Kinds(), torch.rand(1, 5, 8))
    text = render(report, "table", Screen(width=60))
    lines = text[text.index(" attention ") : text.index(" params ")].splitlines()
    assert lines[0] == " attention  layers: fused"
    starts = [line for line in lines if "global attention" in line]
    assert [line.split(":")[0].strip() for line in starts] == ["0 ×2", *map(str, range(2, 15))]
    assert starts[1].startswith("              2: global attention, N = 5, 4 heads of 8;")
    assert lines[-1] == "            costs and formulas of each: --details"
    assert "Ω" not in text
    for screen in (Screen(), Screen(width=60, pages=False)):
        assert render(report, "table", screen).count("Ω(MSA)") == 14
    report.focus.append("details")
    assert render(report, "table", Screen(width=60)).count("Ω(MSA)") == 14
