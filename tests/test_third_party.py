"""Third-party targets: inputs of every kind, values on meta, builds that fit, and MACs equal to FlopCounterMode's."""

import json
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import attnscope
from attnscope import DeviceError, UsageError
from attnscope.profiling import devices
from attnscope.tracing.construction import built, inputs_maker
from attnscope.tracing.failures import ForwardError, needs_values
from attnscope.tracing.options import TraceOptions
from attnscope.tracing.targets import InputSpec, Target, find_target, transformers
from attnscope.tracing.trace import trace_target
from attnscope.tracing.values import values_known

META = torch.device("meta")
OPTIONS = TraceOptions(
    time=False, device=None, group="op", depth=None, submodule=None, budget=0.01, threads=1, seed=0, command=None
)  # fmt: skip


def torchs_macs(target):
    """Return FlopCounterMode's count on meta, where values that a forward asks for are known."""
    module = built(target, "meta").eval().requires_grad_(False)
    make = inputs_maker(module, target.inputs_of(module), threads=1, seed=0)
    with values_known(), torch.no_grad(), META, FlopCounterMode(display=False) as counter:
        args, keywords = make(META)
        module(*args, **keywords)
    return counter.get_total_flops() / 2


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("vit", ["1×3×224×224 float32"]),
        ("clip", ["1×77 int64", "1×3×224×224 float32"]),
        ("videomae", ["1×16×3×224×224 float32"]),
        ("whisper", ["1×80×3000 float32", "1×128 int64"]),
        ("siglip2", ["1×64 int64", "1×196×768 float32", "1×2 int64", "1×196 int64"]),
        ("llava", ["1×584 int64", "1×3×336×336 float32"]),
        ("qwen3_5_moe_vision", ["1×3 int64", "196×1536 float32"]),
        ("mixtral", ["1×128 int64"]),
        ("sam", ["1×3×1024×1024 float32", "1×1×1×2 float32"]),
        ("gemma4_vision", ["1×144×768 float32", "1×144×2 int64"]),
        ("gemma4_audio", ["1×512×128 float32"]),
        ("fun_asr_nano_encoder", ["1×512×560 float32", "1×512 int64"]),
    ],
)
def test_models_of_transformers_get_inputs_of_their_kinds(name, inputs):
    if name not in pytest.importorskip("transformers").CONFIG_MAPPING:
        pytest.skip(f"{name} is not in this version of transformers")
    target = find_target(f"hf:{name}", {})
    report = trace_target(target, OPTIONS)
    assert report.spec["inputs"] == inputs
    assert report.environment["device"] == "meta"
    assert report.totals.macs == torchs_macs(target) > 0


@pytest.mark.parametrize(
    ("name", "fault"),
    {
        "hunyuan_v1_dense": "has no head_dim; use arg head_dim=VALUE",
        "granitemoehybrid": "fails in its cache for the next tokens; use arg use_cache=false",
        "qwen2_vl": "features of images with 3,584 channels for tokens with 8,192, so that its default config cannot run",
    }.items(),
)
def test_a_default_config_that_cannot_run_is_an_error_with_the_fix(name, fault):
    if name not in pytest.importorskip("transformers").CONFIG_MAPPING:
        pytest.skip(f"{name} is not in this version of transformers")
    with pytest.raises(UsageError) as raised:
        trace_target(find_target(f"hf:{name}", {}), OPTIONS)
    assert fault in str(raised.value)


def test_a_mask_follows_the_layout_of_its_input():
    config = SimpleNamespace(num_mel_bins=80)
    sizes = transformers.Sizes(nn.Identity(), config, {})
    frames, mask = InputSpec((1, 512, 80), name="input_features"), InputSpec((1, 512), "int64", "input_features_mask")
    text = InputSpec((1, 80), "int64", "attention_mask")
    later = transformers._in_next_layout(sizes, [frames, mask, text])
    assert [spec.shape for spec in later] == [(1, 80, 3000), (1, 3000), (1, 80)]


def test_an_image_has_patches_that_can_be_joined():
    config = SimpleNamespace(num_channels=3, patch_size=32, image_size=224, scale_factor=2)
    sizes = transformers.Sizes(nn.Identity(), config, {"pixel_values": None, "pixel_attention_mask": None})
    specs = [
        InputSpec((1, 1, 3, 224, 224), name="pixel_values"),
        InputSpec((1, 1, 224, 224), "int64", "pixel_attention_mask"),
    ]
    found = transformers._in_next_layout(sizes, specs)
    assert [spec.shape for spec in found] == [(1, 1, 3, 192, 192), (1, 1, 192, 192)]


