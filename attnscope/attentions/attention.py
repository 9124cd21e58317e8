"""Scaled dot-product attention as a module: base of all attentions (Vaswani et al., arXiv 1706.03762, section 3.2)."""

from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnscope.attentions import steps
from attnscope.attentions.heads import Headed, letters
from attnscope.attentions.kernels import fused_attention
from attnscope.attentions.layer import Layer

Heads = tuple[Tensor, Tensor, Tensor]
"""q, k and v, split into heads: (b, h, n, d), (b, h, m, d), (b, h, m, d)."""


class SoftmaxAttention(Layer):
    """Scaled dot-product attention of heads without parameters: softmax(q·kᵀ·scale)·v.

    `spelling` replaces axis letters of the inherited steps.
    """

    spelling: ClassVar[dict[str, str]] = {}

    @classmethod
    def of(cls, spec: Any) -> Self:
        """Build the module that a Spec describes."""
        module = cls.__new__(cls)
        module.set_up(spec)
        return module

    def set_up(self, spec: Headed) -> None:
        """Set the options that every attention has."""
        super().__init__()
        self.spec = spec
        self.heads = spec.heads
        self.scale = spec.score_scale
        self.kernel = spec.kernel
        self.attn_drop = nn.Dropout(spec.attn_drop)

    def attention(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the output of each head: softmax(q·kᵀ·scale)·v."""
        if self.kernel != "eager":
            return self.attend(q, k, v)
        weights = self.softmax(self.score(q, k))
        return self.mix(weights, v)

    @steps.score
    def score(self, q: Tensor, k: Tensor) -> Tensor:
        return scaled_product(q, k, self.scale)

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


class ScaledDotProduct(SoftmaxAttention):
    """Scaled dot-product attention with the output projection.

    A subclass defines a method for each of its own steps and a `forward` that calls them.
    """

    def set_up(self, spec: Headed) -> None:
        """Create the parameters that every attention has."""
        super().set_up(spec)
        self.kv_heads = spec.kv_heads or spec.heads
        self.proj = nn.Linear(spec.dim, spec.dim)
        self.proj_drop = nn.Dropout(spec.proj_drop)

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of the module that its repr shows, by name."""
        shared = {"kv_heads": self.kv_heads} if self.kv_heads != self.heads else {}
        return {"dim": self.proj.in_features, "heads": self.heads, **shared, "kernel": self.kernel}

    def check_input(self, x: Tensor, axes: tuple[str, ...], name: str = "input") -> None:
        """Check the shape of an input: these axes, then c channels.

        Raises:
            UsageError: it has another number of axes or of channels; torch's own error would name an inner layer.
        """
        self.check_shape(x, {**dict.fromkeys(axes), "c": self.proj.in_features}, name)

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        return letters(self.proj.in_features, self.heads, self.kv_heads)

    @steps.share_heads
    def share_heads(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return repeat_heads(k, v, self.heads)

    @steps.merge_heads
    def merge_heads(self, heads: Tensor) -> Tensor:
        tokens = heads.transpose(1, 2)
        if torch.compiler.is_compiling():
            # The layout of fused heads depends on the backend. A copy makes a view that is valid for each, as for ONNX.
            tokens = tokens.clone(memory_format=torch.contiguous_format)
        # If a head has a single channel, torch would defer the copy to the next step.
        return tokens.flatten(2).contiguous()

    @steps.output
    def output(self, merged: Tensor) -> Tensor:
        return self.proj_drop(self.proj(merged))


class SelfAttention(ScaledDotProduct):
    """Self-attention: one projection of the same tokens gives queries, keys and values."""

    k_bias: Tensor

    def set_up(self, spec: Headed) -> None:
        super().set_up(spec)
        self.qkv = nn.Linear(spec.dim, spec.dim + 2 * spec.kv_dim, bias=spec.has_key_bias)
        self.q_bias = self.v_bias = None
        if spec.qkv_bias and not spec.has_key_bias:
            self.q_bias = nn.Parameter(torch.zeros(spec.dim))
            self.v_bias = nn.Parameter(torch.zeros(spec.kv_dim))
            self.register_buffer("k_bias", torch.zeros(spec.kv_dim), persistent=False)

    # `x` is assigned again, so that windows and other inputs that only the caller's expression holds are freed.

    def queries_keys_values(self, x: Tensor) -> Heads:
        if self.kv_heads == self.heads:
            x = self.project(x)
            return self.split_heads(x)
        x = self.project_grouped(x)
        q, k, v = self.split_grouped(x)
        return q, *self.share_heads(k, v)

    def projected_heads(self, x: Tensor) -> Heads:
        """Return queries, keys and values, where k and v have the key/value heads, before query heads share them."""
        if self.kv_heads == self.heads:
            x = self.project(x)
            return self.split_heads(x)
        x = self.project_grouped(x)
        return self.split_grouped(x)

    def projected(self, x: Tensor) -> Tensor:
        """Return x·Wqkv + b, where b is 0 for the keys if q and v have separate biases."""
        if self.q_bias is None or self.v_bias is None:
            return self.qkv(x)
        return F.linear(x, self.qkv.weight, torch.cat((self.q_bias, self.k_bias, self.v_bias)))

    @steps.project
    def project(self, x: Tensor) -> Tensor:
        return self.projected(x)

    @steps.split_heads
    def split_heads(self, qkv: Tensor) -> Heads:
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v

    @steps.project_grouped
    def project_grouped(self, x: Tensor) -> Tensor:
        return self.projected(x)

    @steps.split_grouped
    def split_grouped(self, qkv: Tensor) -> Heads:
        heads = qkv.unflatten(-1, (self.heads + 2 * self.kv_heads, -1)).transpose(1, 2)
        q, k, v = heads.split((self.heads, self.kv_heads, self.kv_heads), dim=1)
        return q, k, v


def scaled_product(q: Tensor, k: Tensor, scale: float) -> Tensor:
    """Return q·kᵀ·scale: (…, n, d), (…, m, d) -> (…, n, m).

    The kernel of the product multiplies by the scale, without another pass over the scores.
    """
    zero = q.new_zeros(())  # ignored since beta is 0, but on MPS only from torch 2.14 on: NaN would stay
    scores = torch.baddbmm(zero, q.flatten(0, -3), k.flatten(0, -3).transpose(1, 2), beta=0, alpha=scale)
    return scores.unflatten(0, q.shape[:-2])


def repeat_heads(k: Tensor, v: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """Repeat each key/value head for the query heads that share it: (b, g, m, d) -> (b, h, m, d)."""
    times = heads // k.shape[1]
    return k.repeat_interleave(times, dim=1), v.repeat_interleave(times, dim=1)
