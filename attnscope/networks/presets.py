"""Presets: Specs of published networks, each from a TOML file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from attnscope import networks
from attnscope.attentions.spec import Spec, own_fields
from attnscope.core.conditions import Value
from attnscope.core.errors import UsageError
from attnscope.core.sizes import spell_pair
from attnscope.networks import configs
from attnscope.networks.hierarchy.spec import HierarchySpec
from attnscope.networks.spec import NetworkSpec
from attnscope.networks.stages import Stage
from attnscope.networks.swin.spec import SwinNetworkSpec

RUN = ("batch", "dtype", "kernel", "checkpoint")
"""Fields that do not change a network."""
FAMILIES = (
    "vit", "deit", "dinov2", "dinov3", "eva02", "rope", "sam", "swin", "swinv2", "pvt", "hiera", "nat", "dinat", "xcit",
    "maxvit", "twins", "cswin",
)  # fmt: skip
"""The first words of the names of presets, in the order of the list."""


@dataclass(frozen=True)
class Preset:
    """A published network: its name, its command, timm's name for it, its source, its Spec, and the published figures.

    timm's name is empty for a network that timm does not have.
    `params` and `macs` are computed in closed form; MACs are those of one image.
    """

    name: str
    command: str
    timm: str
    source: str
    spec: NetworkSpec
    published: tuple[Mapping[str, str], ...] = ()

    @cached_property
    def params(self) -> int:
        """Return the number of parameters."""
        return self.spec.params()

    @cached_property
    def macs(self) -> int:
        """Return the MACs of one image."""
        return self.spec.macs()

    @property
    def printed(self) -> list[str]:
        """Return the published figures, in billions."""
        return [source["figure"] for source in self.published]


FIELDS = ("name", "command", "timm", "source", "params", "macs")
"""Fields of a preset itself; conditions may also have those of its Spec, such as `image` and `dim`."""


def conditions(found: Sequence[Preset]) -> list[str]:
    """Return the names of all fields by which presets can be selected."""
    of_specs = [name for preset in found for name, value in preset.spec.as_dict().items() if value is not None]
    return [*FIELDS, *dict.fromkeys(name for name in of_specs if name not in FIELDS)]


def value_of(preset: Preset, name: str) -> Value:
    """Return the value of a field of a preset: a number, or a word such as `8x7`; None if its Spec does not have it."""
    value = getattr(preset, name) if name in FIELDS else preset.spec.as_dict().get(name)
    if isinstance(value, tuple) and len(set(value)) == 1:
        value = value[0]
    is_plain = isinstance(value, int | float | str) and not isinstance(value, bool)
    return value if is_plain or value is None else _spelled(value)


def presets() -> list[Preset]:
    """Return all presets, by family and by size."""
    found = [_preset(name, configs.read_toml(path)) for name, path in configs.presets().items()]
    places = {family: place for place, family in enumerate(FAMILIES)}
    return sorted(found, key=lambda preset: (places.get(preset.name.split("-")[0], len(places)), preset.macs))


def read_network(name: str) -> NetworkSpec:
    """Return the Spec of a preset, by its name in attnscope or in timm.

    Raises:
        UsageError: if the preset is unknown.
    """
    return _spec(*_network(configs.read_tables(configs.preset_path(name))))


def names_with_stages() -> list[str]:
    """Return the names of the presets whose networks have stages."""
    return configs.suiting(_has_stages)


def read_stages(name: str | None = None) -> tuple[Stage, ...]:
    """Return the stages of a preset, by its name in attnscope or in timm; those of Swin-T if no name is given.

    Raises:
        UsageError: if the preset is unknown, or if its network has no stages.
    """
    if name is None:
        return SwinNetworkSpec().stages
    tables = configs.read_tables(configs.preset_path(name, _has_stages))
    command, fields = _network(tables)
    if not _has_stages(tables):
        raise UsageError(
            f"{{preset}} must be a network with stages (got {name}, which has no depths); remove it to use Swin-T"
        )
    spec = _spec(command, fields)
    assert isinstance(spec, SwinNetworkSpec | HierarchySpec)
    return spec.stages


def published_figures(name: str | None, spec: object) -> tuple[Mapping[str, str], ...]:
    """Return the published figures of a preset if the Spec differs from the preset only in the options of a run."""
    if name is None or not isinstance(spec, NetworkSpec):
        return ()
    path = configs.preset_path(name)
    preset = _preset(path.stem, configs.read_toml(path))
    same = replace(spec, batch=1, dtype="float32", kernel="eager", checkpoint="none") == replace(
        preset.spec, dtype="float32", kernel="eager"
    )
    return preset.published if same else ()


def overrides(name: str, spec: Spec) -> list[str]:
    """Return what a Spec changes in the network of a preset, such as `image 512 instead of 224`.

    Batch size, dtype and kernel are options of a run. A part of the network is compared with the same part of the preset,
    and an attention with the most similar one.
    """
    network = _spec(*_network(configs.read_tables(configs.preset_path(name))))
    if isinstance(spec, NetworkSpec):
        parts = {field: getattr(spec, field) for field in ("scope", "stage", "block") if hasattr(spec, field)}
        originals: list[Spec] = [replace(network, **parts)] if type(network) is type(spec) else []
    elif isinstance(network, SwinNetworkSpec | HierarchySpec):
        originals = [network.attention_of(stage, block) for stage in network.stages for block in range(2)]
    else:
        originals = [network.attention()]
    return min(
        (_changes(original, spec) for original in originals if type(original) is type(spec)), key=len, default=[]
    )


def _changes(original: Spec, spec: Spec) -> list[str]:
    """Return how a Spec differs from an original of the same type, without the options of a run."""
    return [
        f"{field} {_spelled(ours)} instead of {_spelled(theirs)}"
        for field in own_fields(type(spec))
        if field not in RUN and (ours := getattr(spec, field)) != (theirs := getattr(original, field))
    ]


def _spelled(value: object) -> str:
    """Return a value as on the command line, such as `224`, `8x7` or `off`."""
    if isinstance(value, bool) or value is None:
        return "on" if value else "off"
    if isinstance(value, tuple):
        return spell_pair(value, "x") if len(value) == 2 else ",".join(map(str, value))
    return str(value)


def _has_stages(tables: Mapping[str, Any]) -> bool:
    """Return whether the network of a preset has stages."""
    return "depths" in _network(tables)[1]


def _preset(name: str, tables: Mapping[str, Any]) -> Preset:
    command, fields = _network(tables)
    spec = _spec(command, fields)
    return Preset(name, command, tables.get("timm", ""), tables["source"], spec, tuple(tables.get("published", ())))


def _network(tables: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the command of a preset's network, and the fields that the preset sets."""
    return next((command, tables[command]) for command in networks.names() if command in tables)


def _spec(command: str, fields: Mapping[str, Any]) -> NetworkSpec:
    spec = networks.spec_class(command)(**_values(fields))
    assert isinstance(spec, NetworkSpec)
    return spec


def _values(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a TOML table as those of a Spec."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
