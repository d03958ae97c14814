"""A load: callers that keep many jobs with known answers in flight, and their account."""

import random
import threading
from collections import deque
from collections.abc import Callable, Iterator
from time import monotonic, sleep
from types import TracebackType
from typing import Self
from uuid import uuid4

from callers.client import Client
from cluster.connections import broker
from cluster.errors import JobTimeout, Unreachable
from tests.faults.account import Account, Outcome, Submitted
from tests.faults.clock import now
from tests.faults.jobs import Job, mixed
from tests.faults.runs import Runs
from tests.support.waiting import eventually

#: Jobs in flight when the fault happens, and until the load ends.
IN_FLIGHT = 2000
#: Limit for the jobs of a load: after it, fewer are in flight.
MAX_JOBS = 12_000
#: Number of callers, each a thread with its own client.
CALLERS = 4
#: Timeout of one wait for a value, in seconds.
GET_TIMEOUT = 60.0
#: Limit for the delay of an error after its deadline, in seconds: the client asks the workers for
#: the reason, and a broken connection answers only after its own timeout.
GRACE = 10.0
#: Pause after a refused submission, in seconds.
PAUSE = 0.2


class Caller(threading.Thread):
    """Submits jobs and waits for their values, oldest first."""

    def __init__(self, client: Client, jobs: Iterator[Job], in_flight: int, max_jobs: int) -> None:
        super().__init__(daemon=True)
        self.submitted: list[Submitted] = []
        self.has_filled = threading.Event()
        self._client = client
        self._jobs = jobs
        self._in_flight = in_flight
        self._max_jobs = max_jobs
        self._waiting: deque[Submitted] = deque()
        self._ending = threading.Event()
        self._deadline = float("inf")

    def end(self, deadline: float) -> None:
        """Submit nothing more; a job without a value at the deadline is lost."""
        self._deadline = deadline
        self._ending.set()

    def run(self) -> None:
        """Keep jobs in flight until the end, then wait for the rest."""
        with self._client:
            while not self._ending.is_set():
                if self._is_full():
                    self.has_filled.set()
                    self._settle_oldest()
                else:
                    self._submit()
            while self._waiting:
                self._settle_oldest()

    def _is_full(self) -> bool:
        return len(self._waiting) >= self._in_flight or len(self.submitted) >= self._max_jobs

    def _submit(self) -> None:
        job = next(self._jobs)
        entry = Submitted(job, str(uuid4()), now() + job.countdown)
        self.submitted.append(entry)
        signature = self._client.signature(job.task, *job.args).set(task_id=entry.job_id)
        if job.countdown:
            signature.set(countdown=job.countdown)
        try:
            entry.result = self._client.submit(signature)
        except Exception as error:  # noqa: BLE001 - any error of the submission
            entry.outcome, entry.instead = Outcome.REFUSED, f"{type(error).__name__}: {error}"
            sleep(PAUSE)
        else:
            self._waiting.append(entry)

    def _settle_oldest(self) -> None:
        if not self._waiting:
            sleep(PAUSE)  # the limit of jobs is reached
            return
        entry = self._waiting[0]
        self._wait(entry, min(GET_TIMEOUT, self._deadline - monotonic()))
        if entry.outcome:
            self._waiting.popleft()

    def _wait(self, entry: Submitted, timeout: float) -> None:
        assert entry.result
        began = monotonic()
        try:
            # After the deadline, only check once: to find the reason takes a second per job.
            if timeout <= 0 and not entry.result.ready():
                entry.outcome = Outcome.LOST
                return
            value = self._client.get(entry.result, max(timeout, 1))
        except (JobTimeout, Unreachable, *broker.UNREACHABLE_ERRORS) as error:
            entry.instead = str(error)
            if monotonic() > began + timeout + GRACE:
                entry.outcome = Outcome.HUNG
            elif timeout <= 0:
                # The job itself may have failed with such an error.
                entry.outcome = Outcome.FAILED if entry.result.failed() else Outcome.LOST
            return
        except Exception as error:  # noqa: BLE001 - any error of the job
            entry.outcome, entry.instead = Outcome.FAILED, f"{type(error).__name__}: {error}"
            return
        if value == entry.job.answer:
            entry.outcome = Outcome.RIGHT
        else:
            entry.outcome, entry.instead = Outcome.WRONG, repr(value)[:200]


class Load:
    """Callers with jobs in flight, from the start of the block to its end."""

    def __init__(
        self,
        connect: Callable[[], Client],
        runs: Runs,
        chance: random.Random,
        jobs: Callable[[random.Random], Iterator[Job]] = mixed,
        in_flight: int = IN_FLIGHT,
        max_jobs: int = MAX_JOBS,
    ) -> None:
        self._runs = runs
        # One generator each: threads would share one in an arbitrary order.
        sources = [random.Random(chance.randrange(2**32)) for _ in range(CALLERS)]  # noqa: S311
        self.callers = [
            Caller(connect(), jobs(source), in_flight // CALLERS, max_jobs // CALLERS)
            for source in sources
        ]

    def __enter__(self) -> Self:
        for caller in self.callers:
            caller.start()
        eventually(
            "the jobs are in flight",
            lambda: all(caller.has_filled.is_set() for caller in self.callers),
            90,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind:  # the fault itself failed: there is no account
            self._end(0)

    def account(self, seconds: float = 90) -> Account:
        """End the load, wait `seconds` for jobs in flight, and return the account."""
        self._end(seconds)
        return Account.of(self.jobs, self._runs.repeated(job.job_id for job in self.jobs))

    def _end(self, seconds: float) -> None:
        deadline = monotonic() + seconds
        for caller in self.callers:
            caller.end(deadline)
        for caller in self.callers:
            # Time to check each late job; a thread that hangs is abandoned.
            caller.join(max(deadline - monotonic(), 0) + GET_TIMEOUT)

    @property
    def jobs(self) -> list[Submitted]:
        """All jobs submitted so far."""
        return [job for caller in self.callers for job in list(caller.submitted)]
