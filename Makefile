# SPDX-License-Identifier: Apache-2.0
# `make help` lists the targets; V=1 shows the commands; CC=... chooses the compiler.

BUILD  := build
# KIND=asan and KIND=tsan build instrumented copies beside the others: make KIND=tsan proxy
KIND   ?=
ifneq ($(KIND),)
SANITIZE_asan := address,undefined
SANITIZE_tsan := thread
SANITIZE := $(or $(SANITIZE_$(KIND)),$(error KIND=$(KIND) is neither asan nor tsan))
OUT      := $(BUILD)/$(KIND)
CFLAGS   := -O1 -g
endif
OUT    ?= $(BUILD)
PYTHON ?= python3
VENV   := $(BUILD)/venv
PY     := $(VENV)/bin/python
ZIG    := $(PY) -m ziglang
Q      := $(if $(V),,@)
export PYTHONDONTWRITEBYTECODE := 1
export ZIG_GLOBAL_CACHE_DIR := $(CURDIR)/$(BUILD)/zig-cache
export ZIG_LOCAL_CACHE_DIR := $(CURDIR)/$(BUILD)/zig-cache
MAKEFLAGS += --no-print-directory --jobs=$(shell nproc 2>/dev/null || echo 2)

# ---- the compiler: the one asked for, else the system's, else the ziglang package's
ifeq ($(origin CC),default)
CC := $(or $(shell command -v cc),$(shell command -v gcc),$(shell command -v clang),$(ZIG) cc)
endif
NEEDS_ZIG := $(if $(findstring ziglang,$(CC)),$(VENV)/.zig)
MACHINE   ?= $(shell uname -m)

CFLAGS   ?= -O2 -g
WARN     := -Wall -Wextra -Werror -Wno-unused-parameter
BASE      = -std=gnu11 -fPIC -fvisibility=hidden -pthread -fno-strict-aliasing -ffp-contract=off $(WARN) \
            -Ibitfusion/wire/generated -Ibitfusion/wire -Ibitfusion/abi
SANITIZE ?=
SANE     := $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-omit-frame-pointer)
SHARED   := -shared -pthread -Wl,-Bsymbolic -Wl,-z,nodelete -Wl,-z,relro -Wl,-z,now $(if $(SANITIZE),,-Wl,-z,defs)

# clang says which loops it could not vectorise although asked to.
WARN     += $(if $(findstring zig,$(CC))$(findstring clang,$(CC)),-Wno-pass-failed)

