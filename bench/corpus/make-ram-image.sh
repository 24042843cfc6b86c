#!/usr/bin/env bash
# Boots a real Linux guest made of Debian packages in QEMU (TCG), lets it work, and keeps its RAM.
#
#   make-ram-image.sh [OUT]      default OUT: bench/corpus/data/linux-2g.ram; OUT's .json is written beside it
#   make-ram-image.sh --guest    only the guest: vmlinuz, initrd.cpio and root.ext4 in bench/corpus/data/guest-corpus
#
# Does nothing when OUT is there and has the sha256 that its .json says. Downloaded packages are kept in
# bench/corpus/data/packages and used again. The host's package database is not touched.
# Exit codes: 0 the image is there, 1 the guest or a step failed, 3 a tool or the network is missing.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
. "$here/private-apt.sh"
data=$here/data
apt=$data/packages
PATH=$PATH:/usr/sbin:/sbin # mke2fs
guest=
if [ "${1:-}" = --guest ]; then guest=$data/guest-corpus; fi
out=$(realpath -m "${guest:-${1:-$data/linux-2g.ram}}")
facts=${out%.ram}.json
memory_mib=2048
packages=(
  linux-image-cloud-amd64 linux-headers-cloud-amd64 busybox-static
  base-files bash coreutils findutils grep sed gawk tar gzip make
  gcc g++ libc6-dev binutils python3 perl git openssl libssl-dev
  man-db manpages manpages-dev groff-base locales
)

image_is_complete() {
  [ -f "$out" ] && [ -f "$facts" ] && python3 "$here/measure-ram-image.py" --check "$out" "$facts"
}

# Where the guest's RAM lives while it runs: tmpfs when there is room, because QEMU writes it all the time.
choose_memory_folder() {
  local free_kib
  free_kib=$(df --output=avail -k /dev/shm 2>/dev/null | tail -1 || true)
  if [ "${free_kib:-0}" -gt $((memory_mib * 1024 + 65536)) ] && [ -w /dev/shm ]; then
    echo /dev/shm
  else
    echo "$work"
  fi
}

clean_up() {
  local code=$?
  trap - EXIT
  if [ -n "${runner:-}" ] && kill "$runner" 2>/dev/null; then
    wait "$runner" || true
  fi
  rm -rf -- "$work" "$ram" "$part"
  exit "$code"
}

# The closure of `packages`. Leaves the names and versions in $work/selected. With the packages of an earlier run it needs no
# network.
fetch_packages() {
  use_private_apt "$apt" amd64
  if select_packages && package_files >/dev/null; then return; fi
  update_private_apt "$work/apt.log"
  select_packages && timeout 240 apt-get -qq install --yes --download-only "${packages[@]}" \
    >>"$work/apt.log" 2>&1 && package_files >/dev/null ||
    missing "no Debian packages ($(tail -1 "$work/apt.log")): needs the package sources of Debian and network"
}

select_packages() {
  apt-get -qq install --simulate --yes "${packages[@]}" 2>"$work/apt.log" |
    sed -n 's/^Inst \([^ ]*\) (\([^ ]*\) .*/\1 \2/p' >"$work/selected"
  [ -s "$work/selected" ]
}

# Prints the file of every selected package; fails when one is not there.
package_files() {
  local name version file
  while read -r name version; do
    for file in "$apt/archives/${name}_${version//:/%3a}"_*.deb; do
      [ -f "$file" ] || return 1
      echo "$file"
    done
  done <"$work/selected"
}

unpack_tree() {
  local folder file
  for folder in bin sbin lib lib64; do
    mkdir -p "$work/tree/usr/$folder"
    ln -s "usr/$folder" "$work/tree/$folder"
  done
  mkdir -p "$work"/tree/{dev,proc,sys,run,tmp,root,corpus}
  # Packages hold no path outside their tree's folders and the merged /usr links must survive them.
  package_files | xargs -P 2 -I{} sh -c \
    'dpkg-deb --fsys-tarfile "$1" | tar -x --keep-directory-symlink --no-same-owner -C "$2"' - {} "$work/tree"
  cp "$here"/guest-work.sh "$here"/guest-program.c "$here"/guest-service.* "$work/tree/corpus/"
}

make_initramfs() {
  local initramfs=$work/initramfs modules name file
  mkdir -p "$initramfs"/{bin,dev,proc,sys,root,modules}
  cp "$work"/tree/boot/vmlinuz-* "$work/vmlinuz"
  cp "$work/tree/bin/busybox" "$initramfs/bin/"
  cp "$here/guest-init.sh" "$initramfs/init"
  chmod +x "$initramfs/init"
  modules=$(echo "$work"/tree/lib/modules/*)
  for name in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk; do
    for file in $(find "$modules/kernel" -name "$name.ko" -o -name "$name.ko.xz"); do
      case $file in
        *.xz) unxz <"$file" ;;
        *) cat "$file" ;;
      esac >"$initramfs/modules/$name.ko"
    done
  done
  # Not compressed: unpacking takes an emulated CPU longer than reading.
  (cd "$initramfs" && find . | cpio -o -H newc --quiet -R 0:0) >"$work/initrd.cpio"
}

make_disk() {
  local tree_mib
  tree_mib=$(du -sm "$work/tree" | cut -f1)
  truncate -s "$((tree_mib * 5 / 4 + 768))M" "$work/root.ext4"
  mke2fs -q -F -t ext4 -O ^has_journal -E lazy_itable_init=1,root_owner=0:0 -d "$work/tree" "$work/root.ext4"
  rm -rf "$work/tree"
}

is_complete() {
  if [ -n "$guest" ]; then [ -d "$guest" ]; else image_is_complete; fi
}

main() {
  if is_complete; then
    echo "$out is there and complete"
    return
  fi
  check_tools qemu-system-x86_64:qemu-system-x86 cpio:cpio flock:util-linux mke2fs:e2fsprogs python3:python3 \
    apt-get:apt dpkg-deb:dpkg unxz:xz-utils
  mkdir -p "$data" "$(dirname "$out")"
  # One run at a time in this folder; what a killed run left is then nobody's.
  exec 9>"$data/lock"
  if ! flock --timeout 600 9; then
    echo "make-ram-image.sh: another run holds $data/lock" >&2
    return 1
  fi
  if is_complete; then return; fi
  work=$data/work part=$out.part
  ram=$(choose_memory_folder)/chkpt-corpus-$(echo "$data" | sha256sum | cut -c1-12).ram
  trap clean_up EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  rm -rf -- "$work" "$ram" "$part"
  mkdir -p "$work"

  fetch_packages
  echo "$(wc -l <"$work/selected") packages"
  unpack_tree
  make_initramfs
  make_disk
  echo "disk made after $SECONDS s"
  if [ -n "$guest" ]; then
    mkdir "$work/guest"
    mv "$work/vmlinuz" "$work/initrd.cpio" "$work/root.ext4" "$work/guest/"
    mv "$work/guest" "$guest"
    return
  fi
  python3 "$here/run-guest.py" "$work" "$ram" "$part" "$memory_mib" &
  runner=$!
  wait "$runner"
  runner=
  rm -f "$ram"
  python3 "$here/measure-ram-image.py" "$part" "$facts" "image=$(basename "$out")" \
    "kernel=$(sed -n 's/^CORPUS-KERNEL \([^ \r]*\).*/\1/p' "$work/serial.log")" \
    "qemu=$(qemu-system-x86_64 --version | head -1)" "PACKAGES=$work/selected"
  chmod 644 "$part"
  mv "$part" "$out"
  echo "$out made in $SECONDS s"
}

main
