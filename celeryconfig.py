"""Celery's configuration, shared by all workers and callers and part of every image.

A comment gives the reason for each setting that differs from Celery's default.
The names are Celery's: https://docs.celeryq.dev/en/stable/userguide/configuration.html
"""

import os
import socket

from celery.schedules import crontab

from cluster import settings
from cluster.connections import rabbitmq, servers
from cluster.families import family, table
from cluster.routes import reject_unknown_tasks, route_celery_tasks

# Task families ----------------------------------------------------------------

# One row per family (cluster.families), which `make family` adds: its tasks; its concurrency, if
# its jobs wait or use one core; what its caller computes in the demo.
families = table(
    add=family("add tsum longtime_add unsteady_add error_of", concurrency=10, demo="4 6"),
    factorial=family("factorial", concurrency=2, demo="20000 --brief"),
    mat_mul=family("mat_mul tile multiply", demo="20 20 --brief"),
)

# A family's tasks have its queue. Any other name is rejected at the caller, which would wait in
# vain for a job that no worker runs.
_routes = families.routes()
# Celery's built-in tasks (chord_unlock, accumulate, backend_cleanup) need a worker, too.
_celery_route = {"queue": "add"}
task_routes = (_routes, route_celery_tasks(_routes, _celery_route), reject_unknown_tasks(_routes))
task_queues = {name: {"exchange": name, "routing_key": name} for name in families}
# A misspelt queue is an error, not a new queue without consumers.
task_create_missing_queues = False

# Servers ----------------------------------------------------------------------

_port = settings.integer("REDIS_PORT", 6379, maximum=65535)
# Containers of the compose stack reach the servers by their names; everything else where the stack
# and local mode publish them.
_host = os.environ.get("REDIS_HOST") or os.environ.get("REDIS_BIND") or "127.0.0.1"
_redis = f"redis://{_host}:{_port}/0"
# The broker of `make docker_compose_start BROKER=…`.
_broker = _redis
if os.environ.get("BROKER") == "rabbitmq":
    _port = settings.integer("RABBITMQ_PORT", 5672, maximum=65535)
    _host = os.environ.get("RABBITMQ_HOST") or "127.0.0.1"
    _broker = f"amqp://cluster@{_host}:{_port}/cluster"
for _variable in servers.BYPASSING_VARIABLES:
    if os.environ.get(_variable):
        raise ValueError(f"{_variable} is not supported: set CELERY_BROKER_URL instead")

# The transport: streams, which lose no jobs, or kombu's own lists for comparison. This sets the
# URLs to read and to write, since environment variables take precedence over `broker_url`.
_is_stock = settings.choice("REDIS_TRANSPORT", "streams", "lists") == "lists"
_url = os.environ.get("CELERY_BROKER_URL") or _broker
_url = servers.with_password(_url, "CELERY_BROKER_URL")
globals().update(servers.broker(_url, "CELERY_BROKER_URL", lists=_is_stock))
# The result backend for values of any size.
_url = os.environ.get("CELERY_RESULT_BACKEND") or _redis
_url = servers.with_password(_url, "CELERY_RESULT_BACKEND")
result_backend = servers.results(_url, "CELERY_RESULT_BACKEND")

# Messages contain JSON and the types of cluster.values.codec, never pickle. The consumer reports
# any other message to its sender.
accept_content = ["json"]
worker_consumer = "celery_streams:Consumer"

# Delayed and periodic jobs ----------------------------------------------------

# Limit of a countdown or an ETA, in seconds: until then the job takes up memory in Redis and looks
# like a lost one. Read by cluster.app, not by Celery.
longest_countdown = settings.integer("MAX_COUNTDOWN", 86_400, maximum=settings.MAX_SECONDS)

# Periodic jobs submitted by `callers.beat`; times are UTC. `expires`, in seconds, drops a job that
# no worker has fetched in time.
beat_schedule = {
    "add-every-ten-seconds": {
        "task": "add.tasks.add",
        "args": (4, 6),
        "schedule": 10.0,
        "options": {"expires": 10},
    },
    "factorial-every-night": {
        "task": "factorial.tasks.factorial",
        "args": (20_000,),
        "schedule": crontab(hour=3, minute=0),
        "options": {"expires": 3600, "priority": "low"},
    },
}

# Time limits ------------------------------------------------------------------

