"""`python -m callers.beat`: submit jobs by the clock, as `beat_schedule` of celeryconfig says.

One beat a cluster: two of them would submit each job twice.
"""

import json
import logging
import os
import signal
import tempfile
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import click
from celery import beat
from celery.schedules import maybe_schedule
from kombu.utils.json import dumps
from redis.exceptions import ResponseError

from callers.command import run
from cluster import arguments, broker, settings, unique
from cluster.app import App, create
from cluster.codec import pack
from cluster.errors import ClusterError, QueueFull

#: Where it notes when each job was submitted last, so that a restart misses none: BEAT_STATE.
STATE = Path(".local/beat-schedule")
#: Touched at each pass over the schedule: BEAT_HEARTBEAT_FILE. None without the variable.
HEARTBEAT_VARIABLE = "BEAT_HEARTBEAT_FILE"
#: Seconds between two passes, at most: a heartbeat must not grow old.
INTERVAL = 5
#: After these a job stays due.
_AWAY = (OSError, QueueFull, *broker.AWAY)
#: Seconds between two tries to submit a job while the broker is away.
RETRY_INTERVAL = 1.0
#: Seconds between two lines of the log that say why a job cannot be submitted.
COMPLAINT_INTERVAL = 60.0
#: Seconds to try to reach the broker, between two heartbeats.
CONNECT_TIMEOUT = 5.0
#: Seconds that Redis may be silent; redis-py tries four times, between two heartbeats.
OPERATION_TIMEOUT = 2.0

logger = logging.getLogger(__name__)


class Scheduler(beat.Scheduler):
    """A scheduler that submits each job once, however beat or its broker ends.

    Celery's own notes a job as submitted before it is, and drops it where the broker is away. This
    one notes, in a file that is replaced as a whole, what was submitted; what was not stays due.
    A job's id is made of its entry and of the time before, and Redis keeps the last id of each
    entry: what was submitted, but not noted or not answered any more, is not submitted again.
    """

    def __init__(self, app: App, schedule_filename: str, **options: Any) -> None:
        self._state = Path(schedule_filename)
        #: By entry, when it is tried again, and when it was last complained about.
        self._retry_at: dict[str, float] = {}
        self._complained_at: dict[str, float] = {}
        super().__init__(app, **options)

    # The state ---------------------------------------------------------------------------

    def setup_schedule(self) -> None:
        """Take the entries from the configuration, and when each was submitted from the state."""
        super().setup_schedule()
        noted = self._noted()
        entries: dict[str, Any] = self.schedule
        for name, entry in entries.items():
            last, count = noted.get(name, (entry.last_run_at, 0))
            entry.last_run_at = min(last, entry.last_run_at)  # or a clock was put back
            entry.total_run_count = count
        self._write()

    def _noted(self) -> dict[str, tuple[datetime, int]]:
        try:
            noted = {
                str(name): (self._time(each["last_run_at"]), int(each["count"]))
                for name, each in json.loads(self._state.read_bytes()).items()
            }
        except FileNotFoundError:
            return {}
        except (
            AttributeError,
            KeyError,
            OverflowError,
            RecursionError,
            TypeError,
            ValueError,
        ) as error:
            logger.warning("%s cannot be read, and is begun anew: %s", self._state, error)
            return {}
        return noted

    def _time(self, text: str) -> datetime:
        """Return a time in the app's zone, which a crontab's hours are of."""
        return datetime.fromisoformat(text).astimezone(self.app.timezone)

    def should_sync(self) -> bool:
        """Return False: what there is to note is noted at once."""
        return False

    def sync(self) -> None:
        """Note what was submitted, and go on where that cannot be written."""
        try:
            self._write()
        except OSError as error:
            logger.error("cannot write %s: %s", self._state, error)  # noqa: TRY400

    def _write(self) -> None:
        """Write when each entry was submitted last; a file that is there whole, or not at all."""
        entries: dict[str, Any] = self.schedule
        noted = {
            name: {"last_run_at": entry.last_run_at.isoformat(), "count": entry.total_run_count}
            for name, entry in entries.items()
        }
        path = self._state.resolve()
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, prefix=path.name, delete=False
        ) as file:
            try:
                json.dump(noted, file)
                file.flush()
                os.fsync(file.fileno())
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise

    # Submit ------------------------------------------------------------------------------

    def tick(self, *_args: Any, **_options: Any) -> float:
        """Submit what is due and return the seconds until the next job is."""
        seconds = float(self.max_interval or INTERVAL)
        entries: list[Any] = list(self.schedule.values())
        for entry in entries:
            wait = self._retry_at.get(entry.name, 0) - monotonic()
            if wait > 0:
                seconds = min(seconds, wait)
                continue
            is_due, left = self._due(entry)
            try:
                if is_due:
                    self._submit_due(entry)
            except _AWAY as error:
                self._complain(entry, error)
                self._drop_connection()
                seconds = min(seconds, RETRY_INTERVAL)
                if isinstance(error, (QueueFull, ResponseError)):
                    self._retry_at[entry.name] = monotonic() + RETRY_INTERVAL
                    continue
                break  # no other would be taken
            seconds = min(seconds, max(left, 0))
        heartbeat = os.environ.get(HEARTBEAT_VARIABLE)
        if heartbeat:
            Path(heartbeat).touch()
        return seconds

    def _due(self, entry: Any) -> tuple[bool, float]:
        try:
            return tuple(self.is_due(entry))  # type: ignore[return-value]  # a named tuple of both
        except Exception:  # noqa: BLE001 - Celery raises what it meets
            return tuple(self._is_due_failed(entry))  # type: ignore[attr-defined]

    def _submit_due(self, entry: Any) -> None:
        """Submit an entry's job and note it; raises what is raised while the broker is away."""
        now = entry.default_now()  # before: the next time may come while it is submitted
        try:
            last = self._submit(entry, now)
        except _AWAY:
            raise
        except Exception as error:  # noqa: BLE001 - Celery raises what it meets
            logger.error("cannot submit %s: %s", entry.name, error)  # noqa: TRY400
            last = now
        else:
            how = "submitted" if last == now else "had submitted"
            logger.info("%s %s (%s)", how, entry.name, entry.task)
            self._complained_at.pop(entry.name, None)
        entry.last_run_at = last
        entry.total_run_count += 1
        self.sync()

    def _submit(self, entry: Any, now: datetime) -> datetime:
        """Submit an entry's job, unless it was submitted before; return when it was."""
        options = {**entry.options, "retry": False}
        options["headers"] = {**(options.get("headers") or {}), "celery_beat_task": True}
        options["task_id"] = str(
            uuid5(NAMESPACE_OID, f"{entry.name} {entry.last_run_at.timestamp()}")
        )
        connection: Any = self.connection
        connection.ensure_connection(max_retries=1, interval_start=0.1, timeout=CONNECT_TIMEOUT)
        app: Any = self.app
        return self._time(unique.submit(app, connection, entry, options, now.isoformat()))

    def _complain(self, entry: Any, error: BaseException) -> None:
        """Say once a minute why a job is not submitted yet."""
        now = monotonic()
        if now - self._complained_at.get(entry.name, -COMPLAINT_INTERVAL) >= COMPLAINT_INTERVAL:
            self._complained_at[entry.name] = now
            logger.error("cannot submit %s, trying again: %s", entry.name, error)

    def _drop_connection(self) -> None:
        connection = vars(self).pop("connection", None)
        if connection is not None:
            with suppress(*_AWAY):
                connection.release()


