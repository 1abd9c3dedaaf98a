"""A study's preregistration: what is asked and which comparisons confirm something, in a file that is fixed before the first run.

    power = "6 seeds tell 2 points of mIoU from zero with a chance of 80 %, by the deviations of ..."
    budget = "8 trials of a search for every row"
    negative = "every interval of a question reaches zero: then no pretext task is told from random initialisation"

    [questions]
    table4 = "Does colorization beat random initialisation on the same schedule?"

    [options]                       # of `bench run`, for every part below, as in study.toml
    seeds = [100, 101, 102]

    [parts.main]
    pretext = ["random_init", "cgan_color"]
    downstream = "voc_cls"

    [plugins]                       # the SHA-256 of each plug-in's file that a comparison uses
    mine = "9f86d081884c7d65"

    [[comparisons]]                 # all of them are corrected together
    question = "table4"
    parts = ["main"]
    task = "voc_cls"
    row = "cgan_color"              # `pretext` or `pretext:schedule`
    against = "random_init:two-phase"
    metric = "map_voc"

`study.toml` names the file: `preregistration = "preregistration.toml"`. Its SHA-256 is written into every record of the study
while the record is made, so a record shows that the file was there before it. What the file does not name is exploratory.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from bench.job import Job
from bench.schema import Schema

Text = Annotated[str, Field(min_length=1)]
SHOWN = 12
"""Digits of a SHA-256 that are shown."""
KEY = "preregistration"
"""The key of a study's file that names the preregistration, and of a record's provenance that has its SHA-256."""


class Comparison(Schema):
    """A confirmatory comparison: the paired difference between two rows of a task by a metric, over the runs of some parts."""

    question: str
    parts: tuple[str, ...] = Field(min_length=1)
    task: str
    row: str
    """The pretext task, or `pretext:schedule` where the parts have several schedules of it."""
    against: str
    metric: str
    evaluation: str = "finetune"
    """`finetune`, or the probe of frozen features as `bench list probes` names it."""
    null: bool = False
    """Whether the rows differ by chance alone, as two random networks do, so that a difference between them would be a false one.
    It is the author's word, but for schedule, transfer and recipe, which must be the same."""

    @property
    def said(self) -> str:
        """The comparison in a few words."""
        where = self.task if self.evaluation == "finetune" else f"{self.task}, {self.evaluation}"
        return f"{self.row} against {self.against} on {where} by {self.metric}"


class Preregistration(Schema):
    """What a preregistration says beside its grids; `sha256` is that of the file, and `parts` are its grids by name."""

    sha256: str
    parts: tuple[str, ...]
    questions: dict[str, Text] = Field(min_length=1)
    power: Text
    """Which difference the planned seeds can tell from zero, and what that rests on."""
    budget: Text
    negative: Text
    """What would be called a negative result."""
    plugins: dict[str, Annotated[str, Field(pattern="^[0-9a-f]{16,64}$")]] = {}
    """The SHA-256 of the file of each plug-in that comparisons use, by the task's name, or its first 16 digits at least."""
    comparisons: tuple[Comparison, ...] = Field(min_length=1)

    def foreign(self, job: Job) -> str:
        """Return which task of a job is a plug-in that the preregistration does not name with this very file; "" for none."""
        for name, source in ((job.pretrain.pretext.partition(":")[0], job.pretrain.source), (job.downstream, job.source)):
            if source and not self.plugins.get(name, "").startswith(source):
                return f"{name} is a plug-in's (SHA-256 {source}...), and the preregistration names no such file"
        return ""

    @model_validator(mode="after")
    def _fits(self) -> Preregistration:
        for one in self.comparisons:
            if one.question not in self.questions:
                raise ValueError(f"{one.said} belongs to no question ({one.question!r})")
            if set(one.parts) - set(self.parts):
                raise ValueError(f"{one.said} is about a part that the preregistration does not have ({', '.join(one.parts)})")
            if one.row == one.against:
                raise ValueError(f"{one.said} compares a row with itself")
        if len(set(self.comparisons)) < len(self.comparisons):
            raise ValueError("a comparison is there twice")
        return self
