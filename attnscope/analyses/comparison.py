"""Contenders -> Comparison: attentions and networks over a range, or with modules on their input; torch only for times."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from attnscope.analyses.contenders import CONTENDERS, Meeting, arrange, read_contender
from attnscope.analyses.entries import Order, entries_of_modules, entries_of_specs, set_entries
from attnscope.analyses.fitting import read_limit, set_fits
from attnscope.analyses.paper_comparison import on_paper, words_of
from attnscope.core.errors import UsageError
from attnscope.networks.stages import Stage
from attnscope.profiling.candidates import Candidate
from attnscope.profiling.options import BUDGET_S
from attnscope.profiling.options import Progress as CountProgress
from attnscope.reports.comparison import Comparison, LeftOut

if TYPE_CHECKING:
    from attnscope.analyses.timed_comparison import Progress


@dataclass(frozen=True)
class Wanted:
    """The quantity, and the conditions and the order of the rows, if a row for each contender is wanted."""

    quantity: str = "macs"
    where: str | None = None
    sort: str | None = None


@contextmanager
def _silent() -> Iterator["Progress"]:
    yield lambda done, total, words: None


@dataclass(frozen=True)
class Race:
    """Settings of a race between contenders.

    Args:
        device, budget, threads, seed: as in `explore`; the budget is the seconds to measure at each point.
        start: a function that is called before torch is imported, once the rest of the comparison exists.
        progress: makes a context with a function that is called before each point.
    """

    device: str = "auto"
    budget: float = BUDGET_S
    threads: int = 1
    seed: int = 0
    start: Callable[[], None] = lambda: None
    progress: Callable[[], AbstractContextManager["Progress"]] = _silent

    def run(
        self, timed: Callable[..., None], comparison: Comparison, contenders: Meeting | Sequence[Candidate]
    ) -> None:
        """Time the contenders with a function of `timed_comparison` or `modules`; Ctrl-C leaves the rest as it is."""
        try:
            self.start()
            with self.progress() as progress:
                options = {"device": self.device, "budget": self.budget, "threads": self.threads, "seed": self.seed}
                timed(comparison, contenders, **options, progress=progress)
        except KeyboardInterrupt:
            comparison.interrupted = True


def compare(
    contenders: Sequence[str | Candidate] = CONTENDERS,
    over: Mapping[str, Sequence[int]] | None = None,
    *,
    quantity: str = "macs",
    where: str | None = None,
    sort: str | None = None,
    memory_limit: str | None = None,
    stages: Sequence[Stage] = (),
    pad: bool = True,
    time: bool = False,
    device: str = "auto",
    budget: float = BUDGET_S,
    threads: int = 1,
    seed: int = 0,
    command: str | None = None,
    **settings: Any,
) -> Comparison:
    """Compare attentions or networks over a range, or with modules on their input, by exact counts and by times.

    Args:
        contenders: attentions by name, with their own values if they have any: `swin:window=14,shift`; presets of
            whole networks: `vit-b-16-224`; modules: `contender("new", module, x)`. The others are compared with the
            first one. With a module, attentions and networks get as many tokens as its first input has.
        over: values of one or two fields, such as `{"resolution": [14, 28, 56]}` (tokens), `{"image": [224, 448]}`
            (pixels), window, dim, heads, batch or frames. By default, images of 56 to 1792 pixels in patches of 4.
        quantity: a key of QUANTITIES.
        where: a condition on the rows, one for each contender at each point: `macs<2G and heads=3`.
        sort: the quantity or size by which these rows are sorted; `-macs` for the largest first.
        memory_limit: find the largest batch and resolution of each contender that fit in this memory, such as `16GiB`.
        stages: stages of a network to compare at, in place of images.
        pad: pad grids if an attention needs it, and report the waste; otherwise leave such points out.
        time: also time the contenders, interleaved. Without it, and without modules, torch is not imported.
        device, budget, threads, seed: as in `explore`; the budget is the seconds to measure at each point.
        command: the command line, for the record.
        settings: fields of the Specs that all contenders share, and image, patch, resolution or frames. A contender that
            cannot take one of them has the nearest value that it can take, as listed in `adaptations`.

    Returns:
        A Comparison: counts are integers, sizes are in bytes, times in seconds.

    Raises:
        UsageError: an argument is not allowed, or no point of the range is possible.
        DeviceError: the device is not available, or does not support a dtype.

    The crossovers follow from equations 1 and 2 of Liu et al., arXiv 2103.14030, solved in integers.

    Example:
        >>> import attnscope
        >>> comparison = attnscope.compare(("vit", "swin"), {"resolution": [14, 28]})
        >>> [point.costs for point in comparison.points]
        [{'vit': 14601216, 'swin': 9069312}, {'vit': 146915328, 'swin': 36277248}]
    """
    if isinstance(contenders, str):
        raise UsageError(f"contenders must be a list, such as ['vit', 'swin'] (got {contenders!r})")
    wanted = Wanted(quantity, where, sort)
    race = Race(device, budget, threads, seed) if time else None
    if any(isinstance(each, Candidate) for each in contenders):
        if over or stages or memory_limit:
            raise UsageError(
                "over, stages and memory_limit do not apply to modules, which have the size of their input"
            )
        found, left_out = _on_input(contenders, settings)
        return compare_candidates(found, wanted, race, command, left_out=left_out)
    meeting = arrange([str(each) for each in contenders], over or {}, settings, stages, pad)
    comparison = compare_meeting(meeting, wanted, race, command)
    if memory_limit is not None:
        set_fits(comparison, meeting, read_limit(memory_limit))
    return comparison


def compare_meeting(
    meeting: Meeting,
    wanted: Wanted,
    race: Race | None = None,
    command: str | None = None,
    counting: Callable[[], AbstractContextManager[CountProgress | None]] = nullcontext,
) -> Comparison:
    """Compare attentions or networks over a range, and time them if there is a race.

    Args:
        meeting: the contenders, their settings and the axes.
        wanted: the quantity and the rows.
        race: how to time them; None to count only.
        command: the command line, for the record.
        counting: makes a context with a function that is given how much has been counted.

    Raises:
        UsageError: an argument is not allowed, or no point of the range is possible.
        DeviceError: the device is not available, or does not support the dtype.
    """
    with counting() as counted:
        comparison = on_paper(meeting, wanted.quantity, command, is_timed=race is not None, progress=counted)
    order = Order(comparison, wanted.where, wanted.sort, race is not None)
    if race is not None:
        from attnscope.analyses.timed_comparison import check_race
        from attnscope.analyses.timed_comparison import race as timed

        check_race(race.device, race.budget, race.threads, race.seed)
        race.run(timed, comparison, meeting)
    if wanted.where is not None or wanted.sort is not None:
        with counting() as counted:
            entries = entries_of_specs(comparison, meeting, order.quantities, counted)
        set_entries(comparison, entries, order)
    return comparison


def compare_candidates(
    candidates: Sequence[Candidate],
    wanted: Wanted,
    race: Race | None = None,
    command: str | None = None,
    *,
    title: str = "",
    left_out: Sequence[LeftOut] = (),
) -> Comparison:
    """Compare modules on inputs of one size, and time them if there is a race.

    Args:
        candidates: two or more.
        wanted: the quantity and the rows.
        race: how to time them; None to count only.
        command: the command line, for the record.
        title: the input, for the title.
        left_out: candidates that failed, with the reasons.

    Raises:
        UsageError: an argument is not allowed.
        DeviceError: the device is not available, or does not support a dtype.
    """
    from attnscope.analyses.modules import count_modules, race_modules

    comparison = count_modules(
        candidates, wanted.quantity, title=title, command=command, left_out=left_out, is_timed=race is not None
    )
    order = Order(comparison, wanted.where, wanted.sort, race is not None)
    if race is not None:
        race.run(race_modules, comparison, candidates)
    set_entries(comparison, entries_of_modules(comparison, candidates, order.quantities), order)
    return comparison


def _on_input(
    contenders: Sequence[str | Candidate], settings: Mapping[str, Any]
) -> tuple[list[Candidate], list[LeftOut]]:
    """Return modules, and attentions and networks on the input of the first module."""
    from attnscope.analyses.modules import candidates_of, of_spec, spec_for

    shape = next(each.shape for each in contenders if isinstance(each, Candidate))

    def of(each: str | Candidate) -> Candidate:
        if isinstance(each, Candidate):
            return each
        contender = read_contender(each)
        spec = spec_for(contender, shape, settings)
        return of_spec(each, words_of(contender, spec), spec)

    check_labels([*map(_label, contenders)])
    return candidates_of({_label(each): partial(of, each) for each in contenders})


def _label(contender: str | Candidate) -> str:
    return contender.label if isinstance(contender, Candidate) else contender


def check_labels(names: Sequence[str]) -> None:
    """Check that there are at least two contenders, and that none appears twice.

    Raises:
        UsageError: it is not so.
    """
    if len(names) < 2:
        raise UsageError(f"a comparison requires two contenders (got only {names[0]}); add one, such as vit")
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"a contender must appear once (got {name} twice); remove one")
