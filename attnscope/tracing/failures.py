"""An error in somebody's forward, told as theirs: the step, the shapes that went in, their line."""

from collections.abc import Iterator
from contextlib import contextmanager

from attnscope.core.axes import spell
from attnscope.core.errors import AttnscopeError, ran_out_of_memory
from attnscope.tracing.calls import ForwardFailedError
from attnscope.tracing.source_lines import leave_users_frames, spell_line, text_of


class ForwardError(AttnscopeError):
    """An error in the forward of somebody's module, told as theirs; `__cause__` is the error itself."""


@contextmanager
def told_as_theirs(name: str) -> Iterator[None]:
    """Tell in a line where a forward fails, for the length of a with block; memory that ran out is nobody's fault.

    Raises:
        ForwardError: the forward of the module with this name raised.
    """
    try:
        yield
    except ForwardFailedError as failure:
        if ran_out_of_memory(failure.error):
            raise failure.error from None
        leave_users_frames(failure.error)
        raise ForwardError(_told(failure, name)) from failure.error


def _told(failure: ForwardFailedError, name: str) -> str:
    parts = []
    if failure.step:
        took = " and ".join(map(spell, failure.shapes)) or "no tensors"
        parts.append(f"{failure.path or name}: {failure.step} of {took} failed")
    else:
        parts.append(f"{name}: the forward failed")
    if failure.file:
        code = text_of(failure.file, failure.line)
        parts.append(f"at {spell_line(failure.file, failure.line)}" + (f" `{code}`" if code else ""))
    message = f"{' '.join(parts)}: {type(failure.error).__name__}: {failure.error}"
    return message.replace("{", "(").replace("}", ")")  # braces would name a flag
