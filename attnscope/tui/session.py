"""What the explorer knows: the current draft, those before and after it, the pinned one, and the reports of all."""

from collections import OrderedDict

from attnscope.analyses.explore import explore
from attnscope.analyses.scaling import Scaling, scaling_of
from attnscope.attentions.draft import Draft
from attnscope.attentions.spec import Spec
from attnscope.networks.spec import NetworkSpec
from attnscope.reports.report import Report

KEPT = 64
"""Reports that are kept for undo and redo."""


class Session:
    """The history of the drafts, the pinned report, and the timed reports."""

    def __init__(self, draft: Draft) -> None:
        self._drafts = [draft]
        self._place = 0
        self._reports: OrderedDict[str, Report] = OrderedDict()
        self._timed: dict[str, Report] = {}
        self._pinned_draft = draft
        self.pinned: Report | None = None
        self.before: Report | None = None
        """The report of the draft that was shown before the current one."""

    @property
    def draft(self) -> Draft:
        """Return the current draft."""
        return self._drafts[self._place]

    @property
    def report(self) -> Report:
        """Return the report of the current draft, with times if it was measured."""
        return self.report_of(self.draft)

    def report_of(self, draft: Draft) -> Report:
        """Return the report of a draft.

        Raises:
            AttnscopeError: if the draft has no plan.
        """
        command = draft.command
        if command in self._timed:
            return self._timed[command]
        if command not in self._reports:
            self._reports[command] = explore(draft.spec, time=False, command=command)
        self._reports.move_to_end(command)
        while len(self._reports) > KEPT:
            self._reports.popitem(last=False)
        return self._reports[command]

    def change_to(self, draft: Draft) -> bool:
        """Make a draft the current one, and forget those that were undone; return whether anything changed.

        Raises:
            AttnscopeError: if the draft has no plan; the current one then stays.
        """
        if draft.command == self.draft.command:
            return False
        self.report_of(draft)
        before = self.report
        self._drafts[self._place + 1 :] = [draft]
        self._place += 1
        self.before = before
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
        self.before = self.report
        self._place += by
        return True

    def pin(self) -> bool:
        """Pin the current report as A, or remove the pin; return whether a report is pinned now."""
        self.pinned = None if self.pinned is not None else self.report
        self._pinned_draft = self.draft
        return self.pinned is not None

    def pinned_scaling(self) -> Scaling | None:
        """Return the growth of the pinned state; None if no state is pinned."""
        return None if self.pinned is None else scaling_of(self._pinned_draft)

    @property
    def attention(self) -> Spec:
        """Return the attention of the current draft; that of a network's first block, or of the selected one."""
        spec = self.draft.spec
        return spec.attention() if isinstance(spec, NetworkSpec) else spec

    def keep_timed(self, draft: Draft, report: Report) -> None:
        """Keep a timed report of a draft."""
        self._timed[draft.command] = report
