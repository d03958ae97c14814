"""Whatever is read from outside, only documented errors come of it: a short run of the fuzzers."""

import base64
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz.__main__ import fuzz
from tests.fuzz.seeds import CORPUS, seeds
from tests.fuzz.targets import JOB, TARGETS
from tests.support.messages import message

#: Of this run; that of another is repeated by SEED.
SEED = int(os.environ.get("SEED") or random.SystemRandom().randrange(2**31))
#: New inputs of each property, and of the fuzzer that coverage guides.
EXAMPLES, RUNS = 300, 20_000

FILES = sorted(path for path in CORPUS.rglob("*") if path.is_file())

_odd = st.sampled_from(
    [10**400, -1, 1e308, float("inf"), float("nan"), "\ud800", "x" * 5000, "", JOB, "SUCCESS"]
)
_names = st.sampled_from(
    [
        *("headers", "properties", "body", "id", "task", "timelimit", "eta", "group", "chord"),
        *("status", "result", "task_id", "children", "traceback", "exc_type", "exc_module"),
        *("data", "dtype", "shape", "order", "items", "key", "size", "chunk", "callbacks"),
    ]
)
_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | _odd
_kinds = st.sampled_from(["int", "json", "dict", "ndarray", "complex", "decimal", "uuid", "bytes"])


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    marked = st.fixed_dictionaries({"__type__": _kinds, "__value__": inner})
    fields = st.dictionaries(_names, inner, max_size=4)
    return st.lists(inner, max_size=4) | fields | marked


VALUES = st.recursive(_scalars, _containers, max_leaves=12)


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _array(dtype: Any, shape: Any, order: Any, data: Any) -> bytes:
    fields = {"dtype": dtype, "shape": shape, "order": order, "data": data}
    return _json({"__type__": "ndarray", "__value__": fields})


def _stored(status: Any, result: Any, more: dict[str, Any]) -> bytes:
    return _json({"status": status, "result": result, "task_id": JOB, **more})


def _message(headers: dict[str, Any], properties: dict[str, Any], body: Any) -> bytes:
    text = base64.b64encode(_json(body)).decode()
    return _json(message(headers, properties, body=text))


_fields = st.dictionaries(_names, VALUES, max_size=3)
_data = st.binary(max_size=40).map(lambda data: base64.b64encode(data).decode()) | VALUES
_states = st.sampled_from(["SUCCESS", "FAILURE", "RETRY", "REVOKED", "STARTED"]) | VALUES
MESSAGES = st.builds(_message, _fields, _fields, VALUES)
RESULTS = st.builds(_stored, _states, VALUES, _fields)

#: What each target is given besides any JSON and any bytes.
OF_THEIR_KIND: dict[str, st.SearchStrategy[bytes]] = {
    "envelope": MESSAGES,
    "call": st.tuples(VALUES, VALUES, _fields).map(_json),
    "entry": MESSAGES,
    "value": st.builds(_array, VALUES | st.just("<f8"), VALUES, VALUES | st.just("C"), _data),
    "result": RESULTS,
    "notice": RESULTS | st.lists(RESULTS).map(lambda texts: b"[" + b",".join(texts) + b"]"),
    "letter": MESSAGES,
}


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}-{file.name}")
def test_the_corpus_does_no_harm(file: Path) -> None:
    TARGETS[file.parent.name](file.read_bytes())


def test_every_target_has_a_corpus_with_its_seeds_and_inputs_of_its_kind() -> None:
    assert {file.parent.name for file in FILES} == TARGETS.keys() == OF_THEIR_KIND.keys()
    kept = {file.read_bytes() for file in FILES}
    for target, inputs in seeds().items():
        assert target in TARGETS
        assert inputs
        assert {*inputs} <= kept, "run: python -m tests.fuzz.seeds"
    assert len(kept) < 1000
    assert sum(map(len, kept)) < 2**20


@pytest.mark.parametrize("target", TARGETS)
def test_no_input_does_harm(target: str) -> None:
    print(f"seed {SEED}")  # noqa: T201 - shown where the test fails

    @seed(SEED)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(OF_THEIR_KIND[target] | VALUES.map(_json) | st.binary(max_size=300))
    def do(data: bytes) -> None:
        TARGETS[target](data)

    check: Callable[[], None] = do
    check()


def test_the_fuzzer_that_coverage_guides_finds_nothing() -> None:
    print(f"seed {SEED}")  # noqa: T201 - the same
    run = fuzz("any", RUNS, SEED)

    assert not run.finding, run.finding
    assert run.executions >= RUNS
