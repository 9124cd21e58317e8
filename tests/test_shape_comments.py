"""Shape comments: which comments are shapes, and which of them are wrong."""

from pathlib import Path

import pytest
import torch
from torch import nn

import attnscope
from attnscope.tracing.comments.comparing import mismatch
from attnscope.tracing.comments.reading import read_shape

SHAPES = {
    "(B, N, C)": ["B", "N", "C"],
    "[B, N, C]": ["B", "N", "C"],
    "B, N, C": ["B", "N", "C"],
    "b h n d": ["b", "h", "n", "d"],
    "B x N x C": ["B", "N", "C"],
    "B × N × C": ["B", "N", "C"],
    "b n (h d)": ["b", "n", "(h d)"],
    "nW*B, window_size, window_size, C": ["nW*B", "window_size", "window_size", "C"],
    "num_windows*B, window_size*window_size, C": ["num_windows*B", "window_size*window_size", "C"],
    "... H/2 W/2 4*C": ["...", "H/2", "W/2", "4*C"],
    "B H//2 W//2 4C": ["B", "H//2", "W//2", "4C"],
    "Wh*Ww,Wh*Ww,nH": ["Wh*Ww", "Wh*Ww", "nH"],
    "x: (B, N, C)": ["B", "N", "C"],
    "(B, N, C) -> (B, N, 3C)": ["B", "N", "3C"],
    "(B, N, C), float32": ["B", "N", "C"],
    "(1, 49, 96)": ["1", "49", "96"],
}

NO_SHAPES = [
    "type: ignore",
    "noqa: E501",
    "TODO",
    "(x, y)",
    "q, k, v",
    "(7, 7)",
    "1, 2",
    "optional, unused",
    "for the mask",
    "apply norm, then add",
    "make torchscript happy (cannot use tensor as tuple)",
    "[CLS] token",
    "B H W C or N H W C",
    "e.g. 3 C",
    "no-op",
    "cyclic shift",
    "merge windows",
    "to be or not",
    "x = 3, y = 4",
    "https://example.org/a, b",
    "(see Liu et al., 2021)",
]


@pytest.mark.parametrize("comment", SHAPES)
def test_shape_comments_are_parsed(comment):
    axes = read_shape(comment)
    assert axes is not None
    assert [axis.text for axis in axes] == SHAPES[comment]


@pytest.mark.parametrize("comment", ["", *NO_SHAPES])
def test_other_comments_are_ignored(comment):
    assert read_shape(comment) is None


@pytest.mark.parametrize(
    ("comment", "shape", "known", "right"),
    [
        ("(B, N, C)", (1, 49, 96), {"B": 1, "N": 49, "C": 96}, True),
        ("(B, N, C)", (1, 49, 95), {"B": 1, "N": 49, "C": 96}, False),
        ("(B, N, C)", (1, 49), {}, False),
        ("b n n", (2, 5, 5), {}, True),
        ("b n n", (2, 5, 6), {}, False),
        ("b n (h d)", (2, 5, 12), {"h": 3}, True),
        ("b n (h d)", (2, 5, 13), {"h": 3}, False),
        ("B, M*M, C", (2, 49, 8), {}, True),
        ("B, M*M, C", (2, 50, 8), {}, False),
        ("... C", (2, 3, 4, 8), {"C": 8}, True),
        ("... C", (2, 3, 4, 8), {"C": 9}, False),
        ("B H/2 W/2 C", (1, 4, 4, 8), {"H": 7, "W": 8}, True),  # rounded up
        ("B H/2 W/2 C", (1, 5, 4, 8), {"H": 7, "W": 8}, False),
        ("B, N, 3*C", (1, 4, 24), {"C": 8}, True),
        ("B, 4, C", (1, 5, 8), {}, False),
    ],
)
def test_a_comment_is_compared_with_a_shape(comment, shape, known, right):
    axes = read_shape(comment)
    assert axes is not None
    assert (mismatch(axes, shape, known, {}) is None) == right


def test_a_name_keeps_its_first_size():
    bound = {}
    assert mismatch(read_shape("b n d"), (1, 4, 8), {}, bound) is None
    assert mismatch(read_shape("b d n"), (1, 4, 8), {}, bound) == "(b, d, n) = 1×8×4"


def helper(x):
    y = x * 2  # (B, N, C)
    return y.transpose(1, 2)  # (B, N, C)


class Commented(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(8, 24)

    def forward(self, x):
        B, N, C = x.shape
        assert x.numel() == B * N * C
        y = self.inner(x)  # (B, N, 3*C)
        y = self.inner(x)  # (B, N, C)
        q, k, v = y.chunk(3, dim=-1)  # (B, N, C)
        s = (
            q @ k.transpose(1, 2)  # (B, C, N)
        )  # (B, N, N)
        z = helper(v)  # (B, C, N)
        n = None  # B, N
        return s @ z.transpose(1, 2), n  # the result, and nothing


def test_wrong_comments_are_reported_with_file_and_line():
    report = attnscope.trace(Commented(), torch.randn(2, 5, 8))
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    wrong = {(lines[wrong.line - 1].strip(), wrong.says, tuple(wrong.made)) for wrong in report.comments.wrong}
    assert wrong == {
        ("y = self.inner(x)  # (B, N, C)", "(B, N, C) = 2×5×8", (2, 5, 24)),
        ("return y.transpose(1, 2)  # (B, N, C)", "(B, N, C) = 2×5×8", (2, 8, 5)),
    }
    assert {wrong.file for wrong in report.comments.wrong} == {__file__}
    assert report.comments.checked == 7
    assert all(f":{wrong.line}: the comment says" in " ".join(report.warnings) for wrong in report.comments.wrong)


def test_an_existing_trace_function_is_not_replaced():
    import sys

    seen = []

    def tracer(frame, event, arg):
        seen.append(event)

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        report = attnscope.trace(Commented(), torch.randn(2, 5, 8))
        after = sys.gettrace()
    finally:
        sys.settrace(before)
    assert after is tracer
    assert report.comments.checked == 0
    assert any("debugger" in note for note in report.notes)
