//! The vectors under `vectors/log/`. What is accepted is made anew here from fixed keys and must come
//! out the same; then every line of both files is judged as it says.

use std::fmt::Write as _;

use candor_log::checkpoint::SignedCheckpoint;
use candor_log::fork::Misbehaviour;
use candor_log::leaf::{Leaf, PADDING_BYTES};
use candor_log::note::{KeyKind, VerifierKey};
use candor_log::policy::{Policy, Standing};
use candor_log::proof_file::TlogProof;
use candor_log::tile::{Resource, decode_bundle, encode_bundle};
use candor_log::tree::{Hash, TreeHead};
use candor_log::witness::AddCheckpoint;
use candor_wire::StatementId;
use candor_wire::ids::{Label, to_hex};

use crate::sample::*;
use crate::stored::{bytes_of, stored_or_made};
use crate::{checkpoint, fork, policy, proof_file, witness};

const ACCEPTED_HEAD: &str = "What is accepted (docs/formats/log.md). Fields are separated by ` | `; BYTES are hexadecimal.
Leaf i of the trees here has class i mod 7. Class 1: version i, root 32 x 0x55. Else: label i as 8 bytes, big
endian, and 24 x 0x11; commitment 32 x 0xcc. The log's Ed25519 seed is 32 x 0x01, that of witness n 32 x (0x64 + n).
The checkpoint `real` and its keys are a public log's and public witnesses'.

leaf | NAME | BYTES | its hash in the tree
root | size | root over the first leaves, base64
file | path | tree size | BYTES of the tile or bundle in a tree of that size, or their SHA-256 if there are more than 512
key | text
checkpoint | NAME | BYTES
signed | NAME of a checkpoint | key of a log that signed it
cosigned | NAME of a checkpoint | key of a witness that cosigned it | its time, POSIX seconds
policy | NAME | BYTES
standing | NAME of a policy | NAME of a checkpoint | witnessed or unwitnessed | names of witnesses | the quorum's time
proof | NAME | BYTES | hash of the leaf, base64; verifies under policy `two-of-three`
request | NAME | BYTES | key of the log | size and root that the witness cosigned last; it cosigns
fork | NAME | BYTES | key of the log that it convicts";

const REJECTED_HEAD: &str = "What is refused (docs/formats/log.md). Fields are separated by ` | `; BYTES are hexadecimal.

path | text
key | error | text
leaf | error | BYTES
bundle | error | width | BYTES
checkpoint | NAME | error | BYTES
policy | NAME | error | BYTES
proof | NAME | error | BYTES
request | NAME | error | BYTES
fork | NAME | error | BYTES
and these can be read, but do not verify, with the keys of accepted.txt:
unsigned | NAME | error | BYTES of a checkpoint that the log did not sign
unproven | NAME | error | BYTES of a proof | hash of a leaf; does not verify under policy `two-of-three`
uncosigned | NAME | error | BYTES of a request | size and root that the witness cosigned last
unconvicting | NAME | error | BYTES of a fork proof";

struct Lines(String);

impl Lines {
    fn new(head: &str) -> Self {
        let head = head.lines().map(|line| format!("# {line}\n"));
        Self(head.collect::<String>().replace("# \n", "#\n"))
    }

    fn put(&mut self, fields: &[&str]) {
        writeln!(self.0, "{}", fields.join(" | ")).unwrap();
    }
}

/// Compares a file with what this build makes, and splits it into fields.
fn stored(file: &str, made: &Lines) -> Vec<Vec<String>> {
    stored_or_made(&format!("log/{file}"), &made.0)
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split(" | ").map(str::to_owned).collect())
        .collect()
}

fn head_text(head: &TreeHead) -> String {
    format!("{} {}", head.size, head.root.to_base64())
}

fn head_of(text: &str) -> TreeHead {
    let (size, root) = text.split_once(' ').unwrap();
    TreeHead {
        size: size.parse().unwrap(),
        root: Hash::from_base64(root).unwrap(),
    }
}

fn content(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    if bytes.len() <= 512 {
        return to_hex(bytes);
    }
    format!("SHA-256 {}", to_hex(&sha2::Sha256::digest(bytes)))
}

