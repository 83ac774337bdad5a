//! How a cluster is packed.

use std::fmt;
use std::io;
use std::sync::{Mutex, PoisonError};

use flate2::{Compress, FlushCompress, Status};

use super::CLUSTER_SIZE;

/// `windowBits` of the deflate streams: QEMU's reader keeps 4 KiB.
const DEFLATE_WINDOW_BITS: u8 = 12;
const DEFLATE_LEVEL: u32 = 5;

/// A way to pack a cluster. The same bytes always give the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Codec {
    /// Raw deflate (RFC 1951), no distance above 4,096.
    Deflate,
    /// One zstd frame of this level.
    Zstd(i32),
}

impl Codec {
    /// Names everything that the packed bytes depend on besides the input.
    pub(super) fn tag(self) -> String {
        match self {
            Self::Deflate => "deflate-1".to_owned(),
            Self::Zstd(level) => {
                let version = zstd::zstd_safe::version_number();
                format!("zstd-{version}-{level}")
            }
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
    Deflate(Compress),
    Zstd(zstd::bulk::Compressor<'static>),
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

    /// The form of `cluster` in this codec.
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
            Codec::Deflate => {
                let level = flate2::Compression::new(DEFLATE_LEVEL);
                let window = DEFLATE_WINDOW_BITS;
                Self::Deflate(Compress::new_with_window_bits(level, false, window))
            }
            Codec::Zstd(level) => Self::Zstd(zstd::bulk::Compressor::new(level)?),
        })
    }

    fn pack(&mut self, cluster: &[u8]) -> io::Result<Form> {
        let room = CLUSTER_SIZE + CLUSTER_SIZE / 8;
        let mut packed = vec![0; room];
        let length = match self {
            Self::Deflate(deflate) => {
                deflate.reset();
                let status = deflate.compress(cluster, &mut packed, FlushCompress::Finish)?;
                if status == Status::StreamEnd {
                    usize::try_from(deflate.total_out()).map_err(io::Error::other)?
                } else {
                    room
                }
            }
            Self::Zstd(zstd) => zstd.compress_to_buffer(cluster, &mut packed)?,
        };
        if length >= CLUSTER_SIZE {
            return Ok(Form::AsItIs);
        }
        packed.truncate(length);
        Ok(Form::Smaller(packed.into()))
    }
}
