use std::collections::HashSet;
use std::sync::Arc;

use aes_gcm::aead::AeadInOut;
use aes_gcm::aes::Aes256;
use aes_gcm::aes::cipher::{BlockCipherEncrypt, KeyInit};
use candor_wire::ObjectId;
use proptest::prelude::*;

use super::{CopiedEntropy, keys, keys_of, noise};
use crate::entropy::{Entropy, SystemEntropy};
use crate::keys::{EpochKey, KeysError, RUNS_MAX, VaultKeys};
use crate::seal::*;

/// AES-256-GCM of RustCrypto: written by other people than the one we use.
pub(super) struct Twin(aes_gcm::Aes256Gcm);

impl Aead for Twin {
    fn new(key: &[u8; 32]) -> Self {
        Self(aes_gcm::Aes256Gcm::new(&(*key).into()))
    }

    fn seal(&self, nonce: &[u8; NONCE_BYTES], segment: &mut [u8]) -> [u8; TAG_BYTES] {
        let tag = self
            .0
            .encrypt_inout_detached(&(*nonce).into(), &[], segment.into())
            .unwrap();
        tag.into()
    }

    fn open(
        &self,
        nonce: &[u8; NONCE_BYTES],
        tag: &[u8; TAG_BYTES],
        buffer: &mut [u8],
        from: usize,
    ) -> Result<(), SealError> {
        buffer.copy_within(from.., 0);
        let length = buffer.len() - from;
        self.0
            .decrypt_inout_detached(
                &(*nonce).into(),
                &[],
                (&mut buffer[..length]).into(),
                &(*tag).into(),
            )
            .map_err(|_| SealError::Rejected)
    }
}

fn context_of(keys: &VaultKeys, object_type: ObjectType) -> Context {
    let (account, vault, epoch) = (keys.account(), keys.vault(), keys.current_epoch());
    Context {
        account,
        vault,
        epoch,
        object_type,
    }
}

fn seal_with<A: Aead>(keys: &VaultKeys, plaintext: &[u8], salt: u8) -> (ObjectId, Vec<u8>) {
    let mut buffer = SealBuffer::new(plaintext.len(), Vec::new());
    buffer.append(plaintext);
    let context = context_of(keys, ObjectType::Pack);
    buffer.seal_with_salt::<A>(&context, keys.epoch(context.epoch).unwrap(), &[salt; 32])
}

fn open(keys: &VaultKeys, object: &[u8]) -> Result<Vec<u8>, SealError> {
    let mut object = object.to_vec();
    let length = open_whole(keys, ObjectType::Pack, &mut object)?;
    object.truncate(length);
    Ok(object)
}

/// Four segments, the last one short.
fn sample() -> (Vec<u8>, Vec<u8>) {
    let plaintext = noise(1, 3 * SEGMENT_BYTES + 1000);
    let (_, object) = seal_with::<Aes256Gcm>(&keys(), &plaintext, 9);
    (plaintext, object)
}

fn segment(object: &[u8], number: usize) -> &[u8] {
    let start = HEADER_BYTES + number * SEALED_SEGMENT_BYTES;
    &object[start..(start + SEALED_SEGMENT_BYTES).min(object.len())]
}

#[test]
fn sizes_are_inverse_and_full_objects_are_exact() {
    for plaintext in (1..200)
        .chain(SEGMENT_BYTES - 3..SEGMENT_BYTES + 3)
        .chain([1 << 20, (1 << 20) + 1])
    {
        assert_eq!(plaintext_bytes(object_bytes(plaintext)), plaintext);
    }
    for empty in 0..=HEADER_BYTES + TAG_BYTES {
        assert_eq!(plaintext_bytes(empty), 0);
    }
    // A last segment without content cannot be.
    for tail in 1..=TAG_BYTES {
        assert_eq!(
            plaintext_bytes(HEADER_BYTES + SEALED_SEGMENT_BYTES + tail),
            0
        );
    }
    let full = 16 * 1024 * 1024;
    assert_eq!(object_bytes(plaintext_bytes(full)), full);
    assert_eq!(padded_object_bytes(plaintext_bytes(full)), Some(full));
    assert_eq!(padded_object_bytes(plaintext_bytes(full) + 1), None);
    assert_eq!(padded_object_bytes(1), Some(64 * 1024));
}

