//! Files of requests, on their way into a machine and out of it.

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};

use super::protocol::{self, DebFile, Reply, Request};
use super::vm::{WORK, place_of};
use super::{Session, nonsense, talk_failed};
use crate::layer::LayerError;

/// What of a request has to be fetched when it is done.
pub(super) struct Expected {
    /// In the machine.
    from: PathBuf,
    /// On the host.
    to: PathBuf,
}

impl Session {
    /// The request with its files in the machine, and what comes out of it.
    pub(super) fn carry_in(
        &mut self,
        request: &Request,
    ) -> Result<(Request, Option<Expected>), LayerError> {
        Ok(match request {
            Request::Begin { source_date, .. } => {
                let begin = Request::Begin {
                    folder: WORK.into(),
                    source_date: *source_date,
                    memory: None,
                };
                (begin, None)
            }
            Request::Apply(tar) => (Request::Apply(self.give(tar)?), None),
            Request::Packages(job) => {
                let mut job = job.clone();
                self.give_all(&mut job.debs)?;
                let expected = self.expect(&mut job.output);
                (Request::Packages(job), Some(expected))
            }
            Request::Tools(job) => {
                let mut job = job.clone();
                self.give_all(&mut job.debs)?;
                let expected = self.expect(&mut job.output);
                (Request::Tools(job), Some(expected))
            }
            Request::Run(job) => {
                let mut job = job.clone();
                if let Some(input) = &job.input {
                    job.input = Some(self.give(input)?);
                }
                let expected = self.expect(&mut job.output);
                (Request::Run(job), Some(expected))
            }
            Request::Mapped => (Request::Mapped, None),
            Request::Try => (Request::Try, None),
            // What earlier builds left is on the host, where a machine of
            // today cannot reach it, and it left nothing itself.
            Request::Remove(_) => (Request::Remove(Vec::new()), None),
            Request::End => (Request::End, None),
            Request::Take { .. } | Request::Give(_) => {
                return Err(nonsense(&Reply::Done));
            }
        })
    }

    fn next_place(&mut self) -> PathBuf {
        self.files += 1;
        place_of(self.files)
    }

    fn give_all(&mut self, debs: &mut [DebFile]) -> Result<(), LayerError> {
        for deb in debs {
            deb.path = self.give(&deb.path)?;
        }
        Ok(())
    }

    fn expect(&mut self, output: &mut PathBuf) -> Expected {
        let from = self.next_place();
        let to = std::mem::replace(output, from.clone());
        Expected { from, to }
    }

    /// Copies a file into the machine.
    fn give(&mut self, file: &Path) -> Result<PathBuf, LayerError> {
        let read = |source| LayerError::Read {
            path: file.to_owned(),
            source,
        };
        let mut content = File::open(file).map_err(read)?;
        let size = content.metadata().map_err(read)?.len();
        let path = self.next_place();
        let take = Request::Take {
            path: path.clone(),
            size,
        };
        self.send(&take)?;
        let requests = &mut self.requests;
        io::copy(&mut Read::take(&mut content, size), requests)
            .and_then(|_| requests.flush())
            .map_err(talk_failed)?;
        self.wait(&mut |_| {})?;
        Ok(path)
    }

    /// Copies what a request made to where it was wanted.
    pub(super) fn carry_out(&mut self, expected: &Expected) -> Result<(), LayerError> {
        self.send(&Request::Give(expected.from.clone()))?;
        let size = match self.reply()? {
            Reply::Given { size } => size,
            Reply::Failed(fault) => return Err(LayerError::Sandbox(Box::new(fault))),
            other => return Err(nonsense(&other)),
        };
        let written = |source| LayerError::Store {
            action: "write",
            path: expected.to.clone(),
            source,
        };
        let mut file = File::create_new(&expected.to).map_err(written)?;
        let mut content = io::Read::take(&mut self.replies, size);
        let count = io::copy(&mut content, &mut file).map_err(written)?;
        if count < size {
            return Err(self.died());
        }
        match protocol::receive(&mut self.replies).map_err(talk_failed)? {
            Some(Reply::Done) => Ok(()),
            Some(other) => Err(nonsense(&other)),
            None => Err(self.died()),
        }
    }
}
