# Every way to run, try and test the cluster. Settings: .env, explained in .env.example.
.DEFAULT_GOAL := help

# Read as Compose reads it: Make's own include takes quotes and comments for part of a value.
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
FAMILIES := $(patsubst %/tasks.py,%,$(wildcard */tasks.py))

# The broker on Docker; RabbitMQ's overlay goes over the compose file for every command.
BROKER ?= redis
WITH_RABBITMQ := docker-compose.yml:deploy/rabbitmq.yml
ifeq ($(BROKER),rabbitmq)
export COMPOSE_FILE := $(WITH_RABBITMQ)
else ifneq ($(BROKER),redis)
$(error BROKER must be redis or rabbitmq, not '$(BROKER)')
endif
export BROKER

.PHONY: help
help: ## Show this list
	@sed -nE 's/^([a-z_]+):.*## (.*)/\1|\2/p' $(MAKEFILE_LIST) | awk -F '|' '{printf "  %-34s%s\n", $$1, $$2}'

# On Docker ---------------------------------------------------------------------

.PHONY: docker_compose_start docker_compose_stop docker_compose_clean docker_compose_scale \
	docker_compose_beat docker_compose_join monitoring
docker_compose_start: ## Build and start the cluster on Docker, run the three callers; BROKER=rabbitmq for RabbitMQ
	@deploy/docker_start

docker_compose_stop: ## Stop it: running jobs finish, all others stay in their queues
	COMPOSE_FILE=$(WITH_RABBITMQ) docker compose --profile '*' stop

docker_compose_clean: ## Remove its containers, network, stored jobs and results
	COMPOSE_FILE=$(WITH_RABBITMQ) docker compose --profile '*' down --volumes --remove-orphans

docker_compose_scale: ## Run N workers of a family until the next start: SERVICE=add N=3
	$(if $(and $(filter $(FAMILIES),$(SERVICE)),$(shell expr '$(N)' : '[0-9][0-9]*$$' 2>/dev/null | grep -v '^0$$')),,$(error say which family ($(FAMILIES)) and how many workers: make $@ SERVICE=add N=3))
	@deploy/make_secrets
	docker compose up --detach --wait --no-deps --no-recreate --scale $(SERVICE)=$(N) $(SERVICE)

docker_compose_beat: ## Start beat, which submits jobs by the clock: beat_schedule in celeryconfig.py
	@deploy/make_secrets
	docker compose --profile beat up --build --detach --wait beat

docker_compose_join: ## Run workers alone, for the Redis of another machine: CELERY_BROKER_URL names it
	docker compose -f docker-compose.yml -f deploy/workers.yml up --build --detach --wait

monitoring: ## Start Flower on Docker: a page that shows workers, queues and jobs, behind a password
	@deploy/make_secrets && deploy/check_port flower 5555 FLOWER_PORT 5555
	docker compose --profile monitoring up --detach --wait --build flower
	@printf 'Flower: http://127.0.0.1:%s, user flower, password in secrets/flower_password\n' "$${FLOWER_PORT:-5555}"

# On a bare machine -------------------------------------------------------------

.PHONY: demo demo_parallel local_start local_start_server local_stop local_clean kill_workers
demo: $(RUN) ## Start a cluster without Docker, run the three callers, stop it
	@$(LOCAL) demo

demo_parallel: $(RUN) ## Do ten jobs of 5 s, or SECONDS=1, in series, as a group and as a chord
	@$(LOCAL) demo-parallel --seconds $(or $(SECONDS),5)

local_start: $(RUN) ## Run the cluster without Docker in this terminal, until Ctrl-C
	@$(LOCAL) start

local_start_server: $(RUN) ## Run its Redis alone: start workers in other terminals
	@$(LOCAL) start --server-only

local_stop: $(RUN) ## Stop the cluster that local_start runs elsewhere
	@$(LOCAL) stop

local_clean: $(RUN) ## Stop it and remove its stored jobs and results
	@$(LOCAL) clean

kill_workers: $(RUN) ## Stop all local workers; celery_start_add_worker starts one again
	@$(LOCAL) kill-workers

