#!/bin/bash
# What the corpus guest does before its RAM is kept: the work of a small build server. Runs as the guest's first
# process, inside the Debian tree. It ends in CORPUS-READY and then keeps its processes and files alive.
#
# Everything here runs under an emulated CPU, 20 to 50 times slower than a real one: sizes are chosen for that.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C HOME=/root TMPDIR=/tmp
exec </dev/null >/dev/ttyS0 2>&1
mount -t tmpfs -o size=60% tmpfs /tmp
mount -t tmpfs tmpfs /run

phase() { echo "CORPUS-PHASE $1 at $(cut -d' ' -f1 /proc/uptime) s"; }
fail() {
  echo "CORPUS-FAILED $1"
  sleep 1
  echo o >/proc/sysrq-trigger
  sleep 60
}

read_tree() {
  find / -xdev -type f -print0 | xargs -0 -n 500 cat >/dev/null
}

# Long-lived processes with large heaps of small objects.
start_services() {
  python3 /corpus/guest-service.py &
  perl /corpus/guest-service.pl &
}

compile() {
  local index
  mkdir -p /root/build && cd /root/build || return 1
  for index in 1 2 3; do
    sed "s/TABLE_SEED/$index/" /corpus/guest-program.c >"program-$index.c"
  done
  printf 'all: program-1 program-2 program-3\n%%: %%.c\n\tgcc -O2 -g -o $@ $< -lm\n' >Makefile
  make -s -j2 all && ./program-1 && ./program-2
}

sort_text() {
  {
    find /usr/share/man -name '*.gz' -exec zcat {} +
    find /usr/include /usr/src /usr/share/perl /usr/lib/python3* -type f \( -name '*.h' -o -name '*.p[lmy]' \) \
      -exec cat {} +
  } >/root/text
  sort -S 100M --parallel=2 -o /root/text.sorted /root/text
}

archive() {
  tar -C /usr -cf /tmp/include.tar include
  tar -C /usr/share -cf - man locale | gzip -1 >/root/share.tar.gz
  gzip -1 <"$(readlink -f /usr/bin/git)" >/root/git.gz
}

phase boot
echo "CORPUS-KERNEL $(uname -r)"
start_services
compile || fail compile
phase compiled
sort_text || fail sort
phase sorted
archive || fail archive
phase archived
head -c 68M /dev/urandom >/tmp/random || fail random
read_tree
phase tree
cp -a /usr/lib/python3* /usr/share/perl /root/ || fail copy
sync
grep -E '^(MemTotal|MemFree|Cached|AnonPages|Slab|Buffers)' /proc/meminfo
[ "$(jobs -r | wc -l)" = 2 ] || fail services
phase end
echo CORPUS-READY
while :; do sleep 3600; done
