"""`python -m local`: run a command of the local cluster; an error is one line."""

import sys

import click

from cluster.errors import ClusterError


def main() -> None:
    """Run the command: 0 done, 1 it failed, 2 wrong usage, 130 stopped by Ctrl-C."""
    try:
        # Here, because a setting that is wrong is found as the modules are loaded.
        from local.commands import local

        local(standalone_mode=False)
    except click.ClickException as error:
        click.echo(f"error: {error.format_message()}", err=True)
        sys.exit(error.exit_code)
    except (ClusterError, OSError, ValueError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    except click.exceptions.Abort:
        sys.exit(130)


if __name__ == "__main__":
    main()
