"""Worker of the queue `add`; run it with `python -m add.worker`."""

from cluster.worker import run, worker_app

app = worker_app("add")

if __name__ == "__main__":
    run(app)