#[test]
fn objects_have_few_sizes() {
    let (least, most) = (64 * 1024, 16 * 1024 * 1024);
    for good in [least, 128 * 1024, most] {
        assert!(is_object_size(good), "{good}");
    }
    for bad in [
        0,
        1,
        32 * 1024,
        least - 1,
        96 * 1024,
        most - 1,
        2 * most,
        1 << 63,
    ] {
        assert!(!is_object_size(bad), "{bad}");
    }
}

#[test]
fn the_independent_twin_makes_the_same_bytes() {
    for length in [
        1,
        15,
        16,
        17,
        SEGMENT_BYTES,
        SEGMENT_BYTES + 1,
        2 * SEGMENT_BYTES,
    ] {
        let plaintext = noise(length as u64, length);
        let ours = seal_with::<Aes256Gcm>(&keys(), &plaintext, 3);
        assert_eq!(ours, seal_with::<Twin>(&keys(), &plaintext, 3));
        let mut object = ours.1;
        let opened = open_whole_with::<Twin>(&keys(), ObjectType::Pack, &mut object).unwrap();
        assert_eq!(object[..opened], plaintext);
    }
}

#[test]
fn a_reused_buffer_leaks_nothing_of_its_old_content() {
    let old = vec![0xEE; 3 * SEGMENT_BYTES];
    let mut buffer = SealBuffer::new(1000, old);
    buffer.append(b"new");
    let context = context_of(&keys(), ObjectType::Pack);
    let (_, object) =
        buffer.seal_with_salt::<Aes256Gcm>(&context, keys().epoch(1).unwrap(), &[1; 32]);
    let opened = open(&keys(), &object).unwrap();
    assert_eq!(opened.len(), 1000);
    assert!(opened.starts_with(b"new") && opened[3..].iter().all(|&byte| byte == 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_sealed_opens_whole_and_by_range(
        length in 1usize..(3 * SEGMENT_BYTES), salt: u8, from: usize, count: usize, pieces in 1usize..9,
    ) {
        let plaintext = noise(salt.into(), length);
        let mut buffer = SealBuffer::new(length, Vec::new());
        plaintext.chunks(length.div_ceil(pieces)).for_each(|piece| buffer.append(piece));
        let context = context_of(&keys(), ObjectType::Pack);
        let (name, object) =
            buffer.seal_with_salt::<Aes256Gcm>(&context, keys().epoch(1).unwrap(), &[salt; 32]);
        prop_assert_eq!(name, ObjectId::of(&object));
        prop_assert_eq!(&open(&keys(), &object).unwrap(), &plaintext);

        let start = (from % length) as u64;
        let range = start..start + 1 + (count as u64 % (length as u64 - start));
        let opener =
            Opener::<Aes256Gcm>::new(&keys(), ObjectType::Pack, &object, object.len() as u64).unwrap();
        let fetched = opener.ciphertext_range(&range).unwrap();
        let mut segments = object[fetched.start as usize..fetched.end as usize].to_vec();
        let found = opener.open_range(&range, &mut segments).unwrap();
        prop_assert_eq!(&segments[found], &plaintext[range.start as usize..range.end as usize]);
    }

    #[test]
    fn foreign_bytes_never_open(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(open(&keys(), &bytes).is_err());
    }
}

#[test]
fn a_range_is_whole_segments_within_the_object() {
    let (plaintext, object) = sample();
    let opener =
        Opener::<Aes256Gcm>::new(&keys(), ObjectType::Pack, &object, object.len() as u64).unwrap();
    let (end, segment) = (plaintext.len() as u64, SEGMENT_BYTES as u64);
    assert_eq!(opener.plaintext_bytes(), end);
    let border = |n: usize| (HEADER_BYTES + n * SEALED_SEGMENT_BYTES) as u64;
    let whole = border(0)..object.len() as u64;
    for (range, fetched) in [
        (0..end, whole.clone()),
        (0..1, border(0)..border(1)),
        (segment - 1..segment, border(0)..border(1)),
        (segment - 1..segment + 1, border(0)..border(2)),
        (segment..segment + 1, border(1)..border(2)),
        (end - 1..end, border(3)..whole.end),
    ] {
        assert_eq!(opener.ciphertext_range(&range), Some(fetched), "{range:?}");
    }
    #[expect(
        clippy::reversed_empty_ranges,
        reason = "what a careless caller asks for"
    )]
    for range in [0..0, 5..5, end..end, 6..5, 0..end + 1, end..end + 1] {
        assert_eq!(opener.ciphertext_range(&range), None, "{range:?}");
        let mut segments = object[HEADER_BYTES..].to_vec();
        assert_eq!(
            opener.open_range(&range, &mut segments),
            Err(SealError::Rejected),
            "{range:?}"
        );
        assert_eq!(segments, object[HEADER_BYTES..], "{range:?}");
    }
    // Not the bytes that were named: one fewer, one more, a segment more.
    for fetched in [border(1) - 1, border(1) + 1, border(2)] {
        let mut segments = object[HEADER_BYTES..fetched as usize].to_vec();
        assert_eq!(
            opener.open_range(&(0..1), &mut segments),
            Err(SealError::Rejected),
            "{fetched}"
        );
    }
}

