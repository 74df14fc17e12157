//! Where noise begins: the vectors, cut out of their files.

use std::path::{Path, PathBuf};

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors")
}

fn text(file: &str) -> String {
    std::fs::read_to_string(vectors().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

/// Decodes hexadecimal of any length; `None` for anything else.
pub fn hex(word: &str) -> Option<Vec<u8>> {
    let digits = word.as_bytes();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let is_hex = digits.len().is_multiple_of(2)
        && digits
            .iter()
            .all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    is_hex.then(|| digits.chunks(2).filter_map(pair).collect())
}

/// Everything in hexadecimal in a file of vectors, `least` bytes or longer, each once.
pub fn bytes_in(file: &str, least: usize) -> Vec<Vec<u8>> {
    let text = text(file);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let words = lines.flat_map(|line| line.split(' ')).filter_map(hex);
    let mut all: Vec<Vec<u8>> = words.filter(|bytes| bytes.len() >= least).collect();
    all.sort();
    all.dedup();
    all
}

/// One field of the lines of a file whose first field is `kind`. Fields are separated by ` | `.
pub fn fields_in(file: &str, kind: &str, field: usize) -> Vec<String> {
    let text = text(file);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let fields = lines.map(|line| line.split(" | ").collect::<Vec<_>>());
    let of_kind = fields.filter(|fields| fields.first() == Some(&kind));
    of_kind
        .filter_map(|fields| fields.get(field).map(|text| (*text).to_owned()))
        .collect()
}

/// The whole of a file of vectors.
pub fn file(name: &str) -> Vec<u8> {
    std::fs::read(vectors().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Seeds with the byte before them that selects a decoder.
pub fn selected(selector: usize, seeds: Vec<Vec<u8>>) -> impl Iterator<Item = Vec<u8>> {
    let selector = u8::try_from(selector).expect("a target has fewer than 256 decoders");
    seeds.into_iter().map(move |mut seed| {
        seed.insert(0, selector);
        seed
    })
}

/// Seeds for noise that is read as decisions: a few orders of them.
pub fn decisions() -> Vec<Vec<u8>> {
    let counting = |step: u8| (0..=255u8).map(|byte| byte.wrapping_mul(step)).collect();
    let mut seeds: Vec<Vec<u8>> = [1, 3, 7, 37, 113].map(counting).to_vec();
    seeds.push(vec![0; 64]);
    seeds.push(vec![1; 64]);
    seeds
}
