"""A run of a third-party module -> TraceReport: rows, attentions and comments, notes and warnings."""

from collections.abc import Sequence
from typing import Any

from attnscope.core.axes import spell
from attnscope.core.dtypes import dtype_name
from attnscope.profiling.noise import doubts
from attnscope.reports.report import ShapeComments, TraceReport, WrongShape
from attnscope.tracing.attentions import Forward, attentions_found
from attnscope.tracing.calls import Call
from attnscope.tracing.costs import tensors_in
from attnscope.tracing.folding import rows_of
from attnscope.tracing.options import TraceOptions
from attnscope.tracing.recognition import find_attention
from attnscope.tracing.rows import call_row, totals, uncounted
from attnscope.tracing.run import Found, Measured
from attnscope.tracing.source_lines import spell_line
from attnscope.tracing.times import call_times


def trace_report(
    options: TraceOptions, name: str, found: Found, measured: Measured, environment: dict[str, Any]
) -> TraceReport:
    """Build the report of a run of the module with this name."""
    calls, module = found.watched.calls, found.module
    times = call_times(calls, measured.timing)
    whole = measured.timing.whole if measured.timing else None
    wrong = list(found.comments.wrong.values())
    classes = {path: type(submodule).__name__ for path, submodule in module.named_modules() if path}
    args, keywords = found.inputs
    inputs = [spelled for value in (*args, *keywords.values()) if (spelled := _spell_input(value))]
    opened = f"{name} · {options.submodule}" if options.submodule else name
    taken = [f"input {' and '.join(inputs)}"] if inputs else []
    return TraceReport(
        command=options.command,
        title=" · ".join([*dict.fromkeys([opened, type(module).__name__]), *taken]),
        spec={"module": name, "submodule": options.submodule, "inputs": inputs},
        environment=environment,
        steps=[call_row(row, calls, times, classes) for row in rows_of(calls, options.group, options.depth)],
        totals=totals(found.watched, sum(parameter.numel() for parameter in module.parameters())),
        time=whole,
        audit=None,
        complexity=None,
        notes=list(found.notes),
        warnings=[
            *measured.warnings,
            *map(_wrong_comment, wrong),
            *_subnormal(calls),
            *(doubts(whole, options.threads, found.device.type) if whole else []),
        ],
        next=_next(options, name),
        group=options.group,
        depth=options.depth,
        calls=len(calls),
        attentions=attentions_found(find_attention(calls, found.batch), Forward(calls, times, whole)),
        comments=ShapeComments(len(found.comments.checked), wrong),
        uncounted=uncounted(calls),
    )


def _spell_input(value: Any) -> str:
    return ", ".join(f"{spell(tuple(tensor.shape))} {dtype_name(tensor.dtype)}" for tensor in tensors_in(value))


def _wrong_comment(wrong: WrongShape) -> str:
    return f"{spell_line(wrong.file, wrong.line)}: the comment says {wrong.says}, the line made {spell(wrong.made)}"


def _subnormal(calls: Sequence[Call]) -> list[str]:
    """Weights that slow a processor, where the share of them is the largest, and what to do about it."""
    found = [call for call in calls if call.subnormal]
    if not found:
        return []
    worst = max(found, key=lambda call: call.subnormal)
    more = f", and in {len(found) - 1} more" if len(found) > 1 else ""
    return [
        f"{worst.subnormal:.1%} of the weights of {worst.name} in {worst.path or 'the module'}{more} are subnormal, "
        "numbers that slow a processor several times: mask with −inf and not with −100, or torch.set_flush_denormal(True)"
    ]


def _next(options: TraceOptions, name: str) -> tuple[str, str]:
    """The command worth typing next, and why."""
    # what was typed has the --arg and --input that it needs, and the --time
    base = options.command or f"attnscope trace {name}{' --time' if options.time else ''}"
    if not options.time:
        return f"{base.replace(' --no-time', '')} --time", "run it, and see where the time goes"
    if options.group == "module":
        return f"{base} --group op", "the same by torch function"
    return f"{base} --module PATH", "open one submodule with the inputs that it receives"