/// docs/formats/vault.md: bytes 6 to 9 of an object, the highest first.
#[test]
fn an_object_names_the_epoch_that_it_is_sealed_under() {
    let (_, mut object) = sample();
    object[6..10].copy_from_slice(&[0x01, 0x02, 0x03, 0x04]);
    assert_eq!(epoch_of(&object), Some(0x0102_0304));
    assert_eq!(epoch_of(&object[..10]), Some(0x0102_0304));
    assert_eq!(epoch_of(&object[..9]), None, "it ends before");
    assert_eq!(epoch_of(&[]), None);
}

#[test]
fn a07_reordered_and_repeated_segments_are_rejected() {
    let (_, object) = sample();
    for (a, b) in [(0, 1), (1, 2), (0, 2)] {
        let mut swapped = object.clone();
        let range = |n: usize| {
            HEADER_BYTES + n * SEALED_SEGMENT_BYTES..HEADER_BYTES + (n + 1) * SEALED_SEGMENT_BYTES
        };
        swapped[range(a)].copy_from_slice(segment(&object, b));
        swapped[range(b)].copy_from_slice(segment(&object, a));
        assert_eq!(open(&keys(), &swapped), Err(SealError::Rejected));
        let mut repeated = object.clone();
        repeated[range(a)].copy_from_slice(segment(&object, b));
        assert_eq!(open(&keys(), &repeated), Err(SealError::Rejected));
    }
}

