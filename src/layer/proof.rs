//! Proofs of cached tars: their digests, worked out while they are in use.
//!
//! In: tars that were taken from the store unread. Out: whether all of them
//! are what their names say. Hashing is the largest part of a build that
//! changes little, so that it goes on beside all that the tars are needed
//! for. Who takes them so asks [`Proofs::hold`] before anything is filed in
//! the store on their word or gets its final name. One that does not check
//! out is dropped, so that the next look into the store finds none.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::record::Record;
use super::store::Store;
use crate::digest::{DiffId, LayerKey};
use crate::report::Reporter;
use crate::tree::Blob;

/// The proofs of a build.
#[derive(Debug)]
pub struct Proofs<'a> {
    store: &'a Store,
    reporter: &'a dyn Reporter,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    open: Vec<Proof>,
    has_failed: bool,
}

#[derive(Debug)]
struct Proof {
    key: LayerKey,
    diff_id: DiffId,
    digest: JoinHandle<io::Result<bool>>,
}

impl<'a> Proofs<'a> {
    /// None yet.
    #[must_use]
    pub fn new(store: &'a Store, reporter: &'a dyn Reporter) -> Self {
        Self {
            store,
            reporter,
            state: Mutex::default(),
        }
    }

    /// Begins the proof that `blob` is the tar of `record`.
    pub(super) fn begin(&self, record: &Record, blob: &Arc<Blob>) {
        let (key, diff_id) = (record.key, record.diff_id);
        let (record, blob) = (record.clone(), blob.clone());
        let digest = std::thread::spawn(move || record.is_of(blob.file()));
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.open.push(Proof {
            key,
            diff_id,
            digest,
        });
    }

    /// Waits for all proofs begun so far, and says whether they hold, with
    /// all before them. What does not is dropped from the store, and said.
    #[must_use]
    pub fn hold(&self) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for proof in std::mem::take(&mut state.open) {
            // What cannot be read is not whole either, and is dropped as well.
            let is_whole = proof.digest.join().is_ok_and(|read| read.unwrap_or(false));
            if !is_whole {
                state.has_failed = true;
                let (key, diff_id) = (&proof.key, &proof.diff_id);
                drop(self.store.discard(key, diff_id, self.reporter));
            }
        }
        !state.has_failed
    }
}
