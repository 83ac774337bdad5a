//! Clusters packed ahead of the disk that they will be on.
//!
//! In: contents that begin on a cluster of the disk, wherever that will be;
//! on our volumes every large file does. Out: their packed forms by leaf
//! hash, for [`write_all`](super::write_all). While packages are being
//! configured, which is one process at a time, another core has nothing to
//! do, and packing is the largest part of a first build. What is not on the
//! disk in the end is never asked for; the bytes of the images are the same.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::codec::{Codec, Form};
use super::pass::{Press, is_zero};
use super::{CLUSTER_SIZE, ImageSpec, WriteOptions, presses, root};
use crate::digest::Digest;

/// Packed bytes that may wait for the disk.
const MOST_BYTES: u64 = 96 << 20;

/// Forms that wait for the disk.
#[derive(Debug)]
pub struct Ahead {
    presses: Vec<Press>,
    forms: Mutex<BTreeMap<Codec, Forms>>,
    /// Packed bytes that wait.
    bytes: AtomicU64,
    is_over: AtomicBool,
}

/// Packed forms by leaf hash.
pub(super) type Forms = BTreeMap<Digest, Form>;

impl Ahead {
    /// For images of `specs` that will be written with `options`.
    #[must_use]
    pub fn new(specs: &[ImageSpec], options: &WriteOptions<'_>) -> Self {
        Self {
            presses: presses(specs, options).clusters,
            forms: Mutex::default(),
            bytes: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
        }
    }

    /// Packs the clusters of a content of `size` bytes, as far as there is
    /// time and room.
    ///
    /// # Errors
    ///
    /// What `content` reports.
    pub fn offer(&self, content: &mut dyn Read, size: u64) -> io::Result<()> {
        let mut left = size;
        let mut cluster = vec![0; CLUSTER_SIZE];
        while left > 0 && !self.is_over() {
            let length = usize::try_from(left).map_or(CLUSTER_SIZE, |left| left.min(CLUSTER_SIZE));
            let (bytes, rest) = cluster.split_at_mut(length);
            content.read_exact(bytes)?;
            rest.fill(0);
            left -= length as u64;
            if !is_zero(&cluster) {
                self.pack(&cluster)?;
            }
        }
        Ok(())
    }

    fn pack(&self, cluster: &[u8]) -> io::Result<()> {
        let leaf = root::leaf(cluster);
        for press in &self.presses {
            if press.stock.as_ref().is_some_and(|stock| stock.has(&leaf)) {
                continue;
            }
            let form = press.packer.pack(cluster)?;
            if let Form::Smaller(bytes) = &form {
                self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            }
            let mut forms = self.forms.lock().unwrap_or_else(PoisonError::into_inner);
            let of_codec = forms.entry(press.packer.codec()).or_default();
            of_codec.insert(leaf, form);
        }
        Ok(())
    }

    /// Whether nothing more is wanted.
    #[must_use]
    pub fn is_over(&self) -> bool {
        let is_full = || self.bytes.load(Ordering::Relaxed) >= MOST_BYTES;
        self.presses.is_empty() || self.is_over.load(Ordering::Relaxed) || is_full()
    }

    /// Lets whoever packs come to an end: the disk is there.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// What is there of a codec; nobody gets it twice.
    pub(super) fn take(&self, codec: Codec) -> Forms {
        let mut forms = self.forms.lock().unwrap_or_else(PoisonError::into_inner);
        forms.remove(&codec).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::codec::Packer;
    use crate::image::{ImageFormat, write_all};
    use crate::report::Silent;
    use crate::sparse::PageMap;
    use crate::units::ByteSize;

    #[test]
    fn what_was_offered_waits_in_its_packed_form() {
        let specs = [
            ImageSpec::new("disk", ImageFormat::Raw),
            ImageSpec::new("disk", ImageFormat::Qcow2),
        ];
        let ahead = Ahead::new(&specs, &WriteOptions::default());
        // A whole cluster, one of zeros, and the begin of one.
        let mut bytes = vec![b'a'; CLUSTER_SIZE];
        bytes.resize(2 * CLUSTER_SIZE, 0);
        bytes.extend_from_slice(b"the end");
        let size = bytes.len() as u64;
        ahead.offer(&mut bytes.as_slice(), size).expect("memory");
        bytes.resize(3 * CLUSTER_SIZE, 0);
        let packer = Packer::new(Codec::Deflate);
        let wanted = [&bytes[..CLUSTER_SIZE], &bytes[2 * CLUSTER_SIZE..]];
        let wanted: Forms = wanted
            .iter()
            .map(|cluster| (root::leaf(cluster), packer.pack(cluster).expect("packed")))
            .collect();
        assert_eq!(ahead.take(Codec::Deflate), wanted);
        assert!(ahead.take(Codec::Deflate).is_empty());
        assert!(ahead.offer(&mut &b"short"[..], 9).is_err());
    }

    #[test]
    fn what_waits_is_not_packed_again() {
        let specs = [ImageSpec::new("disk", ImageFormat::Qcow2)];
        let count: u8 = 40;
        let mut disk = PageMap::new(ByteSize::from_mib(3));
        let cluster = |number: u8| vec![number + 1; CLUSTER_SIZE];
        let ahead = Ahead::new(&specs, &WriteOptions::default());
        for number in 0..count {
            let at = u64::from(number) * CLUSTER_SIZE as u64;
            let bytes = cluster(number);
            disk.write_at(&bytes, at).expect("inside");
            let size = bytes.len() as u64;
            ahead.offer(&mut &bytes[..], size).expect("memory");
        }
        // Other bytes in the place of the packed ones show where they get to.
        let sign = |number: u8| format!("<packed ahead: {number}>").into_bytes();
        let mut forms = ahead.forms.lock().expect("nobody else");
        let forms_of = forms.get_mut(&Codec::Deflate).expect("packed");
        for number in 0..count {
            let form = forms_of.get_mut(&root::leaf(&cluster(number)));
            *form.expect("offered") = Form::Smaller(sign(number).into());
        }
        drop(forms);
        let options = WriteOptions {
            ahead: Some(&ahead),
            ..WriteOptions::default()
        };
        let folder = tempfile::tempdir().expect("a folder");
        let made = write_all(&specs, &disk, folder.path(), &options, &Silent).expect("written");
        let image = std::fs::read(&made[0].path).expect("readable");
        for number in 0..count {
            let sign = sign(number);
            let is_there = image.windows(sign.len()).any(|window| window == sign);
            assert!(is_there, "cluster {number} was packed again");
        }
    }

    #[test]
    fn it_ends_when_it_is_told_to() {
        let specs = [ImageSpec::new("disk", ImageFormat::Qcow2)];
        let ahead = Ahead::new(&specs, &WriteOptions::default());
        assert!(!ahead.is_over());
        ahead.end();
        ahead.offer(&mut &b"text"[..], 4).expect("nothing is read");
        assert!(ahead.is_over() && ahead.take(Codec::Deflate).is_empty());
        let raw = [ImageSpec::new("disk", ImageFormat::Raw)];
        let nothing_to_pack = Ahead::new(&raw, &WriteOptions::default());
        assert!(nothing_to_pack.is_over());
    }
}
