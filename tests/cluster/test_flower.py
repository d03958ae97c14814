"""Flower: its pages, its password, and the operations that it refuses."""

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from callers.client import Client
from tests.support.families import FAMILIES
from tests.support.flower import USER, Flower
from tests.support.stack import Stack, docker
from tests.support.waiting import eventually


@pytest.fixture(scope="session")
def chromium() -> str:
    """Debian's Chromium; without it the tests are skipped, or fail if CI requires them."""
    path = shutil.which("chromium")
    if path is None:
        if os.environ.get("REQUIRE_DOCKER"):
            pytest.fail("REQUIRE_DOCKER is set, and there is no chromium", pytrace=False)
        pytest.skip("there is no chromium: Flower's pages are not tested in a browser")
    return path


@pytest.fixture
def page(flower: Flower, chromium: str) -> Iterator[Page]:
    """A browser's page that is logged in to Flower."""
    expect.set_options(timeout=30_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser.new_page(
            base_url=flower.url,
            http_credentials={"username": USER, "password": flower.password},
        )
        browser.close()


@pytest.fixture
def job(flower: Flower, client: Client) -> str:
    """The id of a job, 4 + 6, that Flower has seen to its end."""
    return eventually("Flower shows a job", lambda: run_a_job(flower, client))


def run_a_job(flower: Flower, client: Client) -> str:
    """Run a job, and return its id if Flower shows its success within two seconds, or "".

    It misses the events of a new worker until it has enabled them, as it does every five seconds.
    """
    result = client.submit("add.tasks.add", 4, 6)
    assert result.get(timeout=30) == 10
    try:
        eventually("the job is shown", lambda: flower.has_seen(result.id), 2)
    except AssertionError:
        return ""
    job_id: str = result.id
    return job_id


def test_a_browser_sees_the_workers_the_queues_and_a_jobs_success(page: Page, job: str) -> None:
    page.goto("/")
    for family in FAMILIES:
        expect(page.locator("#workers-table tr", has_text=f"{family}@")).to_contain_text("Online")

    page.goto("/broker")
    for family in FAMILIES:
        expect(page.locator(f"tr#{family}")).to_contain_text("0")

    page.goto("/tasks")
    page.locator("#tasks-table a", has_text=job).click()
    expect(page.locator("#task-page")).to_contain_text("SUCCESS")
    expect(page.locator("#task-page")).to_contain_text("add.tasks.add")
    expect(page.locator("#task-page")).to_contain_text("(4, 6)")


def test_the_lengths_of_the_queues_are_true(page: Page, flower: Flower, client: Client) -> None:
    later = client.signature("add.tasks.add", 4, 6).set(countdown=3600)
    for _ in range(3):
        client.submit(later)

    queues = {queue["name"]: queue for queue in flower.json("/api/queues/length")["active_queues"]}
    assert queues["add"]["delayed"] == 3
    assert queues.keys() == set(FAMILIES)
    _, metrics = flower.ask("/metrics", None)
    assert 'flower_queue_jobs{queue="add",state="delayed"} 3.0' in metrics
    page.goto("/broker")
    # Another test may have left a dead letter.
    dead = str(queues["add"]["dead"])
    expect(page.locator("tr#add td")).to_have_text(["add", "0", "3", "0", dead])
    client.app.control.purge()


def test_what_a_job_is_called_is_shown_as_text(page: Page, flower: Flower, client: Client) -> None:
    script = "<img src=x onerror=document.title='ran'>"
    named = client.signature("add.tasks.longtime_add", 4, 6, 0).set(
        argsrepr=script, kwargsrepr=script
    )

    def is_seen() -> str:
        job = client.submit(named)
        job.get(timeout=30)
        try:
            eventually("the job is shown", lambda: flower.has_seen(job.id), 2)
        except AssertionError:
            return ""
        return str(job.id)

    job_id = eventually("Flower shows a job", is_seen)
    # The list may cut the arguments off; the page of the job does not.
    for path, shown in (("/tasks", job_id), (f"/task/{job_id}", script)):
        page.goto(path)
        expect(page.locator("body")).to_contain_text(shown)
        assert page.title() != "ran"


@pytest.mark.parametrize("password", [None, "", "wrong"])
@pytest.mark.parametrize(
    "path",
    [
        *("/", "/workers?json=1", "/tasks", "/broker", "/task/any", "/worker/any"),
        *("/api/workers", "/api/tasks", "/api/task/info/any", "/api/queues/length"),
    ],
)
def test_nothing_is_shown_without_the_password(
    flower: Flower, path: str, password: str | None
) -> None:
    status, text = flower.ask(path, password)

    assert status == 401
    assert text in {"", "Access denied"}


@pytest.mark.parametrize(
    "path",
    [
        "/api/worker/shutdown/{worker}",
        "/api/worker/pool/shrink/{worker}",
        "/api/worker/queue/cancel-consumer/{worker}",
        "/api/task/async-apply/add.tasks.add",
        "/api/task/revoke/any",
    ],
)
def test_flower_changes_nothing(flower: Flower, client: Client, path: str) -> None:
    worker = next(iter(eventually("a worker is shown", lambda: flower.workers("add@"))))
    status, _ = flower.ask(path.format(worker=worker), flower.password, "POST")

    assert status == 403
    # A worker replies to a shutdown before it ends: a second ping shows that it still runs.
    assert client.app.control.ping([worker], timeout=20) == [{worker: {"ok": "pong"}}]


def test_workers_that_start_after_flower_are_shown_with_their_jobs(
    flower: Flower, client: Client, three_add_workers: list[str]
) -> None:
    def all_have_done_some() -> bool:
        client.map("add.tasks.longtime_add", [(i, i, 0.2) for i in range(24)])
        done = [worker.get("task-succeeded", 0) for worker in flower.workers("add@").values()]
        return len(done) == len(three_add_workers) and all(done)

    eventually("all three workers have done some jobs", all_have_done_some, 60)


def test_a_restart_of_redis_does_not_blind_flower(
    stack: Stack, flower: Flower, client: Client, job: str
) -> None:
    stack.compose("restart", "redis")
    stack.wait_until_healthy("redis")

    assert eventually("Flower shows another", lambda: run_a_job(flower, client), 60) != job


def test_the_history_survives_a_restart_of_flower(stack: Stack, flower: Flower, job: str) -> None:
    stack.compose("--profile", "monitoring", "restart", "flower")
    stack.wait_until_healthy("flower")

    assert flower.state(job) == "SUCCESS"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (
            ("--env", "FLOWER_READ_ONLY=perhaps"),
            "error: FLOWER_READ_ONLY must be true or false, not 'perhaps'",
        ),
        (
            ("--env", "JOB_LEASE=x"),
            "error: JOB_LEASE must be a whole number from 1 to 1000000000, not 'x'",
        ),
        (
            (),
            "error: cannot read /run/secrets/flower_password: No such file or directory",
        ),
        (
            ("--volume", "/dev/null:/run/secrets/flower_password:ro"),
            "error: /run/secrets/flower_password must contain a password, in ASCII",
        ),
    ],
    ids=["read-only", "lease", "no password", "empty password"],
)
def test_a_wrong_setting_is_one_line(
    stack: Stack, flower: Flower, arguments: tuple[str, ...], error: str
) -> None:
    image = stack.inspect(stack.containers("flower")[0])["Image"]
    with pytest.raises(AssertionError) as failure:
        docker("run", "--rm", *arguments, image)

    assert str(failure.value).endswith(f"{image}: {error}\n")
