# `make` or `make help` lists what there is. Go, Python 3 and make are all that a machine needs; the Python tools come from a virtual
# environment .venv that is made here, the Go tools from .tools.

SHELL := /bin/sh
export CSV
# Without compiled files each start of a worker from the checkout would compile the bridge again.
unexport PYTHONDONTWRITEBYTECODE
MAKEFLAGS += --no-builtin-rules
.DEFAULT_GOAL := help

PYTHON ?= python3
GO ?= go
FUZZTIME ?= 10s

# Targets are relative and what a recipe takes in full is quoted, because the checkout's own path may have blanks in it.
VENV := .venv
TOOLS := .tools
BIN := $(CURDIR)/$(VENV)/bin
GOTESTSUM = $(CURDIR)/$(TOOLS)/gotestsum-$(gotestsum)
PIP := "$(BIN)/python" -m pip --disable-pip-version-check --quiet install --constraint python/requirements-dev.txt
OFFLINE := { echo "pip could not install the packages: it needs the package index, or PIP_INDEX_URL with a mirror of it" >&2; exit 1; }

golangci := v2.15.0
benchstat := v0.0.0-20260908200009-22c9c6c9d4da
gremlins := v0.6.0
gotestsum := v1.13.0
mutmut := 2.5.1

# The Pythons that the tests run on beside that of .venv, where the machine has them: the oldest always, all in test-matrix.
PYTHONS := 3.8
ALL_PYTHONS := 3.8 3.9 3.10 3.11 3.12 3.13

# Every directory with a go.mod is a module: the library and the command, and those with dependencies that users should not get.
MODULES := $(patsubst %/go.mod,%,$(shell find . -name go.mod -not -path '*/.*/*' -not -path '*/testdata/*'))

# The race detector needs a C compiler.
RACE = $(shell cc=$$($(GO) env CC) && command -v "$${cc%% *}" >/dev/null && echo -race)

##@ Set-up
install-grpc: $(VENV)/.grpc ## Install the Python package with gRPC and MessagePack into .venv
	@echo "ready; to use it: . $(VENV)/bin/activate"

install-examples: $(VENV)/.grpc $(VENV)/.examples ## The same, and what the examples import
	@echo "ready; to use it: . $(VENV)/bin/activate"

install-ray: $(VENV)/.dev $(VENV)/.ray ## Install Ray into .venv, for the tests of its back end; 400 MB
	@echo "ready; to use it: . $(VENV)/bin/activate"

dev-setup: $(VENV)/.dev $(VENV)/.grpc $(VENV)/.examples $(TOOLS)/golangci-lint-$(golangci) ## Install all that development needs, into .venv and .tools
	@echo "ready; to use it: . $(VENV)/bin/activate"

##@ Generated code
proto-python: python-venv-there ## Regenerate the Python code of the .proto files
	proto/generate.sh python $(PYTHON) "$(CURDIR)/$(TOOLS)/proto"

proto-go: python-venv-there go-there ## Regenerate the Go code of the .proto files
	proto/generate.sh go $(PYTHON) "$(CURDIR)/$(TOOLS)/proto"

# The arguments: a directory, a file's name in it without .in, the oldest Python, more arguments of uv.
pin = cd $(1) && { echo "\# Pinned from $(2).in by make requirements, for Python $(3) and later."; \
	"$(BIN)/uv" pip compile --quiet --upgrade --universal --python-version $(3) --no-annotate --no-header $(4) $(2).in; } \
	> $(2).new && mv $(2).new $(2).txt

requirements: $(VENV)/.dev ## Pin the newest Python packages in the files requirements*.txt
	$(PIP) uv
	$(call pin,python,requirements-dev,3.8)
	$(call pin,python,requirements-ray,3.10,--constraint requirements-dev.txt)
	$(call pin,examples,requirements,3.10,--constraint ../python/requirements-dev.txt)
	$(call pin,docs/site,requirements,3.10,--constraint ../../python/requirements-dev.txt)

