"""The tests, by what they need: unit and repo nothing, local a server, cluster Docker."""
