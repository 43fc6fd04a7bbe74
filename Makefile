# Two commands matter: `make demo` and `make test`. Both set up what they need; nothing else has to be installed first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Two processes share the machine, a file of tests each, in the order of tests/conftest.py. Rooms that start a whole mesh
# or measure run alone.
ALONE := tests/demo tests/benchmarks

.PHONY: help demo check test test-fast lint types format protos envoy-configs bench bench-quick bench-servers soak clean system-packages requirements image release fuzz keycloak

help:            ## Show the targets
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 18

demo: $(STAMP)   ## Run Bookinfo behind real Envoys, until Ctrl-C
	$(BIN)/authz demo --enforce native

check: $(STAMP)  ## Run the demo's scenarios and print a table of expected and actual
	$(BIN)/authz demo --check

test: system-packages $(STAMP) lint types  ## Set up and run all tests
	$(BIN)/pytest --maxfail 25 $(PYTEST_ARGS) -n 2 --dist loadfile --no-loadscope-reorder tests $(ALONE:%=--ignore=%) || [ $$? -eq 5 ]
	$(BIN)/pytest $(PYTEST_ARGS) $(ALONE) || [ $$? -eq 5 ]

# Rooms without other processes; property tests and what is slow by design are left to `make test`.
FAST := $(addprefix tests/,analysis audit cli core documents fuzz identity mesh policy release sources telemetry tokens wire) \
	$(addprefix tests/,test_docs.py test_docstrings.py test_layers.py test_names.py test_protos.py test_settings.py test_sizes.py test_threat_model.py)

test-fast: $(STAMP) ## Run the tests that need no Envoy, browser or container: about a minute
	$(BIN)/pytest -q -n 2 -m "not slow and not envoy and not hypothesis" $(FAST) $(PYTEST_ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

format: $(STAMP) ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

protos: $(STAMP) ## Generate authz/_proto from protos/
	$(BIN)/python -m grpc_tools.protoc -I protos --python_out=. --pyi_out=. protos/authz/_proto/*.proto

envoy-configs: $(STAMP) ## Render envoy-configs/ anew
	$(BIN)/authz mesh render --mesh envoy-configs/mesh.yaml --policies policies --out envoy-configs

bench-servers: $(STAMP)  ## Measure grpcio and hosted workers at saturation
	$(BIN)/python -m benchmarks.servers

bench: $(STAMP)  ## Measure all contenders in one run, 20 minutes; one report
	$(BIN)/python -m benchmarks.run --docs docs

bench-quick: $(STAMP)  ## Measure for two minutes; fail when a ratio got worse
	$(BIN)/python -m benchmarks.run --quick

soak: $(STAMP)   ## Run at half of saturation for 30 minutes, reloading and rotating keys
	$(BIN)/python -m benchmarks.soak

fuzz: $(STAMP)   ## Fuzz every reader of what comes from outside: five minutes overall
	$(BIN)/pip install -q --disable-pip-version-check 'atheris>=3.0'
	$(BIN)/python -m tests.fuzz.run --seconds 300

keycloak: $(STAMP) ## Download Keycloak with Maven, 177 MB, and run the demo and its tests with it
	@.ci/keycloak $(BIN)/python .keycloak
	$(BIN)/pytest $(PYTEST_ARGS) tests/demo/test_keycloak.py

requirements: .release/.installed  ## Pin dependencies anew, with digests
	.ci/requirements .release/bin

image:           ## The container image, on a base named by digest
	docker build --build-arg BASE=$$(cat requirements/base-image.txt) -t authz:$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml) .

release: .release/.installed  ## Wheel, SBOM and signed checksums of this commit: KEY=release.key [OUT=dist]
	.ci/release .release/bin "$(or $(OUT),dist)" "$(KEY)"

.release/.installed: requirements/release.txt
	rm -rf .release && $(PYTHON) -m venv .release
	.release/bin/pip install -q --disable-pip-version-check --only-binary :all: --require-hashes -r $<
	@touch $@

system-packages:
	@.ci/system-packages

$(STAMP): pyproject.toml
	@.ci/venv $(PYTHON) $(VENV)
	@touch $@

clean:
	rm -rf $(VENV) .release .keycloak .authz .mypy_cache .ruff_cache .pytest_cache .hypothesis
