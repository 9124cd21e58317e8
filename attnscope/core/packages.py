"""Packages that only some commands need, and the command that installs a missing one. Imports none of them."""

from collections.abc import Mapping
from types import MappingProxyType

EXTRAS: Mapping[str, tuple[str, ...]] = MappingProxyType({"trace": ("timm", "torchvision"), "explore": ("textual",)})
"""Extras of attnscope and the packages that each brings; tests/test_release.py compares them with pyproject.toml."""


def describe_missing(package: str) -> str:
    """Return why a package is missing and what to type: `timm is not installed; run python -m pip install …`."""
    extra = next((name for name, brings in EXTRAS.items() if package in brings), None)
    wanted = package.replace("_", "-") if extra is None else f'"attnscope[{extra}]"'
    return f"{package} is not installed; run python -m pip install {wanted}"


def missing_package(error: BaseException) -> str | None:
    """Return the package whose absence raised this error; None if it was not the absence of a whole package."""
    name = error.name if isinstance(error, ModuleNotFoundError) else None
    return None if name is None or "." in name else name