fn put_tree(lines: &mut Lines) {
    let statement = Leaf::statement(
        &Label::from_bytes([0xaa; 32]),
        &StatementId::from_bytes([0xbb; 32]),
    );
    let mut random = [0xd0; PADDING_BYTES];
    random[32..].fill(0xe0);
    let named = [
        ("statement", statement),
        ("state-map", Leaf::state_map(258, &[0x77; 32])),
        ("padding", Leaf::padding(&random)),
        ("build", leaf(6)),
    ];
    for (name, leaf) in named {
        let bytes = to_hex(&leaf.encode());
        lines.put(&["leaf", name, &bytes, &leaf.hash().to_base64()]);
    }
    for size in [0, 1, 2, 3, 13, 255, 256, 257, 600, 65_536, 70_000] {
        let root = Log::of(size).head().root.to_base64();
        lines.put(&["root", &size.to_string(), &root]);
    }
    for size in [3, 257, 70_000] {
        let log = Log::of(size);
        for (resource, bytes) in &log.files.files {
            let full = resource.width() == 256;
            if full && resource.path() != "tile/0/000" && resource.path() != "tile/entries/000" {
                continue;
            }
            let size = size.to_string();
            lines.put(&["file", &resource.path(), &size, &content(bytes)]);
        }
    }
}

/// Names, bytes, and the keys of logs and witnesses that signed.
fn checkpoints() -> Vec<(&'static str, SignedCheckpoint)> {
    let body = format!(
        "{ORIGIN}\n13\n{}\nextension\n",
        Log::of(13).head().root.to_base64()
    );
    let extended = sign_anything(&body, &log_secret(), &log_key());
    vec![
        ("empty-tree", sign(TreeHead::empty())),
        ("thirteen", sign(Log::of(13).head())),
        (
            "thirteen-cosigned",
            cosign(
                sign(Log::of(13).head()),
                &[(0, TIME_S), (2, TIME_S + 60), (7, TIME_S + 90)],
            ),
        ),
        ("extended", SignedCheckpoint::parse(&extended).unwrap()),
        ("real", SignedCheckpoint::parse(REAL.as_bytes()).unwrap()),
    ]
}

fn policies() -> Vec<(&'static str, String)> {
    let mut real = format!("log {REAL_LOG} https://log.example/\n\n");
    for (place, witness) in REAL_WITNESSES.iter().enumerate() {
        real += &format!("\twitness  w{place}\t{witness}\n");
    }
    real += "# three of four\ngroup g 3 w0 w1 w2 w3\nquorum g\n";
    let mut nested = format!("log {}\n", log_key());
    for number in 0..4 {
        nested += &format!("witness w{number} {}\n", witness_key(number));
    }
    nested += "group a any w0 w1\ngroup b any w2 w3\ngroup c all a b\nquorum c\n";
    let alone = format!("witness w0 {}\nquorum w0\n", witness_key(0));
    vec![
        ("two-of-three", policy_text()),
        ("groups-of-groups", nested),
        ("one-witness", alone),
        ("no-quorum", format!("log {}\nquorum none\n", log_key())),
        ("three-of-four", real),
    ]
}

fn put_standing(lines: &mut Lines) {
    for (policy_name, text) in policies() {
        let policy = Policy::parse(text.as_bytes()).unwrap();
        for (name, checkpoint) in checkpoints() {
            let Ok(standing) = policy.check(&checkpoint) else {
                continue;
            };
            let (what, names, time) = standing_fields(&standing);
            lines.put(&["standing", policy_name, name, what, &names, &time]);
        }
    }
}

fn standing_fields(standing: &Standing) -> (&'static str, String, String) {
    match standing {
        Standing::Witnessed { witnesses, time_s } => {
            ("witnessed", witnesses.join(" "), time_s.to_string())
        }
        Standing::Unwitnessed { have } => ("unwitnessed", have.join(" "), "0".to_owned()),
    }
}

