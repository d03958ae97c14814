"""`python -m callers.beat`: submit jobs by the clock, as `beat_schedule` of celeryconfig says.

One beat a cluster: two of them would submit each job twice.
"""

import logging
import os
import pickle
import signal
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from time import sleep
from typing import Any, Self

import click
from celery import beat
from celery.schedules import maybe_schedule
from kombu.utils.json import dumps

from callers.command import run
from cluster import broker, limits
from cluster.app import App, create
from cluster.codec import pack
from cluster.errors import ClusterError

#: Where it notes when each job was submitted last, so that a restart misses none: BEAT_STATE.
STATE = Path(".local/beat-schedule")
#: Touched at each pass over the schedule: BEAT_HEARTBEAT_FILE. None without the variable.
HEARTBEAT_VARIABLE = "BEAT_HEARTBEAT_FILE"
#: Seconds between two passes, at most: a heartbeat must not grow old.
INTERVAL = 5
#: Seconds between two tries to submit a job while the broker is away.
RETRY_INTERVAL = 1.0

logger = logging.getLogger(__name__)


class StateFile(dict[str, Any]):
    """What beat notes, in a file that is replaced as a whole.

    It stands in for `shelve`, which keeps on some systems what it was told until it is closed: a
    beat that was killed would submit again.
    """

    _path: Path

    @classmethod
    def open(cls, name: str, writeback: bool = True) -> Self:  # noqa: FBT002 - shelve's
        """Return what the file says, nothing if it is not there; raises pickle's errors."""
        state = cls()
        state._path = Path(name)
        with suppress(FileNotFoundError):
            state.update(pickle.loads(state._path.read_bytes()))  # noqa: S301 - beat's own file
        return state

    def sync(self) -> None:
        """Write all to the disk."""
        new = self._path.with_name(f".{self._path.name}.part")
        with new.open("wb") as file:
            file.write(pickle.dumps(dict(self)))
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)

    close = sync


class Scheduler(beat.PersistentScheduler):
    """Celery's scheduler, with a heartbeat file, which drops no job for a broker that is away."""

    persistence: Any = StateFile

    def tick(self, *args: Any, **options: Any) -> Any:
        """Submit what is due and return the seconds until the next job is."""
        seconds = super().tick(*args, **options)
        _beat()
        return seconds

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        """Submit a job that is due; where the broker is away, when it is back, and once."""
        logger.info("submitting %s (%s)", entry.name, entry.task)
        is_away = False
        while True:
            try:
                self.apply_async(entry, producer=self.producer, advance=False)
            except Exception as error:  # noqa: BLE001 - Celery wraps what it meets
                cause = error.__context__ or error
                if not isinstance(cause, (OSError, *broker.AWAY)):
                    logger.error("cannot submit %s: %s", entry.name, error)  # noqa: TRY400
                    return
                if not is_away:
                    logger.error("cannot submit %s, trying again: %s", entry.name, cause)  # noqa: TRY400
                is_away = True
            else:
                return
            self._drop_connection()
            _beat()
            sleep(RETRY_INTERVAL)

    def _drop_connection(self) -> None:
        vars(self).pop("producer", None)
        connection = vars(self).pop("connection", None)
        if connection is not None:
            with suppress(OSError, *broker.AWAY):
                connection.release()


def _beat() -> None:
    heartbeat = os.environ.get(HEARTBEAT_VARIABLE)
    if heartbeat:
        Path(heartbeat).touch()


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
            f"not {limits.brief(times)}"
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
    level = limits.log_level()
    check(app.conf.beat_schedule, app)
    state = Path(os.environ.get("BEAT_STATE") or STATE)
    if state.exists() and not state.is_file():  # Celery would remove it, be it /dev/null
        raise ClusterError(f"BEAT_STATE must name a file, not {state}")
    os.umask(0o077)  # it holds arguments
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
