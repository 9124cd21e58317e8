"""Build the TraceReport of a run of a third-party module: rows, attentions, shape comments, notes and warnings."""

import shlex
from collections import Counter
from collections.abc import Sequence
from typing import Any

from attnscope.core.axes import spell
from attnscope.core.dtypes import dtype_name
from attnscope.profiling.noise import doubts
from attnscope.reports.report import AttentionFound, Backward, CallRow, ShapeComments, TraceReport, WrongShape
from attnscope.tracing.attentions import Forward, attentions_found
from attnscope.tracing.backward import BackwardMacs, backward_macs, exactly
from attnscope.tracing.calls import Call
from attnscope.tracing.edges import edges_of
from attnscope.tracing.folding import Row, rows_of
from attnscope.tracing.options import TraceOptions
from attnscope.tracing.process_state import collector_paused
from attnscope.tracing.python_call import python_call
from attnscope.tracing.recognition import Recognized, find_attention
from attnscope.tracing.rows import call_row, totals, uncounted
from attnscope.tracing.run import Found, Measured
from attnscope.tracing.selection import selected
from attnscope.tracing.source_lines import spell_line
from attnscope.tracing.tensors import elements_of, shape_of, tensors_within
from attnscope.tracing.times import call_times
from attnscope.tracing.tree import named_modules, named_parameters


@collector_paused()
def trace_report(
    options: TraceOptions, name: str, found: Found, measured: Measured, environment: dict[str, Any]
) -> TraceReport:
    """Build the report of a run of the module with this name."""
    calls, module = found.watched.calls, found.module
    times = call_times(calls, measured.timing)
    whole = measured.timing.whole if measured.timing else None
    recognized = find_attention(found.watched.flow, calls, found.batch)
    attentions = attentions_found(recognized.attentions, Forward(calls, times, whole))
    wrong = list(found.comments.wrong.values())
    classes = {path: type(submodule).__name__ for path, submodule in named_modules(module) if path}

    backward = None
    if options.backward:
        backward = backward_macs(found.watched.flow, calls, options.input_grad, found.device.type)

    def spelled(row: Row) -> CallRow:
        return call_row(row, calls, times, classes, backward)

    order = options.order
    rows = rows_of(calls, options.group, options.depth, options.everything, tall=order is not None)
    if order:
        rows = selected(rows, spelled, order, options.top, options.everything)
    parameters = [parameter for _, parameter in named_parameters(module)]
    params = sum(map(elements_of, parameters))
    args, keywords = found.inputs
    inputs = [text for value in (*args, *keywords.values()) if (text := _spell_input(value))]
    opened = f"{name} · {options.submodule}" if options.submodule else name
    taken = [f"input {' and '.join(inputs)}"] if inputs else []
    all_timed = all(call.seen for call in calls)
    noise = doubts(whole, options.threads, found.device.type, all_timed=all_timed) if whole else []
    return TraceReport(
        command=options.command,
        title=" · ".join([*dict.fromkeys([opened, type(module).__name__]), *taken]),
        spec={"module": name, "submodule": options.submodule, "inputs": inputs},
        environment=environment,
        steps=list(map(spelled, rows)),
        totals=totals(found.watched, params),
        time=whole,
        audit=None,
        complexity=None,
        notes=list(found.notes),
        warnings=[
            *found.warnings,
            *measured.warnings,
            *map(_wrong_comment, wrong),
            *_mistakes(attentions),
            *_unused(recognized),
            *_subnormal(calls),
            *noise,
        ],
        next=_next(options, calls, attentions, found),
        focus=list(options.focus),
        noise=noise,
        group=options.group,
        depth=options.depth,
        calls=len(calls),
        attentions=attentions,
        other_softmaxes=[call.path for call in recognized.other_softmaxes],
        unused_softmaxes=[call.path for call in recognized.unused_softmaxes],
        comments=ShapeComments(len(found.comments.checked), wrong),
        uncounted=uncounted(calls),
        sort=order,
        edges=edges_of(rows, calls, found.watched.flow),
        trainable_params=sum(elements_of(each) for each in parameters if each.requires_grad),
        unused_params=params - sum(call.new_params for call in calls),
        backward=_whole_backward(backward, options.input_grad) if backward is not None else None,
    )