def test_an_optional_input_that_the_failing_code_names_is_added():
    pytest.importorskip("transformers")
    report = trace_target(find_target("hf:llava_next", {}), OPTIONS)
    assert report.spec["inputs"] == ["1×1760 int64", "1×3×3×336×336 float32", "1×2 int64"]


def test_a_config_file_builds_the_class_in_its_architectures(tmp_path):
    pytest.importorskip("transformers")
    path = tmp_path / "config.json"
    small = {"model_type": "vit", "hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    path.write_text(json.dumps({**small, "architectures": ["ViTForImageClassification"]}))
    whole = built(find_target(f"hf:{path}", {}), "meta")
    assert type(whole).__name__ == "ViTForImageClassification"
    path.write_text(json.dumps({**small, "architectures": ["MyOwnViT"]}))
    target = find_target(f"hf:{path}", {})
    assert type(built(target, "meta")).__name__ == "ViTModel"
    assert target.notes == ("MyOwnViT is not in transformers: AutoModel builds the base model, without its head",)
    assert target.notes[0] in trace_target(target, OPTIONS).notes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not a JSON file; use the config.json of a model of transformers"),
        ("{}", "has no model_type; use the config.json of a model of transformers"),
        ('{"model_type": "vitt"}', r"has the unknown model_type vitt; did you mean vit\?"),
    ],
)
def test_a_file_that_lacks_a_config_is_an_error_of_one_line(text, message, tmp_path):
    pytest.importorskip("transformers")
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        find_target(f"hf:{path}", {})


class Patches(nn.Module):
    """A model whose user cuts images into patches, as small images or as rows of pixels."""

    def __init__(self, is_flat):
        super().__init__()
        self.project = nn.Linear(3 * 16 * 16, 4) if is_flat else nn.Conv2d(3, 4, 16, 16)
        self.takes = (1, 196, 768) if is_flat else (196, 3, 16, 16)

    def forward(self, pixel_values):
        assert pixel_values.shape == self.takes, f"wrong shape {tuple(pixel_values.shape)}"
        return self.project(pixel_values)


def of_config(create, **config):
    config = SimpleNamespace(**config)
    found, others = partial(transformers.find_inputs, config), partial(transformers.other_inputs, config)
    return Target("it", create, find_inputs=found, other_inputs=others)


@pytest.mark.parametrize("is_flat", [True, False])
def test_a_forward_that_refuses_the_layout_of_an_image_gets_the_next_one(is_flat):
    target = of_config(partial(Patches, is_flat), image_size=224, patch_size=16, spatial_merge_size=2)
    report = trace_target(target, OPTIONS)
    assert report.spec["inputs"] == ["1×196×768 float32" if is_flat else "196×3×16×16 float32"]
    assert report.totals.macs == 196 * 3 * 16 * 16 * 4


class Refuses(nn.Module):
    def __init__(self):
        super().__init__()
        self.project = nn.Linear(4, 4)

    def forward(self, pixel_values):
        raise ValueError(f"wrong shape {tuple(pixel_values.shape)}")


def test_an_error_about_found_inputs_names_them_and_how_to_give_others():
    first = r"wrong shape \(1, 3, 32, 32\); the inputs were derived from its config \(pixel_values 1×3×32×32\); "
    with pytest.raises(ForwardError, match=first + r"give others with input pixel_values=SHAPE"):
        trace_target(of_config(Refuses, image_size=32), OPTIONS)


class RefusesWithoutText(Refuses):
    def get_input_embeddings(self):
        raise NotImplementedError("override in the subclass")


def test_an_error_is_that_of_the_forward_where_a_library_does_not_find_the_embedding():
    with pytest.raises(
        ForwardError, match=r"wrong shape \(1, 3, 32, 32\); .* give others with input pixel_values=SHAPE"
    ):
        trace_target(of_config(RefusesWithoutText, image_size=32), OPTIONS)


class Wrapped(nn.Module):
    """A network of another library, whose image size is not in the config, before layers without one."""

    def __init__(self):
        super().__init__()
        self.embed, self.norm = nn.Conv2d(3, 4, 16, 16), nn.Identity()
        self.embed.img_size = (64, 48)

    def forward(self, pixel_values):
        return self.norm(self.embed(pixel_values))


def test_the_size_of_an_image_is_that_of_the_module_if_the_config_has_none():
    report = trace_target(of_config(Wrapped, patch_size=16), OPTIONS)
    assert report.spec["inputs"] == ["1×3×64×48 float32"]


def test_an_error_that_shows_a_tensor_of_meta_is_not_one_of_meta():
    assert not needs_values(ValueError("tokens: tensor(..., device='meta', size=())"))
    assert needs_values(RuntimeError("Tensor.item() cannot be called on meta tensors"))


