"""Where attentions come from: this package, installed distributions, and folders anywhere.

A distribution names its attentions in the entry point group `attnscope.attentions`: `pvt = "my_package.pvt"` is the name of
an attention and the package that is its folder. `importlib.metadata` takes 35 ms to find what takes 1 ms to read, so the
metadata is read here; and only when all attentions are listed, or a name is neither built in nor loaded.
"""

import os
import re
import sys
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType

from attnscope.attentions.spec import Spec, own_fields
from attnscope.core.errors import UsageError, literal

GROUP = "attnscope.attentions"
FILES = ("__init__.py", "spec.py", "steps.py", "attention.py")
"""The files of an attention's folder."""
HERE = Path(__file__).parent

_loaded: dict[str, type[Spec]] = {}
_folders: set[Path] = set()
"""The folders outside this package whose code runs here."""


@lru_cache
def built_in() -> tuple[str, ...]:
    """Return the names of the attentions in this package: its folders."""
    return tuple(sorted(module.name for module in iter_modules([str(HERE)]) if module.ispkg))


def names() -> list[str]:
    """Return the names of all attentions that can be used: built in, installed, and loaded from a folder."""
    return sorted({*built_in(), *_loaded, *installed()})


def find_spec_class(name: str) -> type[Spec] | None:
    """Return the Spec of an attention, or None if there is no attention of this name.

    Raises:
        UsageError: a distribution has one of this name that cannot be used.
    """
    if name in built_in():
        spec: type[Spec] = import_module(f"attnscope.attentions.{name}").Spec
        return spec
    if name in _loaded:
        return _loaded[name]
    if name in refused():
        raise UsageError(f"the installed attention {name} cannot be used: {literal(refused()[name])}")
    return installed().get(name)


def load(path: str | os.PathLike[str]) -> type[Spec]:
    """Load the attention in a folder, so that all commands and `attentions.spec_class` know it by its name.

    The folder holds `__init__.py` with `Spec`, `spec.py`, `steps.py` with `plan(spec)`, and `attention.py` with
    `build(spec)`. It is imported as the package of its name; its files import each other relatively, `from .spec import …`.

    Args:
        path: the folder.

    Returns:
        Its Spec. A folder that was loaded before is not read again.

    Raises:
        UsageError: there is no such folder, a file is missing or cannot be imported, or its name is taken.
    """
    folder, origin = Path(path).resolve(), f"{{attention}} {literal(path)}"
    if not folder.is_dir():
        raise UsageError(f"{origin} is not a folder; give the folder that holds {', '.join(FILES)}")
    try:
        package = _import_folder(folder)
        spec = _spec_of(package)
    except UsageError as error:
        raise UsageError(f"{origin}: {error.args[0]}") from error.__cause__
    taken = _loaded.get(spec.name)
    if taken not in (None, spec):
        raise UsageError(f"{origin}: {_folder_of(sys.modules[taken.__module__])} is named {spec.name} too; rename one")
    _loaded[spec.name] = spec
    return spec


def installed() -> dict[str, type[Spec]]:
    """Return the Specs of the attentions in installed distributions by name, imported and checked, without torch."""
    return _installed()[0]


def refused() -> dict[str, str]:
    """Return why an attention of an installed distribution cannot be used, by name."""
    return _installed()[1]


