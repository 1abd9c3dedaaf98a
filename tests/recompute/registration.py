"""Whether the records of a registered study were made after its plan was committed, and of that plan."""

from __future__ import annotations

import hashlib
import subprocess
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.recompute.report import Report
from tests.recompute.runs import Run

FILE = "preregistration.toml"


def git(folder: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    """Run git in a folder."""
    return subprocess.run(["git", "-C", str(folder), *words], capture_output=True, check=False)


@dataclass
class Plan:
    """A committed plan: its folder, its SHA-256, those of all its versions, and the commit that brought the present text."""

    folder: Path
    sha: str
    versions: Sequence[str]
    commit: str
    committed: datetime

    def is_in(self, commit: str) -> bool:
        """Return whether a commit of the program has the present text of the plan in its history."""
        return git(self.folder, "merge-base", "--is-ancestor", self.commit, commit).returncode == 0


def read_plan(folder: Path, report: Report) -> Plan | None:
    """Return the plan of a study; None, and a finding, where its text is not the one committed last."""
    sha = hashlib.sha256((folder / FILE).read_bytes()).hexdigest()
    log = git(folder, "log", "--format=%cI %H", "--", FILE).stdout.decode().split()
    if not log:
        report.finding(f"{FILE} is not committed")
        return None
    dates, commits = log[::2], log[1::2]
    versions = [hashlib.sha256(git(folder, "show", f"{commit}:./{FILE}").stdout).hexdigest() for commit in commits]
    report.line(f"  SHA-256 {sha}, {len(commits)} commits, the newest first:")
    for date, commit, version in zip(dates, commits, versions, strict=True):
        report.line(f"    {date} {commit[:8]} {'this text' if version == sha else f'an earlier text, SHA-256 {version[:12]}'}")
    if versions[0] != sha:
        report.finding(f"{FILE} is not the file of its latest commit")
        return None
    place = 0
    while versions[place + 1 : place + 2] == [sha]:
        place += 1
    return Plan(folder, sha, versions, commits[place], datetime.fromisoformat(dates[place]))


def check_provenance(what: str, of: Mapping[str, Any], plan: Plan, report: Report) -> None:
    """Find what of a run's or trunk's provenance does not fit the plan."""
    had = of.get("preregistration")
    if had != plan.sha:
        report.finding(f"{what}: its preregistration is {had}{' (an earlier text)' if had in plan.versions else ''}")
    started = datetime.fromisoformat(of["started"])
    if started <= plan.committed:
        report.finding(f"{what}: started {started}, and the plan was committed {plan.committed}")
    if of.get("converted"):
        report.finding(f"{what}: converted ({of['converted']})")


def check_registration(folder: Path, runs: Sequence[Run], report: Report) -> None:
    """Check that every run and trunk is of the plan's present text and started after its commit; check the plug-ins' files."""
    report.line("\nthe registration")
    plan = read_plan(folder, report)
    if plan is None:
        return
    started, changed, commits = [], 0, set()
    for run in runs:
        for what, of in (("run", run.record["provenance"]), ("trunk", run.record["pretrain"]["provenance"])):
            check_provenance(f"{what} of {run.id}", of, plan, report)
            started.append(datetime.fromisoformat(of["started"]))
            changed += bool(of.get("dirty"))
            commits.add(str(of.get("commit")))
    report.line(f"  this text was committed {plan.committed}; of {len(started)} runs and trunks the first started {min(started)}")
    for commit in sorted(commits):
        if not plan.is_in(commit):
            report.finding(f"commit {commit} of runs or trunks does not descend from the plan's, or is not in this repository")
    if changed:
        report.line(f"  {changed} runs and trunks were made with changed files of the program")
    for name, digest in tomllib.loads((folder / FILE).read_text()).get("plugins", {}).items():
        path = folder / f"{name}.py"
        if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            report.finding(f"plug-in {name} is not the registered file")
