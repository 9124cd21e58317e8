"""Any module -> Report: the one place that joins a module that is not ours, what its forward told, and its times."""

import copy
import linecache
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnscope import __version__
from attnscope.asked import BUDGET_S, Progress, check_arguments, check_dtype
from attnscope.axes import spell
from attnscope.complexity import global_attention, windowed_attention
from attnscope.doubts import doubts
from attnscope.errors import AttnscopeError, DeviceError, UsageError, did_you_mean, ran_out_of_memory
from attnscope.making import lacking, settled, told_when_memory_runs_out
from attnscope.report import (
    AttentionFound,
    CallRow,
    Formula,
    ShapeComments,
    StepTime,
    Time,
    Totals,
    TraceReport,
    Uncounted,
    WrongShape,
)
from attnscope.rows import whole_time
from attnscope.targets import InputSpec, Target

if TYPE_CHECKING:
    import torch
    from torch import nn

    from attnscope.probes.foreign.attention import Attention
    from attnscope.probes.foreign.calls import Call, ForwardFailedError, Watched
    from attnscope.probes.foreign.comments import CommentCheck
    from attnscope.probes.foreign.rows import Row
    from attnscope.probes.time import Timing


WITHOUT_TIME = "without {time} it shows shapes and costs without running"


class ForwardError(AttnscopeError):
    """An error in the forward of somebody's module, told as theirs; `__cause__` is the error itself."""


def trace(
    module: "nn.Module",
    *inputs: Any,
    time: bool = False,
    device: str | None = None,
    group: str = "module",
    depth: int | None = None,
    submodule: str | None = None,
    budget: float = BUDGET_S,
    threads: int = 1,
    seed: int = 0,
    name: str | None = None,
    command: str | None = None,
    **keywords: Any,
) -> TraceReport:
    """Lay any module open: the torch calls of its forward, their shapes, exact costs, and times if asked.

    Args:
        module: the module. It runs in evaluation mode and without gradients, and is left as it was: its mode, hooks,
            buffers and the random state too, also after an error.
        inputs: what its forward takes.
        time: run it and measure. Without it nothing is computed: shapes and costs come from a copy on the meta device.
        device: where to run; None is meta, or with `time` where the module is. Another device gets a copy of the module.
        group: "module", "line" or "op": which calls are told in one row.
        depth: how many levels of modules are opened; None opens as many as fit on about a screen.
        submodule: open this submodule alone, with the inputs that it really receives inside the whole.
        budget: seconds of measuring.
        threads: processor threads; with one, times hold on a busy machine too.
        seed: of what the forward draws at random.
        name: what to call the module.
        command: what was typed, for the record.
        keywords: what its forward takes by name.

    Returns:
        A TraceReport, a Report whose rows are torch calls; its attributes are the keys of its JSON. Counts are None where
        an operator has no formula.

    Raises:
        UsageError: an argument that cannot be asked for.
        ForwardError: the forward raised; the line says which step, on which shapes, at which line of yours.
    """
    if not hasattr(module, "named_modules"):
        raise UsageError(f"trace takes a module, such as nn.MultiheadAttention(64, 4), and not {module!r}")
    target = Target(name or type(module).__name__, lambda: module)
    asked = _Asked(time, device, group, depth, submodule, budget, threads, seed, command)
    return _trace(asked, target, module, lambda where: (inputs, keywords))


def trace_target(
    target: Target,
    *,
    time: bool = False,
    device: str | None = None,
    group: str = "module",
    depth: int | None = None,
    submodule: str | None = None,
    budget: float = BUDGET_S,
    threads: int = 1,
    seed: int = 0,
    command: str | None = None,
    progress: Progress | None = None,
) -> TraceReport:
    """Build a target and lay it open, as `trace` does with a module that is there already.

    `progress` is told what is being measured, and which share of that is done.
    """
    import torch

    asked = _Asked(time, device, group, depth, submodule, budget, threads, seed, command, progress)
    asked.check()
    with settled(threads, seed, torch.device("cpu")):
        if asked.runs:
            _refuse_what_does_not_fit(asked, target)
        module = _built(target, "cpu") if asked.runs else _built(target, "meta", otherwise="cpu")
    specs = target.inputs_of(module)
    inputs = _inputs(module, specs, threads, seed)
    return _trace(asked, target, module, inputs, specs, rebuild=lambda: _built(target, "cpu"))


