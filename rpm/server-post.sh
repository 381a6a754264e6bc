#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
bf_make_server_folders
bf_compile_python
bf_open_ports
if [ "$1" -eq 1 ]; then
	# The distribution says by its presets which services begin to run by themselves.
	! bf_has systemctl || systemctl --no-reload preset bitfusion-server.service || :
	bf_tell_members
fi
[ ! -d /run/systemd/system ] || systemctl daemon-reload || :
