"""Results that are kept for the tables that were shown last, since undo and redo show the same ones again."""

from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

Given = TypeVarTuple("Given")
Result = TypeVar("Result")


def kept(count: int) -> Callable[[Callable[[*Given], Result]], Callable[[*Given], Result]]:
    """Return a decorator that keeps the results of a function for its latest `count` arguments, compared by identity.

    Reports and their rows are so large that comparing them, or hashing them, takes longer than the function.
    """

    def decorate(function: Callable[[*Given], Result]) -> Callable[[*Given], Result]:
        results: OrderedDict[tuple[int, ...], tuple[tuple[*Given], Result]] = OrderedDict()

        def keeping(*args: *Given) -> Result:
            key = tuple(map(id, args))
            if key not in results:
                # with the arguments, whose ids stay theirs as long as they exist
                results[key] = args, function(*args)
            results.move_to_end(key)
            if len(results) > count:
                results.popitem(last=False)
            return results[key][1]

        return keeping

    return decorate
