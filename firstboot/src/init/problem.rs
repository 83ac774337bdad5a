//! What can stop `/init`, said for whoever stands before the console.

use std::fmt;
use std::io;

/// A reason to stop.
#[derive(Debug)]
pub enum Problem {
    /// The kernel's command line does not say what to do.
    Parameter {
        /// Its name.
        name: &'static str,
        /// What was found.
        found: String,
        /// What is understood.
        expected: &'static str,
    },
    /// Something in the initramfs itself is wrong.
    Initramfs {
        /// The file.
        path: String,
        /// Line, counted from 1; 0 for the whole file.
        line: usize,
    },
    /// A call to the kernel failed.
    System {
        /// What was to be done.
        action: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl Problem {
    /// Wraps the error of `action`, written as in "mount /proc".
    pub fn system(action: impl Into<String>) -> impl FnOnce(rustix::io::Errno) -> Self {
        let action = action.into();
        move |errno| Self::System {
            action,
            source: errno.into(),
        }
    }

    /// The same for errors of the standard library.
    pub fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::System { action, source }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Parameter {
                name,
                found,
                expected,
            } => write!(
                f,
                "This system cannot start: kernel parameter `{name}` is `{}`, expected {expected}.\n\
                 Correct the boot entry, or write the image to the disk again.",
                found.escape_default()
            ),
            Self::Initramfs { path, line: 0 } => write!(
                f,
                "This system cannot start: `{path}` is missing from its initramfs.\n\
                 Write the image to the disk again."
            ),
            Self::Initramfs { path, line } => write!(
                f,
                "This system cannot start: `{path}` of its initramfs is damaged in line {line}.\n\
                 Write the image to the disk again."
            ),
            Self::System { action, source } => {
                write!(f, "This system cannot start: cannot {action}: {source}.")
            }
        }
    }
}
