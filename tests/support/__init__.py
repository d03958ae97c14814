"""What tests have in common; a test module is imported by no other."""
