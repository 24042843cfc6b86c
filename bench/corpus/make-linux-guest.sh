#!/usr/bin/env bash
# A small Linux guest made of Debian packages: a kernel and an initramfs with a shell on the serial line.
#
#   make-linux-guest.sh i386|amd64      writes bench/corpus/data/guest-ARCH/vmlinuz and initrd.gz
#
# i386 boots in v86, amd64 in QEMU. Does nothing when both files are there and newer than this script and the guest's. The
# host's package database is not touched. Exit codes: 0 the guest is there, 1 a step failed, 3 a tool or the network is missing.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
. "$here/private-apt.sh"
arch=${1:-}
case $arch in
  i386) kernel_package=linux-image-686 ;;
  amd64) kernel_package=linux-image-cloud-amd64 ;;
  *)
    echo "usage: make-linux-guest.sh i386|amd64" >&2
    exit 1
    ;;
esac
out=$here/data/guest-$arch
init=$here/guest-shell-init.sh

is_complete() {
  local file
  for file in "$out/vmlinuz" "$out/initrd.gz"; do
    [ -s "$file" ] && [ "$file" -nt "$init" ] && [ "$file" -nt "$here/make-linux-guest.sh" ] || return 1
  done
}

fetch() {
  local kernel deb
  use_private_apt "$work/apt" "$arch"
  update_private_apt "$work/apt.log"
  kernel=$(apt-cache depends "$kernel_package" 2>>"$work/apt.log" | sed -n 's/^ *Depends: *//p' | head -1)
  [ -n "$kernel" ] || missing "no Debian packages ($(tail -1 "$work/apt.log")): needs Debian's package sources and network"
  mkdir -p "$work/debs" "$work/root"
  (cd "$work/debs" && timeout 240 apt-get -qq download "$kernel" busybox-static >>"$work/apt.log" 2>&1) ||
    missing "cannot download packages: $(tail -1 "$work/apt.log")"
  for deb in "$work"/debs/*.deb; do dpkg-deb -x "$deb" "$work/root"; done
}

pack() {
  local tree=$work/initramfs
  mkdir -p "$tree"/{bin,dev,proc,sys,tmp}
  cp "$work/root/bin/busybox" "$tree/bin/"
  cp "$init" "$tree/init"
  (cd "$tree" && find . | LC_ALL=C sort | cpio -o -H newc --quiet -R 0:0 | gzip -9 -n) >"$work/initrd.gz"
  mkdir -p "$out"
  mv "$work/initrd.gz" "$out/initrd.gz"
  cp "$work"/root/boot/vmlinuz-* "$work/vmlinuz"
  mv "$work/vmlinuz" "$out/vmlinuz"
  touch "$out/vmlinuz" "$out/initrd.gz"
}

if is_complete; then
  echo "$out is there"
  exit
fi
check_tools cpio:cpio apt-get:apt dpkg-deb:dpkg gzip:gzip flock:util-linux
mkdir -p "$here/data"
exec 9>"$here/data/lock-$arch"
flock --timeout 600 9 || exit 1
if is_complete; then exit; fi
work=$(mktemp -d "$here/data/guest-$arch.XXXXXX")
trap 'rm -rf -- "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
fetch
pack
echo "$out made in $SECONDS s"
