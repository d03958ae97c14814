"""`python -m callers.beat`: submit jobs on the schedule in celeryconfig's `beat_schedule`.

Run one beat per cluster: two would submit each job twice.
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

from celery_streams.cli import run
from cluster import arguments, settings, unique
from cluster.app import App, create
from cluster.connections import broker
from cluster.errors import ClusterError, QueueFull
from cluster.values.codec import pack

#: Default of BEAT_STATE, the file that records when each job was last submitted.
DEFAULT_STATE_FILE = Path(".local/beat-schedule")
#: Variable that names a file to touch on each pass over the schedule.
HEARTBEAT_VARIABLE = "BEAT_HEARTBEAT_FILE"
#: Maximum interval between two passes, in seconds: the heartbeat file must stay fresh.
MAX_INTERVAL = 5
#: Errors after which a job stays due.
_RETRYABLE = (OSError, QueueFull, *broker.UNREACHABLE_ERRORS)
#: Interval between attempts to submit a job while the broker is unreachable, in seconds.
RETRY_INTERVAL = 1.0
#: Interval between log lines that say why a job cannot be submitted, in seconds.
ERROR_LOG_INTERVAL = 60.0
#: Time limit of connecting to the broker, in seconds; must end between two heartbeats.
CONNECT_TIMEOUT = 5.0
#: Time limit of one socket operation, in seconds; redis-py tries four times between heartbeats.
OPERATION_TIMEOUT = 2.0

logger = logging.getLogger(__name__)


class Scheduler(beat.Scheduler):
    """Scheduler that submits each job once, even if beat or its broker crashes.

    Celery's own records a job before submitting it, and drops it if the broker is unreachable.
    This one records it afterwards, in a file that is replaced atomically; until then the job stays
    due. A job's id is derived from its entry and the entry's previous run, and Redis keeps the last
    id of each entry: a job that was submitted but not recorded or confirmed is not submitted again.
    """

    def __init__(self, app: App, schedule_filename: str, **options: Any) -> None:
        self._state_file = Path(schedule_filename)
        #: By entry: when to try again, and when an error was last logged.
        self._retry_at: dict[str, float] = {}
        self._error_logged_at: dict[str, float] = {}
        super().__init__(app, **options)

    # State ---------------------------------------------------------------------------

    def setup_schedule(self) -> None:
        """Load the entries from the configuration, and their last runs from the state file."""
        super().setup_schedule()
        recorded = self._load()
        entries: dict[str, Any] = self.schedule
        for name, entry in entries.items():
            last, count = recorded.get(name, (entry.last_run_at, 0))
            entry.last_run_at = min(last, entry.last_run_at)  # the clock may have been set back
            entry.total_run_count = count
        self._write()

    def _load(self) -> dict[str, tuple[datetime, int]]:
        try:
            return {
                str(name): (self._parse_time(each["last_run_at"]), int(each["count"]))
                for name, each in json.loads(self._state_file.read_bytes()).items()
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
            logger.warning("cannot read %s, starting without it: %s", self._state_file, error)
            return {}

    def _parse_time(self, text: str) -> datetime:
        """Return an ISO 8601 time in the app's time zone, which crontabs refer to."""
        return datetime.fromisoformat(text).astimezone(self.app.timezone)

    def should_sync(self) -> bool:
        """Return False: each submission is recorded at once."""
        return False

    def sync(self) -> None:
        """Record the submissions; log an error if the state file cannot be written."""
        try:
            self._write()
        except OSError as error:
            logger.error("cannot write %s: %s", self._state_file, error)  # noqa: TRY400

    def _write(self) -> None:
        """Replace the state file, atomically."""
        entries: dict[str, Any] = self.schedule
        recorded = {
            name: {"last_run_at": entry.last_run_at.isoformat(), "count": entry.total_run_count}
            for name, entry in entries.items()
        }
        path = self._state_file.resolve()
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, prefix=path.name, delete=False
        ) as file:
            try:
                json.dump(recorded, file)
                file.flush()
                os.fsync(file.fileno())
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise

    # Submit ------------------------------------------------------------------------------

    def tick(self, *_args: Any, **_options: Any) -> float:
        """Submit the jobs that are due; return the seconds until the next one is."""
        seconds = float(self.max_interval or MAX_INTERVAL)
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
            except _RETRYABLE as error:
                self._log_error(entry, error)
                self._drop_connection()
                seconds = min(seconds, RETRY_INTERVAL)
                if isinstance(error, (QueueFull, ResponseError)):
                    self._retry_at[entry.name] = monotonic() + RETRY_INTERVAL
                    continue
                break  # the other entries would fail as well
            seconds = min(seconds, max(left, 0))
        heartbeat = os.environ.get(HEARTBEAT_VARIABLE)
        if heartbeat:
            Path(heartbeat).touch()
        return seconds

    def _due(self, entry: Any) -> tuple[bool, float]:
        try:
            return tuple(self.is_due(entry))  # type: ignore[return-value]  # a named tuple
        except Exception:  # noqa: BLE001 - a schedule may raise any error
            return tuple(self._is_due_failed(entry))  # type: ignore[attr-defined]

    def _submit_due(self, entry: Any) -> None:
        """Submit an entry's job and record it; raise the error if the job is to stay due."""
        now = entry.default_now()  # not later: the next run may come due during submission
        try:
            last = self._submit(entry, now)
        except _RETRYABLE:
            raise
        except Exception as error:  # noqa: BLE001 - Celery may raise any error
            logger.error("cannot submit %s: %s", entry.name, error)  # noqa: TRY400
            last = now
        else:
            action = "submitted" if last == now else "already submitted"
            logger.info("%s %s (%s)", action, entry.name, entry.task)
            self._error_logged_at.pop(entry.name, None)
        entry.last_run_at = last
        entry.total_run_count += 1
        self.sync()

    def _submit(self, entry: Any, now: datetime) -> datetime:
        """Submit an entry's job unless it was submitted before; return the time of submission."""
        options = {**entry.options, "retry": False}
        options["headers"] = {**(options.get("headers") or {}), "celery_beat_task": True}
        options["task_id"] = str(
            uuid5(NAMESPACE_OID, f"{entry.name} {entry.last_run_at.timestamp()}")
        )
        connection: Any = self.connection
        connection.ensure_connection(max_retries=1, interval_start=0.1, timeout=CONNECT_TIMEOUT)
        app: Any = self.app
        return self._parse_time(unique.submit(app, connection, entry, options, now.isoformat()))

    def _log_error(self, entry: Any, error: BaseException) -> None:
        """Log why a job is not submitted yet, at most once per ERROR_LOG_INTERVAL."""
        now = monotonic()
        if now - self._error_logged_at.get(entry.name, -ERROR_LOG_INTERVAL) >= ERROR_LOG_INTERVAL:
            self._error_logged_at[entry.name] = now
            logger.error("cannot submit %s, retrying: %s", entry.name, error)

    def _drop_connection(self) -> None:
        connection = vars(self).pop("connection", None)
        if connection is not None:
            with suppress(*_RETRYABLE):
                connection.release()


