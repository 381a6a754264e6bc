#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
bf_make_client_accounts
