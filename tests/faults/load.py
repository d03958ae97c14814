"""A load: callers that keep many jobs with known answers in flight, and an account of each job."""

import random
import threading
from collections import deque
from collections.abc import Callable, Iterator
from time import monotonic, sleep
from types import TracebackType
from typing import Self
from uuid import uuid4

from callers.client import Client
from cluster import broker
from cluster.errors import JobTimeout, Unreachable
from tests.faults.account import Account, Outcome, Submitted
from tests.faults.clock import now
from tests.faults.jobs import Job, mixed
from tests.faults.runs import Runs
from tests.waiting import eventually

#: Jobs in flight when the fault happens, and until the load is told to end.
IN_FLIGHT = 2000
#: Jobs of one load: past it, a fault that takes long finds fewer in flight.
MOST = 12_000
#: Callers, each a thread with a client of its own.
CALLERS = 4
#: Seconds of one wait for a value.
PATIENCE = 60.0
#: Seconds by which a wait may pass its deadline: it asks the workers why, and one answer of a
#: broken connection takes as long as its time-out.
GRACE = 10.0
#: Seconds after a refused submit until the next.
PAUSE = 0.2


class Caller(threading.Thread):
    """Submits jobs and waits for their values, oldest first, as a program of its own would."""

    def __init__(self, client: Client, jobs: Iterator[Job], in_flight: int, most: int) -> None:
        super().__init__(daemon=True)
        self.submitted: list[Submitted] = []
        self.has_filled = threading.Event()
        self._client = client
        self._jobs = jobs
        self._in_flight = in_flight
        self._most = most
        self._waiting: deque[Submitted] = deque()
        self._ending = threading.Event()
        self._deadline = float("inf")

    def end(self, deadline: float) -> None:
        """Submit nothing more; what has no value by the deadline is lost."""
        self._deadline = deadline
        self._ending.set()

    def run(self) -> None:
        """Keep so many jobs in flight until the end, then wait for all that are left."""
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
        return len(self._waiting) >= self._in_flight or len(self.submitted) >= self._most

    def _submit(self) -> None:
        job = next(self._jobs)
        entry = Submitted(job, str(uuid4()), now() + job.countdown)
        self.submitted.append(entry)
        signature = self._client.signature(job.task, *job.args).set(task_id=entry.job_id)
        if job.countdown:
            signature.set(countdown=job.countdown)
        try:
            entry.result = self._client.submit(signature)
        except Exception as error:  # noqa: BLE001 - whatever the caller is told
            entry.outcome, entry.instead = Outcome.REFUSED, f"{type(error).__name__}: {error}"
            sleep(PAUSE)
        else:
            self._waiting.append(entry)

    def _settle_oldest(self) -> None:
        if not self._waiting:
            sleep(PAUSE)  # all that may be submitted was
            return
        entry = self._waiting[0]
        self._wait(entry, min(PATIENCE, self._deadline - monotonic()))
        if entry.outcome:
            self._waiting.popleft()

    def _wait(self, entry: Submitted, timeout: float) -> None:
        assert entry.result
        began = monotonic()
        try:
            # Past the deadline one look has to do: to be told why costs a second a job.
            if timeout <= 0 and not entry.result.ready():
                entry.outcome = Outcome.LOST
                return
            value = self._client.get(entry.result, max(timeout, 1))
        except (JobTimeout, Unreachable, *broker.AWAY) as error:
            entry.instead = str(error)
            if monotonic() > began + timeout + GRACE:
                entry.outcome = Outcome.HUNG
            elif timeout <= 0:
                # A job may have failed with just such an error of its own.
                entry.outcome = Outcome.FAILED if entry.result.failed() else Outcome.LOST
            return
        except Exception as error:  # noqa: BLE001 - whatever the job's own error is
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
        most: int = MOST,
    ) -> None:
        self._runs = runs
        # A source of its own for each: threads would take from one in another order each time.
        sources = [random.Random(chance.randrange(2**32)) for _ in range(CALLERS)]  # noqa: S311
        self.callers = [
            Caller(connect(), jobs(source), in_flight // CALLERS, most // CALLERS)
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
        if kind:  # the fault itself failed: nobody asks for the account
            self._end(0)

    def account(self, seconds: float = 90) -> Account:
        """End the load, wait so long for what is in flight, and return what became of each job."""
        self._end(seconds)
        return Account.of(self.jobs, self._runs.repeated(job.job_id for job in self.jobs))

    def _end(self, seconds: float) -> None:
        deadline = monotonic() + seconds
        for caller in self.callers:
            caller.end(deadline)
        for caller in self.callers:
            # One read of each job that is late, and a thread that hangs is left behind.
            caller.join(max(deadline - monotonic(), 0) + PATIENCE)

    @property
    def jobs(self) -> list[Submitted]:
        """All jobs that were submitted until now."""
        return [job for caller in self.callers for job in list(caller.submitted)]
