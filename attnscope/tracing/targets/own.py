"""The user's own: modules, classes and factories in a file or a package, and their errors told with their line."""

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from traceback import walk_tb
from typing import TYPE_CHECKING, Any

from attnscope.core.errors import AttnscopeError, UsageError, did_you_mean, exceeds_addresses, literal
from attnscope.tracing.targets.target import Target

if TYPE_CHECKING:
    from torch import nn


class TargetError(AttnscopeError):
    """The user's own file or factory that failed while a module was built."""


def from_file(name: str, path: Path, attribute: str, args: Mapping[str, Any]) -> Target:
    """What stands in a file under this name; without one the only module that the file defines."""
    return _factory(name, lambda: _run_file(path), attribute, args)


def from_package(name: str, package: str, attribute: str, args: Mapping[str, Any]) -> Target:
    """What stands under this name in a package that can be imported."""
    return _factory(name, lambda: _import(package), attribute, args)


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
            raise error if exceeds_addresses(error) else _theirs(error, name) from error
        except Exception as error:
            raise error if exceeds_addresses(error) else _theirs(error, name) from error
        if not isinstance(module, nn.Module):
            raise UsageError(f"{name} made a {type(module).__name__}, not an nn.Module")
        return module

    return Target(name, build)


def _attribute(home: Any, attribute: str, name: str) -> Any:
    found = home
    for part in attribute.split("."):
        if not hasattr(found, part):
            public = [key for key, value in vars(found).items() if callable(value) and not key.startswith("_")]
            raise UsageError(
                f"{name}: there is no {part}; {did_you_mean(part, public, many=f'there are {len(public)}')}"
            )
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

    A file in a package is a module of it, so that it can import relatively.

    Raises:
        UsageError: there is no such file.
        TargetError: it raised, or its package did.
    """
    if not path.is_file():
        raise UsageError(f"{literal(path)} is not there")
    folder = path.resolve().parent
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    package = _package_of(folder, str(path))
    name = f"{package}.{path.stem}" if package else path.stem
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module, before = importlib.util.module_from_spec(spec), sys.modules.get(name)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        if before is None:
            del sys.modules[name]
        else:
            sys.modules[name] = before
        raise _theirs(error, str(path)) from error
    return module


def _package_of(folder: Path, name: str) -> str:
    """Import the package that a folder is, and return its name: "" where it is none, or where another one has its name.

    Raises:
        TargetError: it raised.
    """
    root = folder
    parts: list[str] = []
    while (root / "__init__.py").is_file():
        parts.insert(0, root.name)
        root = root.parent
    if not parts or not all(part.isidentifier() for part in parts):
        return ""
    package = ".".join(parts)
    sys.path.insert(0, str(root))
    try:
        found = importlib.import_module(package)
    except Exception as error:
        raise _theirs(error, name) from error
    finally:
        sys.path.remove(str(root))
    return package if Path(found.__file__ or "").resolve().parent == folder else ""


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
    place = ""
    for frame, line in walk_tb(error.__traceback__):
        file = frame.f_code.co_filename
        if not file.startswith("<") and Path(file) != Path(__file__) and "site-packages" not in file:
            place = f" at {file}:{line}"
    if isinstance(error, SyntaxError) and error.filename:
        place = f" at {error.filename}:{error.lineno}"
    return TargetError(literal(f"{name} could not be built{place}: {type(error).__name__}: {error}"))


def _signature(made: Any) -> str:
    try:
        return str(inspect.signature(made))
    except (TypeError, ValueError):
        return "(…)"
