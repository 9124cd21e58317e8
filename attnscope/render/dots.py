"""Pictures of a matrix in braille, half blocks, or ASCII."""

from collections.abc import Sequence

HALVES = " ▀▄█"
HALVES_ASCII = " '.#"
BRAILLE = 0x2800
BRAILLE_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""The bit of each dot, in four rows of two (Unicode chapter 21.1)."""

Matrix = Sequence[Sequence[int]]


def braille(matrix: Matrix) -> list[str]:
    """Draw a matrix in braille: a character has two columns and four rows, and a dot for each nonzero element."""
    return [_braille_line(matrix[top : top + 4]) for top in range(0, len(matrix), 4)]


def halves(matrix: Matrix, ascii: bool = False) -> list[str]:
    """Draw a matrix in half blocks: a character has one column and two rows, filled for each nonzero element."""
    letters = HALVES_ASCII if ascii else HALVES
    below = [*matrix[1::2], *([[0] * len(matrix[0])] if len(matrix) % 2 else [])]
    return [
        "".join(letters[bool(upper) + 2 * bool(lower)] for upper, lower in zip(*pair, strict=True))
        for pair in zip(matrix[::2], below, strict=True)
    ]


def _braille_line(lines: Matrix) -> str:
    letters = [BRAILLE] * -(-len(lines[0]) // 2)
    for line, (left, right) in zip(lines, BRAILLE_DOTS, strict=False):
        for column, value in enumerate(line):
            if value:
                letters[column // 2] += right if column % 2 else left
    return "".join(map(chr, letters))
