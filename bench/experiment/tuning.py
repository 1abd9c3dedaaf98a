"""Equal tuning for every pretext task: an Optuna study of the learning rates of one cell of the grid.

A study's first trial has the protocol's own rates. The next ones are a Sobol sequence that is the same for every pretext task
and, in what they share, for every schedule: one rate alone would cover its range better than two. Later ones are drawn by a
sampler that knows the history and is seeded from the number of the draw. A trial trains on the fitting parts without the
validation images and is scored on those; the test part is never opened.

Several processes with one output folder work on one study: a trial is claimed under a lock, and a worker holds a lock of its own
while it lives, so the trial of a dead worker is known at once, failed, and tried again with the same rates.
"""

from __future__ import annotations

import dataclasses
import math
import time
import uuid
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import metrics
from bench.errors import BenchError, DataError, Diverged, MachineError, UsageError
from bench.experiment.finetuning import Finetuned, finetune
from bench.experiment.pretraining import find_pretrained, pretrain
from bench.experiment.session import Session
from bench.job import Job
from bench.record import Cost, Trial, Tuning
from bench.schema import Frozen, digest_of
from bench.seeding import key
from bench.storage import files, locks, seal
from bench.text import quoted
from bench.training.energy import Meter

STARTUP = 8
"""Rates that do not depend on what was found, the same for every pretext task; later ones are drawn by the sampler."""
PRUNE_AFTER = 3
"""Trials that must be finished before one is pruned."""
KINDS = ("head", "all")
"""What a phase trains: each kind has a range of its own."""
PRETEXT = "pretext"
"""The pretext task's own learning rate, in a space."""

Space = dict[str, tuple[float, float]]


class Search(Frozen):
    """How a cell is tuned. `space` changes the protocol's ranges; with `pretext` in it the pretext's own rate is searched too."""

    trials: int
    space: Space = {}
    storage: str = ""

    @classmethod
    def parse(cls, trials: int, space: str = "", storage: str = "") -> Search:
        """Read ranges as `head=1e-4:1e-2,all=1e-5:1e-3,pretext=1e-4:1e-2`, or one rate; raise UsageError for anything else."""
        ranges: Space = {}
        for part in filter(None, (part.strip() for part in space.split(","))):
            name, _, limits = part.partition("=")
            low, colon, high = limits.partition(":")
            if name not in (*KINDS, PRETEXT):
                raise UsageError(f"--space has ranges for head, all and {PRETEXT}, but got {quoted(name)}.")
            try:
                ranges[name] = (float(low), float(high if colon else low))
            except ValueError as error:
                raise UsageError(
                    f"--space takes head=1e-4:1e-2,all=1e-5:1e-3 or one rate, all=1e-4, but got {quoted(part)}."
                ) from error
            if not 0 < ranges[name][0] <= ranges[name][1] < math.inf:
                raise UsageError(f"--space: 0 < low <= high must hold, but got {quoted(part)}.")
        return cls(trials=trials, space=ranges, storage=storage)


class Study(Frozen):
    """What is searched: a cell of the grid, scored on the validation part. Its digest is the study's name."""

    cell: Job
    space: Space
    ranges: Space
    drawn: tuple[tuple[str, ...], ...] = ()
    """What the Sobol sequences range over, each group by one sequence: what cells share gets the same values in all of them."""
    sampler: str = "8 Sobol, then TPE"
    pruner: str = "median by epoch, from a quarter of the last phase on"

    @property
    def id(self) -> str:
        """The pretext, the downstream task and twelve hexadecimal digits."""
        return f"{self.cell.pretrain.pretext}-{self.cell.downstream}-{self.digest()[:12]}"

    def digest(self) -> str:
        """Return the SHA-256 of the canonical JSON, without what is drawn where that is the space alone."""
        fields = self.model_dump(mode="json")
        if self.drawn == (tuple(self.space),):
            del fields["drawn"]
        return digest_of(fields)

    @property
    def metric(self) -> str:
        """The objective: the protocol's main metric, with its version."""
        return metrics.get(self.cell.settings.metrics[0]).key

    @property
    def warmup(self) -> int:
        """The epochs before a trial may be pruned: what a frozen trunk has reached says little of the rate that comes after."""
        *before, last = (phase.epochs for phase in self.cell.phases)
        return sum(before) + max(1, math.ceil(last / 4))

    def own_rates(self) -> dict[str, float]:
        """Return the rates of the protocol, and of the recipe when it is searched."""
        rates = {f"phase-{number}": phase.lr for number, phase in enumerate(self.cell.phases, start=1)}
        return {**rates, PRETEXT: float(self.cell.pretrain.recipe["lr"])} if PRETEXT in self.space else rates


