# On a fresh machine: `make demo` paints a photo, `make test` runs the tests. Both set up .venv first.

PYTHON ?= python3
# Installed first, so that nothing else chooses a torch. May carry pip options (--index-url ...).
TORCH ?= torch==2.13.0

BIN := .venv/bin
READY := .venv/ready

.PHONY: demo test test-kernels lint clean

demo: $(READY)
	@mkdir -p demo
	@$(BIN)/animebg stylize docs/images/demo-photo.jpg --style shinkai-lite -o demo/anime.jpg --overwrite
	@echo "Look at demo/anime.jpg, painted from docs/images/demo-photo.jpg."

# Two processes of one thread each: most tests paint few pixels, where threads wait for each other.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test: $(READY)
	@$(PYTEST)

# What the native kernels can change, with them: their own tests, then those of the engine.
KERNEL_TESTS := tests/test_native.py tests/test_stream.py tests/test_stylize.py tests/test_lite.py tests/test_real_networks.py

test-kernels: $(READY)
	$(BIN)/python -m pip install --quiet './kernels[test]'
	# One thread of torch, which computes the references: its own do not outlive a fork.
	cd kernels && OMP_NUM_THREADS=1 ../$(BIN)/python -m pytest -n 2 --dist worksteal
	$(PYTEST) $(KERNEL_TESTS) -k 'not closer_to_the_published'  # that says nothing of kernels

# The lowest versions that pyproject.toml allows, and the newest that there are, each in an environment
# of its own. By hand: a torch of another release brings gigabytes.
LOWEST = $(shell sed -n '/^dependencies/,/^]/s/.*"\(.*\)>=\(.*\)".*/\1==\2/p' pyproject.toml)
NEWEST = $(shell sed -n '/^dependencies/,/^]/s/.*"\(.*\)>=.*".*/\1/p' pyproject.toml)

test-lowest:
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet $(LOWEST) --editable '.[test]'
	.venv-lowest/bin/python -m pytest

test-newest:
	$(PYTHON) -m venv .venv-newest
	.venv-newest/bin/python -m pip install --quiet --upgrade $(NEWEST) --editable '.[test]'
	.venv-newest/bin/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("AnimeBG needs Python 3.10 or later: make PYTHON=python3.12 $(MAKECMDGOALS)")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet --editable '.[test,lint]'
	@touch $(READY)

clean:
	rm -rf .venv .venv-lowest .venv-newest demo
