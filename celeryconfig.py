"""Where jobs go and how safely: the one configuration, in every image of the cluster.

Each setting that differs from Celery's default has its reason beside it.
The names are Celery's: https://docs.celeryq.dev/en/stable/userguide/configuration.html
"""

import os
import socket

from celery.schedules import crontab

from cluster import rabbitmq, servers, settings
from cluster.routes import celerys_own, refuse_all_but

# Where ------------------------------------------------------------------------

_port = settings.integer("REDIS_PORT", 6379, most=65535)
# Where the compose stack publishes it, and local mode has it.
_redis = f"redis://{os.environ.get('REDIS_BIND') or '127.0.0.1'}:{_port}/0"
# The broker that `make docker_compose_start` was told to start.
_broker = _redis
if os.environ.get("BROKER") == "rabbitmq":
    _rabbitmq_port = settings.integer("RABBITMQ_PORT", 5672, most=65535)
    _broker = f"amqp://cluster@127.0.0.1:{_rabbitmq_port}/cluster"
for _variable in servers.PAST_IT:
    if os.environ.get(_variable):
        raise ValueError(f"{_variable} is not read here: set CELERY_BROKER_URL")

# What carries the jobs through Redis: the transport that loses nothing or, with "lists", kombu's
# own, to compare. Named by these settings, for Celery prefers its two variables to `broker_url`.
_is_stock = settings.choice("REDIS_TRANSPORT", "streams", "lists") == "lists"
_url = os.environ.get("CELERY_BROKER_URL") or _broker
_url = servers.with_password(_url, "CELERY_BROKER_URL")
globals().update(servers.broker(_url, "CELERY_BROKER_URL", lists=_is_stock))
# The result store for values of any size.
_url = os.environ.get("CELERY_RESULT_BACKEND") or _redis
_url = servers.with_password(_url, "CELERY_RESULT_BACKEND")
result_backend = servers.results(_url, "CELERY_RESULT_BACKEND")

# One line a task. A name that is not here is refused at the caller: on its way to
# no worker, it would leave its caller waiting.
_routes = {
    "add.tasks.add": {"queue": "add"},
    "add.tasks.tsum": {"queue": "add"},
    "add.tasks.longtime_add": {"queue": "add"},
    "add.tasks.unsteady_add": {"queue": "add"},
    "add.tasks.error_of": {"queue": "add"},
    "factorial.tasks.factorial": {"queue": "factorial"},
    "mat_mul.tasks.mat_mul": {"queue": "mat_mul"},
    "mat_mul.tasks.multiply": {"queue": "mat_mul"},
    "mat_mul.tasks.tile": {"queue": "mat_mul"},
}
# Celery's own tasks (chord_unlock, accumulate, backend_cleanup) need a worker, too.
_of_celery = {"queue": "add"}
task_routes = (_routes, celerys_own(_routes, _of_celery), refuse_all_but(_routes))
task_queues = {
    queue: {"exchange": queue, "routing_key": queue}
    for queue in sorted({route["queue"] for route in _routes.values()})
}
# A misspelt queue is an error, not a new queue that nobody reads.
task_create_missing_queues = False

# What a message may hold: plain JSON and what cluster.codec adds. Never pickle. Whoever sends
# something else is told so.
accept_content = ["json"]
worker_consumer = "celery_streams:Consumer"

# When --------------------------------------------------------------------------

# The furthest that a countdown or an ETA may lie ahead, in seconds: Redis keeps the job until
# then, and nobody can tell it from one that was forgotten. Not Celery's setting: cluster.app's.
longest_countdown = settings.integer("MAX_COUNTDOWN", 86_400, most=settings.MAX_SECONDS)

# What `callers.beat` submits by the clock; UTC. A job that no worker took within the time
# that it is repeated in is not worth running: `expires`, in seconds.
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

# How long ---------------------------------------------------------------------

# The longest a job may run, in seconds. Past the soft limit the task gets an exception
# that it can clean up after; past the hard one its process is ended and replaced.
task_time_limit = settings.integer("TASK_TIME_LIMIT", 120, most=settings.MAX_SECONDS)
task_soft_time_limit = max(1, task_time_limit - 10)
# Celery's own forgets a hard limit that is below the soft one.
worker_pool = "celery_streams:TaskPool"
# A job whose worker died is given to another after this many seconds. Far shorter than a
# job may run: workers renew it while they run the job (celery_streams.transport.lease).
_lease = settings.integer("JOB_LEASE", 15, most=settings.MAX_SECONDS)

# How many ----------------------------------------------------------------------

