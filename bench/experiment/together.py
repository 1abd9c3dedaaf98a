"""What the other processes do with the first one: take part in pretraining, evaluations and trials, and publish nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bench.errors import LostProcess
from bench.experiment import probing, trial
from bench.experiment.finetuning import finetune
from bench.experiment.pretraining import train_and_publish
from bench.experiment.session import Session
from bench.job import Job
from bench.record import PretrainRecord
from bench.training.machine import stoppable
from bench.training.world import Part


@contextmanager
def leading(session: Session) -> Iterator[None]:
    """Lead the other processes in the block, if there are any, and let them end after it, also when it fails."""
    try:
        yield
    except LostProcess:
        raise  # the others wait elsewhere, and end with this process
    except BaseException:
        session.machine.world.end()
        raise
    session.machine.world.end()


def follow(session: Session) -> None:
    """Take part in what the first process of several leads, until it ends."""

    def evaluate(job: Job, pretrained: PretrainRecord) -> None:
        if job.probe is not None:
            probing.take_part(job, pretrained, session)
        else:
            finetune(job, pretrained, session).predictions()

    parts: dict[str, Part] = {
        "pretrain": lambda job: train_and_publish(job, session),
        "evaluate": evaluate,
        "trial": lambda job, pretrained, work: trial.take_part(job, pretrained, work, session),
    }
    with stoppable(session.machine.stop):  # a signal is heeded where the first process does
        session.machine.world.follow(parts)