#[test]
fn a08_dropped_truncated_and_extended_objects_are_rejected() {
    let (_, object) = sample();
    let border = |n: usize| HEADER_BYTES + n * SEALED_SEGMENT_BYTES;
    let mut forgeries: Vec<Vec<u8>> = vec![
        object[..border(3)].to_vec(),
        object[..border(2)].to_vec(),
        object[..border(1)].to_vec(),
        object[..HEADER_BYTES].to_vec(),
        object[..object.len() - 1].to_vec(),
        object[..border(1) - TAG_BYTES].to_vec(),
        [&object[..border(1)], &object[border(2)..]].concat(),
        [&object[..], segment(&object, 3)].concat(),
        [&object[..], segment(&object, 0)].concat(),
        [&object[..], &[0]].concat(),
        Vec::new(),
    ];
    // An object of one more, empty, last segment.
    let whole = noise(5, SEGMENT_BYTES);
    let (_, exact) = seal_with::<Aes256Gcm>(&keys(), &whole, 1);
    forgeries.push([&exact[..], &[0; TAG_BYTES]].concat());
    for forgery in forgeries {
        assert_eq!(
            open(&keys(), &forgery),
            Err(SealError::Rejected),
            "{} bytes",
            forgery.len()
        );
    }
    // A range whose object claims to end earlier than it does, or later.
    for claimed in [border(3), object.len() + SEALED_SEGMENT_BYTES] {
        let opener =
            Opener::<Aes256Gcm>::new(&keys(), ObjectType::Pack, &object, claimed as u64).unwrap();
        let range = opener.plaintext_bytes() - 1..opener.plaintext_bytes();
        let fetched = opener.ciphertext_range(&range).unwrap();
        let end = (fetched.end as usize).min(object.len());
        let mut segments = object[(fetched.start as usize).min(end)..end].to_vec();
        assert_eq!(
            opener.open_range(&range, &mut segments),
            Err(SealError::Rejected)
        );
    }
}

#[test]
fn a09_flipped_bits_are_rejected_alike() {
    let (_, object) = sample();
    let last_tag = object.len() - TAG_BYTES;
    let first_tag = HEADER_BYTES + SEGMENT_BYTES;
    let offsets = (0..HEADER_BYTES + 8)
        .chain(first_tag - 2..first_tag + TAG_BYTES + 2)
        .chain((HEADER_BYTES..object.len()).step_by(7919))
        .chain(last_tag..object.len());
    for offset in offsets {
        for bit in [0, 3, 7] {
            let mut forged = object.clone();
            forged[offset] ^= 1 << bit;
            let expected = match offset {
                4 => SealError::Version {
                    format: forged[4],
                    suite: SUITE,
                },
                5 => SealError::Version {
                    format: FORMAT,
                    suite: forged[5],
                },
                _ => SealError::Rejected,
            };
            assert_eq!(
                open(&keys(), &forged),
                Err(expected),
                "offset {offset}, bit {bit}"
            );
        }
    }
}

#[test]
fn a13_objects_of_another_vault_account_epoch_or_type_are_rejected() {
    // The same epoch key everywhere: only the context differs.
    let ours = keys_of(1, 2, &[(1, 7), (2, 8)]);
    let (_, object) = seal_with::<Aes256Gcm>(&ours, b"content", 4);
    assert!(open(&ours, &object).is_ok());
    for other in [
        keys_of(3, 2, &[(1, 7), (2, 8)]),
        keys_of(1, 3, &[(1, 7), (2, 8)]),
    ] {
        assert_eq!(open(&other, &object), Err(SealError::Rejected));
    }
    assert_eq!(
        open(&keys_of(1, 2, &[(1, 7)]), &object),
        Err(SealError::Rejected),
        "unknown epoch"
    );
    let mut relabelled = object.clone();
    relabelled[9] = 1;
    let same_key = keys_of(1, 2, &[(1, 8), (2, 8)]);
    assert_eq!(
        open(&same_key, &relabelled),
        Err(SealError::Rejected),
        "epoch relabelled"
    );
    for wrong in [ObjectType::Index, ObjectType::Manifest] {
        assert_eq!(
            open_whole(&ours, wrong, &mut object.clone()),
            Err(SealError::Rejected)
        );
    }
}

#[test]
fn a23_lowered_and_unknown_versions_are_refused() {
    let (_, object) = sample();
    for (format, suite) in [(0, 1), (2, 1), (1, 0), (1, 2), (255, 255)] {
        let mut forged = object.clone();
        (forged[4], forged[5]) = (format, suite);
        assert_eq!(
            open(&keys(), &forged),
            Err(SealError::Version { format, suite })
        );
    }
}

