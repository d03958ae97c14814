"""`python -m bench.peers NAME`: the client of a system, which answers requests on stdin."""

import sys
from importlib import import_module

from bench.peers.protocol import serve

serve(import_module(f"bench.peers.{sys.argv[1]}").Peer())
