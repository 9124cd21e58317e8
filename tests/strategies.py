"""Random Specs that run in milliseconds."""

import math
from contextlib import suppress

from hypothesis import reject
from hypothesis import strategies as st

from attnscope import SwinSpec, UsageError, ViTSpec
from attnscope.attentions.cross.spec import CrossSpec
from attnscope.attentions.heads import Headed
from attnscope.attentions.spec import Spec, kind, own_fields
from attnscope.attentions.swinv2.spec import SwinV2Spec
from attnscope.core.sizes import count_sides
from attnscope.networks.swin.spec import SwinNetworkSpec, SwinV2NetworkSpec
from attnscope.networks.vit.spec import ViTNetworkSpec

small = st.integers(1, 4)
KERNELS = ("eager", "sdpa")
DRAWS = 8
"""Draws of a Spec until its example is given up."""


def kv_heads(heads: int) -> st.SearchStrategy[int | None]:
    """Draw None (one key/value head for each query head), or a divisor of `heads`."""
    return st.none() | st.sampled_from([number for number in range(1, heads + 1) if heads % number == 0])


@st.composite
def vit_specs(draw: st.DrawFn, kernels: tuple[str, ...] = KERNELS, drops: tuple[float, ...] = (0.0,)) -> ViTSpec:
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
        attn_drop=draw(st.sampled_from(drops)),
    )


@st.composite
def cross_specs(draw: st.DrawFn, kernels: tuple[str, ...] = KERNELS, drops: tuple[float, ...] = (0.0,)) -> CrossSpec:
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
        attn_drop=draw(st.sampled_from(drops)),
    )


@st.composite
def swin_specs(draw: st.DrawFn, kernels: tuple[str, ...] = KERNELS, drops: tuple[float, ...] = (0.0,)) -> SwinSpec:
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
        attn_drop=draw(st.sampled_from(drops)),
    )


def specs(kernels: tuple[str, ...] = KERNELS, drops: tuple[float, ...] = (0.0,)) -> st.SearchStrategy[Headed]:
    return vit_specs(kernels, drops) | cross_specs(kernels, drops) | swin_specs(kernels, drops)


def of_heads(heads):
    """Return the fields `heads` and `kv_heads` for a pair: key/value heads, and query heads that share each of them."""
    kv_heads, sharing = heads
    return {"heads": kv_heads * sharing, "kv_heads": kv_heads if sharing > 1 else None}


sides = st.integers(1, 9)
small_vits = st.builds(
    lambda heads, width, **rest: ViTNetworkSpec(dim=math.prod(heads) * width, **of_heads(heads), patch=(4, 4), **rest),
    heads=st.tuples(st.integers(1, 2), st.integers(1, 3)),
    width=st.integers(1, 4),
    depth=st.integers(1, 3),
    image=st.tuples(sides, sides).map(lambda grid: (4 * grid[0], 4 * grid[1])),
    classes=st.integers(1, 5),
    distilled=st.booleans(),
    mlp_ratio=st.sampled_from([1.0, 2.5, 4.0]),
    batch=st.integers(1, 2),
)
small_swins = st.builds(
    lambda kind, heads, width, **rest: kind(dim=math.prod(heads) * width, **of_heads(heads), patch=(2, 2), **rest),
    kind=st.sampled_from([SwinNetworkSpec, SwinV2NetworkSpec]),
    heads=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    width=st.integers(1, 3),
    depths=st.lists(st.integers(1, 3), min_size=1, max_size=3).map(tuple),
    window=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    image=st.tuples(st.integers(1, 13), st.integers(1, 13)).map(lambda grid: (2 * grid[0], 2 * grid[1])),
    classes=st.integers(1, 5),
    batch=st.integers(1, 2),
    scope=st.sampled_from(["model", "block"]),
)


LARGEST_SIDE = {2: 13, 3: 6}
"""Largest side of a grid by its number of sides; a volume has as many tokens as an image."""
WIDTHS = {
    "dim": (12, 24, 36),
    "out_dim": (12, 24, 36),
    "heads": (1, 2, 3, 4, 6),
    "kv_heads": (1, 2, 3),
    "head_dim": (2, 3, 4),
}
"""Values of fields that must divide each other, so that many random Specs are valid."""


def _values(declared) -> st.SearchStrategy:
    """Draw small values of a field from its type and its rules."""
    name, of, rules = declared.name, kind(declared), declared.metadata
    low = rules.get("low", 1)
    if name == "kernel":
        values = st.sampled_from(KERNELS)
    elif rules.get("choices"):
        values = st.sampled_from([declared.default] if name == "dtype" else rules["choices"])
    elif name in WIDTHS:
        values = st.sampled_from(WIDTHS[name])
    elif of is bool:
        values = st.booleans()
    elif of is int:
        values = st.integers(low, 4)
    elif of is float:
        values = st.just(declared.default)
    elif count := count_sides(of):
        side = st.integers(low, LARGEST_SIDE[count] if name in ("resolution", "image") else 4)
        values = st.tuples(*[side] * count)
    else:
        values = st.just(declared.default)
    return st.none() | values if declared.default is None else values


@st.composite
def specs_of(draw: st.DrawFn, spec: type[Spec], **fixed) -> Spec:
    """Draw small Specs of an attention from its fields alone; combinations that it rejects are drawn again."""
    for _ in range(DRAWS):
        values = {name: draw(_values(declared)) for name, declared in own_fields(spec).items() if name not in fixed}
        with suppress(UsageError):
            return spec(**(values | fixed))
    return reject()
