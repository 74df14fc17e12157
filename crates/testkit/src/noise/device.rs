//! Where noise begins for what is not public: modules `fuzzing` of `candor-vault`, `candor-client` and
//! `candor-server` hold the targets.

use super::seeds;

/// Decisions, twice as many.
pub fn walk_seeds() -> Vec<Vec<u8>> {
    let mut all = seeds::decisions();
    let long = all.iter().map(|seed| seed.repeat(2)).collect::<Vec<_>>();
    all.extend(long);
    all
}

/// Rows of a cache of states, stamps, names of conflict copies, files of rules.
pub fn local_file_seeds() -> Vec<Vec<u8>> {
    let mut row = vec![3, 0, 4, 0, 0, 0];
    row.extend_from_slice(b"abc");
    row.extend_from_slice(&[9; 57]);
    row.extend_from_slice(b"1234");
    let rows = vec![row.clone(), row.repeat(3)];
    let stamp = (0..45).collect();
    let conflicts = [
        b"\x0a\x00\x00\x00\x01\xa0\xc4\x50\x6c\x00report.odtlaptop".to_vec(),
        b"\x03\x02\x00\x00\x01\xa0\xc4\x50\x6c\x00a.ba/b\n".to_vec(),
    ];
    let rules = [
        "*.o\n!keep.o\n/target/\n# remark\n",
        "**/a/**\n[a-z]?\\*\n{a,b,c}{d,e}\r\n",
        "[\n\\\n!\n//\n",
    ];
    let mut all: Vec<Vec<u8>> = seeds::selected(0, rows).collect();
    all.extend(seeds::selected(1, vec![stamp]));
    all.extend(seeds::selected(2, conflicts.to_vec()));
    all.extend(seeds::selected(
        3,
        rules.map(|text| text.as_bytes().to_vec()).to_vec(),
    ));
    all
}

/// Heads and segments of a ledger.
pub fn ledger_seeds() -> Vec<Vec<u8>> {
    let files = ["ledger/accepted.txt", "ledger/rejected.txt"];
    let files: Vec<Vec<u8>> = files
        .into_iter()
        .flat_map(|file| seeds::bytes_in(file, 8))
        .collect();
    let mut all: Vec<Vec<u8>> = seeds::selected(1, files.clone()).collect();
    all.extend(seeds::selected(2, files));
    all.extend(seeds::selected(3, seeds::decisions()));
    all
}

/// Epoch records that open, and those that do not.
pub fn epoch_seeds() -> Vec<Vec<u8>> {
    let files = ["epoch/accepted.txt", "epoch/rejected.txt"];
    files
        .into_iter()
        .flat_map(|file| seeds::bytes_in(file, 200))
        .collect()
}

/// Phrases, names of snapshots and of sets, paths.
pub fn typed_seeds() -> Vec<Vec<u8>> {
    let lines = ["phrase/accepted.txt", "phrase/rejected.txt"]
        .into_iter()
        .flat_map(|file| {
            let text = String::from_utf8(seeds::file(file)).unwrap_or_default();
            let fields = text.lines().flat_map(|line| line.split(" | "));
            let phrases = fields.filter(|field| field.split(' ').count() > 10);
            phrases
                .map(|text| text.as_bytes().to_vec())
                .collect::<Vec<_>>()
        });
    let names = [
        "latest",
        "docs:latest",
        "docs:0a1b",
        "-rf",
        "a/b",
        "2f746d70",
        "+5",
    ];
    let names = names.map(|text| text.as_bytes().to_vec()).to_vec();
    let mut all: Vec<Vec<u8>> = seeds::selected(0, lines.collect()).collect();
    for row in 1..4 {
        all.extend(seeds::selected(row, names.clone()));
    }
    all
}