def check(schedule: dict[str, dict[str, Any]], app: App) -> None:
    """Check a schedule before its first job is due.

    Raise ClusterError, naming the entry, for an unknown task, a missing or wrong schedule, or
    wrong options or arguments. Celery itself would only log these when the job is due.
    """
    for name, entry in schedule.items():
        try:
            _check_entry(entry, app)
        except KeyError as error:
            raise ClusterError(f"beat_schedule[{name!r}] has no {error}") from None
        except Exception as error:  # noqa: BLE001 - Celery may raise any error
            raise ClusterError(f"beat_schedule[{name!r}]: {error}") from None


def _check_entry(entry: dict[str, Any], app: App) -> None:
    task, schedule = entry["task"], entry["schedule"]
    if not _has_interval(schedule, app):
        raise ValueError(
            "schedule must be a crontab or a number of seconds above zero, "
            f"not {arguments.brief(schedule)}"
        )
    checked = beat.ScheduleEntry(**entry, app=app)
    app.check_jobs([(task, checked.options or {})])
    dumps(pack([checked.args, checked.kwargs]))


def _has_interval(schedule: Any, app: App) -> bool:
    """Return True if a schedule leaves time between one job and the next."""
    try:
        parsed: Any = maybe_schedule(schedule, app=app)
        left: timedelta = parsed.remaining_estimate(app.now())
    except (AttributeError, OverflowError, TypeError, ValueError):  # not a Celery schedule
        return False
    return left > timedelta(0) and not isinstance(schedule, bool)


def serve(app: App) -> None:
    """Submit jobs on the schedule of `app` until a signal arrives.

    Raise ClusterError, OSError or ValueError if the schedule or a setting is wrong.
    """
    level = settings.log_level()
    check(app.conf.beat_schedule, app)
    state = Path(os.environ.get("BEAT_STATE") or DEFAULT_STATE_FILE)
    if state.exists() and not state.is_file():  # Celery would delete it, even /dev/null
        raise ClusterError(f"BEAT_STATE must name a file, not {state}")
    os.umask(0o077)
    transport = app.conf.broker_transport_options
    timeouts = dict.fromkeys(("socket_timeout", "socket_connect_timeout"), OPERATION_TIMEOUT)
    app.conf.broker_transport_options = {
        name: timeouts.get(name, value) for name, value in transport.items()
    }
    state.parent.mkdir(parents=True, exist_ok=True)
    try:
        app.Beat(
            scheduler="callers.beat:Scheduler",
            max_interval=MAX_INTERVAL,
            schedule=str(state),
            loglevel=level,
            quiet=True,
        ).run()
    finally:
        # A second signal, which service managers may send, would print a traceback at exit.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)


@click.command(name="beat")
def command() -> None:
    """Submit jobs on the schedule in celeryconfig.py (beat_schedule) until Ctrl-C.

    Run one per cluster: two would submit each job twice.
    """
    serve(create("beat"))


if __name__ == "__main__":
    run(command)
