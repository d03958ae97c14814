"""The result backend, extended by values of any size and the original errors of chords."""

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property, partial
from hashlib import blake2b
from time import monotonic
from typing import Any
from uuid import uuid4

from celery.exceptions import ChordError
from kombu.utils.functional import maybe_list
from redis.exceptions import RedisError

from celery_streams.results import backend
from cluster.errors import ClusterError, Unreadable
from cluster.values import blobs
from cluster.values.blobs import Blobs, Progress, Reference
from cluster.values.codec import Put, references, unpack

#: Kinds of keys, which after their prefix are `argument-<job>-<32 hexadecimal digits>` or
#: `result-…`. Only that job reads an argument, and deletes it at its end; any job reads a result.
_ARGUMENT, _RESULT = "argument", "result"
#: Job ids that are used in a key unchanged; others are hashed.
_PLAIN_ID = re.compile(r"[\w.-]{1,128}", re.ASCII)
#: Last part of a key, which distinguishes the values of one job.
_PART = re.compile(r"[0-9a-f]{32}")
#: Expiry of a large value if results never expire, in seconds: a hundred years.
_NO_EXPIRY = 100 * 365 * 86_400


class Meta(dict[str, Any]):
    """A stored result whose large values are fetched when its `result` is read.

    Celery's AsyncResult, GroupResult and ResultSet read it like any other.
    """

    def __init__(self, meta: dict[str, Any], backend: "RedisBackend") -> None:
        super().__init__(meta)
        # Only its own values: those of another job are not removed with it.
        self.references = [
            reference
            for reference in references(meta["result"])
            if _is_of(_RESULT, meta.get("task_id"), reference)
        ]
        self._backend = backend
        self._is_fetched = False

    def __getitem__(self, key: str) -> Any:
        if key == "result" and not self._is_fetched:
            self["result"] = self._backend.fetch(super().__getitem__(key))
            self._is_fetched = True
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        """Return the item of a key, as `[]` does, or `default`."""
        try:
            return self[key]
        except KeyError:
            return default


