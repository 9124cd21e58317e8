"""Shape comments: which comments are shapes, and which of them are wrong."""

import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from runpy import run_path

import pytest
import torch
from torch import nn

import attnscope
from attnscope.tracing.comments import following
from attnscope.tracing.comments.axes import read_axis
from attnscope.tracing.comments.comparing import mismatch
from attnscope.tracing.comments.reading import read_shape, read_shapes
from tests import commented_modules

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
    "[batch_size, num_patches + 1, 3 * total_embed_dim]": ["batch_size", "num_patches + 1", "3 * total_embed_dim"],
    "reshape: -> [B, N, 3, num_heads, dim]": ["B", "N", "3", "num_heads", "dim"],
    "(B,N,C) -> (B,C,N) => (B,C,H,W)": ["B", "C", "H", "W"],
    "torch.Size([2, 9, 64])": ["2", "9", "64"],
    "BxNxC": ["B", "N", "C"],
    "B x (N+1)*C": ["B", "(N+1)*C"],
    "B x N x C // num_heads": ["B", "N", "C // num_heads"],
    "[B (N+1)*C]": ["B", "(N+1)*C"],
    "N x 1000 (num_classes)": ["N", "1000"],
    "now [B, N, C]": ["B", "N", "C"],
    "形状：（B，N，C）": ["B", "N", "C"],
    "x.shape: (B, N, C)": ["B", "N", "C"],
    "from (N, A * K, H, W) to (N, HWA, K).": ["N", "HWA", "K"],
    "B,H,N,kxk,C/H": ["B", "H", "N", "kxk", "C/H"],
    "B, C (num_heads * V), H, W": ["B", "C (num_heads * V)", "H", "W"],
    "(B, N=197, hidden size)": ["B", "N=197", "hidden size"],
    "rearrange(x, 'b (h w) c -> b c h w')": ["b", "c", "h", "w"],
    'Float[Tensor, "B N C"]': ["B", "N", "C"],
    "3 x [B, N, C]": ["B", "N", "C"],
    "B, N, 3 x C": ["B", "N", "3*C"],
    "forme : (B, N, C)": ["B", "N", "C"],
    "[2, 9, 3*64]": ["2", "9", "3*64"],
}

NO_SHAPES = [
    "type: ignore",
    "noqa: E501",
    "TODO",
    "(x, y)",
    "(x, y, w, h) boxes",
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
    "shift x",
    "pool h",
    "dim = 0",
    "(optional)",
    "(x1, y1, x2, y2)",
    "(left, top, right, bottom)",
    "[0, 1] -> [-1, 1]",
    "x: [x0, x1, x2, x3]",
    "(C_out, C_in) @ (C_in, N)",
    "convert if necessary (B, C, H, W) -> (B, C, 1, H, W)",
    "(all windows of image 0, then image 1, ...)",
    "average over (N, C)",
    "like x.view(B, N, C)",
    "(a, b) are not used",
    "sum of (B, N, C) over C",
    "lr in {1e-3, 1e-4}",
    "N*N*C",
    "H*W*C",
    "B*N*C flops",
]


@pytest.mark.parametrize("comment", SHAPES)
def test_shape_comments_are_parsed(comment):
    axes = read_shape(comment)
    assert axes is not None
    assert [axis.text for axis in axes] == SHAPES[comment]


def test_a_product_of_matrices_is_about_one_image():
    (said,) = read_shapes("(N x N) @ (N x d) -> N x d")
    assert not said.is_sure


def test_asterisks_are_between_axes_or_factors_of_one():
    (said,) = read_shapes("x: B*C*N")
    assert said.label == "x"
    assert not said.is_sure
    assert [[axis.text for axis in axes] for axes in said.options] == [["B", "C", "N"], ["B*C*N"]]


def test_the_shape_of_a_whole_may_have_other_axes_than_its_part():
    assert not read_shapes("class token of (B, N, C)")[0].is_sure
    assert read_shapes("tensor of (B, N, C)")[0].is_sure
    assert read_shapes("features (B, N, C)")[0].is_sure