def check(schedule: dict[str, dict[str, Any]], app: App) -> None:
    """Check a schedule before the first job of it is due.

    Raises ClusterError, naming the entry, for a task that no worker has, a missing or a wrong
    time, wrong options or arguments. Celery would say so when the job is due, to its log.
    """
    for name, entry in schedule.items():
        try:
            _check_entry(entry, app)
        except KeyError as error:
            raise ClusterError(f"beat_schedule[{name!r}] has no {error}") from None
        except Exception as error:  # noqa: BLE001 - Celery raises what it meets
            raise ClusterError(f"beat_schedule[{name!r}]: {error}") from None


def _check_entry(entry: dict[str, Any], app: App) -> None:
    task, times = entry["task"], entry["schedule"]
    if not _leaves_time(times, app):
        raise ValueError(
            "schedule must be a crontab or a number of seconds above zero, "
            f"not {arguments.brief(times)}"
        )
    checked = beat.ScheduleEntry(**entry, app=app)
    app.check_jobs([(task, checked.options or {})])
    dumps(pack([checked.args, checked.kwargs]))


def _leaves_time(times: Any, app: App) -> bool:
    """Tell whether a schedule leaves time between a job and the next."""
    try:
        schedule: Any = maybe_schedule(times, app=app)
        left: timedelta = schedule.remaining_estimate(app.now())
    except (AttributeError, OverflowError, TypeError, ValueError):  # none of Celery's schedules
        return False
    return left > timedelta(0) and not isinstance(times, bool)


def serve(app: App) -> None:
    """Submit jobs by the schedule of `app` until a signal ends it.

    Raises ClusterError, OSError or ValueError if the schedule or a setting is wrong.
    """
    level = settings.log_level()
    check(app.conf.beat_schedule, app)
    state = Path(os.environ.get("BEAT_STATE") or STATE)
    if state.exists() and not state.is_file():  # Celery would remove it, be it /dev/null
        raise ClusterError(f"BEAT_STATE must name a file, not {state}")
    os.umask(0o077)
    transport = app.conf.broker_transport_options
    short = dict.fromkeys(("socket_timeout", "socket_connect_timeout"), OPERATION_TIMEOUT)
    app.conf.broker_transport_options = {
        name: short.get(name, value) for name, value in transport.items()
    }
    state.parent.mkdir(parents=True, exist_ok=True)
    try:
        app.Beat(
            scheduler="callers.beat:Scheduler",
            max_interval=INTERVAL,
            schedule=str(state),
            loglevel=level,
            quiet=True,
        ).run()
    finally:
        # `timeout` and service managers may send two: the second would be a traceback at exit.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)


@click.command(name="beat")
def command() -> None:
    """Submit jobs by the clock, as beat_schedule of celeryconfig.py says, until Ctrl-C.

    Run one a cluster: two would submit each job twice.
    """
    serve(create("beat"))


if __name__ == "__main__":
    run(command)
