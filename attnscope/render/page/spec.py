"""The Spec of a Report, which a page needs for what the report does not hold: other sizes and other queries."""

from attnscope import attentions, networks
from attnscope.attentions.spec import Spec
from attnscope.core.errors import AttnscopeError
from attnscope.reports.report import Report


def spec_of(report: Report) -> Spec | None:
    """Return the Spec of a report; None if this version or this machine does not have its attention."""
    fields = dict(report.spec)
    try:
        if "network" in fields:
            return networks.spec_class(fields.pop("network"))(**fields)
        return attentions.spec_class(fields.pop("attention"))(**fields)
    except (AttnscopeError, KeyError, TypeError):
        return None
