"""ViT's attention as a module (Dosovitskiy et al., arXiv 2010.11929, appendix A); parameter names are timm's."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from attnscope.attentions.attention import Heads, SelfAttention
from attnscope.attentions.heads import Headed
from attnscope.attentions.vit import steps
from attnscope.attentions.vit.rope import Rotation
from attnscope.attentions.vit.spec import ViTSpec
from attnscope.core.sizes import Pair

EPS = 1e-6
"""The number that LayerNorm adds to the variance of queries and keys, as in timm."""


class ViTAttention(SelfAttention):
    """Multi-head self-attention: (b, n, c) -> (b, n, c).

    Args:
        dim: embedding dimension, c.
        heads: number of attention heads, h; must divide dim.
        qkv_bias: whether to add a bias to q, k and v.
        qk_scale: factor of q·kᵀ; default 1/√d with d = dim / heads.
        attn_drop: dropout probability of the attention weights in training.
        proj_drop: dropout probability of the output in training.
        kernel: "eager" runs each step separately; the others of KERNELS compute score to mix in one call.
        kv_heads: number of key/value heads, g; must divide heads. Default heads.
        rope: rotary position embedding of queries and keys, a key of ROTATIONS; default none. It requires a grid, and
            d divisible by 4.
        grid: number of patches down and across, for a rotary position embedding.
        prefix: number of tokens before the patches, which do not rotate.
        qk_norm: whether to normalize the queries and keys of each head.
        key_bias: whether k has a bias if q and v have one.
        inner_norm: whether to normalize the merged heads before the output projection.

    Raises:
        UsageError: if a value is out of range or contradicts another one. dim must be divisible by heads, and heads by
            kv_heads.
    """

    places: Tensor
    cos: Tensor
    sin: Tensor

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
        rope: str | None = None,
        grid: Pair = (14, 14),
        prefix: int = 1,
        qk_norm: bool = False,
        key_bias: bool = True,
        inner_norm: bool = False,
    ) -> None:
        self.set_up(
            ViTSpec(
                dim=dim,
                heads=heads,
                kv_heads=kv_heads,
                image=grid,
                patch=(1, 1),
                cls=False,
                registers=prefix,
                rope=rope,
                qk_norm=qk_norm,
                key_bias=key_bias,
                inner_norm=inner_norm,
                qkv_bias=qkv_bias,
                qk_scale=qk_scale,
                attn_drop=attn_drop,
                proj_drop=proj_drop,
                kernel=kernel,
            )
        )

    def set_up(self, spec: Headed) -> None:
        super().set_up(spec)
        assert isinstance(spec, ViTSpec)
        d = spec.dim // spec.heads
        self.rope = spec.rope
        self.tokens = spec.sequence if spec.rope else None
        self.own_steps = {step.name: step for step in steps.heads_of(spec)}
        self.qk_norm = spec.qk_norm
        if spec.qk_norm:
            self.q_norm, self.k_norm = nn.LayerNorm(d, EPS), nn.LayerNorm(d, EPS)
        self.norm = nn.LayerNorm(spec.dim, EPS) if spec.inner_norm else None
        if spec.rotation is None or spec.grid is None:
            return
        self.grid, self.prefix, self.rotation = spec.grid, spec.prefix, spec.rotation
        if self.rotation.is_learned:
            self.freqs = nn.Parameter(random_frequencies(self.rotation, spec.heads, d))
            tables = {"places": places(self.rotation, self.grid)}
        else:
            tables = dict(zip(("cos", "sin"), axial_angles(self.rotation, self.grid, d), strict=True))
        for name, table in tables.items():
            self.register_buffer(name, table.to(torch.get_default_dtype()), persistent=False)

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        if self.rope is None:
            return super().sizes
        patches, d = self.grid[0] * self.grid[1], self.proj.in_features // self.heads
        n = self.prefix + patches
        return super().sizes | {"n": n, "m": n, "l": patches, "u": d // 2}

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of the module that its repr shows, by name."""
        rotation = {"rope": self.rope, "grid": self.grid, "prefix": self.prefix} if self.rope else {}
        return {**super().arguments(), **rotation}

    def forward(self, x: Tensor) -> Tensor:
        self.check_shape(x, {"b": None, "n": self.tokens, "c": self.proj.in_features})
        q, k, v = self.queries_keys_values(x)
        x = self.merge_heads(self.attention(q, k, v))
        if self.norm is not None:
            x = self.norm_merged(x)
        return self.output(x)

    def queries_keys_values(self, x: Tensor) -> Heads:
        q, k, v = self.projected_heads(x)
        return (q, k, v) if self.kv_heads == self.heads else (q, *self.share_heads(k, v))

    def projected_heads(self, x: Tensor) -> Heads:
        """Return queries, keys and values; queries and keys are normalized and rotated, if the Spec says so."""
        q, k, v = super().projected_heads(x)
        if self.qk_norm:
            q = self.normalize_queries(q)
            k = self.normalize_keys(k)
        if self.rope:
            cos, sin = self.angles(self.places) if self.rotation.is_learned else (self.cos, self.sin)
            q = self.rotate_queries(q, cos, sin)
            k = self.rotate_keys(k, cos, sin)
        return q, k, v

    @steps.normalize_queries
    def normalize_queries(self, q: Tensor) -> Tensor:
        return self.q_norm(q)  # type: ignore[no-any-return]

    @steps.normalize_keys
    def normalize_keys(self, k: Tensor) -> Tensor:
        return self.k_norm(k)

    @steps.norm_merged
    def norm_merged(self, merged: Tensor) -> Tensor:
        assert self.norm is not None
        return self.norm(merged)

    @steps.angles
    def angles(self, places: Tensor) -> tuple[Tensor, Tensor]:
        dtype = self.freqs.dtype
        wide = torch.promote_types(dtype, torch.float32)  # the angles of distant patches are large
        x, y = places.to(wide)[..., None].unbind()
        across, down = self.freqs.to(wide)[:, :, None].unbind()
        theta = x * across + y * down
        cos, sin = theta.cos(), theta.sin()
        return in_pairs(cos, cos, -1).to(dtype), in_pairs(-sin, sin, -1).to(dtype)

    @steps.rotate_queries
    def rotate_queries(self, q: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return self.rotated(q, cos, sin)

    @steps.rotate_keys
    def rotate_keys(self, k: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return self.rotated(k, cos, sin)

    def rotated(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Return x with the pairs of channels of each patch rotated; the tokens before the patches stay the same."""
        if not self.prefix:
            return rotate(x, cos, sin, self.rotation.halves)
        before, patches = x.split((self.prefix, x.shape[2] - self.prefix), dim=2)
        return torch.cat((before, rotate(patches, cos, sin, self.rotation.halves)), dim=2)


def rotate(x: Tensor, cos: Tensor, sin: Tensor, halves: bool) -> Tensor:
    """Return rotated pairs of channels: (x₁cos θ − x₂sin θ, x₂cos θ + x₁sin θ), where `sin` has the signs."""
    axis = axis_of_pairs(halves)
    pairs = x.unflatten(-1, (2, -1) if halves else (-1, 2))
    return x * cos + pairs.roll(1, axis).flatten(-2) * sin


def in_pairs(first: Tensor, second: Tensor, axis: int) -> Tensor:
    """Return the factors of the first and the second channel of each pair as one row of channels."""
    return torch.stack((first, second), axis).flatten(-2)


def axis_of_pairs(halves: bool) -> int:
    """Return the axis of length 2 of channels that are split into pairs."""
    return -2 if halves else -1


def places(rotation: Rotation, grid: Pair) -> Tensor:
    """Return the position of each patch along the axis that rotates the first half of the pairs, and the other: (2, l)."""
    along = []
    for side in grid:
        steps_along = torch.arange(side, dtype=torch.float64)
        if rotation.is_centered:
            steps_along = 2 * math.pi * (2 * (steps_along + 0.5) / side - 1)
        elif rotation.side is not None:
            steps_along = steps_along / side * rotation.side
        along.append(steps_along)
    rows, columns = (each.flatten() for each in torch.meshgrid(*along, indexing="ij"))
    return torch.stack((columns, rows) if rotation.columns_first else (rows, columns))


def axial_angles(rotation: Rotation, grid: Pair, channels: int) -> tuple[Tensor, Tensor]:
    """Return the cosine of each channel of each patch, (l, d), and the sine, negative for the first of a pair."""
    frequencies = rotation.temperature ** -(torch.arange(channels // 4, dtype=torch.float64) / (channels // 4))
    theta = (places(rotation, grid)[..., None] * frequencies).transpose(0, 1).flatten(1)
    cos, sin, axis = theta.cos(), theta.sin(), axis_of_pairs(rotation.halves)
    return in_pairs(cos, cos, axis), in_pairs(-sin, sin, axis)


def random_frequencies(rotation: Rotation, heads: int, channels: int) -> Tensor:
    """Draw initial frequencies across and down, (2, h, u): axial ones, turned by a random angle in each head."""
    length = rotation.temperature ** -(torch.arange(0, channels, 4) / channels)
    turn = 2 * math.pi * torch.rand(heads, 1)
    angle = torch.cat([(turn + quarter).expand(heads, len(length)) for quarter in (0, math.pi / 2)], dim=-1)
    return torch.stack((angle.cos(), angle.sin())) * length.repeat(2)


def build(spec: ViTSpec) -> ViTAttention:
    """Build the module that a Spec describes."""
    return ViTAttention.of(spec)
