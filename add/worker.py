"""The worker of the queue `add`: `python -m add.worker` runs it."""

from cluster.worker import run, worker_app

app = worker_app("add")

if __name__ == "__main__":
    run(app)
