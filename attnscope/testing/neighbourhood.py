"""Check of the keys that a neighbourhood declares for a query, by gradients."""

import torch
from torch import Tensor, nn

from attnscope.attentions.spec import Spec
from attnscope.core.neighbourhood import Neighbourhood
from attnscope.core.sizes import Sides
from attnscope.networks import ComposedSpec
from attnscope.testing.comparison import built, fail

HINT = "reach(axis, side) of the Spec's neighbourhood, or keys that the attention does not use"


def hold_neighbourhood(spec: Spec) -> None:
    """Check that the output of a query depends on the tokens that it attends to according to the Spec's neighbourhood.

    The check runs in float64 for the first, the middle and the last query. A query may depend on more tokens, for
    example if a convolution runs parallel to the attention.

    Raises:
        AssertionError: if an output does not depend on a token in reach.
    """
    neighbourhood = spec.neighbourhood
    queries = neighbourhood.queries(_sides(spec, spec.input_shapes[0]))
    keys = _sides(spec, spec.input_shapes[-1])
    padded = tuple([_with_padding(neighbourhood, axis, side) for axis, side in enumerate(queries)])
    with built(spec) as (module, x):
        influence = _influence(module.double(), spec.CHANNEL_AXIS, *[tensor.double() for tensor in x])
    for query in _chosen(len(influence)):
        place = unravel(query, queries)
        depends = influence[query].reshape(keys)
        for key in sorted(neighbourhood.keys_of(place, padded)):
            if _is_inside(key, keys) and not depends[key]:
                fail(spec, "influence", f"token {_spell(key)} on query {_spell(place)}", "some", "none", HINT)


def _is_inside(place: tuple[int, ...], sides: tuple[int, ...]) -> bool:
    """Return whether a place is in the grid of tokens; padding is not."""
    return all(at < side for at, side in zip(place, sides, strict=True))


def _spell(place: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, place))})" if len(place) > 1 else str(place[0])


def unravel(index: int, sides: tuple[int, ...]) -> tuple[int, ...]:
    """Return the place along each axis of the token with this index in a grid."""
    places = []
    for side in reversed(sides):
        index, place = divmod(index, side)
        places.append(place)
    return tuple(reversed(places))


def _chosen(queries: int) -> set[int]:
    return {0, queries // 2, queries - 1}


def _influence(module: nn.Module, axis: int, *x: Tensor) -> Tensor:
    """Return whether the output of each query of the first image depends on each token of the last input, (n, m)."""
    keys = x[-1].requires_grad_()
    out = module(*x).movedim(axis, -1)[0].flatten(0, -2)
    direction = torch.randn(out.shape[-1], dtype=out.dtype)  # a plain sum would be constant after a layer norm
    depends = torch.zeros(len(out), keys.movedim(axis, -1)[0].flatten(0, -2).shape[0], dtype=torch.bool)
    for query in _chosen(len(out)):
        (grad,) = torch.autograd.grad(out[query] @ direction, keys, retain_graph=True)
        depends[query] = grad.movedim(axis, -1)[0].flatten(0, -2).abs().amax(-1) > 0
    return depends


def _sides(spec: Spec, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the sides of the token grid: those of the Spec, or else those of the input; a sequence has one side."""
    attention = spec.attention() if isinstance(spec, ComposedSpec) else spec
    sides: int | Sides = getattr(attention, attention.SIZE_FIELD)
    return sides if isinstance(sides, tuple) else shape[1:-1]


def _with_padding(neighbourhood: Neighbourhood, axis: int, side: int) -> int:
    return side + -side % neighbourhood.alignment[axis] if neighbourhood.padding_tokens else side
