"""Networks of timm, torchvision and Hugging Face, by their names there. Nothing is downloaded."""

import importlib
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnscope.core.errors import UsageError, did_you_mean, quoted
from attnscope.tracing.targets.target import InputSpec, Target, known_inputs

if TYPE_CHECKING:
    from torch import nn


def _library(library: str, prefix: str) -> Any:
    try:
        return importlib.import_module(library)
    except ModuleNotFoundError as error:
        if error.name != library:
            raise
        raise UsageError(f"{prefix}: needs {library}, which is not installed: pip install {library}") from None


def from_timm(name: str, args: dict[str, Any]) -> Target:
    """A network of timm; `img_size` and `in_chans` among its arguments are those of its input."""
    timm = _library("timm", "timm")
    known = timm.list_models()
    if name.split(".")[0] not in known:
        raise UsageError(f"timm has no {quoted(name)}; {_near(name, known)}")

    def find_inputs(module: "nn.Module") -> list[InputSpec]:
        found = known_inputs(module)
        size = args.get("img_size")
        if not found or size is None:
            return found
        sides = (size, size) if isinstance(size, int) else tuple(size)
        channels = args.get("in_chans", found[0].shape[1])
        return [InputSpec((1, channels, *sides))]

    return Target(f"timm:{name}", lambda: timm.create_model(name, pretrained=False, **args), find_inputs=find_inputs)


def from_torchvision(name: str, args: dict[str, Any]) -> Target:
    """A network of torchvision, also for video and optical flow."""
    models = _library("torchvision", "torchvision").models
    known = models.list_models()
    if name not in known:
        raise UsageError(f"torchvision has no {quoted(name)}; {_near(name, known)}")
    if "weights_backbone" in inspect.signature(models.get_model_builder(name)).parameters:
        args = {"weights_backbone": None, **args}

    def find_inputs(module: "nn.Module") -> list[InputSpec]:
        transforms = models.get_model_weights(name).DEFAULT.transforms()
        size = list(getattr(transforms, "crop_size", None) or getattr(transforms, "resize_size", None) or [224])
        sides = size * 2 if len(size) == 1 else size
        if type(module).__module__.startswith("torchvision.models.video"):
            return [InputSpec((1, 3, 16, *sides))]
        if type(module).__module__.startswith("torchvision.models.optical_flow"):
            return [InputSpec((1, 3, 368, 496)), InputSpec((1, 3, 368, 496))]
        return [InputSpec((1, 3, *sides))]

    return Target(f"torchvision:{name}", lambda: models.get_model(name, weights=None, **args), find_inputs=find_inputs)


def from_hugging_face(name: str, args: dict[str, Any]) -> Target:
    """A model of a type that transformers knows, or of a config.json."""
    transformers = _library("transformers", "hf")
    path = Path(name)
    if path.exists():
        config = transformers.AutoConfig.from_pretrained(str(path), local_files_only=True)
    else:
        known = list(transformers.CONFIG_MAPPING)
        if name not in known:
            what = "is on the hub, and nothing is downloaded" if "/" in name else "is no model type"
            raise UsageError(f"hf:{name} {what}; give a type or a config.json; {_near(name.split('/')[-1], known)}")
        config = transformers.AutoConfig.for_model(name)
    for key, value in args.items():
        if not hasattr(config, key):
            raise UsageError(f"{{arg}} {key} is not in the config of hf:{name}; {_near(key, list(config.to_dict()))}")
        setattr(config, key, value)

    def find_inputs(module: "nn.Module") -> list[InputSpec]:
        size = getattr(config, "image_size", None) or getattr(
            getattr(config, "vision_config", None), "image_size", None
        )
        main = getattr(module, "main_input_name", "pixel_values" if size else "input_ids")
        if main == "pixel_values":
            side = size or 224
            sides = tuple(side) if isinstance(side, list | tuple) else (side, side)
            return [InputSpec((1, getattr(config, "num_channels", 3), *sides), name=main)]
        return [InputSpec((1, 16), "int64", main)] if main == "input_ids" else []

    return Target(f"hf:{name}", lambda: transformers.AutoModel.from_config(config), find_inputs=find_inputs)


def _near(word: str, known: Sequence[str]) -> str:
    return did_you_mean(word, known, many=f"there are {len(known)}")


LIBRARIES = {"timm": from_timm, "torchvision": from_torchvision, "hf": from_hugging_face}
"""What makes a target of a network's name, by the prefix in front of it."""
