"""`python -m tests.local.quick_beat`: beat with the schedule that TEST_SCHEDULE holds as JSON.

A crontab is an object: {"crontab": "0 3 * * *"}.
"""

import json
import os

import click
from celery.schedules import crontab

from callers.beat import serve
from celery_streams.cli import run
from cluster.app import create

app = create("beat")
app.conf.beat_schedule = json.loads(
    os.environ["TEST_SCHEDULE"],
    object_hook=lambda each: crontab.from_string(each["crontab"]) if "crontab" in each else each,
)

if __name__ == "__main__":
    run(click.command()(lambda: serve(app)))
