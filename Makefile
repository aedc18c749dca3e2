# What a person types. `make check` before each commit, `make test` before a push.
# The two commands of README need Rust, a C compiler and make; `make test` installs from Debian what it needs.

SHELL := bash
CARGO ?= cargo
export CARGO_TERM_COLOR ?= auto

.PHONY: help check lint test test-full e2e-local e2e-fire e2e-services e2e-kubernetes e2e-swarm stores bench bench-load \
	bench-dash soak fuzz docs schema schema-check openapi openapi-check dist requirements clean-local

help: ## List what there is
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

check: ## Format, lints and core's tests; under a minute after the first build
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --all-features -- -D warnings
	$(CARGO) test -q -p mlctl-core --features sim

requirements: ## Install from Debian what the tests need, and say what else is missing
	bash tests/requirements.sh

test: requirements ## Everything that needs no cluster, and the short end-to-end suites
	bash tests/run.sh short

test-full: requirements ## Every suite, at full length
	bash tests/run.sh full

e2e-local: ## The end-to-end suite of the embedded target
	bash tests/run.sh e2e-local

e2e-fire: requirements ## The embedded target killed, raced and starved, at full length
	bash tests/run.sh e2e-fire

e2e-services: ## The services on real PostgreSQL, Redis, Kafka and a stand-in for MongoDB
	bash tests/requirements.sh services
	bash tests/run.sh e2e-services

stores: ## Start those servers for a person (ONLY=postgresql,redis), and print their addresses until Ctrl-C
	@bash tests/requirements.sh >&2
	@$(CARGO) build -q -p mlctl-tests --bin stores
	@$${CARGO_TARGET_DIR:-target}/debug/stores up $(if $(ONLY),--only $(ONLY))

soak: requirements ## Random kills and rollouts for MLCTL_SOAK_MINUTES (10)
	MLCTL_TEST_LENGTH=full MLCTL_SOAK_MINUTES=$${MLCTL_SOAK_MINUTES:-10} \
		$(CARGO) test -p mlctl-tests --test fire -- kills::soak --test-threads=1 --show-output

fuzz: requirements ## Each fuzz target for SECONDS_EACH (60)
	bash fuzz/run.sh $${SECONDS_EACH:-60}

bench: ## `mlctl version` against `true`, as a ratio of one run
	$(CARGO) build --release --quiet -p mlctl
	$(CARGO) run --release --quiet -p mlctl-tests --bin bench-version -- target/release/mlctl

docs: ## Build the documentation, broken links are errors
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --document-private-items -q

schema: ## Write the JSON Schemas and the event page anew
	$(CARGO) run -q -- config schema system > schema/mlctl.schema.json
	$(CARGO) run -q -- config schema playbook > schema/playbook.schema.json

openapi: ## Write the OpenAPI documents of the services anew
	OPENAPI=write $(CARGO) test -q -p gateway -p user-service -p integration-service -p catalog-service \
		-p analytics-service --lib the_document_is

openapi-check: ## Ask schemathesis whether the running services keep to their documents
	bash tests/openapi.sh

schema-check: ## Fail when the committed schemas are not what the code says
	bash tests/schema-check.sh

dist: ## A release archive that needs no build
	bash tests/dist.sh

clean-local: ## Stop and remove what the embedded target runs here
	$(CARGO) run -q --release -- down --purge --yes

# Suites that later work brings. Each says so and fails, so that nothing skipped looks green.
e2e-kubernetes e2e-swarm bench-load bench-dash:
	@echo "make $@: not part of this version of mlctl; CHANGELOG.md says what is" >&2; exit 40
