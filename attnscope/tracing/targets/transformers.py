"""Build models of transformers from their configs, and derive their inputs from the forward and the config.

A model names its inputs in the signature of its forward, and their sizes in its config or in the configs of its parts.
"""

import inspect
import json
import linecache
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from traceback import walk_tb
from typing import TYPE_CHECKING, Any

from attnscope.core.errors import UsageError, did_you_mean, literal
from attnscope.core.files import text_of
from attnscope.tracing.targets.target import InputSpec, Target

if TYPE_CHECKING:
    from torch import Tensor, nn

TOKENS = 128
"""Tokens of a text, if the model takes as many."""
SAMPLES = 16000
"""Samples of a sound: one second at the usual rate."""
FRAMES = 512
"""Frames of a spectrogram, if the config does not say."""
SIDE = 224
"""Pixels of the side of an image, if the config does not say."""


def from_hugging_face(library: Any, name: str, args: Mapping[str, Any]) -> Target:
    """Return the target of a model of transformers.

    Args:
        library: the package transformers.
        name: a model type, or the path of a config.json, whose `architectures` name the class.
        args: values that replace those of the config.

    Raises:
        UsageError: the type, the file or an argument does not exist.
    """
    path = Path(name)
    config, notes = _config(library, name, path), []
    for key, value in args.items():
        if not hasattr(config, key):
            names = list(config.to_dict())
            hint = did_you_mean(key, names)
            raise UsageError(f"{{arg}} {key} is not in the config of hf:{name}; {hint}")
        setattr(config, key, value)
    wanted = (getattr(config, "architectures", None) or [None])[0] if path.exists() else None
    model: Any = getattr(library, wanted, None) if wanted else None

    def build() -> "nn.Module":
        try:
            module: nn.Module = model._from_config(config) if model else library.AutoModel.from_config(config)
        except TypeError as error:
            _check_absent(name, config, error)
            raise
        return module

    if wanted and model is None:
        notes.append(f"{wanted} is not in transformers: AutoModel builds the base model, without its head")
    return Target(
        f"hf:{name}",
        build,
        find_inputs=partial(find_inputs, config),
        other_inputs=partial(other_inputs, config),
        notes=tuple(notes),
    )


def _check_absent(name: str, config: Any, error: TypeError) -> None:
    """Raise UsageError if the line that could not build a model names a field of the config that is None."""
    frame, line = list(walk_tb(error.__traceback__))[-1]
    words = re.findall(r"\w+", linecache.getline(frame.f_code.co_filename, line))
    absent = [word for word in words if _values(config).get(word, "") is None]
    if absent:
        raise UsageError(
            f"hf:{name} cannot be built, since its config has no {absent[0]}; use {{arg}} {absent[0]}=VALUE"
        ) from error


def _config(library: Any, name: str, path: Path) -> Any:
    """Return the config in a file or folder, or the default config of a model type.

    Raises:
        UsageError: the file is not a config, or the type is unknown.
    """
    types = list(library.CONFIG_MAPPING)
    near = partial(did_you_mean, names=types, many="transformers.CONFIG_MAPPING has all")
    if path.exists():
        file = path / "config.json" if path.is_dir() else path
        try:
            values = json.loads(text_of(file, f"hf:{literal(name)}"))
            kind = values["model_type"]
        except (json.JSONDecodeError, RecursionError, KeyError, TypeError) as error:
            fault = "has no model_type" if isinstance(error, KeyError | TypeError) else "is not a JSON file"
            raise UsageError(f"hf:{literal(name)} {fault}; use the config.json of a model of transformers") from None
        if kind not in types:
            raise UsageError(f"hf:{literal(name)} has the unknown model_type {literal(kind)}; {near(str(kind))}")
        return library.CONFIG_MAPPING[kind].from_dict(values)
    if name not in types:
        what = "would have to be downloaded from the hub" if "/" in name else "is an unknown model type"
        raise UsageError(f"hf:{literal(name)} {what}; use a type or a config.json; {near(name.split('/')[-1])}")
    return library.AutoConfig.for_model(name)


