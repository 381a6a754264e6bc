#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
[ "$1" -gt 0 ] || bf_remove_rest