def test_the_operator_of_a_product_is_not_a_variable():
    (said,) = read_shapes("(B, nh, T, T) x (B, nh, T, hs) -> (B, nh, T, hs)")
    assert said.label == ""
    assert read_shapes("x (B, N, C) -> (B, C, N)")[0].label == "x"


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
        ("(B, N + 1, C)", (1, 5, 8), {"N": 4}, True),
        ("(B, N + 1, C)", (1, 4, 8), {"N": 4}, False),
        ("(B, (H/4)*(W/4), C)", (1, 9, 8), {"H": 12, "W": 11}, True),  # rounded up
        ("(B, h, N, C/h)", (1, 4, 9, 16), {"C": 64}, True),
        ("(B, h, N, C/h)", (1, 4, 9, 15), {"C": 64}, False),
        ("(B, h, N, d)", (1, 9, 4, 16), {"h": 4, "N": 9}, False),  # another order
        ("Wh*Ww, nH, Wh*Ww", (49, 49, 12), {}, False),
        ("(B, N, M)", (1, 9, 7), {"N": 9, "M": 100}, True),  # M may mean something else here
        ("(x1, dx, dim, bs)", (5, 4), {}, True),  # what the last axis holds
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


def test_a_name_of_comments_may_be_used_again_for_another_size():
    bound = {}
    assert mismatch(read_shape("b c h w"), (1, 8, 4, 4), {}, bound) is None
    assert mismatch(read_shape("b c h w"), (1, 16, 2, 2), {}, bound) is None


def test_several_shapes_in_a_comment_have_labels():
    said = read_shapes("output: (B, N, C), attention: (B, h, N, N)")
    assert [(each.label, len(each.options[0])) for each in said] == [("output", 3), ("attention", 4)]


@pytest.mark.parametrize(
    ("text", "sizes"), [("3*C", [12]), ("C/3", [1, 2]), ("2C - 1", [7]), ("C**2", [16]), ("M", None)]
)
def test_an_axis_allows_sizes(text, sizes):
    allowed = read_axis(text).sizes({"C": 4})
    assert (allowed if allowed is None else list(allowed)) == sizes


@pytest.mark.parametrize(
    ("text", "size", "solved"),
    [
        ("M*M", 49, ("M", 7)),
        ("M*M", 50, ("M", None)),
        ("C/4", 6, ("C / 4", 6)),
        ("N+1", 9, ("N", 8)),
        ("3*C", 12, ("C", 4)),
        ("A*B", 6, ("A * B", 6)),
    ],
)
def test_an_axis_is_solved_for_its_only_name(text, size, solved):
    assert read_axis(text).solve(size, {}) == solved


@pytest.mark.parametrize(
    ("module", "shapes"),
    [
        (commented_modules.StudyNote, [(2, 9, 64)]),
        (commented_modules.Inline, [(2, 144, 64), (2, 144, 64)]),
        (commented_modules.Several, [(2, 9, 64)]),
        (commented_modules.Products, [(2, 9, 64)]),
        (commented_modules.NoShapes, [(2, 9, 64)]),
        (commented_modules.Reused, [(2, 8, 8, 8)]),
        (commented_modules.Detection, [(2, 12, 4, 4)]),
        (commented_modules.WordsBefore, [(2, 9, 64)]),
        (commented_modules.NamedOperations, [(2, 9, 64)]),
        (commented_modules.OtherWords, [(2, 9, 64)]),
    ],
)
def test_wrong_comments_are_found_in_all_styles(module, shapes):
    lines = Path(commented_modules.__file__).read_text(encoding="utf-8").splitlines()
    source, first = inspect.getsourcelines(module)
    report = attnscope.trace(module(), *[torch.randn(shape) for shape in shapes])
    marked = {line for line in range(first, first + len(source)) if "WRONG" in lines[line - 1]}
    assert {wrong.line for wrong in report.comments.wrong} == marked


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


def test_equal_functions_of_two_files_have_their_own_comments(tmp_path):
    code = "from torch import nn\nclass M(nn.Module):\n def forward(self, x):\n  B, N, C = x.shape\n  return x.mT  # {}"
    wrong = []
    for name, comment in (("right", "(B, C, N)"), ("wrong", "(B, N, C)")):
        file = tmp_path / f"{name}.py"
        file.write_text(code.format(comment), encoding="utf-8")
        report = attnscope.trace(run_path(str(file))["M"](), torch.rand(2, 3, 5))
        wrong += [Path(each.file).name for each in report.comments.wrong]
    assert wrong == ["wrong.py"]


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


