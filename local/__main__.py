"""`python -m local`: run a command of the local cluster; an error is printed as one line."""

import sys

import click

from cluster.errors import ClusterError


def main() -> None:
    """Run the command; exit with 1 if it fails, 2 for wrong usage, 130 after Ctrl-C."""
    try:
        # Not at the top: importing these modules raises an error if a setting is wrong.
        from local.commands import local

        local(standalone_mode=False)
    except click.ClickException as error:
        click.echo(f"error: {' '.join(error.format_message().split())}", err=True)
        sys.exit(error.exit_code)
    except (ClusterError, OSError, ValueError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    except click.exceptions.Abort:
        sys.exit(130)


if __name__ == "__main__":
    main()
