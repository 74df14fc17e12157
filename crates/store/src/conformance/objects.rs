//! The rules of [`Objects`].

use std::sync::Arc;

use bytes::Bytes;
use candor_wire::ObjectId;
use candor_wire::limits::OBJECT_MAX_BYTES;

use super::{NO_FAULT, account, key, vault};
use crate::objects::{CHUNK_MAX_BYTES, ObjectKey, Objects, ObjectsError, PutOutcome};

/// Puts a store of objects through every rule. `fresh` makes an empty one.
///
/// # Panics
/// If a rule is broken.
pub async fn check_objects(fresh: impl Fn() -> Arc<dyn Objects>) {
    what_is_put_comes_back(&*fresh()).await;
    ranges_are_exact(&*fresh()).await;
    what_is_not_there_is_not_found(&*fresh()).await;
    a_name_keeps_its_first_bytes(&*fresh()).await;
    one_of_many_equal_puts_stores(fresh()).await;
    vaults_do_not_see_each_other(&*fresh()).await;
    deleting_can_be_repeated(&*fresh()).await;
    pages_are_ordered_and_whole(&*fresh()).await;
    a_vault_is_erased_whole_and_alone(&*fresh()).await;
}

/// Bytes without a pattern that a mistake in an offset would keep.
fn body_of(length: usize) -> Bytes {
    let mut bytes = vec![0; length];
    blake3::Hasher::new()
        .update(&length.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    Bytes::from(bytes)
}

fn object_key(body: &[u8]) -> ObjectKey {
    key(1, 1, ObjectId::of(body))
}

async fn put(objects: &dyn Objects, key: ObjectKey, body: &Bytes) -> PutOutcome {
    objects.put(key, vec![body.clone()]).await.expect(NO_FAULT)
}

async fn read(objects: &dyn Objects, key: ObjectKey) -> Bytes {
    let reader = objects
        .get(key, None)
        .await
        .expect("a stored object can be opened");
    reader
        .read_to_end()
        .await
        .expect("a stored object can be read")
}

async fn a_vault_is_erased_whole_and_alone(objects: &dyn Objects) {
    let nothing_there = objects.erase(account(1), None).await;
    nothing_there.expect("what is not there is erased");
    let keys: Vec<ObjectKey> = (0..3_u8)
        .flat_map(|number| {
            let name = ObjectId::from_bytes([number; 32]);
            [key(1, 1, name), key(1, 2, name), key(2, 1, name)]
        })
        .collect();
    let there = async |expected: [usize; 3]| {
        for ((owner, of), expected) in [(1, 1), (1, 2), (2, 1)].into_iter().zip(expected) {
            let listed = objects.list(account(owner), vault(of), None, 10).await;
            assert_eq!(listed.expect(NO_FAULT).len(), expected, "{owner} {of}");
        }
    };
    for key in &keys {
        put(objects, *key, &body_of(100)).await;
    }
    objects
        .erase(account(1), Some(vault(1)))
        .await
        .expect(NO_FAULT);
    there([0, 3, 3]).await;
    objects.erase(account(1), None).await.expect(NO_FAULT);
    there([0, 0, 3]).await;
    assert_eq!(
        put(objects, keys[0], &body_of(100)).await,
        PutOutcome::Stored,
        "the place can be used again"
    );
    there([1, 0, 3]).await;
}

async fn what_is_put_comes_back(objects: &dyn Objects) {
    for length in [0, 1, CHUNK_MAX_BYTES, CHUNK_MAX_BYTES + 1, OBJECT_MAX_BYTES] {
        let body = body_of(length);
        let key = object_key(&body);
        // In pieces of uneven length, as a network gives them, an empty one among them.
        let mut parts = vec![body.slice(..length / 3), Bytes::new()];
        parts.push(body.slice(length / 3..));
        assert_eq!(
            objects.put(key, parts).await.expect(NO_FAULT),
            PutOutcome::Stored
        );
        assert_eq!(
            objects.head(key).await.expect(NO_FAULT),
            Some(length as u64)
        );

        let mut reader = objects.get(key, None).await.expect(NO_FAULT);
        assert_eq!(
            reader.size(),
            length as u64,
            "the size is known before the bytes"
        );
        let mut whole = Vec::new();
        while let Some(chunk) = reader.next_chunk().await {
            let chunk = chunk.expect(NO_FAULT);
            assert!(!chunk.is_empty(), "no piece is empty");
            assert!(chunk.len() <= CHUNK_MAX_BYTES, "pieces are bounded");
            whole.extend_from_slice(&chunk);
        }
        assert!(whole == body, "{length} bytes come back as they were put");
        assert!(reader.next_chunk().await.is_none(), "the end stays the end");
        assert!(
            read(objects, key).await == body,
            "in one piece they are the same"
        );
    }
}

async fn ranges_are_exact(objects: &dyn Objects) {
    let body = body_of(3 * CHUNK_MAX_BYTES + 17);
    let size = body.len() as u64;
    let key = object_key(&body);
    put(objects, key, &body).await;
    let chunk = CHUNK_MAX_BYTES as u64;
    for range in [
        0..0,
        0..1,
        5..5,
        1..chunk + 2,
        chunk - 1..2 * chunk + 1,
        0..size,
        size - 1..size,
        size..size,
    ] {
        let reader = objects.get(key, Some(range.clone())).await.expect(NO_FAULT);
        assert_eq!(reader.size(), range.end - range.start);
        let found = reader.read_to_end().await.expect(NO_FAULT);
        assert!(
            found == body[range.start as usize..range.end as usize],
            "bytes {range:?}"
        );
    }
    #[expect(
        clippy::reversed_empty_ranges,
        reason = "a range that ends before it starts is one of the cases"
    )]
    for outside in [0..size + 1, size + 1..size + 1, size..u64::MAX, 7..3] {
        let refused = objects.get(key, Some(outside.clone())).await.err();
        assert!(
            matches!(refused, Some(ObjectsError::RangeOutside { object, start, end, size: told })
                if object == key.object && start == outside.start && end == outside.end && told == size),
            "{outside:?} is refused, not shortened: {refused:?}"
        );
    }
}

