-- The ledger (docs/operate.md names every table). Plain SQL; where PostgreSQL runs it, BLOB is a domain over bytea.
-- Constraints here are the second lock of promises P2 to P4: the first is mpissuer.booking inside the transaction.

CREATE TABLE facts (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE products (
    name TEXT NOT NULL,
    version INTEGER NOT NULL CHECK (version > 0),
    body BLOB NOT NULL,
    digest BLOB NOT NULL CHECK (length(digest) = 32),
    added_at INTEGER NOT NULL,
    PRIMARY KEY (name, version)
);

CREATE TABLE jobs (
    name TEXT PRIMARY KEY,
    product TEXT NOT NULL,
    quota INTEGER NOT NULL CHECK (quota > 0),
    state TEXT NOT NULL CHECK (state IN ('draft', 'approved', 'open', 'exhausted', 'ended')),
    granted INTEGER NOT NULL DEFAULT 0 CHECK (granted >= 0),
    place INTEGER NOT NULL UNIQUE,
    author TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    CONSTRAINT over_quota CHECK (granted <= quota)
);
CREATE INDEX jobs_serving ON jobs (product, state, place);

CREATE TABLE units (
    ueid BLOB PRIMARY KEY CHECK (length(ueid) = 33),
    product TEXT NOT NULL,
    job TEXT NOT NULL REFERENCES jobs (name),
    state TEXT NOT NULL CHECK (state IN ('granted', 'provisioned', 'rework', 'scrapped')),
    sign_key BLOB NOT NULL CHECK (length(sign_key) = 65),
    attester TEXT NOT NULL,
    grade TEXT NOT NULL,
    granted_at INTEGER NOT NULL,
    receipt BLOB,
    closed BLOB
);

-- What a board's production image said: its final receipt, and the Closed that answered it.
CREATE TABLE finals (
    ueid BLOB PRIMARY KEY REFERENCES units (ueid),
    receipt BLOB NOT NULL,
    closed BLOB NOT NULL
);

-- One owner for ever, across jobs, products and realms.
CREATE TABLE hardware_ids (
    kind TEXT NOT NULL,
    id BLOB NOT NULL,
    ueid BLOB NOT NULL REFERENCES units (ueid),
    PRIMARY KEY (kind, id)
);
CREATE INDEX hardware_ids_ueid ON hardware_ids (ueid);

CREATE TABLE grants (
    digest BLOB PRIMARY KEY CHECK (length(digest) = 32),
    ueid BLOB NOT NULL REFERENCES units (ueid),
    product TEXT NOT NULL,
    job TEXT NOT NULL REFERENCES jobs (name),
    sign_key BLOB NOT NULL,
    checks BLOB NOT NULL,
    nonce BLOB NOT NULL UNIQUE,
    proof_digest BLOB NOT NULL UNIQUE,
    answer BLOB NOT NULL
);

CREATE TABLE slot_values (
    ueid BLOB NOT NULL REFERENCES units (ueid),
    slot TEXT NOT NULL,
    version INTEGER NOT NULL,
    wrapped BLOB NOT NULL,
    PRIMARY KEY (ueid, slot, version)
);

CREATE TABLE attester_keys (
    key_id BLOB PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('mp', 'tpm', 'optee')),
    public_key BLOB,
    origin TEXT NOT NULL CHECK (origin IN ('silicon', 'simulated')),
    mp_use TEXT NOT NULL CHECK (mp_use IN ('sign', 'secret')),
    part TEXT NOT NULL,
    use TEXT NOT NULL DEFAULT 'class' CHECK (use IN ('class', 'test')),
    added_at INTEGER NOT NULL
);

-- Keys whose import lists count (docs/wire.md 5.5), and every list that was taken: sequence numbers of a signer rise.
CREATE TABLE import_signers (
    thumbprint BLOB PRIMARY KEY CHECK (length(thumbprint) = 32),
    point BLOB NOT NULL CHECK (length(point) = 65),
    added_at INTEGER NOT NULL,
    dismissed_at INTEGER
);
CREATE TABLE import_lists (
    signer BLOB NOT NULL REFERENCES import_signers (thumbprint),
    sequence INTEGER NOT NULL CHECK (sequence > 0),
    digest BLOB NOT NULL CHECK (length(digest) = 32),
    records INTEGER NOT NULL CHECK (records > 0),
    taken_at INTEGER NOT NULL,
    PRIMARY KEY (signer, sequence)
);

-- Whether two boards of one product had one MP key, as `mpserver mp compare` found. An id of 32 bytes is the SHA-256 of
-- a key that signs, one of 16 bytes that of a key that is a secret.
CREATE TABLE mp_comparisons (
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    product TEXT NOT NULL,
    verdict TEXT NOT NULL CHECK (verdict IN ('class', 'device')),
    one BLOB NOT NULL CHECK (length(one) IN (16, 32)),
    other BLOB NOT NULL CHECK (length(other) IN (16, 32))
);

