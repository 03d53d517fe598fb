"""What a check reports."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from trivox.errors import FormatError, of_case
from trivox.files import read_json
from trivox.schema import Frozen, Grown, validated

Severity = Literal["error", "warning"]


class Finding(Frozen):
    """One problem: `code` names its kind, `case` where it is (empty: the dataset),
    `fix` what to do about it.
    """

    severity: Severity
    code: str
    case: str
    message: str
    fix: str

    def __str__(self) -> str:
        what = of_case(self.case or "dataset", self.message)
        fix = f"; {self.fix}" if self.fix else ""
        return f"{what} [{self.code}]{fix}"


class Report(Frozen):
    """All findings, errors first."""

    findings: tuple[Finding, ...]
    checked_cases: int

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Findings that must be put right before training."""
        return self._of("error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """Findings to look at; they may be as intended."""
        return self._of("warning")

    def also(self, findings: Iterable[Finding]) -> "Report":
        """With more findings, at the end."""
        return self.model_copy(update={"findings": (*self.findings, *findings)})

    def _of(self, severity: Severity) -> tuple[Finding, ...]:
        return tuple(
            finding for finding in self.findings if finding.severity == severity
        )

    def to_json(self) -> dict[str, object]:
        """Content for `trivox.files.write_json`."""
        return self.content.model_dump(mode="json")

    @property
    def content(self) -> "CheckFile":
        """The findings and how many there are of each code, as check.json holds them."""
        counts = Counter(finding.code for finding in self.findings)
        return CheckFile(
            checked_cases=self.checked_cases,
            errors=len(self.errors),
            warnings=len(self.warnings),
            codes=dict(sorted(counts.items())),
            findings=self.findings,
        )


class CheckFile(Grown):
    """What check.json says beside its task and version.

    errors, warnings: how many there are; codes: findings of each code; set_aside: of a
    run, case -> why it is left out.
    """

    later = ("set_aside",)

    checked_cases: int
    errors: int
    warnings: int
    codes: dict[str, int]
    findings: tuple[Finding, ...]
    set_aside: dict[str, str] | None = None


class _Written(BaseModel):
    """What is read again of a written report."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    findings: tuple[Finding, ...] = ()


def read_findings(file: Path) -> tuple[Finding, ...]:
    """The findings in a written report; raises `FormatError` for anything else."""
    advice = "delete it, and check again"
    content = read_json(file)
    return validated(
        _Written, content, where=file, error=FormatError, advice=advice
    ).findings


def error(code: str, case: str, message: str, fix: str) -> Finding:
    """A finding that stops training."""
    return Finding(severity="error", code=code, case=case, message=message, fix=fix)


def warning(code: str, case: str, message: str, fix: str) -> Finding:
    """A finding that may be as intended."""
    return Finding(severity="warning", code=code, case=case, message=message, fix=fix)
