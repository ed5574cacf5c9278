# The one list of commands. `make` alone explains them.

PYTHON ?= python3.11
VENV := .venv
BIN := $(abspath $(VENV))/bin
STAMP := $(VENV)/.installed
BENCH_FLAGS ?=
GUARD_FLAGS ?=

# PyO3 rebuilds whenever it sees another interpreter, so every cargo below is told the same one. Maturin builds into a
# folder of its own, or its flags and those of plain cargo would throw each other's work away.
export PYO3_PYTHON := $(BIN)/python
export VIRTUAL_ENV := $(abspath $(VENV))
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export NO_MKDOCS_2_WARNING := 1
MATURIN_TARGET := target/maturin
MATURIN := $(BIN)/maturin
PURE_CRATES := -p cloaca-core -p cloaca-store

.DEFAULT_GOAL := help
.PHONY: help venv develop release demo test test-rust test-python test-postgres test-again test-versions test-first-release check check-mutants check-rust check-python check-docs format wheel \
	bench guard simulate races mutants torture break lock clean

help: ## explain the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(STAMP) ## make .venv with everything that development needs

$(STAMP): requirements-dev.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements-dev.txt
	touch $@

develop: $(STAMP) ## build the package unoptimised into .venv
	$(MATURIN) develop --locked --features fault-points --target-dir $(MATURIN_TARGET)

release: $(STAMP) ## build the package optimised into .venv
	$(MATURIN) develop --release --locked --target-dir $(MATURIN_TARGET)

demo: release ## watch a real folder while another process drops files into it
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
		$(BIN)/python examples/inbox_watcher.py --folder "$$folder" --seconds 20

test: test-rust test-python ## build what is needed and run all tests

test-rust: $(STAMP) ## run the tests of the core and the store
	cargo test --locked $(PURE_CRATES)
	cargo test --locked -p cloaca-core --features races --test races

simulate: ## play the engine in a world that goes wrong (SEEDS=100000; SEED=7 plays that one and tells it)
	SEEDS=$(SEEDS) SEED=$(SEED) cargo test --locked -p cloaca-core --test simulation -- --nocapture

races: ## play the runtime's threads in many orders (SCHEDULES=20000 of each model; SEED=7 plays that one)
	SCHEDULES=$(or $(SCHEDULES),20000) SEED=$(SEED) cargo test --locked -p cloaca-core --features races --test races

torture: develop ## kill a program 5,000 times, at every pair of fault points too, cut the power 2,000 times, restart its server 500 times, pull 200 cables and lose 500 answers to COMMIT
	CLOACA_LOSSES=500 cargo test --locked -p cloaca-store --test loss
	CLOACA_KILLS=5000 CLOACA_PAIRS=0 CLOACA_CUTS=2000 CLOACA_PLACE_KILLS=300 CLOACA_CROWD=100000 CLOACA_TURNS=100 CLOACA_AFTER_KILLS=200 CLOACA_BACKFILL_KILLS=200 CLOACA_RESTARTS=500 CLOACA_CABLES=200 $(BIN)/python -m pytest tests/crash -s --timeout 0

break: develop ## attack it from outside, each attack by chance 20 times as long (BREAKS=100)
	CLOACA_BREAKS=$(or $(BREAKS),20) $(BIN)/python -m pytest tests/break -s --timeout 0

mutants: $(STAMP) ## break the code in one place after another and see that a suite notices (SUITE=store: only those of one)
	sh tests/mutants.sh $(SUITE)

test-python: develop ## run the tests of the package, the examples and the docs
	$(BIN)/python tests/parts.py

test-postgres: develop ## run what the store decides once more with every store on a PostgreSQL server (TESTS=tests/api/test_cron.py: those)
	rm -rf target/pytest-postgres
	$(BIN)/python -m pytest -o cache_dir=target/pytest-postgres --store postgres $(or $(TESTS),tests/api/test_run.py tests/api/test_cursor.py tests/api/test_cron_terms.py tests/api/test_forget.py) || \
		$(BIN)/python tests/again.py target/pytest-postgres --store postgres

test-again: ## run the last failures of test-python once more, if they are at most three
	$(BIN)/python tests/again.py

test-versions: develop ## run tests/api, and of tests/break how a process ends, with every further Python on this machine
	sh tests/versions.sh

test-first-release: develop ## build the wheel of release 0.1.0, once, and run its runners beside this program's
	MATURIN=$(MATURIN) sh tests/first_release.sh
	$(BIN)/python -m pytest tests/scenarios/test_first_release.py

check: check-mutants check-rust check-python check-docs ## formatting, lints, types, docs: every warning is an error

check-mutants: ## each line of tests/mutants.txt still changes its file
	sh tests/mutants.sh check

check-rust: $(STAMP) ## cargo fmt, clippy and doc
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --all-features --locked -- -D warnings
	cargo clippy $(PURE_CRATES) --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

check-python: develop ## ruff, mypy and stubtest
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict python/cloaca python/_cloaca_line.py examples
	$(BIN)/python -m mypy.stubtest cloaca._cloaca

check-docs: $(STAMP) ## build the docs, where a broken link is an error
	$(BIN)/mkdocs build --strict --quiet

format: $(STAMP) ## format Rust and Python
	cargo fmt --all
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: $(STAMP) ## build the wheel into dist/
	$(MATURIN) build --release --locked --compression-level 9 --out dist --target-dir $(MATURIN_TARGET)

bench: release wheel ## build optimised and run the benches (BENCH_FLAGS=--quick for a short run)
	$(BIN)/python benches/run.py $(BENCH_FLAGS)

guard: $(STAMP) ## count instructions of the hot paths and compare them with the baseline (GUARD_FLAGS=--update renews it)
	$(BIN)/python benches/guard.py $(GUARD_FLAGS)

lock: ## renew requirements-dev.txt from requirements-dev.in
	rm -rf $(VENV)/lock && $(PYTHON) -m venv $(VENV)/lock
	$(VENV)/lock/bin/python -m pip install --quiet --requirement requirements-dev.in
	{ head -n 1 requirements-dev.txt; $(VENV)/lock/bin/python -m pip freeze | LC_ALL=C sort -f; } > requirements-dev.new
	mv requirements-dev.new requirements-dev.txt
	rm -rf $(VENV)/lock

clean: ## remove everything that these commands made
	rm -rf $(VENV) .venv-bench target dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f python/cloaca/_cloaca*.so
