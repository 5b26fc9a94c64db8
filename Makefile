# make test   everything CI checks       make demo    AdamW -> Lion on a small GPT, killed and resumed
# make lint   style, types, contracts    make format  let ruff rewrite the sources
# make docs   docs/_build/html           make bench   the figures in benchmarks/README.md
# make fuzz   2,000 mutated files of each container and kind of folder through every command
# make crash-test   1,000 kill -9, lost power, full disks: docs/crash-report.md; needs strace and root
# make torch-suite TEST_OPTIM=pytorch/test/test_optim.py   torch's own optimizer tests on ours
#
# Each target sets itself up: .venv is made by $(PYTHON) and filled from constraints.txt.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Processes that the tests run in, each file in one of them.
JOBS ?= 2
PYTEST := $(BIN)/pytest -q -n $(JOBS) --dist loadfile
EXTRAS := plot,resume,interop,test,docs,dev
PIP := $(BIN)/python -m pip --disable-pip-version-check install -c constraints.txt
# Quiet while it works; a failure is repeated aloud.
install = $(PIP) -qq $(1) || $(PIP) $(1)

# A constraint in the environment also binds the isolated environment that pip builds liontool in.
export PIP_CONSTRAINT := constraints.txt
# Two threads of BLAS on two cores fight with each other, and sums depend on their number.
unit fuzz crash-test interop docs torch-suite: export OMP_NUM_THREADS := 1

.PHONY: test demo lint format docs bench unit fuzz crash-test interop torch-suite clean

test: lint unit interop docs

demo: $(VENV)/installed-demo
	$(BIN)/liontool demo

lint: $(VENV)/installed-all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict
	$(BIN)/lint-imports

format: $(VENV)/installed-all
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

unit: $(VENV)/installed-all
	$(PYTEST) -m "not interop and not gpu"

fuzz: $(VENV)/installed-all
	LIONTOOL_MUTANTS=2000 $(BIN)/pytest -q tests/test_mutants.py

crash-test: $(VENV)/installed-all
	$(BIN)/python tests/crash/run.py --report docs/crash-report.md

interop: $(VENV)/installed-all
	$(PYTEST) -m "interop and not gpu"

torch-suite: $(VENV)/installed-all
	$(BIN)/python tests/optim/run_torch_suite.py "$(TEST_OPTIM)"

docs: $(VENV)/installed-all
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html

bench: $(VENV)/installed-all
	@for script in benchmarks/*.py; do echo "$$script"; $(BIN)/python "$$script" || exit 1; done

clean:
	rm -rf $(VENV) docs/_build

# The stamps are younger than what they were made from, so the second run installs nothing.
# torch comes first and alone: nothing after it can then choose another build.
$(VENV)/installed-torch: constraints.txt
	@echo "making $(VENV): torch"
	$(PYTHON) -m venv $(VENV)
	@$(call install,torch)
	@touch $@

$(VENV)/installed-demo: $(VENV)/installed-torch pyproject.toml
	@echo "making $(VENV): liontool and what the demo needs"
	@$(call install,-e ".[plot,resume]")
	@touch $@

$(VENV)/installed-all: $(VENV)/installed-torch pyproject.toml
	@echo "making $(VENV): liontool, the frameworks it is tested with, the tools (2 minutes)"
	@$(call install,-e ".[$(EXTRAS)]")
	@touch $@ $(VENV)/installed-demo