class Placeholders(nn.Module):
    """A forward that asks for values of its input in several ways."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(10, 4)
        self.project = nn.Linear(4, 4)

    def forward(self, ids, sizes):
        selected = self.embed(ids)[ids == 3]
        for rows, columns in sizes.tolist():
            selected = torch.cat([selected, selected.new_zeros(rows * columns, 4)])
        mask = torch.zeros(ids.shape, dtype=torch.bool)
        mask[:, :2] = True
        offset = int(torch.tensor([2, 3]).sum())
        return self.project(torch.cat([selected, self.embed(ids)[mask], selected.new_zeros(offset, 4)]))


IDS = InputSpec((1, 6), "int64", "ids", (3, 1, 3, 3, 1, 1))
SIZES = InputSpec((2, 2), "int64", "sizes", ((2, 3), (1, 4)))


def test_a_forward_that_asks_for_values_of_small_tensors_runs_on_meta():
    report = trace_target(Target("it", Placeholders, [IDS, SIZES]), OPTIONS)
    rows = 3 + (2 * 3 + 1 * 4) + 2 + 5
    assert report.environment["device"] == "meta"
    assert report.totals.macs == rows * 4 * 4


def test_values_that_an_unknown_one_overwrites_are_unknown():
    with values_known(), META:
        values, weights = torch.tensor([1.0, 2.0]), torch.empty(2, device="cpu").to("meta")
        part = values[:1]
        assert values.tolist() == [1.0, 2.0]
        with torch.no_grad():
            values.mul_(nn.Linear(2, 2)(weights))
        with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor"):
            part.tolist()


class AsksItsWeights(nn.Module):
    """A forward that asks for the values of its weights, which are unknown on meta."""

    def __init__(self, size=10):
        super().__init__()
        self.project = nn.Linear(size, size)

    def forward(self, x):
        return self.project(x) if self.project.weight.sum().item() < 1e9 else x


@pytest.mark.parametrize(("free", "devices_built_on"), [(440, ["meta", "cpu"]), (439, ["meta"])])
def test_a_module_is_built_on_the_cpu_only_if_its_parameters_fit(free, devices_built_on, monkeypatch):
    monkeypatch.setattr("attnscope.tracing.construction.free_memory", lambda device: free)
    monkeypatch.setattr(devices, "free_memory", lambda device: free)
    built_on = []

    def build():
        built_on.append(torch.get_default_device().type)
        return AsksItsWeights()

    target = Target("it", build, [InputSpec((1, 10))])
    if free >= 440:
        report = trace_target(target, OPTIONS)
        assert report.totals.macs == 100
        assert any(note.startswith("ran on cpu, since the forward failed on meta (") for note in report.notes)
    else:
        with pytest.raises(DeviceError, match=r"and its parameters need 440 Bytes, but cpu has 439"):
            trace_target(target, OPTIONS)
    assert built_on == devices_built_on


def test_a_module_that_meta_cannot_build_is_refused_when_its_tensors_exceed_the_memory(monkeypatch):
    monkeypatch.setattr("attnscope.tracing.construction.free_memory", lambda device: 10_000)
    made = []

    def build():
        if torch.get_default_device().type == "meta":
            torch.empty(1).item()
        made.extend(nn.Linear(30, 30) for _ in range(10))  # 3,720 bytes each
        return made[0]

    with pytest.raises(
        DeviceError, match=r"big needs more than the 9.8 KiB that cpu has free; use smaller values of arg"
    ):
        built(Target("big", build), "meta", otherwise="cpu")
    assert len(made) == 2


def test_an_error_that_meta_does_not_cause_is_reported_without_a_run_on_the_cpu():
    built_on = []

    def build():
        built_on.append(torch.get_default_device().type)
        raise ValueError("heads must divide {dim}")

    with pytest.raises(ForwardError, match=r"it could not be built: ValueError: heads must divide \{dim\}"):
        trace_target(Target("it", build, [InputSpec((1, 10))]), OPTIONS)
    assert built_on == ["meta"]


class PartlyOnMeta(nn.Module):
    """A module with a tensor on an explicit device, and a forward that asks for the value of a weight."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4, device="cpu"))
        self.project = nn.Linear(4, 4)

    def forward(self, x):
        return self.project(x) * self.scale if self.project.weight.sum().item() < 1e9 else x


def test_a_module_that_is_partly_on_meta_is_rebuilt_or_refused():
    assert trace_target(Target("it", PartlyOnMeta, [InputSpec((2, 4))]), OPTIONS).totals.macs == 32
    with META:
        module = PartlyOnMeta()
    with pytest.raises(UsageError, match=r"must be on meta as a whole or not at all \(project.weight is on meta\)"):
        attnscope.trace(module, torch.ones(2, 4))
