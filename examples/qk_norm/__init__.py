"""ViT's attention with layer norm of queries and keys, as in ViT-22B."""

from .spec import QKNormSpec as Spec
from .steps import plan

__all__ = ["Spec", "plan"]
