"""Where the broker and the result store are, and how to connect to them."""
