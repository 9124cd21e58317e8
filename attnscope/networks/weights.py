"""State dicts of other libraries: conversion of their names to attnscope's, which are timm's."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from attnscope.attentions.layer import Layer

State = dict[str, Tensor]

BUFFERS = ("attn_mask", "relative_position_index", "relative_coords_table")
"""Buffers of official checkpoints that the sizes determine."""


class LoadsOthers(Layer):
    """A network that loads state dicts of other libraries; `translate` first converts them in place."""

    def translate(self, state: State) -> None:
        """Convert the names and the shapes of another library in place."""
        raise NotImplementedError

    def _load_from_state_dict(self, state_dict: State, prefix: str, *args: Any) -> None:
        if not prefix:  # with a prefix, the network is part of a larger module with its own names
            for name in [name for name in state_dict if name.endswith(BUFFERS)]:
                del state_dict[name]
            self.translate(state_dict)
        super()._load_from_state_dict(state_dict, prefix, *args)


def from_torchvision_vit(state: State) -> None:
    """Convert a state dict of torchvision's `vit_b_16` and its variants in place."""
    _rename(
        state,
        "conv_proj.weight",
        {
            r"conv_proj\.": "patch_embed.proj.",
            r"class_token": "cls_token",
            r"encoder\.pos_embedding": "pos_embed",
            r"encoder\.layers\.encoder_layer_(\d+)\.ln_(\d)\.": r"blocks.\1.norm\2.",
            r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.in_proj_": r"blocks.\1.attn.qkv.",
            r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.out_proj\.": r"blocks.\1.attn.proj.",
            r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:0|linear_1)\.": r"blocks.\1.mlp.fc1.",
            r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:3|linear_2)\.": r"blocks.\1.mlp.fc2.",
            r"encoder\.ln\.": "norm.",
            r"heads\.head\.": "head.",
        },
    )


def from_timm_eva(state: State) -> None:
    """Convert a state dict of timm's Eva, such as EVA-02, DINOv3 or RoPE-ViT, to the names of its ViT in place.

    There, LayerScale has no module, and the frequencies of all blocks are one parameter. Separate projections of q, k
    and v become one.
    """
    for name in list(state):
        block, _, rest = name.rpartition(".")
        if rest in ("gamma_1", "gamma_2"):
            state[f"{block}.ls{rest[-1]}.gamma"] = state.pop(name)
    for name in [name for name in state if name.endswith("attn.q_proj.weight")]:
        attention = name.removesuffix("q_proj.weight")
        state[f"{attention}qkv.weight"] = torch.cat([state.pop(f"{attention}{one}_proj.weight") for one in "qkv"])
        for one in "qv":
            if f"{attention}{one}_proj.bias" in state:
                state[f"{attention}{one}_bias"] = state.pop(f"{attention}{one}_proj.bias")
    for index, of_block in enumerate(state.pop("rope.freqs").unbind(1) if "rope.freqs" in state else ()):
        state[f"blocks.{index}.attn.freqs"] = of_block


def from_official_dino(state: State, has_bias: bool) -> None:
    """Convert Meta's checkpoints of DINOv2 and DINOv3 in place.

    With registers, only patches have positions here, so that the class token gets the sum of its own. The keys of
    DINOv3 have no bias; if the network has none for q and v either, those of the checkpoint must be zero.

    Args:
        state: the state dict.
        has_bias: whether the network has a bias of q and v.
    """
    if state.pop("mask_token", None) is None:
        return
    for name in [name for name in state if name.startswith(("rope_embed.", "local_cls_norm.")) or "bias_mask" in name]:
        del state[name]
    if "register_tokens" in state:
        first, state["pos_embed"] = state["pos_embed"].tensor_split((1,), dim=1)
        state["cls_token"] = state["cls_token"] + first
    if "storage_tokens" in state:
        for name in [name for name in state if name.endswith("attn.qkv.bias")]:
            q, _, v = state.pop(name).chunk(3)
            if has_bias or q.any() or v.any():
                state[name.replace("qkv.bias", "q_bias")], state[name.replace("qkv.bias", "v_bias")] = q, v
    _rename(
        state,
        "cls_token",
        {
            r"(register|storage)_tokens": "reg_token",
            r"(.*)\.mlp\.w12\.": r"\1.mlp.fc1.",
            r"(.*)\.mlp\.w1\.": r"\1.mlp.fc1_g.",
            r"(.*)\.mlp\.w2\.": r"\1.mlp.fc1_x.",
            r"(.*)\.mlp\.w3\.": r"\1.mlp.fc2.",
        },
    )


def from_torchvision_swin(state: State) -> None:
    """Convert a state dict of torchvision's `swin_t`, `swin_v2_t` and their variants in place.

    In `features`, odd indices are stages and even ones from 2 are patch merging.
    """

    def stage(match: re.Match[str]) -> str:
        return f"layers.{(int(match[1]) - 1) // 2}.blocks.{match[2]}."

    def merging(match: re.Match[str]) -> str:
        return f"layers.{int(match[1]) // 2}.downsample.{match[2]}."

    _rename(
        state,
        "features.0.0.weight",
        {
            r"features\.0\.0\.": "patch_embed.proj.",
            r"features\.0\.2\.": "patch_embed.norm.",
            r"features\.(\d+)\.(\d+)\.": stage,
            r"features\.(\d+)\.(reduction|norm)\.": merging,
            r"(.*)\.mlp\.0\.": r"\1.mlp.fc1.",
            r"(.*)\.mlp\.3\.": r"\1.mlp.fc2.",
            r"head\.(weight|bias)": r"head.fc.\1",
        },
    )
    for name in [name for name in state if name.endswith("attn.qkv.bias")]:
        attention = name.removesuffix("qkv.bias")
        if attention + "logit_scale" in state:  # Swin V2 has no bias for keys: the middle third is unused
            state[attention + "q_bias"], _, state[attention + "v_bias"] = state.pop(name).chunk(3)


