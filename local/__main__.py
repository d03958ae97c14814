"""`python -m local`: run a command of the local cluster; an error is printed as one line."""

from celery_streams.cli import errors_in_one_line, run


def main() -> None:
    """Run the command; exit with 1 if it fails, 2 for wrong usage, 130 after Ctrl-C."""
    with errors_in_one_line():
        # Not at the top: importing these modules raises an error if a setting is wrong.
        from local.commands import local

        run(local)


if __name__ == "__main__":
    main()
