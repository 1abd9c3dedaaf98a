"""What is printed, and the findings in it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Report:
    """The printed lines' findings: what the study's files say and a second computation does not."""

    findings: list[str] = field(default_factory=list)

    def line(self, text: str) -> None:
        """Print a line that is no finding."""
        print(text)

    def finding(self, text: str) -> None:
        """Print a finding and keep it."""
        self.findings.append(text)
        print(f"  !! {text}")
