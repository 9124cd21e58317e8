"""Options of ViT's attention, and its cost by the paper's formula."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from attnscope.attentions.complexity import Complexity, global_attention, windowed_attention
from attnscope.attentions.heads import KV_HEADS, Headed
from attnscope.attentions.observed import Observed
from attnscope.attentions.spec import FRAMES, option, own_fields
from attnscope.attentions.vit.rope import ROTATIONS, Rotation
from attnscope.core.errors import UsageError, nearest_multiples
from attnscope.core.neighbourhood import AllTokens
from attnscope.core.sizes import Pair, check_divisible, plural

FEWER = (7, 7)
"""Window of the formula that is compared with global attention: M² = 7×7 keys for each query, as in Swin."""
PAIRS = 4
"""Channels that rotate together: a pair by the row, and a pair by the column of a patch."""
SUPPOSED, SAVING = "49 keys", "if each token attended to 7×7 = 49 keys"
"""Name and phrase of that formula. It is not called W-MSA, since a class token does not belong to a window."""
ROPE = f"Rotary position embedding of queries and keys: {', '.join(ROTATIONS)}."
QK_NORM = "Normalize the queries and keys of each head, with LayerNorm."
KEY_BIAS = "Add a bias to k; without it, only q and v have one."
INNER_NORM = "Normalize the merged heads before the output projection, with LayerNorm."
FROM_IMAGE = {"image": (224, 224), "patch": (16, 16), "cls": True, "registers": None}
"""The fields that together set the number of tokens, and their defaults."""


@dataclass(frozen=True, kw_only=True)
class ViTSpec(Headed):
    """Multi-head self-attention over all tokens of an image (Dosovitskiy et al., arXiv 2010.11929, appendix A).

    The defaults are ViT-B/16 at 224 pixels: 196 patches and a class token, embedding dimension 768, 12 heads.

    Raises:
        UsageError: if a value is out of range or contradicts another one. dim must be divisible by heads, heads by
            kv_heads, and the image by the patch. Only one field may set the number of tokens.
    """

    name: ClassVar[str] = "vit"
    title: ClassVar[str] = "ViT attention"
    SUMMARY: ClassVar[str] = "Global attention, as in ViT: every token attends to all tokens."
    EXAMPLES: ClassVar[tuple[str, ...]] = (
        "attnscope vit --dim 768 --heads 12",
        "attnscope vit --image 384 --no-time",
        "attnscope vit --tokens 1024 --json",
        "attnscope vit --rope dinov3 --registers 4 --no-key-bias",
    )
    LOOKS_AT: ClassVar[str] = "all tokens of the image"
    GIVES_UP: ClassVar[str] = "nothing, but the cost grows with the square of the number of tokens"
    PAPER: ClassVar[str] = "Dosovitskiy et al., An Image is Worth 16x16 Words, arXiv 2010.11929"
    SIZE_FIELD: ClassVar[str] = "tokens"
    IS_PLAIN: ClassVar[bool] = True

    dim: int = option(768, "Embedding dimension.")
    heads: int = option(12, "Number of attention heads.")
    kv_heads: int | None = option(None, KV_HEADS, shown="heads")
    image: Pair | None = option(None, "Image size in pixels.", shown="224")
    patch: Pair | None = option(None, "Patch size in pixels.", shown="16")
    cls: bool | None = option(None, "Prepend a class token to the patches.", shown="cls")
    registers: int | None = option(
        None, "Number of registers, tokens before the patches that have no position.", low=0, shown="0"
    )
    tokens: int | None = option(
        None, "Number of tokens, instead of --image, --patch, --cls and --registers.", shown="197"
    )
    rope: str | None = option(None, ROPE, choices=tuple(ROTATIONS), shown="none")
    qk_norm: bool = option(False, QK_NORM)
    key_bias: bool = option(True, KEY_BIAS)
    inner_norm: bool = option(False, INNER_NORM)

    def __post_init__(self) -> None:
        if self.tokens is None:
            for name, default in FROM_IMAGE.items():
                if getattr(self, name) is None:
                    object.__setattr__(self, name, default)
        super().__post_init__()
        for one, other in self.contradictions({name: value for name, value in vars(self).items() if value is not None}):
            raise UsageError(f"{{{one}}} and {{{other}}} both set the number of tokens; give one of them")
        self.check_heads()
        self.check_rope()
        if not (self.qkv_bias or self.key_bias):
            raise UsageError(
                "{no_key_bias} requires a bias of q and v, which {no_qkv_bias} removes; remove one of them"
            )
        check_divisible("image", self.image or (), self.patch or (), by="patch")

    @classmethod
    def on_grid(cls, grid: Pair, values: Mapping[str, Any]) -> Self:
        """Build a Spec for a grid of tokens; with a rotary position embedding, each of them is a patch with a position.

        Such positions are those of an image, so that each frame of a video is an image of its own.
        """
        if values.get("rope") is None:
            return super().on_grid(grid, values)
        own = own_fields(cls).keys() - {cls.SIZE_FIELD, "image", "patch", "cls"}
        batch = values.get(FRAMES, 1) * values.get("batch", 1)
        given = {**{name: values[name] for name in own & values.keys()}, "batch": batch}
        return cls(**given, image=grid, patch=(1, 1), cls=False)

    @classmethod
    def contradictions(cls, given: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Return the pairs of given fields that both set the number of tokens."""
        return [("tokens", name) for name in FROM_IMAGE if {"tokens", name} <= given.keys()]

    @classmethod
    def candidates(cls, seen: Observed) -> Iterator[dict[str, Any]]:
        """Yield the fields for attention of each token to all tokens."""
        if not seen.is_global:
            return
        sizes = {"dim": seen.dim, "heads": seen.heads}
        if seen.rotation is None:
            yield {"tokens": seen.tokens, **sizes}
            return
        prefix, patches = seen.tokens - seen.rotation.tokens, replace(seen, tokens=seen.rotation.tokens).grid
        if 1 in patches:  # a sequence, such as one of words
            return
        rope = (name for name, known in ROTATIONS.items() if known.is_like(seen.rotation))
        others = {"registers": prefix - 1} if prefix > 1 else {} if prefix else {"cls": False}
        yield {"image": patches, "patch": (1, 1), **others, **sizes, "rope": next(rope, None)}

    def check_rope(self) -> None:
        """Check that the tokens have positions, and that each head has the channels to rotate.

        Raises:
            UsageError: if they do not.
        """
        if self.rope is None:
            return
        if self.tokens is not None:
            raise UsageError(
                "{rope} rotates by the row and the column of a patch, which {tokens} does not set; use {image} instead"
            )
        if self.dim // self.heads % self.head_unit:
            nearest = nearest_multiples(self.dim, self.head_unit * self.heads)
            raise UsageError(
                f"{{rope}} requires that {{dim}} / {{heads}} is divisible by {self.head_unit} "
                f"(got {self.dim} / {self.heads} = {self.dim // self.heads}); nearest: {{dim}} {nearest}"
            )
        if self.rotation and self.rotation.is_learned and self.is_grouped:
            raise UsageError(
                f"{{rope}} {self.rope} learns the frequencies of each head, so that heads cannot share keys "
                f"(got {{kv_heads}} {self.kv_heads}); remove it, or use {{rope}} axial"
            )

    @property
    def head_unit(self) -> int:
        """Return the number that divides the channels of each head: those that rotate together."""
        return PAIRS if self.rope else 1

    @property
    def rotation(self) -> Rotation | None:
        """Return the rotary position embedding, or None without one."""
        return None if self.rope is None else ROTATIONS[self.rope]

    @property
    def grid(self) -> Pair | None:
        """Return the number of patches down and across; None if only the number of tokens is known."""
        if self.image is None or self.patch is None:
            return None
        return self.image[0] // self.patch[0], self.image[1] // self.patch[1]

    @property
    def prefix(self) -> int:
        """Return the number of tokens before the patches: the class token and the registers."""
        return bool(self.cls) + (self.registers or 0)

    @property
    def sequence(self) -> int:
        """Return the number of tokens of one image: the patches, the class token and the registers."""
        if self.grid is None:
            assert self.tokens is not None
            return self.tokens
        return self.grid[0] * self.grid[1] + self.prefix

    @property
    def has_key_bias(self) -> bool:
        """Return whether k has a bias."""
        return self.qkv_bias and self.key_bias

    def is_in(self, library: str) -> bool:
        """Return whether the options are those of ViT, which libraries have."""
        return not self.options()

    @property
    def neighbourhood(self) -> AllTokens:
        """Return all tokens of the image."""
        return AllTokens(self.sequence)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Return the shape of the module's input, (b, n, c)."""
        return self.batch, self.sequence, self.dim

    def of_size(self, size: int) -> "ViTSpec":
        """Return a copy with `size` tokens."""
        without: dict[str, Any] = dict.fromkeys(FROM_IMAGE)
        return replace(self, tokens=size, **without)

    def headline(self) -> list[str]:
        """Describe this Spec in a few words each."""
        heads = [plural(self.heads, "head"), *self.shared_heads()]
        registers = [plural(self.registers, "register")] if self.registers else []
        return [plural(self.sequence, "token"), *registers, f"dim {self.dim}", *heads, *self.options()]

    def options(self) -> list[str]:
        """Return the part of the headline about options beyond those of ViT, which is empty without any."""
        extras = {f"RoPE {self.rope}": self.rope, "QK norm": self.qk_norm, "no k bias": not self.key_bias}
        extras["inner norm"] = self.inner_norm
        return [words for words, is_set in extras.items() if is_set]

    def closed_form(self) -> dict[str, int]:
        """Return the MACs of each step: 4NC² + 2N²C in total (Liu et al., arXiv 2103.14030, equation 1).

        With g shared key/value heads the total is 2NC² + 2NC·g·d + 2N²C (Ainslie et al., arXiv 2305.13245).
        """
        b, N, C, G = self.batch, self.sequence, self.dim, self.kv_dim
        attend = {"score": b * N**2 * C, "mix": b * N**2 * C}
        if self.kernel != "eager":
            attend = {"attend": sum(attend.values())}
        project = "project_grouped" if self.is_grouped else "project"
        return {project: b * N * C**2 + 2 * b * N * C * G, **attend, "output": b * N * C**2}

    def complexity(self) -> Complexity:
        """Return the formula of global attention, and that of attention to fewer keys for comparison."""
        own = global_attention(self.sequence, self.dim, self.kv_dim)
        fewer = windowed_attention(self.sequence, self.dim, FEWER, kv_dim=self.kv_dim, name=f"Ω({SUPPOSED})")
        return Complexity(self.batch, own, own, SAVING, supposed=fewer)

    def next_command(self) -> tuple[str, str]:
        """Return the suggested next command and the reason for it."""
        return "attnscope swin --window 7 --shift", "the same steps in shifted windows"


def on_the_same_tokens(spec: Headed, tokens: int) -> ViTSpec:
    """Return global attention with the options of another attention, as a baseline."""
    shared = ("dim", "heads", "kv_heads", "batch", "qkv_bias", "qk_scale", "kernel", "dtype")
    return ViTSpec(tokens=tokens, **{name: getattr(spec, name) for name in shared})
