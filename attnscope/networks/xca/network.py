"""XCiT as modules with timm's parameter names, which load official checkpoints, too."""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnscope.attentions.attention import Heads, ScaledDotProduct
from attnscope.attentions.heads import Headed
from attnscope.attentions.layer import CHANNELS_FIRST, Layer
from attnscope.attentions.xca.spec import XCASpec
from attnscope.core.sizes import Pair
from attnscope.networks.block.network import Block
from attnscope.networks.layers import Mlp, initialize
from attnscope.networks.vit import steps as sequence
from attnscope.networks.vit.network import RESIZE
from attnscope.networks.weights import LoadsOthers, State, from_official_xcit
from attnscope.networks.xca import steps
from attnscope.networks.xca.spec import FEATURES, KERNEL, Halving, XCiTNetworkSpec

EPS = 1e-6
"""Number that the norms of XCiT add to the variance."""
DEEP = 18
"""Number of blocks from which the factors of LayerScale start small."""


class ConvolutionWithNorm(Layer, nn.Sequential):
    """A convolution of the patch embedding: (b, s, v, w) -> (b, c, ⌈v/2⌉, ⌈w/2⌉).

    Args:
        halving: its channels and grids.
        is_last: whether no GELU follows it.
    """

    def __init__(self, halving: Halving, is_last: bool) -> None:
        convolution = nn.Conv2d(halving.channels, halving.dim, KERNEL, stride=2, padding=KERNEL // 2, bias=False)
        super().__init__(convolution, nn.BatchNorm2d(halving.dim))
        self.halving, self.is_last = halving, is_last

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        return {"s": self.halving.channels, "c": self.halving.dim}

    def forward(self, planes: Tensor) -> Tensor:
        planes = self.convolve(planes)
        planes = self.normalize_channels(planes)
        return planes if self.is_last else self.gelu_planes(planes)

    @steps.convolve
    def convolve(self, planes: Tensor) -> Tensor:
        return self[0](planes)

    @steps.normalize_channels
    def normalize_channels(self, planes: Tensor) -> Tensor:
        return self[1](planes)

    @steps.gelu_planes
    def gelu_planes(self, planes: Tensor) -> Tensor:
        return F.gelu(planes)


class PatchEmbed(Layer):
    """Patch embedding by convolutions that each halve the grid: (b, 3, height, width) -> (b, n, c)."""

    def __init__(self, halvings: tuple[Halving, ...]) -> None:
        super().__init__()
        last = halvings[-1]
        # timm counts the GELUs between the convolutions, too
        self.proj = nn.ModuleDict(
            {str(2 * place): ConvolutionWithNorm(each, each is last) for place, each in enumerate(halvings)}
        )
        self.dim = last.dim

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        return {"c": self.dim}

    def arguments(self) -> dict[str, Any]:
        return {"dim": self.dim, "patch": 2 ** len(self.proj)}

    def forward(self, image: Tensor) -> Tensor:
        self.check_shape(image, {"b": None, "i": 3, "height": None, "width": None}, fix=CHANNELS_FIRST)
        for convolution in self.proj.values():
            image = convolution(image)
        return self.to_tokens(image)

    @steps.to_tokens
    def to_tokens(self, planes: Tensor) -> Tensor:
        # Contiguous, since each norm would copy the tokens. With flatten(2).transpose(1, 2), the gradient of a single
        # image has strides that torch's batch norm misreads on the CPU, and the gradients would be wrong.
        return planes.permute(0, 2, 3, 1).flatten(1, 2).contiguous()


class PositionEncoding(Layer):
    """The encoding of each position of a grid: () -> (1, c, y, x).

    Args:
        dim: embedding dimension, c.
        grid: the grid of tokens, (y, x).
    """

    features: Tensor

    def __init__(self, dim: int, grid: Pair) -> None:
        super().__init__()
        self.token_projection = nn.Conv2d(FEATURES, dim, 1)
        self.register_buffer("features", fourier_features(grid).to(torch.get_default_dtype()), persistent=False)

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        return {"f": FEATURES, "c": self.token_projection.out_channels}

    def forward(self) -> Tensor:
        return self.project_features(self.features)

    @steps.project_features
    def project_features(self, features: Tensor) -> Tensor:
        return self.token_projection(features)


def fourier_features(grid: Pair) -> Tensor:
    """Return sines and cosines of the places along both axes, from 0 to 2π: (1, f, y, x) in float32.

    The frequencies are those of Vaswani et al., arXiv 1706.03762, section 3.5.
    """
    half = FEATURES // 2
    wavelengths = 10000 ** (2 * torch.arange(half).div(2, rounding_mode="floor") / half)
    of_axes = []
    for side in grid:
        places = torch.arange(1, side + 1, dtype=torch.float32)
        angles = (places / (places[-1:] + 1e-6) * (2 * math.pi))[:, None] / wavelengths
        of_axes.append(torch.stack((angles[:, 0::2].sin(), angles[:, 1::2].cos()), dim=2).flatten(1))
    down, across = of_axes
    (y, x) = grid
    both = (down[:, None].expand(y, x, half), across[None].expand(y, x, half))
    return torch.cat(both, dim=2).permute(2, 0, 1)[None].contiguous()


class LocalPatchInteraction(Layer):
    """Two depthwise 3×3 convolutions with a GELU and a batch norm between them: (b, n, c) -> (b, n, c).

    Args:
        dim: embedding dimension, c.
        grid: the grid of tokens, (y, x).
    """

    def __init__(self, dim: int, grid: Pair) -> None:
        super().__init__()
        self.grid = grid
        self.conv1 = nn.Conv2d(dim, dim, KERNEL, padding=KERNEL // 2, groups=dim)
        self.bn = nn.BatchNorm2d(dim)
        self.conv2 = nn.Conv2d(dim, dim, KERNEL, padding=KERNEL // 2, groups=dim)

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        return {"c": self.conv1.in_channels, "y": self.grid[0], "x": self.grid[1]}

    def arguments(self) -> dict[str, Any]:
        return {"grid": self.grid}

    def forward(self, x: Tensor) -> Tensor:
        self.check_shape(x, {"b": None, "n": self.grid[0] * self.grid[1], "c": self.conv1.in_channels})
        x = self.to_planes(x)
        x = self.mix_neighbours(x)
        x = self.gelu_planes(x)
        x = self.normalize_planes(x)
        x = self.mix_again(x)
        return self.to_sequence(x)

    @steps.to_planes
    def to_planes(self, x: Tensor) -> Tensor:
        return x.unflatten(1, self.grid).permute(0, 3, 1, 2)

    @steps.mix_neighbours
    def mix_neighbours(self, planes: Tensor) -> Tensor:
        return self.conv1(planes)

    @steps.gelu_planes
    def gelu_planes(self, planes: Tensor) -> Tensor:
        return F.gelu(planes)

    @steps.normalize_planes
    def normalize_planes(self, planes: Tensor) -> Tensor:
        return self.bn(planes)

    @steps.mix_again
    def mix_again(self, planes: Tensor) -> Tensor:
        return self.conv2(planes)

    @steps.to_sequence
    def to_sequence(self, planes: Tensor) -> Tensor:
        return planes.flatten(2).transpose(1, 2)


class ScaledBranches(Block):
    """A block whose branches have a learned factor for each channel (LayerScale): (b, n, c) -> (b, n, c).

    Args:
        attention: the attention.
        mlp: the MLP.
        checkpoint: what the backward computes again: "none", "block" or "attention".
        scale: initial value of the factors.
    """

    def __init__(self, attention: XCASpec, mlp: Mlp, checkpoint: str = "none", scale: float = 1.0) -> None:
        super().__init__(attention, mlp, checkpoint, EPS)
        self.gamma1, self.gamma2 = (nn.Parameter(torch.full((attention.dim,), scale)) for _ in range(2))

    @steps.scale1
    def scale1(self, branch: Tensor) -> Tensor:
        return branch * self.gamma1

    @steps.scale2
    def scale2(self, branch: Tensor) -> Tensor:
        return branch * self.gamma2


class XCiTBlock(ScaledBranches):
    """Attention between channels, local patch interaction and an MLP, each with LayerScale: (b, n, c) -> (b, n, c).

    Args:
        attention: the attention.
        mlp: the MLP.
        checkpoint: what the backward computes again: "none", "block" or "attention".
        scale: initial factor of each channel of a branch.
    """

    def __init__(self, attention: XCASpec, mlp: Mlp, checkpoint: str = "none", scale: float = 1.0) -> None:
        super().__init__(attention, mlp, checkpoint, scale)
        self.norm3 = nn.LayerNorm(attention.dim, EPS)
        self.local_mp = LocalPatchInteraction(attention.dim, attention.resolution)
        self.gamma3 = nn.Parameter(torch.full((attention.dim,), scale))

    def residual_branches(self, x: Tensor, *others: Tensor) -> Tensor:
        """Add the scaled outputs of attention, local patch interaction and MLP, each of the normalized tokens."""
        x = self.residual1(x, self.scale1(self.checkpointed("attention", self.attn, self.normalize1(x))))
        x = self.residual3(x, self.scale3(self.local_mp(self.normalize3(x))))
        return self.residual2(x, self.scale2(self.mlp(self.normalize2(x))))

    @steps.norm3
    def normalize3(self, x: Tensor) -> Tensor:
        return self.norm3(x)

    @steps.scale3
    def scale3(self, branch: Tensor) -> Tensor:
        return branch * self.gamma3

    @steps.residual3
    def residual3(self, x: Tensor, branch: Tensor) -> Tensor:
        return x + branch


class ClassAttention(ScaledDotProduct):
    """Attention of the class token, the first one, to all tokens: (b, n, c) -> (b, 1, c)."""

    spelling: ClassVar[dict[str, str]] = steps.CLASS

    def set_up(self, spec: Headed) -> None:
        super().set_up(spec)
        self.q, self.k, self.v = (nn.Linear(spec.dim, spec.dim, bias=spec.qkv_bias) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x, ("b", "n"))
        q, k, v = self.queries_keys_values(x)
        return self.output(self.merge_heads(self.attention(q, k, v)))

    def queries_keys_values(self, x: Tensor) -> Heads:
        return self.project_query(self.select_query(x)), self.project_keys(x), self.project_values(x)

    @steps.select_query
    def select_query(self, x: Tensor) -> Tensor:
        return x.select(1, 0)

    @steps.project_query
    def project_query(self, token: Tensor) -> Tensor:
        return self.q(token).unflatten(-1, (self.heads, 1, -1))

    @steps.project_keys
    def project_keys(self, x: Tensor) -> Tensor:
        return self.k(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)

    @steps.project_values
    def project_values(self, x: Tensor) -> Tensor:
        return self.v(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)


class ClassMlp(Mlp):
    """The MLP of the class token: (b, 1, c) -> (b, 1, c)."""

    spelling: ClassVar[dict[str, str]] = {"n": "1"}


class ClassAttentionBlock(ScaledBranches):
    """A block that changes the class token by class attention and an MLP: (b, n, c) -> (b, n, c).

    Args:
        attention: the attention of the other blocks, which has the same heads.
        mlp: the MLP.
        checkpoint: what the backward computes again: "none", "block" or "attention".
        scale: initial factor of each channel of a branch.
        tokens_norm: whether the second norm is that of all tokens.
    """

    def __init__(
        self,
        attention: XCASpec,
        mlp: Mlp,
        checkpoint: str = "none",
        scale: float = 1.0,
        tokens_norm: bool = True,
    ) -> None:
        super().__init__(attention, mlp, checkpoint, scale)
        self.attn = ClassAttention.of(attention)
        self.tokens_norm = tokens_norm

    def residual_branches(self, x: Tensor, *others: Tensor) -> Tensor:
        """Add what the class token gathers, then what the MLP makes of it."""
        x = self.residual1(x, self.scale1(self.gathered(self.normalize1(x))))
        x = self.norm_all(x) if self.tokens_norm else self.norm_class(x)
        return self.residual2(x, self.replace_class(self.scale_class(self.mlp(self.select_class(x))), x))

    def gathered(self, branch: Tensor) -> Tensor:
        """Return the tokens with the output of the attention in the place of the class token."""
        return self.replace_branch(self.checkpointed("attention", self.attn, branch), branch)

    @steps.replace_branch
    def replace_branch(self, token: Tensor, branch: Tensor) -> Tensor:
        return with_first(token, branch)

    @steps.norm_all
    def norm_all(self, x: Tensor) -> Tensor:
        return self.norm2(x)

    @steps.norm_class
    def norm_class(self, x: Tensor) -> Tensor:
        return with_first(self.norm2(x.narrow(1, 0, 1)), x)

    @steps.select_class
    def select_class(self, x: Tensor) -> Tensor:
        return x.narrow(1, 0, 1)

    @steps.scale_class
    def scale_class(self, branch: Tensor) -> Tensor:
        return branch * self.gamma2

    @steps.replace_class
    def replace_class(self, branch: Tensor, x: Tensor) -> Tensor:
        return with_first(branch, x)


def with_first(token: Tensor, tokens: Tensor) -> Tensor:
    """Return tokens, (b, n, c), with another one, (b, 1, c), in the place of the first."""
    return torch.cat((token, tokens.narrow(1, 1, tokens.shape[1] - 1)), dim=1)


class XCiT(LoadsOthers):
    """XCiT: (b, 3, height, width) -> (b, classes). Official state dicts are converted."""

    def __init__(self, spec: XCiTNetworkSpec) -> None:
        super().__init__()
        self.spec, c, attention = spec, spec.dim, spec.attention()
        scale = 1.0 if spec.depth < DEEP else 1e-5
        self.cls_token = nn.Parameter(torch.zeros(1, 1, c))
        self.patch_embed = PatchEmbed(spec.halvings)
        self.pos_embed = PositionEncoding(c, spec.grid) if spec.fourier else None
        self.blocks = nn.Sequential(*(build_block(spec, attention, scale) for _ in range(spec.depth)))
        self.cls_attn_blocks = nn.Sequential(
            *(
                ClassAttentionBlock(
                    attention,
                    ClassMlp(c, spec.hidden(c), spec.proj_drop),
                    spec.checkpoint,
                    scale,
                    spec.tokens_norm,
                )
                for _ in range(spec.class_depth)
            )
        )
        self.norm = nn.LayerNorm(c, EPS)
        self.head = nn.Linear(c, spec.classes)
        initialize(self)
        nn.init.trunc_normal_(self.cls_token, std=0.02)

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        (y, x), spec = self.spec.grid, self.spec
        return {"y": y, "x": x, "c": spec.dim, "k": spec.classes}

    def arguments(self) -> dict[str, Any]:
        spec = self.spec
        return {"image": spec.image, "patch": spec.patch, "dim": spec.dim, "depth": spec.depth, "classes": spec.classes}

    def forward(self, image: Tensor) -> Tensor:
        height, width = self.spec.image
        self.check_shape(image, {"b": None, "i": 3, "height": height, "width": width}, fix=RESIZE)
        x = self.patch_embed(image)
        if self.pos_embed is not None:
            x = self.add_positions(x, self.pos_embed())
        for block in self.blocks:  # calling the Sequential would keep its first input alive to the end
            x = block(x)
        x = self.prepend(x)
        for block in self.cls_attn_blocks:
            x = block(x)
        x = self.normalize(x)
        x = self.pool(x)
        return self.classify(x)

    @steps.add_positions
    def add_positions(self, patches: Tensor, planes: Tensor) -> Tensor:
        return patches + planes.flatten(2).transpose(1, 2)

    @sequence.prepend
    def prepend(self, patches: Tensor) -> Tensor:
        return torch.cat((self.cls_token.expand(patches.shape[0], -1, -1), patches), dim=1)

    @sequence.norm
    def normalize(self, x: Tensor) -> Tensor:
        return self.norm(x)

    @sequence.pool
    def pool(self, x: Tensor) -> Tensor:
        return x.select(1, 0)

    @sequence.head
    def classify(self, pooled: Tensor) -> Tensor:
        return self.head(pooled)

    def translate(self, state: State) -> None:
        """Convert an official state dict in place."""
        from_official_xcit(state)


def build_block(spec: XCiTNetworkSpec, attention: XCASpec, scale: float = 1.0) -> XCiTBlock:
    """Build a block of the network."""
    return XCiTBlock(attention, Mlp(spec.dim, spec.hidden(spec.dim), spec.proj_drop), spec.checkpoint, scale)


def build(spec: XCiTNetworkSpec) -> nn.Module:
    """Build the module that a Spec describes: the whole network, or one block."""
    return XCiT(spec) if spec.is_whole else build_block(spec, spec.attention())
