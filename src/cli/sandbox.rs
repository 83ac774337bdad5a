//! `consign sandbox`: which sandbox packages would be installed in, and why.

use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

use super::build::Context;
use super::draw::ReportFormat;
use super::error::output;
use crate::error::Error;
use crate::layer::sandbox::{
    Driver, SandboxChoice, SandboxRefusal, SandboxSettings, Verdict, apparmor_profile, probe,
    try_driver,
};
use crate::plan::{LOCK_FILE_NAME, Lock};

/// Tells which sandbox packages would be installed in on this machine, and why
/// not another one. Each is tried by using it for nothing.
///
/// Layers that are in the cache need none. Where an ordinary user has none,
/// the reason says which command, run once as root, changes that.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct SandboxArgs {
    /// Prints an `AppArmor` profile that gives this consign the user namespaces
    /// that Ubuntu takes from programs without one.
    #[arg(long)]
    apparmor_profile: bool,
    /// What to print.
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: ReportFormat,
}

/// `auto`, or the name of a driver.
///
/// # Errors
///
/// The names that are known.
pub(super) fn choice(text: &str) -> Result<SandboxChoice, String> {
    if text == "auto" {
        return Ok(SandboxChoice::First);
    }
    let names = || Driver::ALL.map(Driver::name).join(", ");
    let driver = Driver::parse(text).ok_or_else(|| format!("known are auto, {}", names()))?;
    Ok(SandboxChoice::Only(driver))
}

/// Runs the subcommand.
///
/// # Errors
///
/// That of the machine; a driver that does not work is none.
pub(super) fn run(
    args: &SandboxArgs,
    context: &Context<'_>,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let lock = Lock::open(Path::new(LOCK_FILE_NAME)).ok().flatten();
    let settings = context.sandbox_settings(lock.as_ref());
    if args.apparmor_profile {
        let profile = apparmor_profile(&settings.program.display().to_string());
        out.write_all(profile.as_bytes()).map_err(output)?;
        return Ok(());
    }
    let verdicts = settings.choice.drivers().into_iter();
    let verdicts = verdicts.map(|driver| try_driver(driver, &settings));
    let verdicts: Vec<Verdict> = verdicts.collect::<Result<_, _>>()?;
    let text = match args.format {
        ReportFormat::Text => table(&verdicts),
        ReportFormat::Json => format!("{}\n", as_json(&verdicts)),
    };
    out.write_all(text.as_bytes()).map_err(output)?;
    Ok(())
}

fn table(verdicts: &[Verdict]) -> String {
    let mut text = String::new();
    let used = used(verdicts);
    for verdict in verdicts {
        let driver = verdict.driver;
        let state = match &verdict.refusal {
            None if Some(driver) == used => "works, and is used".to_owned(),
            None => "works".to_owned(),
            Some(refusal) => format!("no: {refusal}"),
        };
        let name = driver.name();
        let summary = driver.summary();
        text.extend([format!("{name:7} {summary}\n        {state}\n")]);
        if let Some(hint) = verdict.refusal.as_ref().and_then(SandboxRefusal::hint) {
            text.extend([format!("        hint: {hint}\n")]);
        }
    }
    if used.is_none() {
        text.push_str("no sandbox works here: only cached layers can be used\n");
    }
    text
}

fn used(verdicts: &[Verdict]) -> Option<Driver> {
    let works = verdicts.iter().find(|verdict| verdict.refusal.is_none());
    works.map(|verdict| verdict.driver)
}

fn as_json(verdicts: &[Verdict]) -> Value {
    let tried = verdicts.iter().map(|verdict| {
        let refusal = verdict.refusal.as_ref();
        json!({
            "driver": verdict.driver.name(),
            "works": refusal.is_none(),
            "reason": refusal.map(ToString::to_string),
            "slug": refusal.map(SandboxRefusal::slug),
            "hint": refusal.and_then(SandboxRefusal::hint),
        })
    });
    json!({
        "used": used(verdicts).map(Driver::name),
        "drivers": tried.collect::<Vec<_>>(),
    })
}

/// The driver that a build would use, in one clause, and as JSON.
///
/// # Errors
///
/// As [`run`].
pub(super) fn outlook(settings: &SandboxSettings) -> Result<(String, Value), Error> {
    let verdicts = probe(settings)?;
    let refused: Vec<String> = verdicts
        .iter()
        .filter_map(|verdict| {
            let refusal = verdict.refusal.as_ref()?;
            Some(format!("not `{}`: {refusal}", verdict.driver))
        })
        .collect();
    let driver = used(&verdicts).map_or("none".to_owned(), |driver| format!("`{driver}`"));
    let clause = [vec![driver], refused].concat().join("; ");
    Ok((clause, as_json(&verdicts)))
}
