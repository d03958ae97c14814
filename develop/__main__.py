"""`python -m develop`: run a tool of development; an error is printed as one line."""

from callers.command import run
from develop.commands import develop

if __name__ == "__main__":
    run(develop)
