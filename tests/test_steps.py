"""Steps: sizes, costs, liveness and listeners follow from one declaration."""

from dataclasses import fields
from importlib import import_module
from pathlib import Path

import pytest
from torch import nn

from attnscope import SwinSpec, ViTAttention, ViTSpec, attentions
from attnscope.core.axes import AxisError
from attnscope.core.errors import PlanError
from attnscope.ops import recipes as op
from attnscope.plan.memory import Memory
from attnscope.plan.plan import Plan, SizedStep
from attnscope.plan.step import Step
from attnscope.profiling.hooks import listening, step_methods


def test_costs_and_shapes_follow_from_the_declaration():
    score = Step("b h n d, b h m d -> b h n m", op=op.matmul(scale=True), doc="S = q·kᵀ/√d: how much each token looks")
    row = SizedStep(score, {"b": 1, "h": 12, "n": 197, "m": 197, "d": 64})
    assert (row.macs, row.flops, row.other_flops) == (29_805_312, 59_610_624, 465_708)
    assert row.inputs == ((1, 12, 197, 64), (1, 12, 197, 64))
    assert row.outputs == ((1, 12, 197, 197),)


@pytest.mark.parametrize(
    "wrong",
    [
        {"pattern": "b N -> b n"},
        {"pattern": "b n"},
        {"weights": {"w": "n-1"}},
        {"constants": ("mask",)},
    ],
)
def test_a_wrong_declaration_raises(wrong):
    with pytest.raises((AxisError, ValueError)):
        Step(**{"pattern": "x: b n -> b n", "op": op.softmax, **wrong})


PAGES = sorted(
    ".".join(path.with_suffix("").parts)
    for folder in ("attnscope/attentions", "attnscope/networks", "examples")
    for path in Path(folder).rglob("steps.py")
)
"""The modules that declare steps."""


@pytest.mark.parametrize("page", PAGES)
def test_every_step_says_what_it_computes_and_why(page):
    steps = {name: value for name, value in vars(import_module(page)).items() if isinstance(value, Step)}
    if not steps:  # the steps are those of another attention with other letters
        spec = import_module(page.removesuffix(".steps")).Spec()
        steps = {sized.name: sized.step for sized in spec.plan().steps}
    assert steps
    for name, step in steps.items():
        for words in (step.doc, step.why):
            assert words, name
            assert not words.endswith("."), name  # --explain ends them
            assert len(words.split()) <= 25, name


def test_a_step_has_at_most_eight_fields():
    assert len(fields(Step)) <= 8


def test_an_operation_with_shapes_that_differ_from_the_pattern_raises():
    wrong = Step("q: b h n d, k: b h m d -> scores: b h m n", op=op.matmul())
    with pytest.raises(ValueError, match=r"a step, q: b .* must return 2×3×7×5, as the letters say \(got 2×3×5×7\)"):
        _ = SizedStep(wrong, {"b": 2, "h": 3, "n": 5, "m": 7, "d": 11}).macs


@pytest.mark.parametrize(
    ("pattern", "operation", "message"),
    [
        ("x: b n e -> y: b e n", op.view, "no size for e; add it to the sizes of the plan"),
        ("x: b n (h d) -> y: b h n d", op.unbind, "the input of this operation must have an axis with a number"),
        ("x: b h n d -> y: b h n d", op.add_mask, "the pattern must have 2 input tensors for this operation (got 1)"),
        ("x: b h n d -> y: b h n d", op.matmul(), "the pattern must have 2 input tensors for this operation (got 1)"),
        ("x: b h n d -> y: b h n d", lambda tape, given: None, "the operation must return tensors (got None)"),
        ("x: b h n d -> y: b h n d", lambda tape, given: given.nothing, "AttributeError: "),
    ],
)
def test_the_error_of_an_operation_names_its_step_and_the_reason(pattern, operation, message):
    step = SizedStep(Step(pattern, op=operation, name="mine"), {"b": 2, "h": 3, "n": 5, "d": 11})
    with pytest.raises(PlanError) as error:
        _ = step.macs
    assert str(error.value).startswith(f"step mine, {pattern}: {message}")


def test_an_operation_must_be_a_function():
    with pytest.raises(
        TypeError,
        match=r"op must be an operation of attnscope.ops.recipes or a function of the same form.* \(got None\)",
    ):
        Step("x: b n c -> y: b n c", op=None)


def test_the_scores_of_vit_b_have_the_expected_costs():
    score = attentions.plan(ViTSpec()).steps[2]
    assert score.name == "score"
    assert (score.macs, score.flops, score.other_flops) == (29_805_312, 59_610_624, 465_708)


@pytest.mark.parametrize(
    ("spec", "macs"),
    [
        (ViTSpec(), 524_391_936),
        (SwinSpec(), 145_108_992),
        (SwinSpec(shift=True), 145_108_992),
        (SwinSpec(dim=128, heads=4, resolution=32, window=8), 83_886_080),
        (ViTSpec(dim=128, heads=4, tokens=32 * 32), 335_544_320),
        (ViTSpec(dim=96, heads=3, tokens=56 * 56), 2_003_828_736),
        (ViTSpec(tokens=10**9), 4 * 10**9 * 768**2 + 2 * 10**18 * 768),
    ],
)
def test_macs_equal_published_figures(spec, macs):
    plan = attentions.plan(spec)
    assert plan.macs == macs == sum(spec.closed_form().values())
    assert plan.flops == 2 * macs


