#!/bin/sh
# Boots the systemd of a layer as the first process of its namespaces: boot.sh BELOW LAYER. /trial.sh in the layer is run
# once the system is up, its words go to /trial.log, and the machine ends. What is written stays in the layer.
set -eu
[ $$ -eq 1 ] || { echo "not in a process namespace of its own" >&2; exit 1; }
below=$1 layer=$2 root=$2/whole

rm -rf "$layer/work"
mkdir "$layer/work"
mount -t overlay overlay -o "lowerdir=$below,upperdir=$layer/upper,workdir=$layer/work,volatile" "$root"
for folder in run tmp dev; do mount -t tmpfs -o mode=755 tmpfs "$root/$folder"; done
chmod 1777 "$root/tmp"
mkdir "$root/dev/pts" "$root/dev/shm"
for node in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0; do
    numbers=${node#*:}
    mknod -m 666 "$root/dev/${node%%:*}" c "${numbers%:*}" "${numbers#*:}"
done
mount -t devpts devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
ip link set lo up

# Devices and kernel settings are the host's.
system=$root/etc/systemd/system
for unit in systemd-remount-fs.service systemd-modules-load.service systemd-sysctl.service systemd-random-seed.service \
    dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount \
    sys-fs-fuse-connections.mount proc-sys-fs-binfmt_misc.automount systemd-machine-id-commit.service; do
    ln -sf /dev/null "$system/$unit"
done
cat >"$system/trial.service" <<UNIT
[Service]
Type=oneshot
StandardOutput=append:/trial.log
StandardError=inherit
ExecStart=/bin/sh -e /trial.sh
ExecStopPost=/bin/systemctl --no-block --force poweroff
UNIT
mkdir -p "$system/multi-user.target.wants"
ln -sf ../trial.service "$system/multi-user.target.wants/trial.service"

cd "$root"
mkdir -p former
pivot_root . former
umount -l /former
exec env -i container=mpagent-tests PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /usr/lib/systemd/systemd --system --unit=multi-user.target --log-target=journal --show-status=0
