"""Rotary position embeddings of published vision transformers: where they differ."""

from dataclasses import dataclass

from attnscope.attentions.observed import Rotation as Observed


@dataclass(frozen=True, kw_only=True)
class Rotation:
    """A rotary position embedding: each pair of channels rotates by an angle that is linear in the patch's position.

    Args:
        paper: its authors, and the place of its publication.
        temperature: base of the frequencies, temperature^(−4i/d).
        is_learned: each head learns its frequencies along both axes; otherwise half of the pairs rotate by the row,
            and the other half by the column.
        columns_first: the first half of the pairs rotates by the column.
        halves: channel i forms a pair with channel i + d/2, otherwise with its neighbour.
        is_centered: positions run from −1 to 1 over the image, times 2π, as in DINOv3.
        side: number of patches down and across to which positions are scaled, as in EVA-02; None if they are not.
    """

    paper: str
    temperature: float
    is_learned: bool = False
    columns_first: bool = False
    halves: bool = False
    is_centered: bool = False
    side: int | None = None

    def is_like(self, seen: Observed) -> bool:
        """Return whether an observed embedding forms the same pairs, with angles of the same kind."""
        return (self.halves, self.is_learned) == (seen.halves, seen.is_learned)


ROPE_VIT = "Heo et al., arXiv 2403.13298"
ROTATIONS = {
    "axial": Rotation(paper=ROPE_VIT, temperature=100, columns_first=True),
    "mixed": Rotation(paper=ROPE_VIT, temperature=10, columns_first=True, is_learned=True),
    "eva02": Rotation(paper="Fang et al., arXiv 2303.11331", temperature=10_000, side=16),
    "dinov3": Rotation(paper="Siméoni et al., arXiv 2508.10104", temperature=100, halves=True, is_centered=True),
}
"""Rotary position embeddings by their names in `--rope`."""