fn accepted() -> Lines {
    let mut lines = Lines::new(ACCEPTED_HEAD);
    put_tree(&mut lines);
    let mut keys = vec![log_key(), VerifierKey::parse(REAL_LOG).unwrap()];
    keys.extend([0, 1, 2, 7].map(witness_key));
    keys.extend(REAL_WITNESSES.map(|text| VerifierKey::parse(text).unwrap()));
    keys.iter()
        .for_each(|key| lines.put(&["key", &key.to_string()]));
    for (name, checkpoint) in checkpoints() {
        lines.put(&["checkpoint", name, &to_hex(&checkpoint.bytes())]);
        for key in &keys {
            if checkpoint.is_signed_by(key).is_ok() {
                lines.put(&["signed", name, &key.to_string()]);
            }
            if let Some(time) = checkpoint.cosigned_by(key) {
                lines.put(&["cosigned", name, &key.to_string(), &time.to_string()]);
            }
        }
    }
    for (name, text) in policies() {
        lines.put(&["policy", name, &to_hex(text.as_bytes())]);
    }
    put_standing(&mut lines);
    let mut with_extra = proof_file::proof();
    with_extra.extra = Some(b"anything".to_vec());
    let hash = leaf(6).hash().to_base64();
    for (name, proof) in [("plain", proof_file::proof()), ("with-extra", with_extra)] {
        lines.put(&["proof", name, &to_hex(&proof.to_bytes()), &hash]);
    }
    let (request, last) = witness::honest();
    let first = AddCheckpoint {
        old_size: 0,
        proof: candor_log::tree::Consistency { path: Vec::new() },
        checkpoint: sign(last),
    };
    let log = log_key().to_string();
    for (name, request, last) in [
        ("first", first, TreeHead::empty()),
        ("grown", request, last),
    ] {
        let bytes = to_hex(&request.to_bytes());
        lines.put(&["request", name, &bytes, &log, &head_text(&last)]);
    }
    for (name, proof) in [
        ("same-size", fork::same_size()),
        ("other-size", fork::other_size()),
    ] {
        lines.put(&["fork", name, &to_hex(&proof.to_bytes()), &log]);
    }
    lines
}

#[test]
fn what_is_accepted_comes_out_the_same() {
    let lines = stored("accepted.txt", &accepted());
    let find = |kind: &str, name: &str| {
        let mut lines = lines.iter();
        let line = lines.find(|line| line[0] == kind && line[1] == name);
        bytes_of(&line.unwrap()[2])
    };
    let key = |text: &str| VerifierKey::parse(text).unwrap();
    let checkpoint = |name: &str| SignedCheckpoint::parse(&find("checkpoint", name)).unwrap();
    let policy = |name: &str| Policy::parse(&find("policy", name)).unwrap();
    for line in &lines {
        let fields: Vec<&str> = line.iter().map(String::as_str).collect();
        match fields[..] {
            ["leaf", _, hex, hash] => {
                let leaf = Leaf::decode(&bytes_of(hex)).unwrap();
                assert_eq!(to_hex(&leaf.encode()), hex);
                assert_eq!(leaf.hash().to_base64(), hash);
            }
            ["root", size, root] => {
                let hashes: Vec<Hash> =
                    (0..size.parse().unwrap()).map(|i| leaf(i).hash()).collect();
                assert_eq!(naive_root(&hashes).to_base64(), root);
            }
            ["file", path, _, bytes] => {
                let resource = Resource::from_path(path).unwrap();
                if let (Resource::Entries(id), false) = (resource, bytes.contains(' ')) {
                    let bytes = bytes_of(bytes);
                    let leaves = decode_bundle(&bytes, id.width).unwrap();
                    assert_eq!(encode_bundle(leaves.iter()), bytes);
                }
            }
            ["key", text] => assert_eq!(key(text).to_string(), text),
            ["checkpoint", name, hex] => assert_eq!(to_hex(&checkpoint(name).bytes()), hex),
            ["signed", name, log] => assert_eq!(checkpoint(name).is_signed_by(&key(log)), Ok(())),
            ["cosigned", name, witness, time] => {
                let found = checkpoint(name).cosigned_by(&key(witness));
                assert_eq!(found.unwrap().to_string(), time);
            }
            ["policy", name, _] => assert!(policy(name).witnesses().len() < 5),
            ["standing", name, of, what, names, time] => {
                let standing = policy(name).check(&checkpoint(of)).unwrap();
                let fields = standing_fields(&standing);
                assert_eq!((fields.0, &*fields.1, &*fields.2), (what, names, time));
            }
            ["proof", _, hex, hash] => {
                let proof = TlogProof::parse(&bytes_of(hex)).unwrap();
                assert_eq!(to_hex(&proof.to_bytes()), hex);
                let hash = Hash::from_base64(hash).unwrap();
                assert!(proof.verify(&hash, &policy("two-of-three")).is_ok());
            }
            ["request", _, hex, log, last] => {
                let request = AddCheckpoint::parse(&bytes_of(hex)).unwrap();
                assert_eq!(to_hex(&request.to_bytes()), hex);
                assert_eq!(request.check(Some(&key(log)), Some(head_of(last))), Ok(()));
            }
            ["fork", _, hex, log] => {
                let proof = Misbehaviour::parse(&bytes_of(hex)).unwrap();
                assert_eq!(to_hex(&proof.to_bytes()), hex);
                assert_eq!(proof.verify(&key(log)), Ok(()));
            }
            _ => panic!("not a vector: {line:?}"),
        }
    }
}

