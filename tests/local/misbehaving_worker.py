"""`python -m tests.local.misbehaving_worker`: an add worker with tasks that misbehave."""

import os
from time import sleep
from typing import Any

from celery.worker.control import Panel

from cluster.worker import run, worker_app

app = worker_app("add")
app.conf.include = ["add.tasks", "tests.local.misbehaving_tasks"]
app.conf.task_annotations = {
    **app.conf.task_annotations,
    "tests.local.misbehaving_tasks.too_slow": {"time_limit": 1},
    "tests.local.misbehaving_tasks.too_slow_softly": {"soft_time_limit": 1},
}
if os.environ.get("TEST_POOL"):
    app.conf.worker_pool = os.environ["TEST_POOL"]


def hang(state: Any) -> None:
    """Block the event loop."""
    sleep(600)


Panel.data["hang"] = hang

if __name__ == "__main__":
    run(app)
