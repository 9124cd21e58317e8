"""Random Specs, small enough to run in a moment."""

from hypothesis import strategies as st

from attnscope import SwinSpec, ViTSpec

small = st.integers(1, 4)


@st.composite
def vit_specs(draw: st.DrawFn, kernels: tuple[str, ...] = ("eager", "sdpa")) -> ViTSpec:
    heads = draw(small)
    return ViTSpec(
        dim=heads * draw(st.integers(1, 6)),
        heads=heads,
        tokens=draw(st.integers(1, 12)),
        batch=draw(small),
        qkv_bias=draw(st.booleans()),
        qk_scale=draw(st.none() | st.floats(0.01, 2)),
        kernel=draw(st.sampled_from(kernels)),
    )


@st.composite
def swin_specs(draw: st.DrawFn, kernels: tuple[str, ...] = ("eager", "sdpa")) -> SwinSpec:
    heads = draw(st.integers(1, 3))
    window = draw(st.tuples(small, small))
    return SwinSpec(
        dim=heads * draw(st.integers(1, 5)),
        heads=heads,
        resolution=draw(st.tuples(st.integers(1, 11), st.integers(1, 11))),
        window=window,
        shift_size=draw(st.tuples(*(st.integers(0, side - 1) for side in window))),
        batch=draw(st.integers(1, 3)),
        qkv_bias=draw(st.booleans()),
        kernel=draw(st.sampled_from(kernels)),
    )


def specs(kernels: tuple[str, ...] = ("eager", "sdpa")) -> st.SearchStrategy[ViTSpec | SwinSpec]:
    return vit_specs(kernels) | swin_specs(kernels)