def with_rates(job: Job, rates: dict[str, float]) -> Job:
    """Return a job whose phases, and pretext task when it is named, train at other rates."""
    changes: dict[str, Any] = {"rates": tuple(rates[f"phase-{number}"] for number in range(1, len(job.phases) + 1))}
    if PRETEXT in rates:
        recipe = {**job.pretrain.recipe, "lr": rates[PRETEXT]}
        changes["pretrain"] = job.pretrain.model_copy(update={"recipe": recipe})
    return job.model_copy(update=changes)


def study_of(job: Job, search: Search, jobs: list[Job]) -> Study:
    """Return the study that tunes a job for all its seeds: that of the first seed among `jobs`."""
    first = next(other for other in jobs if _seedless(other) == _seedless(job))
    ranges = ranges_of(job, search)
    space = {f"phase-{number}": ranges[phase.train] for number, phase in enumerate(job.phases, start=1)}
    if PRETEXT in ranges and job.pretrain.recipe["epochs"]:
        space[PRETEXT] = ranges[PRETEXT]
    return Study(cell=first.model_copy(update={"part": "val"}), space=space, ranges=ranges, drawn=_drawn(job, ranges))


def _drawn(job: Job, ranges: Space) -> tuple[tuple[str, ...], ...]:
    """Return what is drawn together: a rate for each kind of phase, whether the schedule has it or not, and the pretext's own.

    What else a schedule has, a kind's second phase, is drawn apart, since another dimension changes those before it.
    """
    first: dict[str, str] = {}
    phases = [f"phase-{number}" for number in range(1, len(job.phases) + 1)]
    for name, phase in zip(phases, job.phases, strict=True):
        first.setdefault(phase.train, name)
    together = (*(first.get(kind, kind) for kind in KINDS), *([PRETEXT] if PRETEXT in ranges else []))
    return together, *((name,) for name in phases if name not in together)


def ranges_of(job: Job, search: Search) -> Space:
    """Return the protocol's ranges with the search's changes, by what a phase trains, and the pretext's own when asked."""
    return {**{str(kind): limits for kind, limits in job.settings.space.items()}, **search.space}


def _seedless(job: Job) -> Job:
    return job.model_copy(update={"seed": 0, "pretrain": job.pretrain.model_copy(update={"seed": 0})})


def tuned(job: Job, search: Search, session: Session, wait: bool = True) -> tuple[Job, Tuning]:
    """Return a job with the rates that its study chose, and the study; the search is made, joined or read from the disk."""
    tuning = tune(study_of(job, search, session.grid.jobs), search, session, wait)
    return chosen_by(tuning, job), tuning


def chosen_by(tuning: Tuning, job: Job) -> Job:
    """Return a job with the rates of a search, named in it."""
    return with_rates(job, tuning.best).model_copy(update={"study": tuning.study, "trials": tuning.budget})


def path_of(study: str, trials: int, out: Path) -> Path:
    """Return where a finished search of so many trials lies."""
    return out / "studies" / study / f"tuning-{trials}.json"


def find_tuning(study: Study, search: Search, out: Path) -> Tuning | None:
    """Return a finished search when it is there; DataError when it cannot be read."""
    path = path_of(study.id, search.trials, out)
    if not path.is_file():
        return None
    way_out = "remove the file, and it is made again from its trials"
    try:
        return Tuning.model_validate_json(seal.read(path, "a search", way_out))
    except ValueError as error:
        raise DataError(f"{path} is not a search of this version; {way_out}.") from error


