#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload || :
	# Sessions outlive a restart.
	[ "$1" -eq 0 ] || systemctl try-restart bitfusion-server.service || :
fi
[ "$1" -gt 0 ] || bf_remove_rest