class HasNested(nn.Linear):
    def forward(self, x):
        rows = torch.nested.nested_tensor([x[0], x[1]])  # (b, n, c)
        y = super().forward(x)  # (b, n, d)
        assert rows.is_nested
        return y


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_a_comment_beside_a_tensor_without_sizes_is_not_checked():
    report = attnscope.trace(HasNested(4, 6), torch.ones(2, 3, 4), device="cpu")
    assert (report.totals.macs, report.notes) == (2 * 3 * 4 * 6, [])


class HasComments(nn.Linear):
    def forward(self, x):
        y = super().forward(x)  # (b, n, d)
        return y.relu()  # (b, n, d)


@pytest.mark.parametrize("function", ["watches", "Observation", "judge"])
def test_an_error_of_the_check_is_a_note_and_not_an_error_of_the_forward(function, monkeypatch):
    def fail(*args):
        raise ValueError("of the check")

    monkeypatch.setattr(following, function, fail)
    report = attnscope.trace(HasComments(4, 6), torch.ones(2, 3, 4))
    assert report.totals.macs == 2 * 3 * 4 * 6
    assert report.notes == ["not all shape comments were checked: ValueError: of the check"]


class SwappedProduct(nn.Module):
    def forward(self, x):
        # B C H W -> HW B C
        return x.flatten(2).transpose(1, 2)


class SwappedAroundUnknown(nn.Module):
    def forward(self, x):
        # B C H W -> C L B
        return x.flatten(2).transpose(1, 2)


class RightProduct(nn.Module):
    def forward(self, x):
        # B C H W -> B HW C
        return x.flatten(2).transpose(1, 2)


class FirstIsWrong(nn.Module):
    def __init__(self):
        super().__init__()
        self.num_heads = 12

    def forward(self, x):
        x = x.flatten(2).transpose(1, 2)  # 2*nH, Wh, Ww
        return x.permute(1, 2, 0)  # Wh, Ww, nH


class SecondIsWrong(FirstIsWrong):
    def forward(self, x):
        x = x.flatten(2).transpose(1, 2)  # nH, Wh, Ww
        return x.permute(1, 2, 0)  # Wh, Ww, 2*nH


class AnyIsWrong(nn.Module):
    def forward(self, x):
        x = x.flatten(2).transpose(1, 2)  # 2*nH, Wh, Ww
        return x.permute(1, 2, 0)  # Wh, Ww, nH


@pytest.mark.parametrize(
    ("module", "says"),
    [
        (SwappedProduct, ["(HW, B, C) = 2×2×96"]),
        (SwappedAroundUnknown, ["(C, L, B) = 96×20×2"]),
        (RightProduct, []),
        (FirstIsWrong, ["(2*nH, Wh, Ww) = 24×20×96"]),
        (SecondIsWrong, ["(Wh, Ww, 2*nH) = 20×96×24"]),
        (AnyIsWrong, []),
    ],
)
def test_of_two_comments_that_contradict_each_other_the_one_with_less_evidence_is_wrong(module, says):
    batch = 12 if "IsWrong" in module.__name__ else 2
    report = attnscope.trace(module(), torch.zeros(batch, 96, 4, 5))
    assert [wrong.says for wrong in report.comments.wrong] == says


DECORATIONS = ["*", "/", "+", "* ", "a/", "x", "xa/", "x_", "-*"]


def test_a_line_of_decoration_is_read_at_once():
    # a process of its own, since nothing ends a search of a pattern
    texts = [
        head + part * 80 + tail for part in DECORATIONS for head in ("", "x: ", "-> ") for tail in ("", "?", ", c")
    ]
    code = f"from attnscope.tracing.comments.reading import read_shapes; print([*map(read_shapes, {texts!r})])"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


@pytest.mark.parametrize("comment", ["x: , , ,", "a, ,->,->"])
def test_commas_alone_are_not_a_shape(comment):
    assert read_shapes(comment) == ()


EDITED = """
from torch import nn


class Edited(nn.Module):
    def forward(self, x):
        B, N, C = x.shape
        y = x + 1  # {}
        return y
"""


def test_a_comment_that_is_edited_between_two_traces_is_read_again(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    file = tmp_path / "edited_module.py"
    wrong = []
    for comment in ["(B, C, N)", "(B, N, C), repaired"]:  # other sizes of the file, so that its time may be the same
        file.write_text(EDITED.format(comment))
        module = importlib.reload(importlib.import_module("edited_module"))
        wrong.append(len(attnscope.trace(module.Edited(), torch.rand(2, 3, 4)).comments.wrong))
    assert wrong == [1, 0]