/// Multiplication in GF(2^128) as GCM defines it.
fn multiply(x: u128, y: u128) -> u128 {
    let (mut product, mut shifted) = (0, y);
    for bit in (0..128).rev() {
        if x >> bit & 1 == 1 {
            product ^= shifted;
        }
        let carry = shifted & 1 == 1;
        shifted >>= 1;
        if carry {
            shifted ^= 0xE1 << 120;
        }
    }
    product
}

/// The inverse: x^(2^128 - 2).
fn inverse(x: u128) -> u128 {
    let (mut result, mut power) = (1u128 << 127, x);
    for _ in 1..128 {
        power = multiply(power, power);
        result = multiply(result, power);
    }
    result
}

fn block(key: &[u8; 32], input: [u8; 16]) -> u128 {
    let mut block = input.into();
    Aes256::new(&(*key).into()).encrypt_block(&mut block);
    u128::from_be_bytes(block.into())
}

/// Two ciphertext blocks and a tag that AES-GCM accepts under both keys.
fn collide(keys: [&[u8; 32]; 2], nonce: &[u8; NONCE_BYTES]) -> [u8; 48] {
    let mut counter = [0; 16];
    counter[..12].copy_from_slice(nonce);
    counter[15] = 1;
    let [(h1, e1), (h2, e2)] = keys.map(|key| (block(key, [0; 16]), block(key, counter)));
    let square = |h| multiply(h, h);
    let (first, lengths) = (0x1234_5678u128, 256u128);
    let right = multiply(first, multiply(square(h1), h1) ^ multiply(square(h2), h2))
        ^ multiply(lengths, h1 ^ h2)
        ^ e1
        ^ e2;
    let second = multiply(right, inverse(square(h1) ^ square(h2)));
    let tag = multiply(first, multiply(square(h1), h1))
        ^ multiply(second, square(h1))
        ^ multiply(lengths, h1)
        ^ e1;
    let mut out = [0; 48];
    out[..16].copy_from_slice(&first.to_be_bytes());
    out[16..32].copy_from_slice(&second.to_be_bytes());
    out[32..].copy_from_slice(&tag.to_be_bytes());
    out
}

#[test]
fn a26_a_ciphertext_for_two_keys_meets_the_commitment() {
    let (ours, theirs) = (keys_of(1, 2, &[(1, 7)]), keys_of(1, 2, &[(1, 8)]));
    let salt = [5; 32];
    let context = context_of(&ours, ObjectType::Pack);
    let derive = |keys: &VaultKeys| context.derive(keys.epoch(1).unwrap(), &salt, FORMAT, SUITE);
    let (a, b) = (derive(&ours), derive(&theirs));
    let collision = collide([&a.key, &b.key], &nonce(0, true));
    // The cipher alone accepts it under both keys.
    let tag: [u8; 16] = collision[32..].try_into().unwrap();
    for key in [&a.key, &b.key] {
        let mut segment = collision[..32].to_vec();
        Aes256Gcm::new(key)
            .open(&nonce(0, true), &tag, &mut segment, 0)
            .unwrap();
    }
    let mut object = [0; HEADER_BYTES + 48];
    object[..4].copy_from_slice(&MAGIC);
    (object[4], object[5], object[9]) = (FORMAT, SUITE, 1);
    object[10..42].copy_from_slice(&salt);
    object[HEADER_BYTES..].copy_from_slice(&collision);
    object[42..HEADER_BYTES].copy_from_slice(&a.commitment);
    assert!(open(&ours, &object).is_ok());
    assert_eq!(open(&theirs, &object), Err(SealError::Rejected));
    object[42..HEADER_BYTES].copy_from_slice(&b.commitment);
    assert_eq!(open(&ours, &object), Err(SealError::Rejected));
}

/// How many sealings the scan for repeated keys draws; CI's number, unless CANDOR_SEALINGS says more.
const SEALINGS: usize = 100_000;

