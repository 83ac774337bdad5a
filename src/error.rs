//! The one public error: a room's error with its slug, its hint and its exit class.
//!
//! Every room's error type has three inherent methods besides `Display` and
//! `source`: `slug` (stable, kebab-case), `hint` (one imperative sentence)
//! and `class` (the exit code). This room only gathers them.

use std::error::Error as StdError;
use std::fmt;

use crate::units::ExitClass;

macro_rules! rooms {
    ($($(#[$doc:meta])* $variant:ident($error:ty),)+) => {
        /// Whatever can go wrong, by room.
        #[derive(Debug)]
        #[non_exhaustive]
        pub enum Error {
            $($(#[$doc])* $variant($error),)+
        }

        $(impl From<$error> for Error {
            fn from(error: $error) -> Self {
                Self::$variant(error)
            }
        })+

        impl Error {
            /// A stable name of the kind of error, kebab-case.
            #[must_use]
            pub fn slug(&self) -> &'static str {
                match self { $(Self::$variant(error) => error.slug(),)+ }
            }

            /// What the reader can do about it, as one imperative sentence.
            #[must_use]
            pub fn hint(&self) -> Option<String> {
                match self { $(Self::$variant(error) => error.hint(),)+ }
            }

            /// The exit code.
            #[must_use]
            pub fn class(&self) -> ExitClass {
                match self { $(Self::$variant(error) => error.class(),)+ }
            }
        }

        impl fmt::Display for Error {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self { $(Self::$variant(error) => error.fmt(f),)+ }
            }
        }

        impl StdError for Error {
            fn source(&self) -> Option<&(dyn StdError + 'static)> {
                match self { $(Self::$variant(error) => error.source(),)+ }
            }
        }
    };
}

rooms! {
    /// The command line itself.
    Cli(crate::cli::CliError),
    /// The first-boot agent's file.
    Agent(crate::pipeline::agent::AgentError),
    /// A site configuration and its disk.
    Factory(crate::factory::FactoryError),
    /// The spine.
    Pipeline(crate::pipeline::PipelineError),
    /// An external program.
    Exec(crate::exec::ExecError),
    /// A layer.
    Layer(crate::layer::LayerError),
    /// A descriptor.
    Descriptor(crate::descriptor::DescriptorError),
    /// A descriptor that is imported.
    Import(crate::import::ImportError),
    /// A guest.
    Machine(crate::machine::MachineError),
    /// Keys and signatures.
    Sign(crate::sign::SignError),
    /// A release.
    Release(crate::release::ReleaseError),
    /// `appliance.toml` and the layers' recipes.
    Appliance(crate::appliance::ApplianceError),
    /// A FAT volume.
    Fat(crate::fs::fat::FatError),
    /// Making a tree boot.
    Boot(crate::boot::BootError),
    /// The plan, or the lock.
    Plan(crate::plan::PlanError),
    /// Package sources.
    Source(crate::layer::source::deb::SourceError),
    /// A partitioned disk.
    Disk(crate::disk::DiskError),
    /// An ext4 volume.
    Ext4(crate::fs::ext4::Ext4Error),
    /// Reading a finished disk.
    Inspect(crate::inspect::InspectError),
    /// An image file.
    Image(crate::image::ImageError),
}
