"""The account of a load: the outcome of every submitted job."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from celery.result import AsyncResult

from tests.faults.jobs import Job
from tests.faults.runs import Run

#: Jobs of a load, at least.
MIN_JOBS = 2000


class Outcome(Enum):
    """The outcome of a job for its caller."""

    RIGHT = "right"
    WRONG = "wrong"
    #: The job's own error, or one that says why it did not run.
    FAILED = "failed"
    #: The submission raised an error.
    REFUSED = "refused"
    #: Accepted, but without a result until long after the fault.
    LOST = "lost"
    #: A wait that continued after its deadline.
    HUNG = "hung"


@dataclass
class Submitted:
    """A submitted job, and its outcome."""

    job: Job
    job_id: str
    #: The earliest time at which it may begin, by `tests.faults.clock`.
    due: float
    result: "AsyncResult[object] | None" = None
    outcome: Outcome | None = None
    #: The wrong value, or the error, for the report of a failed test.
    instead: str = ""


@dataclass
class Account:
    """The number of jobs of each outcome, and the runs of those that ran more than once."""

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
        """The number of jobs whose callers got an error, at once or later."""
        return self.counts[Outcome.FAILED] + self.counts[Outcome.REFUSED]

    @property
    def runs_beyond_one(self) -> int:
        """The number of runs beyond each job's first."""
        return sum(len(runs) - 1 for runs in self.repeated)

    def check(self, *allowed: Outcome) -> None:
        """Fail unless there are enough jobs, and each has the right value or an allowed outcome."""
        bad = {
            outcome.value: count
            for outcome, count in self.counts.items()
            if outcome not in {Outcome.RIGHT, *allowed}
        }
        assert not bad, f"{bad} of {self.submitted}:\n{self.examples()}"
        assert self.submitted >= MIN_JOBS, f"only {self.submitted} jobs were submitted"

    def check_one_run_each(self) -> None:
        """Fail if any job ran more than once."""
        runs = "\n\n".join("\n".join(map(str, runs)) for runs in self.repeated[:5])
        assert not self.repeated, f"{self.runs_beyond_one} runs too many:\n{runs}"

    def examples(self) -> str:
        """Return some of the jobs without the right value."""
        return "\n".join(self.instead[:10])
