//! `consign check`: judges `appliance.toml`, its layers and its lock.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::draw::ReportFormat;
use super::error::output;
use super::sandbox::outlook;
use crate::appliance::{Appliance, FILE_NAME, LayerKind};
use crate::boot::TOOLS_PACKAGES;
use crate::error::Error;
use crate::layer::SandboxSettings;
use crate::plan::{LOCK_FILE_NAME, Lock, digest_of_folder, request};

/// Judges appliance.toml, its layers and its lock. Reads no network and
/// writes nothing. With --sandbox, says which sandbox a build would use.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct CheckArgs {
    /// The appliance.
    #[arg(long, value_name = "FILE", default_value = FILE_NAME)]
    file: PathBuf,
    /// What to print.
    #[arg(long, value_enum, default_value_t)]
    format: ReportFormat,
}

impl CheckArgs {
    /// How the user wants errors.
    pub(super) fn format(&self) -> ReportFormat {
        self.format
    }
}

/// How the lock stands to the appliance.
enum LockState {
    None,
    Fits { packages: usize },
    Drifted { how: Vec<String> },
}

/// Runs the subcommand; what is wrong is the error.
///
/// # Errors
///
/// [`Error::Appliance`] and [`Error::Plan`].
pub(super) fn run(
    args: &CheckArgs,
    sandbox: Option<&SandboxSettings>,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let appliance = Appliance::open(&args.file)?;
    for layer in &appliance.layers {
        if let LayerKind::Files(files) = &layer.kind {
            digest_of_folder(&files.folder)?;
        }
    }
    let lock = lock_state(&appliance, &args.file)?;
    // Only on request: it says something about the machine, not the appliance.
    let sandbox = sandbox.map(outlook).transpose()?;
    let text = match args.format {
        ReportFormat::Text => {
            let clause = sandbox.map(|(clause, _)| format!("sandbox: {clause}\n"));
            text(&appliance, &args.file, &lock) + &clause.unwrap_or_default()
        }
        ReportFormat::Json => {
            let mut report = json(&appliance, &lock);
            if let Some((_, sandbox)) = sandbox {
                report["sandbox"] = sandbox;
            }
            format!("{report}\n")
        }
    };
    out.write_all(text.as_bytes()).map_err(output)?;
    Ok(())
}

fn lock_state(appliance: &Appliance, file: &Path) -> Result<LockState, Error> {
    let Some(lock) = Lock::open(&file.with_file_name(LOCK_FILE_NAME))? else {
        return Ok(LockState::None);
    };
    let drift = lock.drift(&request(appliance, TOOLS_PACKAGES));
    Ok(if drift.is_empty() {
        LockState::Fits {
            packages: lock.packages().count(),
        }
    } else {
        LockState::Drifted {
            how: drift.iter().map(ToString::to_string).collect(),
        }
    })
}

fn text(appliance: &Appliance, file: &Path, lock: &LockState) -> String {
    let layers: Vec<_> = appliance
        .layers
        .iter()
        .map(|one| one.name.as_str())
        .collect();
    let lock = match lock {
        LockState::None => "no lock yet: `consign build` makes it".to_owned(),
        LockState::Fits { packages } => format!("fits, {packages} packages"),
        LockState::Drifted { how } => format!(
            "has fallen behind: {}\n`consign lock` makes it anew",
            how.join("; ")
        ),
    };
    format!(
        "{}: sound\n  {} {}, layers {}\n{LOCK_FILE_NAME}: {lock}\n",
        file.display(),
        appliance.name,
        appliance.version,
        layers.join(", "),
    )
}

fn json(appliance: &Appliance, lock: &LockState) -> Value {
    let (state, drift) = match lock {
        LockState::None => ("none", &[][..]),
        LockState::Fits { .. } => ("fits", &[][..]),
        LockState::Drifted { how } => ("drifted", how.as_slice()),
    };
    let layers: Vec<_> = appliance.layers.iter().map(|one| &one.name).collect();
    json!({
        "name": appliance.name,
        "version": appliance.version,
        "layers": layers,
        "lock": state,
        "drift": drift,
    })
}

#[cfg(test)]
mod tests {
    use super::super::init;
    use super::*;

    fn checked(folder: &Path, format: ReportFormat) -> Result<String, Error> {
        let args = CheckArgs {
            file: folder.join(FILE_NAME),
            format,
        };
        let mut out = Vec::new();
        run(&args, None, &mut out)?;
        Ok(String::from_utf8(out).expect("UTF-8"))
    }

    #[test]
    fn a_sound_appliance_without_a_lock_is_said_to_be_sound() {
        let folder = init::tests::starter("wiki");
        let path = folder.path().join(FILE_NAME);
        assert_eq!(
            checked(folder.path(), ReportFormat::Text).expect("sound"),
            format!(
                "{}: sound\n  wiki 0.1.0, layers base, app\n\
                 appliance.lock: no lock yet: `consign build` makes it\n",
                path.display()
            )
        );
        assert_eq!(
            checked(folder.path(), ReportFormat::Json).expect("sound"),
            "{\"drift\":[],\"layers\":[\"base\",\"app\"],\"lock\":\"none\",\
             \"name\":\"wiki\",\"version\":\"0.1.0\"}\n"
        );
    }

    #[test]
    fn a_lock_that_fell_behind_is_said_to_have() {
        let folder = init::tests::starter("wiki");
        let appliance = Appliance::open(&folder.path().join(FILE_NAME)).expect("sound");
        let mut asked = request(&appliance, TOOLS_PACKAGES);
        asked.suite = "bullseye".into();
        let lock = Lock::new(&asked, Vec::new(), vec![Vec::new()], Vec::new());
        std::fs::write(folder.path().join(LOCK_FILE_NAME), lock.to_string()).expect("write");
        let said = checked(folder.path(), ReportFormat::Text).expect("sound");
        assert!(
            said.ends_with(
                "appliance.lock: has fallen behind: the suite is `bookworm`, it was `bullseye`\n\
                 `consign lock` makes it anew\n"
            ),
            "{said}"
        );
    }

    #[test]
    fn what_a_build_would_refuse_is_refused() {
        let folder = init::tests::starter("wiki");
        let socket = folder.path().join("layers/app/files/socket");
        let _socket = std::os::unix::net::UnixListener::bind(&socket).expect("socket");
        let error = checked(folder.path(), ReportFormat::Text).expect_err("a socket");
        assert_eq!(error.slug(), "plan-odd-file");
    }
}
