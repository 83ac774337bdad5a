//! A tar archive of a few small files, as POSIX.1-1988 (ustar) has it.

/// An archive that is being written.
#[derive(Debug, Default)]
pub struct Tar(Vec<u8>);

const BLOCK: usize = 512;

impl Tar {
    /// Adds a regular file, readable by its owner, without a time.
    pub fn file(&mut self, name: &str, bytes: &[u8]) {
        let mut header = [0; BLOCK];
        let mut put = |at: usize, text: &str| {
            for (to, from) in header.iter_mut().skip(at).zip(text.bytes()) {
                *to = from;
            }
        };
        let short: String = name.chars().take(99).collect();
        put(0, &short);
        put(100, "0000600");
        put(108, "0000000");
        put(116, "0000000");
        put(124, &format!("{:011o}", bytes.len()));
        put(136, "00000000000");
        // The sum is taken with blanks in its own field.
        put(148, "        ");
        put(156, "0");
        put(257, "ustar\0");
        put(263, "00");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        let sum = format!("{sum:06o}\0 ");
        for (to, from) in header.iter_mut().skip(148).zip(sum.bytes()) {
            *to = from;
        }
        self.0.extend_from_slice(&header);
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(BLOCK), 0);
    }

    /// The whole archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 2 * BLOCK]);
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_types, reason = "tests run other people's programs")]
    fn tar_reads_what_was_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut tar = Tar::default();
        tar.file("one.txt", b"one");
        tar.file("deep/two", &[7; 513]);
        let path = folder.path().join("x.tar");
        std::fs::write(&path, tar.finish()).expect("written");
        let output = std::process::Command::new("tar")
            .arg("-xf")
            .arg(&path)
            .arg("-C")
            .arg(folder.path())
            .output()
            .expect("tar runs");
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{output:?}"
        );
        let read = |name: &str| std::fs::read(folder.path().join(name)).expect(name);
        assert_eq!(
            (read("one.txt"), read("deep/two")),
            (b"one".to_vec(), vec![7; 513])
        );
    }
}