-- MP public keys that are secrets. The vault keeps each under `mpk-` and its id, which is no digest of it (docs/wire.md
-- 11.2); `filter` finds the key in an image without telling it.
CREATE TABLE hidden_mp_keys (
    mpk_id BLOB PRIMARY KEY CHECK (length(mpk_id) = 16),
    part TEXT NOT NULL,
    origin TEXT NOT NULL CHECK (origin IN ('silicon', 'simulated')),
    filter BLOB,
    added_at INTEGER NOT NULL,
    destroyed_at INTEGER
);
-- MP keys that were seen to sign: whoever has the signature and its message has the key, so none becomes a secret.
CREATE TABLE burnt_mp_keys (
    mpk_id BLOB PRIMARY KEY CHECK (length(mpk_id) = 16),
    how TEXT NOT NULL,
    seen_at INTEGER NOT NULL
);
-- Who may make bundles after the first loading (docs/wire.md 11.5). The vault keeps what their update keys are made of.
CREATE TABLE update_authorities (
    product TEXT NOT NULL,
    name TEXT NOT NULL CHECK (name IN ('oem', 'owner', 'service')),
    point BLOB NOT NULL CHECK (length(point) = 65),
    per_device INTEGER NOT NULL CHECK (per_device IN (0, 1)),
    vault_name TEXT NOT NULL,
    made_at INTEGER NOT NULL,
    PRIMARY KEY (product, name)
);
-- Bundles that left the house, each by the SHA-256 of its envelope. `uids` and `slots` are CBOR (store/bundles.py),
-- `rights` is the policy it carries (docs/wire.md 11.5); `quantity` is how many boards may be flashed with it. What is
-- kept of a value is its keyed check value alone.
CREATE TABLE bundles (
    digest BLOB PRIMARY KEY CHECK (length(digest) = 32),
    product TEXT NOT NULL,
    job TEXT NOT NULL REFERENCES jobs (name),
    authority TEXT NOT NULL CHECK (authority IN ('mp', 'oem', 'owner', 'service')),
    version INTEGER NOT NULL CHECK (version > 0),
    minimum INTEGER NOT NULL CHECK (minimum <= version),
    made_at INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    quantity INTEGER CHECK (quantity > 0),
    uids BLOB,
    policy_digest BLOB NOT NULL CHECK (length(policy_digest) = 32),
    vault_name TEXT NOT NULL,
    slots BLOB NOT NULL,
    rights BLOB
);
CREATE INDEX bundles_made ON bundles (product, authority, version);

-- What boards without a line said that they took (docs/wire.md 11.6), each once and in the order it came; rows are never
-- changed. `faults` names what is wrong with one by itself. All of their ids stand in a table of their own, whoever
-- shows them: two boards with one id are a conflict, and none is put out.
CREATE TABLE bundle_receipts (
    digest BLOB PRIMARY KEY CHECK (length(digest) = 32),
    bundle BLOB NOT NULL REFERENCES bundles (digest),
    ueid BLOB NOT NULL CHECK (length(ueid) = 33),
    sign_key BLOB NOT NULL CHECK (length(sign_key) = 65),
    signed BLOB NOT NULL,
    mac BLOB NOT NULL CHECK (length(mac) = 32),
    faults TEXT NOT NULL,
    taken_at INTEGER NOT NULL
);
CREATE INDEX bundle_receipts_bundle ON bundle_receipts (bundle, ueid);
CREATE INDEX bundle_receipts_ueid ON bundle_receipts (ueid);
CREATE TABLE bundle_receipt_ids (
    kind TEXT NOT NULL,
    id BLOB NOT NULL,
    ueid BLOB NOT NULL,
    sign_key BLOB NOT NULL,
    PRIMARY KEY (kind, id, ueid, sign_key)
);

CREATE TABLE entries (
    idx INTEGER PRIMARY KEY CHECK (idx >= 0),
    body BLOB NOT NULL
);

-- Perfect subtrees of the RFC 6962 tree. A subtree (level, index) lies at index * 2^(level + 1) + 2^level - 1,
-- its place in an in-order walk: one integer is the whole key, and appending stays local.
CREATE TABLE nodes (
    place INTEGER PRIMARY KEY CHECK (place >= 0),
    hash BLOB NOT NULL CHECK (length(hash) = 32)
);

CREATE TABLE heads (
    size INTEGER PRIMARY KEY CHECK (size > 0),
    root BLOB NOT NULL CHECK (length(root) = 32),
    signed BLOB NOT NULL
);

CREATE TABLE alarms (
    kind TEXT NOT NULL,
    ueid BLOB NOT NULL,
    newcomer BLOB NOT NULL,
    count INTEGER NOT NULL,
    first_at INTEGER NOT NULL,
    last_at INTEGER NOT NULL,
    detail TEXT NOT NULL,
    PRIMARY KEY (kind, ueid, newcomer)
);

CREATE TABLE audit (
    id INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    digest BLOB NOT NULL CHECK (length(digest) = 32)
);
