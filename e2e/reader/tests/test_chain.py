"""Chains that are made up here: the rules of statements.md, and what a reader refuses of heads."""

from __future__ import annotations

import unittest
from typing import Any
from unittest import mock

from candor_reader import cbor, chain as chain_module, statements as st
from candor_reader.errors import Refused

from .made import (
    D1,
    D2,
    DEVICES,
    OTHER,
    ROOT,
    VAULT,
    WO,
    Builder,
    consent,
    device,
    epoch,
    genesis,
    head,
    revoked,
    signed_cbor,
    start,
    with_vault,
)


class Rules(unittest.TestCase):
    def refused(self, builder: Builder, words: str) -> None:
        with self.assertRaisesRegex(Refused, words):
            builder.fold()

    def test_what_is_right(self) -> None:
        chain = with_vault().fold()
        self.assertEqual((chain.length, chain.vaults(), sorted(chain.devices)), (7, [VAULT], [D1, D2]))

    def test_places_and_signatures(self) -> None:
        for wrong in ({1: OTHER}, {2: 4}, {3: bytes(32)}, {4: 3}):
            self.refused(start().add(2, device(D2), D1, entry=wrong), "another place")
        for wrong in ({1: OTHER}, {2: 2}, {3: OTHER}, {4: 9}, {5: bytes(32)}, {6: bytes(32)}):
            self.refused(start().add(2, device(D2), D1, ack=wrong), "acknowledgement")
        self.refused(start().add(2, device(D2), D1, key=ROOT), "signatures")
        self.refused(start().add(2, device(D2), None, key=DEVICES[D1]), "root key")
        self.refused(start().add(2, device(D1), D2), "no device")
        self.refused(start().add(1, genesis()), "first statement")
        self.refused(Builder().add(2, device(D1)), "begins with a genesis")
        self.refused(Builder().add(1, genesis() | {1: bytes(1216)}), "recovery phrase")
        self.refused(start().add(10, {}), "kind 10")

    def test_roles(self) -> None:
        def of_write_only(kind: int, body: dict[int, Any]) -> Builder:
            return start().add(2, device(WO, st.WRITE_ONLY), D1).add(3, epoch(1, D1), D1).add(kind, body, WO)

        of_write_only(4, consent(WO)).fold()
        of_write_only(5, {0: 1, 1: 1}).fold()
        for kind, body in ((2, device(D2)), (3, epoch(2, D1)), (7, {0: 1}), (9, revoked(D1))):
            self.refused(of_write_only(kind, body), "write-only device may not")
        self.refused(with_vault().add(3, epoch(2, D1)), "root may not")
        self.refused(start().add(7, {0: 1, 1: VAULT}), "root may not")
        start().add(7, {0: 1}).fold()
        self.refused(start().add(4, consent(D1)), "signed by the device")
        self.refused(start().add(2, device(D1), D1), "added before")

    def test_epochs(self) -> None:
        self.refused(start().add(3, epoch(2, D1), D1), "without gaps")
        self.refused(with_vault().add(3, epoch(1, D1), D1), "without gaps")
        self.refused(with_vault().add(3, epoch(2, D2, D1), D1), "ascend")
        self.refused(with_vault().add(3, epoch(2, D1, D1), D1), "ascend")
        self.refused(start().add(3, epoch(1, D2), D1), "something else than devices")
        no_recovery = epoch(1, D1)
        no_recovery[4] = no_recovery[4][1:]
        self.refused(start().add(3, no_recovery, D1), "recovery key")

    def test_the_shape_of_an_epoch(self) -> None:
        def with_wraps(*wraps: dict[int, bytes]) -> dict[int, Any]:
            return epoch(1, D1) | {4: list(wraps)}

        recovery = {1: bytes(1120), 2: bytes(48)}
        # Lengths are no matter of the chain: such a wrap only does not open.
        start().add(3, with_wraps({1: bytes(32), 2: b""}, {0: D1, 1: b"", 2: bytes(99)}), D1).fold()
        self.refused(start().add(3, with_wraps(), D1), "1 to 65")
        self.refused(start().add(3, with_wraps(recovery, recovery), D1), "recovery key twice")
        self.refused(start().add(3, with_wraps(*[recovery] * 66), D1), "1 to 65")
        self.refused(start().add(3, epoch(1, D1) | {5: b"keys"}, D1), "exactly the first")
        self.refused(with_vault().add(3, epoch(2, D1) | {5: b""}, D1), "exactly the first")

    def test_limits(self) -> None:
        """Devices that were revoked are not counted; scopes are, the account's own included."""
        builder = start()
        for number in range(63):
            builder.add(2, device(D1) | {0: bytes([number + 130]) * 16}, D1)
        one_more = device(D1) | {0: b"\xff" * 16}
        self.assertEqual(len(builder.fold().devices), 64)
        self.refused(builder.add(2, one_more, D1), "at most 64")
        builder.take_back().add(9, {0: 1, 1: bytes([130]) * 16, 2: []}, D1).add(2, one_more, D1)
        self.assertEqual(len(builder.fold().devices), 65)
        with mock.patch.object(chain_module, "MAX_SCOPES", 2):
            with_vault().fold()
            self.refused(with_vault().add(3, epoch(1, D1, vault=OTHER), D1), "1,024 vaults")
        with mock.patch.multiple(chain_module, MAX_CHAIN=9, KEPT_AT_THE_END=2):
            self.refused(with_vault().add(2, device(WO), D1), "kept for other statements")
            full = with_vault().add(9, revoked(D2), D1).add(5, None)
            full.fold()
            self.refused(full.add(5, None), "wrong place")

    def test_erasures_of_erasures(self) -> None:
        account, vault = {0: 1}, {0: 1, 1: VAULT}
        self.refused(with_vault().add(7, {0: 1, 1: OTHER}, D1), "without an epoch")
        self.refused(with_vault().add(7, account, D1).add(7, vault, D1), "already")
        both = with_vault().add(7, vault, D1).add(7, account, D1)
        self.assertEqual(set(both.fold().erasures.values()), {None, VAULT})
        # The account's is taken back; the vault's stands.
        self.refused(both.add(8, {0: 1, 1: both.commitment}, D1).add(4, consent(D1), D1), "under an erasure")

    def test_a_revocation_pins_vaults_that_there_are(self) -> None:
        self.refused(with_vault().add(9, revoked(D2, other=head(1, vault=OTHER)), D1), "without an epoch")

    def test_consents_withdrawals_and_erasures(self) -> None:
        self.refused(start().add(4, consent(D1), D1), "without an epoch")
        self.refused(with_vault().add(4, consent(D1), D2), "signed by the device")
        alone = start().add(2, device(WO, st.WRITE_ONLY), D1).add(3, epoch(1, D1), D1).add(4, consent(WO), WO)
        self.assertEqual(alone.fold().write_only_owner(VAULT), WO)
        self.refused(alone.add(4, consent(D1), D1), "write-only")
        self.assertTrue(all(c.ended for c in with_vault().add(5, None).fold().consents))
        self.assertEqual([c.ended for c in with_vault().add(5, {0: 1, 1: 2}, D1).fold().consents], [False, False])
        self.assertEqual([c.ended for c in with_vault().add(5, {0: 1, 1: 1}, D1).fold().consents], [True, True])
        self.refused(with_vault().add(3, None), "missing")
        asked = with_vault().add(7, {0: 1, 1: VAULT}, D1)
        cancel = {0: 1, 1: asked.commitment}
        self.refused(with_vault().add(7, {0: 1, 1: VAULT}, D1).add(7, {0: 1, 1: VAULT}, D1), "already")
        self.refused(with_vault().add(7, {0: 1, 1: VAULT}, D1).add(4, consent(D1), D1), "under an erasure")
        self.refused(with_vault().add(8, cancel, D1), "does not stand")
        self.assertEqual(asked.add(8, cancel, D1).add(4, consent(D1), D1).fold().erasures, {})


