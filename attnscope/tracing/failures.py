"""Report an error in a third-party forward: the step, the shapes of its inputs, and the line of the user's code."""

from collections.abc import Iterator
from contextlib import contextmanager
from traceback import walk_tb

from attnscope.core.axes import spell
from attnscope.core.errors import AttnscopeError, in_a_line, literal, message_of, ran_out_of_memory
from attnscope.tracing.calls import ForwardFailedError
from attnscope.tracing.source_lines import leave_users_frames, spell_line, text_of

META_KERNELS = ("torch/_meta_registrations.py", "torch/_refs/", "torch/_prims", "torch/_decomp/", "torch/_library/")
"""Files of torch that compute results on meta, and refuse what other devices may run."""
SCRIPTED = "failed in the TorchScript interpreter"
"""Words of the error of a scripted forward."""


def needs_values(error: BaseException) -> bool:
    """Return whether an error says that the meta device has no values, or lacks a kernel."""
    message = message_of(error).lower().replace("device='meta'", "")  # a tensor that the message of another error shows
    return "meta" in message or isinstance(error, NotImplementedError)


def is_metas(error: BaseException) -> bool:
    """Return whether an error may come from the meta device, not from the code: it needs values, or a kernel refuses."""
    files = [frame.f_code.co_filename.replace("\\", "/") for frame, _ in walk_tb(error.__traceback__)]
    is_refused = any(part in file for file in files[-4:] for part in META_KERNELS)
    is_hidden = SCRIPTED in message_of(error)  # a scripted forward hides the error and its place
    return needs_values(error) or is_refused or is_hidden or (error.__cause__ is not None and is_metas(error.__cause__))


def reason(error: BaseException) -> str:
    """Return in a line why a forward failed on meta."""
    return "TorchScript does not run there" if SCRIPTED in message_of(error) else in_a_line(error)


class ForwardError(AttnscopeError):
    """An error in the forward of a third-party module; `__cause__` is the original error."""


@contextmanager
def forward_errors_explained(name: str) -> Iterator[None]:
    """Turn an error of a forward within a `with` block into a ForwardError of one line that says where it failed.

    An out-of-memory error passes unchanged.

    Args:
        name: the name of the module.

    Raises:
        ForwardError: the forward raised.
    """
    try:
        yield
    except ForwardFailedError as failure:
        if ran_out_of_memory(failure.error):
            raise failure.error from None
        leave_users_frames(failure.error)
        raise ForwardError(_message(failure, name)) from failure.error


def _message(failure: ForwardFailedError, name: str) -> str:
    """Return the error message: step, shapes, line of the user's code, and the original error."""
    *before, last = [*map(spell, failure.shapes)] or ["no tensors"]
    shapes = f"{', '.join(before)} and {last}" if before else last
    of = f" of {shapes}" if failure.step or failure.shapes else ""
    parts = [f"{failure.path or name}: {failure.step or 'the forward'}{of} failed"]
    if failure.file:
        code = text_of(failure.file, failure.line)
        parts.append(f"at {spell_line(failure.file, failure.line)}" + (f" `{code}`" if code else ""))
    message = f"{' '.join(parts)}: {type(failure.error).__name__}: {message_of(failure.error)}"
    return literal(message)
