# On a fresh machine: `make demo` paints a photo, `make test` runs the tests. Both set up .venv first.

PYTHON ?= python3
# Installed first, so that nothing else chooses a torch. May carry pip options (--index-url ...).
TORCH ?= torch==2.13.0

BIN := .venv/bin
READY := .venv/ready

.PHONY: demo test lint clean

demo: $(READY)
	@mkdir -p demo
	@$(BIN)/animebg stylize docs/images/demo-photo.jpg --style shinkai-lite -o demo/anime.jpg --overwrite
	@echo "Look at demo/anime.jpg, painted from docs/images/demo-photo.jpg."

test: $(READY)
	@$(BIN)/python -m pytest

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
	rm -rf .venv demo