def _inputs(
    module: "nn.Module", specs: Sequence[InputSpec], threads: int, seed: int
) -> "Callable[[torch.device], Inputs]":
    """What makes the inputs of a module on a device, always the same."""
    import torch

    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.get_default_dtype())

    def inputs(device: torch.device) -> Inputs:
        for spec in specs:
            check_dtype(device.type, spec.dtype or _name(dtype))
        with settled(threads, seed, device):
            return (
                tuple([spec.tensor(device, dtype) for spec in specs if not spec.name]),
                {spec.name: spec.tensor(device, dtype) for spec in specs if spec.name},
            )

    return inputs


def _refuse_what_does_not_fit(asked: "_Asked", target: Target) -> None:
    """Refuse before anything is allocated, as far as the meta device can tell.

    Raises:
        DeviceError: parameters and the fullest moment of the forward are more than the device has.
    """
    import torch

    from attnscope.probes.device import find_device

    device = find_device(asked.device or "auto")
    try:
        module = _built(target, "meta")
        inputs = _inputs(module, target.inputs_of(module), asked.threads, asked.seed)
        found = _on(torch.device("meta"), asked, target, module, inputs)
    except Exception:
        return  # the run itself will tell what is wrong, and better
    need = found.watched.peak_bytes + sum(tensor.nbytes for tensor in [*module.parameters(), *module.buffers()])
    told = lacking(need, device)
    if told is not None:
        raise DeviceError(f"{target.name} needs {told}; {WITHOUT_TIME}")


def _built(target: Target, device: str, otherwise: str | None = None) -> "nn.Module":
    """The module of a target on a device, or else on another."""
    import torch

    try:
        with torch.device(device):
            return target.build()
    except UsageError:
        raise
    except Exception as error:
        if otherwise is not None:
            return _built(target, otherwise)
        if isinstance(error, AttnscopeError):
            raise
        raise ForwardError(f"{target.name} could not be built: {type(error).__name__}: {error}") from error


@dataclass(frozen=True)
class _Asked:
    """What was asked, checked."""

    time: bool
    device: str | None
    group: str
    depth: int | None
    submodule: str | None
    budget: float
    threads: int
    seed: int
    command: str | None
    progress: Progress | None = None

    @property
    def runs(self) -> bool:
        """Whether something is computed."""
        return self.time or self.device not in (None, "meta")

    def check(self) -> None:
        from attnscope.probes.foreign.rows import check_rows

        if self.time and self.device == "meta":
            raise UsageError("{device} meta computes nothing, and there is no {time} to measure; leave one of them out")
        check_arguments(self.device or "auto", self.budget, self.threads, self.seed)
        check_rows(self.group, self.depth)


Inputs = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass
class _Found:
    """What running the module told."""

    module: "nn.Module"
    inputs: Inputs
    device: "torch.device"
    batch: int
    watched: "Watched"
    check: "CommentCheck"
    timing: "Timing | None" = None
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def _trace(
    asked: _Asked,
    target: Target,
    module: "nn.Module",
    inputs: "Callable[[torch.device], Inputs]",
    specs: Sequence[InputSpec] = (),
    rebuild: "Callable[[], nn.Module] | None" = None,
) -> TraceReport:
    import torch

    from attnscope.probes.device import environment, find_device

    asked.check()
    device = _home(module)
    if asked.runs and (asked.device or specs):
        device = find_device(asked.device or "auto")
    otherwise = WITHOUT_TIME if asked.runs else "a smaller {input} may fit"
    with settled(asked.threads, asked.seed, device), told_when_memory_runs_out(device, otherwise):
        if asked.runs:
            found = _on(device, asked, target, module, inputs)
        else:
            try:
                found = _on(torch.device("meta"), asked, target, module, inputs)
            except _NotOnMetaError as failed:
                if _home(module).type == "meta":
                    if rebuild is None:
                        raise _told(failed.failure, target.name) from failed.failure.error
                    module = rebuild()
                found = _on(_home(module), asked, target, module, inputs)
                found.notes.append(f"it cannot run on meta ({failed}), so it ran on the {found.device.type}")
        if asked.time:
            _measure(found, asked)
        env = environment(found.device, asked.threads, asked.seed)
    return _report(asked, target, found, {"attnscope": __version__, "python": platform.python_version(), **env})