class Heads(unittest.TestCase):
    def check(self, builder: Builder, shown: st.Head) -> None:
        chain = builder.fold()
        chain.check_head(shown, VAULT)
        chain.check_not_revoked(shown)

    def refused(self, builder: Builder, shown: st.Head, words: str) -> None:
        with self.assertRaisesRegex(Refused, words):
            self.check(builder, shown)

    def test_forms(self) -> None:
        self.check(with_vault(), head(1))
        self.refused(with_vault(), head(1, vault=OTHER), "another vault")
        self.refused(with_vault(), head(1, sealed_under=2), "epoch")
        for fields in ({4: bytes(32)}, {9: [b"m" * 32]}, {9: [b"b" * 32, b"a" * 32]}, {3: 0}):
            with self.assertRaises(Refused):
                head(1, fields=fields)
        with self.assertRaises(Refused):
            st.Head.decode(cbor.encode(signed_cbor("candor head", {0: 1}, DEVICES[D1])))

    def test_a_revoked_device(self) -> None:
        """Rules 1 to 3 of "Device revoked"."""
        pinned = head(5, D2)

        def chain() -> Builder:
            return with_vault().add(9, revoked(D2, vault=pinned), D1)

        self.check(chain(), pinned)
        self.refused(chain(), head(5, D2, fields={8: 1}), "revoked")
        self.refused(chain(), head(6, D2), "revoked")
        self.refused(chain(), head(5, D1), "older")
        self.refused(chain(), head(4, D1), "older")
        self.refused(chain(), head(6, D1), "key that a revoked device has")
        later = chain().add(3, epoch(2, D1), D1)
        self.refused(later, head(6, D1), "key that a revoked device has")
        self.check(later, head(6, D1, sealed_under=2))
        self.refused(chain().add(2, device(D2), D1), head(1), "added before")
        self.refused(chain().add(3, epoch(2, D1, D2), D1), head(1), "something else")
        self.refused(chain().add(5, {0: 1, 1: 1}, D2), head(1), "no device")

    def test_who_may_move_a_head(self) -> None:
        """A write-only device only in the vault that is its alone, and there nobody else."""
        builder = start().add(2, device(WO, st.WRITE_ONLY), D1).add(3, epoch(1, D1), D1).add(4, consent(WO), WO)
        run = {10: [{0: 1, 1: 1, 2: bytes(1120), 3: bytes(80)}]}
        self.check(builder, head(1, WO, fields=run))
        self.refused(builder, head(1, WO), "may move it")
        self.refused(builder, head(1, D1), "may move it")
        self.refused(builder, head(1, D1, fields=run), "may move it")
        self.refused(with_vault().add(2, device(WO, st.WRITE_ONLY), D1), head(1, WO, fields=run), "may move it")
        # It consented after a full device did: the vault is not its alone, and its heads are refused.
        late = with_vault().add(2, device(WO, st.WRITE_ONLY), D1).add(4, consent(WO), WO)
        self.refused(late, head(1, WO, fields=run), "may move it")
        self.check(late, head(1, D1))

    def test_a_re_anchoring(self) -> None:
        pinned, accepted = head(5, D2), head(3, D2)
        chain = with_vault().add(9, revoked(D2, vault=pinned), D1).add(3, epoch(2, D1), D1)
        self.refused(chain, accepted, "revoked")
        before = {0: 5, 1: pinned.hash}
        heads = [{0: VAULT, 1: before, 2: {0: 3, 1: accepted.hash}}]
        body = {0: 1, 1: {0: 9, 1: bytes(32)}, 2: {0: 8, 1: chain.tip}, 3: heads}
        with self.assertRaisesRegex(Refused, "another place"):
            with_vault().add(6, body, D1).fold()
        chain.add(6, body, D1)
        self.check(chain, accepted)
        self.check(chain, head(4, D1, sealed_under=2))
        self.refused(chain, head(3, D2, fields={8: 7}), "revoked")

    def test_a_head_that_is_missing(self) -> None:
        self.assertFalse(with_vault().fold().check_no_head(VAULT))
        with self.assertRaises(Refused):
            with_vault().add(9, revoked(D2, vault=head(5, D2)), D1).fold().check_no_head(VAULT)


if __name__ == "__main__":
    unittest.main()
