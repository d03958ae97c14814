"""The commands of the tools of development."""

import click

from develop import contracts


@click.group()
def develop() -> None:
    """Tools of development."""


@develop.command("contracts")
@click.option("--check", is_flag=True, help="Change nothing; fail if a file is out of date.")
def contracts_(check: bool) -> None:
    """Generate the callers' contracts, and the stub of typed calls, from the tasks."""
    outdated = contracts.outdated()
    if check and outdated:
        raise click.ClickException(f"{' and '.join(outdated)}: out of date; run `make contracts`")
    for name, text in outdated.items():
        (contracts.ROOT / name).write_text(text)
        click.echo(f"{name} written")
