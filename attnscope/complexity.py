"""The paper's complexity of global and of windowed attention (Liu et al., arXiv 2103.14030, equations 1 and 2)."""

from dataclasses import dataclass

from attnscope.spec import Pair


@dataclass(frozen=True)
class Term:
    """One Ω: its name, its formula, and what it comes to in MACs of one layer for one image."""

    name: str
    formula: str
    values: str
    macs: int


@dataclass(frozen=True)
class Complexity:
    """Global and windowed attention on the same tokens."""

    batch: int
    of_global: Term
    of_windows: Term

    @property
    def global_macs(self) -> int:
        return self.batch * self.of_global.macs

    @property
    def windowed_macs(self) -> int:
        return self.batch * self.of_windows.macs

    @property
    def ratio(self) -> float:
        """How many times fewer MACs the windows need."""
        return self.of_global.macs / self.of_windows.macs


def global_attention(tokens: int, dim: int) -> Term:
    """Ω(MSA): hw tokens of width C, each looking at all."""
    macs = 4 * tokens * dim**2 + 2 * tokens**2 * dim
    return Term("Ω(MSA)", "4hwC² + 2(hw)²C", f"hw = {tokens}, C = {dim}", macs)


def windowed_attention(tokens: int, dim: int, window: Pair, padding: int = 0) -> Term:
    """Ω(W-MSA): hw tokens of width C, `padding` of them added, each looking at the M² of its window."""
    macs = 4 * tokens * dim**2 + 2 * window[0] * window[1] * tokens * dim
    added = f" ({padding} of them padding)" if padding else ""
    return Term("Ω(W-MSA)", "4hwC² + 2M²hwC", f"M² = {window[0]}×{window[1]}, hw = {tokens}{added}, C = {dim}", macs)
