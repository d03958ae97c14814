# Commands to run, try and test the cluster. Settings are in .env, explained in .env.example.
.DEFAULT_GOAL := help

# Parsed as Compose does it: Make's `include` would read quotes and comments as part of a value.
ifneq (,$(wildcard .env))
define _newline


endef
_settings := $(shell $(or $(PYTHON),python3) local/dotenv.py .env)
$(eval $(subst @@newline@@,$(_newline),$(or $(_settings),$$(error cannot read .env: set PYTHON to Python 3.11 or later))))
endif

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/.run-installed
DEV := $(VENV)/.dev-installed
REQUIREMENTS := constraints.txt $(wildcard */requirements.txt)
INSTALL := $(VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt
LOCAL := $(VENV)/bin/python -m local
DEVELOP := $(VENV)/bin/python -m develop
ALL_FAMILIES := $(patsubst %/tasks.py,%,$(wildcard */tasks.py))
FAMILIES := $(ALL_FAMILIES)

# The broker on Docker. RabbitMQ is a service with a profile, beside those that the user has chosen.
override BROKER := $(or $(BROKER),redis)
ifeq ($(BROKER),rabbitmq)
export COMPOSE_PROFILES := rabbitmq,$(COMPOSE_PROFILES)
else ifneq ($(BROKER),redis)
$(error BROKER must be redis or rabbitmq, not '$(BROKER)')
endif
export BROKER

.PHONY: help
help: ## List the targets
	@sed -nE 's/^(\$$\(FAMILIES:%=)?([a-z_]+(%[a-z_]+)?)\)?:.*## (.*)/\2|\4/p' $(MAKEFILE_LIST) | sed 's/%/FAMILY/' | awk -F '|' '{printf "  %-34s%s\n", $$1, $$2}'

# On Docker ---------------------------------------------------------------------

.PHONY: docker_compose_start docker_compose_stop docker_compose_clean docker_compose_scale \
	docker_compose_beat docker_compose_join monitoring
docker_compose_start: ## Build and start the cluster on Docker, and run each family's caller; BROKER=rabbitmq uses RabbitMQ
	@deploy/docker_start

docker_compose_stop: ## Stop the cluster on Docker; running jobs finish, waiting ones stay queued
	docker compose --profile '*' stop

docker_compose_clean: ## Remove its containers, network, queues and results
	docker compose --profile '*' down --volumes --remove-orphans

docker_compose_scale: ## Scale a family to N workers until the next start: SERVICE=add N=3
	$(if $(and $(filter $(FAMILIES),$(SERVICE)),$(shell expr '$(N)' : '[0-9][0-9]*$$' 2>/dev/null | grep -v '^0$$')),,$(error name a family ($(FAMILIES)) and its number of workers: make $@ SERVICE=add N=3))
	@deploy/make_secrets
	docker compose up --detach --wait --no-deps --no-recreate --scale $(SERVICE)=$(N) $(SERVICE)

docker_compose_beat: ## Start beat, which submits the periodic jobs of beat_schedule in celeryconfig.py
	@deploy/make_secrets
	docker compose up --build --detach --wait beat

docker_compose_join: ## Run only workers, for the Redis on another machine that CELERY_BROKER_URL names
	$(if $(CELERY_BROKER_URL),,$(error set CELERY_BROKER_URL to the other machine's Redis, such as redis://10.0.0.5:6379/0))$(if $(or $(filter-out $(ALL_FAMILIES),$(FAMILIES)),$(if $(FAMILIES),,none)),$(error FAMILIES names some of $(ALL_FAMILIES)))
	JOIN_BROKER_URL="$$CELERY_BROKER_URL" JOIN_RESULT_BACKEND="$${CELERY_RESULT_BACKEND:-$$CELERY_BROKER_URL}" \
		docker compose up --build --detach --wait --no-deps $(FAMILIES)

monitoring: ## Start Flower on Docker: a password-protected page with workers, queues and jobs
	@deploy/make_secrets && deploy/check_port flower 5555 FLOWER_PORT 5555
	docker compose up --detach --wait --build flower
	@printf 'Flower: http://127.0.0.1:%s, user flower, password in secrets/flower_password\n' "$${FLOWER_PORT:-5555}"

# Without Docker ----------------------------------------------------------------

.PHONY: demo demo_parallel local_start local_start_server local_stop local_clean kill_workers
demo: $(RUN) ## Start a cluster without Docker, run each family's caller, and stop it
	@$(LOCAL) demo

demo_parallel: $(RUN) ## Run ten jobs of 5 s (or SECONDS=1) in series, as a group and as a chord
	@$(LOCAL) demo-parallel --seconds $(or $(SECONDS),5)

local_start: $(RUN) ## Run the cluster without Docker in this terminal until Ctrl-C
	@$(LOCAL) start

local_start_server: $(RUN) ## Run only its Redis; start workers in other terminals
	@$(LOCAL) start --server-only

local_stop: $(RUN) ## Stop the cluster that local_start runs in another terminal
	@$(LOCAL) stop

local_clean: $(RUN) ## Stop it, and remove its queues and results
	@$(LOCAL) clean

kill_workers: $(RUN) ## Stop all local workers; celery_start_add_worker starts a new one
	@$(LOCAL) kill-workers

.PHONY: $(FAMILIES:%=celery_start_%_worker) celery_start_beat
$(FAMILIES:%=celery_start_%_worker): celery_start_%_worker: $(RUN) ## Run one more worker of a family in this terminal
	@$(LOCAL) worker $*

celery_start_beat: $(RUN) ## Run beat in this terminal, which submits the periodic jobs
	@$(VENV)/bin/python -m callers.beat

# Use the running cluster, on Docker or not -------------------------------------

.PHONY: $(FAMILIES:%=test_%_task) canvas inspect dead replay
$(FAMILIES:%=test_%_task): test_%_task: $(RUN) ## Run one job of a family on the running cluster
	@$(LOCAL) call $*

canvas: $(RUN) ## Run an example of each of Celery's canvas primitives
	@$(VENV)/bin/python -m callers.canvas

inspect: $(RUN) ## Show queue lengths, workers and running jobs
	@$(VENV)/bin/python -m callers.inspect

dead: $(RUN) ## List dead letters, the jobs that no worker can process, with reasons; QUEUE=add for one queue
	@$(VENV)/bin/python -m celery_streams dead list $(QUEUE)

replay: $(RUN) ## Publish a dead letter again under its job's id: ID=add:1700000000000-0
	$(if $(ID),,$(error name a dead letter that make dead lists: make $@ ID=add:1700000000000-0))
	@$(VENV)/bin/python -m celery_streams dead replay $(ID)

# Development -------------------------------------------------------------------

.PHONY: family family_remove contracts pins install dev test test_files test_docker test_faults fuzz lint \
	bench bench_curve bench_guard bench_docker bench_data bench_startup
family: $(DEV) ## Add a family: NAME=power
	@$(DEVELOP) family $(or $(NAME),$(error name the new family: make $@ NAME=power))

family_remove: $(DEV) ## Remove a family that was added: NAME=power
	@$(DEVELOP) family-remove $(or $(NAME),$(error name the family: make $@ NAME=power))

contracts: $(DEV) ## Bring what is derived from the tasks up to date: callers' contracts and types, tables of tasks
	@$(DEVELOP) contracts $(ARGS)

pins: $(DEV) ## Pin the packages of all requirements.txt in constraints.txt; ARGS=--upgrade for the latest versions
	@$(DEVELOP) pins $(ARGS)

install: $(DEV) ## Install all dependencies into .venv

dev: $(DEV) ## Run the cluster in this terminal, and restart a family's workers when their code changes: FAMILY=add
	$(if $(FAMILY),,$(error name a family ($(FAMILIES)): make $@ FAMILY=add))
	@$(LOCAL) start --watch $(FAMILY)

test: $(DEV) ## Run all tests; those of the compose stack need a Docker engine
	$(VENV)/bin/pytest --quiet --numprocesses 4 --no-loadscope-reorder

test_files: $(DEV) ## Check in seconds that all files agree and the families' examples are right: shows what is missing
	@$(DEVELOP) check
	$(VENV)/bin/pytest --quiet tests/repo tests/unit/test_tasks.py

test_docker: $(DEV) ## Run only the tests of the compose stack
	REQUIRE_DOCKER=1 $(VENV)/bin/pytest tests/cluster

test_faults: $(DEV) ## Inject faults under a load of 2,000 jobs; options: ARGS='--lists --report'
	REQUIRE_DOCKER=1 $(VENV)/bin/pytest tests/faults --stack $(ARGS)

fuzz: $(DEV) ## Fuzz the parsers of untrusted input; options: ARGS='--runs 1000000 --target envelope'
	@$(VENV)/bin/python -m tests.fuzz $(ARGS)

lint: $(DEV) ## Check code, types, Dockerfiles, shell, YAML and the compose file
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" tests/lint

bench: $(RUN) ## Compare in 15 minutes with Celery, celery-redis-plus, dramatiq, huey, taskiq, rq, saq and arq; options: ARGS='--only ours,celery-solo'
	@$(VENV)/bin/python -m bench.compare $(ARGS)

bench_curve: $(RUN) ## Measure the cluster with 1 to 8 workers, and with 10^3 to 10^6 jobs queued; options: ARGS='--depth 100000'
	@$(VENV)/bin/python -m bench.curve $(ARGS)

bench_guard: $(RUN) ## Compare briefly with stock Celery; fail if this cluster has become slower relative to it
	@$(VENV)/bin/python -m bench.guard $(ARGS)

bench_docker: ## Measure the compose stack from inside its network; a published port would distort the result
	@deploy/docker_bench $(ARGS)

bench_data: $(RUN) ## Measure the transfer rate of large results; options: ARGS='--running --rounds 20'
	@$(VENV)/bin/python -m bench.data $(ARGS)

bench_startup: $(RUN) ## Measure the start-up time of workers; options: ARGS='--docker --rounds 10'
	@$(VENV)/bin/python -m bench.startup $(ARGS)

$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("error: Python 3.11 or later is needed, not %d.%d: set PYTHON" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)

$(RUN): $(VENV)/bin/pip $(REQUIREMENTS)
	$(INSTALL) $(addprefix -r ,$(filter-out tests/%,$(wildcard */requirements.txt)))
	@touch $@

$(DEV): $(RUN)
	$(INSTALL) -r tests/requirements.txt
	@touch $@