# ---- sources: a library whose folder is empty is left out
ABI    := $(wildcard bitfusion/abi/*.c bitfusion/abi/generated/*.c)
# Driver functions that are made of others in the same way; the null driver generates its own.
COPIES := bitfusion/abi/copies/arraycopy.c
WIRE   := $(wildcard bitfusion/wire/*.c bitfusion/wire/generated/*.c)
PROXY  := $(wildcard bitfusion/proxy/*.c bitfusion/proxy/generated/*.c)
EXEC   := $(wildcard bitfusion/executor/*.c bitfusion/executor/generated/*.c)
ENGINE := $(wildcard bitfusion/softgpu/engine/*.c bitfusion/softgpu/engine/generated/*.c)
DRIVER := $(wildcard bitfusion/softgpu/driver/*.c bitfusion/softgpu/driver/generated/*.c)
JITLNK := $(wildcard bitfusion/softgpu/nvjitlink/*.c)
# NVML is one library in two editions: where the list of GPUs comes from differs.
NVML   := $(filter-out %/remote.c %/software.c,$(wildcard bitfusion/nvml/*.c bitfusion/nvml/generated/*.c))
NVML_REMOTE := bitfusion/nvml/remote.c bitfusion/proxy/dial.c bitfusion/proxy/debug.c
NVML_SOFT   := bitfusion/nvml/software.c bitfusion/softgpu/driver/hardware.c bitfusion/softgpu/driver/attributes.c
PRESENT := $(wildcard bitfusion/presence/*.c)
NULLDR := $(wildcard tests/nulldriver/*.c tests/nulldriver/generated/*.c)

# Engine files named run*.c are compiled for the baseline and, on x86-64, once more with AVX2 and FMA
# (-DSG_VARIANT=v3); the engine picks one when it starts.
TWICE   := $(if $(filter x86_64,$(MACHINE)),$(filter bitfusion/softgpu/engine/run%.c bitfusion/softgpu/engine/generated/run%.c,$(ENGINE)))
ENGINE_OBJECTS = $(call objects,$(ENGINE)) $(TWICE:%.c=$(OUT)/obj/%.v3.o)
objects  = $(patsubst %.c,$(OUT)/obj/%.o,$(1))

CLIENT_LIB := $(if $(PROXY),$(OUT)/lib/client/libcuda.so.1)
SERVER_LIB := $(if $(EXEC),$(OUT)/lib/server/libbfexecutor.so)
ENGINE_LIB := $(if $(ENGINE),$(OUT)/lib/softgpu/libsoftgpu-engine.so)
SOFT_LIB   := $(if $(DRIVER),$(OUT)/lib/softgpu/libcuda.so.1)
JIT_LIB    := $(if $(JITLNK),$(OUT)/lib/softgpu/libbitfusion-compilers.so)
NVML_LIBS   := $(if $(NVML),$(OUT)/lib/client/libnvidia-ml.so.1 $(OUT)/lib/softgpu/libnvidia-ml.so.1)
PRESENT_LIB := $(if $(PRESENT),$(OUT)/lib/client/libbitfusion-presence.so)
NULL_LIB   := $(if $(NULLDR),$(OUT)/nulldriver/libcuda.so.1)
WHEEL_LIB  := $(if $(CLIENT_LIB),$(OUT)/lib/wheel/libcuda.so)
LIBS       := $(CLIENT_LIB) $(WHEEL_LIB) $(NVML_LIBS) $(PRESENT_LIB) $(SERVER_LIB) $(ENGINE_LIB) $(SOFT_LIB) $(JIT_LIB)

# ------------------------------------------------------------------ targets

.DELETE_ON_ERROR:
.PHONY: all libs proxy executor engine softgpu nulldriver programs cuda-programs gpu-programs demo test test-fast test-sanitizers test-packages test-pool test-asan test-tsan test-frameworks check lint format \
        types generate check-generated bench bench-encryption bench-pool bench-softgpu gpu-test release sdist wheel rpm test-rpm install deb test-install size clean help

all: libs nulldriver $(VENV)/.runtime ## Build the libraries (the default)
libs: $(LIBS)
proxy: $(CLIENT_LIB) $(PRESENT_LIB) $(filter %/client/libnvidia-ml.so.1,$(NVML_LIBS))
executor: $(SERVER_LIB)
engine: $(ENGINE_LIB)
softgpu: $(SOFT_LIB) $(JIT_LIB)
nulldriver: $(NULL_LIB)

$(CLIENT_LIB): $(call objects,$(PROXY) $(WIRE) $(ABI) $(COPIES)) $(wildcard bitfusion/proxy/generated/exports.map)
$(CLIENT_LIB): LINK = -Wl,-soname,libcuda.so.1 -Wl,--version-script=bitfusion/proxy/generated/exports.map
$(SERVER_LIB): $(call objects,$(EXEC) $(WIRE))
$(SERVER_LIB): LINK = -Wl,-soname,libbfexecutor.so
$(ENGINE_LIB): $(ENGINE_OBJECTS)
$(ENGINE_LIB): LINK = -Wl,-soname,libsoftgpu-engine.so
$(SOFT_LIB): $(call objects,$(DRIVER) $(ABI) $(COPIES)) $(ENGINE_OBJECTS) $(wildcard bitfusion/softgpu/driver/generated/exports.map)
$(SOFT_LIB): LINK = -Wl,-soname,libcuda.so.1 -Wl,--version-script=bitfusion/softgpu/driver/generated/exports.map
# Under the name that it had in older builds, programs that need NVIDIA's would find it.
$(JIT_LIB): $(call objects,$(JITLNK)) bitfusion/softgpu/nvjitlink/exports.map
$(JIT_LIB): LINK = -Wl,-soname,libbitfusion-compilers.so -Wl,--version-script=bitfusion/softgpu/nvjitlink/exports.map
$(OUT)/lib/client/libnvidia-ml.so.1: $(call objects,$(NVML) $(NVML_REMOTE) $(WIRE))
$(OUT)/lib/softgpu/libnvidia-ml.so.1: $(call objects,$(NVML) $(NVML_SOFT))
$(NVML_LIBS): bitfusion/nvml/generated/exports.map
$(NVML_LIBS): LINK = -Wl,-soname,libnvidia-ml.so.1 -Wl,--version-script=bitfusion/nvml/generated/exports.map
$(PRESENT_LIB): $(call objects,$(PRESENT))
$(PRESENT_LIB): LINK = -Wl,-soname,libbitfusion-presence.so
$(NULL_LIB): $(call objects,$(NULLDR) $(ABI)) $(wildcard tests/nulldriver/generated/exports.map)
$(NULL_LIB): LINK = -Wl,-soname,libcuda.so.1 -Wl,--version-script=tests/nulldriver/generated/exports.map

$(filter-out $(WHEEL_LIB),$(LIBS)) $(NULL_LIB):
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	$(Q)$(CC) $(CFLAGS) $(SANE) $(SHARED) $(LINK) -o $@ $(filter %.o,$^) -ldl -lm -lpthread $(LDFLAGS)
	$(Q)case $@ in */libcuda.so.1) ln -sf libcuda.so.1 $(@D)/libcuda.so ;; */libbitfusion-compilers.so) rm -f $(@D)/libnvJitLink.so.13 ;; esac

