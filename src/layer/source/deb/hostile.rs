//! Whatever comes from outside: nothing panics, whatever the bytes are.

use proptest::prelude::*;

use super::apt::{AptSettings, HostEnvironment};
use super::index::{Archive, Index};
use super::openpgp::unverified_text;
use super::relation::{alternatives, clauses};
use super::release::Release;
use super::version::Version;

/// Text that is often nearly right.
fn nearly() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        Just("Package: a\n"),
        Just("Version: 1:2-3\n"),
        Just("Architecture: all\n"),
        Just("Provides: b (= 1), c"),
        Just("Date: Sat, 21 Nov 2026 00:53:02 UTC\n"),
        Just("SHA256:\n ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad 1 x\n"),
        Just("-----BEGIN PGP SIGNED MESSAGE-----\n"),
        Just("-----BEGIN PGP SIGNATURE-----\n"),
        Just("-----END PGP SIGNATURE-----\n"),
        Just("\n"),
        Just("\n\n"),
        Just(" "),
        Just(":"),
        Just("- "),
        Just("(>= "),
        Just(")|,"),
        Just("é"),
        Just("~+.-"),
        Just("\"x\";\n"),
        Just("Acquire::http::Proxy \"http://u:p@h:1\";\n"),
    ];
    proptest::collection::vec(word, 0..24).prop_map(|words| words.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_panics(text in nearly()) {
        let _release = Release::parse(&text);
        let _message = unverified_text(text.as_bytes());
        let _list: Vec<_> = clauses(&text).map(alternatives).collect();
        if let Ok(index) = Index::read("s", "amd64", text.as_bytes()) {
            let _archive = Archive::new(vec![index]);
        }
        let host = HostEnvironment {
            search_path: std::ffi::OsStr::new(""),
            http_proxy: Some(&text),
            https_proxy: None,
            no_proxy: Some(&text),
        };
        let _settings = AptSettings::parse(&text, &host);
        let _sources = super::apt::parse_text(&text);
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _index = Index::read("s", "amd64", bytes.as_slice());
        let _message = unverified_text(&bytes);
    }

    #[test]
    fn versions_have_one_order(texts in proptest::collection::vec("[0-9][0-9a~+.:-]{0,5}", 3)) {
        let versions: Vec<_> = texts.iter().filter_map(|text| Version::parse(text)).collect();
        if let [a, b, c] = versions.as_slice() {
            prop_assert_eq!(a.cmp(b), b.cmp(a).reverse());
            prop_assert!(!(a <= b && b <= c) || a <= c);
        }
    }
}
