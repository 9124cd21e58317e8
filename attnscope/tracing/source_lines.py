"""Whose code runs: the user's, or a library's that people look into (timm), told from Python's, torch's and ours."""

import linecache
import os
import sysconfig
from functools import cache
from pathlib import Path
from traceback import walk_tb
from types import CodeType, FrameType, TracebackType

import torch

OURS = Path(__file__).parents[1]
OUR_MODULES = ("attentions", "networks")
"""Folders of ours whose lines are shown as a user's are."""
PASSED_THROUGH = ("torch", "einops", "functorch")
"""Packages whose frames are passed through: the line that calls them is meant."""
NOT_USERS = (Path(sysconfig.get_paths()["stdlib"]), Path(torch.__file__).parent)
SITES = ("site-packages", "dist-packages")

Line = tuple[str | None, int | None]
"""A file and the number of a line in it; None where there is none."""


@cache
def is_users(code: CodeType) -> bool:
    """Whether a function is the user's, or of a library that people look into."""
    if code.co_filename.startswith("<"):
        return False  # made by exec, as the functions of dataclasses are
    file = Path(code.co_filename)
    if file.is_relative_to(OURS):
        return file.relative_to(OURS).parts[0] in OUR_MODULES
    sites = [index for index, part in enumerate(file.parts) if part in SITES]
    if sites:
        return file.parts[sites[-1] + 1] not in PASSED_THROUGH
    return not any(file.is_relative_to(home) for home in NOT_USERS)


def users_line(frame: FrameType | None, within: CodeType) -> Line:
    """The line of the user's code that is running, seen from a frame inside it, as far out as the function `within`."""
    while frame is not None and frame.f_code is not within:
        if is_users(frame.f_code):
            return frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back
    return None, None


def raised_at(error: BaseException, within: CodeType) -> Line:
    """The innermost line of the user's in a traceback, inside the function `within`."""
    place: Line = (None, None)
    inside = False
    for frame, line in walk_tb(error.__traceback__):
        inside = inside or frame.f_code is within
        if inside and is_users(frame.f_code):
            place = frame.f_code.co_filename, line
    return place


def leave_users_frames(error: BaseException) -> None:
    """Leave in the traceback what is the user's."""
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
    """`timm/layers/attention.py:97`, as people would type it: below the working folder, or from the package on."""
    path, here = Path(file), os.getcwd()
    for site in SITES:
        if site in path.parts:
            return f"{Path(*path.parts[path.parts.index(site) + 1 :])}:{line}"
    return f"{path.relative_to(here) if path.is_relative_to(here) else file}:{line}"


def text_of(file: str, line: int | None) -> str:
    """What stands on a line."""
    return linecache.getline(file, line or 0).strip()
