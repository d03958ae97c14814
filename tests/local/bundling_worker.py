"""`python -m tests.local.bundling_worker`: an add worker with tasks whose calls are bundled."""

from cluster.worker import run, worker_app
from tests.local import bundled_tasks

app = worker_app("add")
app.conf.include = ["add.tasks", bundled_tasks.__name__]
app.conf.task_routes = [bundled_tasks.ROUTES, *app.conf.task_routes]

if __name__ == "__main__":
    run(app)
