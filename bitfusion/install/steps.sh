# SPDX-License-Identifier: Apache-2.0
# The steps that installing and removing take, on Debian and on RPM systems alike: functions only, for any POSIX shell.
# The packages' scripts have the text of this file in front, as they also run before and after its files are there.
# Each step may be repeated, and commands that the system lacks are done without.

BF_GROUP=bitfusion         # who may use the machine's configuration; also the service's
BF_USER=bitfusion          # whom the service runs as
BF_WORKER=bitfusion-worker # whom its workers run as: they see nothing of the service's
BF_PYTHON=/usr/lib/bitfusion/python
BF_CONFIG=/etc/bitfusion
BF_STATE=/var/lib/bitfusion
BF_UNIT=bitfusion-server.service
BF_PROC=/proc
BF_OPENED=/var/lib/misc/bitfusion-ports             # by bf_open_ports, so that it closes no others again; root's alone
BF_OPENED_BEFORE=$BF_CONFIG/opened-ports            # where it was at first
BF_PORTS='56001 55001-55100 45201-46225'            # TCP: control, calls, bulk data

bf_has() {
	command -v "$1" >/dev/null 2>&1
}

bf_say() {
	echo "bitfusion: $*"
}

# ------------------------------------------------------------------ who

bf_make_group() {
	getent group "$1" >/dev/null || groupadd --system "$1"
}

# Not a person's, which is never ours to use or to remove.
bf_is_system_user() {
	[ "$(id -u "$1" 2>/dev/null || echo 0)" -lt 1000 ]
}

bf_is_system_group() {
	number=$(getent group "$1" | cut -d : -f 3)
	[ "${number:-1000}" -lt 1000 ]
}

# bf_make_user NAME GROUP HOME
bf_make_user() {
	if getent passwd "$1" >/dev/null; then
		bf_is_system_user "$1" && return 0
		bf_say "the user '$1' is somebody's account here, and the service needs one of that name: rename that one" >&2
		return 1
	fi
	useradd --system --gid "$2" --no-create-home --home-dir "$3" --shell /usr/sbin/nologin \
		--comment 'Bitfusion' "$1"
}

bf_make_client_accounts() {
	bf_make_group "$BF_GROUP"
}

bf_make_server_accounts() {
	bf_make_client_accounts
	bf_make_user "$BF_USER" "$BF_GROUP" "$BF_STATE"
	bf_make_group "$BF_WORKER"
	bf_make_user "$BF_WORKER" "$BF_WORKER" /nonexistent
}

bf_remove_accounts() {
	for user in "$BF_WORKER" "$BF_USER"; do
		getent passwd "$user" >/dev/null && bf_is_system_user "$user" || continue
		userdel "$user" || bf_say "the user '$user' stays: userdel it when nobody needs it"
	done
	for group in "$BF_WORKER" "$BF_GROUP"; do
		bf_is_system_group "$group" || continue # an administrator's, or none
		groupdel "$group" || bf_say "the group '$group' stays: groupdel it when nobody needs it"
	done
}

# Nursery and workers outlive the service, so that another can take their sessions over. They stay in its control group,
# which names them exactly: numbers of users have other owners in containers, whose processes are seen here as well.
bf_processes() {
	group=
	if bf_has systemctl; then
		group=$(systemctl show --property=ControlGroup --value "$BF_UNIT" 2>/dev/null) || :
	fi
	if [ -z "$group" ]; then # systemd has forgotten it; it lies where process 1's does
		group=$(sed -n -e 's|^0::||p' -e 's|^[0-9]*:name=systemd:||p' "$BF_PROC/1/cgroup" 2>/dev/null | sed -n 1p)
		group=${group%/init.scope}
		group=${group%/}/system.slice/$BF_UNIT
	fi
	group=$(printf '%s\n' "$group" | sed 's/[].\\*^$+?(){}|[]/\\&/g')
	grep -lsxE "[0-9]+:[^:]*:$group" "$BF_PROC"/[0-9]*/cgroup | sed "s|^$BF_PROC/||; s|/cgroup\$||"
}