@dataclass(frozen=True)
class Fields:
    """The fields of a config and of the configs of its parts, such as `vision_config`.

    `kinds` are words in the names of the parts that are searched before the config itself and its other parts.
    """

    config: Any
    kinds: tuple[str, ...] = ()

    def configs(self) -> Iterator[Any]:
        """Yield the config and those of its parts, at any depth, in the order of the search."""
        parts = dict(_parts(self.config))
        own = [name for name in parts if any(kind in name for kind in self.kinds)]
        for name in own:
            yield from Fields(parts[name]).configs()
        yield self.config
        for name, part in parts.items():
            if name not in own:
                yield from Fields(part).configs()

    def find(self, *names: str) -> Any:
        """Return the first value of a field with one of these names; None if no config has one."""
        for config in self.configs():
            for name in names:
                if (value := _values(config).get(name)) is not None and value is not False:
                    return value
        return None

    def number(self, *names: str, default: int) -> int:
        """Return the first whole number of a field with one of these names."""
        value = self.find(*names)
        value = value[0] if isinstance(value, list | tuple) and value else value
        return value if isinstance(value, int) and value > 0 else default

    def pair(self, *names: str, default: int) -> tuple[int, int]:
        """Return the height and the width in a field with one of these names."""
        value = self.find(*names)
        if isinstance(value, Mapping):
            value = (value["height"], value["width"]) if "height" in value else next(iter(value.values()))
        sides = tuple(value) if isinstance(value, list | tuple) else (value, value)
        whole = all(isinstance(side, int) and side > 0 for side in sides) and len(sides) >= 2
        return (sides[-2], sides[-1]) if whole else (default, default)


def _values(config: Any) -> Mapping[str, Any]:
    """Return the fields of a config with their own names, and with the names that transformers maps to them."""
    values = dict(config) if isinstance(config, Mapping) else dict(vars(config))
    for alias, name in getattr(config, "attribute_map", {}).items():
        values.setdefault(alias, values.get(name))
    return values


def _parts(config: Any) -> Iterator[tuple[str, Any]]:
    """Yield the configs of the parts of a config, with their names."""
    for name, value in _values(config).items():
        if hasattr(value, "to_dict") and not name.startswith("_"):
            yield name, value


VISION = ("vision", "image", "visual", "encoder", "backbone")
TEXT = ("text", "decoder", "llm", "language")
AUDIO = ("audio", "speech", "encoder")


