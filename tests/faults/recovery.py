"""How long a cluster takes to recover from a fault."""

import redis

from tests.faults.clock import now
from tests.faults.runs import Runs
from tests.faults.stack.conftest import answers
from tests.support.waiting import eventually


def recovery(server: "redis.Redis", runs: Runs) -> float:
    """Return the seconds from Redis' first answer to the start of the next job."""
    eventually("Redis answers", lambda: answers(server), 60)
    back = now()
    return eventually("a job begins", lambda: began_after(runs, back), 60) - back


def began_after(runs: Runs, moment: float) -> float:
    """Return the start of the first run after a moment, or 0."""
    return min((run.began for run in runs.all() if run.began > moment), default=0)
