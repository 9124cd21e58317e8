"""Modules exported with dynamic sizes: torch.export, ONNX and torch.compile give the outputs of the module at any size."""

import importlib
import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn

from attnscope import CrossAttention, ViTAttention, WindowAttention, WindowAttentionV2
from attnscope.attentions.swin.attention import UNKNOWN_SIDES
from attnscope.networks.swin.spec import SwinNetworkSpec, SwinV2NetworkSpec
from attnscope.networks.vit.spec import ViTNetworkSpec
from attnscope.testing import AttentionBattery
from tests.sampling import some

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not UNKNOWN_SIDES, reason="torch before 2.8 compiles for one kind of padding"),
    # torch's exporters use deprecated parts of torch
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]
HAS_ONNX = all(importlib.util.find_spec(name) is not None for name in ("onnx", "onnxscript", "onnxruntime"))
DIM = torch.export.Dim
BATCH = DIM("b", max=64)
SEQUENCE = {0: BATCH, 1: DIM("n", min=2, max=500)}
MULTIPLES = {0: BATCH, 1: 7 * DIM("rows", min=2, max=50), 2: 7 * DIM("columns", min=2, max=50)}
GRID = {0: BATCH, 1: DIM("rows", min=8, max=500), 2: DIM("columns", min=8, max=500)}
IMAGE = {0: BATCH, 2: 4 * DIM("rows", min=12, max=50), 3: 4 * DIM("columns", min=12, max=50)}
SWIN = {"dim": 24, "heads": 3, "depths": (2, 1), "image": (64, 64), "window": (4, 4), "classes": 5}
WHOLE = (MULTIPLES, [(2, 14, 21, 24), (3, 28, 14, 24), (1, 35, 35, 24)])
PADDED = (GRID, [(2, 16, 17, 24), (3, 14, 21, 24), (1, 35, 13, 24)])  # with and without padding
WINDOWED = [
    (WindowAttention, "eager", *WHOLE),
    (WindowAttention, "sdpa", *PADDED),
    (WindowAttentionV2, "eager", *PADDED),
    (WindowAttentionV2, "sdpa", *WHOLE),
]
"""Both modules have both kernels and both kinds of sizes, which have no code in common."""
CASES = [
    *(
        (ViTAttention(24, 3, kernel=kernel), SEQUENCE, [(2, 5, 24), (3, 9, 24), (1, 17, 24)])
        for kernel in ("eager", "sdpa")
    ),
    *((kind(24, 3, 7, 3, kernel=kernel), sizes, shapes) for kind, kernel, sizes, shapes in WINDOWED),
    (
        ViTNetworkSpec(dim=24, heads=3, depth=2, image=(32, 32), classes=5).build(),
        {0: BATCH},  # its position embeddings set the grid
        [(2, 3, 32, 32), (3, 3, 32, 32), (1, 3, 32, 32)],
    ),
    *(
        (spec(**SWIN).build(), IMAGE, [(2, 3, 60, 52), (3, 3, 80, 72), (1, 3, 52, 56)])
        for spec in (SwinNetworkSpec, SwinV2NetworkSpec)
    ),
]


@pytest.fixture(
    params=some(CASES, 5), ids=lambda case: f"{type(case[0]).__name__} {case[2][0]} {getattr(case[0], 'kernel', '')}"
)
def case(request):
    module, sizes, shapes = request.param
    for norm in (each for each in module.modules() if isinstance(each, nn.LayerNorm)):
        nn.init.ones_(norm.weight)  # those of Swin V2 start at 0, which would hide its attentions
    return module.eval(), sizes, shapes


def assert_equal_outputs(run, module, shapes):
    for shape in shapes:
        x = torch.randn(shape)
        with torch.no_grad():
            torch.testing.assert_close(torch.as_tensor(run(x)), module(x), atol=1e-6, rtol=1e-6)


