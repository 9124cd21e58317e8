"""What the explorer knows: the current draft, those before and after it, the pinned one, and their reports."""

from collections import OrderedDict
from functools import lru_cache
from typing import TYPE_CHECKING

from attnscope.analyses.explore import preview
from attnscope.attentions.draft import Draft
from attnscope.attentions.spec import Spec
from attnscope.core.errors import AttnscopeError
from attnscope.networks.composed import ComposedSpec
from attnscope.render.explorer.tables import Shown
from attnscope.reports.report import Report

if TYPE_CHECKING:
    from attnscope.reports.sharding import ShardingReport

KEPT = 64
"""Reports that are kept for undo and redo, and those of several ranks."""


def attention_of(draft: Draft) -> Spec:
    """Return the attention of a draft; that of a network's first block, or of the selected one."""
    spec = draft.spec
    return spec.attention() if isinstance(spec, ComposedSpec) else spec


@lru_cache(maxsize=KEPT)
def _sharding(spec: Spec, mesh: str) -> "ShardingReport":
    from attnscope.analyses.shard import plan_shards, usual_plan

    return plan_shards(spec, mesh or usual_plan(spec))


class Session:
    """The history of the drafts, the pinned draft, and the timed reports."""

    def __init__(self, draft: Draft) -> None:
        self._drafts = [draft]
        self._place = 0
        self._reports: OrderedDict[tuple[str, bool], Report] = OrderedDict()
        self._timed: dict[str, Report] = {}
        self.pinned: Draft | None = None
        """The pinned draft, A."""
        self.needs_whole = False
        """Whether reports need the memory of the backward, which takes as long as all other figures."""
        self.mesh = ""
        """The typed plan of several ranks; empty without one."""
        self.before: Draft | None = None
        """The draft that was shown before the current one."""

    @property
    def draft(self) -> Draft:
        """Return the current draft, B."""
        return self._drafts[self._place]

    @property
    def attention(self) -> Spec:
        """Return the attention of the current draft; that of a network's first block, or of the selected one."""
        return attention_of(self.draft)

    @property
    def report(self) -> Report:
        """Return the report of the current draft, with times if it was measured."""
        return self.report_of(self.draft)

    def report_of(self, draft: Draft) -> Report:
        """Return the report of a draft, with times if it was measured.

        Raises:
            AttnscopeError: if the draft has no plan.
        """
        command = draft.command
        if command in self._timed:
            return self._timed[command]
        key = command, self.needs_whole
        if key not in self._reports:
            self._reports[key] = preview(draft.spec, is_whole=key[1], command=command)
        self._reports.move_to_end(key)
        while len(self._reports) > KEPT:
            self._reports.popitem(last=False)
        return self._reports[key]

    @property
    def whole_report(self) -> Report:
        """Return the report of the current draft with all figures, as the command line gives it."""
        before, self.needs_whole = self.needs_whole, True
        try:
            return self.report
        finally:
            self.needs_whole = before

    @property
    def shown(self) -> Shown:
        """Return the reports of the current draft, of the one before it and of the pinned one."""

        def report(draft: Draft | None) -> Report | None:
            return None if draft is None else self.report_of(draft)

        return Shown(self.report, report(self.before), report(self.pinned))

    def sharding_of(self, draft: Draft) -> "ShardingReport":
        """Return the attention of a draft on several ranks: by the typed plan, or by the best one of two ranks.

        Raises:
            AttnscopeError: if the plan is illegal for this attention.
        """
        return _sharding(attention_of(draft), self.mesh)

    def shard_by(self, mesh: str) -> None:
        """Plan the attention on several ranks by another plan, such as `tp=4`; an empty one is the best of two ranks.

        Raises:
            AttnscopeError: if the plan is illegal for the current attention; the plan before then stays.
        """
        before, self.mesh = self.mesh, mesh
        try:
            self.sharding_of(self.draft)
        except AttnscopeError:
            self.mesh = before
            raise

    def change_to(self, draft: Draft) -> bool:
        """Make a draft the current one, and forget those that were undone; return whether anything changed.

        Raises:
            AttnscopeError: if the draft has no plan; the current one then stays.
        """
        if draft.command == self.draft.command:
            return False
        self.report_of(draft)
        self.before = self.draft
        self._drafts[self._place + 1 :] = [draft]
        self._place += 1
        return True

    def undo(self) -> bool:
        """Go back to the draft before; return whether there is one."""
        return self._go(-1)

    def redo(self) -> bool:
        """Return to the draft that was undone; return whether there is one."""
        return self._go(1)

    def _go(self, by: int) -> bool:
        if not 0 <= self._place + by < len(self._drafts):
            return False
        self.before = self.draft
        self._place += by
        return True

    def pin(self) -> bool:
        """Pin the current draft as A, or remove the pin; return whether a draft is pinned now."""
        self.pinned = None if self.pinned is not None else self.draft
        return self.pinned is not None

    def keep_timed(self, draft: Draft, report: Report) -> None:
        """Keep a timed report of a draft."""
        self._timed[draft.command] = report
