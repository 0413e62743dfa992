# Two commands: `make course` and `make test`. Each sets up what it needs, says what it does, and does nothing twice.
PYTHON ?= python3
NB     ?=
PRESET ?= quick
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --no-input
# Gigabytes that the packages take, and that must be free before: torch for Linux brings CUDA along.
TAKES  := $(if $(filter Linux,$(shell uname -s)),6,2)
SPACE  ?= $(if $(filter 6,$(TAKES)),8,3)

.PHONY: help course test lint bench store constraints clean venv
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

help:
	@echo "make course           install (once), then run the notebooks and write their figures to figures/$(PRESET)/"
	@echo "                      NB=02 or NB=01-02: only these; PRESET=smoke, quick (a laptop) or paper (a GPU)"
	@echo "make test             install (once), then lint, types, import floors, prose, tests, every notebook at 'smoke'"
	@echo "make lint             the first part of that: seconds"
	@echo "make bench            measure speed, as ratios within one run"
	@echo "make clean            remove $(VENV) and what the runs wrote; fetched networks stay in their cache"
	@echo "for maintainers:      make store (run, then write outputs and times into notebooks/), make constraints"

# A virtual environment cannot be moved or copied, and it ends with the Python it was made from.
WHOLE := $(shell grep -qF "$$(pwd -P)/$(BIN)/python" $(BIN)/pip 2>/dev/null && $(BIN)/python -c '' 2>/dev/null && echo yes)

# One stamp per set of packages, touched last: pip runs again after an interrupt and when what is asked for changes.
$(VENV)/.course: pyproject.toml constraints.txt $(if $(WHOLE),,venv)
	@echo "installing torch, JupyterLab and the rest: the first time 2-5 minutes and $(TAKES) GB on disk; pip is quiet meanwhile"
	@$(call install,course)

$(VENV)/.dev: $(VENV)/.course
	@echo "installing the test tools: the first time about 20 seconds, 100 MB on disk"
	@$(call install,course$(COMMA)dev)

COMMA := ,
define install
start=$$(date +%s); log=$(VENV)/pip.log; \
$(PIP) install --quiet -c constraints.txt -e '.[$(1)]' >$$log 2>&1 || { tail -n 15 $$log; \
  if grep -qi 'no space left' $$log; then echo "The disk is full: make room (pip also fills its temporary folder, TMPDIR), then run make again."; \
  elif grep -qE 'Retrying|Connection|Proxy|SSL|No matching distribution' $$log; then \
    echo "pip did not get a package: check the network, or tell pip of your mirror (pip config set global.index-url ADDRESS), then run make again."; \
  else echo "pip failed; all it said is in $$log."; fi; exit 1; }; \
touch $@; echo "installed in $$(( $$(date +%s) - start )) s"
endef

venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 or newer is needed, and $(PYTHON) is $$($(PYTHON) --version 2>/dev/null || echo missing): name another one, as in PYTHON=python3.12."; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments: on Debian and Ubuntu, apt install python3-venv."; exit 1; }
	@free=$$(df -Pk . | awk 'NR == 2 { print int($$4 / 1048576) }'); test "$$free" -ge $(SPACE) || { \
	  echo "$$free GB are free here and $(SPACE) are needed: make room (or say SPACE=$$free if you know that it suffices)."; exit 1; }
	@if test -e $(VENV); then echo "$(VENV) is incomplete or was made in another place: removing it"; rm -rf $(VENV); fi
	@echo "creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)

course: $(VENV)/.course
	@$(BIN)/nst course $(NB) --preset $(PRESET)

test: $(VENV)/.dev
	@bash tests/run.sh

lint: $(VENV)/.dev
	@bash tests/run.sh lint

bench: $(VENV)/.course
	@for b in gatys_iteration fast_networks coarse_to_fine large_picture; do $(BIN)/python benchmarks/$$b.py || exit 1; done

store: $(VENV)/.course
	@$(BIN)/python tools/store.py $(NB)

# The newest versions that pyproject.toml allows, in an environment made anew. Run `make test` before keeping them.
constraints:
	@rm -rf $(VENV)
	@$(MAKE) --no-print-directory venv
	@echo "installing the newest versions: 2-5 minutes"
	@$(PIP) install --quiet -e '.[course,dev]' && $(PIP) check
	@$(PIP) freeze --exclude-editable > $(VENV)/freeze.txt
	@{ grep '^#' constraints.txt; sed -n 's/^\([A-Za-z0-9._-]*==[^+ ;]*\).*/\1/p' $(VENV)/freeze.txt; } > constraints.new
	@mv constraints.new constraints.txt && touch $(VENV)/.course $(VENV)/.dev

clean:
	rm -rf $(VENV) figures/smoke figures/quick figures/paper build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
