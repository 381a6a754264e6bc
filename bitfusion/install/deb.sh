#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# bitfusion/install/deb.sh MACHINES: Debian packages of these machines (x86_64, aarch64) in build/packages, with the libraries
# of `make release`; without MACHINES, whether the tools are here. DEB_VERSION gives them another version, DEB_FOLDER another place. Built in a copy, so that nothing is left in the tree.
set -eu
umask 022

fail() {
	echo "bitfusion: cannot build Debian packages: $1" >&2
	echo "hint: $2" >&2
	exit 1
}

cd "$(dirname "$0")/../.."
for tool in dpkg-buildpackage dh dh_python3; do
	command -v $tool >/dev/null || fail "$tool is missing" \
		"apt-get install --no-install-recommends dpkg-dev debhelper dh-python"
done

[ $# -gt 0 ] || exit 0

version=${DEB_VERSION:-$(dpkg-parsechangelog -S Version)}
SOURCE_DATE_EPOCH=$(dpkg-parsechangelog -S Timestamp)
export SOURCE_DATE_EPOCH
packages=$PWD/${DEB_FOLDER:-build/packages}
work=$PWD/build/deb

for machine in $1; do
	case $machine in
	x86_64) architecture=amd64 ;;
	aarch64) architecture=arm64 ;;
	*) fail "there is no Debian architecture for '$machine'" "MACHINES='x86_64 aarch64'" ;;
	esac
	libraries=$PWD/build/release/$machine/lib
	[ -f "$libraries/server/libbfexecutor.so" ] || fail "'$libraries' is not built" "make release MACHINES=$machine"
	rm -rf "$work"
	mkdir -p "$work/bitfusion" "$packages"
	if [ -e .git ]; then git ls-files -z --cached --others --exclude-standard; else find . -name build -prune -o -type f -printf '%P\0'; fi |
		tar --null --files-from=- --ignore-failed-read -cf - | tar -xf - -C "$work/bitfusion"
	sed -i "1s/(.*)/($version)/" "$work/bitfusion/debian/changelog"
	echo "  DEB   $architecture $version"
	# What a make above hands down is not for the makes below: they are of a package, not of this tree.
	(
		cd "$work/bitfusion"
		unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES CC CFLAGS LDFLAGS
		LIBRARIES=$libraries dpkg-buildpackage --build=binary --no-sign --no-check-builddeps \
			--host-arch=$architecture -Pnocheck
	) >"$packages/$architecture.log" 2>&1 || {
		tail -20 "$packages/$architecture.log" >&2
		fail "dpkg-buildpackage failed" "all of it is in $packages/$architecture.log"
	}
	for name in bitfusion-client bitfusion-server; do
		mv "$work/${name}_${version}_$architecture.deb" "$packages/"
		[ "$architecture" != "$(dpkg --print-architecture)" ] ||
			ln -sf "${name}_${version}_$architecture.deb" "$packages/$name.deb"
	done
	rm -rf "$work"
done
ls "$packages"/*.deb
