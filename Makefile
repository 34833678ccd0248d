# What there is to do: `make`. Every stage runs alone, too: `make units`.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

# Tools write into ~/.ansible and ~/.cache: give them a home of their own.
USER_HOME := $(HOME)
export USER_HOME
export HOME := $(CURDIR)/.cache/home
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/.collections
export LC_ALL := C.UTF-8

STAGE := tests/tools/stage
# These compare or change what belongs to the whole machine: alone, and one after the other.
MACHINE := $(addprefix tests/integration/test_,rig.py hugetlbfs.py migration_gate_hugepages.py rollback_hugepages.py \
  mount_propagation.py)
# These take minutes each: users who come in and hosts that boot, machines with a kernel of their own, images that only
# they need.
SLOW := $(addprefix tests/integration/test_,launchers.py rig_vm.py audit_controls_vm.py kernel_vm.py mac_vm.py \
  selinux_vm.py levels_vm.py demo_vm.py other_releases.py modular.py)
FAST := lint types docs-lint docs sanity units units-py39
PLACE := ansible_collections/hypervisor/hardening
ON_TARGETS := $(addprefix .collections/$(PLACE)/,$(wildcard plugins/modules plugins/module_utils))
ON_CONTROLLER := $(addprefix .collections/$(PLACE)/,$(filter-out plugins/modules plugins/module_utils,$(wildcard plugins/*)))

.PHONY: help demo test test-all test-fast browser test-real test-slow scenarios benchmark build venv collection rig forget clean $(FAST)

help: ## this list
	@sed -nE 's/^([a-z0-9-]+):[^#]*## (.*)/  \1\t\2/p' Makefile | expand -t 16

demo: collection ## harden a disposable hypervisor and watch it being proven
	@python tests/demo

test: forget rig test-fast browser test-real scenarios ## the fast tier, then the real one: what has to pass
	@$(STAGE) --summary

test-all: test test-slow ## what takes longest, too
	@$(STAGE) --summary

test-fast: $(FAST) ## style, types, documents, sanity and units

browser: collection ## the report of an audit, in Chromium
	@tests/tools/packages chromium fonts-dejavu-core
	@$(STAGE) $@ 'pytest tests/browser --numprocesses=2 --durations=5'

test-real: rig ## real libvirt in disposable hypervisors
	@$(STAGE) $@ \
	  'pytest $(MACHINE) --timeout=600' \
	  'pytest tests/integration $(patsubst %,--ignore=%,$(MACHINE) $(SLOW)) --timeout=600 --numprocesses=2 --dist=loadfile --durations=10'

test-slow: rig ## users who run guests; virtual machines; other releases of libvirt and its modular daemons
	@$(STAGE) $@ 'pytest $(SLOW) --timeout=900' 'tests/tools/scenarios vm'

scenarios: rig ## the molecule scenarios, on the same hypervisors
	@$(STAGE) $@ tests/tools/scenarios

lint: collection ## ruff, yamllint, shellcheck, ansible-lint
	@tests/tools/packages shellcheck
	@$(STAGE) $@ \
	  'ruff check --quiet .' \
	  'ruff format --check --quiet .' \
	  'yamllint --strict .' \
	  'shellcheck .ci/run $$(grep -rlE --exclude="*.py" "^#!.*\b(ba)?sh$$" tests roles extensions 2>/dev/null)' \
	  'ansible-lint -q'

types: collection ## mypy --strict: Python 3.9 for what runs on targets, 3.11 for the rest
	@$(STAGE) $@ \
	  'mypy --python-version 3.9 $(ON_TARGETS)' \
	  'mypy --python-version 3.11 $(ON_CONTROLLER) tests'

docs-lint: collection ## the documentation of plugins and roles, and the changelog
	@$(STAGE) $@ \
	  'tests/tools/farm --copy .cache/docs-lint' \
	  'antsibull-docs lint-collection-docs --plugin-docs --validate-collection-refs=all .cache/docs-lint/$(PLACE)' \
	  'antsibull-changelog lint'

sanity: collection ## ansible-test sanity
	@$(STAGE) $@ tests/tools/sanity

units: collection ## ansible-test units
	@tests/tools/packages e2fsprogs openssl
	@$(STAGE) $@ tests/tools/units

units-py39: collection ## the units of what runs on targets, under Python 3.9
	@$(STAGE) $@ tests/tools/units-py39

benchmark: rig ## ratios, measured side by side
	@tests/tools/packages chromium fonts-dejavu-core
	@$(STAGE) $@ $(patsubst %,'PYTHONPATH=tests:.collections python %',$(sort $(wildcard tests/benchmark/bench_*.py)))

docs: collection ## the site, in docs/_build/html
	@$(STAGE) $@ tests/tools/docs

build: venv ## the collection's artifact, in build/
	@ansible-galaxy collection build --force --output-path build

# Set-up, made once; the targets above call it.
venv:
	@HOME=$(USER_HOME) tests/tools/venv

collection: venv
	@tests/tools/farm

# What the disposable hypervisors need of this machine: installed, or said before anything starts.
rig: collection
	@python tests/rig install

forget:
	@$(STAGE) --begin

clean: ## remove the tools, the caches and the images of the disposable hypervisors
	@python3 tests/rig clean
	rm -rf .venv .cache .collections .ansible build docs/_build
