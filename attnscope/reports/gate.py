"""The result of a gate: what was checked against limits, and what follows from it."""

from collections.abc import Sequence
from dataclasses import dataclass

PASS, FAIL, CANNOT_TELL = "PASS", "FAIL", "CANNOT TELL"
EXIT_CODES = {PASS: 0, FAIL: 1, CANNOT_TELL: 4}


@dataclass(frozen=True)
class Check:
    """A quantity that was compared with its limit: PASS, FAIL or CANNOT TELL, the reason, and the fix if any."""

    quantity: str
    verdict: str
    reason: str
    fix: str = ""


@dataclass(frozen=True)
class GateResult:
    """The checks of a gate, and its verdict: FAIL if one fails, otherwise CANNOT TELL if one is not decided."""

    verdict: str
    checks: list[Check]

    @property
    def line(self) -> str:
        """Return the verdict, and the reasons and fixes of the checks that have it: `FAIL: forward takes …`."""
        decisive = [check for check in self.checks if check.verdict == self.verdict]
        fixes = dict.fromkeys(check.fix for check in decisive if check.fix)
        return f"{self.verdict}: {'; '.join([*(check.reason for check in decisive), *fixes])}"


def judge(checks: Sequence[Check]) -> GateResult:
    """Return the result of a gate with these checks."""
    verdicts = {check.verdict for check in checks}
    return GateResult(
        next(each for each in (FAIL, CANNOT_TELL, PASS) if each in verdicts or each == PASS), list(checks)
    )
