"""Kombu's side: queues on streams, from a message that is published to its acknowledgement."""