def from_official_swin(state: State) -> None:
    """Convert Microsoft's checkpoints in place: there, patch merging belongs to the end of the previous stage."""
    _rename(
        state,
        "layers.0.downsample.reduction.weight",
        {
            r"layers\.(\d+)\.downsample\.": lambda match: f"layers.{int(match[1]) + 1}.downsample.",
            r"head\.(weight|bias)": r"head.fc.\1",
        },
    )


def from_official_sam(state: State) -> None:
    """Convert a checkpoint of SAM in place: keep the image encoder, without the prompt encoder and the mask decoder."""
    marker = "image_encoder.patch_embed.proj.weight"
    if marker in state:
        for name in [name for name in state if not name.startswith("image_encoder.")]:
            del state[name]
    _rename(state, marker, {r"image_encoder\.": "", r"(.*)\.mlp\.lin(\d)\.": r"\1.mlp.fc\2."})


def from_official_nat(state: State) -> None:
    """Convert official checkpoints of NAT in place: there, patch merging belongs to the end of the previous stage."""
    _rename(
        state,
        "levels.0.downsample.reduction.weight",
        {r"levels\.(\d+)\.downsample\.": lambda match: f"levels.{int(match[1]) + 1}.downsample."},
    )


def from_timm_maxvit(state: State, heads: Mapping[int, int]) -> None:
    """Convert a state dict of timm's ports of MaxViT from TensorFlow in place.

    There, all queries precede all keys and all values, and the table of a position bias is (h, 2P−1, 2P−1).

    Args:
        state: the state dict.
        heads: the number of attention heads of each stage, by its index.
    """
    for name in list(state):
        if name.endswith("rel_pos.relative_position_bias_table") and state[name].dim() == 3:
            state[name] = state[name].flip(1, 2).flatten(1).t().contiguous()
            attention = name.removesuffix("rel_pos.relative_position_bias_table")
            for kind in ("weight", "bias"):
                qkv = state[f"{attention}qkv.{kind}"]
                apart = qkv.unflatten(0, (3, heads[int(name.split(".")[1])], -1))
                state[f"{attention}qkv.{kind}"] = apart.transpose(0, 1).flatten(0, 2)


def from_official_xcit(state: State) -> None:
    """Convert official checkpoints of XCiT in place: class attention has one projection of queries, keys and values."""
    for name in [name for name in state if name.startswith("cls_attn_blocks.") and ".attn.qkv." in name]:
        attention, _, kind = name.rpartition("qkv.")
        for one, part in zip("qkv", state.pop(name).chunk(3), strict=True):
            state[f"{attention}{one}.{kind}"] = part
    _rename(state, "pos_embeder.token_projection.weight", {r"pos_embeder\.": "pos_embed."})


def from_timm_twins(state: State) -> None:
    """Convert a state dict of timm's Twins in place: there, each kind of module has a list with one for each stage."""

    def merging(match: re.Match[str]) -> str:
        return "patch_embed." if match[1] == "0" else f"stages.{match[1]}.downsample."

    _rename(
        state,
        "patch_embeds.0.proj.weight",
        {
            r"patch_embeds\.(\d+)\.": merging,
            r"blocks\.(\d+)\.": r"stages.\1.blocks.",
            r"pos_block\.(\d+)\.": r"stages.\1.pos_block.",
        },
    )


def from_official_cswin(state: State) -> None:
    """Convert official checkpoints of CSWin in place: there, stages count from 1, and attention is part of the block."""

    def block(match: re.Match[str]) -> str:
        return f"stages.{int(match[1]) - 1}.blocks.{match[2]}."

    _rename(
        state,
        "stage1_conv_embed.0.weight",
        {
            r"stage1_conv_embed\.0\.": "patch_embed.proj.",
            r"stage1_conv_embed\.2\.": "patch_embed.norm.",
            r"merge(\d+)\.conv\.": r"stages.\1.downsample.proj.",
            r"merge(\d+)\.norm\.": r"stages.\1.downsample.norm.",
            r"stage(\d+)\.(\d+)\.": block,
            r"(stages\.\d+\.blocks\.\d+)\.(qkv|proj|attns)\.": r"\1.attn.\2.",
        },
    )


def _rename(state: State, marker: str, names: dict[str, str | Callable[[re.Match[str]], str]]) -> None:
    """Rename keys by patterns, in order, if the state dict contains the key that identifies the library."""
    if marker not in state:
        return
    renamed = {}
    for name, tensor in state.items():
        for pattern, replacement in names.items():
            name = re.sub(f"^{pattern}", replacement, name)
        renamed[name] = tensor
    state.clear()
    state.update(renamed)
