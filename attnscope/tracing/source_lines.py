"""Find the lines of the user's code, or of a model library such as timm, in frames and tracebacks.

Lines of Python, of torch and of attnscope itself are skipped.
"""

import linecache
import os
import sys
import sysconfig
from collections.abc import Container
from functools import cache
from pathlib import Path
from traceback import walk_tb
from types import CodeType, FrameType, TracebackType

import torch

OURS = Path(__file__).parents[1]
OUR_MODULES = ("attentions", "networks")
"""Folders of attnscope whose lines count as the user's."""
PASSED_THROUGH = ("torch", "einops", "functorch")
"""Packages whose frames are skipped in favour of the line that calls them."""
NOT_USERS = (Path(sysconfig.get_paths()["stdlib"]), Path(torch.__file__).parent)
SITES = ("site-packages", "dist-packages")

Line = tuple[str | None, int | None]
"""A file and a line number in it; both None if no line of the user's code was found."""


def is_users(code: CodeType) -> bool:
    """Return whether a function belongs to the user's code or to a model library."""
    return _is_users_file(code.co_filename)


@cache  # by name, since the hash of a function's code is slow
def _is_users_file(name: str) -> bool:
    if name.startswith("<"):
        return False  # compiled by exec, like the methods of dataclasses
    file = Path(name)
    if file.is_relative_to(OURS):
        return file.relative_to(OURS).parts[0] in OUR_MODULES
    sites = [index for index, part in enumerate(file.parts) if part in SITES]
    if sites:
        return file.parts[sites[-1] + 1] not in PASSED_THROUGH
    return not any(file.is_relative_to(home) for home in NOT_USERS)


def users_line(frame: FrameType | None, within: CodeType) -> Line:
    """Return the innermost running line of the user's code.

    Args:
        frame: the frame from which the search goes outwards.
        within: the function at which the search ends.
    """
    while frame is not None and frame.f_code is not within:
        if is_users(frame.f_code):
            return frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back
    return None, None


def raised_at(error: BaseException, within: CodeType) -> Line:
    """Return the innermost line of the user's code in the traceback of an error, inside the function `within`."""
    place: Line = (None, None)
    inside = False
    for frame, line in walk_tb(error.__traceback__):
        inside = inside or frame.f_code is within
        if inside and is_users(frame.f_code):
            place = frame.f_code.co_filename, line
    return place


def leave_users_frames(error: BaseException) -> None:
    """Remove all frames from the traceback of an error that are not the user's code."""
    kept, trace = [], error.__traceback__
    while trace is not None:
        if is_users(trace.tb_frame.f_code):
            kept.append(trace)
        trace = trace.tb_next
    chain: TracebackType | None = None
    for trace in reversed(kept):
        chain = TracebackType(chain, trace.tb_frame, trace.tb_lasti, trace.tb_lineno)
    error.__traceback__ = chain


def spell_line(file: str, line: int | None) -> str:
    """Return a short form of a file and a line, such as `timm/layers/attention.py:97`.

    The path is relative to the folder of installed packages or to the working folder.
    """
    path, here = Path(file), os.getcwd()
    for site in SITES:
        if site in path.parts:
            return f"{Path(*path.parts[path.parts.index(site) + 1 :])}:{line}"
    return f"{path.relative_to(here) if path.is_relative_to(here) else file}:{line}"


def text_of(file: str, line: int | None) -> str:
    """Return the source code of a line."""
    return linecache.getline(file, line or 0).strip()


def users_files(before: Container[str]) -> list[str]:
    """Return the files of the user's modules that are imported now, without installed packages.

    Args:
        before: names of the modules to skip, which were imported before.
    """
    files = [getattr(module, "__file__", None) for name, module in [*sys.modules.items()] if name not in before]
    paths = [Path(file).resolve() for file in files if isinstance(file, str)]
    return [str(path) for path in dict.fromkeys(paths) if not _is_installed(path)]


def _is_installed(path: Path) -> bool:
    return any(site in path.parts for site in SITES) or any(path.is_relative_to(home) for home in (OURS, *NOT_USERS))