def test_the_plan_has_exactly_the_steps_that_run():
    def names(**fields):
        return [step.name for step in attentions.plan(SwinSpec(**fields)).steps]

    inner = [
        "partition",
        "project",
        "split_heads",
        "score",
        "add_bias",
        "softmax",
        "mix",
        "merge_heads",
        "output",
        "reverse",
    ]
    assert names() == inner
    masked = [*inner[:5], "add_mask", *inner[5:]]
    assert names(shift=True) == ["shift", *masked, "unshift"]
    assert names(shift=True, resolution=50) == ["pad", "shift", *masked, "unshift", "crop"]
    assert names(shift=True, resolution=7) == inner  # a single window is not shifted
    assert names(kernel="sdpa") == ["partition", "project", "split_heads", "attend", "merge_heads", "output", "reverse"]


def test_totals_do_not_depend_on_the_kernel():
    for spec in (ViTSpec, SwinSpec):
        eager, fused = (attentions.plan(spec(kernel=kernel)) for kernel in ("eager", "sdpa"))
        assert (eager.macs, eager.other_flops, eager.params) == (fused.macs, fused.other_flops, fused.params)
        assert Memory(fused).peak is None  # unknown, not 0


def test_a_tensor_lives_to_its_last_use():
    sizes = {"n": 10, "k": 3}
    steps = [
        Step("x: n -> a: n", op=op.gelu),
        Step("a: n -> b: n", op=op.view),
        Step("x: n -> c: n", op=op.gelu),
        Step("b: n, c: n -> d: n", op=op.add),
        Step("d: n -> e: n", op=op.roll(axes=2)),  # two passes with a copy in between
    ]
    assert Memory(Plan.of(steps, sizes, 1)).live == (10, 10, 20, 30, 30)


def test_a_variable_of_forward_keeps_its_tensor_until_the_end():
    steps = [
        Step("x: n -> a: n", op=op.gelu),
        Step("a: n -> b: n", op=op.gelu),
        Step("b: n -> c: n", op=op.gelu),
        Step("c: n -> d: n", op=op.gelu),
    ]
    assert Memory(Plan.of(steps, {"n": 10}, 1)).live == (10, 20, 20, 20)
    assert Memory(Plan.of(steps, {"n": 10}, 1, holds=["a"])).live == (10, 20, 30, 30)
    inner = Plan.of(steps[1:3], {"n": 10}, 1, holds=["b"]).inside("inner", takes={"a": "a"}, makes={"c": "c"})
    called = Plan.join([Plan.of(steps[:1], {"n": 10}, 1), inner, Plan.of(steps[3:], {"n": 10}, 1)])
    assert Memory(called).live == (10, 20, 30, 20)  # the variables of a module are freed when it returns


def test_a_rearrangement_that_keeps_the_memory_order_is_a_view():
    swap = Step("x: a b c -> y: b (a c)", op=op.rearrange)
    assert not SizedStep(swap, {"a": 2, "b": 3, "c": 5}).is_view
    assert SizedStep(swap, {"a": 1, "b": 3, "c": 5}).is_view
    assert SizedStep(swap, {"a": 2, "b": 1, "c": 5}).is_view
    assert SizedStep(swap, {"a": 2, "b": 1, "c": 5}).bytes_written == 0


def test_a_copy_depends_on_the_layout_of_the_operand():
    """matmul copies heads that are not contiguous; with one image or one head it copies nothing."""

    def copies(**sizes):
        heads = Step("x: b n (3 h d) -> q: b h n d, k: b h n d, v: b h n d", op=op.unbind)
        score = Step("q: b h n d, k: b h m d -> scores: b h n m", op=op.matmul())
        plan = Plan.of([heads, score], {"n": 5, "m": 5, "d": 2, **sizes}, 4)
        return [run.name for run in plan.steps[1].forward.runs]

    assert copies(b=2, h=3) == ["clone", "clone", "bmm"]
    assert copies(b=1, h=3) == copies(b=2, h=1) == ["bmm"]


def test_spelled_replaces_letters_by_groups():
    score = Step("q: b h n d, k: b h m d -> scores: b h n m", op=op.matmul(), weights={"w": "(b n) d"})
    spelled = score.spelled(b="(b r s)", n="y x")
    assert spelled.pattern == "q: (b r s) h y x d, k: (b r s) h m d -> scores: (b r s) h y x m"


def test_a_row_counts_as_often_as_it_runs():
    row = attentions.plan(ViTSpec()).steps[0]
    twice = SizedStep(row.step, row.sizes, times=2)
    assert Plan((twice,)).macs == 2 * row.macs
    assert Plan((twice,)).params == 2 * row.params


def test_listening_replaces_the_step_methods_and_restores_them():
    module = nn.Sequential(ViTAttention(8, 2), ViTAttention(8, 2))
    calls = []

    def listener(path, attention, step, method):
        calls.append((path, step.name))
        return method

    def broken(*shapes):
        assert "score" in vars(module[0])
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), listening(module, listener):
        broken()
    assert {("0", "project"), ("0", "split_heads"), ("1", "score")} <= set(calls)
    assert {path for path, _ in calls} == {"0", "1"}
    assert not set(step_methods(ViTAttention)) & set(vars(module[0]))


def test_a_second_listener_raises():
    module = ViTAttention(8, 2)
    with listening(module, lambda *event: event[-1]):
        with pytest.raises(RuntimeError, match="already has a listener"), listening(module, lambda *event: event[-1]):
            pass
        assert "score" in vars(module)  # the first listener stays


def test_without_a_listener_a_step_is_the_plain_method():
    module = ViTAttention(8, 2)
    assert module.score.__func__ is ViTAttention.score
    assert ViTAttention.score.__code__.co_name == "score"  # no wrapper around it
