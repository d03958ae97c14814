"""The worker of the queue `mat_mul`: `python -m mat_mul.worker` runs it."""

from cluster.worker import run, worker_app

app = worker_app("mat_mul")

if __name__ == "__main__":
    run(app)
