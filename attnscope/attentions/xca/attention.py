"""Attention between channels as a module (El-Nouby et al., arXiv 2106.09681, section 3.2); parameter names are timm's."""

import torch
from torch import Tensor, nn

from attnscope.attentions.attention import Heads, SelfAttention
from attnscope.attentions.heads import Headed
from attnscope.attentions.swinv2.attention import normalized
from attnscope.attentions.xca import steps
from attnscope.attentions.xca.spec import XCASpec


class ChannelAttention(SelfAttention):
    """Attention between the channels of each head: (b, n, c) -> (b, n, c), for any n.

    Args:
        dim: embedding dimension, c.
        heads: number of attention heads, h; must divide dim.
        variant: "xcit" normalizes queries and keys, with a learned temperature; "davit" scales by 1/√d.
        qkv_bias: whether to add a bias to q, k and v.
        attn_drop: dropout probability of the attention weights in training.
        proj_drop: dropout probability of the output in training.

    Raises:
        UsageError: if a value is out of range. dim must be divisible by heads.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        variant: str = "xcit",
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        self.set_up(
            XCASpec(dim=dim, heads=heads, variant=variant, qkv_bias=qkv_bias, attn_drop=attn_drop, proj_drop=proj_drop)
        )

    def set_up(self, spec: Headed) -> None:
        super().set_up(spec)
        assert isinstance(spec, XCASpec)
        self.variant = spec.variant
        if spec.variant == "xcit":
            self.temperature = nn.Parameter(torch.ones(spec.heads, 1, 1))

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        return {**super().sizes, "m": self.proj.in_features // self.heads}

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x, ("b", "n"))
        q, k, v = self.queries_keys_values(x)
        return self.output(self.merge_channels(self.attention(q, k, v)))

    def queries_keys_values(self, x: Tensor) -> Heads:
        x = self.project(x)
        if self.variant == "davit":
            return self.split_heads(x)
        q, k, v = self.split_channels(x)
        return *self.normalize(q, k), v

    def attention(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the output channels of each head, (b, h, d, n)."""
        if self.variant == "davit":
            return self.mix_channels(self.softmax(self.score_channels(k, v)), q)
        weights = self.softmax(self.score(q, k))
        return self.mix(weights, v)

    @steps.split_channels
    def split_channels(self, qkv: Tensor) -> Heads:
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 4, 1).unbind(0)
        return q, k, v

    @steps.normalize
    def normalize(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return normalized(q, k)

    @steps.score
    def score(self, q: Tensor, k: Tensor) -> Tensor:
        return (q @ k.transpose(-2, -1)) * self.temperature

    @steps.softmax
    def softmax(self, scores: Tensor) -> Tensor:
        return self.attn_drop(scores.softmax(dim=-1))

    @steps.mix
    def mix(self, weights: Tensor, v: Tensor) -> Tensor:
        return weights @ v

    @steps.score_channels
    def score_channels(self, k: Tensor, v: Tensor) -> Tensor:
        return (k * self.scale).transpose(-2, -1) @ v

    @steps.mix_channels
    def mix_channels(self, weights: Tensor, q: Tensor) -> Tensor:
        return weights @ q.transpose(-2, -1)

    @steps.merge_channels
    def merge_channels(self, heads: Tensor) -> Tensor:
        return heads.permute(0, 3, 1, 2).flatten(2)


def build(spec: XCASpec) -> ChannelAttention:
    """Build the module that a Spec describes."""
    return ChannelAttention.of(spec)
