"""The backend `caam`: a trusted key of the kernel, sealed by CAAM, or by OP-TEE, a TPM or the DCP, seals for us."""

import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mpagent.errors import ConfigWrong
from mpagent.hal.caam import af_alg, dm_crypt, faults
from mpagent.hal.caam.closed import KernelLog, opens_open_blob
from mpagent.hal.caam.kernel_config import Option, list_missing_options, list_options
from mpagent.hal.caam.keyctl import KernelKeys, Keys
from mpagent.hal.caam.rings import Rings
from mpagent.hal.caam.seal import KernelKeySealer
from mpagent.hal.caam.source import WORDS, Source, find_source, list_parts
from mpagent.hal.caam.wrap import Wrapper

if TYPE_CHECKING:
    from mpagent.hal.tpm.chip import Chip

__all__ = [
    "KernelKeySealer",
    "KernelKeys",
    "KernelLog",
    "Option",
    "list_missing_options",
    "list_options",
    "open_kernel_key",
    "opens_open_blob",
]

_PROBE_KEY_BYTES: Final = 32


def open_kernel_key(
    accepted: Sequence[str],
    open_tpm: "Callable[[], Chip] | None" = None,
    *,
    root: Path = Path("/"),
    keys: Keys | None = None,
    wrapper: Wrapper | None = None,
) -> KernelKeySealer:
    """The sealer over this boot's trust source, which must be one of `accepted`: "caam", "tee", "tpm", "dcp".

    `open_tpm` gives the board's open TPM; source tpm needs it, at every seal and unseal, and the caller closes it.
    `root` is "/" on a device: /sys and /dev/kmsg are read below it. The calling thread gets a session keyring of its
    own, and so do threads and programs that it starts later. `keys` and `wrapper` stand in for the kernel's.

    Raises HardwareAbsent: no trusted keys here, or from another source. HardwareGone: their hardware is there and the
    kernel does not use it. ConfigWrong: an unknown word, or source tpm without `open_tpm`.
    """
    unknown = [word for word in accepted if word not in WORDS]
    if unknown or not accepted:
        raise ConfigWrong(f"sources of trusted keys are {', '.join(WORDS)}, not {', '.join(unknown) or 'none'}")
    keys = KernelKeys() if keys is None else keys
    try:
        keys.join_session()
    except OSError as refused:
        raise faults.explain_call(refused, "joining a session keyring") from None
    with KernelLog(root) as log:
        source = find_source(keys, root)
        test_key = log.saw_test_key() if source is Source.CAAM else None
    if source.word not in accepted:
        raise faults.refuse_source(source.word, accepted, list_parts(root))
    wrapper = _choose_wrapper(keys) if wrapper is None else wrapper
    if source is not Source.TPM:
        return KernelKeySealer(keys, wrapper, source, test_key=test_key)
    if open_tpm is None:
        raise ConfigWrong("the kernel's trusted keys come from the TPM, and tpm_tcti does not say where the TPM is")
    from mpagent.hal.caam.tpm_root import TpmRoot  # a board without a TPM pays nothing for it

    return KernelKeySealer(keys, wrapper, source, TpmRoot(open_tpm))


def _choose_wrapper(keys: Keys) -> Wrapper:  # not here: a real kernel's, in the QEMU bench
    """AF_ALG where the kernel takes a key's serial for ccm(aes), else dm-crypt."""
    try:
        with Rings(keys).hold("user", secrets.token_bytes(_PROBE_KEY_BYTES)) as key:
            offered = af_alg.is_offered(key.serial)
    except OSError as refused:
        raise faults.explain_wrap(refused, "af_alg") from None
    if offered:
        return af_alg.AfAlg()
    if dm_crypt.is_offered():
        return dm_crypt.DmCrypt()
    raise faults.refuse_no_wrapper()
