"""ViT's attention as a module (Dosovitskiy et al., arXiv 2010.11929, appendix A); parameter names are timm's."""

from torch import Tensor, nn

from attnscope.attentions.heads import letters
from attnscope.attentions.kernels import fused_attention
from attnscope.attentions.vit import steps
from attnscope.attentions.vit.spec import ViTSpec

Heads = tuple[Tensor, Tensor, Tensor]
"""q, k and v in heads: (b, h, n, d), (b, h, m, d), (b, h, m, d)."""


class ScaledDotProduct(nn.Module):
    """softmax(q·kᵀ·scale)·v in heads, and the projection of what they found: what attentions have in common that look at
    all of a sequence.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        kv_heads: int | None,
        qk_scale: float | None,
        attn_drop: float,
        proj_drop: float,
        kernel: str,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.kv_heads = kv_heads or heads
        self.scale = (dim // heads) ** -0.5 if qk_scale is None else qk_scale
        self.kernel = kernel
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    @property
    def sizes(self) -> dict[str, int]:
        """The letters that the module itself sets."""
        return letters(self.proj.in_features, self.heads, self.kv_heads)

    @steps.share_heads
    def share_heads(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return repeat_heads(k, v, self.heads)

    @steps.score
    def score(self, q: Tensor, k: Tensor) -> Tensor:
        return (q @ k.transpose(-2, -1)).mul_(self.scale)

    @steps.softmax
    def softmax(self, scores: Tensor) -> Tensor:
        return self.attn_drop(scores.softmax(dim=-1))

    @steps.mix
    def mix(self, weights: Tensor, v: Tensor) -> Tensor:
        return weights @ v

    @steps.attend
    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        drop = self.attn_drop.p if self.training else 0.0
        return fused_attention(self.kernel, q, k, v, None, drop, self.scale)

    @steps.merge_heads
    def merge_heads(self, heads: Tensor) -> Tensor:
        # with a single channel a head torch would put the copy off to the next step
        return heads.transpose(1, 2).flatten(2).contiguous()

    @steps.output
    def output(self, merged: Tensor) -> Tensor:
        return self.proj_drop(self.proj(merged))


class ViTAttention(ScaledDotProduct):
    """Multi-head self-attention: (b, n, c) -> (b, n, c).

    Args:
        dim: channels of a token, c.
        heads: attention heads, h; dim is divisible by it.
        qkv_bias: give q, k and v a bias.
        qk_scale: multiplies q·kᵀ; 1/√d unless given, with d = dim / heads.
        attn_drop: dropout of the attention weights, in training.
        proj_drop: dropout of the output, in training.
        kernel: "eager" computes every step on its own, any other of KERNELS the middle ones at once.
        kv_heads: heads of keys and values, g; heads is divisible by it. As many as heads unless given.

    Raises:
        UsageError: a value is out of range, dim is not divisible by heads, or heads not by kv_heads.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        kernel: str = "eager",
        kv_heads: int | None = None,
    ) -> None:
        ViTSpec(
            dim=dim,
            heads=heads,
            kv_heads=kv_heads,
            qkv_bias=qkv_bias,
            qk_scale=qk_scale,
            attn_drop=attn_drop,
            proj_drop=proj_drop,
            kernel=kernel,
        )
        super().__init__(dim, heads, kv_heads, qk_scale, attn_drop, proj_drop, kernel)
        self.qkv = nn.Linear(dim, dim + 2 * self.kv_heads * (dim // heads), bias=qkv_bias)

    # A name is bound anew or deleted where its tensor ends its life, so that nothing is held beyond its last use.
    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.queries_keys_values(x)
        if self.kernel == "eager":
            x = self.score(q, k)
            del q, k
            x = self.softmax(x)
            x = self.mix(x, v)
        else:
            x = self.attend(q, k, v)
            del q, k
        del v
        x = self.merge_heads(x)
        return self.output(x)

    def queries_keys_values(self, x: Tensor) -> Heads:
        if self.kv_heads == self.heads:
            x = self.project(x)
            return self.split_heads(x)
        x = self.project_grouped(x)
        q, k, v = self.split_grouped(x)
        return q, *self.share_heads(k, v)

    @steps.project
    def project(self, x: Tensor) -> Tensor:
        return self.qkv(x)

    @steps.split_heads
    def split_heads(self, qkv: Tensor) -> Heads:
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v

    @steps.project_grouped
    def project_grouped(self, x: Tensor) -> Tensor:
        return self.qkv(x)

    @steps.split_grouped
    def split_grouped(self, qkv: Tensor) -> Heads:
        return split_grouped(qkv, self.heads, self.kv_heads)


def split_grouped(qkv: Tensor, heads: int, kv_heads: int) -> Heads:
    """Views of (b, n, (h + 2g)·d) as h heads of queries, and g of keys and of values: (b, h, n, d), twice (b, g, n, d)."""
    q, k, v = qkv.unflatten(-1, (heads + 2 * kv_heads, -1)).transpose(1, 2).split((heads, kv_heads, kv_heads), dim=1)
    return q, k, v


def repeat_heads(k: Tensor, v: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """Each head of keys and values as often as queries' heads share it: (b, g, m, d) -> (b, h, m, d)."""
    times = heads // k.shape[1]
    return k.repeat_interleave(times, dim=1), v.repeat_interleave(times, dim=1)


def build(spec: ViTSpec) -> ViTAttention:
    """The module that a Spec asks for."""
    return ViTAttention(
        spec.dim, spec.heads, spec.qkv_bias, spec.qk_scale, spec.attn_drop, spec.proj_drop, spec.kernel, spec.kv_heads
    )
