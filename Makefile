# make demo    watch a worker and a client do a job, on this machine
# make test    every check and every test
#
# Both make .venv by themselves, from PyPI; neither needs root. Once it is there, they touch no
# network (test-wheel, test-pictures and bench do). PYTHON=/path/to/python3 chooses the Python for .venv.

SHELL := bash
PY := .venv/bin/python
STEP := tools/step.sh
# Tests share the cores. Most of them wait for real processes and real time, so more than four at
# once is no faster, and crowds a laptop.
SHARED := -n logical --maxprocesses 4

# What is installed is said above [tool.ruff] in pyproject.toml; another text, or another place of
# this folder, is another stamp, and so another installation. No time stamp is compared.
SUM := $(shell { pwd; sed '/^\[tool\.ruff\]/,$$d' pyproject.toml; } | cksum | cut -d' ' -f1)
RUNTIME := .venv/.runtime-$(SUM)
DEV := .venv/.dev-$(SUM)

.DEFAULT_GOAL := help
.PHONY: help demo test test-wheel test-sleap test-pictures mutate fuzz sweep coverage bench \
	lint diagrams record clean distclean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

$(RUNTIME):
	@tools/venv.sh runtime $@

$(DEV):
	@tools/venv.sh dev $@ $(RUNTIME)

demo: $(RUNTIME) ## watch a worker and a client do a job, on this machine
	@$(PY) -m fsm_worker demo

test: $(DEV) ## every check and every test
	@started=$$SECONDS; $(MAKE) --no-print-directory lint \
	&& $(PY) -m pytest -q $(SHARED) \
	&& echo "make test took $$((SECONDS - started)) s"

test-wheel: $(DEV) ## build the wheel, install it alone elsewhere, run the demo there
	@$(PY) -m pytest -q -m wheel

test-sleap: $(DEV) ## real sleap-nn trainings on the CPU, in an environment of their own
	@started=$$SECONDS; examples/sleap/install.sh .venv-sleap $(PY) \
	&& FSM_WORKER_TEST_SLEAP_NN=$(CURDIR)/.venv-sleap/bin/sleap-nn $(PY) -m pytest -q tests/sleap \
	&& echo "make test-sleap took $$((SECONDS - started)) s"

test-pictures: $(DEV) ## every picture, drawn by Mermaid in Chromium, fits one screen
	@started=$$SECONDS; tools/mermaid.sh .cache/mermaid \
	&& FSM_WORKER_TEST_MERMAID=$(CURDIR)/.cache/mermaid $(PY) -m pytest -q tests/pictures \
	&& echo "make test-pictures took $$((SECONDS - started)) s"

fuzz: $(DEV) ## a million mutated inputs and 20,000 structured ones, at every decoder, on two cores
	@started=$$SECONDS; export FSM_WORKER_FUZZ_CASES=10000 FSM_WORKER_FUZZ_MUTANTS=500000; \
	seed=$${FSM_WORKER_FUZZ_SEED:-$$RANDOM}; echo "FSM_WORKER_FUZZ_SEED=$$seed and $$((seed + 1))"; \
	FSM_WORKER_FUZZ_SEED=$$seed $(PY) -m pytest -q tests/fuzz -m fuzz & first=$$!; \
	FSM_WORKER_FUZZ_SEED=$$((seed + 1)) $(PY) -m pytest -q tests/fuzz -m fuzz; second=$$?; \
	wait $$first && test $$second = 0 && echo "make fuzz took $$((SECONDS - started)) s"

sweep: $(DEV) ## cancel the worker at the n-th suspension of its tasks, for every n
	@started=$$SECONDS; FSM_WORKER_SWEEP=every $(PY) -m pytest -q tests/sweep \
	&& echo "make sweep took $$((SECONDS - started)) s"

coverage: $(DEV) ## the tests, with the coverage of every line and branch
	@$(PY) -m pytest -q $(SHARED) --cov --cov-report=term-missing

mutate: $(DEV) ## change every table in every small way, and see who notices
	@$(PY) -m tests.exploration.mutate

bench: $(RUNTIME) ## measure everything, and write bench/RESULTS.md
	@$(PY) -m bench

CHECKS := style format types types-win32 types-darwin imports drift
.PHONY: $(CHECKS)

lint: $(DEV) ## style, types on three systems, imports, drift of the diagrams
	@$(MAKE) --no-print-directory --jobs 2 $(CHECKS)

style:
	@$(STEP) "style" $(PY) -m ruff check
format:
	@$(STEP) "format" $(PY) -m ruff format --check
types:
	@$(STEP) "types" $(PY) -m mypy
types-win32 types-darwin: types-%:
	@$(STEP) "types of a client on $*" $(PY) -m mypy --platform $* --cache-dir .mypy_cache/$* \
		-p protocol -p fsm_worker.client -p fsm_worker.machines
imports:
	@$(STEP) "imports" $(PY) -c 'from importlinter.cli import lint_imports_command as run; run()'
drift:
	@$(STEP) "diagrams" $(PY) -m fsm_worker.diagrams --check

diagrams: $(RUNTIME) ## write diagrams/ from the tables
	@$(PY) -m fsm_worker.diagrams

record: $(DEV) ## run the flows of the sequence charts for real, and draw them anew
	@$(PY) -m tests.e2e.record_flows diagrams/recordings && $(PY) -m fsm_worker.diagrams

clean: ## remove what tools leave behind
	rm -rf build dist .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache \
		.pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +

distclean: clean ## clean, and remove .venv
	rm -rf .venv
