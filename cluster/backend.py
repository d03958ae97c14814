"""The result store: Celery's, for values of any size, and with the error of a chord's member."""

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
from cluster import blobs
from cluster.blobs import Blobs, Progress, Reference
from cluster.codec import Put, references, unpack
from cluster.errors import ClusterError, Unreadable

#: What keys name after their prefix: `argument-<job>-<32 hexadecimal digits>`, which belongs to
#: that job alone and goes when it is done, or `result-…`, which other jobs are given, too.
_ARGUMENT, _RESULT = "argument", "result"
#: A job's id that can be part of a key as it is.
_PART_OF_KEY = re.compile(r"[\w.-]{1,128}", re.ASCII)
#: What tells the values of one job apart.
_PART = re.compile(r"[0-9a-f]{32}")
#: Seconds that a large value stays where results never expire: a hundred years.
FOREVER = 100 * 365 * 86_400


class Meta(dict[str, Any]):
    """What is known of a job; its value, if that is large, is fetched when it is asked for.

    Celery's AsyncResult, GroupResult and their kin all look it up here.
    """

    def __init__(self, known: dict[str, Any], backend: "RedisBackend") -> None:
        super().__init__(known)
        # What it may refer to of others' is not removed with it.
        self.references = [
            reference
            for reference in references(known["result"])
            if _is_of(_RESULT, known.get("task_id"), reference)
        ]
        self._backend = backend
        self._is_fetched = False

    def __getitem__(self, key: str) -> Any:
        if key == "result" and not self._is_fetched:
            self["result"] = self._backend.fetch(super().__getitem__(key))
            self._is_fetched = True
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        """Return what is known under a key."""
        try:
            return self[key]
        except KeyError:
            return default