.PHONY: celery_start_add_worker celery_start_factorial_worker celery_start_mat_mul_worker
celery_start_add_worker: $(RUN) ## Run one more add worker in this terminal
	@$(LOCAL) worker add

celery_start_factorial_worker: $(RUN) ## Run one more factorial worker in this terminal
	@$(LOCAL) worker factorial

celery_start_mat_mul_worker: $(RUN) ## Run one more mat_mul worker in this terminal
	@$(LOCAL) worker mat_mul

.PHONY: celery_start_beat
celery_start_beat: $(RUN) ## Run beat in this terminal: it submits jobs by the clock
	@$(VENV)/bin/python -m callers.beat

# Ask the running cluster, on Docker or not -----------------------------------------

.PHONY: test_add_task test_factorial_task test_mat_mul_task canvas inspect dead replay
test_add_task: $(RUN) ## Ask the running cluster for 4 + 6
	@$(VENV)/bin/python -m callers.add 4 6

test_factorial_task: $(RUN) ## Ask the running cluster for 20000!
	@$(VENV)/bin/python -m callers.factorial 20000 --brief

test_mat_mul_task: $(RUN) ## Ask the running cluster for a product of matrices
	@$(VENV)/bin/python -m callers.mat_mul 20 20 --brief

canvas: $(RUN) ## Run an example of each of Celery's ways to put jobs together
	@$(VENV)/bin/python -m callers.canvas

inspect: $(RUN) ## Show how long the queues are, all workers and the jobs that run
	@$(VENV)/bin/python -m callers.inspect

dead: $(RUN) ## Show the dead letters, jobs that no worker can do, and why; QUEUE=add for one queue
	@$(VENV)/bin/python -m celery_streams dead list $(QUEUE)

replay: $(RUN) ## Run dead letters again under their ids: ID=add:1700000000000-0
	$(if $(ID),,$(error say which, as make dead shows it: make $@ ID=add:1700000000000-0))
	@$(VENV)/bin/python -m celery_streams dead replay $(ID)

# Development -------------------------------------------------------------------

.PHONY: install test test_files test_docker test_faults fuzz lint \
	bench bench_curve bench_guard bench_docker bench_data bench_startup
install: $(DEV) ## Install everything into .venv

test: $(DEV) ## Run all tests; those of the compose stack need a Docker engine
	tests/run $(VENV)/bin/pytest

test_files: $(DEV) ## Check in seconds that the files agree: what a new family or setting lacks
	$(VENV)/bin/pytest --quiet tests/repo

test_docker: $(DEV) ## Run the tests of the compose stack alone
	REQUIRE_DOCKER=1 $(VENV)/bin/pytest tests/cluster

test_faults: $(DEV) ## Break everything under a load of 2,000 jobs; ARGS='--stock --report' are its options
	REQUIRE_DOCKER=1 $(VENV)/bin/pytest tests/faults --stack $(ARGS)

fuzz: $(DEV) ## Fuzz all that is read from outside; ARGS='--runs 1000000 --target envelope' are its options
	@$(VENV)/bin/python -m tests.fuzz $(ARGS)

lint: $(DEV) ## Check code, types, Dockerfiles, shell, YAML and the compose file
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" tests/lint

bench: $(RUN) ## Compare with Celery, dramatiq, huey, taskiq, rq, saq and arq; ARGS='--only ours,celery-solo' are its options
	@$(VENV)/bin/python -m bench.peers $(ARGS)

bench_curve: $(RUN) ## Measure the cluster with 1 to 8 workers, and with 10^3 to 10^6 jobs queued; ARGS='--depth 100000'
	@$(VENV)/bin/python -m bench.curve $(ARGS)

bench_guard: $(RUN) ## Compare shortly with stock Celery, and fail if this cluster became slow beside it
	@$(VENV)/bin/python -m bench.guard $(ARGS)

bench_docker: ## Measure the compose stack from within its network: a published port would distort it
	@deploy/docker_bench $(ARGS)

bench_data: $(RUN) ## Measure how fast large results move; ARGS='--running --repeats 20' are its options
	@$(VENV)/bin/python -m bench.data $(ARGS)

bench_startup: $(RUN) ## Measure how long workers take to start; ARGS='--docker --repeats 10' are its options
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
