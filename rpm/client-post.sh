#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
bf_make_client_folders
bf_compile_python
[ "$1" -gt 1 ] || bf_tell_members
