# gpuquota: `make` or `make help` lists what can be made.
#
# All that is fetched lies in a cache outside the tree (GPUQUOTA_CACHE), all that is built in target/ and dist/.

CARGO ?= cargo
OUT := $(CURDIR)/target
PROGRAMS := $(OUT)/programs
GLIBC := 2.17
ARCH := $(shell uname -m)
# The tests run libcudart on the simulated driver, which does not start without this (cuda-shim/README.md, *Install*).
SIMULATOR := --features cuda-shim-libcuda/integrity
# Libraries are optimised as a whole (Cargo.toml). For programs that takes minutes, and makes nothing that anybody waits for faster.
LIBRARIES := gpuquota-preload cuda-shim-libcuda cuda-shim-libnvidia-ml
PROGRAM_PROFILE := CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
RELEASE_ARCHES ?= x86_64 aarch64

export CARGO_TARGET_DIR := $(OUT)
export GPUQUOTA_ARTIFACTS := $(OUT)/release
export GPUQUOTA_PROGRAMS := $(PROGRAMS)
export GPUQUOTA_DIST := $(CURDIR)/dist
export GPUQUOTA_KIT := $(CURDIR)/dist/gpu-kit

.PHONY: help
help: ## what can be made
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' Makefile | expand -t 16

.PHONY: demo
demo: prerequisites artifacts programs ## a real CUDA program under a quota, here and now
	@$(CARGO) run --quiet -p gpuquota-promises --bin demo

.PHONY: test
test: lint promises ## formatting, clippy, and every promise on the simulated GPU

.PHONY: promises
promises: prerequisites artifacts programs gpu-kit
	$(CARGO) test --workspace --no-fail-fast

.PHONY: test-heavy
test-heavy: prerequisites artifacts programs clients ## real software from PyPI, 10 GB of it, on the simulated GPU and under the quota
	$(CARGO) test -p gpuquota-promises --test clients

.PHONY: test-containerd
test-containerd: prerequisites artifacts programs ## pods of a real containerd (CONTAINERD=/path; its shim, ctr and crictl lie beside it) with the agent as its NRI plugin
	CONTAINERD="$(CONTAINERD)" $(CARGO) test -p gpuquota-promises --test containerd

.PHONY: test-kubelet
test-kubelet: prerequisites artifacts programs ## the device plugin with a real kubelet (KUBELET=/path) and the container runtime that it needs (CRI=/path/of/socket)
	KUBELET="$(KUBELET)" CRI="$(CRI)" $(CARGO) test -p gpuquota-promises --test real_kubelet

.PHONY: deploy-check
deploy-check: ## the Helm chart with all of its values, against the schemas of Kubernetes; the alert rules
	@.ci/run deploy

.PHONY: image
image: artifacts ## the container image of the agent and the library (podman)
	@scripts/image $(OUT)/release/gpuquota $(OUT)/release/libgpuquota.so dist/image
	podman build --tag gpuquota --file deploy/Containerfile dist/image

.PHONY: clients
clients:
	$(CARGO) build --quiet --release --manifest-path tests/clients/rust/Cargo.toml --target-dir $(OUT)/clients

.PHONY: lint
lint: ## formatting and clippy, warnings are errors
	@.ci/run fmt clippy

.PHONY: ci
ci: ## all that has to hold before anything is merged (.ci/run, in stages)
	@.ci/run

.PHONY: doc
doc: ## the documentation of every crate, warnings are errors
	@.ci/run doc

.PHONY: msrv
msrv: ## does it build with the oldest Rust that Cargo.toml promises?
	@.ci/run msrv

.PHONY: deny
deny: ## licences, sources, duplicates and known holes of what we depend on (deny.toml)
	@.ci/run deny advisories

.PHONY: bindings
bindings: ## writes src/driver/sys anew from NVIDIA's headers, after a hook or a call was added
	src/driver/sys.sh

.PHONY: aarch64
aarch64: ## the library for aarch64, and a program under it by qemu's emulation
	@scripts/aarch64

.PHONY: miri
miri: ## the crates that need no GPU under Miri, all of their tests that it can run: hours
	@scripts/miri

.PHONY: fuzz
fuzz: ## the fuzz targets (SECONDS=n for each, default 600; TARGET=name for one)
	@scripts/fuzz $(or $(SECONDS),600) $(TARGET)

