"""The commands of the tools of development."""

import click


@click.group()
def develop() -> None:
    """Tools of development."""


@develop.command("contracts")
@click.option("--check", is_flag=True, help="Change nothing; fail if a file is out of date.")
def contracts_(check: bool) -> None:
    """Derive from the tasks the callers' contracts and typed calls, and the tasks in tables."""
    from develop import derived
    from develop.tree import Changes

    changes = Changes()
    for name in ("celeryconfig.py", "README.md"):
        changes.read(name)  # so that another command's change of them is noticed
    outdated = derived.outdated()
    if check and outdated:
        raise click.ClickException(f"{' and '.join(outdated)}: out of date; run `make contracts`")
    for name, text in outdated.items():
        changes.write(name, text)
    changes.apply()
    for name in outdated:
        click.echo(f"{name} written")


@develop.command("family")
@click.argument("name")
def family_(name: str) -> None:
    """Add a family of tasks that runs: package, worker, image, queue, caller and services."""
    from develop import family

    family.add(name)
    click.echo(
        f"{name} is a family now. Write its task in {name}/tasks.py and what it returns in "
        f"{name}/examples.py; then `make contracts`, `make test_files`, `make test`."
    )


@develop.command("family-remove")
@click.argument("name")
def family_remove(name: str) -> None:
    """Remove a family with all its files."""
    from develop import family

    family.remove(name)
    click.echo(f"{name} is removed")


@develop.command()
@click.option("--upgrade", is_flag=True, help="Choose the latest versions of all packages.")
def pins(upgrade: bool) -> None:
    """Pin the packages of all requirements.txt, and what they need, in constraints.txt."""
    from develop import pins

    for line in pins.pin(upgrade=upgrade):
        click.echo(line)


@develop.command()
def check() -> None:
    """Check that the table of families and their folders agree."""
    from develop.checks import check_families

    check_families()
