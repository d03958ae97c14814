"""`python -m tests.local.misbehaving_worker`: an add worker with tasks that misbehave."""

from cluster.worker import run, worker_app

app = worker_app("add")
app.conf.include = ["tests.local.misbehaving_tasks"]

if __name__ == "__main__":
    run(app)