##@ Use
# A relative CSV may be meant from where make was called, as with make -C.
demo: go-there $(VENV)/.demo ## Run the large-dataset job; CSV=path takes a file of yours
	@[ -e $(TOOLS)/large-dataset ] || echo "== building the demo, which takes some minutes the first time"
	@mkdir -p $(TOOLS)
	@$(GO) -C examples build -o ../$(TOOLS)/large-dataset ./large-dataset
	@csv=$$CSV; [ -z "$$csv" ] || [ -e "$$csv" ] || [ ! -e "$(PWD)/$$csv" ] || csv="$(PWD)/$$csv"; \
		SNAKEPIT_PYTHON="$(BIN)/python" $(TOOLS)/large-dataset $${csv:+-csv "$$csv"}

observed: go-there $(VENV)/.observed ## Run the example with traces and metrics; ARGS="-serve localhost:6060" goes on
	@[ -e $(TOOLS)/observed ] || echo "== building the example with its Prometheus, which takes some minutes the first time"
	@mkdir -p $(TOOLS)
	@$(GO) -C examples/observed build -o ../../$(TOOLS)/observed .
	@SNAKEPIT_PYTHON="$(BIN)/python" $(TOOLS)/observed $(ARGS)

picture: go-there $(VENV)/.demo $(VENV)/.dev ## Draw docs/demo.svg, the README's picture, from a run of the demo
	@mkdir -p $(TOOLS)
	@$(GO) -C examples build -o ../$(TOOLS)/large-dataset ./large-dataset
	SNAKEPIT_PYTHON="$(BIN)/python" "$(BIN)/python" docs/draw_demo.py $(TOOLS)/large-dataset -runs kill docs/demo.svg

pictures: go-there $(VENV)/.dev ## Take docs/debugpage-*.png, the pictures of the debug page, in chromium
	cd internal/browser && SNAKEPIT_PYTHON="$(BIN)/python" $(GO) test -count 1 -run TestPictures . -pictures "$(CURDIR)/docs"

BENCH = cd bench && SNAKEPIT_PYTHON="$(BIN)/python" $(GO) run .

bench: go-there $(VENV)/.peers ## Measure this library beside its floors and peers; BENCHFLAGS="-only call" measures a part
	$(BENCH) $(or $(BENCHFLAGS),-write)

bench-quick: go-there $(VENV)/.peers ## Try the bench, in under two minutes
	$(BENCH) -quick $(BENCHFLAGS)

bench-remote: go-there $(VENV)/.peers ## Measure workers beyond one machine beside Ray, in half an hour
	$(BENCH) -remote $(or $(BENCHFLAGS),-write)

bench-soak: go-there $(VENV)/.dev ## Put a mixed load on the library for an hour and watch its memory
	$(BENCH) -soak 1h -write

bench-peers: $(VENV)/.peers ## Install what the bench compares with

# The micro-benchmarks of the parts that every call uses, on one processor. bench/micro.txt has the last stored run.
MICRO = cd core && $(GO) test -run '^$$' -bench '^Benchmark(Execute|Stream|Frames|Struct|Any|Numbers|Bytes|Array|Read|Write)$$' \
	-benchmem -benchtime 0.2s -cpu 1 -count 6 . ../codec ../frame ../adapters/msgpack ../adapters/jsonstdio

bench-compare: go-there $(TOOLS)/benchstat-$(benchstat) ## Show what a change did to the micro-benchmarks since the last stored run
	$(MICRO) >../$(TOOLS)/micro.txt
	@"$(CURDIR)/$(TOOLS)/benchstat-$(benchstat)" bench/micro.txt $(TOOLS)/micro.txt

bench-store: go-there ## Run the micro-benchmarks and store the run in bench/micro.txt
	$(MICRO) >../bench/micro.txt

##@ Checks
test: lint test-go test-python ## Run the linters, every Go test with the race detector and every Python test

# The library's tests run beside those of the other modules. The longest packages begin first, so that none runs alone
# at the end. The others print when they have ended.
test-go: go-there $(VENV)/.dev $(VENV)/.examples $(VENV)/.light-peers $(TOOLS)/gotestsum-$(gotestsum) ## Run every Go test
	@[ -n "$(RACE)" ] || echo "NOTE: no C compiler, so the tests run without the race detector; install gcc or clang" >&2
	@rm -f $(TOOLS)/go-test-*
	@$(MAKE) --no-print-directory -k -j 2 test-go-library test-go-others
	@echo "== the ten slowest Go tests"
	@cat $(TOOLS)/go-test-*.json >$(TOOLS)/go-test-all && \
		"$(GOTESTSUM)" tool slowest --jsonfile $(TOOLS)/go-test-all --threshold 1s --num 10

