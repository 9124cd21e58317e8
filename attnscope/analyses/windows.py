"""Spec -> WindowsReport: what to show of windows, checked. No torch."""

from attnscope.attentions.swin.spec import SwinSpec
from attnscope.core.errors import UsageError
from attnscope.core.sizes import Pair, spell_pair
from attnscope.core.windows import LARGEST_DRAWN, Windows
from attnscope.reports.windows import WindowsReport

MOST_LAYERS = 35
"""A layer is one sign in a picture: 1 to 9, a to z."""


def look_at_windows(
    spec: SwinSpec,
    *,
    token: Pair | None = None,
    layers: int | None = None,
    positions: bool = False,
    order: bool = False,
    command: str | None = None,
) -> WindowsReport:
    """The partition, the shift, the mask and the relative positions of a Spec's windows, as data.

    Args:
        spec: resolution, window, shift and batch are used.
        token: show what the token in this (row, column) of the image sees.
        layers: and its receptive field after up to this many layers.
        positions: show the relative position index.
        order: show how the rows of the window batch map back to the images.
        command: what was typed, for the record.

    Raises:
        UsageError: the token is outside of the grid, layers are asked of no token, or something is too large for a picture.
    """
    grid = spec.windows
    for name, sides in (("resolution", spec.resolution), ("window", spec.window)):
        if max(sides) > LARGEST_DRAWN:
            raise UsageError(f"{{{name}}} {max(sides)} is too large for a picture; the largest is {LARGEST_DRAWN}")
    if token is not None:
        for name, place, side in (("row", token[0], grid.height), ("column", token[1], grid.width)):
            if not 0 <= place < side:
                raise UsageError(
                    f"{{token}} {token[0]},{token[1]} is outside of the grid: {name} {place} is not from 0 to {side - 1}"
                )
    if layers is not None:
        if token is None:
            raise UsageError(
                f"{{layers}} {layers} needs a token to start from; such as --token {grid.height // 2},{grid.width // 2}"
            )
        if not 1 <= layers <= MOST_LAYERS:
            raise UsageError(f"{{layers}} {layers} is not from 1 to {MOST_LAYERS}")
    asked = {"token": token is not None, "positions": positions, "order": order}
    views = [view for view, wanted in asked.items() if wanted] or ["partition"]
    return WindowsReport(
        command=command,
        title=_title(grid),
        grid=grid,
        batch=spec.batch,
        views=views,
        token=token,
        layers=layers or 0,
        notes=spec.cautions(),
        next=_next(spec, views[-1], layers),
    )


def _title(grid: Windows) -> str:
    """`14×14 tokens in 4 windows of 7×7, shifted by 3`."""
    (r, s), (p, q) = grid.counts, grid.window
    words = f"{grid.height}×{grid.width} tokens in {r * s:,} {'window' if r * s == 1 else 'windows'} of {p}×{q}"
    return f"{words}, shifted by {spell_pair(grid.roll)}" if grid.is_shifted else words


def _next(spec: SwinSpec, view: str, layers: int | None) -> tuple[str, str]:
    """The command worth typing next, and why."""
    grid, command = spec.windows, f"attnscope windows {spec.grid_flags()}"
    if not grid.is_shifted and spec.can_shift:
        return f"{command} --shift", "what the shift and its mask add"
    token = f"{command} --token {grid.height // 2},{grid.width // 2}"
    return {
        "partition": (token, "where one token looks"),
        "token": (f"{command} --positions", "how a pair finds its bias")
        if layers
        else (f"{token} --layers 4", "layer by layer"),
        "positions": (f"{command} --order --batch 2", "how the window batch is ordered"),
        "order": (f"attnscope swin {spec.grid_flags()}", "what each step costs"),
    }[view]
