# Two commands do everything on a fresh Debian or Ubuntu machine with Rust:
#
#   make drill   a rehearsed power loss on the embedded default, live in the terminal, ending with a report
#   make test    every test, on real nodes too where Docker is there
#
# Each installs what it lacks when it may (root and apt), and names it when it may not.

CARGO      ?= cargo
PROFILE    ?= dev
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
OUT        := $(TARGET_DIR)/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))
ARGS       ?=
DRILL      ?= power-loss
SEEDS      ?= 10000
SEED       ?=
MINUTES    ?= 10
# So many test programs at a time. Nodes mostly wait, and three programs' worth of them go well side by side.
UNITS_AT_ONCE ?= 2
NODES_AT_ONCE ?= 3
TARGETS    ?= $(notdir $(wildcard tests/fuzz/corpus/*))

.PHONY: help build release packages packages-for-tests needs-packaging sbom drill test test-units test-nodes lint docs deny ci \
        properties sim sim-mutations fuzz testbed-up testbed-down bench bench-repair bench-reclaim bench-agent bench-journal bench-fleet bench-runbooks soak needs-rust needs-testbed

help: ## What can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

build: needs-rust ## Every binary, debug
	$(CARGO) build --workspace --bins --profile $(PROFILE)

release: needs-rust ## Every binary, optimized: blackstart, blackstart-agent, blackstart-coordinator
	$(CARGO) build --workspace --bins --release

# TARGET=x86_64-unknown-linux-musl makes programs that need no libc of the machine: docs/install.md.
TARGET ?=
PACKAGED := $(TARGET_DIR)/$(if $(TARGET),$(TARGET)/)dist
packages: needs-rust needs-packaging ## Debian packages and RPMs, into target/packages (TARGET=x86_64-unknown-linux-musl: static)
	$(CARGO) build --profile dist --bins -p blackstart-agent -p blackstart-coordinator -p blackstart $(if $(TARGET),--target $(TARGET))
	$(PACKAGED)/package-files $(PACKAGED)/package
	deploy/packages/build $(PACKAGED)

sbom: needs-rust ## What each program is made of, as CycloneDX documents in target/sbom
	$(CARGO) build --workspace --all-targets
	mkdir -p $(TARGET_DIR)/sbom
	set -e; for program in blackstart blackstart-agent blackstart-coordinator; do \
	  $(CARGO) metadata --format-version 1 --locked --filter-platform x86_64-unknown-linux-gnu | \
	    $(TARGET_DIR)/debug/sbom $$program Cargo.lock >$(TARGET_DIR)/sbom/$$program.cdx.json; \
	done

packages-for-tests: needs-rust needs-packaging ## The same of what tests are built of, quickly
	$(CARGO) build --workspace --all-targets
	$(TARGET_DIR)/debug/package-files $(TARGET_DIR)/debug/package
	deploy/packages/build $(TARGET_DIR)/debug

needs-packaging:
	@$(CARGO) deb --version >/dev/null 2>&1 || $(CARGO) install --debug --locked cargo-deb # as cargo-deny
	deploy/ensure-packages dpkg-dev rpm

# On the testbed it takes what nodes run as well.
drill: needs-rust $(if $(findstring testbed,$(ARGS)),needs-testbed build) ## Rehearse a power loss of 18 simulated nodes (ARGS="--seed 7"), on real ones (ARGS="--on testbed"), or another chapter (DRILL=node-down)
	$(CARGO) build -p blackstart --bin blackstart
	$(OUT)/blackstart drill $(DRILL) $(ARGS)

test: test-units test-nodes ## Every test; real nodes where Docker is there

test-units: needs-testbed ## Tests that need no node
	tests/side-by-side $(UNITS_AT_ONCE) --but tests $(CARGO) test

test-nodes: needs-testbed packages-for-tests ## Tests on real nodes: containers with systemd (NODES_AT_ONCE=1: one program at a time)
	tests/side-by-side $(NODES_AT_ONCE) --only tests $(CARGO) test -- --test-threads=1 --nocapture

lint: needs-rust ## Formatting, clippy, licences and sources
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(MAKE) deny

properties: needs-rust ## Random histories of signals against the laws of the agent (HISTORIES=100000)
	BLACKSTART_HISTORIES=$(or $(HISTORIES),100000) $(CARGO) test --release -q -p blackstart-agent --test properties -- --nocapture

sim: needs-rust ## Simulated cold starts, each law looked at after every event (SEEDS=10000, or SEED=7 for its whole trace)
	$(CARGO) run --release -q -p blackstart-tests --bin sim -- $(if $(SEED),--seed $(SEED) --trace,--seeds $(SEEDS)) $(ARGS)

sim-mutations: needs-rust ## Deliberate breaks of each law, each of which a simulation has to find
	$(CARGO) run --release -q -p blackstart-tests --bin sim -- --mutation all --seeds 1000

# What it finds stays in tests/fuzz/artifacts; what it learns goes to the target directory, and only the corpora are kept.
fuzz: needs-rust ## Fuzz every parser (MINUTES=10 each, TARGETS="ledger commands")
	@$(CARGO) fuzz --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-fuzz
	@command -v c++ >/dev/null || deploy/ensure-packages g++
	$(CARGO) fuzz build --fuzz-dir tests/fuzz --sanitizer none -a
	set -e; for target in $(TARGETS); do \
	  mkdir -p $(TARGET_DIR)/fuzz/$$target; \
	  $(CARGO) fuzz run --fuzz-dir tests/fuzz --sanitizer none -a $$target $(TARGET_DIR)/fuzz/$$target tests/fuzz/corpus/$$target -- \
	    -max_total_time=$$(( $(MINUTES) * 60 )) -max_len=16384 -timeout=10 -rss_limit_mb=1024 -print_final_stats=1; \
	done

docs: needs-rust ## The crates' documentation; a broken link fails
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" $(CARGO) doc --workspace --no-deps --document-private-items

deny: needs-rust ## Licences, duplicates and sources of the dependencies
	@$(CARGO) deny --version >/dev/null 2>&1 || $(CARGO) install --debug --locked cargo-deny # it runs for seconds, and would build for minutes
	$(CARGO) fetch --locked --quiet
	$(CARGO) deny --offline check bans licenses sources

ci: ## What .ci/run does
	bash .ci/run

testbed-up: needs-testbed build ## Three masters and two workers, left running (ARGS="--workers 3")
	$(OUT)/testbed up $(ARGS)

testbed-down: build ## Take the testbed's nodes down and leave nothing behind
	$(OUT)/testbed down

bench: bench-repair bench-reclaim bench-journal bench-agent bench-fleet bench-runbooks ## Every benchmark

bench-repair: needs-testbed release ## Death of a kubelet to its restart, beside systemd's own Restart=always
	$(TARGET_DIR)/release/bench-repair $(ARGS)

bench-reclaim: needs-rust ## Freeing a log by collapse and punch, beside truncate and copy-then-truncate
	$(CARGO) run --release -p blackstart-agent --example bench_reclaim -- $(ARGS)

bench-journal: needs-rust ## The journal of a wave, entry by entry and in batches
	$(CARGO) run --release -p blackstart-coordinator --example bench_journal

# The agent as it is shipped. Programs are looked for beside the one that runs.
bench-agent: needs-testbed release ## What the agent takes and how soon it reacts, beside monit and node_exporter (ARGS="-o json")
	$(CARGO) build --release -p blackstart-agent --example bench_reclaim
	$(CARGO) build --profile dist -p blackstart-agent --bin blackstart-agent
	mkdir -p $(TARGET_DIR)/dist/examples
	cp -lf $(TARGET_DIR)/release/examples/bench_reclaim $(TARGET_DIR)/dist/examples/
	cp -lf $(addprefix $(TARGET_DIR)/release/,bench-agent blackstart-coordinator log-writer stand-in-component stand-in-kubelet) $(TARGET_DIR)/dist/
	$(TARGET_DIR)/dist/bench-agent $(ARGS)

bench-fleet: needs-testbed ## One coordinator with 10,000 agents in session: memory, processor, storms, decisions; beside etcd's leases (ARGS="--nodes 2000")
	$(CARGO) build --release -p blackstart-coordinator -p blackstart-tests --bin blackstart-coordinator --bin bench-fleet
	$(TARGET_DIR)/release/bench-fleet $(ARGS)

bench-runbooks: needs-rust ## 750 of 1,500 nodes down at once: how fast runbooks decide, and pods are evicted, over a double of the API server
	$(CARGO) test --release -p blackstart-coordinator --lib -- --nocapture runbooks::tests::scale

soak: needs-testbed release ## Random faults for 20 minutes: nothing grows, nothing is mended wrongly (ARGS="--minutes 60 --seed 7")
	$(TARGET_DIR)/release/soak $(ARGS)

needs-rust:
	@command -v $(CARGO) >/dev/null || { echo "cargo is missing: install Rust $$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml) or newer (https://rustup.rs)"; exit 1; }
	@command -v cc >/dev/null || deploy/ensure-packages gcc libc6-dev

# Without Docker the tests on real nodes and runtimes say SKIPPED, without etcd those of several coordinators and of members, without sushy-emulator that of
# Redfish, and without kubectl those of
# the API server's double; with CI=true they must run. Debian's package would start an etcd of its own where systemd runs; the tests start theirs.
needs-testbed: needs-rust
	@{ command -v etcd && command -v etcdctl; } >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && deploy/ensure-packages etcd-server etcd-client && \
	  { [ ! -d /run/systemd/system ] || systemctl disable --now etcd; }; } || [ "$$CI" != true ]
	@[ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && deploy/ensure-etcd-3.5 || [ "$$CI" != true ]
	@command -v sushy-emulator >/dev/null || [ -x $(TARGET_DIR)/sushy/bin/sushy-emulator ] || [ "$$CI" != true ] || { deploy/ensure-packages python3-venv && \
	  python3 -m venv $(TARGET_DIR)/sushy && $(TARGET_DIR)/sushy/bin/pip install -q sushy-tools==2.2.0; }
	@command -v kubectl >/dev/null || [ "$$CI" != true ] || deploy/ensure-packages kubernetes-client
	@command -v docker >/dev/null || [ "$$CI" != true ] || deploy/ensure-packages docker.io
	@command -v docker >/dev/null && deploy/ensure-packages debootstrap e2fsprogs iproute2 mount busybox-static systemd zstd || true