@dataclass(frozen=True)
class Sizes:
    """The sizes of the inputs of a model, from its config."""

    module: "nn.Module"
    config: Any
    takes: Mapping[str, inspect.Parameter]

    @property
    def vision(self) -> Fields:
        """Return the fields of the part that reads images."""
        return Fields(self.config, VISION)

    @property
    def text(self) -> Fields:
        """Return the fields of the part that reads text."""
        return Fields(self.config, TEXT)

    @property
    def audio(self) -> Fields:
        """Return the fields of the part that reads sounds."""
        return Fields(self.config, AUDIO)

    @property
    def tokens(self) -> int:
        """Return the number of tokens of a text."""
        return min(TOKENS, self.text.number("max_position_embeddings", "n_positions", "max_seq_len", default=TOKENS))

    @property
    def channels(self) -> int:
        """Return the number of channels of an image."""
        return self.vision.number("num_channels", "in_channels", "in_chans", default=3)

    @property
    def image(self) -> tuple[int, int]:
        """Return the height and width of an image, multiples of a patch."""
        names = ("image_size", "img_size", "input_size", "crop_size")
        innermost_first = [*self.module.modules()][::-1]
        found = [(name, getattr(each, name, None)) for each in innermost_first for name in names[:2]]
        own = Fields({name: value for name, value in found if value is not None})
        sides = self.vision.pair(*names, default=0)
        return sides if all(sides) else own.pair(*names, default=SIDE)

    @property
    def tiles(self) -> tuple[tuple[int, int], tuple[int, int]] | None:
        """Return the rows and columns of the tiles of an image, and its height and width; None for one without tiles."""
        resolutions = Fields(self.config).find("image_grid_pinpoints")
        if resolutions:
            height, width = resolutions[0]
            return (-(-height // self.image[0]), -(-width // self.image[1])), (height, width)
        takes_several = "pixel_attention_mask" in self.takes and "spatial_shapes" not in self.takes
        return ((0, 0), self.image) if takes_several else None

    @property
    def frames(self) -> int | None:
        """Return the number of frames of a video; None for a model that takes images."""
        kinds = getattr(self.module, "input_modalities", ())
        takes_video = self.vision.find("num_frames", "frames_per_clip") or ("video" in kinds and "image" not in kinds)
        return self.vision.number("num_frames", "frames_per_clip", default=8) if takes_video else None

    @property
    def patch(self) -> int:
        """Return the pixels of the side of a patch."""
        return self.vision.pair("patch_size", "spatial_patch_size", default=16)[0]

    @property
    def grid(self) -> tuple[int, int, int]:
        """Return the frames, rows and columns of the patches of an image; the model may merge several patches."""
        side = max(1, SIDE // self.patch // self.merge) * self.merge
        return 1, side, side

    @property
    def merge(self) -> int:
        """Return the patches along the side of a square that the model merges."""
        names = ("spatial_merge_size", "merge_size", "downsample_ratio", "pooling_kernel_size")
        return self.vision.number(*names, default=2)

    @property
    def mels(self) -> int:
        """Return the number of bands of a spectrogram, times the frames that its user stacks."""
        names = (
            "num_mel_bins",
            "input_feat_per_channel",
            "feature_size",
            "n_mels",
            "num_mels",
            "mel_bins",
            "input_dim",
            "feature_projection_input_dim",
            "subsampling_conv_channels",
        )
        return self.audio.number(*names, default=80) * self.audio.number("num_stacked_frames", default=1)

    @property
    def hidden(self) -> int:
        """Return the embedding dimension."""
        return Fields(self.config).number("hidden_size", "embed_dim", "d_model", "hidden_dim", default=768)


def _image(sizes: Sizes, name: str) -> InputSpec:
    """Return the input of an image, or of its patches for a model whose user cuts it."""
    if {"image_grid_thw", "grid_thw"} & set(sizes.takes):
        depth = sizes.vision.number("temporal_patch_size", default=1)
        return InputSpec((prod(sizes.grid), sizes.channels * depth * sizes.patch**2), name=name)
    if {"spatial_shapes", "pixel_position_ids"} & set(sizes.takes):
        return InputSpec((1, prod(sizes.grid), sizes.channels * sizes.patch**2), name=name)
    tiles = sizes.tiles
    frames = (1 + prod(tiles[0]),) if tiles else (sizes.frames,) if sizes.frames else ()
    return InputSpec((1, *frames, sizes.channels, *sizes.image), name=name)


def _video(sizes: Sizes, name: str) -> InputSpec:
    frames = sizes.vision.number("num_frames", "frames_per_clip", default=8)
    return InputSpec((1, frames, sizes.channels, *sizes.image), name=name)


def _grid(sizes: Sizes, name: str) -> InputSpec:
    return InputSpec((1, 3), "int64", name, sizes.grid)


def _patch_grid(sizes: Sizes, name: str) -> InputSpec:
    return InputSpec((1, 2), "int64", name, sizes.grid[1:])


def _patch_positions(sizes: Sizes, name: str) -> InputSpec:
    """Return the input of the column and the row of each patch."""
    _, rows, columns = sizes.grid
    values = tuple((column, row) for row in range(rows) for column in range(columns))
    return InputSpec((1, rows * columns, 2), "int64", name, values)


def _patch_mask(sizes: Sizes, name: str) -> InputSpec:
    """Return the mask of the patches, or of the pixels of a model that takes several images."""
    return InputSpec((1, 1, *sizes.image) if sizes.tiles else (1, prod(sizes.grid)), "int64", name, 1)


def _image_size(sizes: Sizes, name: str) -> InputSpec:
    return InputSpec((1, 2), "int64", name, sizes.tiles[1] if sizes.tiles else sizes.image)


def _pixel_mask(sizes: Sizes, name: str) -> InputSpec:
    return InputSpec((1, *sizes.image), "int64", name, 1)


def _text(sizes: Sizes, name: str) -> InputSpec:
    return InputSpec((1, sizes.tokens), "int64", name)


def _mask(sizes: Sizes, name: str) -> InputSpec:
    return InputSpec((1, sizes.tokens), "int64", name, 1)


def _boxes(sizes: Sizes, name: str) -> InputSpec:
    return InputSpec((1, sizes.tokens, 4), "int64", name, (0, 0, 1, 1))


def _patch_images(sizes: Sizes, name: str) -> InputSpec:
    """Return the input of the patches of an image as small images."""
    return InputSpec((prod(sizes.grid), sizes.channels, sizes.patch, sizes.patch), name=name)


def _merged_patches(sizes: Sizes, name: str) -> InputSpec:
    """Return the input of squares of patches as small images with their channels last."""
    _, rows, columns = sizes.grid
    return InputSpec((rows * columns // sizes.merge**2, *[sizes.merge * sizes.patch] * 2, sizes.channels), name=name)


def _flat_patches(sizes: Sizes, name: str) -> InputSpec:
    return InputSpec((1, prod(sizes.grid), sizes.channels * sizes.patch**2), name=name)


def _pair(sizes: Sizes, name: str) -> InputSpec:
    """Return the input of two images to compare."""
    return InputSpec((1, 2, sizes.channels, *sizes.image), name=name)


def _rounded_image(sizes: Sizes, name: str) -> InputSpec:
    """Return the input of an image whose rows and columns of patches a model can join to squares after its vision part."""
    spec, unit = _image(sizes, name), sizes.patch * Fields(sizes.config).number("scale_factor", default=1)
    if len(spec.shape) < 4:
        return spec
    return replace(spec, shape=(*spec.shape[:-2], *[max(unit, side // unit * unit) for side in spec.shape[-2:]]))


def _large_image(sizes: Sizes, name: str) -> InputSpec:
    """Return the input of an image that the model cuts into parts of the size in its config."""
    height, width = sizes.image
    return InputSpec((1, sizes.channels, 4 * height, 4 * width), name=name)


def _wide_spectrogram(sizes: Sizes, name: str) -> InputSpec:
    """Return the input of a spectrogram with as many bands as the first layer takes."""
    from torch import nn

    first = next((each for each in sizes.module.modules() if isinstance(each, nn.Linear)), None)
    return InputSpec((1, FRAMES, first.in_features if first else sizes.mels), name=name)


def _long_spectrogram(sizes: Sizes, name: str) -> InputSpec:
    """Return the input of a spectrogram of half a minute, which models read in parts of whole seconds."""
    return InputSpec((1, sizes.mels, 3000), name=name)


def _sound_with_channel(sizes: Sizes, name: str) -> InputSpec:
    return InputSpec((1, 1, SAMPLES), name=name)


def _spectrogram(sizes: Sizes, name: str) -> InputSpec:
    """Return the input of a spectrogram: bands first if a convolution over time is first, and else frames first."""
    from torch import nn

    bands_first = any(isinstance(each, nn.Conv1d) and each.in_channels == sizes.mels for each in sizes.module.modules())
    if bands_first:
        frames = 2 * sizes.audio.number("max_source_positions", "n_ctx", default=FRAMES // 2)
        return InputSpec((1, sizes.mels, frames), name=name)
    return InputSpec((1, sizes.audio.number("max_length", default=FRAMES), sizes.mels), name=name)


def _sound(sizes: Sizes, name: str) -> InputSpec:
    """Return the input of a sound: samples, or a spectrogram for a model with bands."""
    if sizes.audio.find("num_mel_bins"):
        return _spectrogram(sizes, name)
    channels = sizes.audio.find("audio_channels")
    if channels or "audio_codes" in sizes.takes:  # codecs take a channel axis
        return InputSpec((1, channels or 1, SAMPLES), name=name)
    return InputSpec((1, SAMPLES), name=name)


def _series(sizes: Sizes, name: str) -> InputSpec:
    length = Fields(sizes.config).number("context_length", "prediction_length", default=64)
    return InputSpec((1, length, Fields(sizes.config).number("num_input_channels", "input_size", default=1)), name=name)


def _points(sizes: Sizes, name: str) -> InputSpec:
    return InputSpec((1, 1, 1, 2), name=name)


def _hidden(sizes: Sizes, name: str) -> InputSpec:
    return InputSpec((1, sizes.tokens, sizes.hidden), name=name)


def _patches_or_hidden(sizes: Sizes, name: str) -> InputSpec:
    return _image(sizes, name) if "grid_thw" in sizes.takes else _hidden(sizes, name)


def _encoded(sizes: Sizes, name: str) -> InputSpec:
    width = Fields(sizes.config).number("encoder_hidden_size", "cross_attention_dim", default=sizes.hidden)
    return InputSpec((1, sizes.tokens, width), name=name)


def _sound_mask(sizes: Sizes, name: str) -> InputSpec:
    return InputSpec((1, SAMPLES), "int64", name, 1)


def _frames_mask(sizes: Sizes, name: str) -> InputSpec:
    """Return the mask of the frames of a spectrogram, which has an axis of bands beside them."""
    shape = _spectrogram(sizes, name).shape
    return InputSpec((1, shape[2] if shape[1] == sizes.mels else shape[1]), "int64", name, 1)


def _queries(sizes: Sizes, name: str) -> InputSpec:
    return InputSpec((1, Fields(sizes.config).number("num_query_tokens", default=32), sizes.hidden), name=name)


Rule = Callable[[Sizes, str], InputSpec]

ENTRANCES: dict[str, Rule] = {
    "input_ids": _text,
    "pixel_values": _image,
    "pixel_values_videos": _video,
    "input_features": _spectrogram,
    "input_values": _sound,
    "spectrogram": _spectrogram,
    "past_values": _series,
}
"""Inputs that a model takes of the world, by name: a model gets each of them that its forward has."""
COMPANIONS: dict[str, Rule] = {
    "decoder_input_ids": _text,
    "qformer_input_ids": _text,
    "image_grid_thw": _grid,
    "grid_thw": _grid,
    "spatial_shapes": _patch_grid,
    "pixel_position_ids": _patch_positions,
    "pixel_attention_mask": _patch_mask,
    "bbox": _boxes,
    "mm_token_type_ids": lambda sizes, name: InputSpec((1, sizes.tokens), "int64", name, 0),
    "past_values_padding": lambda sizes, name: InputSpec(_series(sizes, name).shape[:2], "int64", name, 0),
    "task_inputs": lambda sizes, name: InputSpec(
        (1, Fields(sizes.config).number("task_seq_len", default=TOKENS)), "int64", name
    ),
    "prompt_pixel_values": _image,
    "prompt_masks": _image,
    "input_points": _points,
    "visual_feats": lambda sizes, name: InputSpec(
        (1, 36, Fields(sizes.config).number("visual_feat_dim", default=2048)), name=name
    ),
    "visual_pos": lambda sizes, name: InputSpec(
        (1, 36, Fields(sizes.config).number("visual_pos_dim", default=4)), name=name
    ),
}
"""Inputs that go with those, by name."""
ALONE: dict[str, Rule] = {
    "image_sizes": _image_size,
    "encoder_hidden_states": _encoded,
    "input_features_mask": _frames_mask,
    "padding_mask": _sound_mask,
    "hidden_states": _patches_or_hidden,
    "inputs_embeds": _hidden,
    "query_embeds": _queries,
    "target_sizes": _patch_grid,
    "merge_sizes": lambda sizes, name: InputSpec((1,), "int64", name, sizes.merge),
    "freq": lambda sizes, name: InputSpec((1, 1), "int64", name, 0),
    "latents": _hidden,
    "attention_mask": _mask,
    "pixel_mask": _pixel_mask,
    "inputs": _hidden,
}
"""Inputs that only a model gets whose forward does not run without them, by name."""
KINDS: dict[str, Rule] = {"ids": _text, "inputs": _text, "mask": _mask, "embeds": _hidden, "states": _hidden}
"""Inputs by the last word of their name."""
LAYOUTS: dict[str, tuple[Rule, ...]] = {
    "pixel_values": (
        _image,
        _rounded_image,
        _patch_images,
        _flat_patches,
        _merged_patches,
        _pair,
        _large_image,
    ),
    "input_values": (_sound, _sound_with_channel),
    "input_features": (_spectrogram, _wide_spectrogram, _long_spectrogram),
}
"""Layouts of an input, by name. A model whose forward refuses the first one gets the next."""
INSTEAD = {"pixel_values_videos": "pixel_values"}
"""Inputs that a model does not need beside another one."""


PLACEHOLDERS = ("image_token_id", "image_token_index")
"""Names of the field with the token of a text in whose places the features of an image are put."""


def _with_placeholders(config: Any, module: "nn.Module", specs: list[InputSpec]) -> list[InputSpec]:
    """Return the inputs with a text that has a placeholder for each feature of the image, if the model needs them.

    The image part of the model runs to count its features.
    """
    token = Fields(config).find(*PLACEHOLDERS)
    given = {spec.name or "": spec for spec in specs}
    if not isinstance(token, int) or not {"input_ids", "pixel_values"} <= set(given):
        return specs
    found = _image_features(module, specs)
    if found is None:
        return specs
    features = sum(prod(each.shape[:-1]) for each in found)
    text = given["input_ids"]
    longer = InputSpec((1, max(text.shape[1], features + 8)), "int64", "input_ids")
    others = longer.shape[1] - features
    values = {"input_ids": [token] * features + [1] * others, "mm_token_type_ids": [1] * features + [0] * others}
    return [
        replace(spec, shape=longer.shape, values=tuple(values[spec.name])) if spec.name in values else spec
        for spec in specs
    ]


def _image_features(module: "nn.Module", specs: Sequence[InputSpec]) -> "list[Tensor] | None":
    """Return the features that the image part of a model makes; None without such a part, or if it fails."""
    import torch

    from attnscope.tracing.tensors import tensors_in
    from attnscope.tracing.values import values_known

    run = getattr(module, "get_image_features", None)
    if run is None:
        return None
    takes = inspect.signature(run).parameters
    device = next(module.parameters()).device
    default = next((each.dtype for each in module.parameters() if each.is_floating_point()), torch.float32)
    with values_known(), torch.no_grad(), device:
        try:
            found = run(**{spec.name or "": spec.tensor(device, default) for spec in specs if spec.name in takes})
        except Exception:
            return None  # the forward raises it with its context
    return [each for each in tensors_in(getattr(found, "pooler_output", found)) if each.dim() > 1]


def find_inputs(config: Any, module: "nn.Module") -> list[InputSpec]:
    """Return the inputs of a model: of each kind that its forward takes, in the sizes of its config.

    Raises:
        UsageError: the forward requires an input of an unknown kind.
    """
    takes = inspect.signature(module.forward).parameters
    sizes = Sizes(module, config, takes)
    main = getattr(module, "main_input_name", "input_ids")
    mains = [main] if isinstance(main, str) else list(main)
    names = [*_entrances(takes), *[name for name in COMPANIONS if name in takes]]
    required = [
        name for name, each in takes.items() if each.default is each.empty and each.kind is not each.VAR_KEYWORD
    ]
    names += [name for name in required if name not in names and _is_tensor(takes[name])]
    names += [name for name in mains if name in takes and name not in names]
    if unknown := [name for name in names if _rule(name) is None]:
        raise UsageError(
            f"{{input}} {unknown[0]} is required by {type(module).__name__}; give all of its inputs, such as "
            f"{' '.join(f'--input {name}=SHAPE' for name in names)}"
        )
    specs = [rule(sizes, name) for name in names if (rule := _rule(name)) is not None]
    return _with_placeholders(config, module, specs)


def other_inputs(config: Any, module: "nn.Module", given: Sequence[InputSpec], error: BaseException) -> list[InputSpec]:
    """Return the inputs to try after the forward raised an error.

    They have the optional input that the failing code names, or else the next layout of one of them.

    Args:
        config: the config of the model.
        module: the model.
        given: the inputs with which the forward ran.
        error: what it raised, with its traceback.

    Returns:
        All inputs; empty if there is nothing else to try.
    """
    sizes = Sizes(module, config, inspect.signature(module.forward).parameters)
    found = _with_more(sizes, given, error) or (_in_next_layout(sizes, given) if SHAPED.search(str(error)) else [])
    if not found:
        _check_cache(config, error)
        _check_widths(config, module, given)
    return _with_placeholders(config, module, found) if found else []


def _check_cache(config: Any, error: BaseException) -> None:
    """Raise UsageError if the cache for the next tokens failed, which a model has unless its config says otherwise."""
    frame, _ = list(walk_tb(error.__traceback__))[-1]
    if Path(frame.f_code.co_filename).name == "cache_utils.py" and getattr(config, "use_cache", False):
        raise UsageError(f"hf:{config.model_type} fails in its cache for the next tokens; use {{arg}} use_cache=false")


def _check_widths(config: Any, module: "nn.Module", given: Sequence[InputSpec]) -> None:
    """Raise UsageError if the image part of a model makes features that its text part cannot take."""
    features = _image_features(module, given)
    width = getattr(_embedding(module), "embedding_dim", None)
    if features and width and all(each.shape[-1] != width for each in features):
        raise UsageError(
            f"hf:{config.model_type} has features of images with {features[0].shape[-1]:,} channels for tokens with "
            f"{width:,}, so that its default config cannot run; use the config.json of a published model"
        )


def _embedding(module: "nn.Module") -> "nn.Module | None":
    """Return the embedding of a model's text; None if it has none, or a library's method does not find it."""
    try:
        return getattr(module, "get_input_embeddings", lambda: None)()
    except (NotImplementedError, AttributeError):
        return None


def _with_more(sizes: Sizes, given: Sequence[InputSpec], error: BaseException) -> list[InputSpec]:
    """Return the inputs with the absent one that an error names; empty if it names no other one."""
    missing = set(sizes.takes) - {spec.name for spec in given} - {"inputs_embeds", "labels"}
    if ABSENT.search(str(error)):
        for text in [str(error), *reversed(list(_statements(error)))]:
            for name in re.findall(r"\w+", text):
                if name in missing and (rule := _rule(name)) is not None:
                    return [*given, rule(sizes, name)]
    return []


def _in_next_layout(sizes: Sizes, given: Sequence[InputSpec]) -> list[InputSpec]:
    """Return the inputs with the next layout of the first one that has another; empty if all have been tried."""
    for spec in given:
        layouts = [rule(sizes, spec.name or "") for rule in LAYOUTS.get(spec.name or "", ())]
        shapes = [layout.shape for layout in layouts]
        tried = shapes.index(spec.shape) if spec.shape in shapes else len(shapes)
        for layout in layouts[tried + 1 :]:
            if layout.shape not in shapes[: tried + 1]:
                return [layout if each is spec else _resized(sizes, each, spec, layout) for each in given]
    return []


PIXEL_MASKS = ("pixel_attention_mask", "pixel_mask")
"""Names of the masks of the pixels of an image."""


def _resized(sizes: Sizes, mask: InputSpec, before: InputSpec, after: InputSpec) -> InputSpec:
    """Return the mask of an input in its new layout; other inputs are returned unchanged."""
    is_image = before.name == "pixel_values" and mask.name in PIXEL_MASKS
    if is_image and mask.shape[-2:] == before.shape[-2:]:
        return replace(mask, shape=(*mask.shape[:-2], *after.shape[-2:]))
    if before.name == "input_features" and mask.name == "input_features_mask":
        return replace(mask, shape=(1, after.shape[2] if after.shape[1] == sizes.mels else after.shape[1]))
    return mask


ABSENT = re.compile(r"None|\bmust\b|missing|required|specify|specified|provide")
"""Words of an error about an input that is absent."""
SHAPED = re.compile(r"\bshapes?\b|\bdim|dimension|unpack|\b\dD\b|[Ss]ize [\d(]|multiple of")
"""Words of an error about the shape of an input."""
STATEMENT_LINES = 6
"""Lines of a statement that may name an input, from the one that raised."""


def _statements(error: BaseException) -> Iterator[str]:
    """Yield the code that raised an error, from the outermost function to the innermost."""
    for frame, line in walk_tb(error.__traceback__):
        yield "".join(linecache.getlines(frame.f_code.co_filename)[line - 1 : line - 1 + STATEMENT_LINES])


def _rule(name: str) -> Rule | None:
    """Return the rule of the input with this name, or else of its kind by the end of the name; None without one."""
    kind = name.rpartition("_")[2]
    return {**ENTRANCES, **COMPANIONS, **ALONE}.get(name) or KINDS.get(kind)


def _is_tensor(parameter: inspect.Parameter) -> bool:
    """Return whether a parameter of a forward is a tensor, rather than a number or a flag."""
    return parameter.annotation not in (int, float, bool, str)


def _entrances(takes: Mapping[str, Any]) -> Sequence[str]:
    return [name for name in ENTRANCES if name in takes and INSTEAD.get(name) not in takes]
