"""The documents and the Makefile agree with the code."""

import re
from importlib import import_module

import pytest

from tests.support.capabilities import BARE, DOCKER, RUNNING, count_of_rows, rows
from tests.support.repo import ROOT, expanded, make_targets, read

DOCUMENTS = [
    "README.md",
    "CHANGELOG.md",
    *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/*.md")),
]

INTERFACE = {
    "help",
    "docker_compose_start",
    "docker_compose_stop",
    "docker_compose_clean",
    "docker_compose_scale",
    "monitoring",
    "demo",
    "local_start",
    "local_stop",
    "celery_start_add_worker",
    "celery_start_factorial_worker",
    "celery_start_mat_mul_worker",
    "test_add_task",
    "test_factorial_task",
    "test_mat_mul_task",
    "kill_workers",
    "test",
    "test_docker",
    "lint",
    "bench",
}


def test_make_has_the_targets_others_rely_on() -> None:
    assert make_targets().keys() >= INTERFACE


@pytest.mark.parametrize("target", make_targets())
def test_a_recipe_is_short(target: str) -> None:
    assert len(make_targets()[target].splitlines()) <= 3


def test_every_target_has_its_line_of_help() -> None:
    lines = read("Makefile").replace("\\\n", " ")
    phony = " ".join(re.findall(r"^\.PHONY: (.*)$", lines, re.MULTILINE)).split()

    named = {name for target in phony for name in expanded(target)}

    differences = sorted(named ^ set(make_targets()))
    assert not differences, f"not both a target and in .PHONY: {', '.join(differences)}"


def test_the_readme_is_short() -> None:
    is_family = re.compile(r"\| (\[`\w+`\]\(\w+/tasks\.py\) )?\|").match
    lines = [line for line in read("README.md").splitlines() if not is_family(line)]

    assert len(lines) <= 120
    assert max(map(len, lines)) <= 160


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_to_files(document: str) -> None:
    folder = (ROOT / document).parent
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", read(document)):
        if "://" not in link:
            assert (folder / link).exists(), link


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_make_commands_of_a_document_exist(document: str) -> None:
    for target in re.findall(r"(?:^|`|; )make ([a-z_]+)", read(document), re.MULTILINE):
        assert target in make_targets(), target


def test_every_requirement_is_pinned() -> None:
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in read("constraints.txt").splitlines()
    }
    for file in (*ROOT.glob("*/requirements.txt"), *ROOT.glob("deploy/*/requirements.txt")):
        for line in file.read_text().splitlines():
            if line and not line.startswith(("#", "-r")):
                is_pinned = re.sub(r"\[.*\]", "", line).lower().replace("_", "-") in pinned
                assert is_pinned, f"{file.relative_to(ROOT)}: {line} has no pin: run `make pins`"


def test_every_row_of_the_capabilities_is_one_that_a_test_runs() -> None:
    read_rows = [row for section in (RUNNING, BARE, DOCKER) for row in rows(section)]

    assert len(read_rows) == count_of_rows() > 50


def test_the_workflow_runs_what_ci_runs_here() -> None:
    workflow = read(".github/workflows/ci.yml")

    assert re.findall(r"^\s+(?:- )?run: (.*)$", workflow, re.MULTILINE) == [
        "sudo .ci/browser",
        "make lint",
        "make test",
    ]
    for command in (".ci/browser", "make lint", "make test"):
        assert f"\n{command}\n" in read(".ci/run")
    assert "REQUIRE_DOCKER" in workflow
    assert "REQUIRE_DOCKER" in read(".ci/run")


PACKAGES = ("celery_streams", "cluster", "callers", "local", "bench", "develop")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_modules_and_names_in_a_document_exist(document: str) -> None:
    named = re.findall(rf"`((?:{'|'.join(PACKAGES)})\.[A-Za-z_.]+)`", read(document))

    assert [name for name in named if not _exists(name)] == []


def _exists(name: str) -> bool:
    """Return True for a module, a name in it, or an attribute of that."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:count])
        if path.is_dir() or path.with_suffix(".py").exists():
            found: object = import_module(".".join(parts[:count]))
            for part in parts[count:]:
                found = getattr(found, part, None)
            return found is not None
    return False


def test_the_files_that_the_architecture_names_exist() -> None:
    named = set(re.findall(r"`([a-z_/]+\.(?:py|lua))`", read("docs/architecture.md")))
    folders = [ROOT / name for name in PACKAGES]
    places = [ROOT, *folders, *(path for folder in folders for path in folder.glob("*/"))]

    assert len(named) > 40
    assert [file for file in named if not any((place / file).exists() for place in places)] == []