# The arguments: a module's directory, a name for its results, arguments of go test.
go_test = (cd $(1) && SNAKEPIT_PYTHON="$(BIN)/python" "$(GOTESTSUM)" --format pkgname --hide-summary skipped \
	--jsonfile "$(CURDIR)/$(TOOLS)/go-test-$(2).json" -- $(RACE) -timeout 30m $(3))

test-go-library:
	@echo "== go test $(RACE) in ."
	@$(call go_test,.,library,./internal/... ./cmd/... ./docs ./adapters/... ./...)

test-go-others:
	@for dir in $(filter-out .,$(MODULES)); do \
		name=$$(echo $$dir | tr ./ __); log=$(TOOLS)/go-test-$$name.log; status=0; \
		$(call go_test,$$dir,$$name,-p 1 ./...) >$$log 2>&1 || status=$$?; \
		echo "== go test $(RACE) in $$dir"; cat $$log; [ $$status = 0 ] || exit $$status; \
	done

# On their own: a cluster of several nodes takes all of a small machine.
test-ray: go-there $(VENV)/.dev $(VENV)/.examples $(VENV)/.ray ## Run the tests on a Ray cluster of several nodes on this machine
	@echo "== go test $(RACE) on Ray"
	@SNAKEPIT_PYTHON="$(BIN)/python" $(GO) test $(RACE) -timeout 30m -run 'TestRay$$' ./adapters/remote
	@cd examples && SNAKEPIT_PYTHON="$(BIN)/python" $(GO) test $(RACE) ./ray-inference
	@cd python && "$(BIN)/python" -m pytest tests/test_ray.py

test-python: $(VENV)/.dev $(VENV)/.examples ## Run every Python test, and those of the package on the oldest supported Python, too
	@mkdir -p $(TOOLS)
	@$(MAKE) --no-print-directory -k -j 2 pytest-venv $(PYTHONS:%=pytest-%)

