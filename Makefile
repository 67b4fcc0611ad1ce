# Everything there is to remember: make demo, make test, make lint, make bench.
GO      ?= go
BINARY  := bin/carnet
LDFLAGS := -s -w

.PHONY: help demo story build modules console test faults lint fuzz bench clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^## /  make /p' $(MAKEFILE_LIST)

## demo: build the one binary and run the whole system (ARGS go to carnet demo)
demo: build
	@$(BINARY) demo $(ARGS)

## story: build program and modules, and tell a story (STORY=watch or game; ARGS go to carnet demo)
story: build modules
	@$(BINARY) demo --story $(or $(STORY),watch) $(ARGS)

## build: one static binary without cgo, with progress (a first build takes minutes)
build:
	@CGO_ENABLED=0 GO="$(GO)" test/build.sh $(BINARY) "$(LDFLAGS)"

## modules: build the modules of modules/ into bin/modules, the same bytes each time
modules:
	@for m in gazemap heartzones motion stepcadence; do GOOS=wasip1 GOARCH=wasm CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags='-s -w -buildid=' -buildmode=c-shared -o bin/modules/$$m.wasm ./modules/$$m || exit 1; done

## console: build the console's page into console/dist, which is committed (needs npm)
console:
	@test/console.sh build

## test: set up what the tests need, and run every one of them
test:
	@GO="$(GO)" test/run.sh

## faults: kill parties at random, ROUNDS times (100), then as MOVES avatars move (1000); SEED has the same victims again
faults:
	@test/tools.sh
	@test/postgres.sh -- $(GO) test ./test/faults -count=1 -v -timeout 3h -run '^TestKill$$' -rounds $(or $(ROUNDS),100) -seed $(or $(SEED),0)
	@test/postgres.sh -- $(GO) test ./test/faults -count=1 -v -timeout 3h -run '^TestMoves$$' -moves $(or $(MOVES),1000) -seed $(or $(SEED),0)

## lint: formatting, vet, tidy modules, staticcheck; govulncheck where its database is reachable
lint:
	@GO="$(GO)" test/lint.sh

## fuzz: look for inputs that break a parser, ARGS seconds each; make test runs what was found
fuzz:
	@GO="$(GO)" test/fuzz.sh $(ARGS)

## bench: the figures of docs/design/figures.md, each beside its peer
bench: build
	@GO="$(GO)" test/bench.sh $(ARGS)

## clean: remove what build makes
clean:
	rm -rf bin
