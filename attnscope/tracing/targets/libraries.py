"""Build networks of timm, torchvision and Hugging Face by their names there, without downloads."""

import importlib
import inspect
from typing import TYPE_CHECKING, Any

from attnscope.core.errors import UsageError, did_you_mean, quoted
from attnscope.core.packages import describe_missing
from attnscope.tracing.targets import transformers
from attnscope.tracing.targets.target import InputSpec, Target, known_inputs

if TYPE_CHECKING:
    from torch import nn


def _library(name: str) -> Any:
    """Import a library.

    Raises:
        UsageError: the library is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise UsageError(describe_missing(name)) from None


def from_timm(name: str, args: dict[str, Any]) -> Target:
    """Return the target of a network of timm. Its arguments `img_size` and `in_chans` also set the shape of its input."""
    timm = _library("timm")
    models = timm.list_models()
    if name.split(".")[0] not in models:
        raise UsageError(
            f"timm has no {quoted(name)}; {did_you_mean(name, models, many='timm.list_models() lists all')}"
        )

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
    """Return the target of a network of torchvision, including those for video and optical flow."""
    models = _library("torchvision").models
    names = models.list_models()
    if name not in names:
        near = did_you_mean(name, names, many="torchvision.models.list_models() lists all")
        raise UsageError(f"torchvision has no {quoted(name)}; {near}")
    if "weights_backbone" in inspect.signature(models.get_model_builder(name)).parameters:
        args = {"weights_backbone": None, **args}

    weights = models.get_model_weights(name).DEFAULT
    transforms = weights.transforms()
    size = list(getattr(transforms, "crop_size", None) or getattr(transforms, "resize_size", None) or [224])
    sides = size * 2 if len(size) == 1 else size

    def build() -> "nn.Module":
        return models.get_model(name, weights=None, **args, **_own_size())

    def _own_size() -> dict[str, Any]:
        """Return the image size of the published network, if it takes no other and is built for another by default."""
        import torch

        if "image_size" in args or weights.meta.get("min_size") != tuple(sides):
            return {}
        with torch.device("meta"):
            default = getattr(models.get_model(name, weights=None, **args), "image_size", sides[0])
        return {} if default == sides[0] else {"image_size": sides[0]}

    def find_inputs(module: "nn.Module") -> list[InputSpec]:
        if type(module).__module__.startswith("torchvision.models.video"):
            return [InputSpec((1, 3, 16, *sides))]
        if type(module).__module__.startswith("torchvision.models.optical_flow"):
            return [InputSpec((1, 3, 368, 496)), InputSpec((1, 3, 368, 496))]
        own = getattr(module, "image_size", None)
        return [InputSpec((1, 3, *([own, own] if isinstance(own, int) else sides)))]

    return Target(f"torchvision:{name}", build, find_inputs=find_inputs)


def from_hugging_face(name: str, args: dict[str, Any]) -> Target:
    """Return the target of a model of transformers, by its model type or by the path of a config.json."""
    return transformers.from_hugging_face(_library("transformers"), name, args)


LIBRARIES = {"timm": from_timm, "torchvision": from_torchvision, "hf": from_hugging_face}
"""Functions that return the target of a network, by the prefix of its name."""
