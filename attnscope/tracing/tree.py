"""The submodules, parameters and buffers of a third-party module, each once, by identity.

The methods of nn.Module find them by hash and equality. A class may define these otherwise, or have methods of its own.
"""

from collections.abc import Iterator

from torch import Tensor, nn


def named_modules(module: nn.Module, remove_duplicate: bool = True) -> Iterator[tuple[str, nn.Module]]:
    """Yield a module and its submodules with their paths.

    Args:
        module: the module, whose path is "".
        remove_duplicate: yield a shared submodule once, at its first path. Otherwise it has all of its paths.
    """
    opened: set[int] = set()

    def below(each: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
        if id(each) in opened:
            return
        opened.add(id(each))
        yield path, each
        for name, submodule in each._modules.items():
            if submodule is not None:
                yield from below(submodule, f"{path}.{name}" if path else name)
        if not remove_duplicate:
            opened.remove(id(each))

    return below(module, "")


def modules_of(module: nn.Module) -> list[nn.Module]:
    """Return a module and its submodules."""
    return [each for _, each in named_modules(module)]


def named_parameters(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Return the parameters of a module with their paths."""
    return [*_named(module, "_parameters")]


def named_tensors_of(module: nn.Module) -> list[tuple[str, Tensor]]:
    """Return the parameters and buffers of a module with their paths."""
    return [*named_parameters(module), *_named(module, "_buffers")]


def tensors_of(module: nn.Module) -> list[Tensor]:
    """Return the parameters and buffers of a module."""
    return [tensor for _, tensor in named_tensors_of(module)]


def _named(module: nn.Module, members: str) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in one dictionary of each module, with their paths."""
    found: set[int] = set()
    for path, each in named_modules(module):
        for name, tensor in getattr(each, members).items():
            if tensor is not None and id(tensor) not in found:
                found.add(id(tensor))
                yield (f"{path}.{name}" if path else name), tensor
