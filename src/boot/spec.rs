//! What the plan decides about booting.

use crate::units::{Guid, Timestamp};

/// All that the boot room is told. Filled in by the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootSpec {
    /// Name of the appliance.
    pub name: String,
    /// Version of the appliance.
    pub version: String,
    /// Names this build: the digest of the plan, for example.
    pub build_id: String,
    /// How many root partitions there are, and their identifiers.
    pub slots: Slots,
    /// Kernel parameters after ours, in order, one word each. May be empty.
    pub kernel_parameters: Vec<String>,
    /// No time in the image is later than this.
    pub source_date: Timestamp,
}

/// Root partitions by their GPT partition identifiers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slots {
    /// Two roots, of which the second ships empty, and a `/var` that outlives both.
    Ab {
        /// The EFI system partition.
        esp: Guid,
        /// The root that ships.
        root_a: Guid,
        /// The root that an update fills.
        root_b: Guid,
        /// `/var`.
        var: Guid,
    },
    /// One root that holds everything.
    Single {
        /// The EFI system partition.
        esp: Guid,
        /// The root.
        root: Guid,
    },
}

impl Slots {
    /// The EFI system partition.
    #[must_use]
    pub const fn esp(&self) -> Guid {
        match self {
            Self::Ab { esp, .. } | Self::Single { esp, .. } => *esp,
        }
    }

    /// The root that ships.
    #[must_use]
    pub const fn root(&self) -> Guid {
        match self {
            Self::Ab { root_a, .. } => *root_a,
            Self::Single { root, .. } => *root,
        }
    }

    /// The partition of `/var`, where there is one.
    #[must_use]
    pub const fn var(&self) -> Option<Guid> {
        match self {
            Self::Ab { var, .. } => Some(*var),
            Self::Single { .. } => None,
        }
    }

    /// `ab` or `single`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Ab { .. } => "ab",
            Self::Single { .. } => "single",
        }
    }
}
