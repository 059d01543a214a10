# Needs Python 3.11 or newer with its venv module, and make. Every dependency comes as a wheel: no compiler.

PYTHON ?= python3
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
# -qq: errors only.
PIP_INSTALL := $(BIN)/python -m pip --no-input --disable-pip-version-check -qq install --only-binary :all:
SOURCES := $(wildcard fastsmtp tests examples loadtest docs)
# Python without .py in its name, which ruff and mypy do not find by themselves.
SCRIPTS := tests/conformance/serve
# What imports Locust is checked against the environment that has it, and left out where it is not.
LOADTEST_SOURCES := loadtest/locustfile.py loadtest/scaling.py loadtest/cpu_handlers.py loadtest/smtp_users loadtest/local
LOADTEST_ONLY := ^loadtest/((locustfile|scaling|cpu_handlers)\.py|(smtp_users|local)/)
# Plays the conformance cases; it is kept outside this repository.
CASES ?= ../shared/conformance/run_cases.py
COMPILE_LOCK := $(VENV)-lock/bin/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --custom-compile-command "make lock" --quiet
# What is fuzzed, and for how long each.
FUZZ_TARGETS := session proxy chunking sasl parameters
FUZZ_SECONDS ?= 60
DURABILITY_SECONDS ?= 120
# What the tests drive the server with, and the Debian packages that bring it.
# libnet-ssleay-perl is swaks' TLS, only recommended by its package.
# Dovecot takes mail over LMTP; python3-dkim judges signatures, python3-nacl those of Ed25519.
SYSTEM_PROGRAMS := swaks smtp-source smtp-sink haproxy openssl curl chromium chromedriver cc valgrind \
	pg_createcluster ip dovecot dkimverify promtool
SYSTEM_PACKAGES := swaks libnet-ssleay-perl postfix haproxy openssl curl chromium chromium-driver fonts-dejavu-core \
	gcc libc6-dev valgrind postgresql iproute2 dovecot-core dovecot-lmtpd python3-dkim python3-nacl prometheus

# What `make image-test` needs besides: it builds and runs the container image, as root.
IMAGE_PROGRAMS := buildah runc debootstrap ip haproxy prometheus pg_createcluster
IMAGE_PACKAGES := buildah runc debootstrap iproute2 haproxy prometheus postgresql

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test chaos loadtest scaling image-test fuzz durability conformance lint format settings metrics \
	screenshots lock system-deps clean bench bench-report bench-page bench-check bench-baseline

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/.installed-run ## start the server; flags and application in ARGS="..."
	exec $(BIN)/fastsmtp serve $(ARGS)

test: $(VENV)/.installed-dev $(VENV)-loadtest/.installed ## run the tests; pytest's arguments in ARGS="..."
	$(BIN)/python -m pytest $(ARGS)

chaos: $(VENV)/.installed-dev ## kill, stop, stall, replace and scale servers under load; parts in ARGS="..."
	$(BIN)/python -m loadtest.chaos $(ARGS)

# Inputs that reach more than the committed ones gather in build/fuzz, and so does one that fails.
fuzz: $(VENV)-fuzz/.installed ## fuzz the parsers for FUZZ_SECONDS=60 each, from the committed corpora
	@for target in $(FUZZ_TARGETS); do \
		mkdir -p build/fuzz/$$target; \
		$(VENV)-fuzz/bin/python -m tests.fuzz.$$target -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 \
			-artifact_prefix=build/fuzz/$$target- build/fuzz/$$target tests/fuzz/corpus/$$target || exit 1; \
	done

conformance: $(VENV)/.installed-dev ## play the conformance cases, if CASES=run_cases.py is there
	$(BIN)/python tests/conformance/run.py $(CASES)

loadtest: $(VENV)-loadtest/.installed ## load a server here with Locust for a minute; see loadtest/*.html
	$(VENV)-loadtest/bin/python -m loadtest.local.run $(ARGS)

scaling: $(VENV)-loadtest/.installed ## measure handlers that burn CPU over workers and threads
	$(VENV)-loadtest/bin/python -m loadtest.scaling $(ARGS)

