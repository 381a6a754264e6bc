#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# rpm/build.sh SDIST MACHINES [LIBRARIES]: RPMs for these machines (x86_64, aarch64) beside the sdist, with the libraries in
# LIBRARIES or of `make release`. RPM_RELEASE gives them another release. Their bytes depend on these, on
# SOURCE_DATE_EPOCH and on the version of rpmbuild only.
set -eu
umask 022

fail() {
	echo "bitfusion: cannot build RPMs: $1" >&2
	echo "hint: $2" >&2
	exit 1
}

command -v rpmbuild >/dev/null || fail "rpmbuild is missing" "apt-get install rpm, or dnf install rpm-build"
[ $# -gt 0 ] || exit 0 # the tools are here
here=$(cd "$(dirname "$0")/.." && pwd)
sdist=$1
packages=$(cd "$(dirname "$sdist")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export SOURCE_DATE_EPOCH

for machine in $2; do
	libraries=${3:-$here/build/release/$machine/lib}
	[ -f "$libraries/server/libbfexecutor.so" ] || fail "'$libraries' is not built" "make release MACHINES=$machine"
	mkdir -p "$work/SOURCES"
	cp "$sdist" "$work/SOURCES/"
	sed "s/^\(Release: *\)[0-9]*/\1${RPM_RELEASE:-1}/" "$here/rpm/bitfusion.spec" >"$work/bitfusion.spec"
	# --nodeps: names of a distribution's packages mean nothing to rpm on another's.
	rpmbuild -bb --quiet --nodeps --target "$machine-linux" \
		--define "_topdir $work" --define "libraries $(cd "$libraries" && pwd)" \
		--define "packager The Bitfusion developers <bitfusion@localhost>" \
		--define "_buildhost localhost" --define "use_source_date_epoch_as_buildtime 1" \
		--define "clamp_mtime_to_source_date_epoch 1" "$work/bitfusion.spec" >"$work/log" 2>&1 || {
		tail -20 "$work/log" >&2
		fail "rpmbuild failed" "its last lines are above"
	}
	for package in "$work/RPMS/$machine"/*.rpm; do
		mv "$package" "$packages/"
		echo "  RPM   $packages/${package##*/}"
	done
	rm -rf "${work:?}"/*
done
