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
