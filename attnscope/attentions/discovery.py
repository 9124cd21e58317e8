"""Discovery of attentions: in this package, in installed distributions, and in folders at any path.

A distribution declares its attentions in the entry point group `attnscope.attentions`. For example,
`sra = "my_package.sra"` declares the attention `sra`, whose folder is the package `my_package.sra`. This module reads
the metadata itself, which takes 1 ms, because `importlib.metadata` takes 35 ms. It reads them only to list all
attentions, or for a name that is neither built in nor loaded.
"""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from keyword import iskeyword
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType

from attnscope.attentions.contract import check_contract
from attnscope.attentions.spec import Spec
from attnscope.core.errors import UsageError, in_a_line, literal, quoted
from attnscope.ops.operation import OPERATIONS

GROUP = "attnscope.attentions"
FILES = ("__init__.py", "spec.py", "steps.py", "attention.py")
"""Required files of an attention's folder."""
HERE = Path(__file__).parent

_loaded: dict[str, type[Spec]] = {}
_folders: set[Path] = set()
"""Folders outside this package whose code was imported."""


@lru_cache
def built_in() -> tuple[str, ...]:
    """Return the names of the attentions in this package, which are its folders."""
    return tuple(sorted(module.name for module in iter_modules([str(HERE)]) if module.ispkg))


def names() -> list[str]:
    """Return the names of all usable attentions: built in, installed, and loaded from a folder."""
    return sorted({*built_in(), *_loaded, *installed()})


def find_spec_class(name: str) -> type[Spec] | None:
    """Return the Spec of an attention, or None if the name is unknown.

    Raises:
        UsageError: if a distribution declares the name, but its attention cannot be used.
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
    """Load the attention in a folder, and register its name for all commands and for `attentions.spec_class`.

    The folder contains `__init__.py` with `Spec`, `spec.py`, `steps.py` with `plan(spec)`, and `attention.py` with
    `build(spec)`. It is imported as a package of the same name; its files use relative imports, `from .spec import …`.

    Args:
        path: path of the folder.

    Returns:
        Its Spec. A folder that is already loaded is not read again; one that was rejected is.

    Raises:
        UsageError: if the folder is missing or violates the contract of attentions, if a file cannot be imported, or if
            the name is taken.
    """
    folder = Path(path).resolve()
    if not os.fspath(path) or not folder.is_dir():
        raise UsageError(f"{quoted(path)} is not a folder; give the folder that contains {', '.join(FILES)}")
    operations = dict(OPERATIONS)
    try:
        spec = _spec_of(_import_folder(folder))
        registered = _loaded.get(spec.name)
        if registered not in (None, spec):
            other = literal(_folder_of(sys.modules[registered.__module__]))
            raise UsageError(f"{other} is also named {spec.name}; rename one of them")
    except UsageError as error:
        _forget(folder)
        OPERATIONS.clear()
        OPERATIONS.update(operations)  # remove those of the folder, which registers them again
        raise UsageError(f"{literal(path)}: {error.args[0]}") from error.__cause__
    _loaded[spec.name] = spec
    return spec


def installed() -> dict[str, type[Spec]]:
    """Return the Specs of the attentions in installed distributions by name; import and check them without torch."""
    return _installed()[0]


def refused() -> dict[str, str]:
    """Return the reason why each unusable attention of an installed distribution cannot be used, by name."""
    return _installed()[1]


def describe_failure(error: BaseException) -> str | None:
    """Describe an error raised or caused by the code of an attention outside this package, with its file and line.

    Returns:
        `/home/me/sra/steps.py:12: NameError: …`, or None if no such code was involved.
    """
    from traceback import walk_tb

    places = [(Path(frame.f_code.co_filename), line) for frame, line in walk_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        places.append((Path(error.filename), error.lineno or 0))
    external = [(file, line) for file, line in places if not _folders.isdisjoint(file.parents)]
    if not external:
        return None if error.__cause__ is None else describe_failure(error.__cause__)
    message = " ".join((error.msg if isinstance(error, SyntaxError) else str(error)).split())
    file, line = external[-1]
    return f"{file}:{line}: {type(error).__name__}: {message}"


@lru_cache
def _installed() -> tuple[dict[str, type[Spec]], dict[str, str]]:
    specs: dict[str, type[Spec]] = {}
    reasons: dict[str, str] = {}
    for name, package in _entry_points():
        if name in specs or name in reasons:
            continue  # an earlier entry of the search path has priority
        try:
            spec = _spec_of(_import_package(package))
            if spec.name != name:
                raise UsageError(f"its entry point is named {name}, but its Spec is named {spec.name}")
            specs[name] = spec
        except UsageError as error:
            reasons[name] = str(error)
    return specs, reasons


def _import_folder(folder: Path) -> ModuleType:
    """Import a folder as a package of the same name."""
    _check_files(folder)
    name = folder.name
    if not name.isidentifier() or iskeyword(name):
        better = re.sub(r"\W", "_", name)
        if not better.isidentifier() or iskeyword(better):
            better = f"attention_{better}"
        raise UsageError(f"the folder {literal(name)} cannot be a Python package; rename it to {better}")
    existing = sys.modules[name].__spec__ if name in sys.modules else find_spec(name)
    location = spec_from_file_location(name, folder / "__init__.py", submodule_search_locations=[str(folder)])
    assert location is not None
    assert location.loader is not None
    if name in sys.modules or (existing is not None and existing.origin is not None):
        if existing is None or existing.origin is None or Path(existing.origin).resolve() != folder / "__init__.py":
            raise UsageError(f"another Python module is named {name}; rename the folder")
        return _import_package(name)
    module = module_from_spec(location)
    sys.modules[name] = module
    _folders.add(folder)
    with _failures_described(folder):
        location.loader.exec_module(module)
    return module


def _forget(folder: Path) -> None:
    """Remove the modules of a folder from `sys.modules`, so that they are imported again."""
    package = sys.modules.get(folder.name)
    if package is None or _folder_of(package) != folder:
        return
    for name in [each for each in sys.modules if each.partition(".")[0] == folder.name]:
        del sys.modules[name]


def _import_package(name: str) -> ModuleType:
    """Import the package that is an attention's folder."""
    try:
        location = find_spec(name)
    except Exception as error:  # a parent package cannot be imported
        raise UsageError(literal(f"{name}: {type(error).__name__}: {error}")) from error
    if location is None or not location.submodule_search_locations:
        raise UsageError(f"the package {name} does not exist")
    folder = Path(location.submodule_search_locations[0]).resolve()
    _check_files(folder)
    _folders.add(folder)
    with _failures_described(folder):
        return import_module(name)


