"""A family is its tasks and its requirements: everything else is `add/` with the name changed."""

import importlib
import inspect
import re

import pytest
from celery.app.task import Task

from callers.client import Client
from celeryconfig import family_concurrency, task_queues, task_routes
from local.commands import JOBS as JOBS_OF_THE_DEMO
from tests.families import ABOUT_JOBS, BAD_JOBS, FAMILIES, JOBS, REFERENCE
from tests.repo.repo import ROOT, compose, imports, make_targets, read

ROUTES = task_routes[0]


@pytest.mark.parametrize("file", ["Dockerfile", "worker.py", "__init__.py"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_the_reference_with_its_name_changed(family: str, file: str) -> None:
    expected = re.sub(rf"\b{REFERENCE}\b", family, read(f"{REFERENCE}/{file}"))

    assert read(f"{family}/{file}") == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_has_its_five_files(family: str) -> None:
    for file in ("Dockerfile", "requirements.txt", "__init__.py", "tasks.py", "worker.py"):
        assert (ROOT / family / file).is_file()


def test_one_name_everywhere() -> None:
    families = set(FAMILIES)
    services = compose()["services"]
    workers = {name for name in services if "profiles" not in services[name]}

    assert {file.parent.name for file in ROOT.glob("*/worker.py")} - {"cluster"} == families
    assert set(task_queues) == families >= set(family_concurrency)
    assert workers - {"redis"} == families
    assert {file.stem for file in ROOT.glob("callers/*.py")} >= families
    for family in families:
        service = services[family]
        assert service["image"] == f"${{IMAGE_PREFIX:-task-cluster}}/{family}"
        assert service["build"]["dockerfile"] == f"{family}/Dockerfile"
        assert f"call-{family}" in services
        for what in ("REPLICAS", "CONCURRENCY"):
            assert f"#{family.upper()}_{what}=" in read(".env.example")
        assert f"celery_start_{family}_worker" in make_targets()
        assert f"test_{family}_task" in make_targets()
        assert f"| [`{family}`]({family}/tasks.py) |" in read("README.md")


def test_the_demo_asks_for_what_the_caller_services_ask_for() -> None:
    services = compose()["services"]
    commands = [services[name]["command"] for name in services if name.startswith("call-")]

    assert commands == [["python", "-m", *job] for job in JOBS_OF_THE_DEMO]


def test_every_routed_task_is_its_familys_and_every_task_is_routed() -> None:
    tasks = set()
    for family in FAMILIES:
        module = importlib.import_module(f"{family}.tasks")
        for name, value in inspect.getmembers(module):
            if isinstance(value, Task):
                tasks.add(f"{family}.tasks.{name}")

    assert set(ROUTES) == tasks
    assert all(route == {"queue": task.split(".")[0]} for task, route in ROUTES.items())


def test_every_task_has_a_good_and_a_bad_example_and_a_line_in_the_readme() -> None:
    assert {job.task for job in JOBS} | ABOUT_JOBS == set(ROUTES)
    assert {job.task for job in BAD_JOBS} == set(ROUTES)
    for task in ROUTES:
        assert f"`{task.split('.')[2]}(" in read("README.md")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_worker_takes_jobs_from_its_own_queue_alone(family: str) -> None:
    app = importlib.import_module(f"{family}.worker").app
    with Client() as client:
        queue = client.app.amqp.router.route({}, next(t for t in ROUTES if t.startswith(family)))

    assert app.main == family == queue["queue"].name == queue["queue"].routing_key


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("streams", set()),
        ("cluster", {"streams"}),
        ("callers", {"cluster"}),
        *((family, {"cluster"}) for family in FAMILIES),
        ("local", {"celeryconfig", "cluster"}),
        ("bench", {"callers", "cluster", "local"}),
        ("deploy/flower", {"cluster"}),
    ],
)
def test_imports_go_downwards_only(package: str, allowed: set[str]) -> None:
    ours = {
        *("bench", "callers", "celeryconfig", "cluster", "local", "streams", "tests"),
        *FAMILIES,
    }
    found = {name for file in (ROOT / package).glob("*.py") for name in imports(file)}

    assert found & ours <= allowed | {package}