def test_an_exported_module_and_its_onnx_program_run_at_other_sizes(case, tmp_path):
    module, sizes, shapes = case
    program = torch.export.export(module, (torch.randn(shapes[0]),), dynamic_shapes=(sizes,))
    assert_equal_outputs(program.module(), module, shapes)
    if HAS_ONNX:
        assert_equal_outputs(onnx_program(program, tmp_path), module, shapes)


def onnx_program(program, folder):
    """Return a function that runs an exported program as ONNX."""
    import onnxruntime

    torch.onnx.export(program, (), dynamo=True, verbose=False).save(folder / "module.onnx")
    session = onnxruntime.InferenceSession(folder / "module.onnx")
    names = [each.name for each in session.get_inputs()]
    return lambda *x: session.run(None, {name: each.numpy() for name, each in zip(names, x, strict=True)})[0]


def compiled(module, graphs):
    """Compile a module for dynamic sizes; each compilation adds its graph to `graphs`."""
    torch._dynamo.reset()

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    return torch.compile(module, dynamic=True, fullgraph=True, backend=backend)


def test_a_module_compiled_for_dynamic_sizes_is_compiled_once(case):
    module, _, shapes = case
    graphs = []
    run = compiled(module, graphs)
    assert_equal_outputs(run, module, [shape for shape in shapes if shape[0] > 1])  # torch specializes a size of 1
    assert len(graphs) == 1


def first_specs():
    """Return the first Spec of each battery of the families."""
    for path in sorted((Path(__file__).parent / "families").glob("test_*.py")):
        module = importlib.import_module(f"tests.families.{path.stem}")
        batteries = [each for name, each in vars(module).items() if name.startswith("Test")]
        yield from (each.specs[0] for each in batteries if issubclass(each, AttentionBattery))


def assert_equal_for_batches(run, module, shapes, batches):
    for batch in batches:
        x = [torch.randn(batch, *shape[1:]) for shape in shapes]
        with torch.no_grad():
            torch.testing.assert_close(torch.as_tensor(run(*x)), module(*x), atol=1e-6, rtol=1e-6)


def exported_family(spec):
    """Return the module of a Spec, and its program for any batch size."""
    module, x = spec.build().eval(), [torch.randn(2, *shape[1:]) for shape in spec.input_shapes]
    shapes = torch.export.ShapesCollection()
    for each in x:
        shapes[each] = {0: BATCH}
    return module, torch.export.export(module, tuple(x), dynamic_shapes=shapes)


FAMILIES = pytest.mark.parametrize(
    "spec", some([*first_specs()], 8), ids=lambda spec: f"{spec.name} {type(spec).__name__}"
)


@FAMILIES
def test_an_exported_family_and_its_onnx_program_take_any_batch_size(spec, tmp_path):
    module, program = exported_family(spec)
    assert_equal_for_batches(program.module(), module, spec.input_shapes, (1, 3, 5))
    if HAS_ONNX:
        assert_equal_for_batches(onnx_program(program, tmp_path), module, spec.input_shapes, (1, 3, 5))


@FAMILIES
def test_a_family_is_compiled_once_for_any_batch_size(spec):
    module, graphs = spec.build().eval(), []
    assert_equal_for_batches(compiled(module, graphs), module, spec.input_shapes, (3, 5, 7))
    # torch's own rule of a convolution holds up to a number of elements, beyond which it compiles once more
    convolves = any(isinstance(each, nn.Conv2d) for each in module.modules())
    assert len(graphs) <= 1 + convolves


def test_an_exported_cross_attention_runs_at_other_sizes():
    module = CrossAttention(24, 3).eval()
    keys = {0: BATCH, 1: DIM("m", min=2, max=500)}
    example = torch.randn(2, 5, 24), torch.randn(2, 7, 24)
    run = torch.export.export(module, example, dynamic_shapes=(SEQUENCE, keys)).module()
    for b, n, m in ((2, 5, 7), (3, 9, 4), (4, 17, 30)):
        x, context = torch.randn(b, n, 24), torch.randn(b, m, 24)
        torch.testing.assert_close(run(x, context), module(x, context), atol=1e-6, rtol=1e-6)
