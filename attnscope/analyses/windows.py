"""Spec -> WindowsReport: checks of the arguments, and the views to show. No torch."""

from attnscope.analyses.neighbourhood import check_grid, check_layers, check_token
from attnscope.attentions.spec import Spec
from attnscope.attentions.swin.spec import SwinSpec
from attnscope.attentions.swinv2.spec import SwinV2Spec
from attnscope.core.errors import UsageError
from attnscope.core.sizes import Pair, spell_sides
from attnscope.core.windows import LARGEST_DRAWN, Windows
from attnscope.reports.windows import WindowsReport


def look_at_windows(
    spec: SwinSpec,
    *,
    token: Pair | None = None,
    layers: int | None = None,
    positions: bool = False,
    order: bool = False,
    pretrained_window: Pair | None = None,
    command: str | None = None,
) -> WindowsReport:
    """Return the partition, the shift, the mask and the relative positions of a Spec's windows as data.

    Args:
        spec: the attention, of which resolution, window, shift and batch are used.
        token: show what the token at this (row, column) of the image sees.
        layers: show also the receptive field of the token after up to this number of layers.
        positions: show the relative position index.
        order: show how the rows of the window batch map back to the images.
        pretrained_window: the window size in pre-training. Show also the bias table of Swin, resized from it, and the
            distances of Swin V2, scaled by it. For a SwinV2Spec, its own is the default, and the distances are always
            among the positions.
        command: the command line, for the record.

    Raises:
        UsageError: the grid is a volume, or the token is outside of it. Layers are given without a token, or a value is
            too large for a picture.

    Example:
        >>> import attnscope
        >>> report = attnscope.look_at_windows(attnscope.SwinSpec(resolution=14, window=7, shift=True), token=(5, 9))
        >>> [(sight.rows, sight.columns) for sight in report.looks]  # plain windows, then shifted ones
        [((0, 6), (7, 13)), ((3, 9), (3, 9))]
    """
    if not isinstance(spec, Spec):
        raise UsageError(f"spec must be a Spec with windows, such as SwinSpec() (got {spec!r})")
    check_grid(spec)
    grid = spec.windows
    for name, sides in (("resolution", spec.resolution), ("window", spec.window)):
        if max(sides) > LARGEST_DRAWN:
            raise UsageError(f"{{{name}}} must be at most {LARGEST_DRAWN} in a picture (got {max(sides)})")
    if token is not None:
        check_token(token, spec.resolution)
    if layers is not None:
        check_layers(layers)
        if token is None:
            raise UsageError(
                f"{{layers}} requires {{token}}; add one, such as --token {grid.height // 2},{grid.width // 2}"
            )
    if pretrained_window is not None and not positions:
        raise UsageError("{pretrained_window} requires {positions}; add it")
    requested = {"token": token is not None, "positions": positions, "order": order}
    views = [view for view, wanted in requested.items() if wanted] or ["partition"]
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
        pretrained_window=pretrained_window,
        log_window=pretrained_window or _log_window(spec, positions),
    )


def _log_window(spec: SwinSpec, positions: bool) -> Pair | None:
    """Return the window that scales the distances of Swin V2, if its positions are shown."""
    return (spec.pretrained_window or spec.window) if positions and isinstance(spec, SwinV2Spec) else None


def _title(grid: Windows) -> str:
    """Return a title such as `14×14 tokens in 4 windows of 7×7, shifted by 3`."""
    (r, s), (p, q) = grid.counts, grid.window
    words = f"{grid.height}×{grid.width} tokens in {r * s:,} {'window' if r * s == 1 else 'windows'} of {p}×{q}"
    return f"{words}, shifted by {spell_sides(grid.roll)}" if grid.is_shifted else words


def _next(spec: SwinSpec, view: str, layers: int | None) -> tuple[str, str]:
    """Return the suggested next command and its reason."""
    grid, command = spec.windows, " ".join(["attnscope windows", *_not_default(spec), spec.grid_flags()])
    if not grid.is_shifted and spec.can_shift:
        return f"{command} --shift", "the effect of the shift and its mask"
    token = f"{command} --token {grid.height // 2},{grid.width // 2}"
    return {
        "partition": (token, "the tokens that one token attends to"),
        "token": (f"{command} --positions", "the relative position bias of each pair")
        if layers
        else (f"{token} --layers 4", "its receptive field layer by layer"),
        "positions": (f"{command} --order --batch 2", "the order of the window batch"),
        "order": (f"attnscope {spec.name} {spec.grid_flags()}", "the cost of each step"),
    }[view]


def _not_default(spec: SwinSpec) -> list[str]:
    """Return the name of an attention that the command does not draw by default."""
    return [] if spec.name == SwinSpec.name else [spec.name]
