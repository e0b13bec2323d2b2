# make reproduce | test | lab do all the set-up they need in a new clone.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install reproduce test docs lab bench gpu notebooks lock clean
install: .venv/installed

.venv/installed: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("jetatag needs Python 3.11 or newer: make PYTHON=python3.11 …" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --requirement requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps --editable .
	touch $@

.venv/tensorflow: .venv/installed tests/tensorflow.lock # for the tests of the extra `tensorflow`
	$(BIN)/python -m pip install --disable-pip-version-check --requirement tests/tensorflow.lock
	touch $@

reproduce: install
	$(BIN)/jetatag reproduce --preset demo

# The stored outputs are those of a CPU.
NBVAL := CUDA_VISIBLE_DEVICES= $(BIN)/python -m pytest --nbval-lax --nbval-current-env

# The longest files begin first, so that none is left alone at the end.
LONGEST := $(patsubst %,tests/test_%.py,reproduce explore_browser train docs import_original processes)
TESTS := $(LONGEST) $(filter-out $(LONGEST),$(sort $(wildcard tests/test_*.py)))

test: .venv/tensorflow
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf runs/notebooks # where the notebooks train by default
	$(NBVAL) notebooks/0*.ipynb & notebooks=$$!; \
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder \
	$(TESTS); status=$$?; \
	wait $$notebooks && exit $$status

docs: install # works offline; warnings are errors (`make test` builds it, too)
	$(BIN)/python docs/readme.py
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

lab: install
	$(BIN)/jupyter lab notebooks

bench: install
	$(BIN)/python tests/bench.py

gpu: install # checks results and speed on this machine's GPU; continues where it stopped
	$(BIN)/python tests/gpu.py

EXECUTED := NotebookClient(nbformat.read(path, 4), coalesce_streams=True, record_timing=False).execute()

notebooks: install # run the committed notebooks, and write them when all have succeeded
	rm -rf runs/notebooks
	cd notebooks && ../$(BIN)/python -c 'import sys, nbformat; from nbclient import NotebookClient; \
	done = {path: $(EXECUTED) for path in sys.argv[1:]}; \
	[nbformat.write(executed, path) for path, executed in done.items()]' 0*.ipynb

PLATFORM := sed -E '/^(nvidia-|cuda-|triton==)/s/$$/ ; sys_platform == "linux" and platform_machine == "x86_64"/'

lock: # resolve pyproject.toml again and record the versions
	rm -rf .venv && $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --editable '.[test]'
	echo '# Every version the package is tested with; written by `make lock`.' > requirements.lock
	$(BIN)/python -m pip freeze --exclude-editable | $(PLATFORM) >> requirements.lock
	$(BIN)/python -m pip install --editable '.[tensorflow]' tf-keras
	echo '# What the extra `tensorflow` and its tests need beside requirements.lock; written by `make lock`.' > tests/tensorflow.lock
	$(BIN)/python -m pip freeze --exclude-editable | $(PLATFORM) | grep -vxFf requirements.lock >> tests/tensorflow.lock
	touch .venv/installed .venv/tensorflow

clean:
	rm -rf .venv data runs .snakemake docs/_build