pytest-venv:
	@echo "== pytest on the Python of .venv"
	cd python && "$(BIN)/python" -m pytest tests
	@for tests in $$(ls -d examples/*/test_*.py | xargs -n 1 dirname | uniq); do \
		echo "== pytest in $$tests"; \
		(cd python && "$(BIN)/python" -m pytest "../$$tests") || exit 1; \
	done
	@echo "== the generated code beside old versions of protobuf and grpcio"
	cd python && "$(BIN)/python" -m pytest -m oldest

test-matrix: $(VENV)/.dev ## Run the Python tests on each supported Python, and the generated code beside every version of its packages
	cd python && "$(BIN)/python" -m pytest -m matrix
	@mkdir -p $(TOOLS)
	@SNAKEPIT_MATRIX=1 $(MAKE) --no-print-directory -k -j 2 $(ALL_PYTHONS:%=pytest-%)

# Two run at once, so each prints when it has ended.
pytest-%:
	@echo "== pytest on Python $* begins"
	@"$(BIN)/nox" --noxfile python/noxfile.py --envdir "$(CURDIR)/$(TOOLS)/nox-$*" --session tests-$* >$(TOOLS)/pytest-$*.log 2>&1; \
		status=$$?; cat $(TOOLS)/pytest-$*.log; exit $$status

# The packages with files for one system only. lint-systems checks all packages.
BY_SYSTEM := ./core/... ./conformance ./python ./adapters/msgpack ./observe/...

lint-systems: go-there ## Check the source for macOS and Windows
	@for os in darwin windows; do for dir in . examples; do \
		echo "== go vet for $$os in $$dir"; CGO_ENABLED=0 GOOS=$$os $(GO) -C $$dir vet ./... || exit 1; \
	done; done

lint: go-there $(VENV)/.dev $(TOOLS)/golangci-lint-$(golangci) ## Check the source of both languages
	@echo "== gofmt"
	@files=$$("$$($(GO) env GOROOT)/bin/gofmt" -l .); \
		[ -z "$$files" ] || { echo "not formatted; run gofmt -w:" >&2; echo "$$files" >&2; exit 1; }
	@for dir in $(MODULES); do \
		echo "== go mod tidy, golangci-lint with go vet in $$dir"; \
		(cd $$dir && $(GO) mod tidy -diff && \
			"$(CURDIR)/$(TOOLS)/golangci-lint-$(golangci)" run --config "$(CURDIR)/.golangci.yml" --allow-parallel-runners ./...) || exit 1; \
	done
	@for os in darwin windows; do \
		echo "== go vet for $$os"; CGO_ENABLED=0 GOOS=$$os $(GO) vet $(BY_SYSTEM) || exit 1; \
	done
	@echo "== ruff, mypy, generated code"
	"$(BIN)/ruff" check --quiet .
	"$(BIN)/ruff" format --check --quiet .
	cd python && "$(BIN)/mypy" --strict snakepit_bridge ../examples/custom-adapter
	proto/generate.sh check >/dev/null

conformance: go-there $(VENV)/.dev ## Check every adapter and worker here against the suite, and the suite on its mutants
	@for dir in $(MODULES); do \
		(cd $$dir && SNAKEPIT_PYTHON="$(BIN)/python" $(GO) test $(RACE) -run 'Conformance|Mutants|Sound|Table|Contract' ./...) || exit 1; \
	done

fuzz: ## Run each fuzz test of both languages for FUZZTIME (10s), one after another, and the properties in Python on many examples
	@$(MAKE) --no-print-directory fuzz-go
	@$(MAKE) --no-print-directory fuzz-python

fuzz-go: go-there
	@grep -r --exclude-dir='.?*' --include='*_test.go' -o '^func Fuzz[A-Za-z]*' . | while IFS=: read -r file f; do \
		pkg=$$(dirname "$$file"); f=$${f#func }; \
		echo "== $$f in $$pkg"; (cd "$$pkg" && $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) </dev/null) || exit 1; \
	done

fuzz-python: $(VENV)/.dev
	cd python && SNAKEPIT_FUZZTIME=$(FUZZTIME) "$(BIN)/python" -m pytest tests/test_fuzz.py --timeout 0
	cd python && "$(BIN)/python" -m pytest tests --hypothesis-profile fuzz --timeout 3600 -k 'any_bytes or changed_byte or cut_body or claims'

CHAOSTIME ?= 10m
chaos: go-there $(VENV)/.dev ## Make calls for CHAOSTIME while workers and hosts are killed, stopped and starved, and check a ledger of both sides
	$(GO) run $(RACE) ./internal/chaos -for $(CHAOSTIME) -python "$(BIN)/python" $(CHAOSFLAGS)

# gremlins copies the checkout it runs in, so it gets one without .venv and .tools. It runs the tests of the mutant's own package, so the
# packages whose tests are elsewhere are left out; the suites of the adapters would take a minute for each mutant.
MUTATED ?= codec fallback core adapters/jsonstdio adapters/msgpack adapters/grpc
mutants: mutants-go mutants-python ## Change the code in small ways and show which changes no test notices; takes hours

mutants-go: go-there $(VENV)/.dev $(TOOLS)/gremlins-$(gremlins)
	@rm -rf $(TOOLS)/mutants && git clone --quiet . $(TOOLS)/mutants
	@for pkg in $(MUTATED); do \
		echo "== gremlins in $$pkg"; \
		(cd $(TOOLS)/mutants && SNAKEPIT_PYTHON="$(BIN)/python" GOFLAGS=-skip=Conformance \
			"$(CURDIR)/$(TOOLS)/gremlins-$(gremlins)" unleash --workers 1 --timeout-coefficient 6 ./$$pkg) || exit 1; \
	done

mutants-python: $(VENV)/.dev
	$(PIP) mutmut==$(mutmut)
	@rm -rf $(TOOLS)/mutants && git clone --quiet . $(TOOLS)/mutants
	cd $(TOOLS)/mutants/python && PATH="$(BIN):$$PATH" PYTHONDONTWRITEBYTECODE=1 "$(BIN)/mutmut" run --no-progress \
		--paths-to-mutate snakepit_bridge/_runner.py --tests-dir tests \
		--runner "'$(BIN)/python' -m pytest -x -q -p no:cacheprovider tests/test_calls.py tests/test_credit.py tests/test_connection.py tests/test_call_errors.py tests/test_user_code.py tests/test_cancel.py" || true
	cd $(TOOLS)/mutants/python && "$(BIN)/mutmut" results

##@ Documentation
SITE := $(TOOLS)/site

docs: $(VENV)/.docs ## Build the pages and the Python reference as a site in .tools/site/site
	@"$(BIN)/python" docs/site/prepare.py $(SITE)
	cd $(SITE) && "$(BIN)/zensical" build --strict --clean
	@echo "the site: $(SITE)/site/index.html"

docs-serve: $(VENV)/.docs ## Serve the site on localhost, and build it again when a page changes
	@"$(BIN)/python" docs/site/prepare.py $(SITE)
	@"$(BIN)/python" docs/site/prepare.py $(SITE) --watch & trap "kill $$!" EXIT INT TERM; cd $(SITE) && "$(BIN)/zensical" serve

##@ Releases
VERSION = $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' python/snakepit_bridge/_version.py)

release: go-there $(VENV)/.made ## Build the command for each system and the Python package into dist, with checksums
	@rm -rf dist && mkdir dist
	@for system in linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64; do \
		os=$${system%/*}; arch=$${system#*/}; out=dist/snakepit-$(VERSION)-$$os-$$arch; \
		[ $$os != windows ] || out=$$out.exe; echo "== $$out"; \
		CGO_ENABLED=0 GOOS=$$os GOARCH=$$arch $(GO) build -trimpath -ldflags "-s -w" -o $$out ./cmd/snakepit || exit 1; \
	done
	@echo "== the Python package"
	@$(PIP) build || $(OFFLINE)
	@"$(BIN)/python" -m build --outdir dist python >/dev/null
	@cd dist && sha256sum * >SHA256SUMS && cat SHA256SUMS