bf_end_processes() {
	for signal in TERM TERM KILL KILL; do
		left=$(bf_processes)
		[ -n "$left" ] || return 0
		# shellcheck disable=SC2086 # words
		kill -s "$signal" $left 2>/dev/null || :
		for _ in 1 2 3 4 5 6 7 8 9 10; do
			[ -n "$(bf_processes)" ] || return 0
			sleep 0.1
		done
	done
}

# ------------------------------------------------------------------ folders and modes

# bf_give OWNER GROUP MODE PATH: unless the administrator said otherwise (dpkg-statoverride)
bf_give() {
	if bf_has dpkg-statoverride && dpkg-statoverride --list "$4" >/dev/null 2>&1; then
		return 0
	fi
	chown "$1:$2" "$4" && chmod "$3" "$4"
}

bf_make_client_folders() {
	[ -d "$BF_CONFIG" ] || mkdir "$BF_CONFIG"
	bf_give root "$BF_GROUP" 0750 "$BF_CONFIG"
	for file in client.toml ca.crt; do
		[ ! -f "$BF_CONFIG/$file" ] || bf_give root "$BF_GROUP" 0640 "$BF_CONFIG/$file"
	done
}

bf_make_server_folders() {
	bf_make_client_folders
	[ ! -f "$BF_CONFIG/server.toml" ] || bf_give root "$BF_GROUP" 0640 "$BF_CONFIG/server.toml"
	[ -d "$BF_STATE" ] || mkdir "$BF_STATE"
	bf_give "$BF_USER" "$BF_GROUP" 0700 "$BF_STATE"
}

# What is left after the files of a package: settings, keys, tokens, accounts. The other package may be in use, or keep
# its data.
bf_purge_client() {
	[ ! -e /usr/bin/bitfusion ] || return 0
	if [ ! -d "$BF_STATE" ]; then
		rm -rf "$BF_CONFIG"
		bf_remove_accounts
	else
		rm -f "$BF_CONFIG/client.toml" "$BF_CONFIG/client.toml.old" "$BF_CONFIG/ca.crt"
	fi
}

bf_purge_server() {
	bf_end_processes
	rm -rf "$BF_STATE"
	rm -f "$BF_CONFIG/server.toml" "$BF_OPENED" "$BF_OPENED_BEFORE"
	bf_is_removed bitfusion-client || bf_purge_client
}

# Removed but not purged: its settings are to stay. Only Debian knows this state.
bf_is_removed() {
	bf_has dpkg-query && dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null | grep -q '^config-files$'
}

# ------------------------------------------------------------------ bytecode

# The software GPU's compiler in one file, with which it starts sooner: after the bytecode, and of the Python that runs.
bf_make_start() {
	(cd / && HOME=/nonexistent PYTHONPATH=$BF_PYTHON /usr/bin/python3 -m bitfusion.softgpu.ptx.startup) >/dev/null 2>&1 || :
}

# Where the distribution has no tool for it, as dh_python3's on Debian.
bf_compile_python() {
	bf_remove_bytecode # of modules that are gone, of another Python
	/usr/bin/python3 -I -m compileall -q "$BF_PYTHON" || :
	bf_make_start
}

# Also what root's use of another Python has left there.
bf_remove_bytecode() {
	[ ! -d "$BF_PYTHON" ] || find "$BF_PYTHON" -depth -name __pycache__ -exec rm -rf {} +
}

# After a package's files have gone: what was made beside them, unless the other package is there.
bf_remove_rest() {
	[ -e /usr/bin/bitfusion ] || rm -rf "${BF_PYTHON%/*}"
}

# ------------------------------------------------------------------ firewalls

