"""`python -m develop`: run a tool of development; an error is printed as one line."""

from celery_streams.cli import errors_in_one_line, run

if __name__ == "__main__":
    with errors_in_one_line():
        # Not at the top: importing it takes a while, in which Ctrl-C may come.
        from develop.commands import develop

        run(develop)