# In a network namespace of its own, so that the addresses of docker/compose.yaml are free and nothing gets out.
image-test: $(VENV)/.installed-dev ## build the container image without Docker, and test it; as root
	$(MAKE) system-deps SYSTEM_PROGRAMS="$(IMAGE_PROGRAMS)" SYSTEM_PACKAGES="$(IMAGE_PACKAGES)"
	$(BIN)/python -m tests.docker.image.build build/image
	FASTSMTP_IMAGE_TEST=$(CURDIR)/build/image unshare --net $(BIN)/python -m pytest \
		tests/docker/image/check_image.py tests/docker/image/check_deployment.py $(ARGS)

# Kills, power cuts and lost machines, for longer than the tests do; prints the counts of each.
durability: $(VENV)/.installed-dev ## prove that nothing accepted is lost, for DURABILITY_SECONDS=120 each
	$(BIN)/python -m loadtest.durability.kills --seconds $(DURABILITY_SECONDS) queue
	$(BIN)/python -m loadtest.durability.kills --seconds $(DURABILITY_SECONDS) postgresql
	$(BIN)/python -m loadtest.durability.kills --seconds $(DURABILITY_SECONDS) --deliver queue
	$(BIN)/python -m loadtest.durability.kills --seconds $(DURABILITY_SECONDS) --deliver postgresql
	$(BIN)/python -m loadtest.durability.powercut queue
	$(BIN)/python -m loadtest.durability.powercut maildir
	$(BIN)/python -m loadtest.durability.machines

# With another interpreter: make bench PYTHON=python3.13 VENV=.venv-3.13
bench: $(VENV)/.installed-run $(VENV)-bench/.installed build/bench/npm/.installed ## measure beside other servers, ten minutes; scenarios in ARGS="..."
	$(BIN)/python -m loadtest.bench --peer-python $(VENV)-bench/bin/python --json build/bench/results.json $(ARGS)

bench-report: $(VENV)/.installed-run $(VENV)-bench/.installed build/bench/npm/.installed ## measure everything and write docs/benchmarks.md anew, half an hour
	$(VENV)-bench/bin/python -m loadtest.bench.measurements --python $(BIN)/python $(ARGS)
	$(VENV)-bench/bin/python -m loadtest.bench.report

bench-page: $(VENV)-bench/.installed ## write docs/benchmarks.md anew from what was measured last
	$(VENV)-bench/bin/python -m loadtest.bench.report

# Counts of instructions, which do not depend on how fast or busy the machine is. ARGS: see loadtest/bench/instructions.py
bench-check: $(VENV)/.installed-dev ## fail if a message takes more instructions than the baseline, or than AGAINST=revision
	$(BIN)/python -m loadtest.bench.instructions $(if $(AGAINST),--against $(AGAINST)) $(ARGS)

bench-baseline: $(VENV)/.installed-dev ## write the baseline of bench-check anew, for this interpreter
	$(BIN)/python -m loadtest.bench.instructions --write $(ARGS)

lint: $(VENV)/.installed-dev $(VENV)-loadtest/.installed ## check style, formatting and types
	$(BIN)/ruff check . $(SCRIPTS)
	$(BIN)/ruff format --check . $(SCRIPTS)
	$(BIN)/mypy --strict $(SOURCES) $(SCRIPTS) --exclude '$(LOADTEST_ONLY)'
	$(BIN)/mypy --strict --python-executable $(VENV)-loadtest/bin/python $(LOADTEST_SOURCES)

format: $(VENV)/.installed-dev ## format the code, and fix what ruff can fix
	$(BIN)/ruff check --fix-only . $(SCRIPTS)
	$(BIN)/ruff format . $(SCRIPTS)

settings: $(VENV)/.installed-dev ## write docs/settings.md anew
	$(BIN)/python docs/make_settings.py

# Takes a minute or two: plots need something to show.
screenshots: $(VENV)/.installed-dev ## take docs/images/page-*.png anew, in Chromium under a small load
	$(BIN)/python docs/make_screenshots.py

metrics: $(VENV)/.installed-dev ## write docs/metrics.md anew
	$(BIN)/python docs/make_metrics.py

# Keeps the versions that still fit; ARGS=--upgrade takes the newest.
lock: $(VENV)-lock/.installed ## write requirements/*.txt anew; newest versions with ARGS=--upgrade
	$(COMPILE_LOCK) --group dev --group build --output-file requirements/dev.txt $(ARGS)
	$(COMPILE_LOCK) --group loadtest --group build --output-file requirements/loadtest.txt $(ARGS)

