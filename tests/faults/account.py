"""The account of a load: what became of every job that was submitted."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from celery.result import AsyncResult

from tests.faults.jobs import Job
from tests.faults.runs import Run


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
    """How many jobs there were of each outcome, and the runs of those that ran more than once."""

    submitted: int
    counts: Counter[Outcome]
    repeated: list[list[Run]] = field(default_factory=list)
    instead: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, jobs: Iterable[Submitted], repeated: list[list[Run]]) -> "Account":
        """Return the account of jobs whose callers have ended."""
        jobs = list(jobs)
        counts = Counter(job.outcome or Outcome.HUNG for job in jobs)
        instead = [
            f"{job.job_id} {job.job.task}: {(job.outcome or Outcome.HUNG).value} {job.instead}"
            for job in jobs
            if job.outcome is not Outcome.RIGHT
        ]
        return cls(len(jobs), counts, repeated, instead)

    @property
    def failed(self) -> int:
        """The jobs whose callers got an error, at once or later."""
        return self.counts[Outcome.FAILED] + self.counts[Outcome.REFUSED]

    @property
    def runs_beyond_one(self) -> int:
        """The runs beyond each job's first."""
        return sum(len(runs) - 1 for runs in self.repeated)

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

    def check_one_run_each(self) -> None:
        """Fail if any job ran more than once."""
        runs = "\n\n".join("\n".join(map(str, runs)) for runs in self.repeated[:5])
        assert not self.repeated, f"{self.runs_beyond_one} runs too many:\n{runs}"

    def some(self) -> str:
        """Return a few of the jobs that gave no right value."""
        return "\n".join(self.instead[:10])