# Time limits of a job, in seconds. At the soft limit the task gets an exception and can clean up;
# at the hard one its process is killed and replaced.
task_time_limit = settings.integer("TASK_TIME_LIMIT", 120, maximum=settings.MAX_SECONDS)
task_soft_time_limit = max(1, task_time_limit - 10)
# Its processes fetch the jobs that they run.
worker_pool = "celery_streams:TaskPool"
# Lease of a message, in seconds, after which a dead worker's job is reclaimed. It may be shorter
# than a job: workers renew it while they run the job (celery_streams.transport.lease).
_lease = settings.integer("JOB_LEASE", 15, maximum=settings.MAX_SECONDS)

# Concurrency -------------------------------------------------------------------

# With RabbitMQ, fetch a job only when a process is free: another worker may be idle.
worker_prefetch_multiplier = 1
# Replace a process before memory leaks add up; a bundle of calls counts as one.
worker_max_tasks_per_child = 10_000

# Reliability ------------------------------------------------------------------

# Ack a job when it has ended, not when it is fetched: a killed worker's jobs run again.
task_acks_late = True
# Requeue a job whose pool process dies, until it has been delivered MAX_DELIVERIES times.
task_reject_on_worker_lost = True
# Kombu's lists count no deliveries: retry the job instead, at most three times.
task_retry_on_worker_lost = _is_stock
task_annotations = {
    "*": {"max_retries": 3, "default_retry_delay": 1},
    # Limits of a single task: `rate_limit` per worker, time limits in seconds.
    "add.tasks.unsteady_add": {"rate_limit": "10/s", "soft_time_limit": 20, "time_limit": 30},
}
# A lost connection must not kill running jobs; a job that is delivered again because of it is
# recognised by its stored result.
worker_cancel_long_running_tasks_on_connection_loss = False
worker_deduplicate_successful_tasks = True

# celery_streams.worker.started stores STARTED within a second, without a write for each quick job.
task_track_started = False
task_store_errors_even_if_ignored = True

# Expiry of results, in seconds. Until then large values take up the memory of Redis, unless
# callers `forget` them, as `Client.call` does.
result_expires = settings.integer("RESULT_EXPIRES", 86_400, maximum=settings.MAX_SECONDS)
# Retry for minutes if Redis is unreachable when a result is stored. By default Celery would
# report the finished job as failed.
result_backend_always_retry = True
result_backend_max_retries = 60

# Time-outs, keep-alive and health checks detect a connection that was cut silently (all are off
# or long by default). A fetch blocks for one second, so the time-out is well above that.
broker_transport_options = {
    "health_check_interval": 5,
    "socket_keepalive": True,
    # Linux sends the first probe after two hours by default; not all systems have these options.
    "socket_keepalive_options": {
        getattr(socket, name): value
        for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
        if hasattr(socket, name)
    },
    "socket_timeout": 10,
    "socket_connect_timeout": 5,
    "max_connections": 20,
    "lease": _lease,
    # Dead-letter a job after this many deliveries whose worker died or requeued it.
    "max_deliveries": settings.integer("MAX_DELIVERIES", 3),
    # Length of a queue, per priority, at which callers are refused: without consumers it must not
    # fill the memory of Redis.
    "queue_max_length": settings.integer("QUEUE_MAX_LENGTH", 1_000_000),
    # A parsed message takes ten times its size in a worker's memory or more, so a larger one is
    # refused at its caller. Large values are stored outside messages (cluster.values.blobs).
    "max_message_bytes": settings.integer("MAX_MESSAGE_BYTES", 16 * 1024 * 1024, minimum=65_536),
    # High, normal and low (cluster.options), the most urgent first. Programs with kombu's default
    # settings may send the fourth.
    "priority_steps": [0, 3, 6, 9],
}
redis_socket_timeout = 10
redis_socket_connect_timeout = 5
redis_socket_keepalive = True
redis_backend_health_check_interval = 5
redis_max_connections = 50

# Reconnect without limit, also at the start.
broker_connection_retry_on_startup = True
broker_connection_max_retries = None
# Wait, instead of exiting, while Redis refuses commands (out of memory, read-only).
broker_channel_error_retry = True
# In seconds: an error, instead of a hang, while all connections of the pool are in use.
broker_pool_acquire_timeout = 10
# Retry publishing for as long as a restart of Redis takes (default: 0.7 s).
task_publish_retry_policy = {
    "max_retries": 12,
    "interval_start": 0.1,
    "interval_step": 0.2,
    "interval_max": 1,
}

# RabbitMQ ---------------------------------------------------------------------

# As the broker it needs other settings for queues and connections (cluster.connections.rabbitmq).
if rabbitmq.is_url(os.environ.get("CELERY_BROKER_URL") or _broker):
    globals().update(rabbitmq.settings(task_queues))
