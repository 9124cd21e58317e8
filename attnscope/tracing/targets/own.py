"""Build the user's own modules from classes and factories in a file or a package; report their errors with the line."""

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from traceback import walk_tb
from typing import TYPE_CHECKING, Any

from attnscope.core.errors import FAILURES, AttnscopeError, UsageError, did_you_mean, exceeds_addresses, literal
from attnscope.tracing.targets.target import Target

if TYPE_CHECKING:
    from torch import nn


GIVE_ARGUMENTS = (
    "set its arguments with --arg NAME=VALUE; for an argument that is an object, trace a function of a file, such as "
    "def build(): return Net(Config(dim=96))"
)


class TargetError(AttnscopeError):
    """An error in the user's own file or factory while a module was built."""


def from_file(name: str, path: Path, attribute: str, args: Mapping[str, Any]) -> Target:
    """Return the target of an attribute of a file; without an attribute, of the only module class that it defines."""
    return _factory(name, lambda: _run_file(path), attribute, args)


def from_package(name: str, package: str, attribute: str, args: Mapping[str, Any]) -> Target:
    """Return the target of an attribute of a package that can be imported."""
    return _factory(name, lambda: _import(package), attribute, args)


def _factory(name: str, load: Callable[[], Any], attribute: str, args: Mapping[str, Any]) -> Target:
    load = _once(load)

    def build() -> "nn.Module":
        from torch import nn

        home = load()
        factory = _attribute(home, attribute, name) if attribute else _only_module(home, name)
        if isinstance(factory, nn.Module):
            return factory
        if not callable(factory):
            raise UsageError(f"{name} must be a module, its class or a function (got {type(factory).__name__})")
        try:
            module = factory(**args)
        except TypeError as error:
            if error.__traceback__ is not None and error.__traceback__.tb_next is None:
                takes = _signature(factory)
                fix = _near_argument(factory, args) or GIVE_ARGUMENTS
                raise UsageError(f"{attribute}{takes}: {error}; {fix}") from None
            raise error if exceeds_addresses(error) else _theirs(error, name) from error
        except FAILURES as error:
            raise error if exceeds_addresses(error) else _theirs(error, name) from error
        if not isinstance(module, nn.Module):
            raise UsageError(f"{name} must return an nn.Module (got {type(module).__name__})")
        return module

    return Target(name, build)


def _once(load: Callable[[], Any]) -> Callable[[], Any]:
    """Return a function that loads a file or package in its first call; later calls have the same result or error.

    A target may be built on meta and again on the CPU. A file that registers an operator cannot run twice. Its own
    tensors are on the CPU, so that they are right for both.
    """
    outcome: Future[Any] = Future()

    def loaded() -> Any:
        import torch

        if not outcome.done():
            try:
                with torch.device("cpu"):
                    outcome.set_result(load())
            except FAILURES as error:
                outcome.set_exception(error)
        return outcome.result()

    return loaded


def _attribute(home: Any, attribute: str, name: str) -> Any:
    found = home
    for part in attribute.split("."):
        if not hasattr(found, part):
            public = [key for key, value in vars(found).items() if callable(value) and not key.startswith("_")]
            raise UsageError(f"{name}: {part} does not exist; {did_you_mean(part, public)}")
        found = getattr(found, part)
    return found


def _only_module(home: Any, name: str) -> Any:
    """Return the only nn.Module class that a file defines itself.

    Raises:
        UsageError: the file defines several such classes, or none.
    """
    from torch import nn

    own = [
        value
        for value in vars(home).values()
        if isinstance(value, type) and issubclass(value, nn.Module) and value.__module__ == home.__name__
    ]
    if len(own) != 1:
        listed = ", ".join(value.__name__ for value in own) or "none"
        raise UsageError(f"{name} must define exactly 1 module (got {len(own)}: {listed}); use {name.rstrip(':')}:NAME")
    return own[0]


def _run_file(path: Path) -> Any:
    """Run a file as Python does on import, with its folder first on the search path.

    A file in a package becomes a module of the package, so that relative imports work.

    Raises:
        UsageError: the file does not exist.
        TargetError: the file or its package raised.
    """
    if not path.is_file():
        raise UsageError(f"file {literal(path)} does not exist")
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
    except FAILURES as error:
        if before is None:
            del sys.modules[name]
        else:
            sys.modules[name] = before
        raise _theirs(error, str(path)) from error
    return module


def _package_of(folder: Path, name: str) -> str:
    """Import the package in a folder, and return its name.

    The name is "" if the folder is not a package, or if another package with the same name is imported instead.

    Raises:
        TargetError: the package raised.
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
    except FAILURES as error:
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
            raise UsageError(f"module {name} cannot be imported: {error.name} does not exist") from None
        raise _theirs(error, name) from error
    except FAILURES as error:
        raise _theirs(error, name) from error


def _theirs(error: BaseException, name: str) -> TargetError:
    """Return a TargetError for an error of the user's code while a module was built, with the line of the code."""
    place = ""
    for frame, line in walk_tb(error.__traceback__):
        file = frame.f_code.co_filename
        if not file.startswith("<") and Path(file) != Path(__file__) and "site-packages" not in file:
            place = f" at {file}:{line}"
    if isinstance(error, SyntaxError) and error.filename:
        place = f" at {error.filename}:{error.lineno}"
    return TargetError(literal(f"{name} could not be built{place}: {type(error).__name__}: {error}"))


def _near_argument(factory: Any, args: Mapping[str, Any]) -> str:
    """Return the name that is meant by an argument which a factory does not take, if one is close."""
    try:
        takes = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return ""
    wrong = next((name for name in args if name not in takes), "")
    fix = did_you_mean(wrong, takes)
    return fix if wrong and fix.startswith("did") else ""


def _signature(factory: Any) -> str:
    try:
        return str(inspect.signature(factory))
    except (TypeError, ValueError):
        return "(…)"
