"""Cross-shaped window attention, as in CSWin: half of the heads attend in vertical stripes, half in horizontal ones."""

from attnscope.attentions.cswin.spec import CSWinSpec as Spec
from attnscope.attentions.cswin.steps import plan

__all__ = ["Spec", "plan"]
