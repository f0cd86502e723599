# The front door: one word each. Everything is CMake underneath (CMakePresets.json); builds lie under build/.
MODEL ?= smollm2
T     ?= 60
JOBS  ?= $(shell nproc)

.PHONY: all release dev test check po format bench asan tsan fuzz cover clean help
.DEFAULT_GOAL := all

all: release

release: ## the command: build/release/bin/dil (the default)
	@cmake --preset release >/dev/null
	@cmake --build build/release -j $(JOBS)

dev: ## debug symbols, warnings are errors, tests: build/dev
	@cmake --preset dev >/dev/null
	@cmake --build build/dev -j $(JOBS)

test: ## unit tests and source checks, as bash test.sh does
	@bash test.sh

check: ## source checks: layers, sizes, banned calls, ISA leaks, documents, translations, layout
	@python3 scripts/check_layers.py
	@python3 scripts/check_sizes.py
	@python3 scripts/check_source.py
	@if [ -d build/release ]; then python3 scripts/check_isa.py build/release; else echo "isa: skipped, run make first"; fi
	@python3 scripts/check_docs.py $$([ -x build/release/bin/dil ] && echo --binary build/release/bin/dil)
	@python3 scripts/check_translations.py
	@python3 scripts/test_checks.py
	@python3 scripts/format.py --check

po: ## po/tr.po has the texts of the sources: translate those that are empty (needs gettext)
	@python3 scripts/check_translations.py --update

format: ## lay out the sources by .clang-format (clang-format 14)
	@python3 scripts/format.py

bench: release ## speed of MODEL=smollm2 on this machine
	@build/release/bin/dil bench -m $(MODEL) -p 512 -n 128

asan: ## tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@cmake --preset asan-ubsan >/dev/null
	@cmake --build build/asan-ubsan -j $(JOBS)
	@cd build/asan-ubsan && ctest --output-on-failure -j $(JOBS)

tsan: ## tests under ThreadSanitizer
	@cmake --preset tsan >/dev/null
	@cmake --build build/tsan-all -j $(JOBS)
	@cd build/tsan-all && TSAN_OPTIONS=halt_on_error=1 ctest --output-on-failure -j $(JOBS)

fuzz: ## every fuzzer for T=60 seconds (needs clang)
	@cmake --preset fuzz >/dev/null
	@cmake --build build/fuzz -j $(JOBS) --target fuzzers
	@bash scripts/fuzz.sh build/fuzz $(T)

cover: ## line and branch coverage of src/ (needs gcovr): build/coverage/index.html
	@command -v gcovr >/dev/null || { echo "gcovr is missing: apt install gcovr"; exit 1; }
	@cmake --preset coverage >/dev/null
	@cmake --build build/coverage -j $(JOBS)
	@cd build/coverage && ctest -j $(JOBS) --output-on-failure
	@gcovr -r . -f src/ --object-directory build/coverage --html-details build/coverage/index.html --print-summary

clean: ## remove every build
	@rm -rf build

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18
