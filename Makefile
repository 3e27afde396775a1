# make quickstart   raw text -> trained, evaluated and plotted ReMoE (GPU if there is one, else CPU)
# make study        eight domains -> dense, TopK and ReMoE at two seeds -> does the recorded result come out again?
# make test         all tests that need no GPU
# make test-gpu     the tests that need a CUDA device
# make check        lint, docstrings, types, the boundary test, then make test
# make layouts      the tests of parallel layouts alone, and the table that they give: docs/layouts.md
# make format       rewrite the sources as `make check` wants them

VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: quickstart study test test-gpu layouts check format clean

quickstart: $(READY)
	PATH="$(CURDIR)/$(BIN):$$PATH" bash examples/quickstart.sh $(QUICKSTART_ARGS)

study: $(READY)
	PATH="$(CURDIR)/$(BIN):$$PATH" bash experiments/methods/study.sh

# The tests of the tools alone, because they count their process's children; the rest in two processes,
# each of which keeps one that forks ranks (PYTEST_ARGS="-n 0" for one).
test: $(READY)
	$(BIN)/python -m pytest -m "not gpu" tests/unit/tools tests/unit/scripts tests/unit/benchmarks $(PYTEST_ARGS)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not gpu" tests/e2e tests/integration \
		tests/unit/hf tests/unit/megatron_remoe tests/unit/remoe $(PYTEST_ARGS)

test-gpu: $(READY)
	$(BIN)/python -m pytest -m gpu $(PYTEST_ARGS)

layouts: $(READY)
	LAYOUT_TABLE=docs/layouts.md $(BIN)/python -m pytest tests/integration/test_layouts.py $(PYTEST_ARGS)

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) test

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Rebuilt whenever the metadata or the pins change.
$(READY): pyproject.toml constraints.txt
	@bash scripts/make_venv.sh $(VENV)
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .mypy_cache
