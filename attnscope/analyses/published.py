"""Published figures of a network, compared with its MACs by each counting convention."""

from collections.abc import Mapping, Sequence
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal

from attnscope.networks.published import conventions
from attnscope.networks.spec import NetworkSpec
from attnscope.plan.plan import Plan
from attnscope.reports.report import Published, PublishedFigure


def compare_published(spec: NetworkSpec, plan: Plan, figures: Sequence[Mapping[str, str]]) -> Published:
    """Return the conventions that reproduce each figure, rounded to its digits, or truncated if no rounded one does."""
    macs_by_way = conventions(spec, plan)

    def ways(figure: str) -> list[str]:
        printed = Decimal(figure)
        exact = {way: Decimal(macs) / spec.batch / 10**9 for way, macs in macs_by_way.items()}
        rounded = [way for way, value in exact.items() if value.quantize(printed, rounding=ROUND_HALF_UP) == printed]
        cut = [
            f"{way}, truncated"
            for way, value in exact.items()
            if value.quantize(printed, rounding=ROUND_DOWN) == printed
        ]
        return rounded or cut

    return Published(
        figures=[
            PublishedFigure(
                figure=f"{printed['figure']} G",
                source=printed["source"],
                explained_by=ways(printed["figure"]),
            )
            for printed in figures
        ],
        conventions=macs_by_way,
    )
