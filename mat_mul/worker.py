"""Worker of the queue `mat_mul`; run it with `python -m mat_mul.worker`."""

from cluster.worker import run, worker_app

app = worker_app("mat_mul")

if __name__ == "__main__":
    run(app)
