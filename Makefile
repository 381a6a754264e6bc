# SPDX-License-Identifier: Apache-2.0
# `make help` lists the targets.

BUILD  ?= build
PYTHON ?= python3
# A system compiler, else the one in the ziglang package (see tools target in the README).
CC     := $(shell command -v $(firstword $(CC)) >/dev/null 2>&1 && echo '$(CC)' || echo '$(PYTHON) -m ziglang cc')
CFLAGS ?= -O2 -g
WARN   := -Wall -Wextra -Werror -Wno-unused-parameter
BASE   := -std=gnu11 -fPIC -fvisibility=hidden -pthread -fno-strict-aliasing -ffp-contract=off $(WARN) -Ibitfusion/wire/generated -Ibitfusion/wire -Ibitfusion/abi
VECTOR ?=
Q      := $(if $(V),,@)

ABI    := $(wildcard bitfusion/abi/*.c bitfusion/abi/generated/*.c)
WIRE   := $(wildcard bitfusion/wire/*.c bitfusion/wire/generated/*.c)
PROXY  := $(wildcard bitfusion/proxy/*.c bitfusion/proxy/generated/*.c) $(WIRE) $(ABI)
EXEC   := $(wildcard bitfusion/executor/*.c bitfusion/executor/generated/*.c) $(WIRE)
ENGINE := $(wildcard bitfusion/softgpu/engine/*.c bitfusion/softgpu/engine/generated/*.c)
SOFT   := $(wildcard bitfusion/softgpu/driver/*.c bitfusion/softgpu/driver/generated/*.c) $(ENGINE) $(ABI)
