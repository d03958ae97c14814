"""The account of a load: what became of every job that was submitted."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from celery.result import AsyncResult

from tests.faults.jobs import Job


class Outcome(Enum):
    """What became of a job, as its caller saw it."""

    RIGHT = "right"
    WRONG = "wrong"
    #: The job's own error, or one that names why it was not run.
    FAILED = "failed"
    #: The caller was told at once that the job was not accepted.
    REFUSED = "refused"
    #: Accepted, and no result until long after the fault.
    LOST = "lost"
    #: A wait that went on past its own deadline.
    HUNG = "hung"


@dataclass
class Submitted:
    """A job that was submitted, and what became of it."""

    job: Job
    job_id: str
    #: When it may begin, by `tests.faults.clock`.
    due: float
    result: "AsyncResult[object] | None" = None
    outcome: Outcome | None = None
    #: What was there instead of the right value, for whoever reads a failed test.
    instead: str = ""


@dataclass
class Account:
    """How many jobs there were of each outcome; runs beyond each job's first show duplicates."""

    submitted: int
    counts: Counter[Outcome]
    runs_beyond_one: int
    instead: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, jobs: Iterable[Submitted], runs_beyond_one: int) -> "Account":
        """Return the account of jobs whose callers have ended."""
        jobs = list(jobs)
        counts = Counter(job.outcome or Outcome.HUNG for job in jobs)
        instead = [
            f"{job.job_id} {job.job.task}: {(job.outcome or Outcome.HUNG).value} {job.instead}"
            for job in jobs
            if job.outcome is not Outcome.RIGHT
        ]
        return cls(len(jobs), counts, runs_beyond_one, instead)

    @property
    def failed(self) -> int:
        """The jobs whose callers got an error, at once or later."""
        return self.counts[Outcome.FAILED] + self.counts[Outcome.REFUSED]

    def check(self, least: int = 2000) -> None:
        """Fail unless every job of at least so many is accounted for."""
        bad = {
            outcome.value: self.counts[outcome]
            for outcome in (Outcome.LOST, Outcome.HUNG, Outcome.WRONG)
            if self.counts[outcome]
        }
        assert not bad, f"{bad} of {self.submitted}:\n{self.some()}"
        assert self.submitted >= least, f"only {self.submitted} jobs were submitted"
        assert self.submitted == self.counts[Outcome.RIGHT] + self.failed, self.some()

    def check_no_failure(self) -> None:
        """Fail if any caller got an error."""
        assert not self.failed, f"{self.failed} of {self.submitted} failed:\n{self.some()}"

    def some(self) -> str:
        """Return a few of the jobs that gave no right value."""
        return "\n".join(self.instead[:10])
