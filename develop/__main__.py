"""`python -m develop`: run a tool of development; an error is printed as one line."""

from celery_streams.cli import run
from develop.commands import develop

if __name__ == "__main__":
    run(develop)
