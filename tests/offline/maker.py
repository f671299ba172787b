"""An OEM that makes bundles on top of mpwire alone: what a board can be given, right or wrong in one place."""

import hashlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from mpsim import fuses, silicon
from mpwire import bundle, bundlekeys, hkdf, labels, registry, stream
from mpwire.bundlekeys import Expand
from mpwire.cose import thumbprint, write_sign1
from mpwire.limits import BUNDLE_CHUNK_BYTES
from mpwire.messages.bundle import (
    BUNDLE_POLICY,
    UPDATE_KEY,
    Bundle,
    BundlePolicy,
    Component,
    Conditions,
    UpdateKey,
)
from mpwire.messages.issuer import ISSUER_CERTIFICATE, TRUST_UPDATE, IssuerCertificate, TrustUpdate
from mpwire.mpk import HiddenMpKey
from mpwire.p256 import SoftKey
from mpwire.secret import Secret

NOW = 1_800_000_000
JOB_SECRET = Secret(hashlib.sha256(b"job secret").digest()[:16])
CLASS_POINT = silicon.class_public_key("imx8mm", fuses.srk_hash_of("lab"))[-64:]
TEST_POINT = silicon.test_public_key()[-64:]


class Item(NamedTuple):
    """A component and its plain text."""

    name: str
    kind: str
    plain: bytes
    version: int = 1
    action: str = "fill"
    destination: str = "sealed"
    uid: bytes | None = None

    def write(self) -> Component:
        return Component(self.name, self.kind, self.destination, self.version, self.action, len(self.plain), self.uid)


class Under(NamedTuple):
    """Whose key a bundle is under, and who signs it."""

    authority: str
    expand: Expand
    headers: Callable[[], dict[int, object]]
    sign: Callable[[bytes], bytes]


@dataclass
class UpdateAuthority:
    """An update authority: its signing key and the key of its bundles."""

    name: str
    signer: SoftKey = field(default_factory=SoftKey.generate)
    key: Secret = field(default_factory=lambda: Secret(b""))

    def __post_init__(self) -> None:
        if not len(self.key):
            self.key = Secret(hashlib.sha256(self.name.encode()).digest())

    @property
    def value(self) -> bytes:
        """What its slot on a board holds."""
        return UPDATE_KEY.encode(UpdateKey(self.signer.public_key(), self.key))

    def item(self, **changes: Any) -> Item:
        return Item(f"update-{self.name}", "update-key", self.value)._replace(**changes)