def tune(study: Study, search: Search, session: Session, wait: bool = True) -> Tuning:
    """Return a finished search of exactly `search.trials` trials, each of them complete, pruned or diverged.

    When other processes have taken all that are left, wait for them, or raise Busy.
    """
    found = find_tuning(study, search, session.out)
    if found is not None:
        return found
    folder = session.out / "studies" / study.id
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        opened = optuna.create_study(
            storage=_storage(folder, search.storage, session),
            study_name=study.id,
            direction="maximize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=PRUNE_AFTER, n_warmup_steps=study.warmup),
            load_if_exists=True,
        )
        if search.storage:
            _check_place(opened, folder, search, session)
        with locks.alive(folder / "workers") as worker:
            told = False
            while True:
                trial = _claim(opened, study, search.trials, folder, worker, session)
                if trial is not None:
                    _attempt(opened, trial, study, search.trials, session)
                elif len(_finished(opened)) >= search.trials:
                    break
                elif not wait:
                    raise locks.Busy
                else:
                    if not told:
                        session.echo(f"{study.id}: every trial is taken; waiting for the other workers")
                        told = True
                    session.machine.stop.check()
                    time.sleep(0.5)
        _sweep(opened, study, folder, session)
        tuning = _summary(opened, study, search, session)
    files.publish_json(path_of(study.id, search.trials, session.out), tuning.model_dump(mode="json"))
    return tuning


def _storage(folder: Path, url: str, session: Session) -> Any:
    from optuna.storages import RDBStorage

    files.make_folder(folder)
    if not url:
        from bench.storage.journal import journal

        return journal(folder / "journal.log", session.echo)
    try:
        return RDBStorage(url)
    except Exception as error:  # SQLAlchemy and its drivers have no common base
        reason = " ".join(str(error).split("(Background")[0].split())[:200].rstrip(".")
        kind = MachineError if type(error).__name__ in ("OperationalError", "ImportError") else UsageError
        raise kind(f"--storage {without_secrets(url)}: {reason}.") from error


def without_secrets(url: str) -> str:
    """Return a database's URL with its kind alone: names, passwords and places stay with the user."""
    return f"{url.partition(':')[0]}://..."


def _check_place(opened: Any, folder: Path, search: Search, session: Session) -> None:
    """Raise UsageError when a study in a database belongs to another output folder, where its workers' locks lie."""
    with locks.lock(folder / "claim.lock", session.echo, session.machine.stop.check):
        token = folder / "token"
        known = opened.user_attrs.get("token")
        if known is None:
            if not token.is_file():
                files.publish_file(token, uuid.uuid4().hex)
            opened.set_user_attr("token", token.read_text())
        elif not token.is_file() or token.read_text() != known:
            raise UsageError(
                f"the study {opened.study_name} in {without_secrets(search.storage)} was begun with another --out, or {token} is "
                "damaged; all workers of a study share one output folder, and another folder needs another database."
            )


def _claim(opened: Any, study: Study, budget: int, folder: Path, worker: str, session: Session) -> Any:
    """Take the next trial; None when all are taken. The trials of dead workers are failed and queued again first."""
    from optuna.distributions import FloatDistribution
    from optuna.samplers import TPESampler
    from optuna.trial import TrialState

    with locks.lock(folder / "claim.lock", session.echo, session.machine.stop.check):
        again = {trial.user_attrs.get("again") for trial in opened.get_trials(deepcopy=False)}
        for trial in opened.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            owner = trial.user_attrs.get("worker")  # written under the lock that we hold, so who has none is dead
            if owner is None or not locks.is_alive(folder / "workers", owner):
                rates = _rates(trial, study)
                if rates and trial.number not in again:  # queued before it is failed: dying in between loses nothing
                    opened.enqueue_trial(rates, user_attrs={"again": trial.number})
                opened.tell(trial.number, state=TrialState.FAIL)
        trials = opened.get_trials(deepcopy=False)
        if sum(t.state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING) for t in trials) >= budget:
            return None
        draw = len(_draws(trials, study))
        if draw < STARTUP and not any(trial.state == TrialState.WAITING for trial in trials):
            opened.enqueue_trial(_start(study, draw))
        seed = key("tune", study.cell.seed, draw) % 2**32
        opened.sampler = TPESampler(seed=seed, n_startup_trials=1, multivariate=True)
        trial = opened.ask({name: FloatDistribution(low, high, log=True) for name, (low, high) in study.space.items()})
        trial.set_user_attr("worker", worker)
        return trial