fn put_misspelt(lines: &mut Lines) {
    for path in [
        "tile/0/0",
        "tile/0/x000/001",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/00/000",
        "tile/8/0/000",
        "tile/6/000",
        "tile/data/000",
        "tile/0/x004/x294/x967/296",
    ] {
        lines.put(&["path", path]);
    }
    let good = log_key().to_string();
    let other_id = key("other.example", KeyKind::Log, 1).to_string();
    for text in [
        good.replace("/log+", "/log"),
        good.to_uppercase(),
        format!("{good}="),
        other_id.replace("other", "another"),
        "a b+00000000+AQ==".to_owned(),
        "w+00000000+BgAA".to_owned(),
    ] {
        let error = VerifierKey::parse(&text).unwrap_err();
        lines.put(&["key", &format!("{error:?}"), &text]);
    }
    let good = leaf(0).encode();
    let change = |place: usize, byte: u8| {
        let mut bytes = good.to_vec();
        bytes[place] = byte;
        bytes
    };
    for bytes in [
        good[..65].to_vec(),
        change(0, 0),
        change(0, 2),
        change(1, 7),
        change(1, 1),
    ] {
        let error = Leaf::decode(&bytes).unwrap_err();
        lines.put(&["leaf", &format!("{error:?}"), &to_hex(&bytes)]);
    }
    let bundle = encode_bundle(leaves(0..2).iter());
    let mut unknown = bundle.clone();
    unknown[71] = 9;
    for (bytes, width) in [
        (&bundle[..], 1),
        (&bundle[..], 3),
        (&bundle[..135], 2),
        (&unknown, 2),
    ] {
        let error = decode_bundle(bytes, width).unwrap_err();
        let fields = [format!("{error:?}"), width.to_string(), to_hex(bytes)];
        lines.put(&["bundle", &fields[0], &fields[1], &fields[2]]);
    }
    // What is refused for its length alone is left out.
    for (name, error, bytes) in checkpoint::misspelt() {
        lines.put(&["checkpoint", name, &format!("{error:?}"), &to_hex(&bytes)]);
    }
    for (name, line, fault, text) in policy::faulty() {
        let error = format!("{line} {fault:?}");
        lines.put(&["policy", name, &error, &to_hex(text.as_bytes())]);
    }
    for (name, error, bytes) in proof_file::misspelt() {
        lines.put(&["proof", name, &format!("{error:?}"), &to_hex(&bytes)]);
    }
    for (name, bytes) in witness::misspelt() {
        if bytes.len() < 9_000 {
            lines.put(&["request", name, "Malformed", &to_hex(&bytes)]);
        }
    }
    for (name, error, bytes) in fork::misspelt() {
        lines.put(&["fork", name, &format!("{error:?}"), &to_hex(&bytes)]);
    }
}

