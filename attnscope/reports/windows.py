"""The WindowsReport as plain data: grid, groups, masks, positions, order. Its JSON holds the same data.

If a table of a whole plane is the product of its two axes, the axes are given with the rule that combines them.
"""

from dataclasses import dataclass, is_dataclass
from typing import Any

from attnscope.core.shown import Shown
from attnscope.core.sizes import Pair
from attnscope.core.text import in_json
from attnscope.core.windows import Windows, log_distance, position_index, resized_offsets

SCHEMA = 1
VIEWS = ("partition", "token", "positions", "order")
LARGEST_MATRIX = 1024
"""Number of tokens of the largest window whose matrices (a row and a column for each token) are written."""


@dataclass
class Sight:
    """The part of the image that a token sees: its first and last row and column, and its number of tokens.

    `layer` is None for a single layer, otherwise the number of layers so far. `share` is the share of the image.
    `padding` is the number of padding tokens that the token also attends to in a single layer; no mask hides them.
    """

    layer: int | None
    shifted: bool
    rows: Pair
    columns: Pair
    tokens: int
    share: float
    padding: int


@dataclass
class OrderRow:
    """One row of the window batch, and the rows and columns of its tokens in the image, padding included."""

    row: int
    image: int
    window: int
    place: Pair
    rows: list[int]
    columns: list[int]


