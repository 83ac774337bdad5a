//! Text around base64, as OpenSSH and PEM write it.
//!
//! Source: RFC 7468; OpenSSH breaks lines after 70 characters, PEM after 64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Lines between `-----BEGIN label-----` and `-----END label-----`.
pub(super) fn write(label: &str, bytes: &[u8], columns: usize) -> String {
    let encoded = STANDARD.encode(bytes);
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(columns.min(rest.len()));
        text.push_str(line);
        text.push('\n');
        rest = tail;
    }
    for part in ["-----END ", label, "-----\n"] {
        text.push_str(part);
    }
    text
}

/// The bytes between the lines. Line ends of any kind and blank lines are
/// taken; who needs the exact text compares it with [`write`]'s.
pub(super) fn read(label: &str, text: &str) -> Option<Vec<u8>> {
    let (begin, end) = (
        format!("-----BEGIN {label}-----"),
        format!("-----END {label}-----"),
    );
    let body = text.trim().strip_prefix(&begin)?.strip_suffix(&end)?;
    let joined: String = body.split_whitespace().collect();
    STANDARD.decode(joined).ok()
}
