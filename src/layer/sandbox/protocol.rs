//! What consign and its sandbox processes say to each other: JSON, a line each.

use std::io::{self, BufRead, Read as _, Write};
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::fault::Fault;
use crate::digest::Digest;
use crate::layer::tar::TarSum;

/// Longest line: some thousand packages, or the input of a tool.
const MAX_LINE: u64 = 256 << 20;

/// From consign to the sandbox.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Request {
    /// The user and group ids are mapped.
    Mapped,
    /// Find out whether programs could be run in a root.
    Try,
    /// Remove folders that earlier builds left.
    Remove(Vec<PathBuf>),
    /// Make an empty root in the folder.
    Begin {
        /// An existing, empty folder in the cache.
        folder: PathBuf,
        /// Seconds since the epoch.
        source_date: i64,
        /// Size of a tmpfs for the root, where it is to be in memory.
        memory: Option<u64>,
    },
    /// Lay the tar of a layer over the root.
    Apply(PathBuf),
    /// Install packages on top of the root and make a layer of the difference.
    Packages(PackagesJob),
    /// Run a program in a root of unpacked packages.
    Tools(ToolsJob),
    /// Take a file of so many bytes, which follow.
    Take {
        /// Where it goes, in the machine.
        path: PathBuf,
        size: u64,
    },
    /// Give a file of the machine: its bytes follow the answer.
    Give(PathBuf),
    /// Run a script on top of the root and make a layer of the difference.
    Run(RunJob),
    /// Remove the root and end.
    End,
}

/// A `packages` layer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PackagesJob {
    pub(crate) debs: Vec<DebFile>,
    pub(crate) exclude_paths: Vec<String>,
    pub(crate) include_paths: Vec<String>,
    /// Where the tar goes.
    pub(crate) output: PathBuf,
}

/// A `tools` layer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ToolsJob {
    pub(crate) debs: Vec<DebFile>,
    /// Paths in the root, and bytes.
    pub(crate) input: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) command: Vec<String>,
    pub(crate) keep: Vec<Vec<u8>>,
    pub(crate) output: PathBuf,
}

/// A `run` layer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RunJob {
    pub(crate) script: Vec<u8>,
    /// A tar of files that stand beside the script.
    pub(crate) input: Option<PathBuf>,
    pub(crate) environment: Vec<(String, String)>,
    /// Whether the script sees the host's network.
    pub(crate) network: bool,
    pub(crate) output: PathBuf,
}

/// One package file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DebFile {
    pub(crate) path: PathBuf,
    /// Where its uncompressed form is kept, or will be.
    pub(crate) plain: PathBuf,
    pub(crate) package: String,
    pub(crate) sha256: Digest,
    pub(crate) size: u64,
    /// Whether it came for another package's sake.
    pub(crate) is_automatic: bool,
}

/// From the sandbox to consign.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Reply {
    /// In a new user namespace, waiting for [`Request::Mapped`].
    Entered,
    /// Not in a new user namespace, and none is needed.
    Direct,
    /// The system refuses a user namespace: the error number.
    Refused(i32),
    /// Some of the steps are done.
    Progress {
        /// What is being done: `unpack`, `configure`, `pack`.
        phase: String,
        done: u64,
        total: u64,
    },
    /// Something that a person should know.
    Note(String),
    /// A tar is finished.
    Built(TarSum),
    /// A file of so many bytes follows.
    Given { size: u64 },
    /// A request without a result is done.
    Done,
    /// A request failed; the sandbox ends.
    Failed(Fault),
}

/// The first that the process that runs scripts is told.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Setup {
    /// The root to run them in; the folders `proc` and `dev` are in it.
    Root(PathBuf),
    /// None: only whether that would be allowed is of interest.
    Trial,
}

/// From the sandbox to the process that runs scripts.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Command {
    pub(crate) argv: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    /// Where it starts.
    pub(crate) folder: String,
    /// Whether the output is dpkg's, and tells whose turn it is.
    pub(crate) is_dpkg: bool,
}

/// From the process that runs scripts to the sandbox.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ScriptReply {
    /// The mounts are in place.
    Ready,
    /// The mounts or namespaces were refused.
    Failed(Fault),
    /// dpkg begins to configure a package.
    Configuring(String),
    /// The command ended.
    Ended {
        /// Exit status 0.
        is_success: bool,
        /// How it ended, in words.
        status: String,
        /// The package that dpkg was busy with, if it said one.
        package: Option<String>,
        /// The last KiB of output.
        output: String,
    },
}

/// Writes one message and flushes.
pub(crate) fn send(out: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message).map_err(io::Error::other)?;
    line.push(b'\n');
    out.write_all(&line)?;
    out.flush()
}

/// Reads one message; `None` at the end of the stream.
pub(crate) fn receive<T: DeserializeOwned>(input: &mut impl BufRead) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    input.take(MAX_LINE).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(&line)
        .map(Some)
        .map_err(io::Error::other)
}