@dataclass(repr=False)
class WindowsReport(Shown):
    """The windows of one grid; `views` are the requested ones of VIEWS.

    `pretrained_window` is the window size in pre-training, from which a table of Swin is resized. `log_window` is that
    which scales the distances of Swin V2.
    """

    command: str | None
    title: str
    grid: Windows
    batch: int
    views: list[str]
    token: Pair | None
    layers: int
    notes: list[str]
    next: tuple[str, str]
    pretrained_window: Pair | None = None
    log_window: Pair | None = None

    @property
    def looks(self) -> list[Sight]:
        """Return what the token sees in one layer: in plain windows, and in shifted ones if the grid is shifted."""
        assert self.token is not None
        (y, x), grid, sights = self.token, self.grid, []
        for shifted in (False, True) if grid.is_shifted else (False,):
            down, across = (grid if shifted else Windows(grid.height, grid.width, grid.window)).axes
            seen = down.same_group(y), across.same_group(x)
            sights.append(
                _sight(grid, None, shifted, down.real(seen[0]), across.real(seen[1]), len(seen[0]) * len(seen[1]))
            )
        return sights

    @property
    def fields(self) -> list[Sight]:
        """Return the receptive field of the token after each layer; every second layer is shifted if the grid is."""
        assert self.token is not None
        down, across = self.grid.axes
        spans = zip(
            down.receptive_fields(self.token[0], self.layers),
            across.receptive_fields(self.token[1], self.layers),
            strict=True,
        )
        shifted = self.grid.is_shifted
        return [
            _sight(self.grid, layer, shifted and not layer % 2, rows, columns)
            for layer, (rows, columns) in enumerate(spans, start=1)
        ]

    @property
    def order_rows(self) -> int:
        """Return the number of rows of the window batch."""
        r, s = self.grid.counts
        return self.batch * r * s

    def order_row(self, row: int) -> OrderRow:
        """Return a row of the window batch: row b·nW + w is window w of image b."""
        (r, s), (down, across) = self.grid.counts, self.grid.axes
        image, window = divmod(row, r * s)
        i, j = divmod(window, s)
        return OrderRow(row, image, window, (i, j), down.window_tokens(i), across.window_tokens(j))

    @property
    def writes_matrices(self) -> bool:
        """Return whether the windows are small enough for their matrices to be written."""
        return self.grid.window[0] * self.grid.window[1] <= LARGEST_MATRIX

    def to_dict(self) -> dict[str, Any]:
        """Return the data as plain dictionaries, lists and numbers."""
        return {
            "schema": SCHEMA,
            "command": self.command,
            "title": self.title,
            "grid": self._grid(),
            "groups": self._groups(),
            "masks": self._masks(),
            "index": self._index(),
            "distances": None if self.log_window is None else self.distances(self.log_window),
            "resized": None if self.pretrained_window is None else self._resized(self.pretrained_window),
            "order": self._order(),
            "token": None if self.token is None else self._token(self.token),
            "left_out": self._left_out(),
            "notes": self.notes,
            "next": self.next,
        }

    def to_json(self) -> str:
        """Return the data as JSON, with each row of a table on a separate line."""
        return _lay_out(self.to_dict())

    def _grid(self) -> dict[str, Any]:
        grid = self.grid
        return {
            "resolution": (grid.height, grid.width),
            "window": grid.window,
            "shift": grid.shift,
            "roll": grid.roll,
            "windows": grid.counts,
            "padded": grid.padded,
            "padding": grid.padding,
            "waste": grid.waste,
        }

    def _groups(self) -> dict[str, Any]:
        down, across = self.grid.axes
        return {
            "rule": f"token (y, x) of the padded image is in group down[y]·{across.group_count} + across[x]. "
            "Tokens attend to each other if and only if their groups are equal.",
            "count": down.group_count * across.group_count,
            "down": [down.group(token) for token in range(down.padded)],
            "across": [across.group(token) for token in range(across.padded)],
        }

    def _masks(self) -> list[dict[str, Any]]:
        return [
            {
                "name": mask.name,
                "windows": mask.windows,
                "window_rows": (mask.rows[0], mask.rows[-1]),
                "window_columns": (mask.columns[0], mask.columns[-1]),
                "pairs": mask.pairs,
                "blocked": mask.blocked,
                "share": mask.blocked / mask.pairs,
                "mask": mask.matrix() if self.writes_matrices else None,
            }
            for mask in self.grid.masks
        ]

    def _index(self) -> dict[str, Any]:
        p, q = self.grid.window
        return {
            "rule": f"(dy + {p - 1})·{2 * q - 1} + (dx + {q - 1}), (dy, dx) is the query's position minus the key's.",
            "table_rows": (2 * p - 1) * (2 * q - 1),
            "index": position_index((p, q)) if self.writes_matrices else None,
        }

    def distances(self, pretrained: Pair) -> dict[str, Any]:
        """Return the distance of each offset on the log scale of Swin V2, down and across."""
        down, across = (
            [log_distance(offset, of) for offset in range(1 - side, side)]
            for side, of in zip(self.grid.window, pretrained, strict=True)
        )
        return {
            "rule": "sign(d)·log2(1 + 8|d|/(M − 1))/log2(8), M is the side of the window in pre-training.",
            "pretrained_window": pretrained,
            "down": down,
            "across": across,
        }

    def resized(self, pretrained: Pair) -> list[list[dict[int, float]]]:
        """Return the weights of the old offsets for each new one in a resized table of Swin, down and across."""
        return resized_offsets(pretrained, self.grid.window)

    def _resized(self, pretrained: Pair) -> dict[str, Any]:
        down, across = (
            [[{"offset": old, "weight": weight} for old, weight in weights.items()] for weights in axis]
            for axis in self.resized(pretrained)
        )
        return {
            "rule": "row (dy, dx) of the resized table is the sum of the rows of the table in pre-training, times their "
            "weights down and across.",
            "pretrained_window": pretrained,
            "down": down,
            "across": across,
        }

    def _order(self) -> dict[str, Any]:
        (r, s), (down, across) = self.grid.counts, self.grid.axes
        q = self.grid.window[1]
        return {
            "rule": f"row b·{r * s} + i·{s} + j of the batch is window (i, j) of image b. Token y·{q} + x of the row is "
            "token (down[i][y], across[j][x]) of the image.",
            "batch": self.batch,
            "windows": r * s,
            "down": [down.window_tokens(i) for i in range(r)],
            "across": [across.window_tokens(j) for j in range(s)],
        }

    def _token(self, token: Pair) -> dict[str, Any]:
        return {"place": token, "looks": self.looks, "layers": self.fields}

    def _left_out(self) -> list[str]:
        if self.writes_matrices:
            return []
        return [f"mask and index are not written: windows have more than {LARGEST_MATRIX} tokens"]


def _sight(grid: Windows, layer: int | None, shifted: bool, rows: range, columns: range, seen: int = 0) -> Sight:
    tokens = len(rows) * len(columns)
    share = tokens / (grid.height * grid.width)
    places = (rows[0], rows[-1]), (columns[0], columns[-1])
    return Sight(layer, shifted, *places, tokens, share, max(seen - tokens, 0))


def _lay_out(value: Any, indent: str = "") -> str:
    """Return a value as JSON, with a line for each key and for each row of a table."""
    if is_dataclass(value):
        value = vars(value)
    inner = indent + "  "
    if isinstance(value, dict):
        lines = [f"{in_json(key)}: {_lay_out(each, inner)}" for key, each in value.items()]
        ends = "{}"
    elif isinstance(value, list | tuple) and value and not isinstance(value[0], int | str | float):
        lines = [_lay_out(each, inner) for each in value]
        ends = "[]"
    else:
        return in_json(value, indent=None)
    return ends[0] + "\n" + ",\n".join(inner + line for line in lines) + "\n" + indent + ends[1]
