"""The presets in the command palette."""

from functools import lru_cache, partial

from textual.command import DiscoveryHit, Hit, Hits, Provider

from attnscope.networks.presets import Preset, presets

all_presets = lru_cache(presets)


class Presets(Provider):
    """The published networks, by their names here and in timm; they are searched and not listed."""

    async def search(self, query: str) -> Hits:
        """Yield the presets whose names match a text."""
        matcher = self.matcher(query)
        for preset in all_presets():
            words = f"{preset.name} {preset.timm}"
            if (score := matcher.match(words)) > 0:
                yield Hit(score, matcher.highlight(words), self._open(preset), text=words, help=_about(preset))

    def _open(self, preset: Preset) -> "partial[None]":
        return partial(self.app.open_preset, preset)  # type: ignore[attr-defined] # the app is the explorer


class AllPresets(Presets):
    """The published networks, listed before a search."""

    async def discover(self) -> Hits:
        """Yield all presets."""
        for preset in all_presets():
            yield DiscoveryHit(preset.name, self._open(preset), help=_about(preset))


def _about(preset: Preset) -> str:
    return f"{preset.command}, {preset.source}"
