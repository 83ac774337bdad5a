//! The machine's identity, as `/init` settled it: checked, never changed.

use crate::root::Root;

const READ: &str = "/etc/machine-id";
const KEPT: &str = "/var/lib/consign/machine-id";

/// What is wrong with the identity, if anything.
pub fn fault(root: &Root) -> Option<&'static str> {
    let id = |path| {
        root.read_text(path, 64)
            .ok()
            .filter(|text| is_id(text.trim_end()))
    };
    match (id(READ), id(KEPT)) {
        (None, _) => Some("the machine has no machine-id that lasts"),
        (Some(_), None) => Some("the machine-id is not kept on /var"),
        (Some(read), Some(kept)) if read.trim_end() != kept.trim_end() => {
            Some("the machine-id is another than the one kept on /var")
        }
        _ => None,
    }
}

/// 32 small hex digits, not all zero (machine-id(5)).
fn is_id(text: &str) -> bool {
    text.len() == 32
        && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
        && text.bytes().any(|c| c != b'0')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::testing::Folder;

    #[test]
    fn the_identity_must_be_the_kept_one() {
        let (one, two) = (
            "0123456789abcdef0123456789abcdef\n",
            "1123456789abcdef0123456789abcdef\n",
        );
        let fault_of = |files: &[(&str, &str)]| fault(&Folder::with(files).root);
        assert_eq!(fault_of(&[(READ, one), (KEPT, one)]), None);
        assert!(fault_of(&[(READ, one), (KEPT, two)]).is_some());
        assert!(fault_of(&[(READ, one)]).is_some());
        assert!(fault_of(&[(READ, "uninitialized\n"), (KEPT, one)]).is_some());
        assert!(fault_of(&[(READ, ""), (KEPT, one)]).is_some());
    }
}
