"""Do the files agree with each other."""
