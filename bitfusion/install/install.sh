#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# bitfusion/install/install.sh LIBRARIES DESTDIR PREFIX SYSCONFDIR: the installed layout, of `make install` and of all packages.
#
# LIBRARIES is the folder with client/, server/ and softgpu/. Our Python lies in a folder of its own, so that neither
# the version of the distribution's Python nor what a user has installed for it matters. The same input gives the same
# bytes, whatever the umask.
set -eu
umask 022

libraries=$1 destdir=$2 prefix=$3 sysconfdir=$4
home=$prefix/lib/bitfusion
sources=$(cd "$(dirname "$0")/../.." && pwd)
PYTHON=${PYTHON:-python3}
export PYTHONDONTWRITEBYTECODE=1

[ -f "$libraries/client/libcuda.so.1" ] || {
	echo "bitfusion: cannot install: there are no libraries in '$libraries'" >&2
	echo "hint: 'make' builds them in build/lib, 'make release' in build/release/$(uname -m)/lib" >&2
	exit 1
}

# put MODE FILE PATH
put() {
	install -D -m "$1" "$2" "$destdir$3"
}

for part in client server softgpu; do
	install -d "$destdir$home/$part"
	for library in "$libraries/$part"/*; do
		[ "${library##*/}" != libsoftgpu-engine.so ] || continue # for tests alone
		if [ -L "$library" ]; then
			cp -P "$library" "$destdir$home/$part/"
		else
			put 644 "$library" "$home/$part/${library##*/}"
		fi
	done
done

# Python, without bytecode: that depends on the Python of the machine, and packages make it there.
cd "$sources"
find bitfusion -name '*.py' -o -name '*.toml' | LC_ALL=C sort | while read -r file; do
	case $file in */__pycache__/* | bitfusion/install/*) continue ;; esac
	put 644 "$file" "$home/python/$file"
done
python=/usr/bin/python3
[ -n "$destdir" ] || [ -x "$python" ] || python=$(command -v "$PYTHON")
sed -e "s|@PYTHON@|$python|" -e "s|@HOME@|$home|" bitfusion/install/bitfusion.in >"$destdir$home/bitfusion.new"
put 755 "$destdir$home/bitfusion.new" "$prefix/bin/bitfusion"
rm "$destdir$home/bitfusion.new"

"$PYTHON" -m bitfusion.manual "$destdir$prefix/share"
put 644 bitfusion/install/limits.conf "$sysconfdir/security/limits.d/bitfusion.conf"
put 644 etc/bitfusion/client.toml "$prefix/share/doc/bitfusion/examples/client.toml"
put 644 etc/bitfusion/server.toml "$prefix/share/doc/bitfusion/examples/server.toml"
put 644 tests/install/add_vectors.py "$prefix/share/doc/bitfusion/examples/add_vectors.py"

# The server's: installed, it serves the network from its first start on, as it makes keys then.
install -d "$destdir$sysconfdir/bitfusion"
sed -f bitfusion/install/server.toml.sed etc/bitfusion/server.toml >"$destdir$sysconfdir/bitfusion/server.toml"
chmod 640 "$destdir$sysconfdir/bitfusion/server.toml"
unit=$prefix/lib/systemd/system/bitfusion-server.service
install -d "$destdir${unit%/*}"
sed "s|=\(-*\)/usr/bin/bitfusion |=\1$prefix/bin/bitfusion |" systemd/bitfusion-server.service >"$destdir$unit"
chmod 644 "$destdir$unit"
