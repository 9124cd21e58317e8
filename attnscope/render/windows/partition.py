"""The windows of a grid: the partition, the attention groups, the rolled plane, and the masks."""

from dataclasses import replace

from rich.console import RenderableType
from rich.text import Text

from attnscope.core.windows import Axis, Mask, Windows
from attnscope.render import words
from attnscope.render.columns import Column
from attnscope.render.dots import braille, halves
from attnscope.render.plane import COLORS, GAP, MOST_LINES, PADDING, Mark, Picture, Plane, Run, draw, runs
from attnscope.render.screen import Screen
from attnscope.render.windows.parts import picture_rows, room, scale_words, table_parts
from attnscope.reports.windows import WindowsReport

MOST_GROUPS = 8
"""The largest number of groups on an axis for which each group has its own letter."""
SMALL = 20
"""The largest number of lines of a small picture."""
MOST_DOTS = 64
"""The largest number of tokens in a window for which each pair of the mask has a dot."""
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def partition_parts(report: WindowsReport, screen: Screen) -> list[RenderableType]:
    """Return the pictures of the planes and of the masks, and the table of the masks."""
    grid = report.grid
    parts = [*plane_parts(grid, screen), Text("")]
    if grid.is_shifted:
        parts += [*mask_parts(grid, screen), Text("")]
    parts += table_parts(mask_columns(grid), grid.masks, screen)
    return [*parts, *_masks_in_words(grid, screen)]


def small_picture(grid: Windows, screen: Screen) -> list[RenderableType]:
    """Return the planes in a few lines, and the number of windows with each mask."""
    return [*plane_parts(grid, screen, SMALL), *_masks_in_words(grid, screen)]


def plane_parts(grid: Windows, screen: Screen, most: int = MOST_LINES) -> list[RenderableType]:
    """Return the planes in letters, and their legend."""
    drawing = draw(planes(grid), room(screen), screen, most)
    legend = [f"{'' if Letters(grid).each else 'in a window, '}tokens with the same letter attend to each other"]
    if grid.is_shifted:
        legend.append("the roll joins groups, the mask separates them")
    if grid.is_padded:
        rows, columns = grid.padding
        legend.append(f"+ is padding: {rows:,} rows, {columns:,} columns, {grid.waste:.1%} waste, not masked")
    legend += scale_words(drawing, grid)
    return [picture_rows(drawing.pictures, screen), *(screen.aside(line) for line in legend)]


def planes(grid: Windows) -> list[Plane]:
    """Return the grid in windows and, if it is shifted, its groups on the image and on the rolled plane."""
    plain, each = replace(grid, shift=(0, 0)), Letters(grid).each
    if not grid.is_shifted:
        return [_plane("windows", plain, each)]
    return [
        _plane("windows", plain, each),
        _plane(f"{grid.headline()[-1]}: attention groups", grid, each),
        _plane("rolled: input of the kernel", grid, each, rolled=True),
    ]


def mask_parts(grid: Windows, screen: Screen) -> list[RenderableType]:
    """Return the masks that block pairs, in half blocks if they fit side by side, otherwise in braille."""
    masks = [mask for mask in grid.masks if mask.blocked]
    most = min(MOST_DOTS, room(screen) if screen.ascii else 2 * room(screen))
    small = [_miniature(mask, most) for mask in masks]
    dots = [mask.matrix() for mask, _ in small]
    wide = sum(len(matrix[0]) + GAP for matrix in dots) - GAP <= room(screen)
    pictures = []
    for mask, matrix in zip(masks, dots, strict=True):
        lines = halves(matrix, screen.ascii) if wide or screen.ascii else braille(matrix)
        caption = [f"{mask.name} · {_which(mask, grid)}", f"{mask.blocked / mask.pairs:.1%} of pairs blocked"]
        head = [Text(screen.text(line), style=style) for line, style in zip(caption, ("bold", "dim"), strict=True)]
        pictures.append(Picture([*head, *(Text(line, style="red") for line in lines)]))
    scale = small[0][1]
    legend = ["query down, key across; filled: blocked (−∞)"]
    if scale > 1:
        legend.append(f"scaled: each dot represents about {scale}×{scale} tokens of the window")
    return [picture_rows(pictures, screen), *(screen.aside(line) for line in legend)]