fn seal_byte(sealer: &Sealer, byte: u8) -> Vec<u8> {
    let mut buffer = SealBuffer::new(1, Vec::new());
    buffer.append(&[byte]);
    sealer
        .seal(ObjectType::Pack, buffer, blake3::hash(&[byte]).as_bytes())
        .unwrap()
        .1
}

/// Salts and commitments, by their first 16 bytes: a chance collision among 10^7 is below 10^-24.
fn marks(object: &[u8]) -> [u128; 2] {
    let at = |start: usize| u128::from_be_bytes(object[start..start + 16].try_into().unwrap());
    [at(10), at(42)]
}

fn assert_no_repeats(mut marks: Vec<[u128; 2]>) {
    for which in 0..2 {
        marks.sort_unstable_by_key(|mark| mark[which]);
        assert!(
            marks
                .windows(2)
                .all(|pair| pair[0][which] != pair[1][which]),
            "a key repeated"
        );
    }
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "a long run of this test asks for more sealings"
)]
fn a27_no_key_repeats_over_many_sealings() {
    let wanted = std::env::var("CANDOR_SEALINGS")
        .ok()
        .and_then(|text| text.parse().ok());
    let count: usize = wanted.unwrap_or(SEALINGS);
    let sealer = Sealer::new(Arc::new(keys()), Arc::new(SystemEntropy)).unwrap();
    assert_no_repeats((0..count).map(|_| marks(&seal_byte(&sealer, 0))).collect());
}

#[test]
fn a27_no_key_repeats_when_a_running_machine_is_copied() {
    let copy = |machine| {
        let entropy: Arc<dyn Entropy> = Arc::new(CopiedEntropy::on_machine(machine));
        Sealer::new(Arc::new(keys()), entropy).unwrap()
    };
    // Same random bytes, other clock or process: the same content gets other keys.
    let (one, two) = (copy(1), copy(2));
    let objects = (0..SEALINGS / 10).flat_map(|_| [seal_byte(&one, 0), seal_byte(&two, 0)]);
    assert_no_repeats(objects.map(|object| marks(&object)).collect());
    // Even the clock is copied: other content gets other keys; the same content is the same object.
    let (one, two) = (copy(1), copy(1));
    let (same, again) = (seal_byte(&one, 0), seal_byte(&two, 0));
    assert_eq!(same, again);
    let (a, b) = (seal_byte(&one, 1), seal_byte(&two, 2));
    assert_no_repeats(vec![marks(&same), marks(&a), marks(&b)]);
}

#[test]
fn nonces_differ_for_every_segment_and_for_the_last() {
    let all: HashSet<_> = (0..300)
        .flat_map(|n| [nonce(n, false), nonce(n, true)])
        .collect();
    assert_eq!(all.len(), 600);
    assert_eq!(nonce(0x0102, true), [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 1]);
}

#[test]
fn keys_need_the_first_epoch_once() {
    let make = |epochs: &[u32]| {
        let epochs = epochs
            .iter()
            .map(|&epoch| (epoch, EpochKey::from_bytes(&[1; 32])));
        VaultKeys::new(keys().account(), keys().vault(), epochs).map(|keys| keys.current_epoch())
    };
    assert_eq!(make(&[2, 1, 3]), Ok(3));
    assert_eq!(make(&[2]), Err(KeysError::FirstEpochMissing));
    assert_eq!(make(&[1, 1]), Err(KeysError::Repeated { epoch: 1 }));
}

