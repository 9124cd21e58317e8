"""Presets: published networks, a TOML file each, as Specs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from attnscope import networks
from attnscope.networks import configs
from attnscope.networks.spec import NetworkSpec


@dataclass(frozen=True)
class Preset:
    """A published network: its name, the command that knows it, timm's name, its source, and what others print for it.

    `params` and `macs` are in closed form; MACs are multiply-accumulates of one image.
    """

    name: str
    command: str
    timm: str
    source: str
    spec: NetworkSpec
    published: tuple[Mapping[str, str], ...] = ()

    @cached_property
    def params(self) -> int:
        return self.spec.params()

    @cached_property
    def macs(self) -> int:
        return self.spec.macs()

    @property
    def printed(self) -> list[str]:
        """The figures that others print, in billions."""
        return [printed["figure"] for printed in self.published]


def presets() -> list[Preset]:
    """All presets, family by family, the smaller ones first."""
    found = [_preset(name, configs.read_toml(path)) for name, path in configs.presets().items()]
    families = {"vit": 0, "deit": 1, "swin": 2, "swinv2": 3}
    return sorted(found, key=lambda preset: (families.get(preset.name.split("-")[0], 9), preset.macs))


def published_figures(name: str | None, spec: object) -> tuple[Mapping[str, str], ...]:
    """What others print for a preset, where the Spec is that of the whole preset but for batch, type and kernel."""
    if name is None or not isinstance(spec, NetworkSpec):
        return ()
    path = configs.preset_path(name)
    preset = _preset(path.stem, configs.read_toml(path))
    same = replace(spec, batch=1, dtype="float32", kernel="eager") == replace(
        preset.spec, dtype="float32", kernel="eager"
    )
    return preset.published if same else ()


def _preset(name: str, tables: Mapping[str, Any]) -> Preset:
    command = next(command for command in networks.names() if command in tables)
    fields: dict[str, Any] = {
        field: tuple(value) if isinstance(value, list) else value for field, value in tables[command].items()
    }
    return Preset(
        name,
        command,
        tables["timm"],
        tables["source"],
        networks.spec_class(command)(**fields),
        tuple(tables.get("published", ())),
    )
