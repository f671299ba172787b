# In the guest: the jobs that the bench runs by name. Read by bench-job from the shared checkout; stdout and stderr go
# to the host, and /dev/console takes the markers that the host waits for.
export PYTHONPATH=/run/tree/agent:/run/tree/server:/run/tree/sim:/run/tree PYTHONPYCACHEPREFIX=/run/share/pycache
export TSS2_LOG=all+none HOME=/root TPM2TOOLS_TCTI=device:/dev/tpmrm0
inside=/run/tree/tests/qemu/bench/inside

# Nothing but the boot itself.
job_nothing() { uname -a; cat /proc/uptime; }

# The sealer's contract, and what only a real kernel shows.
job_sealer() {
    cd /run/tree && python3 -m pytest -c $inside/pytest.ini --rootdir $inside --confcutdir $inside -p no:cacheprovider \
        --durations 5 $inside
}

job_seal() { python3 $inside/once.py seal; }
job_load() { python3 $inside/once.py load; }
# The host cuts the power at the marker: the TPM was used and nobody told it of the end.
job_load_until_cut() { python3 $inside/once.py load && echo BENCH-LOADED >/dev/console && sleep 600; }
job_refusal() { python3 $inside/once.py refusal; }

# Control: a key as the kernel makes it, under an SRK of the usual template.
job_make_counted_key() {
    tpm2_createprimary -Q -C o -G ecc -c /tmp/srk && tpm2_evictcontrol -Q -C o -c /tmp/srk 0x81000001 &&
        keyctl session - sh -ec 'keyctl pipe "$(keyctl add trusted control "new 32 keyhandle=0x81000001" @s)"' \
            >/run/share/counted-key
}
job_load_counted_key_until_cut() {
    python3 $inside/once.py counter &&
        keyctl session - keyctl add trusted control "load $(cat /run/share/counted-key)" @s &&
        echo BENCH-LOADED >/dev/console && sleep 600
}
job_counter() { python3 $inside/once.py counter; }

# A board with our package: systemd starts it, not we. We look at what it comes to.
state=/var/lib/mpagent
say() { echo "$*" >/dev/console; }
wait_until() { # SECONDS COMMAND...
    ends=$(($(cut -d. -f1 /proc/uptime) + $1))
    shift
    while ! "$@" >/dev/null 2>&1; do
        [ "$(cut -d. -f1 /proc/uptime)" -lt $ends ] || return 1
        sleep 0.2
    done
}
reached() { systemctl is-active --quiet mpagent-provisioned.target; }
is_told() { test -e "/run/share/$1"; }
tell() { # how the board stands: hashes of secrets, and how often the TPM was failed
    echo "target $(systemctl is-active mpagent-provisioned.target)"
    echo "clock $(date +%s)"
    echo "package $(dpkg-query --show --showformat '${Version}' mpagent)"
    tpm2_getcap properties-variable | awk '/LOCKOUT_COUNTER/ { print "lockout", $2 }'
    echo "status $(mpagent status --json)"
}
tell_hash() { # SLOT FILE
    echo "secret $1 $(sha256sum <"$2" | cut -c1-64)"
}
tell_log() { journalctl --no-pager -o short-monotonic -b -u 'mpagent*' -u 'systemd-cryptsetup*' -u bench-app.service; }
await_pass() {
    wait_until 240 reached || { tell_log; return 1; }
    say "BENCH-PROVISIONED after $(cut -d' ' -f1 /proc/uptime) s"
}
# The secret that the board made for itself goes to the host's folder, so that a test can look for it on the disks.
job_provision() {
    await_pass && tell || return 1
    for slot in disk cloud; do
        mpagent secret get $slot >/run/share/secret-$slot && tell_hash $slot /run/share/secret-$slot || return 1
    done
    wait_until 60 systemctl is-active --quiet mpagent-finish.service
    tell_log
}
# Control: somebody leaves a plain secret on the state partition and on the root, and deletes it again.
job_plant() {
    await_pass || return 1
    for folder in $state /var/tmp; do
        mpagent secret get cloud >$folder/planted && sync && rm $folder/planted || return 1
    done
}
# The host looks at the console, says go, and has told how the board stands.
job_watch() {
    wait_until 300 is_told go || return 1
    tell
    echo "kept $(cd $state && find . -type f | sort | tr '\n' ' ')"
    tell_log
}
# A later boot: what depends on the board's secrets has them, before we do anything.
job_depend() {
    await_pass && wait_until 60 systemctl is-active --quiet bench-app.service || return 1
    tell
    echo "volume $(systemctl is-active systemd-cryptsetup@data.service) $(dmsetup table --target crypt data | cut -d' ' -f3,4)"
    blkid -o value -s TYPE /dev/mapper/data || mkfs.ext4 -q /dev/mapper/data || return 1
    mkdir -p /run/data && mount /dev/mapper/data /run/data || return 1
    cat /run/data/note 2>/dev/null
    echo "note on the volume: BENCH-PLAIN-TEXT" >/run/data/note
    umount /run/data
    tell_log
}
# The first boot of a board that installs its production image: the finisher ends this boot, not we.
job_finish() {
    await_pass && tell || return 1
    for slot in disk cloud; do
        mpagent secret get $slot >/run/share/secret-$slot && tell_hash $slot /run/share/secret-$slot || return 1
    done
    tell_log
    sync
    sleep 1200
}
# The production image: what depends on the board's secrets has them, and the volume that the provisioning image made.
job_production() {
    await_pass && wait_until 60 systemctl is-active --quiet bench-app.service || return 1
    tell
    echo "root $(sed -n 's,^DEVNAME=,/dev/,p' "/sys/dev/block/$(mountpoint --fs-devno /)/uevent")"
    echo "finish $(mpagent finish show --json)"
    for slot in disk cloud; do
        mpagent secret get $slot >/run/secret-$slot && tell_hash $slot /run/secret-$slot || return 1
    done
    echo "volume $(systemctl is-active systemd-cryptsetup@data.service) $(dmsetup table --target crypt data | cut -d' ' -f3,4)"
    tell_log
}
# On a disk, without systemd: write a number, tell it, and the next, until the power is cut. `loose`: without fsync.
job_write_synced() { mount_disk && python3 $inside/writer.py write; }
job_write_loose() { mount_disk && python3 $inside/writer.py write loose; }
job_read_written() { mount_disk && python3 $inside/writer.py read; }
mount_disk() { mkdir -p /run/disk && mount -t ext4 /dev/vdb /run/disk; }

job_install() { sh $inside/install.sh; }