# The postfix package asks nothing, configures nothing and starts nothing: only its smtp-source and smtp-sink are wanted.
# A policy-rc.d that says 101 forbids starting services (invoke-rc.d(8)); one that is there already is left as it is.
define INSTALL_SYSTEM_PACKAGES
set -e
export DEBIAN_FRONTEND=noninteractive
policy=/usr/sbin/policy-rc.d
if [ ! -e $$policy ]; then
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' >$$policy
    chmod 755 $$policy
fi
echo 'postfix postfix/main_mailer_type select No configuration' | debconf-set-selections
apt-get update -qq
apt-get install -qq -y --no-install-recommends $(SYSTEM_PACKAGES) </dev/null
endef
export INSTALL_SYSTEM_PACKAGES

system-deps: ## install the programs that the tests use, from Debian
	@PATH="$$PATH:/usr/sbin:/sbin"; missing=; \
	for program in $(SYSTEM_PROGRAMS); do command -v $$program >/dev/null || missing="$$missing $$program"; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	echo "missing:$$missing"; \
	command -v apt-get >/dev/null || { echo "no apt-get here: install them by hand" >&2; exit 1; }; \
	if [ "$$(id -u)" = 0 ]; then sh -c "$$INSTALL_SYSTEM_PACKAGES"; \
	elif command -v sudo >/dev/null; then sudo sh -c "$$INSTALL_SYSTEM_PACKAGES"; \
	else echo "neither root nor sudo: as root, run 'make system-deps'" >&2; exit 1; fi

clean: ## remove what the other targets made, but not mail
	rm -rf $(VENV) $(VENV)-lock $(VENV)-fuzz $(VENV)-bench $(VENV)-loadtest build dist .hypothesis .mypy_cache \
		.pytest_cache .ruff_cache
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.created:
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.installed-run: pyproject.toml $(VENV)/.created
	$(PIP_INSTALL) --editable .
	@touch $@

# The project is installed for development too, so `make run` has nothing left to do.
$(VENV)/.installed-dev: requirements/dev.txt pyproject.toml $(VENV)/.created
	$(PIP_INSTALL) --require-hashes --requirement requirements/dev.txt
	$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $(VENV)/.installed-run $@

# Locust, and a fastsmtp for it to load. dkimpy is pure Python, and comes as source only.
$(VENV)-loadtest/.created:
	$(PYTHON) -m venv --clear $(VENV)-loadtest
	@touch $@

$(VENV)-loadtest/.installed: requirements/loadtest.txt pyproject.toml $(VENV)-loadtest/.created
	$(VENV)-loadtest/bin/python -m pip --no-input --disable-pip-version-check -qq install --only-binary :all: \
		--no-binary dkimpy --require-hashes --requirement requirements/loadtest.txt
	$(VENV)-loadtest/bin/python -m pip --no-input --disable-pip-version-check -qq install --only-binary :all: \
		--no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)-lock/.installed:
	$(PYTHON) -m venv --clear $(VENV)-lock
	$(VENV)-lock/bin/python -m pip --no-input --disable-pip-version-check -qq install --only-binary :all: uv
	@touch $@

# Not among the dependencies of development: atheris has no wheels for Linux on ARM.
$(VENV)-fuzz/.installed: pyproject.toml
	$(PYTHON) -m venv --clear $(VENV)-fuzz
	$(VENV)-fuzz/bin/python -m pip --no-input --disable-pip-version-check -qq install --only-binary :all: \
		atheris hypothesis --editable '.[auth]'
	@touch $@

# aiosmtpd is measured; matplotlib draws; py-spy profiles.
$(VENV)-bench/.installed: pyproject.toml
	$(PYTHON) -m venv --clear $(VENV)-bench
	$(VENV)-bench/bin/python -m pip --no-input --disable-pip-version-check -qq install --only-binary :all: \
		aiosmtpd matplotlib py-spy --editable .
	@touch $@

# Servers in Node.js are measured where there is npm, and left out where there is none.
build/bench/npm/.installed:
	@mkdir -p $(@D)
	@if command -v npm >/dev/null; then \
		npm install --prefix $(@D) --no-audit --no-fund --loglevel=error Haraka smtp-server; \
	else echo "no npm: Haraka and smtp-server are left out"; fi
	@touch $@