class Maker:
    """Roots, a role key for bundles, and the class key of the lab's closed imx8mm."""

    def __init__(self) -> None:
        self.root, self.role = SoftKey.generate(), SoftKey.generate()
        self.chain: list[bytes] | None = None
        self.trust_update: bytes | None = None
        self.point = CLASS_POINT
        self.salts = 0

    @property
    def prk(self) -> Secret:
        return HiddenMpKey(self.point).extract()

    def expand(self, info: bytes) -> Secret:
        return hkdf.expand(self.prk, info)

    def certify(self, **changes: Any) -> bytes:
        body = IssuerCertificate(
            role="bundle",
            realm="lab",
            epoch=1,
            not_before=NOW,
            not_after=NOW + 7_776_000,
            key=self.role.public_key(),
            signer=thumbprint(self.root.public_key()),
        )
        headers = {registry.HEADER_ALG: registry.ALG_ES256, registry.HEADER_TYP: labels.TYP_ISSUER_CERTIFICATE}
        raw = ISSUER_CERTIFICATE.encode(body._replace(**changes))
        return write_sign1(headers, raw, labels.AAD_ISSUER_CERTIFICATE, self.root.sign)

    def update_trust(self, epoch: int = 2, signer: SoftKey | None = None) -> bytes:
        above = self.root if signer is None else signer
        headers = {
            registry.HEADER_ALG: registry.ALG_ES256,
            registry.HEADER_TYP: labels.TYP_TRUST_UPDATE,
            registry.HEADER_KID: thumbprint(above.public_key()),
        }
        return write_sign1(
            headers, TRUST_UPDATE.encode(TrustUpdate("lab", epoch, ())), labels.AAD_TRUST_UPDATE, above.sign
        )

    def first(self) -> Under:
        """A first loading."""

        def headers() -> dict[int, object]:
            chain = [self.certify()] if self.chain is None else self.chain
            update = {} if self.trust_update is None else {registry.HEADER_TRUST_UPDATE: self.trust_update}
            return {registry.HEADER_ISSUER_CHAIN: chain, **update}

        return Under("mp", self.expand, headers, self.role.sign)

    def under(self, authority: UpdateAuthority) -> Under:
        """An update."""
        return Under(
            authority.name,
            lambda info: hkdf.expand(authority.key, info),
            lambda: {registry.HEADER_KID: thumbprint(authority.signer.public_key())},
            authority.signer.sign,
        )

    def plan(self, items: Sequence[Item], **changes: Any) -> Bundle:
        self.salts += 1
        draft = Bundle(
            realm="lab",
            product="camera",
            job="lot-1",
            authority="mp",
            version=1,
            minimum=0,
            made_at=NOW,
            expires=NOW + 86_400 * 365,
            conditions=Conditions("closed", "imx8mm", fuses.srk_hash_of("lab")),
            salt=hashlib.sha256(self.salts.to_bytes(8, "big")).digest(),
            components=tuple(one.write() for one in items),
            policy_digest=bytes(32),
            digests=(),
            key_check=bytes(16),
        )
        return draft._replace(**changes)

    def make(
        self, items: Sequence[Item], under: Under | None = None, job_secret: Secret | None = None, **changes: Any
    ) -> bytes:
        """A whole file. `changes` are fields of the manifest, made before anything is encrypted."""
        whose = self.first() if under is None else under
        draft = self.plan(items, **{"authority": whose.authority, **changes})
        if job_secret is not None:
            draft = draft._replace(secret_id=bundlekeys.name_secret(job_secret))
        return self.seal(draft, [one.plain for one in items], whose, job_secret)

    def seal(
        self, draft: Bundle, plains: Sequence[bytes], whose: Under, job_secret: Secret | None, **forged: Any
    ) -> bytes:
        """`forged` are fields of the manifest, changed after everything was encrypted and before it is signed."""
        kek = bundlekeys.make_kek(draft, whose.expand, job_secret)
        parts = [
            b"".join(
                stream.seal_chunks(
                    bundlekeys.make_content_key(kek, at, one.uid), stream.read_plain(io.BytesIO(plain)), one.size
                )
            )
            for at, (one, plain) in enumerate(zip(draft.components, plains, strict=True))
        ]
        whole = draft._replace(
            digests=tuple(hashlib.sha256(one).digest() for one in parts), key_check=bundlekeys.make_key_check(kek)
        )
        head = bundle.write_envelope(whole._replace(**forged), dict(whose.headers()), whose.sign)
        return head + b"".join(parts)


def write_large(maker: Maker, path: Path, small: Sequence[Item], large: Component) -> None:
    """A bundle with one file of zeros that is too large to hold, behind small items."""
    draft = maker.plan(small)
    draft = draft._replace(components=(*draft.components, large))
    kek = bundlekeys.make_kek(draft, maker.expand, None)

    def seal() -> Iterator[Iterator[bytes]]:
        for at, one in enumerate(draft.components):
            key = bundlekeys.make_content_key(kek, at, one.uid)
            plain = iter([small[at].plain]) if at < len(small) else zeros(one.size)
            yield stream.seal_chunks(key, plain, one.size)

    digests = []
    for chunks in seal():
        running = hashlib.sha256()
        for chunk in chunks:
            running.update(chunk)
        digests.append(running.digest())
    whole = draft._replace(digests=tuple(digests), key_check=bundlekeys.make_key_check(kek))
    under = maker.first()
    with open(path, "wb") as file:
        file.write(bundle.write_envelope(whole, under.headers(), under.sign))
        for chunks in seal():
            file.writelines(chunks)


def zeros(size: int) -> Iterator[bytes]:
    """In chunks as `seal_chunks` takes them."""
    whole = bytes(BUNDLE_CHUNK_BYTES)
    while size > 0:
        yield whole[:size]
        size -= len(whole)


def policy(slots: Mapping[str, str], minimums: Mapping[str, int] | None = None, **changes: Any) -> Item:
    """A policy component."""
    plain = BUNDLE_POLICY.encode(BundlePolicy(dict(slots), dict(minimums or {})))
    return Item("policy", "policy", plain, action="replace")._replace(**changes)
