//! Which driver is used, and why not another one.

use std::fmt;

use super::driver::Driver;
use super::refusal::SandboxRefusal;
use super::{SandboxSettings, Session};
use crate::layer::LayerError;

/// What the user wants of the drivers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SandboxChoice {
    /// The first that works.
    #[default]
    First,
    /// This one.
    Only(Driver),
}

impl SandboxChoice {
    /// The drivers to try, in order.
    #[must_use]
    pub fn drivers(self) -> Vec<Driver> {
        match self {
            Self::First => Driver::ALL.to_vec(),
            Self::Only(driver) => vec![driver],
        }
    }
}

/// A driver that was tried, and why it does not work if it does not.
#[derive(Debug)]
pub struct Verdict {
    /// The driver.
    pub driver: Driver,
    /// Why it cannot be used here; `None`: it can.
    pub refusal: Option<SandboxRefusal>,
}

/// Drivers that were refused before another one was tried.
#[derive(Debug, Default)]
pub struct Refused(pub Vec<(Driver, SandboxRefusal)>);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (driver, refusal)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "; " };
            write!(f, "{comma}not `{driver}`: {refusal}")?;
        }
        Ok(())
    }
}

/// Tries one driver out, by using it for nothing.
///
/// # Errors
///
/// Those of the machine; that the driver is refused is in the verdict.
pub fn try_driver(driver: Driver, settings: &SandboxSettings) -> Result<Verdict, LayerError> {
    let refusal = match Session::start_with(driver, settings).and_then(Session::end) {
        Ok(()) => None,
        Err(LayerError::Refused(refusal)) => Some(refusal),
        Err(error) => return Err(error),
    };
    Ok(Verdict { driver, refusal })
}

/// Tries the drivers of the user's choice until one works.
///
/// # Errors
///
/// As [`try_driver`].
pub fn probe(settings: &SandboxSettings) -> Result<Vec<Verdict>, LayerError> {
    let mut verdicts = Vec::new();
    for driver in settings.choice.drivers() {
        let verdict = try_driver(driver, settings)?;
        let works = verdict.refusal.is_none();
        verdicts.push(verdict);
        if works {
            break;
        }
    }
    Ok(verdicts)
}

/// An `AppArmor` profile that gives the program at `path` the user namespaces
/// that Ubuntu takes from programs without one. `unconfined` but for that.
#[must_use]
pub fn apparmor_profile(path: &str) -> String {
    format!(
        "# /etc/apparmor.d/consign: lets consign make user namespaces.\n\
         abi <abi/4.0>,\n\
         include <tunables/global>\n\
         \n\
         profile consign \"{path}\" flags=(unconfined) {{\n\
         \x20 userns,\n\
         \x20 include if exists <local/consign>\n\
         }}\n"
    )
}
