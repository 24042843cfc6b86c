#!/bin/busybox sh
# First process of the small guest. Its serial line is a test's hand inside: GUEST-UP, SEED and TICK come unasked, every
# line that is sent is run by the shell and answered with DONE and its exit code.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
mount -t tmpfs -o size=90% tmpfs /tmp
stty -F /dev/ttyS0 raw -echo
exec </dev/ttyS0 >/dev/ttyS0 2>&1
head -c 262144 /dev/urandom >/tmp/seed
echo "GUEST-UP $(uname -r)"
echo "SEED $(sha1sum </tmp/seed)"
(
  i=0
  while :; do
    i=$((i + 1))
    echo "TICK $i"
    sleep 1
  done
) &
while read -r line; do
  eval "$line"
  echo "DONE $?"
done