class _NotOnMetaError(Exception):
    """The forward failed on the meta device, which may be the device's fault."""

    def __init__(self, failure: "ForwardFailedError") -> None:
        error = failure.error
        super().__init__(f"{type(error).__name__}: {_first_line(error)}")
        self.failure = failure


def _on(
    device: "torch.device",
    asked: _Asked,
    target: Target,
    module: "nn.Module",
    inputs: "Callable[[torch.device], Inputs]",
) -> _Found:
    """Run the module on a device, watched."""
    import torch

    from attnscope.probes.foreign.calls import ForwardFailedError, is_users, watch
    from attnscope.probes.foreign.comments import CommentCheck

    check = CommentCheck(is_users, lambda value: isinstance(value, torch.Tensor))
    tracer = check if sys.gettrace() is None else None  # a debugger's or a coverage tool's stays
    try:
        there = _moved(module, device)
        args, keywords = _moved_inputs(inputs(device), device)
        batch = _batch(there, args, keywords)
        # tensors that the forward makes are there too
        made_there = torch.device("meta") if device.type == "meta" else nullcontext()
        with left_as_it_was(there), made_there:
            if asked.submodule:
                there, (args, keywords) = received(there, asked.submodule, args, keywords)
            watched = watch(there, lambda: there(*args, **keywords), tracer)
    except ForwardFailedError as failure:
        if device.type == "meta":
            raise _NotOnMetaError(failure) from failure
        if ran_out_of_memory(failure.error):
            raise failure.error from None
        raise _told(failure, target.name) from failure.error
    notes = [] if tracer else ["shape comments were not checked: a debugger or a coverage tool is tracing"]
    return _Found(there, (args, keywords), device, batch, watched, check, notes=notes)


