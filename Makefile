# Two commands: `make course` and `make test`. Each sets up what it needs, says what it does, and does nothing twice.
PYTHON ?= python3
NB     ?=
PRESET ?= quick
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: help course test lint bench clean
.DEFAULT_GOAL := help

help:
	@echo "make course           install, then run the notebooks at the preset '$(PRESET)' (NB=02 for one, PRESET=smoke|quick|paper)"
	@echo "make test             install, then lint, types, import floors, unit tests and every notebook at 'smoke'"
	@echo "make bench            measure speed as ratios within one run"
	@echo "make clean            remove .venv and what the runs wrote; the weight cache stays"

# One stamp per set of packages; pip runs again only when what is asked for has changed.
$(VENV)/.course: pyproject.toml constraints.txt
	@test -x $(BIN)/python || { echo "[1/2] creating $(VENV) with $$($(PYTHON) --version)"; $(PYTHON) -m venv $(VENV); }
	@echo "[2/2] installing torch, jupyterlab and the rest: about 5 GB on disk with Linux's CUDA build of torch, 2-4 minutes"
	@start=$$(date +%s); $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[course]' \
	  && echo "      installed in $$(( $$(date +%s) - start )) s" && touch $@

$(VENV)/.dev: $(VENV)/.course
	@echo "[+] installing the test tools (about 60 MB)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[course,dev]' && touch $@

course: $(VENV)/.course
	@$(BIN)/nst course $(NB) --preset $(PRESET)

test: $(VENV)/.dev
	@bash tests/run.sh

lint: $(VENV)/.dev
	@bash tests/run.sh lint

bench: $(VENV)/.course
	@$(BIN)/python benchmarks/gatys_iteration.py

clean:
	rm -rf $(VENV) figures/smoke figures/quick figures/paper build .pytest_cache .mypy_cache .ruff_cache .hypothesis
