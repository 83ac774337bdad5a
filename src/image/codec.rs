//! How a cluster is packed.

use std::fmt;
use std::io;
use std::sync::{Mutex, PoisonError};

use super::CLUSTER_SIZE;
use super::deflate::{self, Deflater};
use super::pass::CHUNK_SIZE;

/// A way to pack a cluster. The same bytes always give the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Codec {
    /// Raw deflate (RFC 1951), no distance above 4,096.
    Deflate,
    /// One zstd frame of this level.
    Zstd(i32),
    /// One zstd frame of this level with a sum, for chunks, whatever its length.
    Stream(i32),
}

impl Codec {
    /// Names everything that the packed bytes depend on besides the input.
    pub(super) fn tag(self) -> String {
        match self {
            Self::Deflate => format!("deflate-{}", deflate::VERSION),
            Self::Zstd(level) => format!("zstd-{}-{level}", zstd::zstd_safe::version_number()),
            Self::Stream(level) => {
                format!("stream-{}-{level}", zstd::zstd_safe::version_number())
            }
        }
    }

    /// No packed form is longer.
    pub(super) fn most_bytes(self) -> usize {
        match self {
            Self::Deflate | Self::Zstd(_) => CLUSTER_SIZE - 1,
            Self::Stream(_) => zstd::zstd_safe::compress_bound(CHUNK_SIZE),
        }
    }
}

/// What packing makes of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Form {
    /// Fewer bytes than before, and not none.
    Smaller(Box<[u8]>),
    /// Packing does not make it smaller.
    AsItIs,
}

/// A [`Codec`] with the working memory of as many threads as call it.
pub(super) struct Packer {
    codec: Codec,
    idle: Mutex<Vec<Engine>>,
}

enum Engine {
    Deflate(Deflater),
    Zstd(zstd::bulk::Compressor<'static>),
    Stream(zstd::bulk::Compressor<'static>),
}

impl Packer {
    pub(super) fn new(codec: Codec) -> Self {
        Self {
            codec,
            idle: Mutex::new(Vec::new()),
        }
    }

    pub(super) fn codec(&self) -> Codec {
        self.codec
    }

    /// The form of a cluster, or a chunk, in this codec.
    pub(super) fn pack(&self, cluster: &[u8]) -> io::Result<Form> {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let engine = idle().pop();
        let mut engine = engine.map_or_else(|| Engine::start(self.codec), Ok)?;
        let packed = engine.pack(cluster)?;
        idle().push(engine);
        Ok(packed)
    }
}

impl fmt::Debug for Packer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Packer({})", self.codec.tag())
    }
}

impl Engine {
    fn start(codec: Codec) -> io::Result<Self> {
        Ok(match codec {
            Codec::Deflate => Self::Deflate(Deflater::new()),
            Codec::Zstd(level) => Self::Zstd(zstd::bulk::Compressor::new(level)?),
            Codec::Stream(level) => {
                let mut compressor = zstd::bulk::Compressor::new(level)?;
                compressor.include_checksum(true)?;
                Self::Stream(compressor)
            }
        })
    }

    fn pack(&mut self, cluster: &[u8]) -> io::Result<Form> {
        let packed = match self {
            Self::Deflate(deflater) => deflater.pack(cluster).map(Box::from),
            Self::Zstd(zstd) => {
                let mut packed = vec![0; zstd::zstd_safe::compress_bound(CLUSTER_SIZE)];
                let length = zstd.compress_to_buffer(cluster, &mut packed)?;
                packed.truncate(length);
                (length < CLUSTER_SIZE).then(|| packed.into())
            }
            Self::Stream(zstd) => Some(zstd.compress(cluster)?.into()),
        };
        Ok(packed.map_or(Form::AsItIs, Form::Smaller))
    }
}