@contextmanager
def _failures_described(folder: Path) -> Iterator[None]:
    """Convert an error of the code in a folder to an error with one line.

    Raises:
        UsageError: if the code raises an error.
    """
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        why = describe_failure(error) or f"{folder}: {in_a_line(error)}"
        raise UsageError(literal(why)) from error


def _check_files(folder: Path) -> None:
    missing = [file for file in FILES if not (folder / file).is_file()]
    if missing:
        raise UsageError(
            f"{literal(folder)} lacks {', '.join(missing)}; the folder of an attention contains {', '.join(FILES)}"
        )


def _spec_of(package: ModuleType) -> type[Spec]:
    """Return the Spec of an attention outside this package.

    Raises:
        UsageError: if it is missing, is not in spec.py, violates the contract, or has a name that is taken.
    """
    spec, file = getattr(package, "Spec", None), _folder_of(package) / "spec.py"
    if not (isinstance(spec, type) and issubclass(spec, Spec)):
        home = literal(package.__file__)
        raise UsageError(f"{home} has no Spec, a subclass of attnscope.attentions.spec.Spec; import it there")
    if Path(sys.modules[spec.__module__].__file__ or "").resolve() != file:
        raise UsageError(f"{spec.__name__} is not defined in {literal(file)}; define a subclass there")
    with _failures_described(file.parent):
        check_contract(spec, file)
    if spec.name in built_in():
        raise UsageError(
            f"{literal(file)}: the name {spec.name} is that of a built-in attention; rename {spec.__name__}"
        )
    return spec


def _folder_of(module: ModuleType) -> Path:
    return Path(module.__file__ or "").resolve().parent


def _entry_points() -> list[tuple[str, str]]:
    """Return the name and the value of each entry point of the group, in search path order."""
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
            return optionstr  # ConfigParser would convert names to lowercase

    parser = EntryPoints(delimiters=("=",), interpolation=None)
    parser.read_string(text)
    return [(name, value.partition("[")[0].strip()) for name, value in parser[GROUP].items()]
