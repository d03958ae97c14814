"""Tools for those who change the project; no image has them."""