##@ The rest
clean: ## Remove what the targets above made
	rm -rf $(VENV) $(TOOLS) dist python/build python/*.egg-info python/.hypothesis
	find . \( -name __pycache__ -o -name '.*_cache' \) -type d -prune -exec rm -rf {} +

help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } /^##@ / { printf "\n%s\n", substr($$0, 5) } /^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' \
		$(firstword $(MAKEFILE_LIST))

.PHONY: test-go-library test-go-others pytest-venv lint-systems docs docs-serve release install-grpc install-examples install-ray dev-setup proto-python proto-go requirements demo observed picture pictures bench bench-quick bench-remote bench-soak bench-peers bench-compare bench-store test test-go test-python test-ray test-matrix lint conformance chaos fuzz fuzz-go fuzz-python mutants mutants-go mutants-python clean help \
	go-there python-venv-there

# Ends the recipe if the Python of .venv is too old, and says so in the words of its argument.
newer = @"$(BIN)/python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "$(VENV) has an older Python, but $(1): \
	rm -rf $(VENV), then make PYTHON=python3.12 (or another) with the same target" >&2; exit 1; }

# A file for each stage of the virtual environment, made when the stage is complete.
$(VENV)/.made:
	@$(MAKE) --no-print-directory python-venv-there
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.demo: $(VENV)/.made python/requirements-dev.txt examples/requirements.txt
	$(call newer,the demo needs 3.10 or later for pandas)
	@echo "== installing pandas, grpcio and msgpack into $(VENV)"
	@$(PIP) --constraint examples/requirements.txt grpcio protobuf msgpack pandas || $(OFFLINE)
	@touch $@

$(VENV)/.observed: $(VENV)/.made python/requirements-dev.txt
	$(call newer,the example needs 3.10 or later)
	@echo "== installing grpcio, msgpack and OpenTelemetry into $(VENV)"
	@$(PIP) --constraint python/requirements-dev.txt grpcio protobuf msgpack opentelemetry-sdk \
		opentelemetry-exporter-otlp-proto-grpc || $(OFFLINE)
	@touch $@

# The compatible mode adds a path; the other one starts every Python with imports, which stray files in PYTHONPATH can break.
$(VENV)/.grpc: $(VENV)/.made python/requirements-dev.txt python/pyproject.toml
	@$(PIP) --config-settings editable_mode=compat --editable 'python[all,serve]' || $(OFFLINE)
	@touch $@

$(VENV)/.examples: $(VENV)/.made python/requirements-dev.txt examples/requirements.txt
	$(call newer,the examples need 3.10 or later)
	@echo "== installing what the examples import into $(VENV)"
	@$(PIP) --requirement examples/requirements.txt || $(OFFLINE)
	@touch $@

$(VENV)/.ray: $(VENV)/.made python/requirements-ray.txt
	$(call newer,Ray needs 3.10 or later)
	@echo "== installing Ray into $(VENV)"
	@$(PIP) --requirement python/requirements-ray.txt || $(OFFLINE)
	@touch $@

$(VENV)/.docs: $(VENV)/.made docs/site/requirements.txt
	$(call newer,the site needs 3.10 or later)
	@$(PIP) --requirement docs/site/requirements.txt || $(OFFLINE)
	@touch $@

$(VENV)/.dev: $(VENV)/.made python/requirements-dev.txt
	$(call newer,development needs 3.10 or later)
	@echo "== installing what development needs into $(VENV)"
	@$(PIP) --requirement python/requirements-dev.txt || $(OFFLINE)
	@touch $@

# The other ways to call Python that the bench measures. Ray is large, and the tests do without it.
LIGHT_PEERS := bench/peers/fastapi/requirements.txt bench/peers/goplugin/requirements.txt bench/peers/pyproc/requirements.txt

$(VENV)/.light-peers: $(VENV)/.dev $(LIGHT_PEERS)
	@echo "== installing what the bench compares with into $(VENV)"
	@$(PIP) $(LIGHT_PEERS:%=--requirement %) || $(OFFLINE)
	@touch $@

$(VENV)/.peers: $(VENV)/.light-peers $(VENV)/.ray bench/peers/ray/requirements.txt
	@echo "== installing Ray Serve for the bench into $(VENV)"
	@$(PIP) --requirement bench/peers/ray/requirements.txt --constraint python/requirements-ray.txt || $(OFFLINE)
	@touch $@

$(TOOLS)/golangci-lint-$(golangci): | go-there
	@echo "== building golangci-lint $(golangci), which takes some minutes once"
	GOBIN="$(CURDIR)/$(TOOLS)/bin" $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(golangci)
	@mv $(TOOLS)/bin/golangci-lint $@

$(TOOLS)/benchstat-$(benchstat): | go-there
	GOBIN="$(CURDIR)/$(TOOLS)/bin" $(GO) install golang.org/x/perf/cmd/benchstat@$(benchstat)
	@mv $(TOOLS)/bin/benchstat $@

$(TOOLS)/gremlins-$(gremlins): | go-there
	GOBIN="$(CURDIR)/$(TOOLS)/bin" $(GO) install github.com/go-gremlins/gremlins/cmd/gremlins@$(gremlins)
	@mv $(TOOLS)/bin/gremlins $@

$(TOOLS)/gotestsum-$(gotestsum): | go-there
	@GOBIN="$(CURDIR)/$(TOOLS)/bin" $(GO) install gotest.tools/gotestsum@$(gotestsum)
	@mv $(TOOLS)/bin/gotestsum $@

go-there:
	@command -v $(GO) >/dev/null || { echo "$(GO) not found: install Go $(shell sed -n 's/^go //p' go.mod) or later, \
	or say make GO=/path/to/go" >&2; exit 1; }

python-venv-there:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found: install Python 3.8 or later (on Debian and Ubuntu: \
	apt-get install python3 python3-venv), or say make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 8))' || { echo "$(PYTHON) does not work or is older than 3.8: \
	say make PYTHON=/path/to/python with a newer one" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) -m venv is missing; on Debian and Ubuntu: \
	apt-get install python3-venv (or $$($(PYTHON) -c 'import sys; print("python%d.%d" % sys.version_info[:2])')-venv)" >&2; exit 1; }
