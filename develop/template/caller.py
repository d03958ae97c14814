"""`python -m callers.template [ARGUMENT]...`: run the first task of `template` on its worker."""

from callers.family import command
from celery_streams.cli import run

template = command("template")

if __name__ == "__main__":
    run(template)
