"""The fast way out: messages of one task, serialised once and published by the hundred."""
