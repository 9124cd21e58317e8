"""Follow the running code, and check the shape comments of each function when it returns."""

import ast
import linecache
from collections.abc import Mapping
from functools import cache
from types import FrameType
from typing import Any

from attnscope.core.axes import Shape
from attnscope.reports.report import WrongShape
from attnscope.tracing.comments.comparing import Observation, judge
from attnscope.tracing.comments.planning import Watch, watches


class CommentCheck:
    """A trace function (see `sys.settrace`) that checks the shape comments of the running code against its values."""

    def __init__(self, is_users: Any, is_tensor: Any) -> None:
        self.is_users, self.is_tensor = is_users, is_tensor
        linecache.checkcache()  # a session may have edited a file since the last trace
        self.batch: int | None = None
        """The number of images in the input, once it is known."""
        self.checked: set[tuple[str, int]] = set()
        self.wrong: dict[tuple[str, int], WrongShape] = {}
        self.judged: set[tuple[tuple[Watch, Observation], ...]] = set()
        self.failure: Exception | None = None
        """The first error of the check itself, which ends the check of the call, not the forward."""

    def __call__(self, frame: FrameType, event: str, arg: Any) -> Any:
        try:
            if not self.is_users(frame.f_code):
                return None
            found = watches(frame.f_code)
        except Exception as error:
            return self.fail(error)
        return _Call(self, found).event if found else None

    def fail(self, error: Exception) -> None:
        """Keep an error of the check, and end the check of a call by returning no trace function for it."""
        self.failure = self.failure or error.with_traceback(None)

    def judge(self, seen: list[tuple[Watch, Observation]]) -> None:
        """Find the wrong comments of one call of a function."""
        if tuple(seen) in self.judged:  # such as those of the same module in each block of a network
            return
        self.judged.add(tuple(seen))
        results = judge([observation for _, observation in seen])
        for (watch, observation), result in zip(seen, results, strict=True):
            place = (watch.file, watch.comment_line)
            if not watch.is_evidence and (observation.fits({}) or observation.is_comparable()):
                self.checked.add(place)
            if result is not None:
                self.wrong.setdefault(place, WrongShape(*place, watch.comment, *result))


class _Call:
    """The check of one call of a function, from line to line."""

    def __init__(self, check: CommentCheck, found: dict[int, tuple[Watch, ...]]) -> None:
        self.check, self.found = check, found
        self.open: dict[Watch, list[Shape]] = {}
        self.seen: list[tuple[Watch, Observation]] = []
        self.attributes: frozenset[int] | None = None

    def event(self, frame: FrameType, event: str, arg: Any) -> Any:
        """Check what an event of the code completes; an error here must not reach the code."""
        try:
            self.follow(frame, event, arg)
        except Exception as error:
            frame.f_trace = None
            return self.check.fail(error)
        return self.event

    def follow(self, frame: FrameType, event: str, arg: Any) -> None:
        if event == "line":
            here = self.found.get(frame.f_lineno, ())
            if here or self.open:
                self.line(here, frame)
        elif event == "exception":
            self.open.clear()
        elif event == "return":
            if self.open:
                variables = frame.f_locals
                for watch in list(self.open):
                    self.close(watch, variables, arg)
            if self.seen:
                self.check.judge(self.seen)
                self.seen = []

    def line(self, here: tuple[Watch, ...], frame: FrameType) -> None:
        variables = frame.f_locals
        for watch in list(self.open):
            if watch not in here:
                self.close(watch, variables)
            elif frame.f_lineno in watch.starts:
                self.open[watch] += self.shapes(watch, watch.after, variables)
        for watch in here:
            if watch not in self.open:
                self.open[watch] = self.shapes(watch, watch.before, variables)

    def close(self, watch: Watch, variables: Mapping[str, Any], returned: Any = None) -> None:
        before, after = self.open.pop(watch), self.shapes(watch, watch.after, variables)
        if watch.returns:
            after += self.shapes_of(watch, returned)
        shapes = tuple(dict.fromkeys(before + after))
        if not shapes or (watch.is_above and not after):
            return
        sizes = {name: size for name in watch.names if (size := size_of(name, variables)) is not None}
        own = getattr(variables.get("self"), "__dict__", {})
        others = {**sizes, **{name: own[name] for name in watch.names if type(own.get(name)) is int}}
        numbers = frozenset(value for value in variables.values() if type(value) is int)
        observation = Observation(
            watch.options,
            shapes,
            tuple(sizes.items()),
            tuple(others.items()),
            numbers,
            watch.is_sure,
            watch.is_evidence,
            watch.binds,
            numbers | self.attributes_of(own),
            self.check.batch,
        )
        self.seen.append((watch, observation))

    def attributes_of(self, own: Mapping[str, Any]) -> frozenset[int]:
        """Return the whole numbers among the attributes of `self`, which are read once a call."""
        if self.attributes is None:
            self.attributes = frozenset(value for value in own.values() if type(value) is int)
        return self.attributes

    def shapes(self, watch: Watch, names: tuple[str, ...], variables: Mapping[str, Any]) -> list[Shape]:
        return [shape for name in names for shape in self.shapes_of(watch, variables.get(name))]

    def shapes_of(self, watch: Watch, value: Any) -> list[Shape]:
        """Return the shapes of a tensor, or of the tensors in a tuple or list."""
        if isinstance(value, tuple | list) and watch.position is not None:
            place, length = watch.position
            value = value[place] if len(value) == length else None
        values = value if isinstance(value, tuple | list) else [value]
        return [tuple(item.shape) for item in values if self.check.is_tensor(item)]


def size_of(name: str, variables: Mapping[str, Any]) -> int | None:
    """Return the whole number that a name has in the code: that of a variable, or of an attribute of `self`."""
    root, *steps = _path(name)
    value = variables.get(root)
    if not steps and type(value) is not int:
        value = _attribute(variables.get("self"), root)
    for step in steps:
        if isinstance(step, str):
            value = _attribute(value, step)
        else:
            value = value[step] if isinstance(value, tuple | list) and -len(value) <= step < len(value) else None
    return value if type(value) is int else None


def _attribute(value: Any, name: str) -> Any:
    return getattr(value, "__dict__", {}).get(name)  # properties of the user's classes are not run


@cache
def _path(name: str) -> tuple[Any, ...]:
    """Return the variable, attributes and indices of a name such as `self.window_size[0]`."""
    tree: Any = ast.parse(name, mode="eval").body
    steps: list[Any] = []
    while not isinstance(tree, ast.Name):
        steps.append(tree.attr if isinstance(tree, ast.Attribute) else tree.slice.value)
        tree = tree.value
    return (tree.id, *reversed(steps))
