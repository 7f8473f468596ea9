# Every target makes .venv if it is missing. This needs Python 3.10+; the fast kernels need a C++ compiler.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
SOURCES := $(shell find src -type f -not -name '*.pyc' -not -name '*.so') CMakeLists.txt pyproject.toml README.md LICENSE

.PHONY: setup demo test lint docs wheels release-check bench battery sanitize gpu peers clean

setup: $(VENV)/installed

# The built wheel with all extras. The tests run on what users install, never on src/.
$(VENV)/installed: constraints.txt $(SOURCES)
	@test -x $(BIN)/python || { echo "making $(VENV): this takes some minutes, once (PyTorch is large)"; $(PYTHON) -m venv $(VENV); }
	@echo "building the wheel"
	@$(PIP) install --quiet -c constraints.txt scikit-build-core nanobind cmake ninja
	@rm -rf dist
	@$(PIP) wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@$(PIP) uninstall --quiet --yes thinned 2>/dev/null || true
	@echo "installing it"
	@$(PIP) install --quiet -c constraints.txt "$$(ls dist/thinned-*.whl)[torch,sklearn,lab,parquet,tune,ray,trainers,loggers,dev,docs,release]"
	@touch $@

demo: setup
	$(BIN)/thinned compare

# Two processes, for two cores: the lab and the command line, whose output is printed at the end, beside everything
# else. A shell lets what it starts with & ignore Ctrl-C, so the trap ends it.
LAB_LOG := build/test-lab.log
test: setup
	@mkdir -p build; echo "tests/lab and tests/cli write to $(LAB_LOG), printed at the end; here are all others:"; \
	$(BIN)/python -m pytest tests/lab tests/cli >$(LAB_LOG) 2>&1 & lab=$$!; trap "kill $$lab" INT TERM; \
	$(BIN)/python -m pytest --ignore tests/lab --ignore tests/cli --ignore tests/peers/test_zoo.py; rest=$$?; \
	echo "waiting for tests/lab and tests/cli:"; wait $$lab; code=$$?; cat $(LAB_LOG); \
	[ $$rest -eq 0 ] && [ $$code -eq 0 ]

lint: setup
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

# The site, in English and Chinese, in build/site. Warnings are errors; the notebooks are run; no network is needed.
docs: setup
	$(BIN)/python docs/build.py build/site

# The wheels of this machine, in wheelhouse/, each tried in an empty environment.
wheels: setup
	bash .ci/wheels

# What must hold before a release, beside .ci/run.
release-check: setup
	bash .ci/release-check

# Every file of that folder is a benchmark. Blocks are measured in .peers.
BENCHMARKS := $(filter-out __init__ blocks,$(basename $(notdir $(wildcard src/thinned/lab/bench/*.py))))

# Blocks are measured beside timm and torchvision if `make peers` has been run. To update the page:
# make bench BENCH="--write docs/performance.md"
bench: setup $(if $(wildcard .peers/bin/python),.peers/installed)
	$(BIN)/thinned bench $(BENCHMARKS) $(BENCH)
	@if [ -e .peers/installed ]; then bin=.peers/bin; else bin=$(BIN); fi; \
	echo "$$bin/thinned bench blocks $(BENCH)"; $$bin/thinned bench blocks $(BENCH)

# Statistical tests of the masks, ours and dieharder's, written to docs/randomness.md. Takes about an hour; if it is
# cut off, the same command continues.
battery: setup
	PYTHONPATH=tests $(BIN)/python -m battery

# The kernels' tests under AddressSanitizer and UndefinedBehaviorSanitizer, then under ThreadSanitizer.
sanitize: setup
	bash tests/sanitize.sh $(BIN)/python

# On a machine with a GPU, without a network: tests, benchmarks, then rows of the results until MINUTES are over.
# It leaves all in the folder GPU_OUT; `thinned reproduce --take GPU_OUT/runs` publishes the rows.
GPU_OUT ?= gpu-results
MINUTES ?= 10
gpu:
	bash tests/gpu.sh "$(GPU_OUT)" "$(MINUTES)"

# Other libraries as judges, in their own environment: torchvision without its binary part breaks other packages.
.peers/installed: $(VENV)/installed
	@test -x .peers/bin/python || $(PYTHON) -m venv .peers
	.peers/bin/python -m pip install --quiet -c constraints.txt torch numpy scikit-learn pytest hypothesis rich typer
	.peers/bin/python -m pip install --quiet --no-deps timm==1.0.31 torchvision==0.28.0
	.peers/bin/python -m pip install --quiet -c constraints.txt transformers pillow pyyaml huggingface_hub safetensors
	.peers/bin/python -m pip install --quiet -c constraints.txt onnx onnxscript
	.peers/bin/python -m pip install --quiet --no-deps --force-reinstall dist/thinned-*.whl
	@touch $@

peers: .peers/installed
	HF_HUB_OFFLINE=1 .peers/bin/python -m pytest tests/peers
	PYTHONPATH=tests .peers/bin/python -m pytest tests/nn/test_modules.py -k onnx

clean:
	rm -rf build dist wheelhouse $(VENV) .peers
