"""Neighbourhood attention as a module (Hassani et al., arXiv 2204.07143, section 3.1); parameter names are NAT's."""

import torch
from torch import Tensor, nn

from attnscope.attentions.attention import SelfAttention, scaled_product
from attnscope.attentions.heads import Headed
from attnscope.attentions.nat import steps
from attnscope.attentions.nat.spec import NATSpec, Nearest
from attnscope.core.errors import UsageError
from attnscope.core.sizes import Pair, pair


class NeighbourhoodAttention(SelfAttention):
    """Attention of each token to the tokens around it: (b, height, width, c) -> (b, height, width, c).

    Args:
        dim: embedding dimension, c.
        heads: number of attention heads, h; must divide dim.
        neighborhood: K, the side of the neighbourhood, one odd number or (height, width).
        dilation: distance between two keys, one number or (down, across).
        position_bias: whether to add a learned bias for the offset of each key.
        qkv_bias: whether to add a bias to q, k and v.
        qk_scale: factor of q·kᵀ; default 1/√d with d = dim / heads.
        attn_drop: dropout probability of the attention weights in training.
        proj_drop: dropout probability of the output in training.

    Raises:
        UsageError: if a value is out of range. dim must be divisible by heads; neighborhood times dilation must not
            exceed height or width.
    """

    near: Tensor
    offsets: Tensor

    def __init__(
        self,
        dim: int,
        heads: int,
        neighborhood: int | Pair = 7,
        dilation: int | Pair = 1,
        position_bias: bool = True,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        size, distance = pair(neighborhood), pair(dilation)
        self.set_up(
            NATSpec(
                dim=dim,
                heads=heads,
                resolution=(size[0] * distance[0], size[1] * distance[1]),
                neighborhood=size,
                dilation=distance,
                position_bias=position_bias,
                qkv_bias=qkv_bias,
                qk_scale=qk_scale,
                attn_drop=attn_drop,
                proj_drop=proj_drop,
            )
        )

    def set_up(self, spec: Headed) -> None:
        super().set_up(spec)
        assert isinstance(spec, NATSpec)
        self.neighborhood, self.dilation, self.position_bias = spec.neighborhood, spec.dilation, spec.position_bias
        if spec.position_bias:
            p, q = spec.neighborhood
            self.rpb = nn.Parameter(torch.empty(spec.heads, 2 * p - 1, 2 * q - 1))
            nn.init.trunc_normal_(self.rpb, std=0.02)
        for name in ("near", "offsets"):
            self.register_buffer(name, None, persistent=False)
        self.indexed: Nearest | None = None

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        p, q = self.neighborhood
        return {**super().sizes, "m": p * q, "t": 2 * p - 1, "u": 2 * q - 1}

    def arguments(self) -> dict[str, object]:
        """Return the arguments of the module that its repr shows, by name."""
        return {**super().arguments(), "neighborhood": self.neighborhood, "dilation": self.dilation}

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x, ("b", "height", "width"))
        height, width = x.shape[1:3]
        grid = self.grid(height, width)
        q, k, v = self.queries_keys_values(self.flatten(x))
        x = self.output(self.merge_heads(self.attention_in(grid, q, k, v)))
        return self.unflatten(x, (height, width))

    def attention_in(self, grid: Nearest, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the output of each head: softmax(q·kᵀ·scale + B)·v for the keys of each query."""
        attn = self.score(q, self.gather_keys(k, grid))
        if self.position_bias:
            attn = self.add_bias(attn, grid)
        attn = self.softmax(attn)
        return self.mix(attn, self.gather_values(v, grid))

    def grid(self, height: int, width: int) -> Nearest:
        """Return the neighbourhoods of a grid.

        Raises:
            UsageError: if the grid is smaller than the neighbourhood.
        """
        for side, size, dilation in zip((height, width), self.neighborhood, self.dilation, strict=True):
            if side < size * dilation:
                raise UsageError(
                    f"the grid must have at least {size * dilation} tokens a side (got {side}); pad it first"
                )
        return Nearest(height, width, self.neighborhood, self.dilation)

    def index(self, grid: Nearest, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return the keys of each query and the rows of their bias, (n, m) each, cached for the next call."""
        if torch.compiler.is_compiling():
            return nearest(grid, like.device)
        if self.indexed != grid or self.near.device != like.device:
            self.near, self.offsets = nearest(grid, like.device)
            self.indexed = grid
        return self.near, self.offsets

    @steps.flatten
    def flatten(self, x: Tensor) -> Tensor:
        return x.flatten(1, 2)

    @steps.gather_keys
    def gather_keys(self, k: Tensor, grid: Nearest) -> Tensor:
        return k[:, :, self.index(grid, k)[0]]

    @steps.score
    def score(self, q: Tensor, near_keys: Tensor) -> Tensor:
        return scaled_product(q.unsqueeze(-2), near_keys, self.scale).squeeze(-2)

    @steps.add_bias
    def add_bias(self, scores: Tensor, grid: Nearest) -> Tensor:
        return scores + self.rpb.flatten(1)[:, self.index(grid, scores)[1]]

    @steps.gather_values
    def gather_values(self, v: Tensor, grid: Nearest) -> Tensor:
        return v[:, :, self.index(grid, v)[0]]

    @steps.mix
    def mix(self, weights: Tensor, near_values: Tensor) -> Tensor:
        return (weights.unsqueeze(-2) @ near_values).squeeze(-2)

    @steps.unflatten
    def unflatten(self, y: Tensor, grid: Pair) -> Tensor:
        return y.unflatten(1, grid)


def nearest(grid: Nearest, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the number of each key of each query, and the row of its bias in the flattened table, (n, m) each.

    The row is `(dy + p − 1)(2q − 1) + (dx + q − 1)`, where (dy, dx) is the key's position minus the query's, in units
    of the dilation.
    """
    down, down_offsets = _along(grid, 0, grid.height, device)
    across, across_offsets = _along(grid, 1, grid.width, device)
    return _combined(down, across, grid.width), _combined(down_offsets, across_offsets, 2 * grid.size[1] - 1)


def _along(grid: Nearest, axis: int, side: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the keys of each query along an axis, and their offsets in the bias table, (side, K) each."""
    keys = torch.tensor([list(reach) for reach in grid.reach(axis, side)], device=device)
    tokens = torch.arange(side, device=device)[:, None]
    return keys, (keys - tokens) // grid.dilation[axis] + grid.size[axis] - 1


def _combined(down: Tensor, across: Tensor, width: int) -> Tensor:
    """Return down·width + across for each query and key of the grid, (n, m)."""
    return (down[:, None, :, None] * width + across[None, :, None, :]).flatten(2).flatten(0, 1)


def build(spec: NATSpec) -> NeighbourhoodAttention:
    """Build the module that a Spec describes, with the keys of the Spec's grid."""
    module = NeighbourhoodAttention.of(spec)
    module.index(spec.neighbourhood, module.proj.weight)
    return module
