"""`python -m callers.beat`: submit jobs by the clock, as `beat_schedule` of celeryconfig says.

One beat a cluster: two of them would submit each job twice.
"""

import os
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
from celery import beat
from celery.schedules import maybe_schedule
from kombu.utils.json import dumps

from callers.command import run
from cluster import limits
from cluster.app import App, create
from cluster.codec import pack
from cluster.errors import ClusterError

#: Where it notes when each job was submitted last, so that a restart misses none: BEAT_STATE.
STATE = Path(".local/beat-schedule")
#: Touched at each pass over the schedule: BEAT_HEARTBEAT_FILE. None without the variable.
HEARTBEAT_VARIABLE = "BEAT_HEARTBEAT_FILE"
#: Seconds between two passes, at most: a heartbeat must not grow old.
INTERVAL = 5


class Scheduler(beat.PersistentScheduler):
    """Celery's scheduler, with a heartbeat file."""

    def tick(self, *args: Any, **options: Any) -> Any:
        """Submit what is due and return the seconds until the next job is."""
        seconds = super().tick(*args, **options)
        heartbeat = os.environ.get(HEARTBEAT_VARIABLE)
        if heartbeat:
            Path(heartbeat).touch()
        return seconds


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
