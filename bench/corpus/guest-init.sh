#!/bin/busybox sh
# First process of the corpus guest, in its initramfs: loads the disk driver, moves into the Debian tree on the disk
# and runs its work script. Every failure prints one line that starts with CORPUS-FAILED.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev

# The order is the order of dependence; a module that is built in is not here.
for name in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk; do
  [ ! -f "/modules/$name.ko" ] || insmod "/modules/$name.ko"
done

deadline=50
while [ ! -b /dev/vda ] && [ $deadline -gt 0 ]; do
  sleep 0.1
  deadline=$((deadline - 1))
done
if ! mount -t ext4 /dev/vda /root; then
  echo "CORPUS-FAILED no root disk"
  poweroff -f
fi
for name in proc sys dev; do mount --move "/$name" "/root/$name"; done
exec switch_root /root /bin/bash /corpus/guest-work.sh
