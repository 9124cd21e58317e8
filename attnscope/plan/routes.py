"""The route of a plan's tensors through one axis of a mesh: which step needs which collective.

A tensor is whole, or cut along one letter. A step whose letters a cut leaves alone runs locally. The others need a
collective:

- a cut letter that the result lacks leaves partial sums: all-reduce, or reduce-scatter to the cut of the input;
- a letter that a step needs whole, or cut elsewhere: all-gather, all-to-all, or a ring of keys and values;
- a step that reads other places of a cut axis, such as a roll, needs a halo.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from string import ascii_lowercase
from typing import NamedTuple

from attnscope.core.axes import Factors, Sizes, Tensor
from attnscope.core.errors import UsageError
from attnscope.core.neighbourhood import Neighbourhood
from attnscope.plan.halo import Needs, gathered, rolled
from attnscope.plan.mesh import (
    COLUMNS,
    ROWS,
    MeshAxis,
    Shards,
    UncuttableError,
    chunk,
    count_error,
    leaves_a_rank_empty,
)
from attnscope.plan.plan import Plan, SizedStep

HEADS, TOKENS = "heads", "tokens"
"""What a cut goes back to: the heads, or the tokens of the input."""
HEAD = "h"
"""The letter of the attention heads, in every attention."""
WINDOWS = {ROWS: "r", COLUMNS: "s"}
"""The letters of windows down and across, by the axis of the input."""
LINEAR = ("addmm", "mm", "bmm", "baddbmm", "clone", "mul", "sum")
"""Operators after which partial sums add up to the result."""
WHOLE_ROWS = ("_softmax", "native_layer_norm", "linalg_vector_norm")
"""Operators that need their last axis whole."""


class Placed(NamedTuple):
    """The cut of a tensor along one axis of the mesh.

    Args:
        letter: the letter that is cut, as the step spells it.
        shards: the size of the letter on each rank.
        root: HEADS or TOKENS.
        groups: the number of consecutive parts of the axis, each of which is cut, such as the halves of channels.
    """

    letter: str
    shards: Shards
    root: str
    groups: int = 1


class Move(NamedTuple):
    """A change of the cut of a tensor of a step on one axis of the mesh, before or after the step.

    Args:
        kind: the collective; "copy" if it is one in the backward only, and "slice" if nothing is sent.
        number: the number of the tensor among the inputs, or among the outputs.
        source, target: the cut before and after; None if the tensor is whole.
        needs: for a halo, what each rank needs.
    """

    kind: str
    number: int
    source: Placed | None
    target: Placed | None
    needs: Needs = ()


@dataclass(frozen=True)
class Route:
    """One step on one axis of the mesh.

    Args:
        before, after: what happens to its inputs and to its outputs.
        takes: how each input is cut when the step runs.
        makes: how each output is cut when the step has run; None for a whole tensor and for partial sums.
        weights: the cut letter and the axis of each parameter that is cut, by name.
        contracted: the number of the input whose cut axis the weights contract; None without one.
        rounds: the number of blocks of keys that the step runs for, one after another.
    """

    before: tuple[Move, ...]
    after: tuple[Move, ...]
    takes: tuple[Placed | None, ...]
    makes: tuple[Placed | None, ...]
    weights: Mapping[str, Placed]
    contracted: int | None = None
    rounds: int = 1

    @property
    def is_cut(self) -> bool:
        """Return whether ranks compute different parts of the step."""
        return any(self.takes) or bool(self.weights)

    @property
    def is_partial(self) -> bool:
        """Return whether ranks hold partial sums after the step."""
        return any(move.kind in ("all-reduce", "reduce-scatter") for move in self.after)

    def spelled(self, names: Mapping[str, str]) -> "Route":
        """Return the route with other names of letters."""
        if not names:
            return self

        def of(placed: Placed | None) -> Placed | None:
            return placed and placed._replace(letter=names.get(placed.letter, placed.letter))

        def moves(found: Sequence[Move]) -> tuple[Move, ...]:
            return tuple([each._replace(source=of(each.source), target=of(each.target)) for each in found])

        return replace(
            self,
            before=moves(self.before),
            after=moves(self.after),
            takes=tuple(map(of, self.takes)),
            makes=tuple(map(of, self.makes)),
            weights={name: placed for name, each in self.weights.items() if (placed := of(each))},
        )

    def shares(self, weight: str) -> bool:
        """Return whether each rank has all of a parameter, and a part of its gradient."""
        is_scattered = any(move.kind == "reduce-scatter" for move in self.after)
        return self.is_cut and weight not in self.weights and (is_scattered or not self.is_partial)


def route_of(plan: Plan, axis: MeshAxis, around: Neighbourhood, arriving: Shards = ()) -> list[Route]:
    """Follow one axis of the mesh through the steps of a plan.

    Args:
        plan: the plan of an attention.
        axis: the axis of the mesh.
        around: what each query of the attention looks at, which gives the width of halos.
        arriving: how a previous part of a network cut the tokens; these cuts are kept if they are legal.

    Raises:
        UsageError: the attention cannot be sharded along this axis, or not on this number of ranks.
    """
    if axis.ranks == 1:  # it cuts nothing, so that each plan is legal
        return [whole_route(step) for step in plan.sized]
    return _Walk(plan, axis, around, arriving).routes


def whole_route(step: SizedStep) -> Route:
    """Return the route of a step that each rank runs as a whole."""
    letters = step.step.letters
    return Route((), (), (None,) * len(letters.inputs), (None,) * len(letters.outputs), {})


class _Walk:
    """The walk of one axis of the mesh through the steps of a plan; `routes` has the result."""

    def __init__(self, plan: Plan, axis: MeshAxis, around: Neighbourhood, arriving: Shards) -> None:
        self.axis, self.around, self.kind, self.arriving = axis, around, axis.kind, arriving
        self.steps, self.own_names = self.with_one_size_each(plan.sized)
        self.place = axis.place + is_channels_first(self.steps)
        self.sizes = {letter: step.sizes[letter] for step in self.steps for letter in _letters_of(step)}
        self.tokens = self.token_letters() if self.kind.enters else {}
        self.heads = self.head_letters() if self.kind.cuts_heads or self.kind.meets == "all-to-all" else {}
        self.entry = self.enter() if self.kind.enters else None
        self.placed = self.inputs()
        self.keys = self.key_letters()
        self.rolls = 0
        self.routes = [self.through(step) for step in self.steps]
        self.leave_as_entered()
        self.routes = [route.spelled(names) for route, names in zip(self.routes, self.own_names, strict=True)]

    # the letters that are cut

    def with_one_size_each(self, steps: Sequence[SizedStep]) -> tuple[list[SizedStep], list[dict[str, str]]]:
        """Return the steps with another letter for each further size of a letter, and the own names of these letters.

        Two layers of a block may have the same letter for different axes: c is what a layer makes, and what the next takes.

        Raises:
            UsageError: the steps have more sizes than the alphabet has letters.
        """
        names: dict[tuple[str, int], str] = {}
        free = sorted(set(ascii_lowercase).difference(*map(_letters_of, steps)))
        found, own_names = [], []
        for step in steps:
            other: dict[str, str] = {}
            for letter in sorted(_letters_of(step)):
                key = letter, step.sizes[letter]
                if key not in names:
                    if any(letter == known for known, _ in names) and not free:
                        raise self.refusal(step, f"has another size of {letter} than earlier steps")
                    names[key] = free.pop(0) if any(letter == known for known, _ in names) else letter
                if names[key] != letter:
                    other[letter] = names[key]
            sizes = {**step.sizes, **{fresh: step.sizes[letter] for letter, fresh in other.items()}}
            found.append(replace(step, step=step.step.spelled(**other), sizes=sizes) if other else step)
            own_names.append({fresh: letter for letter, fresh in other.items()})
        return found, own_names

    def head_letters(self) -> dict[str, Shards]:
        """Return the letters of heads, and of what is split into heads, each with its sizes on the ranks.

        Raises:
            UsageError: the ranks do not divide them.
        """
        letters = [HEAD]
        for step in self.steps:
            made = step.step.letters.outputs
            if not self.kind.cuts_heads or step.weights or len(step.step.letters.inputs) > 1 or len(made) == 1:
                continue
            place = next((at for at, each in enumerate(made[0].axes) if each.letters == (HEAD,)), None)
            if place is not None:
                letters += [letter for each in made for letter in each.axes[place].letters]
                taken, kept = step.step.letters.inputs[0].letters, {letter for each in made for letter in each.letters}
                letters += [letter for letter in taken if letter not in kept and HEAD not in taken]
        letters += self.other_names_of(HEAD) if self.kind.cuts_heads else []
        hidden = self.hidden_letters()
        letters += hidden
        if HEAD not in self.sizes:
            raise UncuttableError(f"{{plan}} {self.axis.name} cuts the heads, and this attention has none")
        found = {}
        for letter in dict.fromkeys(letters):
            count = self.sizes[letter]
            if count % self.axis.ranks:
                what = "hidden channels" if letter in hidden else "key/value heads"
                what = self.heads_in_words() if letter == HEAD else what
                got = f"{_count(count, what)} on {self.axis.ranks} ranks"
                rule = f"{{plan}} {self.axis.name} must divide the heads (got {got})"
                raise count_error(rule, count, self.axis, must_divide=True)
            found[letter] = (count // self.axis.ranks,) * self.axis.ranks
        return found

    def heads_in_words(self) -> str:
        """Return "heads", or "heads of each branch" if an axis of channels has the heads several times: (a h d)."""
        axes = [axis for step in self.steps for each in step.step.weight_shapes.values() for axis in each.axes]
        first = {axis.letters[0] for axis in axes if HEAD in axis.letters[1:]}
        return "heads of each branch" if any(self.sizes[letter] > 1 for letter in first) else "heads"

    def other_names_of(self, letter: str) -> list[str]:
        """Return the letters under which steps make an axis that later steps take under this letter: g for h."""
        makers: dict[str, Tensor] = {}
        found: list[str] = []
        for step in self.steps:
            for name, taken in zip(step.takes, step.step.letters.inputs, strict=True):
                for made, used in zip(makers[name].axes, taken.axes, strict=True) if name in makers else ():
                    if used.letters == (letter,) and made.letters and made.letters[0] != letter:
                        found += made.letters[:1]
            makers.update(zip(step.makes, step.step.letters.outputs, strict=True))
        return found

    def hidden_letters(self) -> list[str]:
        """Return the letters between two linear layers, as in an MLP: the first makes them, and the second sums them.

        A convolution of planes is a linear layer of channels, such as those of an MBConv. The result of the second layer
        is not between two layers, although the first layer of another MLP sums it.
        """
        if not self.kind.cuts_heads:
            return []
        made: set[str] = set()
        found: set[str] = set()
        for step in self.steps:
            taken = step.step.letters.inputs[0]
            for each in step.step.weight_shapes.values():
                channels = channels_axis(taken, each)
                if channels is None or len(each.axes[0].letters) != 1:
                    continue
                first = taken.axes[channels].letters
                if between := made.intersection(first).difference(each.axes[0].letters):
                    found |= between
                else:
                    made.update(set(each.axes[0].letters).difference(first))
        return sorted(found)

    def token_letters(self) -> dict[str, Shards]:
        """Return the letters along which the tokens of the input are cut, each with its sizes on the ranks.

        Raises:
            UsageError: the input has no such axis, or a rank would be empty.
        """
        first = self.steps[0].step.letters.inputs[0]
        is_grid = len(first.axes) > 3
        name = self.axis.name
        if (self.kind.enters == "grid") != is_grid:
            has = "a grid" if is_grid else "a sequence"
            cuts = "the rows of a grid" if self.kind.enters == "grid" else "a sequence of tokens"
            raise UncuttableError(f"{{plan}} {name} cuts {cuts}, and the input of this attention is {has}")
        if len(first.axes) > 4:
            raise UncuttableError(f"{{plan}} {name} cuts the grid of an image, and this attention has a volume")
        own = first.axes[self.place].letters
        window, spanning = self.window_letters() if self.kind.enters == "grid" else (None, set())
        if window is None:
            if self.axis.place == COLUMNS and any(
                run.name == "index" for step in self.steps for run in step.forward.runs
            ):
                raise UncuttableError(f"{{plan}} {name} cuts rows and columns of windows, and this attention has none")
            return self.rows_of_sequence() if not window else {own[0]: self.cut(own[0], self.lines_in_words)}
        shards = self.cut(window, f"{self.lines_in_words} of windows")
        others = {each: self.cut(each, "windows that span all rows") for each in spanning}
        if window in own:
            return {window: shards}
        tensors = [each for step in self.steps for each in (*step.step.letters.inputs, *step.step.letters.outputs)]
        padded = next(
            (each for each in tensors if len(each.axes) > 3 and each.axes[self.place].letters[:1] == (window,)),
            None,
        )
        if padded is None:
            where = "its input has channels first, and its windows have them last"
            raise UncuttableError(f"{{plan}} {name} is not supported for this attention: {where}")
        unit = padded.axes[self.place].size(self.sizes) // self.sizes[window]
        places = first.axes[self.place].size(self.sizes)
        inside = places // self.sizes[own[0]]  # rows of each value of y, as in (y i)
        real = _clipped(shards, unit, places)
        if any(size % inside for size in real):
            raise UsageError(f"{{plan}} {name} must cut between groups of {inside} rows (got {real}); use fewer ranks")
        return {window: shards, own[0]: tuple([size // inside for size in real]), **others}

    def window_letters(self) -> tuple[str | None, set[str]]:
        """Return the letter of windows along the axis, and those of windows that span it and lie along the other axis.

        Ranks with some rows compute whole windows that span all rows, such as vertical stripes, after an exchange.

        Raises:
            UsageError: windows span all columns, and the axis of the mesh cuts columns.
        """
        own, other = WINDOWS[self.axis.place], WINDOWS[ROWS + COLUMNS - self.axis.place]
        found: dict[str, str] = {}
        for step, names in zip(self.steps, self.own_names, strict=True):
            for each in (*step.step.letters.inputs, *step.step.letters.outputs):
                letters = [[names.get(letter, letter) for letter in axis.letters] for axis in each.axes]
                pairs = [
                    next((axis.letters[at.index(name)] for axis, at in zip(each.axes, letters, strict=True)
                          if name in at and but not in at and len(at) > 1), None)
                    for name, but in ((own, other), (other, own))
                ]  # fmt: skip
                if pairs[0] and pairs[1]:
                    found[pairs[0]] = pairs[1]
        longer = [letter for letter in found if self.sizes[letter] > 1]
        spanning = {found[letter] for letter in found if self.sizes[letter] == 1} if longer else set()
        if spanning and self.axis.place == COLUMNS:
            raise UncuttableError(
                f"{{plan}} {self.axis.name} cuts columns, and windows of this attention span all columns"
            )
        return next(iter([*longer, *found]), None), spanning

    @property
    def lines_in_words(self) -> str:
        """Return what the axis of the mesh cuts of a grid: rows or columns."""
        return "rows" if self.axis.place == ROWS else "columns"

    def rows_of_sequence(self) -> dict[str, Shards]:
        """Return the sizes on the ranks of the tokens of a sequence: whole rows if steps take it as a grid.

        Raises:
            UsageError: a rank would be empty.
        """
        first = self.steps[0]
        axis = first.step.letters.inputs[0].axes[self.place]
        own, total = axis.letters[0], axis.size(self.sizes)
        rows, wholes = {own}, {total, self.sizes[own]}  # all tokens, or their rows
        for step, inputs in zip(self.steps, followed(self.steps, {first.takes[0]: own}), strict=True):
            for taken, letters in zip(step.step.letters.inputs, inputs, strict=True):
                grids = [axis for axis in taken.axes if letters & set(axis.letters) and axis.size(self.sizes) in wholes]
                rows |= {axis.letters[0] for axis in grids}
        letter = min(sorted(rows), key=lambda each: (self.sizes[each], each != own))
        of_sequence = "tokens" if self.sizes[letter] == total else "rows of tokens"
        shards = self.cut(letter, of_sequence if self.kind.enters == "tokens" else self.lines_in_words)
        return {letter: shards, own: tuple([size * self.sizes[own] // self.sizes[letter] for size in shards])}

    def cut(self, letter: str, what: str) -> Shards:
        """Return the sizes of a letter on the ranks.

        Raises:
            UsageError: a rank would be empty.
        """
        total, ranks = self.sizes[letter], self.axis.ranks
        if leaves_a_rank_empty(total, ranks):
            rule = f"{{plan}} {self.axis.name} must leave no rank empty (got {_count(total, what)} on {ranks} ranks)"
            raise count_error(rule, total, self.axis, must_divide=False)
        kept = [(size * total, sum(self.arriving)) for size in self.arriving]
        if kept and all(size and size % whole == 0 for size, whole in kept):
            return tuple([size // whole for size, whole in kept])
        return chunk(total, ranks)

    def enter(self) -> Placed:
        """Return how the input is cut: along the first letter of its axis, so that each rank has neighbouring tokens."""
        letter = self.steps[0].step.letters.inputs[0].axes[self.place].letters[0]
        shards = self.tokens.get(letter) or self.cut(letter, self.lines_in_words)
        return Placed(letter, shards, TOKENS)

    def inputs(self) -> dict[str, tuple[Tensor, Placed | None]]:
        """Return the letters of each input of the plan, and how it is cut; a further sequence is cut along its tokens."""
        found: dict[str, tuple[Tensor, Placed | None]] = {}
        for name, (at, number) in inputs_of(self.steps).items():
            taken = self.steps[at].step.letters.inputs[number]
            placed = self.entry
            if found and placed is not None:
                letter = taken.axes[self.place].letters[0]
                placed = Placed(letter, self.tokens.get(letter) or self.cut(letter, "tokens"), TOKENS)
            found[name] = taken, placed
        return found

    def key_letters(self) -> set[str]:
        """Return the letters under which steps with pairs of tokens take the other token of a pair: m for n."""
        found: set[str] = set()
        entering = {name: placed.letter for name, (_, placed) in self.placed.items() if placed}
        for step, inputs in zip(self.steps, followed(self.steps, entering), strict=True):
            first, *others = inputs or [set()]
            if first and not step.weights:
                found.update(*[other - first for other in others])
        return found

    def is_of_tokens(self, letters: Iterable[str]) -> bool:
        """Return whether an axis has a letter along which the tokens are cut."""
        return bool(self.tokens.keys() & set(letters))

    # the walk

    def through(self, step: SizedStep) -> Route:
        """Return the route of the next step, and keep how its outputs are cut."""
        inputs, outputs = step.step.letters.inputs, step.step.letters.outputs
        arrive = [self.arrival(step, name, letters) for name, letters in zip(step.takes, inputs, strict=True)]
        letters = _letters_of(step)
        has_pairs = self.is_of_tokens(letters) and bool(self.keys & letters)
        root = self.root(letters, arrive, has_pairs)
        takes = [self.wanted(each, now, root, has_pairs) for each, now in zip(inputs, arrive, strict=True)]
        if self.weighs_tokens(step, takes[0], root):
            takes = [None]
        weights, contracted = self.cut_weights(step, takes, root)
        cut = {each.letter: each for each in (*takes, *weights.values()) if each}
        if contracted is not None:
            cut.pop(takes[contracted].letter, None)  # type: ignore[union-attr]
        if cut:  # e is split into h and g, and y is padded to (r p)
            family = self.heads if root == HEADS else self.tokens
            cut |= {letter: Placed(letter, shards, root) for letter, shards in family.items() if letter not in cut}
        self.check(step, cut, takes, root)
        if self.kind.cuts_heads and any(
            now is None and then and each.name not in step.step.constants
            for each, now, then in zip(inputs, arrive, takes, strict=True)
        ):
            raise self.refusal(step, "splits heads that its projection does not keep apart")
        before = [
            move
            for number, pair in enumerate(zip(arrive, takes, strict=True))
            if (move := self.move_in(step, number, *pair, is_cut=bool(cut) or contracted is not None))
        ]
        before += [
            Move("halo", number, placed, placed, needs)
            for number, placed in enumerate(takes)
            if placed and (needs := self.neighbours(step, placed))
        ]
        makes = [next((cut[each] for each in made.letters if each in cut), None) for made in outputs]
        after = []
        is_partial = contracted is not None or bool(cut and not any(makes))
        for number, made in enumerate(outputs):
            placed = makes[number]
            if is_partial:
                linear = LINEAR if contracted is None else (*LINEAR, "convolution")
                if other := sorted({run.name for run in step.forward.runs}.difference(linear)):
                    is_of_tokens = root == TOKENS and contracted is None
                    problem = "mixes tokens of several ranks" if is_of_tokens else "is not a sum over the ranks"
                    raise self.refusal(step, f"runs {other[0]}, which {problem}")
                target = self.wanted(made, None, TOKENS, False) if self.entry else None
                after.append(Move("reduce-scatter" if target else "all-reduce", number, None, target))
                placed = target
            self.placed[step.makes[number]] = made, placed
        needs_tokens = any(taken.name not in step.step.constants for taken in inputs)
        if self.entry and step.macs and needs_tokens and not (cut or contracted is not None):
            raise self.refusal(step, "would run as a whole on each rank")
        rounds = self.axis.ranks if self.kind.meets == "ring" and has_pairs else 1
        return Route(tuple(before), tuple(after), tuple(takes), tuple(makes), weights, contracted, rounds)

    def arrival(self, step: SizedStep, name: str, taken: Tensor) -> Placed | None:
        """Return how an input is cut, by the letters of the step that takes it; None if it is whole."""
        made, placed = self.placed.get(name, (taken, None))
        if placed is None:
            return None
        place = next(at for at, each in enumerate(made.axes) if placed.letter in each.letters)
        letters = taken.axes[place].letters
        if placed.letter in letters:
            return placed
        longer = [letter for letter in letters if self.sizes[letter] > 1]
        other = next((letter for letter in letters if letter in self.tokens), [*longer, *letters][0])
        ratio = self.sizes[other], self.sizes[placed.letter]
        shards = tuple([size * ratio[0] // ratio[1] for size in placed.shards])
        if placed.root == TOKENS and other in self.tokens:
            shards = self.tokens[other]  # rows in whole windows
        if sum(shards) != self.sizes[other]:
            raise self.refusal(step, f"takes {name} with other axes")
        if placed.root == TOKENS and other not in self.keys and not self.is_of_tokens(taken.letters):
            self.tokens.setdefault(other, shards)
        groups = groups_before(made.axes[place], placed.letter, self.sizes) if placed.root == HEADS else 1
        return Placed(other, shards, placed.root, groups * placed.groups)

    def weighs_tokens(self, step: SizedStep, placed: Placed | None, root: str) -> bool:
        """Return whether a step weighs all tokens by a softmax over one score each: each rank then needs the scores of all.

        Scores of pairs of tokens are too many to gather. Ranks of columns would gather them in another order than rows.
        """
        taken, *others = step.step.letters.inputs
        is_softmax = any(run.name == "_softmax" for run in step.forward.runs)
        is_cut = root == TOKENS and placed is not None and placed.letter in taken.axes[-1].letters
        return is_softmax and is_cut and not others and not self.keys and self.axis.place == ROWS

    def root(self, letters: set[str], arrive: Sequence[Placed | None], has_pairs: bool) -> str:
        """Return what the step is cut along: HEADS, TOKENS, or "" if each rank runs all of it."""
        if self.kind.cuts_heads:
            is_of_heads = bool(self.heads.keys() & letters) or any(each and each.root == HEADS for each in arrive)
            return HEADS if is_of_heads else TOKENS if self.entry else ""
        return HEADS if self.kind.meets == "all-to-all" and has_pairs else TOKENS

    def wanted(self, taken: Tensor, now: Placed | None, root: str, has_pairs: bool) -> Placed | None:
        """Return how the step needs an input to be cut; None if it needs all of it."""
        family = self.heads if root == HEADS else self.tokens
        letter = next((each for each in taken.letters if each in family), None)
        if letter is not None:
            return Placed(letter, family[letter], root)
        keeps = now is not None and now.root == root and not (has_pairs and now.letter in self.keys)
        return now if keeps else None

    def cut_weights(
        self, step: SizedStep, takes: Sequence[Placed | None], root: str
    ) -> tuple[dict[str, Placed], int | None]:
        """Return how the parameters are cut, and the number of the input whose cut axis they contract."""
        first, placed = step.step.letters.inputs[0], takes[0] if takes else None
        for name, each in step.step.weight_shapes.items():
            is_matrix = len(each.axes) == 2
            channels = -1 if is_matrix else channels_axis(first, each)
            if channels is not None and placed and placed.letter in first.axes[channels].letters:
                return {name: placed}, 0
            if is_matrix:
                break
        if root != HEADS:
            return {}, None
        found = {}
        for name, each in step.step.weight_shapes.items():
            letter = next((letter for letter in each.letters if letter in self.heads), None)
            if letter is not None:
                found[name] = Placed(letter, self.heads[letter], HEADS)
        return found, None

    def move_in(
        self, step: SizedStep, number: int, now: Placed | None, then: Placed | None, is_cut: bool
    ) -> Move | None:
        """Return what happens to an input before the step, or None."""
        name = step.step.letters.inputs[number].name
        if now is None:
            if then is not None:
                return Move("slice", number, now, then)
            is_constant = name in step.step.constants
            return Move("copy", number, now, then) if is_cut and not is_constant else None
        if then is None:
            is_ring = self.kind.meets == "ring" and now.letter in self.keys
            return Move("ring" if is_ring else "all-gather", number, now, then)
        return None if now.letter == then.letter else Move("all-to-all", number, now, then)

    def neighbours(self, step: SizedStep, placed: Placed) -> Needs:
        """Return what each rank needs of a cut axis for a roll, a convolution or the nearest keys; else nothing."""
        if placed.root != TOKENS or len(step.step.letters.inputs) > 1:
            return ()
        inside = step.step.letters.inputs[0]
        side = self.axis.place - 1
        if any(run.name == "roll" for run in step.forward.runs):
            unit = inside.axes[self.place].size(self.sizes) // self.sizes[placed.letter]
            self.rolls += 1
            shift = getattr(self.around, "roll", (0, 0))[side] * (1 if self.rolls % 2 else -1)
            return rolled(placed.shards, unit, shift) if shift else ()
        if reach := reach_of(step, placed):
            if self.axis.place == COLUMNS:
                raise self.refusal(step, "reads rows and columns of other ranks")
            height = self.sizes[placed.letter]
            near = [range(max(0, row - reach), min(height, row + reach + 1)) for row in range(height)]
            return gathered(placed.shards, 1, near)
        if not step.weights and any(run.name == "index" for run in step.forward.runs):
            rows = next(iter(self.tokens.values()))
            unit = sum(placed.shards) // sum(rows)
            return gathered(rows, unit, self.around.reach(side, sum(rows)))
        return ()

    def check(self, step: SizedStep, cut: Mapping[str, Placed], takes: Sequence[Placed | None], root: str) -> None:
        """Check that the step can run on a part of these letters.

        Raises:
            UsageError: it cannot.
        """
        taken, made = step.step.letters.inputs, step.step.letters.outputs
        kept = {letter for each in made for letter in each.letters}
        problem = None
        if any(run.name in WHOLE_ROWS for run in step.forward.runs) and set(taken[0].axes[-1].letters) & cut.keys():
            problem = "normalizes an axis that it cuts"
        elif cut and any(run.name == "native_group_norm" for run in step.forward.runs):
            problem = "normalizes all tokens and channels together, of which it cuts some"
        elif cut and not cut.keys() & kept and len(taken) == 1 and not step.weights:
            lost = ", ".join(sorted({each.letter for each in takes if each}))
            problem = f"mixes the places of the axis {lost}, which it cuts"
        elif root == TOKENS and any(cut):
            for name, each in zip(taken, takes, strict=True):
                other = set(name.letters) - kept
                is_constant = name.name in step.step.constants
                if each is None and other and (is_constant or has_own_places(name, taken[0], other - self.keys, cut)):
                    problem = f"takes {name.name} for all tokens, which it does not cut"
        if problem:
            raise self.refusal(step, problem)

    def refusal(self, step: SizedStep, problem: str) -> UncuttableError:
        """Return the error for a step that cannot run on parts."""
        return UncuttableError(
            f"{{plan}} {self.axis.name} is not supported for this attention: the step {step.name} {problem}"
        )

    def leave_as_entered(self) -> None:
        """Return the output to the cut of the input.

        Raises:
            UsageError: the output is not a tensor of the same axes.
        """
        last = self.steps[-1]
        made, placed = self.placed[last.makes[0]]
        kind = None
        if placed == self.entry:
            return
        if placed and self.entry:
            is_same_letter = placed.letter == self.entry.letter
            if self.entry.letter in made.letters and not is_same_letter:
                kind = "all-to-all"
            elif is_same_letter or _are_alike(placed.shards, self.entry.shards):
                return  # the same tokens, such as y for (r p)
        elif placed:
            kind = "all-gather"
        if kind is None:
            raise UsageError(
                f"{{plan}} {self.axis.name} is not supported for this attention: its output is cut otherwise"
            )
        end = Move(kind, 0, placed, self.entry)
        self.routes[-1] = replace(self.routes[-1], after=(*self.routes[-1].after, end))


def is_channels_first(steps: Sequence[SizedStep]) -> bool:
    """Return whether the first input is a grid whose channels come before its rows: a kernel or a norm has their letter."""
    first = steps[0].step.letters.inputs[0]
    weights = [each for step in steps for each in step.step.weight_shapes.values() if len(each.axes) in (1, 4)]
    channels = {letter for each in weights if each.axes[0].letters for axis in each.axes[:2] for letter in axis.letters}
    return len(first.axes) == 4 and bool(channels.intersection(first.axes[1].letters))


def channels_axis(taken: Tensor, weight: Tensor) -> int | None:
    """Return the axis of an input that a matrix or the kernel of a convolution sums over; None for another parameter."""
    if len(weight.axes) == 2 and weight.axes[1].letters == taken.axes[-1].letters:
        return -1
    is_kernel = len(weight.axes) == len(taken.axes) == 4
    return 1 if is_kernel and weight.axes[1].letters and weight.axes[1].letters == taken.axes[1].letters else None


def has_own_places(other: Tensor, first: Tensor, lost: Container[str], cut: Container[str]) -> bool:
    """Return whether a tensor has letters of its own for the places of the first input along an axis that is cut.

    The cosines (h l d) have the patches l where (b h n d) has the tokens n. A table (t u) h of offsets has no such axis.

    Args:
        other: the tensor.
        first: the first input of the step, to which the tensor is broadcast.
        lost: the letters that the outputs of the step lack, without those of keys.
        cut: the letters that are cut.
    """
    pairs = zip(other.axes[::-1], first.axes[::-1], strict=False)
    differing = [(own.letters, axis.letters) for own, axis in pairs if own.letters != axis.letters]
    if len(differing) != 1:
        return False
    [(own, places)] = differing
    return bool(own) and all(letter in lost for letter in own) and any(letter in cut for letter in places)


def groups_before(axis: Factors, letter: str, sizes: Sizes) -> int:
    """Return the number of consecutive parts of an axis that each have all of a letter: 6 for h in (3 a h d) and a = 2."""
    before = axis.text.strip("()").split(letter)[0].split()
    return prod([sizes[word] if word.isalpha() else int(word) for word in before])


def reach_of(step: SizedStep, placed: Placed) -> int:
    """Return how many rows on either side of a row convolutions of channels-first planes read; 0 for other steps."""
    inside = step.step.letters.inputs[0]
    place = next(at for at, axis in enumerate(inside.axes) if placed.letter in axis.letters)
    sides = [
        each.axes[place].number
        for each in step.step.weight_shapes.values()
        if len(each.axes) == len(inside.axes) == 4 and place >= 2 and not each.axes[place].letters
    ]
    return max(sides, default=0) // 2


def followed(steps: Sequence[SizedStep], entering: Mapping[str, str]) -> list[list[set[str]]]:
    """Follow an axis of the inputs through steps, and return its letters in each input of each step.

    Args:
        steps: the steps.
        entering: the letter of the axis in each input of the steps, by name.
    """
    makers: dict[str, tuple[Tensor, set[str]]] = {}
    found = []
    for step in steps:
        of_inputs = []
        for name, taken in zip(step.takes, step.step.letters.inputs, strict=True):
            made, letters = makers.setdefault(name, (taken, {entering.get(name, "")}))
            pairs = zip(made.axes, taken.axes, strict=True)
            axes = [(letters & set(before.letters), now.letters) for before, now in pairs]
            of_inputs.append({each for own, now in axes if own for each in own.intersection(now) or now[:1]})
        found.append(of_inputs)
        known = set[str]().union(*of_inputs)
        makers |= {
            name: (made, known & set(made.letters))
            for name, made in zip(step.makes, step.step.letters.outputs, strict=True)
        }
    return found


def inputs_of(steps: Sequence[SizedStep]) -> dict[str, tuple[int, int]]:
    """Return the inputs of the steps by name: the number of the first step that takes each, and its number there.

    A constant, such as a mask, is not an input.
    """
    made: set[str] = set()
    found: dict[str, tuple[int, int]] = {}
    for at, step in enumerate(steps):
        for number, (name, taken) in enumerate(zip(step.takes, step.step.letters.inputs, strict=True)):
            if name not in made and taken.name not in step.step.constants:
                found.setdefault(name, (at, number))
        made.update(step.makes)
    return found


def _clipped(shards: Shards, unit: int, total: int) -> Shards:
    """Return the real rows of ranks that hold these rows of windows; the last ones may be padding."""
    found, start = [], 0
    for size in shards:
        found.append(max(0, min(total, start + unit * size) - start))
        start += unit * size
    return tuple(found)


def _are_alike(shards: Shards, others: Shards) -> bool:
    """Return whether ranks have the same shares of two axes."""
    return [size * sum(others) for size in shards] == [size * sum(shards) for size in others]


def _count(number: int, what: str) -> str:
    """Return a number with a plural, or with its singular: `8 rows of windows`, `1 row of windows`."""
    return f"{number} {what.replace('s', '', 1).replace('that span ', 'that spans ') if number == 1 else what}"


def _letters_of(step: SizedStep) -> set[str]:
    letters = step.step.letters
    tensors: Iterable[Tensor] = (*letters.inputs, *letters.outputs, *step.step.weight_shapes.values())
    return {letter for tensor in tensors for letter in tensor.letters}
