//! The clock: for the validity of repositories and the age of files, never
//! for anything that goes into an image.
#![expect(clippy::disallowed_methods, reason = "this room is the door")]

use std::time::{SystemTime, UNIX_EPOCH};

use crate::units::Timestamp;

/// Now, in whole seconds. A clock before 1970 reads as 1970.
#[must_use]
pub fn now() -> Timestamp {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    Timestamp::from_seconds(i64::try_from(seconds).unwrap_or(i64::MAX))
}
