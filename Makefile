# Two commands matter: `make book` and `make test`. Both create .venv when it is missing.
PYTHON  ?= python3
BIN     ?= .venv/bin
# What is never imported need not be compiled; where Python may write no bytecode pip does it once, for all processes.
COMPILE := $(if $(PYTHONDONTWRITEBYTECODE),--compile,--no-compile)
PIP     := $(BIN)/pip install --quiet --disable-pip-version-check $(COMPILE)
# PyTorch's CPU build, with which the records were made: it is not on PyPI, whose hashes stand in the lock beside it.
# Where there is one it is taken first: of two files that it may take pip prefers PyPI's, with 3 GB of CUDA.
CPU     := sha256:6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b
# Python 3.11's own pip holds every file of an index against every tag, which is half of an installation.
PIPS    := pip==26.3 --hash=sha256:f3b60b20ffaadd4415ed7957212a38ac63fa4c5fa375bd0f4a797777940fad13
TORCH   := $(shell sed -n 's/^torch==\([0-9.]*\).*/\1/p' requirements.lock)
EXECUTED = $(shell grep -LF '"execution_count": null' notebooks/*.ipynb)
SCALED   = $(shell grep -lE '"profile = ."(mini(-phi)?|smollm2-ten)."' $(EXECUTED))
FIRST    = notebooks/quickstart.ipynb notebooks/table3_fkl_vs_rkl.ipynb
CONFIG   = $(if $(REPOSITORY),_build/_config.yml,_config.yml)
CHROMIUM = $(shell command -v chromium chromium-browser google-chrome | head -n 1)

.PHONY: venv book smoke html pdf notebooks test slow bench mini lock sbom clean

venv: .venv/installed  ## everything pinned, the package itself editable

.venv/installed: pyproject.toml requirements.lock
	@echo "1 of 3: the environment, some two to four minutes"
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@mkdir -p $(@D)  # where BIN names another environment, there is none
	@echo "$(PIPS)" > .venv/pip.txt
	@echo "torch==$(TORCH)+cpu --hash=$(CPU)" > .venv/torch.txt
	$(PIP) --require-hashes --requirement .venv/pip.txt
	$(PIP) --no-deps --require-hashes --requirement .venv/torch.txt 2> /dev/null || true  # where pip is told of a place
	$(PIP) --no-deps --require-hashes --requirement requirements.lock
	$(PIP) --editable '.[book,test]'  # itself; and what a CUDA build of PyTorch pins by itself, where that was taken
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
	rm -rf _build/html/_static/tippy  # previews: made of all pages or of none, under new names each time
	$(BIN)/jupyter-book build . --quiet --all --config $(CONFIG) -W -n --keep-going

_build/_config.yml: _config.yml configs/launch.yml  # REPOSITORY=https://github.com/owner/name: buttons for Binder and Colab
	mkdir -p _build
	sed 's#REPOSITORY#$(REPOSITORY)#' configs/launch.yml | cat _config.yml - > $@

pdf: venv  ## the book as one PDF, widgets as they open: _build/rklu.pdf
	$(BIN)/jupyter-book build . --quiet --builder custom --custom-builder singlehtml -n --keep-going
	cp _build/singlehtml/book/introduction.html _build/singlehtml/rklu.html  # its styles and scripts are named from there
	"$(CHROMIUM)" --headless --no-sandbox --disable-gpu --virtual-time-budget=60000 --no-pdf-header-footer \
	  --print-to-pdf=_build/rklu.pdf "file://$(CURDIR)/_build/singlehtml/rklu.html"

notebooks: venv  ## every page executed in place, from the committed records; a new one is named by hand, once
	$(BIN)/python notebooks/execute.py $(EXECUTED)

test: venv  ## unit, property, golden, book and browser tests; committed notebooks compared cell by cell
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -m "not slow" -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder --nbval --nbval-sanitize-with notebooks/sanitize.cfg tests $(EXECUTED)

slow: venv  ## what takes an hour: thirty kills of a sweep, ten of `rklu unlearn`, each rank of two
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -m slow -s tests

bench: venv  ## speed and memory, as ratios against the naive form
	for b in benchmarks/*.py; do $(BIN)/python $$b || exit 1; done

mini: venv  ## the mini scale on TOFU's forget10: hours on two cores
	$(BIN)/rklu sweep --profile mini --split forget10 --seed 0

lock: venv _build/tools  ## the versions in .venv become the pinned ones, with the hash of every file that may be taken
	$(BIN)/pip freeze --exclude-editable | sed 's/+cpu$$//' > _build/frozen.txt
	_build/tools/bin/uv pip compile --quiet --no-deps --no-header --no-annotate --generate-hashes --python \
	  $(BIN)/python _build/frozen.txt | sed 's/^torch==.*/&\n    --hash=$(CPU) \\/' > requirements.lock

sbom: venv _build/tools  ## a bill of what is installed, in CycloneDX: _build/sbom.json
	_build/tools/bin/cyclonedx-py environment --pyproject pyproject.toml --mc-type library --output-reproducible \
	  --output-file _build/sbom.json $(BIN)/python

_build/tools: requirements-tools.lock  # apart from .venv: what looks at an environment is no part of it
	$(PYTHON) -m venv $@
	$@/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes --requirement $<
	touch $@

clean:  ## what can be made again; runs/ (checkpoints) and .venv stay
	rm -rf _build .pytest_cache .ruff_cache .hypothesis *.egg-info
