# Two commands matter: `make book` and `make test`. Both create .venv when it is missing.
PYTHON  ?= python3
BIN     := .venv/bin
EXECUTED = $(shell grep -LF '"execution_count": null' notebooks/*.ipynb)
SCALED   = $(shell grep -lE '"profile = ."mini(-phi)?."' $(EXECUTED))
FRESH    = RKLU_RECORDS=$(CURDIR)/_build/smoke/records RKLU_RUNS=$(CURDIR)/_build/smoke/runs

.PHONY: venv book smoke html notebooks test bench mini lock clean

venv: .venv/installed  ## everything pinned, the package itself editable

.venv/installed: pyproject.toml requirements.lock
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[book,test]'
	touch $@

book: smoke html  ## from nothing to _build/html/index.html

smoke: venv  ## every notebook that has scales, at the smallest one: one seed, two where a page of forget10 alone has several
	mkdir -p _build/smoke
	echo $(SCALED) | $(FRESH) OMP_NUM_THREADS=1 xargs -n 1 -P 2 sh -c '\
	  seeds=$$(grep -q "seeds = \[" $$0 && echo "seeds: [0]"); \
	  if grep -q "split = .*forget10" $$0 && grep -q "seeds = \[0, " $$0; then seeds=$${seeds:+seeds: [0, 1]}; fi; \
	  $(BIN)/papermill --no-progress-bar $$0 _build/smoke/$$(basename $$0) -p profile smoke $${seeds:+-y "$$seeds"}'

html: venv  ## the strict build: a warning is an error, a broken reference is a warning
	$(BIN)/jupyter-book build . -W -n --keep-going

notebooks: venv  ## every page executed in place, from the committed records; a new one is named by hand, once
	$(BIN)/python notebooks/execute.py $(EXECUTED)

test: venv  ## unit, property, golden, book and browser tests; committed notebooks compared cell by cell
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --nbval tests $(EXECUTED)

bench: venv  ## speed and memory, as ratios against the naive form
	for b in benchmarks/*.py; do $(BIN)/python $$b || exit 1; done

mini: venv  ## the mini scale on TOFU's forget10: hours on two cores
	$(BIN)/rklu sweep --profile mini --split forget10 --seed 0

lock: venv  ## the versions in .venv become the pinned ones
	$(BIN)/pip freeze --exclude-editable | sed 's/+cpu$$//' > requirements.lock

clean:  ## what can be made again; runs/ (checkpoints) and .venv stay
	rm -rf _build .pytest_cache .ruff_cache .hypothesis *.egg-info
