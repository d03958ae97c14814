"""Worker of the queue `factorial`; run it with `python -m factorial.worker`."""

from cluster.worker import run, worker_app

app = worker_app("factorial")

if __name__ == "__main__":
    run(app)
