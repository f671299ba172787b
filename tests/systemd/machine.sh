#!/bin/sh
# Boots the systemd that is installed here, with our units, in a machine of namespaces whose root is an overlay: what it
# writes lies in memory and is gone with it. Started by machine.py as the first process of its namespaces:
#   machine.sh UNITS SOURCE PYTHON PACKAGES BOARD OUT
# OUT/trial.sh is run once the system is up, its words go to OUT/trial.log, and the machine ends.
set -eu
[ $$ -eq 1 ] || { echo "not in a process namespace of its own" >&2; exit 1; }
units=$1 source=$2 python=$3 packages=$4 board=$5 out=$6

base=$out/machine
mkdir -p "$base"
mount -t tmpfs tmpfs "$base"
mkdir "$base/upper" "$base/work" "$base/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$base/upper,workdir=$base/work" "$base/root"
root=$base/root
for folder in run tmp dev; do mount -t tmpfs -o mode=755 tmpfs "$root/$folder"; done
chmod 1777 "$root/tmp"
mkdir "$root/dev/pts" "$root/dev/shm"
while read -r name major minor; do
    mknod -m 666 "$root/dev/$name" c "$major" "$minor"
done <<NODES
null 1 3
zero 1 5
full 1 7
random 1 8
urandom 1 9
tty 5 0
NODES
mount -t devpts devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"

mkdir -p "$root/trial/python" "$root/trial/packages" "$root/trial/source" "$root/trial/out"
mount --bind "$python" "$root/trial/python"
mount --bind "$packages" "$root/trial/packages"
mount --bind "$source" "$root/trial/source"
mount --bind "$out" "$root/trial/out"
cp -r "$board" "$root/trial/board"
cp "$units"/*.service "$units"/*.socket "$units"/*.target "$root/usr/lib/systemd/system/"
cp "$units/tmpfiles.d/mpagent.conf" "$root/usr/lib/tmpfiles.d/"
systemd-sysusers --root="$root" "$units/sysusers.d/mpagent.conf"
chown -R "$(sed -n 's/^mpagent:[^:]*:\([0-9]*\):\([0-9]*\):.*/\1:\2/p' "$root/etc/passwd")" "$root/trial/board"
cp "$out/mpagent" "$root/usr/bin/mpagent"
chmod 755 "$root/usr/bin/mpagent"

# Not of this machine: its journal is in memory, its devices and kernel settings are the host's.
rm -rf "$root/var/log/journal"
system=$root/etc/systemd/system
for unit in systemd-udevd.service systemd-udev-trigger.service systemd-udevd-control.socket systemd-udevd-kernel.socket \
    systemd-remount-fs.service systemd-modules-load.service systemd-sysctl.service systemd-random-seed.service \
    dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount \
    sys-fs-fuse-connections.mount proc-sys-fs-binfmt_misc.automount systemd-binfmt.service \
    systemd-machine-id-commit.service; do
    ln -sf /dev/null "$system/$unit"
done
mkdir -p "$system/mpagent.service.d" "$system/mpagent-provisioned.target.wants"
cp "$out/trial.conf" "$system/mpagent.service.d/"
cp "$out/dependent.service" "$system/"
ln -s ../dependent.service "$system/mpagent-provisioned.target.wants/"
cat >"$system/trial.target" <<UNIT
[Unit]
Requires=basic.target
Wants=mpagent.service trial.service
UNIT
cat >"$system/trial.service" <<UNIT
[Service]
Type=oneshot
StandardOutput=append:/trial/out/trial.log
StandardError=inherit
ExecStart=/bin/sh /trial/out/trial.sh
ExecStopPost=/bin/systemctl --no-block --force poweroff
UNIT

cd "$root"
mkdir -p former
pivot_root . former
umount -l /former
exec env -i container=mpagent-tests PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=trial.target --log-target=journal --show-status=0