/// What can be read and does not verify. The errors are found by the code and kept by the file.
fn put_unverified(lines: &mut Lines) {
    let good = sign(Log::of(13).head());
    let text = String::from_utf8(good.bytes()).unwrap();
    let spoilt = format!("{text}{}", line(&log_key(), &[7; 64]));
    let cosigned = good.cosign(&witness_key(0), &secret(100), TIME_S).unwrap();
    let only_cosigned = format!("{}\n\n{cosigned}", text.split_once("\n\n").unwrap().0);
    for (name, note) in [
        ("other-size", text.replace("\n13\n", "\n14\n")),
        ("one-bad-line", spoilt),
        ("only-cosigned", only_cosigned),
        ("other-log", text.replace("c0c0", "c0c1")),
    ] {
        let read = SignedCheckpoint::parse(note.as_bytes()).unwrap();
        let error = format!("{:?}", read.is_signed_by(&log_key()).unwrap_err());
        lines.put(&["unsigned", name, &error, &to_hex(note.as_bytes())]);
    }
    let policy = proof_file::policy();
    let (mut moved, mut alone) = (proof_file::proof(), proof_file::proof());
    moved.inclusion.index = 7;
    alone.checkpoint = cosign(good, &[(0, TIME_S), (7, TIME_S)]);
    for (name, proof, place) in [
        ("other-leaf", proof_file::proof(), 7),
        ("other-place", moved, 6),
        ("one-known-witness", alone, 6),
    ] {
        let hash = leaf(place).hash();
        let error = format!("{:?}", proof.verify(&hash, &policy).unwrap_err());
        let bytes = to_hex(&proof.to_bytes());
        lines.put(&["unproven", name, &error, &bytes, &hash.to_base64()]);
    }
    let (request, last) = witness::honest();
    let (mut longer, mut same) = (request.clone(), request.clone());
    longer.proof.path.push(Hash([7; 32]));
    same.old_size = 13;
    let large = Log::of(13).head();
    let mut shrunk = request.clone();
    shrunk.checkpoint = sign(last);
    let other = TreeHead {
        root: Hash([7; 32]),
        ..last
    };
    let mut larger = shrunk.clone();
    larger.old_size = 6;
    for (name, request, last) in [
        ("longer-proof", &longer, last),
        ("proof-for-the-same-size", &same, large),
        ("shrunken", &shrunk, large),
        ("old-above-new", &larger, large),
        ("another-tree-before", &request, other),
    ] {
        let error = format!(
            "{:?}",
            request.check(Some(&log_key()), Some(last)).unwrap_err()
        );
        let bytes = to_hex(&request.to_bytes());
        lines.put(&["uncosigned", name, &error, &bytes, &head_text(&last)]);
    }
    let (mut twice, mut bare) = (fork::same_size(), fork::other_size());
    twice.newer = twice.older.clone();
    bare.prefix = None;
    let mut changed = fork::other_size();
    changed.prefix.as_mut().unwrap().root.0[0] ^= 1;
    for (name, proof) in [
        ("one-tree-twice", twice),
        ("no-prefix", bare),
        ("changed-root", changed),
    ] {
        let error = format!("{:?}", proof.verify(&log_key()).unwrap_err());
        lines.put(&["unconvicting", name, &error, &to_hex(&proof.to_bytes())]);
    }
}

#[test]
fn what_is_refused_is_refused_for_its_reason() {
    let mut made = Lines::new(REJECTED_HEAD);
    put_misspelt(&mut made);
    put_unverified(&mut made);
    for line in stored("rejected.txt", &made) {
        let fields: Vec<&str> = line.iter().map(String::as_str).collect();
        let (found, expected) = match fields[..] {
            ["path", text] => (format!("{:?}", Resource::from_path(text)), "None"),
            ["key", error, text] => (debug(VerifierKey::parse(text)), error),
            ["leaf", error, hex] => (debug(Leaf::decode(&bytes_of(hex))), error),
            ["bundle", error, width, hex] => {
                let result = decode_bundle(&bytes_of(hex), width.parse().unwrap());
                (debug(result), error)
            }
            ["checkpoint", _, error, hex] => {
                (debug(SignedCheckpoint::parse(&bytes_of(hex))), error)
            }
            ["policy", _, error, hex] => {
                let fault = Policy::parse(&bytes_of(hex)).unwrap_err();
                (format!("{} {:?}", fault.line, fault.fault), error)
            }
            ["proof", _, error, hex] => (debug(TlogProof::parse(&bytes_of(hex))), error),
            ["request", _, error, hex] => (debug(AddCheckpoint::parse(&bytes_of(hex))), error),
            ["fork", _, error, hex] => (debug(Misbehaviour::parse(&bytes_of(hex))), error),
            ["unsigned", _, error, hex] => {
                let read = SignedCheckpoint::parse(&bytes_of(hex)).unwrap();
                (debug(read.is_signed_by(&log_key())), error)
            }
            ["unproven", _, error, hex, hash] => {
                let proof = TlogProof::parse(&bytes_of(hex)).unwrap();
                let hash = Hash::from_base64(hash).unwrap();
                (debug(proof.verify(&hash, &proof_file::policy())), error)
            }
            ["uncosigned", _, error, hex, last] => {
                let request = AddCheckpoint::parse(&bytes_of(hex)).unwrap();
                let last = Some(head_of(last));
                (debug(request.check(Some(&log_key()), last)), error)
            }
            ["unconvicting", _, error, hex] => {
                let proof = Misbehaviour::parse(&bytes_of(hex)).unwrap();
                (debug(proof.verify(&log_key())), error)
            }
            _ => panic!("not a vector: {line:?}"),
        };
        assert_eq!(found, expected, "{line:?}");
    }
}

fn debug<T: std::fmt::Debug, E: std::fmt::Debug>(result: Result<T, E>) -> String {
    match result {
        Ok(value) => panic!("accepted: {value:?}"),
        Err(error) => format!("{error:?}"),
    }
}
