"""State dicts of other libraries: their names in ours, which are timm's."""

import re
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

State = dict[str, Tensor]

BUFFERS = ("attn_mask", "relative_position_index", "relative_coords_table")
"""What official checkpoints keep although it follows from the sizes."""


class LoadsOthers(nn.Module):
    """A network that loads state dicts of other libraries: `translate` changes one in place before it loads."""

    def translate(self, state: State) -> None:
        """Give the names and shapes of another library ours."""
        raise NotImplementedError

    def _load_from_state_dict(self, state_dict: State, prefix: str, *args: Any) -> None:
        if not prefix:  # else the network is part of a larger one, whose names are its own
            for name in [name for name in state_dict if name.endswith(BUFFERS)]:
                del state_dict[name]
            self.translate(state_dict)
        super()._load_from_state_dict(state_dict, prefix, *args)


def from_torchvision_vit(state: State) -> None:
    """torchvision's `vit_b_16` and its siblings."""
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


def from_torchvision_swin(state: State) -> None:
    """torchvision's `swin_t`, `swin_v2_t` and their siblings, whose even features are stages and odd ones merge."""

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
        if attention + "logit_scale" in state:  # V2 adds no bias to its keys: the middle third is never read
            state[attention + "q_bias"], _, state[attention + "v_bias"] = state.pop(name).chunk(3)


def from_official_swin(state: State) -> None:
    """Microsoft's checkpoints, which merge at the end of a stage, not at the beginning of the next."""
    _rename(
        state,
        "layers.0.downsample.reduction.weight",
        {
            r"layers\.(\d+)\.downsample\.": lambda match: f"layers.{int(match[1]) + 1}.downsample.",
            r"head\.(weight|bias)": r"head.fc.\1",
        },
    )


def _rename(state: State, telling: str, names: dict[str, str | Callable[[re.Match[str]], str]]) -> None:
    """Rename by patterns, in their order, where the name that tells the library is there."""
    if telling not in state:
        return
    renamed = {}
    for name, tensor in state.items():
        for pattern, ours in names.items():
            name = re.sub(f"^{pattern}", ours, name)
        renamed[name] = tensor
    state.clear()
    state.update(renamed)
