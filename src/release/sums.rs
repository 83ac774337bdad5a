//! `SHA256SUMS`, as `sha256sum --check` reads it.
//!
//! Source: GNU coreutils manual, "cksum output modes": 64 hex digits, two
//! spaces, the file name; one line a file. Narrower: no escaped names.

use std::fmt::Write as _;
use std::path::Path;

use super::ReleaseError;
use crate::artifact::{Artifact, ArtifactKind, Draft, write_drafts};

/// The file's name in the output folder.
pub const SUMS_FILE: &str = "SHA256SUMS";

/// One line for each artifact that has a digest, sorted by name. The list
/// itself is left out.
///
/// # Errors
///
/// [`ReleaseError::FileName`] for a name that would need escaping.
pub fn render(artifacts: &[Artifact]) -> Result<String, ReleaseError> {
    let mut lines = Vec::new();
    for artifact in artifacts {
        let Some(digest) = artifact
            .digest
            .filter(|_| artifact.kind != ArtifactKind::Sums)
        else {
            continue;
        };
        let name = artifact.file_name();
        if name.is_empty() || name.contains(|c: char| c == '\\' || c.is_control()) {
            return Err(ReleaseError::FileName { name });
        }
        lines.push((name, digest));
    }
    lines.sort();
    let mut text = String::new();
    for (name, digest) in lines {
        writeln!(text, "{}  {name}", digest.hex()).expect("a string takes all");
    }
    Ok(text)
}

/// The list for `folder`, where the artifacts are.
///
/// # Errors
///
/// As [`render`].
pub fn draft(artifacts: &[Artifact], folder: &Path) -> Result<Draft, ReleaseError> {
    Ok(Draft {
        path: folder.join(SUMS_FILE),
        kind: ArtifactKind::Sums,
        bytes: render(artifacts)?.into_bytes(),
    })
}

/// Writes the list into `folder`.
///
/// # Errors
///
/// Any [`ReleaseError`].
pub fn write(artifacts: &[Artifact], folder: &Path) -> Result<Artifact, ReleaseError> {
    let draft = draft(artifacts, folder)?;
    let written = write_drafts(std::slice::from_ref(&draft));
    written.map_err(|(path, source)| ReleaseError::Write { path, source })?;
    Ok(draft.artifact())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::units::ByteSize;

    fn artifact(name: &str, digest: Option<Digest>) -> Artifact {
        Artifact {
            path: Path::new("out").join(name),
            kind: ArtifactKind::Disk,
            size: ByteSize::ZERO,
            digest,
            content_root: None,
        }
    }

    #[test]
    fn lines_are_sorted_and_files_without_a_digest_left_out() {
        let sum = Some(Digest::of(b"abc"));
        let artifacts = [
            artifact("b", sum),
            artifact("c.raw", None),
            artifact("a", sum),
        ];
        let hex = Digest::of(b"abc").hex();
        assert_eq!(
            render(&artifacts).expect("renders"),
            format!("{hex}  a\n{hex}  b\n")
        );
    }

    #[test]
    fn a_name_with_a_line_break_is_refused() {
        let error = render(&[artifact("a\nb", Some(Digest::of(b"")))]).expect_err("refused");
        assert_eq!(
            error.to_string(),
            "the file name `a\\nb` cannot stand in a list of sums"
        );
    }
}