def mask_columns(grid: Windows) -> list[Column[Mask]]:
    """Return the columns of the distinct masks: their windows, their groups, and the blocked pairs of one window."""
    masks, letters = grid.masks, Letters(grid)
    blocked = sum(mask.windows * mask.blocked for mask in masks)
    pairs = sum(mask.windows * mask.pairs for mask in masks)
    return [
        Column("mask", "mask", lambda mask: mask.name, total="all windows", right=False),
        Column(
            "windows",
            "windows",
            lambda mask: mask.windows,
            lambda n: f"{n:,}",
            total=sum(mask.windows for mask in masks),
        ),
        Column("groups", "groups", letters.of, rank=1, right=False),
        Column(
            "blocked",
            "pairs blocked",
            lambda mask: mask.blocked,
            lambda n: f"{n:,}" if n else words.NONE,
            total=blocked,
        ),
        Column(
            "pairs",
            "pairs",
            lambda mask: mask.pairs,
            lambda n: f"{n:,}",
            2,
            pairs,
        ),
        Column(
            "share",
            "% blocked",
            lambda mask: mask.blocked / mask.pairs,
            words.percent,
            total=blocked / pairs,
        ),
    ]


class Letters:
    """Letters of the groups or, if there are many groups, of the kinds of places.

    A rolled axis has three kinds of places: in a whole window, cut off at the end, and moved around by the roll.
    Within a window, tokens of the same kind are in the same group.
    """

    def __init__(self, grid: Windows, each: bool | None = None) -> None:
        down, across = grid.axes
        counts = down.group_count, across.group_count
        self.axes = down, across
        self.each = max(counts) <= MOST_GROUPS and counts[0] * counts[1] <= len(LETTERS) if each is None else each
        self.pitch = counts[1] if self.each else 3 if across.roll else 1

    def number(self, axis: Axis, token: int) -> int:
        """Return the group of a token on its axis, or the kind of its place."""
        group = axis.group(token)
        return group if self.each else max(group - axis.count + 2, 0) if axis.roll else 0

    def mark(self, y: int, x: int) -> Mark:
        """Return the letter of two numbers, and its color."""
        number = y * self.pitch + x
        return LETTERS[number], COLORS[number % len(COLORS)]

    def of(self, mask: Mask) -> str:
        """Return the letters in the first window with this mask, and `+` for groups of padding only."""
        rows, columns = (
            self._held(axis, axis.window_tokens(window))
            for axis, window in zip(self.axes, (mask.rows[0], mask.columns[0]), strict=True)
        )
        letters = [self.mark(y, x)[0] if rows[y] and columns[x] else PADDING for y in rows for x in columns]
        return " ".join(dict.fromkeys(sorted(letters, key=PADDING.__eq__)))

    def _held(self, axis: Axis, tokens: list[int]) -> dict[int, bool]:
        """Return the groups of these tokens, each with whether one of its tokens is not padding."""
        groups: dict[int, bool] = {}
        for token in tokens:
            number = self.number(axis, token)
            groups[number] = groups.get(number, False) or token < axis.side
        return groups


def _plane(title: str, grid: Windows, each: bool, rolled: bool = False) -> Plane:
    """Return the grid in letters, in the order of the image or rolled."""
    letters = Letters(grid, each)

    def axis_runs(axis: Axis) -> list[Run]:
        tokens = axis.rolled if rolled else range(axis.padded)
        looks = [((letters.number(axis, token), token >= axis.side), axis.group(token)) for token in tokens]
        return runs(looks, axis.window if rolled else 0)

    down, across = letters.axes
    return Plane(title, axis_runs(down), axis_runs(across), letters.mark)


def _miniature(mask: Mask, most: int) -> tuple[Mask, int]:
    """Return the mask of a smaller, similar window whose dots fit, and the number of tokens per dot on an axis."""
    scale = 1
    while -(-len(mask.down) // scale) * -(-len(mask.across) // scale) > most:
        scale += 1

    def shrink(groups: list[int]) -> list[int]:
        kept = sorted(set(groups), key=groups.index)
        return [group for group in kept for _ in range(max(1, round(groups.count(group) / scale)))]

    return replace(mask, down=shrink(mask.down), across=shrink(mask.across)), scale


def _masks_in_words(grid: Windows, screen: Screen) -> list[RenderableType]:
    """Return `49 windows without a mask, 7 right edge, 7 bottom edge, 1 corner` in one line, or else in two."""
    whole, *masked = grid.masks
    counts = [f"{whole.windows:,} {'window' if whole.windows == 1 else 'windows'} without a mask"]
    words = ", ".join([*counts, *(f"{mask.windows:,} {mask.name}" for mask in masked)])
    lines = [words] if len(words) <= room(screen) else words.replace(", ", ",\n", 1).split("\n")
    return [screen.aside(line) for line in lines]


def _which(mask: Mask, grid: Windows) -> str:
    """Return the numbers w of the windows with this mask, or their count if there are many."""
    s = grid.counts[1]
    if mask.windows > 4:
        return f"{mask.windows:,} windows"
    numbers = [str(row * s + column) for row in mask.rows for column in mask.columns]
    return f"window{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}"
