"""Random Specs, small enough to run in a moment."""

from hypothesis import strategies as st

from attnscope import SwinSpec, ViTSpec
from attnscope.attentions.cross.spec import CrossSpec
from attnscope.attentions.heads import Headed
from attnscope.attentions.swinv2.spec import SwinV2Spec

small = st.integers(1, 4)


def kv_heads(heads: int) -> st.SearchStrategy[int | None]:
    """As many as heads, or fewer that several of them share."""
    return st.none() | st.sampled_from([number for number in range(1, heads + 1) if heads % number == 0])


@st.composite
def vit_specs(draw: st.DrawFn, kernels: tuple[str, ...] = ("eager", "sdpa")) -> ViTSpec:
    heads = draw(small)
    return ViTSpec(
        dim=heads * draw(st.integers(1, 6)),
        heads=heads,
        kv_heads=draw(kv_heads(heads)),
        tokens=draw(st.integers(1, 12)),
        batch=draw(small),
        qkv_bias=draw(st.booleans()),
        qk_scale=draw(st.none() | st.floats(0.01, 2)),
        kernel=draw(st.sampled_from(kernels)),
    )


@st.composite
def cross_specs(draw: st.DrawFn, kernels: tuple[str, ...] = ("eager", "sdpa")) -> CrossSpec:
    heads = draw(small)
    return CrossSpec(
        dim=heads * draw(st.integers(1, 6)),
        heads=heads,
        kv_heads=draw(kv_heads(heads)),
        tokens=draw(st.integers(1, 12)),
        keys=draw(st.integers(1, 12)),
        batch=draw(small),
        qkv_bias=draw(st.booleans()),
        kernel=draw(st.sampled_from(kernels)),
    )


@st.composite
def swin_specs(draw: st.DrawFn, kernels: tuple[str, ...] = ("eager", "sdpa")) -> SwinSpec:
    heads = draw(small)
    window = draw(st.tuples(small, small))
    return draw(st.sampled_from([SwinSpec, SwinV2Spec]))(
        dim=heads * draw(st.integers(1, 5)),
        heads=heads,
        kv_heads=draw(kv_heads(heads)),
        resolution=draw(st.tuples(st.integers(1, 11), st.integers(1, 11))),
        window=window,
        shift_size=draw(st.tuples(*(st.integers(0, side - 1) for side in window))),
        batch=draw(st.integers(1, 3)),
        qkv_bias=draw(st.booleans()),
        kernel=draw(st.sampled_from(kernels)),
    )


def specs(kernels: tuple[str, ...] = ("eager", "sdpa")) -> st.SearchStrategy[Headed]:
    return vit_specs(kernels) | cross_specs(kernels) | swin_specs(kernels)
