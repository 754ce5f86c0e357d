"""Say what was found: a table for people, JSON for machines, an exit code for scripts."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

from data_pipeline.validate.clip import ClipResult
from data_pipeline.validate.findings import RULES, Check, Finding, Severity

_SHOWN = 5


@dataclass(slots=True, kw_only=True)
class Report:
    """All findings about a source."""

    source: str
    kind: str
    findings: list[Finding] = field(default_factory=list)
    clips: int = 0
    compared: int = 0
    """Clips with enough matches to judge the cameras by the frames."""

    def add(self, clip: ClipResult) -> None:
        """Count a clip and take its findings."""
        self.clips += 1
        self.compared += clip.compared
        self.findings += clip.findings

    def counts(self) -> dict[Severity, int]:
        """Return the number of findings of each severity."""
        counted = Counter(each.severity for each in self.findings)
        return {severity: counted[severity] for severity in Severity}

    def exit_code(self, *, strict: bool) -> int:
        """Return 1 where there are errors, or with `strict` warnings; otherwise 0."""
        counts = self.counts()
        return int(counts[Severity.ERROR] > 0 or (strict and counts[Severity.WARNING] > 0))

    def lines(self) -> list[str]:
        """Return the table, errors first; of each check the first few places."""
        lines = [f"{self.source}: {self.kind}, {self.clips} clips, {self.compared} compared with their frames"]
        for check in sorted({each.check for each in self.findings}, key=_rank):
            rule = RULES[check]
            found = [each for each in self.findings if each.check is check]
            lines.append(f"{rule.severity:<8}{check} ({len(found)}); allowed: {rule.allowed}")
            lines += [f"        {_where(each)}: {each.found}" for each in found[:_SHOWN]]
            lines += [f"        ... and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
            lines.append(f"        remedy: {rule.remedy}")
        return [*lines, ", ".join(f"{count} {severity}s" for severity, count in self.counts().items())]

    def write(self, path: Path) -> None:
        """Write every finding as JSON."""
        content = {
            "source": self.source,
            "kind": self.kind,
            "clips": self.clips,
            "clips_compared_with_their_frames": self.compared,
            "counts": self.counts(),
            "findings": [asdict(each) for each in self.findings],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        partial.replace(path)


def _rank(check: Check) -> tuple[int, int]:
    return list(Severity).index(RULES[check].severity), list(Check).index(check)


def _where(each: Finding) -> str:
    clip = "" if each.clip is None else f" {each.clip}"
    frame = "" if each.frame is None else f" frame {each.frame}"
    return f"{each.shard}{clip}{frame}"
