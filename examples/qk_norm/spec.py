"""Options of global attention with normalized queries and keys."""

from dataclasses import dataclass
from typing import ClassVar

from attnscope.attentions.complexity import Complexity, global_attention
from attnscope.attentions.heads import KV_HEADS, Headed
from attnscope.attentions.spec import option
from attnscope.attentions.vit.spec import ViTSpec
from attnscope.core.neighbourhood import AllTokens, Neighbourhood
from attnscope.core.sizes import plural


@dataclass(frozen=True, kw_only=True)
class QKNormSpec(Headed):
    """Global attention whose queries and keys are normalized (Dehghani et al., arXiv 2302.05442)."""

    name: ClassVar[str] = "qknorm"
    title: ClassVar[str] = "QK-norm attention"
    SUMMARY: ClassVar[str] = "Global attention with normalized queries and keys, as in ViT-22B."
    EXAMPLES: ClassVar[tuple[str, ...]] = ("attnscope qknorm --dim 384 --heads 6",)
    SIZE_FIELD: ClassVar[str] = "tokens"

    dim: int = option(768, "Embedding dimension.")
    heads: int = option(12, "Number of attention heads.")
    kv_heads: int | None = option(None, KV_HEADS, shown="heads")
    tokens: int = option(197, "Number of tokens.")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_heads()

    @property
    def neighbourhood(self) -> Neighbourhood:
        return AllTokens(self.tokens)

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.batch, self.tokens, self.dim

    def headline(self) -> list[str]:
        return [f"{self.tokens} tokens", f"dim {self.dim}", plural(self.heads, "head"), *self.shared_heads()]

    def closed_form(self) -> dict[str, int]:
        b, N, C, G = self.batch, self.tokens, self.dim, self.kv_dim
        project = "project_grouped" if self.is_grouped else "project"
        attend = {"score": b * N * N * C, "mix": b * N * N * C}
        if self.kernel != "eager":
            attend = {"attend": sum(attend.values())}
        return {project: b * N * C * (C + 2 * G), **attend, "output": b * N * C * C}

    def complexity(self) -> Complexity:
        reference = global_attention(self.tokens, self.dim, self.kv_dim)
        return Complexity(self.batch, reference, reference, "")

    def counterpart(self) -> ViTSpec:
        return ViTSpec(
            dim=self.dim,
            heads=self.heads,
            kv_heads=self.kv_heads,
            tokens=self.tokens,
            batch=self.batch,
            qkv_bias=self.qkv_bias,
            qk_scale=self.qk_scale,
            kernel=self.kernel,
            dtype=self.dtype,
        )

    def next_command(self) -> tuple[str, str]:
        return (
            f"attnscope vit --tokens {self.tokens} --dim {self.dim} --heads {self.heads}",
            "the same attention without the norms",
        )