def describe_failure(error: BaseException) -> str | None:
    """Describe an error that the code of an attention outside this package raised, with its file and line.

    Returns:
        `/home/me/pvt/steps.py:12: NameError: …`, or None if no such code was running.
    """
    from traceback import walk_tb

    places = [(Path(frame.f_code.co_filename), line) for frame, line in walk_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        places.append((Path(error.filename), error.lineno or 0))
    theirs = [(file, line) for file, line in places if not _folders.isdisjoint(file.parents)]
    if not theirs:
        return None
    said = " ".join((error.msg if isinstance(error, SyntaxError) else str(error)).split())
    file, line = theirs[-1]
    return f"{file}:{line}: {type(error).__name__}: {said}"


@lru_cache
def _installed() -> tuple[dict[str, type[Spec]], dict[str, str]]:
    specs: dict[str, type[Spec]] = {}
    reasons: dict[str, str] = {}
    for name, package in _entry_points():
        if name in specs or name in reasons:
            continue  # found earlier on the search path
        try:
            spec = _spec_of(_import_package(package))
            if spec.name != name:
                raise UsageError(f"its entry point is named {name}, but its Spec {spec.name}")
            specs[name] = spec
        except UsageError as error:
            reasons[name] = str(error)
    return specs, reasons


def _import_folder(folder: Path) -> ModuleType:
    """Import a folder as the package of its name."""
    _check_files(folder)
    name = folder.name
    if not name.isidentifier():
        better = re.sub(r"\W", "_", name)
        raise UsageError(f"the folder {name} cannot be a Python package; rename it to {better}")
    there = sys.modules[name].__spec__ if name in sys.modules else find_spec(name)
    location = spec_from_file_location(name, folder / "__init__.py", submodule_search_locations=[str(folder)])
    assert location is not None
    assert location.loader is not None
    if name in sys.modules or (there is not None and there.origin is not None):
        if there is None or there.origin is None or Path(there.origin).resolve() != folder / "__init__.py":
            raise UsageError(f"there is another Python module named {name}; rename the folder")
        return _import_package(name)
    module = module_from_spec(location)
    sys.modules[name] = module
    _folders.add(folder)
    try:
        location.loader.exec_module(module)
    except Exception as error:
        for imported in [each for each in sys.modules if each == name or each.startswith(f"{name}.")]:
            del sys.modules[imported]
        raise UsageError(literal(describe_failure(error) or error)) from error
    return module


def _import_package(name: str) -> ModuleType:
    """Import the package that is an attention's folder."""
    try:
        location = find_spec(name)
    except Exception as error:  # a package above it cannot be imported
        raise UsageError(literal(f"{name}: {type(error).__name__}: {error}")) from error
    if location is None or not location.submodule_search_locations:
        raise UsageError(f"there is no package {name}")
    folder = Path(location.submodule_search_locations[0]).resolve()
    _check_files(folder)
    _folders.add(folder)
    try:
        return import_module(name)
    except Exception as error:
        raise UsageError(literal(describe_failure(error) or f"{name}: {error}")) from error


def _check_files(folder: Path) -> None:
    missing = [file for file in FILES if not (folder / file).is_file()]
    if missing:
        raise UsageError(
            f"{literal(folder)} lacks {', '.join(missing)}; the folder of an attention holds {', '.join(FILES)}"
        )


def _spec_of(package: ModuleType) -> type[Spec]:
    """Return the Spec of an attention outside this package.

    Raises:
        UsageError: there is none, it is not in spec.py, it says too little of itself, or its name is taken.
    """
    spec, file = getattr(package, "Spec", None), _folder_of(package) / "spec.py"
    if not (isinstance(spec, type) and issubclass(spec, Spec)):
        raise UsageError(f"{package.__file__} has no Spec, a class derived from attnscope.attentions.spec.Spec")
    if Path(sys.modules[spec.__module__].__file__ or "").resolve() != file:
        raise UsageError(f"{spec.__name__} is not defined in {file}")
    for attribute in ("name", "title", "SUMMARY", "SIZE_FIELD"):
        if not isinstance(getattr(spec, attribute, None), str):
            raise UsageError(f"{file}: {spec.__name__} has no {attribute}")
    if not re.fullmatch(r"[a-z][a-z0-9_-]*", spec.name):
        raise UsageError(f"{file}: the name {spec.name!r} must be small letters, digits, - and _")
    if spec.SIZE_FIELD not in own_fields(spec):
        raise UsageError(
            f"{file}: SIZE_FIELD {spec.SIZE_FIELD!r} is not a field of {spec.__name__}; is it a dataclass?"
        )
    if spec.name in built_in():
        raise UsageError(f"{file}: the name {spec.name} is built in; give {spec.__name__} another one")
    return spec


def _folder_of(module: ModuleType) -> Path:
    return Path(module.__file__ or "").resolve().parent


def _entry_points() -> list[tuple[str, str]]:
    """Return name and value of each entry point of the group, in the order of the search path."""
    found = []
    for folder in map(Path, sys.path):
        try:
            entries = sorted(entry for entry in os.listdir(folder) if entry.endswith((".dist-info", ".egg-info")))
        except OSError:
            continue
        for entry in entries:
            try:
                text = (folder / entry / "entry_points.txt").read_text(encoding="utf-8")
            except OSError:
                continue
            if f"[{GROUP}]" in text:
                found += _read_group(text)
    return found


def _read_group(text: str) -> list[tuple[str, str]]:
    from configparser import ConfigParser

    class EntryPoints(ConfigParser):
        def optionxform(self, optionstr: str) -> str:
            return optionstr  # names keep their case

    parser = EntryPoints(delimiters=("=",), interpolation=None)
    parser.read_string(text)
    return [(name, value.partition("[")[0].strip()) for name, value in parser[GROUP].items()]
