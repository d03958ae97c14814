"""`python -m callers.result ID`: fetch the result of a job by its id."""

import sys

import click

from callers.client import Client
from callers.command import MAX_ELEMENTS_SHOWN, seconds_option, show
from celery_streams.cli import run
from celery_streams.transport.validation import MAX_NAME, is_name


@click.command()
@click.argument("job_id", metavar="ID")
@click.option("--state", is_flag=True, help="Print the job's state instead of its result.")
@seconds_option("--timeout", 10.0, "How long to wait for the result.")
def result(job_id: str, state: bool, timeout: float) -> None:
    """Print the result of the job with this ID; wait for it if necessary.

    The state is PENDING, STARTED, RETRY, SUCCESS, FAILURE or REVOKED; it is PENDING for a job
    that waits in a queue, that began less than a second ago, or that does not exist.
    """
    if not job_id.strip():
        raise click.UsageError("ID must not be empty")
    if not is_name(job_id):
        raise click.UsageError(f"ID must have at most {MAX_NAME} characters")
    with Client() as client:
        job = client.app.AsyncResult(job_id)
        if state:
            click.echo(job.state)
        else:
            show(client.get(job, timeout), MAX_ELEMENTS_SHOWN if sys.stdout.isatty() else None)


if __name__ == "__main__":
    run(result)
