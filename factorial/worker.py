"""The worker of the queue `factorial`: `python -m factorial.worker` runs it."""

from cluster.worker import run, worker_app

app = worker_app("factorial")

if __name__ == "__main__":
    run(app)