# The name of the firewall that is active; nothing where none is.
bf_firewall() {
	if bf_has firewall-cmd && [ "$(firewall-cmd --state 2>/dev/null)" = running ]; then
		echo firewalld
	elif bf_has ufw && LC_ALL=C ufw status 2>/dev/null | grep -q '^Status: active'; then
		echo ufw
	fi
}

# bf_firewalld DO PORTS: add or remove, now and for good, without reloading what others set
bf_firewalld() {
	firewall-cmd --quiet --permanent "--$1-port=$2/tcp" && firewall-cmd --quiet "--$1-port=$2/tcp"
}

bf_is_open() {
	case $1 in
	firewalld) firewall-cmd --quiet --permanent "--query-port=$2/tcp" ;;
	ufw) LC_ALL=C ufw show added 2>/dev/null | grep -qE "^ufw allow $(echo "$2" | tr - :)/tcp( |\$)" ;;
	esac
}

bf_move_opened() {
	[ -e "$BF_OPENED_BEFORE" ] || return 0
	if [ -e "$BF_OPENED" ]; then
		rm -f "$BF_OPENED_BEFORE"
	else
		bf_record "$(cat "$BF_OPENED_BEFORE")" && rm -f "$BF_OPENED_BEFORE"
	fi
}

bf_record() {
	mkdir -p "${BF_OPENED%/*}"
	(umask 077 && echo "$1" >"$BF_OPENED")
}

# Once for an installation: an administrator who closes them afterwards is not argued with.
bf_open_ports() {
	bf_move_opened
	[ ! -e "$BF_OPENED" ] || return 0
	firewall=$(bf_firewall)
	if [ -z "$firewall" ]; then
		bf_say "no firewall (firewalld, ufw) is active here; where one is in the way of clients, let TCP pass to" \
			"$(echo "$BF_PORTS" | sed 's/ /, /g')"
		bf_record none
		return 0
	fi
	opened=
	for ports in $BF_PORTS; do
		bf_is_open "$firewall" "$ports" && continue
		case $firewall in
		firewalld) bf_firewalld add "$ports" ;;
		ufw) ufw allow "$(echo "$ports" | tr - :)/tcp" comment bitfusion >/dev/null ;;
		esac || {
			bf_say "cannot open TCP $ports in $firewall; clients need $(echo "$BF_PORTS" | sed 's/ /, /g')"
			continue
		}
		opened="$opened $ports"
	done
	[ -z "$opened" ] || bf_say "opened TCP$opened in $firewall"
	bf_record "$firewall$opened"
}

bf_close_ports() {
	bf_move_opened
	[ -e "$BF_OPENED" ] || return 0
	# shellcheck disable=SC2046 # words: the firewall, then ports
	set -- $(cat "$BF_OPENED")
	rm -f "$BF_OPENED"
	firewall=${1:-}
	[ $# -eq 0 ] || shift
	for ports in "$@"; do
		case $firewall in
		firewalld)
			if [ "$(bf_firewall)" = firewalld ]; then
				bf_firewalld remove "$ports" || :
			elif bf_has firewall-offline-cmd; then
				firewall-offline-cmd --remove-port="$ports/tcp" >/dev/null 2>&1 || :
			fi
			;;
		ufw) ! bf_has ufw || ufw delete allow "$(echo "$ports" | tr - :)/tcp" >/dev/null || : ;;
		esac
	done
}

# ------------------------------------------------------------------ the service, and who may use it

# End the service with its sessions, before its files go: they would wait for another server to take them over.
bf_end_service() {
	if [ -d /run/systemd/system ] && systemctl is-active --quiet "$BF_UNIT"; then
		systemctl kill --kill-who=main --signal=INT "$BF_UNIT" || :
		for _ in 1 2 3 4 5 6 7 8 9 10; do
			systemctl is-active --quiet "$BF_UNIT" || break
			sleep 1
		done
	fi
	bf_end_processes
}

bf_tell_members() {
	bf_say "members of the group '$BF_GROUP' may use it: usermod -aG $BF_GROUP USER, who then logs in again"
}
