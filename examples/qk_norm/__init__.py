"""ViT's attention with layer norm of q and k, as in ViT-22B."""

from .spec import QKNormSpec as Spec
from .steps import plan

__all__ = ["Spec", "plan"]
