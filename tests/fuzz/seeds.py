"""Good inputs and known bad ones, from which the fuzzers begin: `python -m tests.fuzz.seeds`."""

import base64
import json
from hashlib import sha1
from pathlib import Path
from typing import Any
from zlib import compress

from kombu.utils.json import dumps

from cluster.values.codec import pack
from tests.fuzz.targets import JOB
from tests.support.messages import CALL, message

CORPUS = Path(__file__).parent / "corpus"


def _packed(kind: str, **fields: Any) -> Any:
    return {"__type__": kind, "__value__": fields}


def _values() -> list[bytes]:
    text = base64.b64encode(b'{"a": [1, 2]}').decode()
    reference = {"key": f"celery-blob-argument-{JOB}-{32 * 'a'}", "size": 8, "chunk": 2**20}
    values = [
        pack(10**5000),
        1 + 2j,
        {"__type__": 1, "__value__": [2]},
        _packed("ndarray", dtype="<f8", shape=[2], order="C", data=21 * "A" + "A=="),
        _packed("ndarray", dtype="f8," * 50, shape=[10**50], order="C", data=reference),
        _packed("json", data=text),
        _packed("json", data=reference),
        [4, 0.5, "x", None, True],
    ]
    return [dumps(pack(value)).encode() for value in values]


def _results() -> list[bytes]:
    error = {"exc_type": "ValueError", "exc_module": "builtins", "exc_message": ["x"]}
    meta = {"status": "SUCCESS", "result": 1, "traceback": None, "children": [], "task_id": JOB}
    metas: list[Any] = [
        meta,
        {**meta, "status": "FAILURE", "result": {**error, "exc_text": "y"}},
        {**meta, "status": "REVOKED", "result": {**error, "exc_type": "Odd"}},
        {**meta, "status": "RETRY", "result": None},
        {**meta, "status": "STARTED", "result": {"pid": 1, "hostname": "add@x"}},
        {**meta, "children": [[["a", None], [[["b", None], None]]]], "group_id": "g"},
        *(json.loads(dumps({**meta, "result": json.loads(value)})) for value in _values()),
    ]
    texts = [json.dumps(each).encode() for each in metas]
    packed = b"\0celery-compressed\0application/x-gzip\0" + compress(texts[0])
    return [*texts, packed, b"[" + b",".join(texts[:3]) + b"]"]


def seeds() -> dict[str, list[bytes]]:
    """Return the first inputs of each target."""
    odd = {"eta": "2026-11-27T20:00:00Z", "timelimit": [10, 5], "retries": 1, "group": "g"}
    messages = [
        json.dumps(each).encode()
        for each in (
            message(),
            message(odd, {"priority": 9}),
            message({"timelimit": [10**50, None]}, {"priority": 10**50, "reply_to": 7}),
            message() | {"headers": {}, "body": "e30="},
            message({"compression": "application/x-gzip"}),
        )
    ]
    signature = {"task": "add.tasks.add", "args": [], "kwargs": {}, "options": {}}
    linked = [[4], {"y": 6}, {"callbacks": [signature], "chord": signature, "chain": None}]
    old: dict[str, Any] = {
        "task": "add.tasks.add",
        "id": JOB,
        "args": [4],
        "kwargs": {},
        "eta": None,
    }
    notices = [*_results(), b"celery-task-meta-8d3f"]
    return {
        "envelope": messages,
        "call": [json.dumps(each).encode() for each in (CALL, linked, old)],
        "entry": [
            *messages,
            *(b"message\n" + each + b"\ndeliveries\n2" for each in messages),
        ],
        "value": _values(),
        "result": _results(),
        "notice": notices,
        "letter": messages,
    }


def keep(target: str, data: bytes) -> None:
    """Put an input into the corpus."""
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    digest = sha1(data, usedforsecurity=False).hexdigest()
    (folder / f"{digest[:16]}.bin").write_bytes(data)


if __name__ == "__main__":
    for name, inputs in seeds().items():
        for each in inputs:
            keep(name, each)
