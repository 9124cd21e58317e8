"""Inputs of a traced module: their names, their kinds, the arguments to build it with, and errors about them."""

import collections
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import attnscope
from attnscope.core.errors import AttnscopeError, UsageError
from attnscope.tracing.targets import Target, find_target, parse_argument, parse_input
from attnscope.tracing.tensors import shapes_within
from attnscope.tracing.trace import TraceOptions, trace_target

X = torch.zeros(2, 8)
OWN_NAMES = ["time", "device", "group", "depth", "submodule", "budget", "threads", "seed", "name", "command", "focus"]


class Conditioned(nn.Module):
    """A module whose forward has the keywords of `trace` itself."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x, *, extra=None, module=None, kwargs=None, **keywords):
        others = [extra, module, kwargs, *keywords.values()]
        return self.linear(x + sum(other for other in others if other is not None))


@pytest.mark.parametrize("name", [*OWN_NAMES, "module", "kwargs"])
def test_a_keyword_with_the_name_of_an_argument_of_trace_is_in_kwargs(name):
    report = attnscope.trace(Conditioned(), X, kwargs={name: torch.zeros(1, 8)}, name="net")
    assert report.spec["inputs"] == ["2×8 float32", "1×8 float32"]
    assert (report.spec["module"], report.totals.macs) == ("net", 2 * 8 * 8)


def test_kwargs_are_added_to_the_other_keywords():
    report = attnscope.trace(Conditioned(), X, extra=torch.zeros(8), kwargs={"time": torch.zeros(1, 8)})
    assert report.spec["inputs"] == ["2×8 float32", "8 float32", "1×8 float32"]
    assert report.time is None


def test_kwargs_that_are_not_a_dictionary_are_refused():
    with pytest.raises(UsageError, match=r"kwargs must be a dictionary .*, such as dict\(time=t\) \(got 3\)"):
        attnscope.trace(Conditioned(), X, kwargs=3)


@pytest.mark.parametrize("name", OWN_NAMES)
def test_an_input_with_the_name_of_a_flag_is_passed(tmp_path, name):
    file = tmp_path / "net.py"
    file.write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def forward(self, x, **keywords):\n"
        f"        return x + keywords['{name}']\n"
    )
    target = find_target(f"{file}:Net", {}, [parse_input("2x8"), parse_input(f"{name}=1x8")])
    report = trace_target(target, TraceOptions(False, None, "module", None, None, 1.0, 1, 0, None))
    assert [row.inputs for row in report.steps] == [[(2, 8), (1, 8)]]


@dataclasses.dataclass
class Data:
    image: torch.Tensor
    boxes: object = None


@dataclasses.dataclass(slots=True)
class Slots:
    image: torch.Tensor


class Batch:
    def __init__(self, image):
        self.image, self.again, self.names = image, image, {"a", "b"}


Pair = collections.namedtuple("Pair", ["image", "size"])


@pytest.mark.parametrize(
    ("value", "shapes"),
    [
        (Data(X, [X.T]), [(2, 8), (8, 2)]),
        (Slots(X), [(2, 8)]),
        (Batch(X), [(2, 8)]),
        (Pair(X, (3, 4)), [(2, 8)]),
        (collections.OrderedDict(image=X), [(2, 8)]),
        (collections.UserDict(image=X), [(2, 8)]),
        (collections.deque([X]), [(2, 8)]),
        ({"image": {"pixels": [X, None]}}, [(2, 8)]),
        ({"a", "b"}, []),
        (None, []),
        (nn.Linear(2, 2), []),
    ],
)
def test_shapes_are_found_in_values_of_every_kind(value, shapes):
    assert shapes_within(value) == shapes


def test_an_object_that_contains_itself_is_searched_once():
    batch = Batch(X)
    batch.parent = batch
    assert shapes_within(batch) == [(2, 8)]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("false", False),
        ("True", True),
        ("none", None),
        ("None", None),
        ("384x384", (384, 384)),
        ("8×7x7", (8, 7, 7)),
        ("0x10", 16),
        ("'none'", "none"),
        ("gelu", "gelu"),
        ("(7, 7)", (7, 7)),
        ("1e-5", 1e-5),
    ],
)
def test_an_argument_means_what_it_says(text, value):
    name, parsed = parse_argument(f"size={text}")
    assert (name, parsed, type(parsed)) == ("size", value, type(value))


def test_an_argument_without_a_value_is_refused():
    with pytest.raises(UsageError, match=r"arg dim= has no value; use NAME=VALUE, such as dim=96"):
        parse_argument("dim=")


@pytest.mark.parametrize(("args", "side"), [({}, 518), ({"image_size": 28}, 28)])
def test_a_network_of_torchvision_has_the_image_size_of_its_weights_or_of_its_argument(args, side):
    target = find_target("torchvision:vit_h_14", args)
    with torch.device("meta"):
        module = target.build()
    assert module.image_size == side
    assert [spec.shape for spec in target.inputs_of(module)] == [(1, 3, side, side)]


def test_an_error_shows_how_to_pass_a_config_object(tmp_path):
    file = tmp_path / "net.py"
    file.write_text("def build(config): ...\n")
    with pytest.raises(
        UsageError, match=r"a function of a file, such as def build\(\): return Net\(Config\(dim=96\)\)"
    ):
        find_target(f"{file}:build", {}).build()


def test_an_error_shows_how_to_pass_a_dictionary():
    with pytest.raises(UsageError, match=r"wrap the module in a file: def forward\(self, x\): return self.net\("):
        find_target("torch.nn:Identity", {}).inputs_of(nn.Identity())


class Attend(nn.Module):
    def __init__(self):
        super().__init__()
        self.attn = nn.MultiheadAttention(16, 2)

    def forward(self, x):
        return self.attn(x, x, x)[0]


@pytest.mark.parametrize("images", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("module", [Attend(), nn.MultiheadAttention(16, 2), nn.TransformerDecoderLayer(16, 2, 32)])
def test_attention_with_the_batch_second_has_no_windows(module, images):
    x = torch.zeros(2, images, 16)
    inputs = {Attend: [x], nn.MultiheadAttention: [x, x, x], nn.TransformerDecoderLayer: [x, x]}[type(module)]
    found = attnscope.trace(module, *inputs).attentions
    assert {attention.neighbourhood.words for attention in found} <= {"global attention", "all keys"}
    assert {(attention.tokens, attention.heads, attention.head_dim) for attention in found} == {(2, 2, 8)}


@pytest.mark.parametrize("queries", [(6, 5, 8), (1, 6, 5, 8), (2, 6, 5, 8)])
def test_attention_with_broadcast_queries_has_no_windows(queries):
    class Attend(nn.Module):
        def forward(self, q, k):
            return F.scaled_dot_product_attention(q, k, k)

    report = attnscope.trace(Attend(), torch.zeros(queries), torch.zeros(2, 6, 7, 8))
    [found] = report.attentions
    assert (found.neighbourhood.words, found.tokens, found.heads, report.totals.macs) == ("all keys", 5, 6, 6720)


OPTIONS = TraceOptions(False, None, "module", None, None, 0.1, 1, 0, None)


class Masked(nn.Module):
    def forward(self, x, mask, *, scale=None):
        return x + mask if scale is None else x * scale + mask


class Misused(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Masked()

    def forward(self, x, **others):
        return self.inner(x)


@pytest.mark.parametrize(
    ("build", "shapes", "fix"),
    [
        (Masked, ["2,4"], "argument: 'mask'; add --input mask=SHAPE"),
        (Masked, ["scale=2,4"], "; add --input x=SHAPE --input mask=SHAPE"),
        (Masked, ["2,4", "msk=2,4"], "argument 'msk'; did you mean mask?"),
        (Masked, ["2,4", "2,4", "size=2,4"], "argument 'size'; available: mask, scale, x"),
        (Masked, ["2,4", "2,4", "2,4"], "but 4 were given"),
        (Misused, ["2,4", "mask=2,4"], "argument: 'mask'"),
    ],
)
def test_an_error_of_a_forward_says_which_input_to_add_or_to_rename(build, shapes, fix):
    target = Target("mine", build, [parse_input(text) for text in shapes])
    with pytest.raises(AttnscopeError) as error:
        trace_target(target, OPTIONS)
    assert error.value.in_flags().endswith(fix)


def test_inputs_that_a_hook_adds_are_not_missing():
    def build():
        module = Masked()
        module.register_forward_pre_hook(lambda module, args: (*args, torch.ones_like(args[0])))
        return module

    report = trace_target(Target("mine", build, [parse_input("2,4")]), OPTIONS)
    assert report.steps