.PHONY: bench
bench: prerequisites artifacts programs ## what the library costs (RUN=name keeps the data in bench/runs/name, PEER="name=library ..." compares)
	@$(CARGO) run --quiet -p gpuquota-bench -- $(if $(RUN),--json bench/runs/$(RUN)) $(PEER:%=--peer %)
	@$(MAKE) --no-print-directory counts

.PHONY: bench-agent
bench-agent: prerequisites artifacts ## what the agent costs beside 1,000 containers, and after 10,000 have come and gone
	@$(CARGO) run --quiet -p gpuquota-bench --bin gpuquota-load

.PHONY: counts
counts: prerequisites artifacts programs ## instructions that the library adds to each call; fails where one grew by more than 3%
	@scripts/prerequisites counts
	@$(CARGO) run --quiet -p gpuquota-bench --bin gpuquota-counts

.PHONY: counts-keep
counts-keep: prerequisites artifacts programs ## the same, and keeps them as bench/counts.toml
	@scripts/prerequisites counts
	@$(CARGO) run --quiet -p gpuquota-bench --bin gpuquota-counts -- --keep

.PHONY: bench-accuracy
bench-accuracy: prerequisites artifacts programs ## is the share exact? (RUN=name, IDEAL=1: calls take no time, FULL=1: hours, ROUNDS=n, PEER="name=library ..." compares, LIKE_FOR_LIKE=1: in columns)
	@GPUQUOTA_FETCH=no $(CARGO) run --quiet --release -p gpuquota-bench --bin gpuquota-accuracy -- $(if $(FULL),--full) $(if $(LIKE_FOR_LIKE),--like-for-like) $(if $(IDEAL),--ideal) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(RUN),--json bench/runs/$(RUN)) \
	    $(PEER:%=--peer %) $(if $(PEER_ENV),--peer-env "$(PEER_ENV)")

.PHONY: release
release: prerequisites ## dist/: tarballs, .debs, SBOMs, checksums, checked (RELEASING.md; RELEASE_ARCHES="x86_64 aarch64")
	scripts/release "$(RELEASE_ARCHES)" $(GLIBC) dist
	scripts/release-check dist

.PHONY: gpu-kit
gpu-kit: prerequisites programs ## dist/gpu-kit: all that a machine with a card needs to try the library (gpu-kit/README.md)
	@scripts/gpu-kit $(ARCH)-unknown-linux-gnu.$(GLIBC) $(PROGRAMS) dist/gpu-kit

.PHONY: gpu-kit-try
gpu-kit-try: artifacts gpu-kit ## the kit on the simulated card: every stage runs, and each finds what is broken
	$(CARGO) test -p gpuquota-promises --test gpu_kit

.PHONY: models
models: ## the interleavings of small models of the ledger, arenas and the share, by loom
	RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=$(OUT)/loom $(CARGO) test --quiet -p gpuquota-quota --lib --release loom

.PHONY: soak
soak: prerequisites artifacts programs ## the storms and races for a long time (ROUNDS=n, default 100)
	@for round in $$(seq $(or $(ROUNDS),100)); do \
	    $(CARGO) test --quiet -p gpuquota-promises --test exactness -- storm race || exit 1; done

.PHONY: surface
surface: prerequisites artifacts ## the hook table and the simulated driver against real drivers, from Debian's packages
	@scripts/surface

.PHONY: artifacts
artifacts: ## target/release: the library, gpuquota and the simulated GPU
	$(CARGO) build --release --quiet $(LIBRARIES:%=-p %) $(SIMULATOR)
	$(PROGRAM_PROFILE) $(CARGO) build --release --quiet --workspace $(LIBRARIES:%=--exclude %)
	@# The tests refuse what was built with another one (tests/src/artifacts.rs).
	@cp Cargo.lock $(OUT)/release/Cargo.lock

.PHONY: programs
programs: ## target/programs: the small CUDA programs that the tests run
	@cuda=$$(scripts/cuda-toolkit) && $(MAKE) --silent -C tests/programs CUDA=$$cuda OUT=$(PROGRAMS)

.PHONY: prerequisites
prerequisites:
	@scripts/prerequisites

.PHONY: clean
clean: ## removes what was built, leaves what was fetched
	rm -rf $(OUT) dist
