"""The private names of Celery, kombu, billiard and redis-py that we rely on, in one list.

An upgrade that removes one fails here, and names it.
"""

import ast
import inspect
import re
from importlib import import_module
from typing import Any

import pytest

from tests.support.repo import ROOT

#: By the object that has them, as `module:name`; attributes of instances are found in its source.
PRIVATE: dict[str, str] = {
    # Celery
    "celery._state": "_task_stack get_current_worker_task task_join_will_block",
    "celery.app.base:Celery": "_tasks _get_backend",
    "celery.app.task:Task": "_get_exec_options",
    "celery.app.autoretry": "_orig_run",
    "celery.app.trace": "LOG_RECEIVED",
    "celery.backends.asynchronous:AsyncBackendMixin": (
        "_ensure_not_eager _maybe_resolve_from_buffer _remove_pending_result"
    ),
    "celery.backends.asynchronous:BaseResultConsumer": "_pending_results _wait_for_pending",
    "celery.backends.base:Backend": "_ensure_retryable _get_result_meta",
    "celery.backends.base:BaseKeyValueStoreBackend": (
        "_chord_expires _forget _get_task_meta_for _restore_group _store_result"
    ),
    "celery.backends.redis:RedisBackend": (
        "_MAX_STR_VALUE_SIZE _chord_part_return_script _get_client _get_pool _params_from_url"
    ),
    "celery.backends.redis": "CHORD_PART_RETURN_LUA",
    "celery.beat:Scheduler": "_is_due_failed",
    "celery.canvas": "_chain",
    "celery.concurrency.base:BasePool": "_get_info",
    "celery.result:AsyncResult": "_cache _set_cache",
    "celery.worker.consumer:Consumer": "_limit_move_to_pool _limit_post_eta _limit_task",
    "celery.worker.request:Request": "_already_cancelled _apply_result _context _eta _message",
    "celery.worker.worker:WorkController": "_process_task",
    # kombu
    "kombu.asynchronous.hub:Hub": "_pop_ready",
    "kombu.connection:Connection": "_reraise_as_library_errors",
    "kombu.message:Message": "_state",
    "kombu.messaging:Producer": "_publish",
    "kombu.transport.redis:Channel": (
        "_basic_cancel _brpop_read _brpop_sent_at _brpop_start _connparams _create_client "
        "_deliver_fanout_message _expires _fanout_queues _flush_brpop_reauth _get _has_queue "
        "_in_poll _new_queue _on_connection_disconnect _process_credential_provider _purge _put "
        "_q_for_pri _queue_cycle _receive_one _size"
    ),
    "kombu.transport.redis:MultiChannelPoller": "_channels",
    "kombu.transport.virtual:Channel": ("_consumers _inplace_augment_message _qos"),
    "kombu.transport.virtual:Message": "_raw",
    "kombu.transport.virtual:QoS": "_delivered _dirty _flush _on_collect",
    "kombu.transport.virtual:Transport": "_callbacks _deliver",
    # billiard
    # redis-py
    "redis.connection:AbstractConnection": "_sock",
}


#: Names that Python itself gives to classes.
PYTHONS = ("_abc_impl", "_is_protocol")


def owner(path: str) -> Any:
    """Return a module, or an object in it."""
    module, _, name = path.partition(":")
    found = import_module(module)
    return getattr(found, name) if name else found


@pytest.mark.parametrize("path", PRIVATE)
def test_the_names_exist(path: str) -> None:
    found = owner(path)
    source = inspect.getsource(found)
    missing = [
        name
        for name in PRIVATE[path].split()
        if not hasattr(found, name) and not re.search(rf"\b{name}\b", source)
    ]

    assert missing == []


def listed() -> set[str]:
    """Return all private names of the list."""
    return {name for names in PRIVATE.values() for name in names.split()}


def files() -> list[Any]:
    """Return the files of the product."""
    packages = ("celery_streams", "cluster", "callers")
    return [path for name in packages for path in (ROOT / name).rglob("*.py")]


def test_every_private_name_of_another_package_is_listed() -> None:
    """Our classes override or annotate it, or a line says that it reads one (SLF001)."""
    ours = own_names()
    unlisted: dict[str, list[str]] = {}
    for path in files():
        text = path.read_text()
        used = {
            name
            for line in text.splitlines()
            if "SLF001" in line
            for name in re.findall(r"\._[a-z]\w*", line.partition("#")[0])
        }
        for name in {each.removeprefix(".") for each in used} - listed() - ours:
            unlisted.setdefault(path.name, []).append(name)
        for name in overridden(path) - listed():
            unlisted.setdefault(path.name, []).append(name)

    assert unlisted == {}


def own_names() -> set[str]:
    """Return the private names that our own functions, classes and assignments define."""
    names: set[str] = set()
    for path in files():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(node.name)
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                names.add(node.attr)
    return {name for name in names if name.startswith("_")}


def overridden(path: Any) -> set[str]:
    """Return the private names in classes of a file that a base of another package has, too."""
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    if name.endswith("__main__"):
        return set()
    found: set[str] = set()
    for kind in vars(import_module(name)).values():
        if not inspect.isclass(kind) or kind.__module__ != name:
            continue
        for base in kind.__mro__[1:]:
            if base.__module__.partition(".")[0] in {"celery", "kombu", "billiard", "redis"}:
                own = {*vars(kind), *vars(kind).get("__annotations__", {})} - {*PYTHONS}
                found |= {
                    each for each in own if each[:1] == "_" != each[1:2] and hasattr(base, each)
                }
    return found