async fn what_is_not_there_is_not_found(objects: &dyn Objects) {
    let key = object_key(b"never put");
    for range in [None, Some(0..0), Some(0..10)] {
        let missing = objects.get(key, range).await.err();
        assert!(matches!(missing, Some(ObjectsError::NotFound(object)) if object == key.object));
    }
    assert_eq!(objects.head(key).await.expect(NO_FAULT), None);
    let listed = objects
        .list(key.account, key.vault, None, 10)
        .await
        .expect(NO_FAULT);
    assert_eq!(listed, []);
}

async fn a_name_keeps_its_first_bytes(objects: &dyn Objects) {
    let (first, second) = (body_of(1000), body_of(2000));
    let key = object_key(&first);
    assert_eq!(put(objects, key, &first).await, PutOutcome::Stored);
    // The port trusts its caller with the name; it must still never overwrite.
    assert_eq!(put(objects, key, &second).await, PutOutcome::AlreadyThere);
    assert!(read(objects, key).await == first);
    let unfinished = objects.put(object_key(&second), vec![second.clone()]);
    drop(unfinished);
    assert!(read(objects, key).await == first);
}

async fn one_of_many_equal_puts_stores(objects: Arc<dyn Objects>) {
    const WRITERS: usize = 8;
    let body = body_of(300_000);
    let key = object_key(&body);
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| {
            let (objects, body) = (Arc::clone(&objects), body.clone());
            tokio::spawn(async move { put(&*objects, key, &body).await })
        })
        .collect();
    let mut stored = 0;
    for writer in writers {
        stored += usize::from(writer.await.expect("no writer panics") == PutOutcome::Stored);
    }
    assert_eq!(stored, 1, "exactly one of {WRITERS} equal puts stores");
    assert!(read(&*objects, key).await == body);
}

async fn vaults_do_not_see_each_other(objects: &dyn Objects) {
    let body = body_of(100);
    let name = ObjectId::of(&body);
    put(objects, key(1, 1, name), &body).await;
    for other in [key(1, 2, name), key(2, 1, name)] {
        assert_eq!(objects.head(other).await.expect(NO_FAULT), None);
        assert_eq!(
            put(objects, other, &body).await,
            PutOutcome::Stored,
            "nothing is shared"
        );
        objects.delete(other).await.expect(NO_FAULT);
        assert!(
            read(objects, key(1, 1, name)).await == body,
            "nothing is deleted with another"
        );
    }
}

async fn deleting_can_be_repeated(objects: &dyn Objects) {
    let body = body_of(100);
    let key = object_key(&body);
    objects
        .delete(key)
        .await
        .expect("what was never there can be deleted");
    put(objects, key, &body).await;
    for _ in 0..2 {
        objects.delete(key).await.expect(NO_FAULT);
        assert_eq!(objects.head(key).await.expect(NO_FAULT), None);
    }
    assert_eq!(
        put(objects, key, &body).await,
        PutOutcome::Stored,
        "it can come again"
    );
    assert!(read(objects, key).await == body);
}

async fn pages_are_ordered_and_whole(objects: &dyn Objects) {
    const OBJECTS: usize = 60;
    let mut expected = Vec::new();
    for length in 1..=OBJECTS {
        let body = body_of(length);
        put(objects, object_key(&body), &body).await;
        expected.push((ObjectId::of(&body), length as u64));
    }
    expected.sort_unstable();
    for limit in [1, 7, OBJECTS, OBJECTS + 1] {
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let page = objects
                .list(account(1), vault(1), after, limit)
                .await
                .expect(NO_FAULT);
            assert!(page.len() <= limit);
            found.extend(page.iter().map(|listing| (listing.object, listing.size)));
            match page.last() {
                Some(last) if page.len() == limit => after = Some(last.object),
                _ => break,
            }
        }
        assert_eq!(found, expected, "pages of {limit} make the whole, in order");
    }
    let none = objects
        .list(account(1), vault(1), None, 0)
        .await
        .expect(NO_FAULT);
    assert_eq!(none, []);
}
