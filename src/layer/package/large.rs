//! Large files of packages, before these are installed.

use std::io::Read;
use std::path::Path;

use super::filter::PathFilter;
use super::plain::unproven_data;
use crate::digest::Digest;
use crate::layer::tar::{MemberKind, MemberReader};
use crate::tree::TreePath;

/// Gives the files of the package `of`, from its uncompressed form at
/// `place`, that have `at_least` so many bytes and are not left out, until
/// `take` wants no more. Says whether the form was there. Nobody has looked
/// at a digest: good for what is found again by content, and for nothing else.
pub(in crate::layer) fn large_files(
    (place, of): (&Path, &Digest),
    filter: &PathFilter,
    at_least: u64,
    take: &mut dyn FnMut(&mut dyn Read, u64) -> bool,
) -> bool {
    let Some(data) = unproven_data(place, of) else {
        return false;
    };
    let mut members = MemberReader::new(data);
    // What is wrong with it is found, and said, when it is unpacked.
    while let Ok(Some(member)) = members.next_member() {
        let is_large = member.kind == MemberKind::File && member.size >= at_least;
        let is_wanted =
            is_large && TreePath::parse(&member.name).is_ok_and(|path| !filter.excludes(&path));
        if (is_wanted && !take(&mut members, member.size)) || members.seek_over().is_err() {
            break;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::super::plain::{Keeper, Tee};
    use super::*;
    use crate::layer::tar::TarWriter;
    use crate::tree::Metadata;

    #[test]
    fn large_files_come_and_no_others() {
        let folder = tempfile::tempdir().expect("folder");
        let (place, of) = (folder.path().join("plain/x"), Digest::of(b"deb"));
        let mut tar = TarWriter::new(Vec::new());
        for (name, size) in [
            ("usr/a", 9_u64),
            ("usr/b", 10),
            ("usr/c", 700),
            ("out/d", 900),
        ] {
            let path = TreePath::parse(name.as_bytes()).expect("a path");
            let meta = Metadata::root_owned(0o644);
            let mut content = io::repeat(b'x').take(size);
            tar.file(&path, &meta, size, &mut content).expect("memory");
        }
        let (tar, _) = tar.finish().expect("memory");
        let mut found = Vec::new();
        let mut take = |content: &mut dyn Read, size: u64| {
            let mut head = [0; 10];
            content.read_exact(&mut head).expect("it is that long");
            found.push((head[0], size));
            true
        };
        let filter = PathFilter::new(&["/out/*".to_owned()], &[]);
        assert!(!large_files((&place, &of), &filter, 10, &mut take));
        let mut keeper = Keeper::begin(&place, &of).expect("a folder");
        keeper.control(b"control");
        let mut tee = Tee {
            from: tar.as_slice(),
            keeper: Some(&mut keeper),
        };
        io::copy(&mut tee, &mut io::sink()).expect("memory");
        keeper.finish(&place);
        assert!(large_files((&place, &of), &filter, 10, &mut take));
        assert!(!large_files(
            (&place, &Digest::of(b"other")),
            &filter,
            10,
            &mut take
        ));
        assert_eq!(found, [(b'x', 10), (b'x', 700)]);
    }
}