class RedisBackend(backend.RedisBackend):
    """Keeps large values by reference, and gives whoever waits for a chord its member's error."""

    # What the type stubs leave out of Celery's class.
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
        """Give what stores the large values in a job's result, for as long as results stay.

        They are kept in the memory of Redis, and not on its disk: that would take several
        times as long as moving them, and keep other jobs waiting. A caller that comes after
        Redis was started anew gets ValueGone.
        """
        with self._all_put(_name(_RESULT, job_id), int(self.expires or 0), on_disk=False) as put:
            yield put

    @contextmanager
    def arguments_put(self, job_id: str) -> Iterator[Put]:
        """Give what stores the large values in a job's arguments, on disk as the job itself."""
        with self._all_put(_name(_ARGUMENT, job_id), self._longest_wait, on_disk=True) as put:
            yield put

    @contextmanager
    def body_put(self, job_id: str) -> Iterator[Put]:
        """Give what stores those of a chord's body, which each member of the group carries.

        The first one stores a value, the others find it, by the body's id and its digest.
        """
        name = _name(_ARGUMENT, job_id)
        with self._all_put(name, self._longest_wait, on_disk=True) as put:

            def put_once(data: memoryview) -> Reference:
                digest = blake2b(data, digest_size=16).hexdigest()
                found: Reference | None = self._tried(
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
        """Give what stores one value after the other; where the block fails, none stays."""
        stored: list[Reference] = []
        store = partial(self._blobs.put, on_disk=on_disk, progress=self._progress)

        def put(data: memoryview, part: str = "") -> Reference:
            # Under a name of its own for every run: two runs of one job must not mix.
            key = f"{name}-{part or uuid4().hex}"
            stored.append(self._tried(store, key, data, seconds or FOREVER))
            return stored[-1]

        try:
            yield put
        except BaseException:
            with suppress(RedisError):
                self._blobs.delete(stored)
            raise

    def _tried(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function until the deadline, or as often as a connection may be lost."""
        deadline = getattr(self._of_thread, "deadline", None)
        if deadline is None:
            return self._ensure_retryable(self.ensure, function, args)
        left = max(deadline - monotonic(), 0.1)
        return self.ensure(function, args, max_retries=None, timeout=left)

    def fetch(self, value: Any, job_id: str | None = None) -> Any:
        """Return a value with all that is packed in it: arguments of a job, or a result.

        Raises ValueGone, Unreadable or OutOfMemory, each in one sentence.
        """

        def fill(reference: Mapping[str, Any], into: memoryview) -> None:
            if _is_argument(reference) and not _is_of(_ARGUMENT, job_id, reference):
                raise Unreadable("a value refers to an argument of another job")
            self._tried(partial(self._blobs.get, progress=self._progress), reference, into)

        try:
            return unpack(value, fill)
        except RecursionError:
            raise Unreadable("a value is nested too deeply") from None

    def forget_arguments(self, job_id: str, arguments: Any) -> None:
        """Remove the large arguments of a job that is done, and nothing of another job."""
        own = (each for each in references(arguments) if _is_of(_ARGUMENT, job_id, each))
        self._blobs.delete(own)

    @contextmanager
    def transfers_shown(self, progress: Progress, deadline: float) -> Iterator[None]:
        """Call `progress(bytes done, bytes in all)` for each chunk that this thread moves.

        Lost connections are tried again until the deadline, by the monotonic clock.
        """
        self._of_thread.progress, self._of_thread.deadline = progress, deadline
        try:
            yield
        finally:
            del self._of_thread.progress, self._of_thread.deadline

    def _progress(self, done: int, size: int) -> None:
        progress = getattr(self._of_thread, "progress", None)
        if progress:
            progress(done, size)

    # Celery's hooks ------------------------------------------------------------------

    def meta_from_decoded(self, meta: dict[str, Any]) -> dict[str, Any]:
        """Return what is known of a job; large values stay where they are for now."""
        if isinstance(meta, Meta):  # Celery asks for it again
            return meta
        meta = super().meta_from_decoded(meta)
        try:
            return Meta(meta, self) if any(references(meta["result"])) else meta
        except RecursionError:
            raise Unreadable("a result is nested too deeply") from None

    def _forget(self, task_id: str) -> None:
        meta = None
        with suppress(ClusterError):  # one that cannot be read is removed, too
            meta = self._get_task_meta_for(task_id)
        self.remove(task_id, meta)

    def remove(self, job_id: str, meta: Any) -> None:
        """Remove a result of which this is known, its large values with it, in one command."""
        large = meta.references if isinstance(meta, Meta) else ()
        self._blobs.delete(large, self.get_key_for_task(job_id))

    def chord_error_from_stack(self, callback: Any, exc: Exception | None = None) -> Any:
        """Fail a chord's callback, and all that follows it, with the error of the member.

        Celery would wrap it: a caller could not tell a ValueError from a lost worker.
        """
        if isinstance(exc, ChordError) and isinstance(exc.__cause__, Exception):
            exc = exc.__cause__
        # Given by `set`, an error callback is alone; Celery would iterate over its keys.
        callback.options["link_error"] = maybe_list(callback.options.get("link_error")) or []
        return super().chord_error_from_stack(callback, exc)


def _name(kind: str, job_id: str) -> str:
    """Return how the keys of a job's large values begin, after their prefix."""
    if not _PART_OF_KEY.fullmatch(job_id):
        job_id = blake2b(job_id.encode(errors="surrogatepass"), digest_size=16).hexdigest()
    return f"{kind}-{job_id}"


def _is_argument(reference: Reference) -> bool:
    return str(blobs.check(reference)["key"]).startswith(f"{blobs.PREFIX}{_ARGUMENT}-")


def _is_of(kind: str, job_id: str | None, reference: Reference) -> bool:
    """Return True for a reference to a value of this job's own."""
    if not job_id or not blobs.is_reference(reference):
        return False
    owner, _, part = reference["key"].rpartition("-")
    return owner == blobs.PREFIX + _name(kind, job_id) and _PART.fullmatch(part) is not None
