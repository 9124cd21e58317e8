"""Follow the modules that a forward runs: a Visit for each run, at the path by which its caller has the module.

A module may have several paths, since modules can share it, and it may run several times. Its first path would move all
of its calls to one place.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from inspect import getattr_static

from torch import nn

from attnscope.core.axes import Shape
from attnscope.tracing.tree import named_modules


@dataclass(slots=True, eq=False)
class Visit:
    """One run of a module: its class, its path, the shapes of its inputs and outputs, and the run that called it.

    `names` leads from the caller to the module: `("blocks", "0")` for an item of a list that never runs itself.
    """

    kind: str
    path: str
    caller: "Visit | None"
    names: tuple[str, ...]
    inputs: list[Shape] = field(default_factory=list)
    outputs: list[Shape] = field(default_factory=list)


@dataclass(slots=True)
class Running:
    """A module that is running, its Visit, and the number of runs of each module that it has called."""

    module: nn.Module
    visit: Visit
    calls: Counter[int] = field(default_factory=Counter)


class Visits:
    """The runs of the submodules of a root module."""

    def __init__(self, root: nn.Module) -> None:
        self.paths = {id(module): path for path, module in named_modules(root)}
        self.names: dict[int, dict[int, list[str]]] = {}
        self.runs: dict[type, bool] = {}
        """Whether a class of modules has a forward of its own."""

    def __contains__(self, module: nn.Module) -> bool:
        """Return whether a module is the root or one of its submodules."""
        return id(module) in self.paths

    def of(self, module: nn.Module, stack: Sequence[Running]) -> Visit:
        """Return a new Visit of a module.

        Args:
            module: the module that starts to run.
            stack: the running modules, from the outermost to the innermost.
        """
        kind = type(module).__name__
        if module not in self:  # its class is its name
            caller = stack[-1].visit if stack else None
            return Visit(kind, _joined(caller, (kind,)), caller, (kind,))
        # a module that is made in the forward, such as a slice of a Sequential, has no place in the tree
        running = next((each for each in reversed(stack) if each.module in self), None)
        path = self.paths[id(module)]
        if running is None:
            return Visit(kind, path, None, tuple(path.split(".")) if path else ())
        if running.module is module:  # recursion
            return Visit(kind, path, running.visit, ())
        names = self._names_below(running.module).get(id(module))
        if names is None:  # a module elsewhere in the tree, which the caller refers to without owning it
            return Visit(kind, path, running.visit, tuple(path.split(".")))
        parts = tuple(names[running.calls[id(module)] % len(names)].split("."))
        running.calls[id(module)] += 1
        return Visit(kind, _joined(running.visit, parts), running.visit, parts)

    def _names_below(self, module: nn.Module) -> dict[int, list[str]]:
        """Return the names by which a module has each of its submodules, in order, by the identity of the submodule.

        A module that calls a submodule several times calls it by one name after the other, as a Sequential does. Names
        that lead through fewer modules with a forward of their own take precedence.
        """
        if id(module) not in self.names:
            nearest: dict[int, int] = {}
            names: dict[int, list[str]] = {}
            for name, submodule, distance in _below(module, "", 0, {id(module)}, self.runs):
                key = id(submodule)
                if distance < nearest.setdefault(key, distance):
                    nearest[key] = distance
                    names[key] = []
                if distance == nearest[key]:
                    names.setdefault(key, []).append(name)
            self.names[id(module)] = names
        return self.names[id(module)]


def _joined(caller: Visit | None, names: Sequence[str]) -> str:
    return ".".join([caller.path, *names]) if caller and caller.path else ".".join(names)


def _below(
    module: nn.Module, at: str, distance: int, opened: set[int], runs: dict[type, bool]
) -> Iterator[tuple[str, nn.Module, int]]:
    """Yield the submodules below a module by each of their names, and the number of modules with a forward in between.

    Each module is opened once, so that the time is linear although the number of paths may not be.
    """
    for name, submodule in module._modules.items():
        if submodule is None:
            continue
        path = f"{at}.{name}" if at else name
        yield path, submodule, distance
        if id(submodule) not in opened:
            opened.add(id(submodule))
            kind = type(submodule)
            if kind not in runs:  # a forward of its own; that of a scripted module is a descriptor
                runs[kind] = getattr_static(kind, "forward") is not nn.Module.forward
            yield from _below(submodule, path, distance + runs[kind], opened, runs)
