# Two commands matter: `make book` and `make test`. Both create .venv when it is missing.
PYTHON  ?= python3
BIN     := .venv/bin
EXECUTED = $(shell grep -LF '"execution_count": null' notebooks/*.ipynb)
SCALED   = $(shell grep -lE '"profile = ."mini(-phi)?."' $(EXECUTED))
FIRST    = notebooks/quickstart.ipynb notebooks/table3_fkl_vs_rkl.ipynb
CONFIG   = $(if $(REPOSITORY),_build/_config.yml,_config.yml)
CHROMIUM = $(shell command -v chromium chromium-browser google-chrome | head -n 1)

.PHONY: venv book smoke html pdf notebooks test bench mini lock clean

venv: .venv/installed  ## everything pinned, the package itself editable

.venv/installed: pyproject.toml requirements.lock
	@echo "1 of 3: the environment, some two to four minutes"
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[book,test]'
	touch $@

book: venv  ## from nothing to _build/html/index.html: the pipeline at the smoke scale on two pages, and the book
	@echo "2 of 3: the quickstart and Table 3 at the smoke scale, some one to two minutes; later calls find their runs"
	$(BIN)/python notebooks/smoke.py $(FIRST)
	@echo "3 of 3: the book from the committed outputs, about a minute"
	$(MAKE) --no-print-directory html
	@echo "_build/html/index.html"

smoke: venv  ## every notebook that has scales, at the smallest one, from nothing
	$(BIN)/python notebooks/smoke.py $(SCALED)

html: venv $(CONFIG)  ## the strict build: a warning is an error, a broken reference is a warning
	$(BIN)/jupyter-book build . --quiet --config $(CONFIG) -W -n --keep-going

_build/_config.yml: _config.yml configs/launch.yml  # REPOSITORY=https://github.com/owner/name: buttons for Binder and Colab
	mkdir -p _build
	sed 's#REPOSITORY#$(REPOSITORY)#' configs/launch.yml | cat _config.yml - > $@

pdf: venv  ## the book as one PDF, widgets as they open: _build/rklu.pdf
	$(BIN)/jupyter-book build . --quiet --builder custom --custom-builder singlehtml -n --keep-going
	"$(CHROMIUM)" --headless --no-sandbox --disable-gpu --virtual-time-budget=60000 --no-pdf-header-footer \
	  --print-to-pdf=_build/rklu.pdf "file://$(CURDIR)/_build/singlehtml/book/introduction.html"

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
