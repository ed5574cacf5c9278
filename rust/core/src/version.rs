//! Digests what decides a workflow's behaviour. Invariant: equal content gives an equal version in any process, and no two
//! different lists of parts run together, because every text is preceded by its length.

/// Hex digest (128 bits of BLAKE3) of named texts, in order.
pub fn content_version(parts: &[(&str, &str)]) -> String {
    let mut hasher = blake3::Hasher::new();
    for (name, text) in parts {
        for piece in [name, text] {
            hasher.update(&(piece.len() as u64).to_le_bytes());
            hasher.update(piece.as_bytes());
        }
    }
    hasher.finalize().as_bytes()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// 63 bits of the same, of one text.
pub fn digest(text: &str) -> i64 {
    let [a, b, c, d, e, f, g, h, ..] = *blake3::hash(text.as_bytes()).as_bytes();
    i64::from_le_bytes([a, b, c, d, e, f, g, h & 0x7f])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_do_not_run_together() {
        assert_ne!(content_version(&[("ab", "c")]), content_version(&[("a", "bc")]));
        assert_eq!(content_version(&[("a", "b")]), content_version(&[("a", "b")]));
    }
}