# Programs also open libcuda.so. That is a link, which a wheel cannot hold: there it is a library that needs the other one.
$(WHEEL_LIB): $(CLIENT_LIB) | $(NEEDS_ZIG)
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	$(Q)$(CC) -shared -Wl,-soname,libcuda.so -Wl,-rpath,'$$ORIGIN' -Wl,--no-as-needed -o $@ -x c /dev/null -x none $< $(LDFLAGS)

COMPILE = $(CC) $(BASE) $(CFLAGS) $(TUNE) $(SANE) -MMD -MP -c
# The proxy is never loaded late enough for the static TLS block to be full, and its launches must be quick.
$(OUT)/obj/bitfusion/proxy/%: BASE += -ftls-model=initial-exec
$(OUT)/obj/bitfusion/nvml/%: BASE += -Ibitfusion/nvml/generated -Ibitfusion/proxy
# The engine's handlers are hundreds of loops. Unrolling the long ones takes the compiler twice as long and gains
# nothing; a set for old CPUs beside one for AVX2 is compiled quickly; generated lines say nothing to a debugger.
$(OUT)/obj/bitfusion/softgpu/engine/run%: TUNE += -fno-math-errno -fno-trapping-math
$(OUT)/obj/bitfusion/softgpu/engine/generated/%: TUNE += -fno-math-errno -fno-trapping-math -g0
ifeq ($(if $(findstring zig,$(CC))$(findstring clang,$(CC))$(SANITIZE),,$(filter -O2,$(CFLAGS))),-O2)
$(OUT)/obj/bitfusion/softgpu/engine/%: TUNE += --param max-completely-peeled-insns=50
$(OUT)/obj/bitfusion/softgpu/engine/run%: TUNE += -O3
$(OUT)/obj/bitfusion/softgpu/engine/generated/%: TUNE += -O1 -ftree-vectorize -fvect-cost-model=dynamic -fpeel-loops
$(TWICE:%.c=$(OUT)/obj/%.o): TUNE += -O1 -fno-tree-vectorize
endif
$(OUT)/obj/%.v3.o: %.c $(OUT)/.flags | $(NEEDS_ZIG)
	@mkdir -p $(@D)
	@echo "  CC    $< (x86-64-v3)"
	$(Q)$(COMPILE) -march=$(if $(findstring zig,$(CC)),x86_64_v3,x86-64-v3) -DSG_VARIANT=v3 -o $@ $<
$(OUT)/obj/%.o: %.c $(OUT)/.flags | $(NEEDS_ZIG)
	@mkdir -p $(@D)
	@echo "  CC    $<"
	$(Q)$(COMPILE) -o $@ $<