def _sweep(opened: Any, study: Study, folder: Path, session: Session) -> None:
    """Remove the working folders of finished trials whose workers died before they could."""
    with locks.lock(folder / "claim.lock", session.echo, session.machine.stop.check):
        ended = {with_rates(study.cell, trial.params).id for trial in _finished(opened)}
        for place in (folder / "work").glob("*"):
            if place.name in ended:
                files.remove_folder(place)


def _rates(trial: Any, study: Study) -> dict[str, float] | None:
    """Return a trial's rates; None when its worker died before it had them."""
    found = trial.params if trial.params.keys() == study.space.keys() else trial.system_attrs.get("fixed_params")
    return found or None


def _draws(trials: Sequence[Any], study: Study) -> list[int]:
    """Return the numbers of the trials that had their rates first, so that dead workers change nothing of what is drawn."""
    return [trial.number for trial in trials if "again" not in trial.user_attrs and _rates(trial, study)]


def _start(study: Study, draw: int) -> dict[str, float]:
    """Return the first rates to try: the protocol's own where the space has them, then a Sobol sequence over their logarithms."""
    from scipy.stats import qmc

    own = {name: low if low == high else study.own_rates()[name] for name, (low, high) in study.space.items()}
    if draw == 0 and all(low <= own[name] <= high for name, (low, high) in study.space.items()):
        return own
    place: dict[str, float] = {}
    for apart, names in enumerate(study.drawn):
        seed = key("tune", study.cell.seed, *([apart] if apart else []))
        place |= zip(names, qmc.Sobol(len(names), rng=seed % 2**32).random(STARTUP)[draw].tolist(), strict=True)
    return {name: low * (high / low) ** place[name] for name, (low, high) in study.space.items()}


@dataclass
class _Kept:
    """What a trial has found and cost so far, on the disk so that a kill does not lose it."""

    values: dict[int, float] = field(default_factory=dict)
    seconds: float = 0.0
    images: int = 0

    @classmethod
    def read(cls, path: Path) -> _Kept:
        """Return what was kept, or nothing yet."""
        if not path.is_file():
            return cls()
        way_out = "remove its folder, and the trial begins anew"
        try:
            found = seal.load(path, "what a trial has found", way_out)
            values = {int(epoch): float(value) for epoch, value in found["values"].items()}
            return cls(values, float(found["seconds"]), int(found["images"]))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(f"{path} is not of this version; {way_out}.") from error


class _Pruned(Exception):
    """The trial is worse than the median of the others at the same epoch."""