# Jobs that a family's worker runs side by side where <FAMILY>_CONCURRENCY does not say: one,
# but for jobs that wait or use one core only. Not Celery's setting: cluster.worker reads it.
family_concurrency = {"add": 10, "factorial": 2}
# Take a job only when a process is free for it: others may be idle.
worker_prefetch_multiplier = 1
# Replace a process before leaks add up.
worker_max_tasks_per_child = 10_000

# How safely -------------------------------------------------------------------

# Acknowledge a job when it is done, not when it is taken: a killed worker's jobs run again.
task_acks_late = True
# A pool process that dies in the middle of a job is no reason to fail the job: hand it back,
# to be run again, until it was delivered MAX_DELIVERIES times.
task_reject_on_worker_lost = True
# Kombu's own lists count no deliveries: there the job is sent anew, three times at most.
task_retry_on_worker_lost = _is_stock
task_annotations = {
    "*": {"max_retries": 3, "default_retry_delay": 1},
    # Quick ones, `inline`: run where they are fetched (celery_streams.worker.inline), and not in a
    # process of the pool, which would take many times as long as they do. They must not block.
    "add.tasks.add": {"inline": True},
    "add.tasks.tsum": {"inline": True},
    # What one task may take where it differs from all others: `rate_limit`, of one worker;
    # `soft_time_limit` and `time_limit`, in seconds.
    "add.tasks.unsteady_add": {"rate_limit": "10/s", "soft_time_limit": 20, "time_limit": 30},
}
# A lost connection must not kill running jobs; the one that is then delivered twice is
# recognised by its stored result.
worker_cancel_long_running_tasks_on_connection_loss = False
worker_deduplicate_successful_tasks = True

# That a job runs, and where, is stored within a second (celery_streams.worker.started), not before
# each one.
task_track_started = False
task_store_errors_even_if_ignored = True

# Results stay for a day, or for so many seconds; the values of large ones fill the memory of
# Redis meanwhile, unless their callers `forget` them, as `Client.call` does.
result_expires = settings.integer("RESULT_EXPIRES", 86_400, most=settings.MAX_SECONDS)
# Redis away while a result is stored: keep trying for minutes. Celery's default turns
# the finished job into a failure.
result_backend_always_retry = True
result_backend_max_retries = 60

# A connection that is cut without a word must not hang anybody: time-outs, keep-alive
# and health checks everywhere (all are off or long by default). A blocking fetch takes
# one second, so the time-out is well above.
broker_transport_options = {
    "health_check_interval": 5,
    "socket_keepalive": True,
    # Linux's own first probe comes after two hours; other systems name the option otherwise.
    "socket_keepalive_options": {
        getattr(socket, name): value
        for name, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
        if hasattr(socket, name)
    },
    "socket_timeout": 10,
    "socket_connect_timeout": 5,
    "max_connections": 20,
    "lease": _lease,
    # A job whose worker died of it so often, or gave it back, goes to the dead letters.
    "max_deliveries": settings.integer("MAX_DELIVERIES", 3),
    # A queue that nobody empties must not fill the memory of Redis: from here on its callers
    # are refused. Of each priority.
    "queue_max_length": settings.integer("QUEUE_MAX_LENGTH", 1_000_000),
    # A message is parsed in its worker, where it takes ten times its size in memory and more. A
    # larger one is refused at its caller; large values travel beside their message (cluster.blobs).
    "max_message_bytes": settings.integer("MAX_MESSAGE_BYTES", 16 * 1024 * 1024, least=65_536),
    # High, normal and low of cluster.options, the most urgent first. The fourth is for
    # programs with kombu's own settings, which may send it.
    "priority_steps": [0, 3, 6, 9],
}
redis_socket_timeout = 10
redis_socket_connect_timeout = 5
redis_socket_keepalive = True
redis_backend_health_check_interval = 5
redis_max_connections = 50

# Reconnect for as long as it takes, at the start too: a worker that exits helps nobody.
broker_connection_retry_on_startup = True
broker_connection_max_retries = None
# Redis refusing a command (out of memory, read-only) is a reason to wait, not to exit.
broker_channel_error_retry = True
# All connections of the pool in use: an error after this many seconds, not a hang.
broker_pool_acquire_timeout = 10
# Keep trying to submit for as long as a restart of Redis takes (default: 0.7 s).
task_publish_retry_policy = {
    "max_retries": 12,
    "interval_start": 0.1,
    "interval_step": 0.2,
    "interval_max": 1,
}

# RabbitMQ ---------------------------------------------------------------------

# Where it is the broker: queues and connections are declared otherwise (cluster.rabbitmq).
if rabbitmq.is_url(os.environ.get("CELERY_BROKER_URL") or _broker):
    globals().update(rabbitmq.settings(task_queues))