# Objects are rebuilt when the compiler or its flags change, those too that the lines above give to some files.
FLAGS := $(CC) $(BASE) $(CFLAGS) $(TUNE) $(SANE) $(shell grep -E '(TUNE|BASE) *[+:?]?=' $(firstword $(MAKEFILE_LIST)) | cksum)
$(OUT)/.flags: FORCE
	@mkdir -p $(@D)
	@echo '$(FLAGS)' | cmp -s - $@ || echo '$(FLAGS)' > $@
FORCE:

-include $(shell find $(OUT)/obj -name '*.d' 2>/dev/null)

# ---- Python environments under build/
$(VENV)/.%: tests/requirements/%.txt tests/venv.sh
	@echo "  VENV  $*"
	$(Q)flock $(shell mkdir -p $(BUILD); echo $(BUILD))/.venv.lock tests/venv.sh $(VENV) $(PYTHON) $<
	@touch $@
$(VENV)/.dev: tests/requirements/runtime.txt tests/requirements/package.txt

# ---- tests
# One process for each of the first few CPUs; the tests of one file stay together.
PYTEST = $(PY) -m pytest -n $(shell n=$$(nproc); echo $$((n < 4 ? n : 4))) --dist loadfile
test: all programs cuda-programs $(VENV)/.dev $(VENV)/.zig ## Run every test (no GPU, no root, no network beyond loopback)
	$(Q)$(PYTEST) tests -m 'not sanitizers and not packages and not pool' $(PYTEST_FLAGS)
test-sanitizers: all programs $(VENV)/.dev ## The software GPU rebuilt under ASan, UBSan and TSan: takes minutes more
	$(Q)$(PYTEST) tests -m sanitizers $(PYTEST_FLAGS)
test-fast: all $(VENV)/.dev ## Run the tests that are not marked slow
	$(Q)$(PYTEST) tests -m 'not slow and not sanitizers and not packages and not pool' $(PYTEST_FLAGS)
test-packages: all $(VENV)/.dev $(VENV)/.zig ## Packages built twice give the same bytes; what lintian and rpmlint say
	$(Q)$(PYTEST) tests/install -m packages $(PYTEST_FLAGS)
test-pool: all programs $(VENV)/.dev ## Two servers, forty clients and everything that can end, for some minutes
	$(Q)$(PYTEST) tests/e2e -m pool $(PYTEST_FLAGS)
	$(Q)POOL_STEPS=$(or $(STEPS),6000) $(PY) -m pytest -s tests/server/test_pool_processes.py $(PYTEST_FLAGS)
test-asan: ## Build the libraries under AddressSanitizer and UBSan into build/asan; runs nothing
	$(Q)$(MAKE) KIND=asan libs nulldriver
test-tsan: ## The same under ThreadSanitizer into build/tsan; runs nothing
	$(Q)$(MAKE) KIND=tsan libs nulldriver
FRAMEWORKS ?= tensorflow jax cublas cupy numba
# cuBLAS is part of what CuPy needs.
test-frameworks: all $(VENV)/.runtime $(patsubst %,$(BUILD)/frameworks/%/.ready,$(sort $(FRAMEWORKS:cublas=cupy))) ## TensorFlow, JAX, cuBLAS, CuPy and numba-cuda on software GPUs: downloads gigabytes
	$(Q)$(PY) tests/frameworks/run.py $(FRAMEWORKS)
$(BUILD)/frameworks/%/.ready: tests/requirements/%.txt tests/venv.sh
	@echo "  VENV  frameworks/$*"
	@mkdir -p $(BUILD)/frameworks
	$(Q)tests/venv.sh $(@D) $(PYTHON) $<
	@touch $@
