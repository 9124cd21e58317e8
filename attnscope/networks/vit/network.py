"""ViT, DeiT and their successors as modules with timm's parameter names, which load state dicts of torchvision, too."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnscope.attentions.layer import CHANNELS_FIRST, Layer
from attnscope.networks import steps as block_steps
from attnscope.networks.layers import Checkpointing, LayerScale, Mlp, PackedSwiGLU, SwiGLU, initialize
from attnscope.networks.resizing import resize_positions
from attnscope.networks.vit import steps
from attnscope.networks.vit.mlp import GELU, PACKED, SWIGLU
from attnscope.networks.vit.spec import ALL, PATCHES, ViTNetworkSpec
from attnscope.networks.weights import LoadsOthers, State, from_official_dino, from_timm_eva, from_torchvision_vit

MLP_MODULES = {GELU: Mlp, SWIGLU: SwiGLU, PACKED: PackedSwiGLU}
RESIZE = "resize it, or build the network for its size"


class PatchEmbed(Layer):
    """Patch embedding: (b, 3, height, width) -> (b, n, c)."""

    def __init__(self, spec: ViTNetworkSpec) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, spec.dim, spec.patch, stride=spec.patch)
        self.pads = spec.image_is_padded

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        p, q = self.proj.kernel_size
        return {"i": 3, "p": p, "q": q, "c": self.proj.out_channels}

    def arguments(self) -> dict[str, Any]:
        return {"dim": self.proj.out_channels, "patch": self.proj.kernel_size}

    def forward(self, image: Tensor) -> Tensor:
        self.check_shape(image, {"b": None, "i": 3, "height": None, "width": None}, fix=CHANNELS_FIRST)
        if self.pads:
            image = self.pad_image(image)
        return self.flatten(self.embed(image))

    @steps.pad_image
    def pad_image(self, image: Tensor) -> Tensor:
        (height, width), (p, q) = image.shape[2:], self.proj.kernel_size
        return F.pad(image, (0, -width % q, 0, -height % p))

    @steps.embed
    def embed(self, image: Tensor) -> Tensor:
        return self.proj(image)

    @steps.flatten
    def flatten(self, planes: Tensor) -> Tensor:
        return planes.flatten(2).transpose(1, 2)


class Block(Checkpointing):
    """Norm, attention, residual, norm, MLP, residual: (b, n, c) -> (b, n, c)."""

    def __init__(self, spec: ViTNetworkSpec) -> None:
        super().__init__(spec.checkpoint, spec.drops)
        dim, eps, mlp = spec.dim, spec.norm_eps, MLP_MODULES[spec.mlp]
        self.norm1 = nn.LayerNorm(dim, eps)
        self.attn = spec.attention().build()
        self.ls1 = LayerScale(dim) if spec.layer_scale else None
        self.norm2 = nn.LayerNorm(dim, eps)
        self.mlp = mlp(dim, spec.hidden(dim), spec.proj_drop, eps if spec.mlp_norm else None)
        self.ls2 = LayerScale(dim) if spec.layer_scale else None

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        return {"c": self.norm1.normalized_shape[0]}

    def arguments(self) -> dict[str, Any]:
        return self.mlp.arguments()

    def forward(self, x: Tensor) -> Tensor:
        self.check_shape(x, {"b": None, "n": None, "c": self.norm1.normalized_shape[0]})
        return self.checkpointed("block", self.residual_branches, x)

    def residual_branches(self, x: Tensor) -> Tensor:
        """Add the attention and the MLP, each of the normalized tokens."""
        x = self.residual1(x, self.attention_branch(x))
        return self.residual2(x, self.mlp_branch(x))

    def attention_branch(self, x: Tensor) -> Tensor:
        """Return what the attention adds to the tokens."""
        x = self.checkpointed("attention", self.attn, self.normalize1(x))
        return x if self.ls1 is None else self.scale1(x)

    def mlp_branch(self, x: Tensor) -> Tensor:
        """Return what the MLP adds to the tokens."""
        x = self.mlp(self.normalize2(x))
        return x if self.ls2 is None else self.scale2(x)

    @block_steps.scale1
    def scale1(self, branch: Tensor) -> Tensor:
        assert self.ls1 is not None
        return branch * self.ls1.gamma

    @block_steps.scale2
    def scale2(self, branch: Tensor) -> Tensor:
        assert self.ls2 is not None
        return branch * self.ls2.gamma

    @block_steps.norm1
    def normalize1(self, x: Tensor) -> Tensor:
        return self.norm1(x)

    @block_steps.residual1
    def residual1(self, x: Tensor, branch: Tensor) -> Tensor:
        return x + branch

    @block_steps.norm2
    def normalize2(self, x: Tensor) -> Tensor:
        return self.norm2(x)

    @block_steps.residual2
    def residual2(self, x: Tensor, branch: Tensor) -> Tensor:
        return x + branch


class VisionTransformer(LoadsOthers):
    """ViT, DeiT and their successors: (b, 3, height, width) -> (b, classes), or (b, c) without a head.

    State dicts of timm's VisionTransformer are loaded unchanged. Those of its Eva, of torchvision, and of Meta's DINOv2
    and DINOv3 are converted, and buffers of other checkpoints are ignored. Position embeddings for another image size
    are resampled with bicubic interpolation, as in timm.
    """

    def __init__(self, spec: ViTNetworkSpec) -> None:
        super().__init__()
        self.spec, c = spec, spec.dim
        self.cls_token = nn.Parameter(torch.zeros(1, 1, c)) if spec.cls else None
        self.dist_token = nn.Parameter(torch.zeros(1, 1, c)) if spec.distilled else None
        self.reg_token = nn.Parameter(torch.zeros(1, spec.registers, c)) if spec.registers else None
        self.pos_embed = nn.Parameter(torch.empty(1, spec.positions, c)) if spec.positions else None
        self.patch_embed = PatchEmbed(spec)
        self.blocks = nn.Sequential(*(Block(spec) for _ in range(spec.depth)))
        self.norm = None if spec.pool_norm else nn.LayerNorm(c, spec.norm_eps)
        self.fc_norm = nn.LayerNorm(c, spec.norm_eps) if spec.pool_norm else None
        self.head = nn.Linear(c, spec.classes) if spec.classes else None
        self.head_dist = nn.Linear(c, spec.classes) if spec.distilled else None
        initialize(self)
        for parameter in (self.cls_token, self.dist_token, self.reg_token, self.pos_embed):
            if parameter is not None:
                nn.init.trunc_normal_(parameter, std=0.02)

    @property
    def sizes(self) -> dict[str, int]:
        """Return the sizes of the axis letters that the module sets."""
        (y, x), spec = self.spec.grid, self.spec
        return {"y": y, "x": x, "n": spec.tokens, "r": spec.registers, "c": spec.dim, "k": spec.classes}

    def arguments(self) -> dict[str, Any]:
        spec = self.spec
        return {"image": spec.image, "patch": spec.patch, "dim": spec.dim, "depth": spec.depth, "classes": spec.classes}

    def forward(self, image: Tensor) -> Tensor:
        height, width = self.spec.image
        self.check_shape(image, {"b": None, "i": 3, "height": height, "width": width}, fix=RESIZE)
        x = self.add_tokens(self.patch_embed(image))  # a variable would keep the patches alive
        for block in self.blocks:  # calling the Sequential would keep its first input alive to the end
            x = block(x)
        # Each result is assigned to x at once, since a variable of a method would keep the tokens alive.
        if self.norm is not None:
            x = self.normalize(x)
        if self.dist_token is not None:
            x, taught = self.pool_two(x)
            x, taught = self.classify(x), self.classify_as_taught(taught)
            return self.average(x, taught)
        average = self.pool_patches if self.spec.prefix else self.pool_mean
        x = average(x) if self.spec.averages else self.pool(x)
        if self.fc_norm is not None:
            x = self.norm_pooled(x)
        return x if self.head is None else self.classify(x)

    def add_tokens(self, patches: Tensor) -> Tensor:
        """Add positions and the tokens before the patches: (b, patches, c) -> (b, n, c)."""
        if self.spec.positioned == PATCHES:
            patches = self.add_patch_positions(patches)
        patches = self.with_prefix(patches)
        return self.add_positions(patches) if self.spec.positioned == ALL else patches

    def with_prefix(self, patches: Tensor) -> Tensor:
        """Add the class token, the distillation token and registers, as far as the network has them, before the patches."""
        if self.reg_token is not None:
            prepend = self.prepend_only_registers if self.cls_token is None else self.prepend_registers
            return prepend(patches)
        if self.dist_token is not None:
            return self.prepend_two(patches)
        return patches if self.cls_token is None else self.prepend(patches)

    @steps.prepend_registers
    def prepend_registers(self, patches: Tensor) -> Tensor:
        assert self.cls_token is not None
        assert self.reg_token is not None
        b = patches.shape[0]
        return torch.cat((self.cls_token.expand(b, -1, -1), self.reg_token.expand(b, -1, -1), patches), dim=1)

    @steps.prepend_only_registers
    def prepend_only_registers(self, patches: Tensor) -> Tensor:
        assert self.reg_token is not None
        return torch.cat((self.reg_token.expand(patches.shape[0], -1, -1), patches), dim=1)

    @steps.add_patch_positions
    def add_patch_positions(self, patches: Tensor) -> Tensor:
        assert self.pos_embed is not None
        return self.pos_embed + patches

    @steps.prepend
    def prepend(self, patches: Tensor) -> Tensor:
        assert self.cls_token is not None
        return torch.cat((self.cls_token.expand(patches.shape[0], -1, -1), patches), dim=1)

    @steps.prepend_two
    def prepend_two(self, patches: Tensor) -> Tensor:
        assert self.cls_token is not None
        assert self.dist_token is not None
        b = patches.shape[0]  # len() would be a constant in an exported program
        first = self.cls_token.expand(b, -1, -1), self.dist_token.expand(b, -1, -1)
        return torch.cat((*first, patches), dim=1)

    @steps.add_positions
    def add_positions(self, x: Tensor) -> Tensor:
        assert self.pos_embed is not None
        # The sum has the memory layout of its first operand. Unlike the patches, the positions are always contiguous.
        return self.pos_embed + x

    @steps.norm
    def normalize(self, x: Tensor) -> Tensor:
        assert self.norm is not None
        return self.norm(x)

    @steps.pool
    def pool(self, x: Tensor) -> Tensor:
        # In torch 2.5 `[:, 0]` creates two views, and the backward of each allocates a gradient of all tokens.
        return x.select(1, 0)

    @steps.pool_mean
    def pool_mean(self, x: Tensor) -> Tensor:
        return x.mean(dim=1)

    @steps.pool_patches
    def pool_patches(self, x: Tensor) -> Tensor:
        prefix = self.spec.prefix
        return x.narrow(1, prefix, x.shape[1] - prefix).mean(dim=1)

    @steps.norm_pooled
    def norm_pooled(self, pooled: Tensor) -> Tensor:
        assert self.fc_norm is not None
        return self.fc_norm(pooled)

    @steps.pool_two
    def pool_two(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.select(1, 0), x.select(1, 1)

    @steps.head
    def classify(self, pooled: Tensor) -> Tensor:
        assert self.head is not None
        return self.head(pooled)

    @steps.head_dist
    def classify_as_taught(self, taught: Tensor) -> Tensor:
        assert self.head_dist is not None
        return self.head_dist(taught)

    @steps.average
    def average(self, logits: Tensor, votes: Tensor) -> Tensor:
        return (logits + votes).mul_(0.5)

    def translate(self, state: State) -> None:
        """Convert another library's state dict in place, and resample position embeddings to this network's grid."""
        from_torchvision_vit(state)
        from_timm_eva(state)
        from_official_dino(state, self.spec.qkv_bias)
        positions = state.get("pos_embed")
        if positions is None or self.pos_embed is None or positions.shape[1] == self.pos_embed.shape[1]:
            return
        prefix = self.pos_embed.shape[1] - self.spec.grid[0] * self.spec.grid[1]
        patches = positions.shape[1] - prefix
        side = round(patches**0.5)
        if side * side == patches:
            state["pos_embed"] = resize_positions(positions, (side, side), self.spec.grid, prefix)


def build(spec: ViTNetworkSpec) -> nn.Module:
    """Build the module that a Spec describes: the whole network, or one block."""
    return VisionTransformer(spec) if spec.is_whole else Block(spec)
