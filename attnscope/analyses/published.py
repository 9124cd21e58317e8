"""Published figures of a network, compared with its MACs for one image by each counting convention."""

from collections.abc import Mapping, Sequence
from decimal import Decimal

from attnscope.analyses.figure import conventions_that_give
from attnscope.networks.conventions import conventions, one_image
from attnscope.networks.sources import SOURCES, TRUNCATED
from attnscope.networks.spec import NetworkSpec
from attnscope.plan.plan import Plan
from attnscope.reports.report import Published, PublishedFigure


def compare_published(spec: NetworkSpec, plan: Plan, figures: Sequence[Mapping[str, str]]) -> Published:
    """Return the conventions that reproduce each figure, rounded to its digits, or truncated if no rounded one does.

    Of several conventions, those explain it that give the other rows of its source, too. Figures are those of one image.
    The bias MLP of Swin V2 runs once for all images, so that a count for a batch is not a multiple of them.
    """
    single = one_image(spec)
    counted = conventions(spec, plan)
    per_image = counted if single == spec else conventions(single, single.plan())

    def explained(printed: Mapping[str, str]) -> PublishedFigure:
        figure, source = printed["figure"], printed["source"]
        rounded, truncated = conventions_that_give(Decimal(figure), 10**9, per_image)
        ways = [*rounded, *(f"{way}{TRUNCATED}" for way in truncated)]
        usual = SOURCES.get(source, {}).get(spec.name, ())
        holding = [way for way in usual if way in ways]
        alone = holding or list(rounded) or ways
        return PublishedFigure(f"{figure} G", source, alone, others=[] if holding or not alone else list(usual))

    return Published(list(map(explained, figures)), counted, per_image)
