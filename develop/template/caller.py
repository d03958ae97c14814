"""`python -m callers.template [ARGUMENT]...`: run `template` on the template worker."""

from callers.family import command
from celery_streams.cli import run

template = command("template.tasks.template")

if __name__ == "__main__":
    run(template)