def received(
    module: "nn.Module", path: str, args: tuple[Any, ...], keywords: Mapping[str, Any]
) -> "tuple[nn.Module, Inputs]":
    """The submodule at `path`, and what it is called with first when the whole module runs.

    Raises:
        UsageError: there is no such submodule, or the forward never calls it.
        ForwardFailedError: the forward raised before.
    """
    from attnscope.probes.foreign.calls import watch

    known = dict(module.named_modules())
    if path not in known:
        raise UsageError(f"{{module}} {path} is not there; {_near(path, known)}")

    class Reached(BaseException):
        pass

    caught: list[Inputs] = []

    def hook(_: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        caught.append((args, keywords))
        raise Reached

    handle = known[path].register_forward_pre_hook(hook, with_kwargs=True)
    try:
        watch(module, lambda: module(*args, **keywords))
    except Reached:
        return known[path], caught[0]
    finally:
        handle.remove()
    raise UsageError(f"{{module}} {path} is never called by the forward")


@contextmanager
def left_as_it_was(module: "nn.Module") -> Iterator[None]:
    """Evaluation mode for the length of a with block; then mode and buffers are as they were."""
    import torch

    modes = [(submodule, submodule.training) for submodule in module.modules()]
    buffers = [
        (owner, name, buffer, buffer.detach().clone())
        for owner in module.modules()
        for name, buffer in owner._buffers.items()
        if buffer is not None
    ]
    module.eval()
    try:
        yield
    finally:
        for submodule, training in modes:
            submodule.training = training
        with torch.no_grad():
            for owner, name, buffer, values in buffers:
                if buffer.device.type != "meta" and not torch.equal(buffer, values):
                    buffer.copy_(values)
                owner._buffers[name] = buffer


def _moved(module: "nn.Module", device: "torch.device") -> "nn.Module":
    """The module itself where it is there already, else a copy on the device."""
    import torch

    homes = {tensor.device for tensor in [*module.parameters(), *module.buffers()]}
    if all(home.type == device.type and device.index in (None, home.index) for home in homes) and homes:
        return module
    for tensor in [*module.parameters(), *module.buffers()]:
        check_dtype(device.type, _name(tensor.dtype))
    if device.type != "meta":
        return copy.deepcopy(module).to(device)
    # nothing is copied but the skeleton: each tensor is answered by its shadow on meta
    memo: dict[int, Any] = {}
    for tensor in [*module.parameters(), *module.buffers()]:
        shadow = tensor.detach().to("meta")
        memo[id(tensor)] = (
            torch.nn.Parameter(shadow, tensor.requires_grad) if isinstance(tensor, torch.nn.Parameter) else shadow
        )
    try:
        return copy.deepcopy(module, memo)
    except Exception as error:
        from attnscope.probes.foreign.calls import ForwardFailedError

        raise ForwardFailedError(error, "", "copying it", [], None, None) from error


def _moved_inputs(inputs: Inputs, device: "torch.device") -> Inputs:
    import torch

    seen: dict[int, torch.Tensor] = {}  # forwards ask whether query is key

    def moved(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            check_dtype(device.type, _name(value.dtype))
            return seen.setdefault(id(value), value.detach().to(device))
        if isinstance(value, tuple | list):
            return type(value)(map(moved, value)) if type(value) in (tuple, list) else value
        if isinstance(value, dict):
            return {key: moved(item) for key, item in value.items()}
        return value

    args, keywords = inputs
    return moved(args), moved(dict(keywords))


def _home(module: "nn.Module") -> "torch.device":
    import torch

    first = next(iter([*module.parameters(), *module.buffers()]), None)
    return first.device if first is not None else torch.device("cpu")


def _batch(module: "nn.Module", args: tuple[Any, ...], keywords: Mapping[str, Any]) -> int:
    """Images in the input: its first axis, but what torch's own attention takes is `n b c` unless it is `batch_first`."""
    from torch import nn

    from attnscope.probes.foreign.costs import tensors_in

    first = next(tensors_in((args, dict(keywords))), None)
    if first is None or not first.dim():
        return 1
    own = type(module).__module__.startswith("torch.nn.")
    layouts = {each.batch_first for each in module.modules() if own and isinstance(each, nn.MultiheadAttention)}
    if layouts and first.dim() == 2:
        return 1  # `n c`
    return first.shape[1 if layouts == {False} and first.dim() == 3 else 0] or 1


def _measure(found: _Found, asked: _Asked) -> None:
    from attnscope.probes.foreign.times import CallsDifferError, time_calls

    args, keywords = found.inputs
    try:
        with left_as_it_was(found.module):
            found.timing = time_calls(
                found.device,
                lambda: found.module(*args, **keywords),
                found.watched.calls,
                asked.budget,
                partial(asked.progress, "the calls") if asked.progress else None,
            )
    except CallsDifferError:
        found.warnings.append("not timed: the forward makes other calls from run to run")


def _told(failure: "ForwardFailedError", name: str) -> ForwardError:
    """The user's error as theirs: the step, the shapes that went in, their line."""
    _cut_our_frames(failure.error)
    parts = []
    if failure.step:
        took = " and ".join(map(spell, failure.shapes)) or "no tensors"
        parts.append(f"{failure.path or name}: {failure.step} of {took} failed")
    else:
        parts.append(f"{name}: the forward failed")
    if failure.file:
        code = linecache.getline(failure.file, failure.line or 0).strip()
        parts.append(f"at {_short(failure.file)}:{failure.line}" + (f" `{code}`" if code else ""))
    message = f"{' '.join(parts)}: {type(failure.error).__name__}: {failure.error}"
    return ForwardError(message.replace("{", "(").replace("}", ")"))


def _cut_our_frames(error: BaseException) -> None:
    """Leave in the traceback what is the user's."""
    from types import TracebackType

    from attnscope.probes.foreign.calls import is_users

    kept, trace = [], error.__traceback__
    while trace is not None:
        if is_users(trace.tb_frame.f_code):
            kept.append(trace)
        trace = trace.tb_next
    chain: TracebackType | None = None
    for trace in reversed(kept):
        chain = TracebackType(chain, trace.tb_frame, trace.tb_lasti, trace.tb_lineno)
    error.__traceback__ = chain


def _report(asked: _Asked, target: Target, found: _Found, environment: dict[str, Any]) -> TraceReport:
    from attnscope.probes.foreign.attention import find_attention
    from attnscope.probes.foreign.rows import rows_of

    calls = found.watched.calls
    times, whole = _times(found), None if found.timing is None else whole_time(found.timing, asked.threads)
    rows = rows_of(calls, asked.group, asked.depth)
    wrong = [WrongShape(w.file, w.line, w.comment, w.says, w.made) for w in found.check.wrong.values()]
    for comment in wrong:
        found.warnings.append(
            f"{_short(comment.file)}:{comment.line}: the comment says {comment.says}, the line made {spell(comment.made)}"
        )
    classes = {path: type(submodule).__name__ for path, submodule in found.module.named_modules() if path}
    params = sum(parameter.numel() for parameter in found.module.parameters())
    shown = [_spell_input(value) for value in [*found.inputs[0], *found.inputs[1].values()]]
    name = f"{target.name} · {asked.submodule}" if asked.submodule else target.name
    return TraceReport(
        command=asked.command,
        title=" · ".join(
            [
                *dict.fromkeys([name, type(found.module).__name__]),
                *([f"input {' and '.join(filter(None, shown))}"] if any(shown) else []),
            ]
        ),
        spec={"module": target.name, "submodule": asked.submodule, "inputs": [text for text in shown if text]},
        environment=environment,
        steps=[_row(row, calls, times, classes) for row in rows],
        totals=_totals(found, params),
        time=whole,
        audit=None,
        complexity=None,
        notes=found.notes,
        warnings=[
            *found.warnings,
            *_subnormal(calls),
            *(doubts(whole, asked.threads, found.device.type) if whole else []),
        ],
        next=_next(asked, target, calls),
        group=asked.group,
        depth=asked.depth,
        calls=len(calls),
        attentions=attentions_found(find_attention(calls, found.batch), calls, times, whole),
        comments=ShapeComments(len(found.check.checked), wrong),
        uncounted=_uncounted(calls),
    )


def _subnormal(calls: "Sequence[Call]") -> list[str]:
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


def _times(found: _Found) -> "list[list[float] | None]":
    """For each call its seconds in each of the runs that count, or None."""
    from attnscope.probes.time import middle

    if found.timing is None:
        return [None] * len(found.watched.calls)
    columns = iter(zip(*(run.seconds[:-1] for run in middle(found.timing.chains)), strict=True))
    return [list(next(columns)) if call.seen else None for call in found.watched.calls]


def _row(
    row: "Row", calls: "Sequence[Call]", times: "Sequence[list[float] | None]", classes: Mapping[str, str]
) -> CallRow:
    first = [calls[index] for index in row.instances[0]]
    one = first[0] if len(first) == 1 else None
    macs, other = (_sum([getattr(call, key) for call in first]) for key in ("macs", "other_flops"))
    sources = {(call.file, call.line) for call in first}
    file, line = sources.pop() if len(sources) == 1 else (None, None)
    return CallRow(
        name=one.name if one else classes.get(row.visited(calls)) or row.name,
        path=row.path,
        doc="",
        pattern="",
        inputs=first[0].inputs,
        outputs=first[-1].outputs,
        macs=macs,
        flops=None if macs is None else 2 * macs,
        other_flops=other,
        params=sum(call.params for call in first),
        bytes_read=sum(call.bytes_read for call in first),
        bytes_written=sum(call.bytes_written for call in first),
        bytes_saved=None,
        bytes_live=max(calls[index].bytes_live for instance in row.instances for index in instance),
        time=_row_time(row, times),
        times=len(row.instances),
        op=one.name if one else "",
        module=row.module(calls) if one else classes.get(row.visited(calls), ""),
        source=f"{_short(file)}:{line}" if file else None,
        code=linecache.getline(file, line or 0).strip() if file else "",
        calls=len(first),
        uncounted=sorted({op for call in first for op in call.uncounted}),
    )


def _row_time(row: "Row", times: "Sequence[list[float] | None]") -> StepTime | None:
    """Seconds of one instance: the mean over the runs that count, and over the instances."""
    from attnscope.probes.time import spread

    known = [times[index] for instance in row.instances for index in instance]
    runs = [samples for samples in known if samples is not None]
    if not runs:
        return None
    sums = [sum(run) / len(row.instances) for run in zip(*runs, strict=True)]
    return StepTime(median_s=sum(sums) / len(sums), iqr_s=spread(sums), samples_s=sums)


def _totals(found: _Found, params: int) -> Totals:
    calls = found.watched.calls
    macs = sum(call.macs or 0 for call in calls)
    return Totals(
        macs=macs,
        flops=2 * macs,
        other_flops=sum(call.other_flops or 0 for call in calls),
        params=params,
        bytes_read=sum(call.bytes_read for call in calls),
        bytes_written=sum(call.bytes_written for call in calls),
        peak_bytes=found.watched.peak_bytes,
    )


def attentions_found(
    attentions: "Sequence[Attention]",
    calls: "Sequence[Call]",
    times: "Sequence[list[float] | None]",
    whole: Time | None,
) -> list[AttentionFound]:
    """Attentions that are alike in one entry, with their share of the whole."""
    kinds: dict[Any, list[Attention]] = {}
    for attention in attentions:
        kinds.setdefault(attention.likeness, []).append(attention)
    total = sum(call.macs or 0 for call in calls)
    seconds = [sum(samples) / len(samples) if samples else None for samples in times]

    def cost(indices: set[int]) -> tuple[int, float | None, float | None, float | None]:
        macs = sum(calls[index].macs or 0 for index in indices)
        spent = sum(seconds[index] or 0.0 for index in indices) if whole else None
        return (
            macs,
            macs / total if total else None,
            spent,
            spent / whole.steps_sum_s if whole and spent is not None else None,
        )

    found = []
    for alike in kinds.values():
        first = alike[0]
        core = {index for one in alike for index in range(one.first, one.last + 1)}
        paths = tuple({one.path for one in alike})
        around = {
            index
            for index, call in enumerate(calls)
            if any(not path or call.path == path or call.path.startswith(f"{path}.") for path in paths)
        }
        core_macs = sum(one.macs for one in alike)
        whole_calls, _, core_s, core_time = cost(core)
        if whole_calls != core_macs and first.first == first.last:
            core_s = core_time = None  # one call does more than attend
        macs, share, spent, time_share = cost(around)
        found.append(
            AttentionFound(
                path=first.path,
                kind=first.kind,
                times=len(alike),
                tokens=first.tokens,
                keys=first.keys,
                heads=first.heads,
                head_dim=first.head_dim,
                scope=_scope(first),
                windows=first.windows,
                window=first.window,
                core_macs=core_macs,
                core_macs_share=core_macs / total if total else None,
                core_s=core_s,
                core_time_share=core_time,
                module_macs=macs,
                module_macs_share=share,
                module_s=spent,
                module_time_share=time_share,
                complexity=_complexity(first),
            )
        )
    return found


def _scope(attention: "Attention") -> str:
    if attention.grid:
        return "grid"
    if attention.windows > 1:
        return "windowed"
    return "global" if attention.tokens == attention.keys else "cross"


def _complexity(attention: "Attention") -> list[Formula]:
    """The paper's formulas for one layer, where each token is a query and a key."""
    if attention.tokens != attention.keys:
        return []
    dim, tokens = attention.heads * attention.head_dim, attention.windows * attention.tokens
    terms = [global_attention(tokens, dim)]
    if attention.windows > 1:
        terms.append(windowed_attention(tokens, dim, attention.window or (attention.tokens, 1)))
    return [Formula(term.name, term.formula, term.values, term.macs) for term in terms]


def _uncounted(calls: "Sequence[Call]") -> list[Uncounted]:
    found: dict[str, Uncounted] = {}
    for call in calls:
        for op in call.uncounted:
            entry = found.setdefault(op, Uncounted(op, 0, []))
            entry.calls += 1
            where = f"{call.path}: {call.name}" if call.path else call.name
            if where not in entry.within:
                entry.within.append(where)
    return list(found.values())


def _next(asked: _Asked, target: Target, calls: "Sequence[Call]") -> tuple[str, str]:
    # what was typed has the --arg and --input that it needs, and the --time
    base = asked.command or f"attnscope trace {target.name}{' --time' if asked.time else ''}"
    if not asked.time:
        return f"{base} --time", "run it, and see where the time goes"
    if asked.group == "module":
        return f"{base} --group op", "the same by torch function"
    return f"{base} --module PATH", "open one submodule with the inputs that it receives"


def _spell_input(value: Any) -> str:
    from attnscope.probes.foreign.costs import tensors_in

    return ", ".join(f"{spell(tuple(tensor.shape))} {_name(tensor.dtype)}" for tensor in tensors_in(value))


def _name(dtype: "torch.dtype") -> str:
    return str(dtype).removeprefix("torch.")


def _sum(values: "Sequence[int | None]") -> int | None:
    return None if None in values else sum(value for value in values if value is not None)


def _short(file: str) -> str:
    """A path as people would type it: below the working folder, or from the package on."""
    path = Path(file)
    for part in ("site-packages", "dist-packages"):
        if part in path.parts:
            return str(Path(*path.parts[path.parts.index(part) + 1 :]))
    here = os.getcwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else file


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0][:100]


def _near(path: str, known: Mapping[str, Any]) -> str:
    names = [name for name in known if name]
    told = did_you_mean(path, names)
    return told if told.startswith("did you mean") or len(names) < 12 else f"the first are: {', '.join(names[:6])}"