programs: $(patsubst tests/programs/%.c,$(OUT)/programs/%,$(wildcard tests/programs/*.c))
# They are linked against a libcuda.so.1, as real programs are; which one they get is decided when they start.
$(OUT)/programs/%: tests/programs/%.c $(wildcard tests/programs/*.h) | $(NEEDS_ZIG) $(NULL_LIB)
	@mkdir -p $(@D)
	@echo "  CC    $<"
	$(Q)$(CC) -std=gnu11 $(WARN) $(CFLAGS) $(SANE) -ffp-contract=off -pthread -Ibitfusion/wire/generated -Itests/programs \
		-o $@ $< -L$(dir $(NULL_LIB)) -lcuda -ldl -lm

# CUDA C++ programs: PTX only, cudart linked statically; one also against the shared cudart.
CU       = $(patsubst tests/programs/%.cu,$(BUILD)/programs/%,$(wildcard tests/programs/*.cu)) \
           $(BUILD)/programs/vector_add_shared $(BUILD)/programs/relocatable
NVCC_DIR = $(firstword $(wildcard $(VENV)/lib/python3*/site-packages/nvidia/cu13 $(VENV)/site/nvidia/cu13))
NVCC    ?= $(NVCC_DIR)/bin/nvcc
PTX      = 75
NVFLAGS  = -O2 -std=c++17 -gencode arch=compute_$(PTX),code=compute_$(PTX) -Itests/programs -Wno-deprecated-gpu-targets \
           $(if $(NVCC_DIR),$(if $(filter $(NVCC_DIR)/%,$(NVCC)),-L$(NVCC_DIR)/lib))
cuda-programs: $(if $(shell command -v g++),$(CU))
$(CU): tests/programs/check.cuh $(VENV)/.programs
$(BUILD)/programs/clusters $(BUILD)/gpu/clusters: PTX = 90
$(BUILD)/programs/matrix $(BUILD)/gpu/matrix: PTX = 89
$(BUILD)/programs/%: tests/programs/%.cu
	@mkdir -p $(@D)
	@echo "  NVCC  $<"
	$(Q)$(NVCC) $(NVFLAGS) -cudart static -o $@ $<
$(BUILD)/programs/vector_add_shared: tests/programs/vector_add.cu
	@mkdir -p $(@D)
	@echo "  NVCC  $< (shared cudart)"
	$(Q)$(NVCC) $(NVFLAGS) -cudart none -o $@ $< -Xlinker $(NVCC_DIR)/lib/libcudart.so.13 -Xlinker -rpath -Xlinker $(abspath $(NVCC_DIR))/lib

