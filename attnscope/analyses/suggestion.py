"""The suggested command after a comparison: the same comparison with times, or the steps behind its figures."""

from attnscope.analyses.contenders import CONTENDERS, STAGE, Meeting
from attnscope.reports.comparison import Comparison

PLAIN = "attnscope compare"
"""The command of a comparison without any flags."""


def suggest(comparison: Comparison, meeting: Meeting, again: str, time: bool) -> tuple[str, str]:
    """Return the suggested next command and its reason.

    Args:
        comparison: the result of the comparison.
        meeting: the contenders, their settings and the axes.
        again: the command that repeats the comparison, without `--time`.
        time: whether times were requested.
    """
    if not time and again == PLAIN:
        return f"{PLAIN} --over resolution=7:56:7 --time", "the sizes at which windows are faster on this machine"
    if not time or comparison.interrupted:
        return f"{again} --time", "measure it on this machine"
    is_staged = any(axis.field == STAGE for axis in comparison.axes)
    if tuple(comparison.labels) == CONTENDERS and not is_staged:
        return f"{PLAIN} --stages", "the savings of windows at each stage of Swin-T"
    return _steps(comparison, meeting)


def _steps(comparison: Comparison, meeting: Meeting) -> tuple[str, str]:
    """Return the command that shows the steps of the second contender, at a point with its times if one exists."""
    points = [comparison.points[comparison.reference], *comparison.points]
    taken = [label for label in comparison.labels[1:] if label not in points[0].refused]
    label = (taken or comparison.labels)[0]
    point = next((point for point in points if label in point.times), points[0])
    command = meeting.specs(meeting.place(point.at))[label].command()
    at = f" at {', '.join(f'{name} {value}' for name, value in point.at.items())}" if point.at else ""
    return command if point.times else f"{command} --no-time", f"the steps of {label}{at}"