def _attempt(opened: Any, trial: Any, study: Study, budget: int, session: Session) -> None:
    """Train one trial, telling its validation score after every epoch; what was told survives a kill, as the weights do."""
    from optuna.trial import TrialState

    job = with_rates(study.cell, trial.params)
    session.echo(f"  {study.id} trial {trial.number}: {', '.join(f'{name} {rate:.2e}' for name, rate in trial.params.items())}")
    work = session.out / "studies" / study.id / "work" / job.id
    kept = _Kept.read(work / "kept.json")
    for epoch, value in kept.values.items():
        trial.report(value, epoch)
    started, meter = time.monotonic() - kept.seconds, Meter(session.machine.device)

    states: list[str] = []

    def watch(tuned: Finetuned, epoch: int, known: float | None) -> float:
        states[:] = tuned.states
        if epoch not in kept.values:
            if known is None:
                found = metrics.compute(study.metric, tuned.predictions(session.machine), tuned.data.classes, tuned.data.scored)
                known = found if math.isfinite(found) else 0.0
            kept.values[epoch] = known
            kept.images = epoch * tuned.data.counts["train"]
            kept.seconds = time.monotonic() - started
            files.publish_json(work / "kept.json", dataclasses.asdict(kept))
            trial.report(kept.values[epoch], epoch)
        if trial.should_prune():
            raise _Pruned
        return kept.values[epoch]

    state, score = TrialState.COMPLETE, None
    trunk_is_new = PRETEXT in trial.params and find_pretrained(job.pretrain, session.out) is None
    try:
        pretrained = pretrain(job.pretrain, session)
        if not trunk_is_new:
            started, meter = time.monotonic() - kept.seconds, Meter(session.machine.device)
        finetune(job, pretrained, session, watch, work)
        score = kept.values[max(kept.values)]
        kept.images += pretrained.cost.images if trunk_is_new else 0
    except _Pruned:
        state = TrialState.PRUNED
    except Diverged as error:
        state = TrialState.PRUNED
        trial.set_user_attr("diverged", str(error))
    _keep_the_best(opened, study, states, score, session)
    spent = {"seconds": time.monotonic() - started, "images": kept.images, "joules": meter.joules()}
    trial.set_user_attr("cost", spent)
    opened.tell(trial, score, state=state)
    files.remove_folder(work)
    outcome = f"{study.metric} {score:.4f}" if score is not None else "diverged" if "diverged" in trial.user_attrs else "pruned"
    session.echo(f"  {study.id} trial {trial.number}: {outcome}; {max(0, budget - len(_finished(opened)))} to go")


def _keep_the_best(opened: Any, study: Study, states: list[str], score: float | None, session: Session) -> None:
    """Forget the networks of a trial that is not the best so far, but for those that every trial begins with."""
    from optuna.trial import TrialState

    best = max((trial.value for trial in opened.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))), default=-math.inf)
    shared = True
    for number, state in enumerate(states, start=1):
        low, high = study.space[f"phase-{number}"]
        shared = shared and low == high
        if not shared and (score is None or score < best):
            session.cache.drop(state)


def _finished(opened: Any) -> list[Any]:
    from optuna.trial import TrialState

    return list(opened.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)))


def _summary(opened: Any, study: Study, search: Search, session: Session) -> Tuning:
    """Return the first finished trials, as many as the budget, and the best of them."""
    from optuna.trial import TrialState

    trials = opened.get_trials(deepcopy=False)
    first_of = {trial.number: trial.user_attrs.get("again") for trial in trials}
    place = {number: draw for draw, number in enumerate(_draws(trials, study))}

    def draw(trial: Any) -> int:
        """Return how many rates were drawn before these."""
        number: int = trial.number
        while (before := first_of.get(number)) is not None:
            number = before
        return place[number]

    chosen = sorted(_finished(opened), key=draw)[: search.trials]
    counted = tuple(
        Trial(
            number=draw(trial),
            rates=trial.params,
            state="diverged" if "diverged" in trial.user_attrs else trial.state.name.lower(),
            value=trial.value if trial.state == TrialState.COMPLETE else None,
            epochs=trial.intermediate_values,
            seconds=round(trial.user_attrs["cost"]["seconds"], 3),
            images=trial.user_attrs["cost"]["images"],
        )
        for trial in chosen
    )
    complete = [trial for trial in counted if trial.value is not None]
    if not complete:
        raise BenchError(f"{study.id}: none of {len(counted)} trials came to an end; --space may have lower rates.")
    best = max(complete, key=lambda trial: (trial.value, -trial.number))
    assert best.value is not None
    joules = [trial.user_attrs["cost"]["joules"] for trial in chosen]
    return Tuning(
        study=study.id,
        budget=search.trials,
        space=study.space,
        ranges=study.ranges,
        drawn=study.drawn,
        sampler=study.sampler,
        pruner=study.pruner,
        metric=study.metric,
        seed=study.cell.seed,
        trials=counted,
        best=best.rates,
        best_value=best.value,
        cost=Cost(
            seconds=round(sum(trial.seconds for trial in counted), 3),
            images=sum(trial.images for trial in counted),
            peak_memory=session.machine.peak_memory(),
            device=session.machine.device.type,
            joules=None if None in joules else round(sum(joules), 1),
        ),
    )
