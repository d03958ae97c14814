"""The parts of a new family that are not copied from `add`: see `develop.family`."""
