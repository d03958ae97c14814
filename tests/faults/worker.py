"""`python -m tests.faults.worker add`: a family's worker that records each run of each job.

All workers append a line to one file when a job begins and when it ends. A counter in Redis would
miss the runs that matter, while Redis or the network fails; the kernel keeps a written line even
if the process is killed.
"""

import os
import socket
import sys
from typing import Any

from celery.signals import task_postrun, task_prerun

from cluster.worker import run, worker_app
from tests.faults.clock import now

#: The variable with the file of runs.
VARIABLE = "RUNS_FILE"


def note(event: str, job_id: str) -> None:
    """Append a line by one write, so that lines of several processes do not mix."""
    line = f"{event} {job_id} {socket.gethostname()} {os.getppid()} {os.getpid()} {now()}\n"
    file = os.open(os.environ[VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


def main(family: str) -> None:
    """Run the worker of a family, with the tasks that misbehave, until a signal stops it."""

    def begin(task_id: str, **_: Any) -> None:
        note("began", task_id)

    def end(task_id: str, **_: Any) -> None:
        note("ended", task_id)

    task_prerun.connect(begin, weak=False)
    task_postrun.connect(end, weak=False)
    app = worker_app(family)
    app.conf.include = [*app.conf.include, "tests.faults.tasks"]
    run(app)


if __name__ == "__main__":
    main(sys.argv.pop(1))
