#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# tests/venv.sh FOLDER PYTHON REQUIREMENTS...: FOLDER/bin/python with those packages.
# Where Debian's python3-venv is missing, packages go to FOLDER/site and FOLDER/bin/python is a wrapper.
set -eu

folder=$1 python=$2
shift 2

fail() {
	echo "bitfusion: cannot set up $folder: $1" >&2
	echo "hint: apt-get install python3-venv python3-pip" >&2
	exit 1
}

# A folder without a working pip is what an attempt before `apt-get install python3-venv` left.
if ! "$folder/bin/python" -m pip --version >/dev/null 2>&1; then
	rm -rf "$folder"
	mkdir -p "$folder"
	if ! "$python" -m venv "$folder" >"$folder.log" 2>&1; then
		"$python" -m pip --version >/dev/null 2>&1 || fail "neither venv nor pip works in $python"
		rm -rf "$folder"
		mkdir -p "$folder/bin" "$folder/site"
		cat >"$folder/bin/python" <<-EOF
			#!/bin/sh
			here=\$(cd "\$(dirname "\$0")/.." && pwd)
			PATH="\$here/site/bin:\$PATH" PYTHONPATH="\$here/site\${PYTHONPATH:+:\$PYTHONPATH}" exec $python "\$@"
		EOF
		chmod +x "$folder/bin/python"
	fi
fi

# shellcheck disable=SC2046 # a list of words
set -- $(printf -- '-r %s ' "$@")
[ -d "$folder/site" ] && set -- --target "$folder/site" --upgrade "$@"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-warn-script-location "$@" \
	|| fail "pip could not install the packages"