def _whole_backward(backward: Sequence[BackwardMacs], input_grad: bool) -> Backward:
    together = sum(backward, exactly(0))
    return Backward(together.macs, input_grad, None, None, together.at_least)


def _spell_input(value: Any) -> str:
    return ", ".join(f"{spell(shape_of(tensor))} {dtype_name(tensor.dtype)}" for tensor in tensors_within(value))


def _wrong_comment(wrong: WrongShape) -> str:
    return f"{spell_line(wrong.file, wrong.line)}: the comment says {wrong.says}, but the shape is {spell(wrong.made)}"


def _mistakes(attentions: Sequence[AttentionFound]) -> list[str]:
    """Return a warning for each likely mistake in an attention."""
    return [
        f"attention in {found.path or 'the module'}: {mistake}" for found in attentions for mistake in found.mistakes
    ]


def _unused(recognized: Recognized) -> list[str]:
    """Return a warning about softmaxes on which no result depends, with the MACs that could be saved."""
    paths = [call.path or "the module" for call in recognized.unused_softmaxes]
    if not paths:
        return []
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    cost = (
        f"; removing {'them' if more else 'it'} saves {recognized.unused_macs:,} MACs" if recognized.unused_macs else ""
    )
    return [f"no result depends on the softmax in {paths[0]}{more}{cost}"]


def _subnormal(calls: Sequence[Call]) -> list[str]:
    """Return a warning about the softmax with the largest fraction of subnormal weights, with the fix."""
    found = [call for call in calls if call.subnormal]
    if not found:
        return []
    worst = max(found, key=lambda call: call.subnormal)
    more = f" ({len(found) - 1} more calls have some)" if len(found) > 1 else ""
    return [
        "subnormal numbers slow the CPU down several times: "
        f"{worst.subnormal:.1%} of the weights of {worst.name} in {worst.path or 'the module'}{more}; "
        "mask with −inf instead of −100, or call torch.set_flush_denormal(True)"
    ]


def _next(
    options: TraceOptions, calls: Sequence[Call], attentions: Sequence[AttentionFound], found: Found
) -> tuple[str, str]:
    """Return the suggested next command, or in Python the call, and its purpose."""
    changed, why = _next_options(options, _worth_opening(calls, attentions, found))
    kept = {"submodule": options.submodule, **changed}
    if options.again is None:
        return python_call(found.whole_inputs, {**kept, "device": options.device if options.runs else None}), why
    flags = [("--module", kept["submodule"]), ("--time", True), ("--group", kept.get("group"))]
    words = [word for flag, value in flags if value for word in ([flag] if value is True else [flag, str(value)])]
    return f"{options.again} {shlex.join(words)}", why


def _next_options(options: TraceOptions, path: str) -> tuple[dict[str, Any], str]:
    """Return the options of the next trace and its purpose.

    Args:
        options: the options of this trace.
        path: the submodule that is worth a trace of its own; "" without submodules.
    """
    if not options.time:
        group = {} if options.group == "module" else {"group": options.group}
        return {"time": True, **group}, "measure where the time goes"
    if options.group == "module":
        return {"time": True, "group": "op"}, "group by torch function"
    if options.group == "op" and not options.submodule and path:
        return {"time": True, "submodule": path}, "trace one submodule with the inputs that it receives"
    if options.group == "op":
        return {"time": True, "group": "line"}, "group by source line"
    return {"time": True}, "group by module"


def _worth_opening(calls: Sequence[Call], attentions: Sequence[AttentionFound], found: Found) -> str:
    """Return the path of the submodule to trace next.

    It is that of the first attention, or else that whose own calls have the most MACs; "" without submodules. A module that
    the forward makes has no path that could be opened.
    """
    paths = {path for path, _ in named_modules(found.module, remove_duplicate=False) if path}
    if opened := [each.path for each in attentions if each.path in paths]:
        return opened[0]
    macs: Counter[str] = Counter()
    for call in calls:
        if call.path in paths:
            macs[call.path] += call.macs
    return max(macs, key=lambda path: macs[path], default="")
