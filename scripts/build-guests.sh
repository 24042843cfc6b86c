#!/usr/bin/env bash
# Assembles guests/*.S, 32-bit code at 1 MiB, with the binutils that come with g++, into out/guests: NAME.elf for QEMU's
# -kernel and NAME.bin, the bytes alone, for machines of chkpt/kvm. Several may run beside each other.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p out/guests
work=$(mktemp -d out/guests/work.XXXXXX)
trap 'rm -rf "$work"' EXIT
for source in guests/*.S; do
  name=$(basename "$source" .S)
  as --32 "$source" -o "$work/object"
  ld -m elf_i386 -Ttext 0x100000 -e _start "$work/object" -o "$work/$name.elf"
  ld -m elf_i386 -Ttext 0x100000 -e _start --oformat binary "$work/object" -o "$work/$name.bin"
  mv -f "$work/$name.elf" "$work/$name.bin" out/guests/
done
