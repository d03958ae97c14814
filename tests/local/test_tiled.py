"""Products that are too large for one worker, assembled from tiles."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from callers import tiled
from callers.client import Client
from cluster.errors import JobTimeout
from mat_mul.examples import product
from tests.support.local import Local

#: Limit of the workers here, in bytes: products of a few hundred rows have many tiles.
MAX_BYTES = 400_000


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """A cluster of two mat_mul workers with a limit of MAX_BYTES."""
    local = Local(
        tmp_path_factory.mktemp("local"), MAT_MUL_MAX_BYTES=str(MAX_BYTES), MAT_MUL_REPLICAS="2"
    )
    try:
        local.wait_until_ready()
        yield local
    finally:
        assert local.stop() == 0, local.output()


@pytest.fixture(autouse=True)
def max_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The caller knows the workers' limit."""
    monkeypatch.setenv("MAT_MUL_MAX_BYTES", str(MAX_BYTES))


@pytest.fixture
def client(small: Local) -> Iterator[Client]:
    """A client of that cluster."""
    with small.client() as client:
        yield client


@pytest.fixture
def forgets(client: Client, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Check in the end that no result of the submitted jobs is stored."""
    submit = client.submit
    jobs: list[Any] = []

    def submit_(job: Any) -> Any:
        jobs.append(submit(job))
        return jobs[-1]

    monkeypatch.setattr(client, "submit", submit_)
    yield
    assert [job.id for job in jobs if job.state != "PENDING"] == []


@pytest.mark.usefixtures("forgets")
def test_a_product_of_random_matrices(client: Client) -> None:
    came: list[tuple[int, int]] = []
    got = tiled.mat_mul(client, 250, 40, 7, on_tile=lambda *done: came.append(done))

    assert got.dtype == np.float64
    np.testing.assert_allclose(got, product(250, 40, 7), rtol=1e-12)
    assert came == [(i, len(came) - 1) for i in range(len(came))]
    assert len(came) > 2 * tiled.MAX_IN_FLIGHT


def test_without_a_seed_every_product_is_another(client: Client) -> None:
    one, another = tiled.mat_mul(client, 2, 2), tiled.mat_mul(client, 2, 2)

    assert (one != another).all()


@pytest.mark.usefixtures("forgets")
@pytest.mark.parametrize(
    ("a", "b"),
    [
        (np.arange(200 * 80.0).reshape(200, 80), np.arange(80 * 150.0).reshape(80, 150)),
        (np.arange(200 * 80).reshape(200, 80), np.asfortranarray(np.ones((80, 9), np.float32))),
        (np.full((150, 30), np.nan), np.ones((30, 150), complex)),
        (np.ones((1, 4000)), np.ones((4000, 1))),
        (np.ones((30, 0)), np.ones((0, 30))),
        (np.ones((0, 3)), np.ones((3, 3))),
    ],
    ids=lambda operand: f"{operand.dtype}{operand.shape}",
)
def test_a_product_of_given_matrices(client: Client, a: Any, b: Any) -> None:
    got = tiled.multiply(client, a, b)

    assert got.dtype == (a @ b).dtype
    np.testing.assert_allclose(got, a @ b, rtol=1e-12)


@pytest.mark.usefixtures("forgets")
def test_operands_and_product_may_be_files(client: Client, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", rng.random((150, 150)))
    a, b = (np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in "ab")
    out = np.lib.format.open_memmap(tmp_path / "c.npy", "w+", np.float64, (150, 150))
    got = tiled.multiply(client, a, b, out=out)
    out.flush()

    assert got is out
    np.testing.assert_allclose(np.load(tmp_path / "c.npy"), a @ b)


@pytest.mark.usefixtures("forgets")
def test_a_tile_is_put_in_its_place_before_one_that_was_asked_for_first(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit, delays = client.submit, iter([{"countdown": 1}])
    monkeypatch.setattr(client, "submit", lambda job: submit(job.set(**next(delays, {}))))
    out = np.full((250, 250), np.nan)
    first_came: list[bool] = []
    tiled.mat_mul(client, 250, 40, 7, out=out, on_tile=lambda *_: first_came.append(out[0, 0] > 0))

    assert not first_came[tiled.MAX_IN_FLIGHT]
    assert first_came[-1]
    np.testing.assert_allclose(out, product(250, 40, 7), rtol=1e-12)


def test_one_tiles_error_ends_it_all(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAT_MUL_MAX_BYTES", str(100 * MAX_BYTES))
    came: list[tuple[int, int]] = []
    with pytest.raises(ValueError, match="a tile must need at most 400000 bytes"):
        tiled.mat_mul(client, 2000, 100, 7, on_tile=lambda *done: came.append(done))

    assert [done for done, _ in came] == [0]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_what_is_not_computed_when_it_ends_never_is(
    client: Client, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    submit = client.submit
    jobs: list[Any] = []

    def with_the_fourth_later(job: Any) -> Any:
        jobs.append(submit(job.set(countdown=60) if len(jobs) >= 3 else job))
        return jobs[-1]

    def on_tile(done: int, total: int) -> None:
        if done == 3:
            raise error

    monkeypatch.setattr(client, "submit", with_the_fourth_later)
    with pytest.raises(error):
        tiled.mat_mul(client, 250, 40, 7, on_tile=on_tile)
    answers = client.app.control.inspect(timeout=20, limit=4).revoked() or {}

    assert {job.id for job in jobs[3:]} <= {id_ for ids in answers.values() for id_ in ids}
    # The workers still run other jobs.
    np.testing.assert_allclose(client.call("mat_mul.tasks.multiply", [[2]], [[3]]), [[6]])


def test_one_deadline_for_all_tiles(server_only: Local) -> None:
    with (
        server_only.client() as client,
        pytest.raises(JobTimeout, match=r"0 of \d+ tiles done within 3 s: nothing is known of"),
    ):
        tiled.mat_mul(client, 250, 40, 7, timeout=3)


def test_the_command_splits_what_is_too_large_and_fills_a_file(
    small: Local, tmp_path: Path
) -> None:
    c, d = str(tmp_path / "c.npy"), str(tmp_path / "d.npy")
    first = small.command("callers.mat_mul", "250", "40", "--seed", "7", "--out", c)
    second = small.command("callers.mat_mul", "--a", c, "--b", c, "--out", d)
    printed = small.command("callers.mat_mul", "150", "100", "--seed", "7", "--brief")

    for done in (first, second, printed):
        assert (done.stderr, done.returncode) == ("", 0)
    np.testing.assert_allclose(np.load(c), product(250, 40, 7))
    np.testing.assert_allclose(np.load(d), np.load(c) @ np.load(c))
    shown = np.array2string(product(150, 100, 7), threshold=64, edgeitems=2)
    assert printed.stdout == f"{shown}\n"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["c.npy", "d.npy"]


def test_a_tile_that_fails_leaves_no_file(small: Local, tmp_path: Path) -> None:
    done = small.command(
        *("callers.mat_mul", "2000", "100", "--tiled", "--out", str(tmp_path / "c.npy")),
        MAT_MUL_MAX_BYTES=str(100 * MAX_BYTES),
    )

    assert done.returncode == 1
    assert done.stderr.startswith("error: a tile must need at most 400000 bytes")
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