#[test]
fn bodies_are_padded_and_their_padding_is_checked() {
    let sealer = Sealer::new(Arc::new(keys()), Arc::new(SystemEntropy)).unwrap();
    let (name, object) = sealer
        .seal_body(ObjectType::Index, b"a body")
        .unwrap()
        .unwrap();
    assert_eq!((object.len(), name), (64 * 1024, ObjectId::of(&object)));
    let mut opened = object.clone();
    let body = open_body(&keys(), ObjectType::Index, &mut opened).unwrap();
    assert_eq!(&opened[body], b"a body");
    let longest = sealer.seal_body(ObjectType::Index, &vec![0; BODY_MAX_BYTES]);
    let (_, longest) = longest.unwrap().unwrap();
    assert_eq!(longest.len(), candor_wire::limits::OBJECT_MAX_BYTES);
    let too_long = vec![0; BODY_MAX_BYTES + 1];
    assert!(
        sealer
            .seal_body(ObjectType::Index, &too_long)
            .unwrap()
            .is_none()
    );
    // A member that seals something else than zeros after the body, or a length past the end.
    for (length, tail) in [(1u32, 1u8), (u32::MAX, 0)] {
        let mut buffer = SealBuffer::new(plaintext_bytes(64 * 1024), Vec::new());
        buffer.append(&length.to_be_bytes());
        buffer.append(&[0, tail]);
        let (_, mut object) = sealer.seal(ObjectType::Index, buffer, &[0; 32]).unwrap();
        assert_eq!(
            open_body(&keys(), ObjectType::Index, &mut object),
            Err(SealError::Rejected)
        );
    }
}

#[test]
fn a_body_may_fill_its_object_and_has_an_object_s_size() {
    let sealer = Sealer::new(Arc::new(keys()), Arc::new(SystemEntropy)).unwrap();
    let full = noise(6, plaintext_bytes(64 * 1024) - 4);
    let (_, mut object) = sealer.seal_body(ObjectType::Index, &full).unwrap().unwrap();
    assert_eq!(object.len(), 64 * 1024);
    let body = open_body(&keys(), ObjectType::Index, &mut object).unwrap();
    assert_eq!(object[body], full);

    // A member that seals a sound body at a size that tells how long it is.
    for bytes in [6, 96 * 1024] {
        let mut buffer = SealBuffer::new(bytes, Vec::new());
        buffer.append(&2u32.to_be_bytes());
        buffer.append(&[7, 7]);
        let (_, object) = sealer.seal(ObjectType::Index, buffer, &[0; 32]).unwrap();
        assert!(open_whole(&keys(), ObjectType::Index, &mut object.clone()).is_ok());
        assert_eq!(
            open_body(&keys(), ObjectType::Index, &mut object.clone()),
            Err(SealError::Rejected)
        );
    }
}

#[test]
fn a_length_word_ends_where_the_object_does() {
    let sealer = Sealer::new(Arc::new(keys()), Arc::new(SystemEntropy)).unwrap();
    let room = plaintext_bytes(64 * 1024);
    let opened = |length: usize| {
        let mut buffer = SealBuffer::new(room, Vec::new());
        buffer.append(&u32::try_from(length).unwrap().to_be_bytes());
        let (_, mut object) = sealer.seal(ObjectType::Index, buffer, &[0; 32]).unwrap();
        open_body(&keys(), ObjectType::Index, &mut object)
    };
    assert_eq!(opened(0), Ok(4..4));
    assert_eq!(opened(room - 4), Ok(4..room));
    assert_eq!(opened(room - 3), Err(SealError::Rejected));
}

#[test]
fn a_vault_of_runs_has_as_many_keys_as_are_allowed() {
    let keys = |numbers: &mut dyn Iterator<Item = u32>| {
        let runs = numbers.map(|number| (number, EpochKey::from_bytes(&[7; 32])));
        let (account, vault) = (keys().account(), keys().vault());
        VaultKeys::of_runs(account, vault, runs, &[1; 32]).map(|keys| keys.current_epoch())
    };
    let most = u32::try_from(RUNS_MAX).unwrap();
    assert!(matches!(keys(&mut (1..=most)), Ok(newest) if newest == most));
    // A number that comes twice counts once.
    assert!(keys(&mut (1..=most).chain([1, most])).is_ok());
    let too_many = keys(&mut (0..=most));
    assert!(matches!(
        too_many,
        Err(KeysError::TooMany { limit: RUNS_MAX })
    ));
    assert!(matches!(
        keys(&mut (0..0)),
        Err(KeysError::FirstEpochMissing)
    ));
}
