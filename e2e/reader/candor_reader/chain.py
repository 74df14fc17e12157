"""Folding an account's chain (statements.md, "Rules") and judging heads ("Device revoked", "Head").

A chain is folded from its first record on. A record that breaks a rule refuses the chain as a whole: with a part of it
nobody could tell what the rest would have revoked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Callable, Iterable

from . import keys, statements as st
from .errors import Refused
from .keys import Recovery, SigningKey, XWing

MAX_CHAIN = 65_536
#: The last places of a chain take only what takes an erasure back or revokes a device.
KEPT_AT_THE_END = 1_089
#: Most scopes that have an epoch: the account's own, and 1,024 vaults.
MAX_SCOPES = 1_025

#: A vault, or None for the account itself.
Scope = bytes | None


@dataclass
class Device:
    """A device that the chain names, whatever became of it."""

    id: bytes
    role: int
    key: SigningKey
    sealed_name: bytes
    revoked_at: int | None = None
    name: str = ""


@dataclass
class EpochState:
    """What the chain says of one epoch, and its key once it was opened."""

    public: bytes
    devices: frozenset[bytes]
    #: None if its wrap for the recovery key does not open, and no later epoch brought it.
    key: bytes | None


@dataclass
class Revocation:
    """The end of a device."""

    sequence: int
    device: bytes
    #: The heads that it pins, by vault.
    pins: dict[bytes, st.Mark]
    #: For each vault, its newest epoch that was wrapped to the device.
    reached: dict[bytes, int]


@dataclass
class GivenConsent:
    """A consent, and whether anything later on the chain ended it. No reading depends on that."""

    device: bytes
    service: int
    vault: bytes | None
    ended: bool = False


@dataclass
class Chain:
    """The state of an account after all its records."""

    recovery: Recovery
    account: bytes
    #: Keys that check acknowledgements, by generation; None if they are not to be checked.
    acknowledged_by: dict[int, bytes] | None
    cell: bytes = b""
    length: int = 0
    tip: bytes = bytes(32)
    devices: dict[bytes, Device] = field(default_factory=dict)
    scopes: dict[Scope, list[EpochState]] = field(default_factory=dict)
    revocations: list[Revocation] = field(default_factory=list)
    re_anchors: list[tuple[int, st.ReAnchor]] = field(default_factory=list)
    consents: list[GivenConsent] = field(default_factory=list)
    #: Devices of the consents for a vault, but for those that were erased.
    consenters: dict[bytes, set[bytes]] = field(default_factory=dict)
    #: Erasures that stand: id of the statement, vault or None for the account.
    erasures: dict[bytes, Scope] = field(default_factory=dict)

    # -- folding -----------------------------------------------------------------------------

    def fold(self, records: Iterable[st.Record]) -> Chain:
        """Check all records in their order, and take them."""
        for record in records:
            try:
                self._record(record)
            except Refused as refused:
                raise Refused(f"statement {self.length} of the chain is refused: {refused}") from None
        if not self.length:
            raise Refused("the account has no chain")
        self._name_devices()
        return self

    def _record(self, record: st.Record) -> None:
        if record.sequence != self.length or self.length >= MAX_CHAIN:
            raise Refused("it stands at a wrong place")
        if not st.GENESIS <= record.kind <= st.DEVICE_REVOKED:
            raise Refused(f"kind {record.kind} is not known")
        late = self.length >= MAX_CHAIN - KEPT_AT_THE_END
        if late and record.statement and record.kind not in (st.ERASURE_CANCELLED, st.DEVICE_REVOKED):
            raise Refused("the end of a chain is kept for other statements")
        link = st.link(record.sequence, record.kind, self.tip, record.commitment)
        if record.statement is None:
            self._erased(record.kind)
        else:
            self._statement(record, record.statement)
        self._acknowledgement(record, link)
        self.tip = link
        self.length += 1

    def _erased(self, kind: int) -> None:
        """Rule 8."""
        if kind not in (st.CONSENT, st.WITHDRAWAL):
            raise Refused("its statement is missing, and may not be")
        if kind == st.WITHDRAWAL:
            self._end(lambda consent: True)

    def _end(self, which: Callable[[GivenConsent], bool]) -> None:
        for consent in self.consents:
            if which(consent):
                consent.ended = True

    def _statement(self, record: st.Record, statement: st.Statement) -> None:
        entry = statement.entry
        fits = (
            entry.account == self.account
            and entry.sequence == self.length
            and entry.previous == self.tip
            and entry.kind == record.kind
        )
        if not fits:
            raise Refused("what is signed is for another place")
        if statement.commitment() != record.commitment:
            raise Refused("it is not what its commitment says")
        signer = self._signer(entry, statement)
        fold = {
            st.GENESIS: self._genesis,
            st.DEVICE_ADDED: self._device_added,
            st.EPOCH: self._epoch,
            st.CONSENT: self._consent,
            st.WITHDRAWAL: self._withdrawal,
            st.RE_ANCHORED: self._re_anchored,
            st.ERASURE_ASKED: self._erasure_asked,
            st.ERASURE_CANCELLED: self._erasure_cancelled,
            st.DEVICE_REVOKED: self._device_revoked,
        }[entry.kind]
        fold(entry.body, signer, record.commitment)

    def _signer(self, entry: st.Entry, statement: st.Statement) -> Device | None:
        """Rule 3, without the role; None is the root."""
        if entry.signer is None:
            if not statement.signed_by(self.recovery.root):
                raise Refused("the root key did not sign it")
            return None
        device = self.devices.get(entry.signer)
        if device is None or device.revoked_at is not None:
            raise Refused("its signer is no device of the account")
        if not statement.signed_by(device.key):
            raise Refused("its signer's signatures are not valid")
        return device

    def _acknowledgement(self, record: st.Record, link: bytes) -> None:
        """Rule 7."""
        ack = record.acknowledgement
        if ack is None or self.acknowledged_by is None:
            return
        public = self.acknowledged_by.get(ack.serial)
        valid = (
            public is not None
            and ack.cell == self.cell
            and ack.account == self.account
            and ack.sequence == record.sequence
            and ack.link == link
            and ack.statement == record.commitment
            and ack.signed_by(public)
        )
        if not valid:
            raise Refused("the cell's acknowledgement of it is not valid")

    def _genesis(self, raw: bytes, signer: Device | None, _: bytes) -> None:
        """Rule 1."""
        body = st.Genesis.decode(raw)
        if self.length or signer is not None:
            raise Refused("a genesis is the first statement, signed by the root")
        if body.root != self.recovery.root or body.recovery != self.recovery.recovery.public:
            raise Refused("its keys are not those of this recovery phrase")
        self.cell = body.cell

    def _full(self, signer: Device | None, root_too: bool) -> None:
        """Rule 3: a full device, or for some statements also the root."""
        if not self.length:
            raise Refused("a chain begins with a genesis")
        if signer is None:
            if not root_too:
                raise Refused("the root may not sign it")
        elif signer.role != st.FULL:
            raise Refused("a write-only device may not sign it")

    def _device_added(self, raw: bytes, signer: Device | None, _: bytes) -> None:
        """Rule 4."""
        self._full(signer, root_too=True)
        body = st.DeviceAdded.decode(raw)
        if body.device in self.devices:
            raise Refused("the device was added before")
        if sum(device.revoked_at is None for device in self.devices.values()) >= st.MAX_DEVICES:
            raise Refused("an account has at most 64 devices that are not revoked")
        self.devices[body.device] = Device(body.device, body.role, body.key, body.sealed_name)

    def _epoch(self, raw: bytes, signer: Device | None, _: bytes) -> None:
        """Rule 5; and the key is opened with the recovery key."""
        body = st.Epoch.decode(raw)
        self._full(signer, root_too=body.epoch == 1)
        known = self.scopes.get(body.vault, [])
        if body.epoch != len(known) + 1:
            raise Refused("epochs are numbered without gaps")
        if not known and len(self.scopes) >= MAX_SCOPES:
            raise Refused("an account has at most 1,024 vaults")
        names = body.devices()
        for name in names:
            device = self.devices.get(name)
            if device is None or device.revoked_at is not None:
                raise Refused("an epoch is wrapped to something else than devices of the account")
        key = self._open(body, known)
        self.scopes.setdefault(body.vault, []).append(EpochState(body.public, frozenset(names), key))

    def _open(self, body: st.Epoch, known: list[EpochState]) -> bytes | None:
        """The epoch's key, if the recovery key opens it; keys that it brings of earlier epochs fill gaps.

        One that does not open, or does not fit its record, refuses no chain: a device that states such an epoch would
        lock everybody out otherwise.
        """
        wrap = body.wraps[0]
        where = keys.place(self.account, body.vault, body.epoch)
        try:
            key = keys.open_wrap(
                self.recovery.recovery, self.account, body.vault, body.epoch, None, wrap.enc, wrap.ciphertext
            )
            if keys.epoch_pair(key, where).public != body.public:
                raise Refused("an epoch's key does not fit its public key")
            earlier = keys.open_earlier(key, where, body.epoch, body.earlier)
        except Refused:
            return None
        for number, (state, named) in enumerate(zip(known, earlier), 1):
            place = keys.place(self.account, body.vault, number)
            if state.key is None and keys.epoch_pair(named, place).public == state.public:
                state.key = named
        return key

    def _standing(self, vault: bytes | None) -> bool:
        """Whether an erasure of a vault stands, its own or the account's."""
        return any(scope is None or scope == vault for scope in self.erasures.values())

    def _consent(self, raw: bytes, signer: Device | None, _: bytes) -> None:
        """Rules 6 and 10."""
        body = st.Consent.decode(raw)
        if signer is None or body.device != signer.id or body.subject != self.account:
            raise Refused("a consent is signed by the device and for the account that it names")
        if self._standing(body.vault):
            raise Refused("a consent under an erasure")
        if body.vault is not None:
            if body.vault not in self.scopes:
                raise Refused("a consent for a vault without an epoch")
            owner = self.write_only_owner(body.vault)
            if owner is not None and owner != signer.id:
                raise Refused("a consent for the vault of a write-only device")
            self.consenters.setdefault(body.vault, set()).add(signer.id)
        self.consents.append(GivenConsent(signer.id, body.service, body.vault))

    def _withdrawal(self, raw: bytes, signer: Device | None, _: bytes) -> None:
        body = st.Withdrawal.decode(raw)
        if signer is None:
            raise Refused("a withdrawal is signed by a device")
        self._end(
            lambda consent: consent.service == body.service
            and body.vault in (None, consent.vault)
            and (signer.role == st.FULL or consent.device == signer.id)
        )

    def _re_anchored(self, raw: bytes, signer: Device | None, _: bytes) -> None:
        self._full(signer, root_too=False)
        body = st.ReAnchor.decode(raw)
        if body.now != (self.length - 1, self.tip):
            raise Refused("a re-anchoring names another place than that before it")
        self.re_anchors.append((self.length, body))

    def _erasure_asked(self, raw: bytes, signer: Device | None, commitment: bytes) -> None:
        body = st.ErasureAsked.decode(raw)
        self._full(signer, root_too=body.vault is None)
        if body.vault is not None and body.vault not in self.scopes:
            raise Refused("an erasure of a vault without an epoch")
        if self._standing(body.vault):
            raise Refused("an erasure that was asked for already")
        self.erasures[commitment] = body.vault
        self._end(lambda consent: body.vault in (None, consent.vault))

    def _erasure_cancelled(self, raw: bytes, signer: Device | None, _: bytes) -> None:
        self._full(signer, root_too=True)
        asked = st.ErasureCancelled.decode(raw).asked
        if asked not in self.erasures:
            raise Refused("an erasure that does not stand is cancelled")
        del self.erasures[asked]

    def _device_revoked(self, raw: bytes, signer: Device | None, _: bytes) -> None:
        self._full(signer, root_too=True)
        body = st.DeviceRevoked.decode(raw)
        device = self.devices.get(body.device)
        if device is None or device.revoked_at is not None or device is signer:
            raise Refused("a revocation names another device of the account than its signer")
        if any(vault not in self.scopes for vault in body.pins):
            raise Refused("a revocation names a vault without an epoch")
        device.revoked_at = self.length
        reached = {}
        for scope, epochs in self.scopes.items():
            numbers = [number for number, state in enumerate(epochs, 1) if body.device in state.devices]
            if scope is not None and numbers:
                reached[scope] = numbers[-1]
        self.revocations.append(Revocation(self.length, body.device, body.pins, reached))
        self._end(lambda consent: consent.device == body.device)

    def _name_devices(self) -> None:
        first = self.scopes.get(None)
        for device in self.devices.values():
            if first and first[0].key:
                device.name = keys.device_name(first[0].key, self.account, device.id, device.sealed_name)

    # -- vaults ------------------------------------------------------------------------------

    def vaults(self) -> list[bytes]:
        """All vaults that have an epoch, ascending."""
        return sorted(scope for scope in self.scopes if scope is not None)

    def write_only_owner(self, vault: bytes) -> bytes | None:
        """The write-only device whose alone a vault is (rule 6)."""
        devices = self.consenters.get(vault, set())
        if len(devices) == 1:
            only = next(iter(devices))
            if self.devices[only].role == st.WRITE_ONLY:
                return only
        return None

    def epoch_pair(self, vault: bytes, epoch: int) -> XWing:
        """The pair of one of a vault's epochs."""
        states = self.scopes.get(vault, [])
        key = states[epoch - 1].key if 1 <= epoch <= len(states) else None
        if key is None:
            raise Refused("a run names an epoch that the vault does not have, or that does not open")
        return keys.epoch_pair(key, keys.place(self.account, vault, epoch))

    # -- heads -------------------------------------------------------------------------------

    def _newest_anchor(self, vault: bytes) -> tuple[int, st.Mark | None]:
        """Place of the newest re-anchoring that names a vault, or -1, and the head that it accepts."""
        for sequence, body in reversed(self.re_anchors):
            if vault in body.heads:
                return sequence, body.heads[vault]
        return -1, None

    def check_no_head(self, vault: bytes) -> bool:
        """Whether a vault without a head is one that nobody may write to, or that is erased.

        A head that is missing although a revocation pins one is an older state, like any other head below the pin.
        """
        if self._standing(vault):
            return True
        anchored, _ = self._newest_anchor(vault)
        if any(vault in r.pins for r in self.revocations if r.sequence > anchored):
            raise Refused("the cell shows no head, and a revocation names one")
        return vault not in self.consenters

    def check_head(self, head: st.Head, vault: bytes) -> None:
        """Signature, place and role of a head (statements.md, "Head")."""
        if head.account != self.account or head.vault != vault:
            raise Refused("a head is of another vault")
        device = self.devices.get(head.device)
        if device is None or not head.signed_by(device.key.ed25519):
            raise Refused("a head is not signed by a device of the account")
        if vault not in self.scopes:
            raise Refused("a head is of a vault that has no epoch")
        mover = head.device if device.role == st.WRITE_ONLY else None
        if bool(head.runs) != (device.role == st.WRITE_ONLY) or self.write_only_owner(vault) != mover:
            raise Refused("a head is not by a device that may move it")
        if not head.runs and head.epoch > len(self.scopes[vault]):
            raise Refused("a head names an epoch that its vault does not have")

    def check_not_revoked(self, head: st.Head) -> None:
        """What a reader refuses whatever the signature says (statements.md, "Device revoked", 1 to 3)."""
        anchored, accepted = self._newest_anchor(head.vault)
        mark = head.mark()
        sealed_under = head.runs[0].epoch if head.runs else head.epoch
        for revocation in self.revocations:
            before = revocation.sequence < anchored
            if before and accepted == mark:
                continue
            pin = revocation.pins.get(head.vault)
            if revocation.device == head.device and pin != mark:
                raise Refused("the newest head is of a device that was revoked, and is not the one that was accepted then")
            if before or pin == mark:
                continue
            if pin is not None and head.counter <= pin.counter:
                raise Refused("the cell shows an older state than a revocation names")
            if sealed_under <= revocation.reached.get(head.vault, 0):
                raise Refused("the newest head is sealed under a key that a revoked device has")
