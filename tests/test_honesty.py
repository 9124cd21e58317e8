"""Steps, shapes, counts and memory of real modules against the plan."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings

from attnscope import SwinSpec, ViTSpec, attentions
from attnscope.attentions.cross.spec import CrossSpec
from attnscope.profiling.hooks import step_methods
from attnscope.testing import (
    hold_elementwise_flops,
    hold_json,
    hold_macs,
    hold_module,
    hold_neighbourhood,
    hold_operators,
    hold_parameters,
    hold_screens,
    hold_steps,
)
from tests.strategies import specs

FIRST = ("cross", "swin", "swinv2", "vit")
"""The attentions that are checked here; tests/families has a file with the same battery for each other one."""
OF_ROTATIONS = {"normalize_queries", "normalize_keys", "angles", "rotate_queries", "rotate_keys"}
"""Steps of ViT with rotary positions, whose head dimension cannot be a prime; tests/families/test_rope.py checks them."""
PRIMES = [2, 3, 5, 7, 11, 13, 17, 19, 23]


def built(spec):
    """Return the module and its inputs."""
    dtype = getattr(torch, spec.dtype)
    return spec.build().eval().to(dtype), *(torch.randn(shape, dtype=dtype) for shape in spec.input_shapes)


def every_step():
    for name in FIRST:
        module = attentions.build(attentions.spec_class(name)())
        yield from ((name, step) for step in step_methods(type(module)).values() if step.name not in OF_ROTATIONS)


def smallest(name, grouped):
    """Return a Spec whose axes are different primes, with shared heads if `grouped` and the attention has them."""
    h, d, p, q, r, s, b, _, g = PRIMES
    if name == "vit":
        heads = {"heads": g * h, "kv_heads": g if grouped else None}
        return ViTSpec(dim=g * h * d, **heads, tokens=p, batch=b, inner_norm=True)
    if name == "cross":
        return CrossSpec(dim=g * h * d, heads=g * h, kv_heads=g if grouped else None, tokens=p, keys=q, batch=b)
    kind, (heads, kv_heads) = attentions.spec_class(name), (g * h, g) if grouped else (h, None)
    return kind(
        dim=heads * d,
        heads=heads,
        kv_heads=kv_heads,
        resolution=(r * p - 1, s * q - 2),
        window=(p, q),
        shift_size=(1, 2),
        batch=b,
    )


@pytest.mark.parametrize(("name", "step"), [pytest.param(n, s, id=f"{n}.{s.name}") for n, s in every_step()])
def test_each_step_has_its_planned_shapes_on_different_primes(name, step):
    """Each letter is a different prime, so that no two axes can be confused."""
    specs = [replace(smallest(name, grouped), kernel=k) for grouped in (False, True) for k in ("eager", "sdpa")]
    spec, planned = next(
        (spec, attentions.plan(spec).steps)
        for spec in specs
        if step.name in [row.name for row in attentions.plan(spec).steps]
    )
    gridded = ("pad", "shift", "partition", "reverse", "unshift", "crop", "attend")
    extra = [spec.windows] if name.startswith("swin") and step.name in gridded else []
    row = next(row for row in planned if row.name == step.name)
    module, *_ = built(spec)
    inputs = [torch.randn(shape) for shape in row.inputs]
    with torch.no_grad():
        result = getattr(module, step.name)(*inputs, *extra)
    results = [result] if isinstance(result, torch.Tensor) else list(result)
    assert [tuple(tensor.shape) for tensor in results] == list(row.outputs)
    assert row.weights == {name: tuple(module.get_parameter(name).shape) for name in row.weights}


@given(specs())
def test_plan_and_run_have_the_same_steps_and_shapes(spec):
    hold_steps(spec)


@given(specs())
def test_shapes_closed_form_and_counters_agree_on_the_macs_of_each_step(spec):
    hold_macs(spec)


@given(specs())
def test_elementwise_flops_agree_with_the_operators_that_run(spec):
    hold_elementwise_flops(spec)


@given(specs())
@settings(max_examples=30)
def test_every_parameter_is_in_the_plan(spec):
    hold_parameters(spec)


@pytest.mark.parametrize(
    "spec",
    [
        attentions.spec_class(name).on_grid(
            (10, 15), {"dim": 12, "heads": 4, "shift": True, **fields, "kernel": kernel}
        )
        for name, fields, kernel in itertools.product(FIRST, [{}, {"kv_heads": 2}], ["eager", "sdpa"])
    ],
    ids=lambda spec: f"{spec.name}-{'grouped' if spec.is_grouped else 'own'}-{spec.kernel}",
)
@pytest.mark.parametrize("hold", [hold_operators, hold_module, hold_neighbourhood, hold_json, hold_screens])
def test_each_attention_passes_the_battery(hold, spec):
    hold(spec)


def test_bytes_count_each_tensor_once():
    row = next(row for row in attentions.plan(SwinSpec(shift=True)).steps if row.name == "add_mask")
    scores, mask = math.prod(row.inputs[0]), math.prod(row.inputs[1])
    assert (row.bytes_read, row.bytes_written) == (4 * (scores + mask), 4 * scores)
