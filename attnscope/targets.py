"""What `attnscope trace` can be pointed at: a name becomes a module and the inputs that it takes.

    timm:swin_tiny_patch4_window7_224    torchvision:swin_t    hf:vit    my_file.py:MyAttention    package.module:factory

Nothing is downloaded: networks are built with random weights.
"""

import ast
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnscope.axes import Shape
from attnscope.errors import AttnscopeError, UsageError, did_you_mean, quoted

if TYPE_CHECKING:
    import torch
    from torch import nn

LIBRARIES = {"timm": "timm", "torchvision": "torchvision", "hf": "transformers"}
"""The library behind each prefix."""
INTEGERS = ("int64", "int32", "int16", "int8", "uint8")
DTYPES = ("float32", "float64", "bfloat16", "float16", *INTEGERS, "bool", "complex64")


class TargetError(AttnscopeError):
    """The user's own file or factory that failed while a module was built."""


@dataclass(frozen=True)
class InputSpec:
    """One tensor that a forward takes: its shape, its type, and its name where it is given by name."""

    shape: Shape
    dtype: str | None = None
    name: str | None = None

    def __str__(self) -> str:
        said = "×".join(map(str, self.shape)) + (f" {self.dtype}" if self.dtype else "")
        return f"{self.name} {said}" if self.name else said

    def tensor(self, device: "torch.device", default: "torch.dtype") -> "torch.Tensor":
        """Random normals; whole numbers of 0 and 1; a mask of ones."""
        import torch

        dtype = getattr(torch, self.dtype) if self.dtype else default
        if dtype is torch.bool:
            return torch.ones(self.shape, dtype=dtype, device=device)
        if not dtype.is_floating_point and not dtype.is_complex:
            return torch.randint(0, 2, self.shape, device=device).to(dtype)
        return torch.randn(self.shape, device=device).to(dtype)


@dataclass
class Target:
    """A module that can be built on a device, and its inputs where they are known."""

    name: str
    build: Callable[[], "nn.Module"]
    inputs: list[InputSpec] = field(default_factory=list)
    find_inputs: Callable[["nn.Module"], list[InputSpec]] = lambda module: []

    def inputs_of(self, module: "nn.Module") -> list[InputSpec]:
        """The inputs that were told, or else those that the module is known to take.

        Raises:
            UsageError: neither.
        """
        found = self.inputs or self.find_inputs(module) or known_inputs(module)
        if not found:
            takes = ", ".join(inspect.signature(module.forward).parameters)
            raise UsageError(
                f"{{input}} is needed: {type(module).__name__} takes {takes or 'nothing'}; "
                "give shapes such as --input 1,49,96 or --input mask=49,49:bool"
            )
        return found


def find_target(name: str, args: Mapping[str, Any], inputs: Sequence[InputSpec] = ()) -> Target:
    """The target of this name.

    Args:
        name: as at the head of this file.
        args: what the factory or class is called with.
        inputs: shapes that were told; empty where they are to be found.

    Raises:
        UsageError: there is no such thing; the line says what to install or what there is.
    """
    prefix, colon, rest = name.partition(":")
    if prefix in LIBRARIES and colon:
        target = {"timm": _timm, "torchvision": _torchvision, "hf": _hugging_face}[prefix](rest, dict(args))
    elif ".py" in name:
        path, _, attribute = name.rpartition(":") if not name.endswith(".py") else (name, "", "")
        target = _factory(name, lambda: _run_file(Path(path)), attribute, args)
    elif colon and rest:
        target = _factory(name, lambda: _import(prefix), rest, args)
    else:
        raise UsageError(
            f"{name} names no module; there is: timm:NAME, torchvision:NAME, hf:TYPE, my_file.py:MyAttention, "
            "package.module:factory"
        )
    target.inputs = list(inputs)
    return target


def parse_input(text: str) -> InputSpec:
    """Read `1,49,96`, `1x3x224x224`, `1,16:int64` or `mask=49,49:bool`.

    Raises:
        UsageError: it is none of these.
    """
    name, equals, rest = text.rpartition("=")
    sizes, colon, dtype = rest.partition(":")
    if equals and not name.strip().isidentifier():
        raise UsageError(f"{{input}} {text}: {name!r} is no name of an argument")
    if colon and dtype not in DTYPES:
        raise UsageError(f"{{input}} {text}: {dtype} is no type; {did_you_mean(dtype, DTYPES)}")
    try:
        shape = tuple([int(size, 10) for size in re.split("[,x×]", sizes)]) if sizes.strip() else ()
    except ValueError:
        raise UsageError(f"{{input}} {text} is no shape; give sizes such as 1,49,96, or mask=49,49:bool") from None
    if any(size < 0 for size in shape):
        raise UsageError(f"{{input}} {text}: sizes are whole numbers from 0 on")
    return InputSpec(shape, dtype or None, name.strip() or None)


