#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
if [ "$1" -eq 0 ]; then
	bf_end_service
	! bf_has systemctl || systemctl --no-reload disable bitfusion-server.service >/dev/null 2>&1 || :
	bf_close_ports
fi
