"""A family is its tasks and requirements: everything else is `add/` with the name changed."""

import importlib
import re
from importlib.metadata import packages_distributions

import pytest

from callers.client import Client
from celeryconfig import task_routes
from cluster.examples import BadExample, Example
from local.commands import DEMO
from tests.support.families import ABOUT_JOBS, BAD_JOBS, FAMILIES, JOBS, REFERENCE
from tests.support.repo import ROOT, compose, imports, read

ROUTES = task_routes[0]
MODULES = ("__init__.py", "examples.py", "tasks.py", "worker.py")


@pytest.mark.parametrize("file", ["Dockerfile", "worker.py", "__init__.py"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_the_reference_with_its_name_changed(family: str, file: str) -> None:
    expected = re.sub(rf"\b{REFERENCE}\b", family, read(f"{REFERENCE}/{file}"))

    assert read(f"{family}/{file}") == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_has_its_six_files(family: str) -> None:
    for file in ("Dockerfile", "requirements.txt", *MODULES):
        assert (ROOT / family / file).is_file()


def test_the_families_are_those_that_have_workers_queues_and_services() -> None:
    services = compose()["services"]
    workers = {name for name in services if "profiles" not in services[name]}
    named = {
        "folders with a worker.py": {file.parent.name for file in ROOT.glob("*/worker.py")}
        - {"cluster"},
        "services (docker-compose.yml)": workers - {"redis"},
    }
    assert {where: sorted(names) for where, names in named.items()} == {
        where: sorted(FAMILIES) for where in named
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_one_name_everywhere(family: str) -> None:
    services, example = compose()["services"], read(".env.example")
    service = services.get(family, {})
    missing = [
        what
        for what, is_there in {
            f"callers/{family}.py": (ROOT / "callers" / f"{family}.py").is_file(),
            f"image of {family} in docker-compose.yml": service.get("image")
            == f"${{IMAGE_PREFIX:-task-cluster}}/{family}",
            f"build of {family} in docker-compose.yml": service.get("build", {}).get("dockerfile")
            == f"{family}/Dockerfile",
            f"call-{family} in docker-compose.yml": f"call-{family}" in services,
            f"{family.upper()}_REPLICAS in .env.example": f"#{family.upper()}_REPLICAS=" in example,
            f"{family.upper()}_CONCURRENCY in .env.example": f"#{family.upper()}_CONCURRENCY="
            in example,
            f"row of {family} in README.md": f"| [`{family}`]({family}/tasks.py) |"
            in read("README.md"),
        }.items()
        if not is_there
    ]

    assert not missing, "\n".join(["missing:", *missing])


def test_the_demo_asks_for_what_the_caller_services_ask_for() -> None:
    services = compose()["services"]
    commands = [services[name]["command"] for name in services if name.startswith("call-")]

    assert commands == [["python", "-m", *words] for words in DEMO.values()]


@pytest.mark.parametrize("task", ROUTES)
def test_every_task_has_a_good_and_a_bad_example_and_is_in_the_readme(task: str) -> None:
    family, _, name = task.split(".")
    of_task = {job.task for job in JOBS} | ABOUT_JOBS, {job.task for job in BAD_JOBS}

    assert task in of_task[0], f"{family}/examples.py: EXAMPLES has none of the task {name}"
    assert task in of_task[1], f"{family}/examples.py: BAD_EXAMPLES has none of the task {name}"
    assert f"`{name}(" in read("README.md"), f"README.md has no row of the task {task}"


@pytest.mark.parametrize("job", [*JOBS, *BAD_JOBS], ids=str)
def test_every_example_is_one_of_a_task(job: Example | BadExample) -> None:
    family, _, name = job.task.split(".")

    assert job.task in ROUTES, f"{family}/examples.py: {family}/tasks.py has no task {name}"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_familys_requirements_name_the_packages_that_it_imports(family: str) -> None:
    lines = read(f"{family}/requirements.txt").splitlines()
    required = {re.sub(r"\[.*\]", "", line).lower() for line in lines if line[:1] not in {"", "#"}}
    packages = packages_distributions()
    for file in (ROOT / family).glob("*.py"):
        for module in imports(file):
            missing = {each.lower().replace("_", "-") for each in packages.get(module, ())}
            assert not missing or missing & required, (
                f"{family}/{file.name} imports {module}: name its package in "
                f"{family}/requirements.txt, then `make pins`"
            )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_worker_takes_jobs_from_its_own_queue_alone(family: str) -> None:
    app = importlib.import_module(f"{family}.worker").app
    with Client() as client:
        queue = client.app.amqp.router.route({}, next(t for t in ROUTES if t.startswith(family)))

    assert app.main == family == queue["queue"].name == queue["queue"].routing_key
