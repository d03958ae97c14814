"""Checks that the table of families and the families' folders agree."""

from develop.tree import ROOT


def check_families() -> None:
    """Raise an error, whose one line names file and line, for a table that does not agree."""
    from celeryconfig import families
    from cluster.app import create
    from cluster.families import BadTable

    folders = {file.parent.name for file in ROOT.glob("*/tasks.py")}
    for name in sorted(folders - families.keys()):
        raise BadTable(f"{families.where}: the table of families has no row {name}, a folder here")
    for name, row in families.items():
        if name not in folders:
            raise BadTable(f"{row.where}: the family {name} has no {name}/tasks.py")
    with create("develop", set_as_current=False) as app:
        for name in families:
            families.check_tasks(name, app)