class RedisBackend(backend.RedisBackend):
    """Stores large values by reference, and fails a chord with the error of its member."""

    # Missing from the type stubs.
    app: Any
    expires: Any
    _ensure_retryable: Callable[..., Any]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._of_thread = threading.local()

    # Large values ------------------------------------------------------------------

    @cached_property
    def _blobs(self) -> Blobs:
        return Blobs(self.client.connection_pool)

    @contextmanager
    def results_put(self, job_id: str) -> Iterator[Put]:
        """Yield a function that stores a large value of a job's result.

        The values expire with the result. Redis keeps them in memory only, since writing them to
        disk would take several times as long as the transfer and block other jobs: after a restart
        of Redis, reading one raises ValueGone.
        """
        with self._all_put(_name(_RESULT, job_id), int(self.expires or 0), on_disk=False) as put:
            yield put

    @contextmanager
    def arguments_put(self, job_id: str) -> Iterator[Put]:
        """Yield a function that stores a large argument of a job, on disk as the job itself is."""
        with self._all_put(_name(_ARGUMENT, job_id), self._longest_wait, on_disk=True) as put:
            yield put

    @contextmanager
    def body_put(self, job_id: str) -> Iterator[Put]:
        """Yield a function that stores a large argument of a chord's body, which all members carry.

        The first member stores a value; the others find it by the body's id and its digest.
        """
        name = _name(_ARGUMENT, job_id)
        with self._all_put(name, self._longest_wait, on_disk=True) as put:

            def put_once(data: memoryview) -> Reference:
                digest = blake2b(data, digest_size=16).hexdigest()
                found: Reference | None = self._retrying(
                    self._blobs.find, f"{name}-{digest}", len(data)
                )
                return found or put(data, digest)

            yield put_once

    @property
    def _longest_wait(self) -> int:
        return int(self.expires or 0) + int(self.app.conf.longest_countdown)

    @contextmanager
    def _all_put(
        self, name: str, seconds: int, *, on_disk: bool
    ) -> Iterator[Callable[..., Reference]]:
        """Yield a function that stores a value; if the block fails, delete all that it stored."""
        stored: list[Reference] = []
        store = partial(self._blobs.put, on_disk=on_disk, progress=self._progress)

        def put(data: memoryview, part: str = "") -> Reference:
            # A new key for every run: two runs of one job must not mix.
            key = f"{name}-{part or uuid4().hex}"
            stored.append(self._retrying(store, key, data, seconds or _NO_EXPIRY))
            return stored[-1]

        try:
            yield put
        except BaseException:
            with suppress(RedisError):
                self._blobs.delete(stored)
            raise

    def _retrying(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call `function`, retrying lost connections until the deadline or by Celery's policy."""
        deadline = getattr(self._of_thread, "deadline", None)
        if deadline is None:
            return self._ensure_retryable(self.ensure, function, args)
        left = max(deadline - monotonic(), 0.1)
        return self.ensure(function, args, max_retries=None, timeout=left)

    def fetch(self, value: Any, job_id: str | None = None) -> Any:
        """Return `value`, the arguments of a job or a result, with its large values fetched.

        Raise ValueGone, Unreadable or OutOfMemory.
        """

        def fill(reference: Mapping[str, Any], into: memoryview) -> None:
            if _is_argument(reference) and not _is_of(_ARGUMENT, job_id, reference):
                raise Unreadable("a value refers to an argument of another job")
            self._retrying(partial(self._blobs.get, progress=self._progress), reference, into)

        try:
            return unpack(value, fill)
        except RecursionError:
            raise Unreadable("a value is nested too deeply") from None

    def forget_arguments(self, job_id: str, arguments: Any) -> None:
        """Delete the large arguments of a job that has ended, but none of another job."""
        own = (each for each in references(arguments) if _is_of(_ARGUMENT, job_id, each))
        self._blobs.delete(own)

    @contextmanager
    def report_transfers(self, progress: Progress, deadline: float) -> Iterator[None]:
        """Call `progress(bytes transferred, total)` for each chunk that this thread transfers.

        Lost connections are retried until `deadline`, a time of the monotonic clock.
        """
        outer = vars(self._of_thread).copy()
        self._of_thread.progress, self._of_thread.deadline = progress, deadline
        try:
            yield
        finally:
            vars(self._of_thread).clear()
            vars(self._of_thread).update(outer)

    def _progress(self, done: int, size: int) -> None:
        progress = getattr(self._of_thread, "progress", None)
        if progress:
            progress(done, size)

    # Celery's hooks ------------------------------------------------------------------

    def meta_from_decoded(self, meta: dict[str, Any]) -> dict[str, Any]:
        """Return a stored result; its large values are not fetched yet."""
        if isinstance(meta, Meta):  # Celery calls this twice
            return meta
        meta = super().meta_from_decoded(meta)
        try:
            return Meta(meta, self) if any(references(meta["result"])) else meta
        except RecursionError:
            raise Unreadable("a result is nested too deeply") from None

    def _forget(self, task_id: str) -> None:
        meta = None
        with suppress(ClusterError):  # an unreadable result is removed, too
            meta = self._get_task_meta_for(task_id)
        self.remove(task_id, meta)

    def remove(self, job_id: str, meta: Any) -> None:
        """Delete the result of a job and its large values in one command."""
        large = meta.references if isinstance(meta, Meta) else ()
        self._blobs.delete(large, self.get_key_for_task(job_id))

    def chord_error_from_stack(self, callback: Any, exc: Exception | None = None) -> Any:
        """Fail a chord's body, and the jobs linked to it, with the error of the member.

        Celery would wrap it in ChordError: a ValueError would look like a lost worker.
        """
        if isinstance(exc, ChordError) and isinstance(exc.__cause__, Exception):
            exc = exc.__cause__
        # `set(link_error=…)` stores a single signature; Celery would iterate over its keys.
        callback.options["link_error"] = maybe_list(callback.options.get("link_error")) or []
        return super().chord_error_from_stack(callback, exc)


def _name(kind: str, job_id: str) -> str:
    """Return the common part of the keys of a job's large values, without the prefix."""
    if not _PLAIN_ID.fullmatch(job_id):
        job_id = blake2b(job_id.encode(errors="surrogatepass"), digest_size=16).hexdigest()
    return f"{kind}-{job_id}"


def _is_argument(reference: Reference) -> bool:
    return str(blobs.check(reference)["key"]).startswith(f"{blobs.PREFIX}{_ARGUMENT}-")


def _is_of(kind: str, job_id: str | None, reference: Reference) -> bool:
    """Return True if `reference` is to a value of the job `job_id`."""
    if not job_id or not blobs.is_reference(reference):
        return False
    owner, _, part = reference["key"].rpartition("-")
    return owner == blobs.PREFIX + _name(kind, job_id) and _PART.fullmatch(part) is not None