def parse_argument(text: str) -> tuple[str, Any]:
    """Read `dim=96`, `bias=False`, `sizes=(7,7)` or `act=gelu`: a Python literal, or else a word.

    Raises:
        UsageError: it has no name.
    """
    name, equals, value = text.partition("=")
    if not equals or not name.strip().isidentifier():
        raise UsageError(f"{{arg}} {text} has no name; give NAME=VALUE such as dim=96")
    try:
        return name.strip(), ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name.strip(), value


def known_inputs(module: "nn.Module") -> list[InputSpec]:
    """The inputs that a module itself tells of: attnscope's, timm's and Lightning's do."""
    spec = getattr(module, "spec", None)
    if shape := getattr(spec, "input_shape", None):
        return [InputSpec(tuple(shape))]
    config = getattr(module, "pretrained_cfg", None) or getattr(module, "default_cfg", None)
    if isinstance(config, dict) and (size := config.get("input_size")):
        return [InputSpec((1, *size))]
    example = getattr(module, "example_input_array", None)
    if example is not None and hasattr(example, "shape"):
        return [InputSpec(tuple(example.shape), str(example.dtype).removeprefix("torch."))]
    return []


def _library(prefix: str) -> Any:
    library = LIBRARIES[prefix]
    try:
        return importlib.import_module(library)
    except ModuleNotFoundError as error:
        if error.name != library:
            raise
        raise UsageError(f"{prefix}: needs {library}, which is not installed: pip install {library}") from None


def _timm(name: str, args: dict[str, Any]) -> Target:
    timm = _library("timm")
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


def _torchvision(name: str, args: dict[str, Any]) -> Target:
    models = _library("torchvision").models
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


def _hugging_face(name: str, args: dict[str, Any]) -> Target:
    transformers = _library("hf")
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


def _factory(name: str, load: Callable[[], Any], attribute: str, args: Mapping[str, Any]) -> Target:
    def build() -> "nn.Module":
        from torch import nn

        home = load()
        made = _attribute(home, attribute, name) if attribute else _only_module(home, name)
        if isinstance(made, nn.Module):
            return made
        try:
            module = made(**args)
        except TypeError as error:
            if error.__traceback__ is not None and error.__traceback__.tb_next is None:
                takes = _signature(made)
                raise UsageError(f"{attribute}{takes}: {error}; give its arguments as --arg NAME=VALUE") from None
            raise _theirs(error, name) from error
        except Exception as error:
            raise _theirs(error, name) from error
        if not isinstance(module, nn.Module):
            raise UsageError(f"{name} made a {type(module).__name__}, not an nn.Module")
        return module

    return Target(name, build)


def _attribute(home: Any, attribute: str, name: str) -> Any:
    found = home
    for part in attribute.split("."):
        if not hasattr(found, part):
            public = [key for key, value in vars(found).items() if callable(value) and not key.startswith("_")]
            raise UsageError(f"{name}: there is no {part}; {_near(part, public)}")
        found = getattr(found, part)
    return found


def _only_module(home: Any, name: str) -> Any:
    """The one nn.Module class that a file defines itself."""
    from torch import nn

    own = [
        value
        for value in vars(home).values()
        if isinstance(value, type) and issubclass(value, nn.Module) and value.__module__ == home.__name__
    ]
    if len(own) != 1:
        listed = ", ".join(value.__name__ for value in own) or "none"
        raise UsageError(f"{name} has {len(own)} modules ({listed}); say which: {name}:NAME")
    return own[0]


def _run_file(path: Path) -> Any:
    """Run a file as Python does on import, with its folder first on the search path.

    Raises:
        UsageError: there is no such file.
        TargetError: it raised.
    """
    if not path.is_file():
        raise UsageError(f"{path} is not there")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    folder, before = str(path.resolve().parent), sys.modules.get(path.stem)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        if before is None:
            del sys.modules[path.stem]
        else:
            sys.modules[path.stem] = before
        raise _theirs(error, str(path)) from error
    return module


def _import(name: str) -> Any:
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise UsageError(f"there is no module {name} here (no {error.name})") from None
        raise _theirs(error, name) from error
    except Exception as error:
        raise _theirs(error, name) from error


def _theirs(error: Exception, name: str) -> TargetError:
    """An error of the user's own code while a module is built, told with their line."""
    trace, place = error.__traceback__, ""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith("<") and Path(file) != Path(__file__) and "site-packages" not in file:
            place = f" at {file}:{trace.tb_lineno}"
        trace = trace.tb_next
    if isinstance(error, SyntaxError) and error.filename:
        place = f" at {error.filename}:{error.lineno}"
    return TargetError(f"{name} could not be built{place}: {type(error).__name__}: {error}")


def _signature(made: Any) -> str:
    try:
        return str(inspect.signature(made))
    except (TypeError, ValueError):
        return "(…)"


def _near(word: str, known: Iterable[str]) -> str:
    known = list(known)
    told = did_you_mean(word, known)
    return told if told.startswith("did you mean") or len(known) <= 12 else f"there are {len(known)}"
