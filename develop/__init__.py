"""Tools of development, which are in no image."""
