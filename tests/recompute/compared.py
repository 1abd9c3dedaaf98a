"""Comparisons computed again: estimates beside those of the study's files, with two other tests, and Holm's correction of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tests.recompute.measured import ALL_COLUMNS, Floats, values_of
from tests.recompute.report import Report
from tests.recompute.resamples import DRAWS, Resamples
from tests.recompute.runs import Run, check_alike
from tests.recompute.tables import Comparison
from tests.recompute.tested import (
    ALPHA,
    Estimate,
    estimate,
    hierarchical_bootstrap,
    holm,
    holm_by_closure,
    paired_t,
    resampling_errors,
    seed_and_image_terms,
    variances,
)

ROUNDED, SAME = 2e-9, 1e-8
"""By how much differences, and ends and p values of the same resamples, may differ: tables have nine digits."""
Z, NEGLIGIBLE = 3.5, 1e-6
"""Beyond how many standard errors ends and p values of other resamples are a finding, unless they differ by less than this."""
CLOSED = 12
"""Up to how many comparisons Holm's correction is checked by the closed test."""


@dataclass(frozen=True)
class Tested:
    """The tests of a comparison."""

    study: Estimate
    seeds: Estimate
    hierarchical: Estimate

    @property
    def by_name(self) -> dict[str, Estimate]:
        """The tests by the names under which they are printed."""
        return {"formula": self.study, "t seeds": self.seeds, "hierar.": self.hierarchical}


def compare(name: str, comparisons: Sequence[Comparison], resamples: Resamples, report: Report) -> None:
    """Compute comparisons again and correct them together; one that cannot be computed counts with a p value of 1."""
    report.line(f"\n{name}: {len(comparisons)} comparisons, {DRAWS} resamples of the images; differences in points")
    tested = [tests_of(one, resamples, report) for one in comparisons]
    if any(tested):
        correct(name, comparisons, tested, report)


def tests_of(one: Comparison, resamples: Resamples, report: Report) -> Tested | None:
    """Return the tests of a comparison; None without runs, or of a single seed."""
    if not one.chosen or not one.baseline:
        return None
    check_alike([one.chosen, one.baseline], one.search_each, one.said, report)
    if len(one.chosen) < 2:
        report.line(f"  {one.said}: one seed, not tested")
        return None
    first, second = values_of(one.metric, one.chosen), values_of(one.metric, one.baseline)
    values, replicates, images = first - second, paired(one, one.metric, resamples), one.chosen[0].images
    tests = Tested(
        estimate(values, replicates, images), paired_t(first, second), hierarchical_bootstrap(replicates, resamples.seed)
    )
    of = variances(values, replicates)
    by_seeds, by_images, _ = seed_and_image_terms(ALPHA, of, len(values), images)
    report.line(f"  {one.said}: {len(values)} seeds, {images} images")
    report.line(
        f"      of each seed  {np.round(100 * values, 2).tolist()}, the {'seeds' if by_seeds >= by_images else 'images'} decide"
    )
    report.line(f"      here          {shown(tests.study)}")
    if one.published:
        errors = None if resamples.same_draws else resampling_errors(values, replicates, images)
        check_published(one.said, one.published.estimate, tests.study, errors, report)
    if one.metric == "acc_keras":
        over_all = values_of(ALL_COLUMNS, one.chosen) - values_of(ALL_COLUMNS, one.baseline)
        report.line(f"      all columns   {shown(estimate(over_all, paired(one, ALL_COLUMNS, resamples), images))}")
    report.line(f"      t over seeds  {shown(tests.seeds)}")
    report.line(f"      hierarchical  {shown(tests.hierarchical)}")
    return tests


def paired(one: Comparison, metric: str, resamples: Resamples) -> Floats:
    """Return the difference of each seed on each resample (S, B)."""

    def of(runs: Sequence[Run]) -> Floats:
        return np.stack([resamples.replicates(run, metric) for run in runs])

    return np.asarray(of(one.chosen) - of(one.baseline))


def shown(one: Estimate) -> str:
    """Return an estimate as text, in points."""
    return f"{100 * one.mean:+.3f} [{100 * one.low:+.3f}, {100 * one.high:+.3f}] p {one.p:.5g}"


def check_published(said: str, theirs: Estimate, ours: Estimate, errors: Floats | None, report: Report) -> None:
    """Find where a table's estimate is another; `errors` of low, high and log p are None where the resamples are the same."""
    off = np.abs(np.array(theirs) - np.array(ours))
    report.line(f"      in the table  {shown(theirs)}, at most {off[1:].max():.1e} apart")
    if not off[0] <= ROUNDED:
        report.finding(f"{said}: the difference is {theirs.mean!r} in the table, and {ours.mean!r} here")
    if errors is None:
        if not off[1:].max() <= SAME:
            report.finding(f"{said}: interval or p value differ on the same resamples, by {off[1:].max():.3g}")
        return
    tiny = np.finfo(float).tiny
    apart = np.append(off[1:3], abs(np.log(max(theirs.p, tiny)) - np.log(ours.p)))
    z = apart / np.maximum(np.sqrt(2) * errors, tiny)  # both sides have resampled
    beyond = (z > Z) & (off[1:] > NEGLIGIBLE)
    if beyond.any():
        report.finding(f"{said}: low, high or p are {np.round(z, 1).tolist()} standard errors of resampling off the table")


def correct(name: str, comparisons: Sequence[Comparison], tested: Sequence[Tested | None], report: Report) -> None:
    """Correct all comparisons together, by each test, and say where the tests, or the table, tell different rows apart."""
    by = {kind: holm([one.by_name[kind].p if one else 1.0 for one in tested]) for kind in ("formula", "t seeds", "hierar.")}
    plain = [one.study.p if one else 1.0 for one in tested]
    if len(plain) <= CLOSED and not np.allclose(holm(plain), holm_by_closure(plain), atol=1e-14):
        report.finding(f"{name}: Holm's step-down correction is not the closed test")
    report.line(f"\n  {f'p after Holm over {len(tested)}':72s}table     " + "   ".join(by))
    for place, one in enumerate(comparisons):
        if tested[place] is None:
            continue
        theirs = one.published.p_holm if one.published else None
        columns = "  ".join(f"{'' if p is None else f'{p:.4f}':>8s}" for p in (theirs, *(p[place] for p in by.values())))
        report.line(f"  {one.said[:70]:70s} {columns}")
        told_apart = {kind: bool(p[place] < ALPHA) for kind, p in by.items()}
        if theirs is not None and (theirs < ALPHA) != told_apart["formula"]:
            report.finding(f"{one.said}: p after Holm is {theirs} in the table, and {by['formula'][place]} here")
        others = [kind for kind, verdict in told_apart.items() if verdict != told_apart["formula"]]
        if others:
            report.line(
                f"      {'told apart' if told_apart['formula'] else 'not told apart'}, and otherwise by {', '.join(others)}"
            )
    says = [one.published for one in comparisons]
    corrected = [(one.estimate.p, one.p_holm) for one in says if one and one.p_holm is not None]
    if len(corrected) == len(comparisons):
        p, p_holm = zip(*corrected, strict=True)
        if not np.abs(holm(p) - np.array(p_holm)).max() <= 1e-7:
            report.finding(f"{name}: p_holm of the table is not Holm's correction of its p values")
