"""`python -m tests.local.quick_beat`: beat with the schedule that TEST_SCHEDULE holds as JSON."""

import json
import os

import click

from callers.beat import serve
from callers.command import run
from cluster.app import create

app = create("beat")
app.conf.beat_schedule = json.loads(os.environ["TEST_SCHEDULE"])

if __name__ == "__main__":
    run(click.command()(lambda: serve(app)))
