#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
bf_make_server_accounts