# One of two objects, which nvcc's linker joins.
PARTS = $(wildcard tests/programs/relocatable/*.cu)
$(BUILD)/programs/relocatable: $(PARTS)
	@mkdir -p $(@D)
	@echo "  NVCC  $<"
	$(Q)$(NVCC) $(NVFLAGS) -rdc=true -cudart static -o $@ $(PARTS)

check: lint types check-generated test ## Everything that CI asks for
lint: $(VENV)/.dev ## ruff, clang-format, shellcheck
	$(Q)$(PY) -m ruff check bitfusion tests bin setup.py
	$(Q)$(PY) -m ruff format --check bitfusion tests setup.py
	$(Q)PATH=$(VENV)/bin:$(VENV)/site/bin:$$PATH clang-format --dry-run -Werror $(HAND_C)
	$(Q)PATH=$(VENV)/bin:$(VENV)/site/bin:$$PATH shellcheck $(SCRIPTS)
format: $(VENV)/.dev ## Rewrite Python and C to the agreed format
	$(Q)$(PY) -m ruff format bitfusion tests setup.py
	$(Q)PATH=$(VENV)/bin:$(VENV)/site/bin:$$PATH clang-format -i $(HAND_C)
types: $(VENV)/.dev ## mypy --strict
	$(Q)$(PY) -m mypy bitfusion
HAND_C  = $(shell git ls-files '*.c' '*.h' | grep -vE "/(generated|golden)/")
SCRIPTS = $(shell git grep -lE '^\#!.*(ba|/)sh' -- ':!*.md' ':!*.py')

generate: $(VENV)/.dev ## Write the generated files from bitfusion/api
	$(Q)$(PY) -m bitfusion.api
	$(Q)$(PY) -m bitfusion.softgpu.engine
check-generated: $(VENV)/.dev ## Fail when a generated file differs from what the spec gives
	$(Q)$(PY) -m bitfusion.api --check
	$(Q)$(PY) -m bitfusion.softgpu.engine --check

# ---- showing and measuring
demo: all $(BUILD)/programs/demo_mandelbrot ## Run a CUDA program through client, TCP, server, worker and software GPU
	$(Q)$(PY) tests/demo.py
bench: all $(BUILD)/bench/driver_bench $(BUILD)/bench/limits ## Measure on the null driver: directly, Unix socket, TCP; table and build/bench.json
	$(Q)$(PY) tests/bench/run.py $(BENCH_FLAGS)
bench-pool: $(VENV)/.runtime ## The scheduler on a simulated pool of 1,000 servers and 10,000 clients, beside first fit
	$(Q)$(PY) tests/bench/pool_simulation.py $(BENCH_FLAGS)
bench-encryption: all $(BUILD)/bench/driver_bench ## Measure what encrypted data connections cost
	$(Q)$(PY) tests/bench/encryption.py $(BENCH_FLAGS)
bench-softgpu: softgpu $(BUILD)/bench/softgpu_bench $(BUILD)/bench/kernels.ptx ## Measure how the software GPU begins and computes (needs nvcc's wheel)
	$(Q)$(PY) tests/bench/softgpu.py $(BENCH_FLAGS)
$(BUILD)/bench/kernels.ptx: tests/bench/kernels.cu $(VENV)/.programs
	@mkdir -p $(@D)
	$(Q)$(NVCC) -ptx -O2 -arch=compute_$(PTX) -Wno-deprecated-gpu-targets -o $@ $<
$(BUILD)/bench/%: tests/bench/%.c | $(NEEDS_ZIG)
	@mkdir -p $(@D)
	@echo "  CC    $<"
	$(Q)$(CC) -std=gnu11 -O2 -pthread -o $@ $< -ldl -lpthread -lm
COMMA = ,
# With code for the GPU that is there as well, if nvcc knows it.
gpu-programs: $(patsubst tests/programs/%.cu,$(BUILD)/gpu/%,$(wildcard tests/programs/*.cu)) $(BUILD)/gpu/relocatable
$(BUILD)/gpu/%: tests/programs/%.cu tests/programs/check.cuh
	@mkdir -p $(@D)
	@rm -f $@
	@echo "  NVCC  $<"
	$(Q)$(NVCC) $(NVFLAGS) $(if $(GPU_SM),-gencode=arch=compute_$(GPU_SM)$(COMMA)code=sm_$(GPU_SM)) -cudart static -o $@ $<
$(BUILD)/gpu/relocatable: $(PARTS)
	@mkdir -p $(@D)
	@rm -f $@
	@echo "  NVCC  $<"
	$(Q)$(NVCC) $(NVFLAGS) $(if $(GPU_SM),-gencode=arch=compute_$(GPU_SM)$(COMMA)code=sm_$(GPU_SM)) -rdc=true -cudart static -o $@ $(PARTS)
gpu-test: ## For a machine with a real GPU: programs directly and through us
	+$(Q)bash tests/gpu/run

# ---- releases: glibc 2.17 and newer; the same bytes whatever the folder, so without what a debugger reads
MACHINES ?= x86_64 aarch64
RELEASED ?= libs
release: $(VENV)/.zig ## Libraries for x86-64 and aarch64 in build/release
	$(Q)for machine in $(MACHINES); do \
		$(MAKE) OUT=$(BUILD)/release/$$machine MACHINE=$$machine CFLAGS='-O2 -g0' LDFLAGS='-s -Wl,--build-id=none' \
			CC='$(ZIG) cc -target '$$machine-linux-gnu.2.17 $(RELEASED) || exit 1; done

PREFIX     ?= /usr
SYSCONFDIR ?= /etc
# The folder with client/, server/ and softgpu/: those of `make release` are installed with LIBRARIES=build/release/x86_64/lib.
LIBRARIES  ?= $(OUT)/lib
install: $(if $(filter $(OUT)/lib,$(LIBRARIES)),libs) ## Install into DESTDIR
	$(Q)PYTHON='$(PYTHON)' bitfusion/install/install.sh '$(LIBRARIES)' '$(DESTDIR)' '$(PREFIX)' '$(SYSCONFDIR)'

# ---- packages of Python: what is in them is decided by the commit, not by the folder and the time of the build
PACKAGES := $(BUILD)/packages
VERSION  := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' bitfusion/__init__.py)
SDIST    := $(PACKAGES)/bitfusion-$(VERSION).tar.gz
SOURCE_DATE_EPOCH := $(or $(SOURCE_DATE_EPOCH),$(shell git log -1 --format=%ct 2>/dev/null || stat -c %Y bitfusion/__init__.py))
export SOURCE_DATE_EPOCH
# From a copy of what git knows, so that nothing else gets in, and no traces of it into the checkout.
sdist: $(VENV)/.package ## The sources as pip takes them, in build/packages
	@rm -rf $(PACKAGES)/source && mkdir -p $(PACKAGES)/source
	$(Q)git ls-files -z --cached --others --exclude-standard | tar -c --null -T - | tar -x -C $(PACKAGES)/source
	$(Q)cd $(PACKAGES)/source && $(abspath $(PY)) -c 'import setuptools.build_meta as b; b.build_sdist("..")' >../sdist.log 2>&1 || { cat ../sdist.log; exit 1; }
	@rm -rf $(PACKAGES)/source
	@echo "  SDIST $(SDIST)"
wheel: sdist release ## What pip installs, with the libraries of `make release`: build/packages/bitfusion-*.whl
	$(Q)for machine in $(MACHINES); do \
		rm -rf $(PACKAGES)/wheel $(PACKAGES)/bitfusion-*$$machine.whl && mkdir -p $(PACKAGES)/wheel && tar -xzf $(SDIST) -C $(PACKAGES)/wheel && \
		BITFUSION_LIBRARIES=$(CURDIR)/$(BUILD)/release/$$machine/lib BITFUSION_MACHINE=$$machine $(PY) -m pip wheel --quiet \
			--disable-pip-version-check --no-deps --no-build-isolation --no-index -w $(PACKAGES) $(PACKAGES)/wheel/bitfusion-$(VERSION) && \
		rm -rf $(PACKAGES)/wheel && wheel=$$(ls $(PACKAGES)/bitfusion-*$$machine.whl) && echo "  WHEEL $$wheel" && \
		{ said=$$($(PY) -m auditwheel show $$wheel 2>&1); case $$said in *'"manylinux_2_17_'$$machine'"'*) ;; *) echo "$$said"; false ;; esac; } \
		|| exit 1; done

# ---- packages of distributions
ifneq ($(filter test-install test-rpm,$(MAKECMDGOALS)),)
ifneq ($(shell id -u),0)
$(error $(MAKECMDGOALS) takes root: it boots machines and mounts. Without root there is make test-packages)
endif
endif
deb: ## bitfusion-client and bitfusion-server for Debian and Ubuntu in build/packages
	$(Q)bitfusion/install/deb.sh
	$(Q)$(MAKE) release MACHINES='$(MACHINES)'
	$(Q)bitfusion/install/deb.sh '$(MACHINES)'
test-install: MACHINES = $(shell uname -m)
test-install: deb programs cuda-programs ## As root: the Debian packages on machines of their own, from installation to purge
	$(Q)DEB_VERSION=$(VERSION)+1 DEB_FOLDER=$(BUILD)/packages/newer bitfusion/install/deb.sh '$(MACHINES)'
	$(Q)tests/install/run $(SUITES)
	$(Q)if command -v rpmbuild >/dev/null; then $(MAKE) test-rpm; else echo 'skipped: RPMs cannot be built here: rpmbuild is missing'; fi
rpm: ## The same two for RPM systems
	$(Q)rpm/build.sh
	$(Q)$(MAKE) sdist release MACHINES='$(MACHINES)'
	$(Q)rpm/build.sh $(SDIST) '$(MACHINES)'
test-rpm: MACHINES = $(shell uname -m)
test-rpm: rpm ## As root: RPMs installed, upgraded and erased, twice, in a root of their own
	$(Q)RPM_RELEASE=2 rpm/build.sh $(SDIST) $(shell uname -m)
	$(Q)unshare -m $(abspath $(PY)) tests/install/rpm_root.py $(PACKAGES)

size: ## Lines of hand-written code per part
	@for part in api wire abi proxy executor client server commands softgpu/ptx softgpu/engine softgpu/driver; do \
		printf '%-16s %6d\n' $$part $$(git ls-files bitfusion/$$part | grep -E '\.(c|h|py)$$' | grep -v /generated/ | \
			xargs -r cat | wc -l); done
	@printf '%-16s %6d\n' tests $$(git ls-files tests | grep -E '\.(c|h|py|cu|sh)$$' | grep -v /generated/ | xargs cat | wc -l)
clean: ## Remove build/
	rm -rf $(BUILD)
help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24
