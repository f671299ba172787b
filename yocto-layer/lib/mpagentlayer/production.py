"""What a production image may not carry. Runs in bitbake, so on any Python that bitbake takes (3.8 and later)."""

import hashlib
import os
import re

MP_SIGN = "8aaaf200-2450-11e4-abe2-0002a5d5c51c"
"""NXP's test TA: it signs with the MP key for whoever asks (imx-optee-test, ta/mp_sign)."""
NO_ACCESS_CTRL = "CFG_NXP_CAAM_MP_NO_ACCESS_CTRL"
"""Lets Linux open the MP pseudo-TA (optee_os core/pta/imx/manufacturing_protection.c)."""
NEVER_ON_A_DEVICE = re.compile(r"(mpsim|mpissuer|mpserver)(\.py)?|mpagent_(sim|server)-[^/]*\.dist-info")
"""Names of folders and files of our other two wheels."""
OPTEE_BINARY = re.compile(r"tee(-raw|-header_v2|-pager_v2|-pageable_v2)?\.(bin|elf)|uTee.*")


def find_faults(rootfs, optee_conf):
    """Each reason why this root must not leave the factory, in words.

    `optee_conf`: the file that OP-TEE's build wrote its options to, or None where the machine has no OP-TEE.
    """
    faults = judge_optee(optee_conf) if optee_conf is not None else []
    binaries = read_deployed(os.path.dirname(optee_conf)) if optee_conf is not None else set()
    for path in list_names(rootfs):
        name = os.path.basename(path)
        if name.lower().startswith(MP_SIGN):
            faults.append(f"{path}: NXP's test TA mp_sign signs with the MP key for anybody")
        elif NEVER_ON_A_DEVICE.fullmatch(name):
            faults.append(f"{path}: never on a device")
        elif OPTEE_BINARY.fullmatch(name) and digest(rootfs, path) not in binaries:
            faults.append(f"{path}: an OP-TEE that this build did not deploy, so its options are not known")
    return faults


def judge_optee(optee_conf):
    """Faults in how OP-TEE was built. A file that is not there tells nothing, which is a fault as well."""
    try:
        with open(optee_conf) as file:
            lines = [line.strip() for line in file]
    except OSError as error:
        return [f"{optee_conf} cannot be read ({error.strerror}): nobody knows how OP-TEE was built"]
    if not any(line.startswith("CFG_") for line in lines):
        return [f"{optee_conf} holds no option of OP-TEE"]
    values = [line.split("=", 1)[1].strip() for line in lines if line.startswith(NO_ACCESS_CTRL + "=")]
    # y turns it on; n and nothing are off. Anything else is refused as well.
    return [f"OP-TEE was built with {NO_ACCESS_CTRL}={value}" for value in values if value not in ("", "n")]


def list_names(rootfs):
    """Every file, link and folder below `rootfs`, relative to it, in order."""
    found = []
    for folder, folders, files in os.walk(rootfs):
        found += [os.path.relpath(os.path.join(folder, name), rootfs) for name in folders + files]
    return sorted(found)


def digest(rootfs, path):
    """SHA-256 of one file of the root; of a link, of what it leads to within the root; None if that is nothing."""
    try:
        with open(os.path.join(rootfs, path), "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError:
        return None


def read_deployed(folder):
    """SHA-256 of each OP-TEE binary in the deploy folder."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return {digest(folder, name) for name in names if OPTEE_BINARY.fullmatch(name)} - {None}
