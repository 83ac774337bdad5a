//! `consign check`: judges `appliance.toml`, its layers and its lock.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::draw::ReportFormat;
use super::error::output;
use super::sandbox::outlook;
use crate::appliance::{Appliance, FILE_NAME};
use crate::boot::{CLEAN_RULES, CleanAction, TOOLS_PACKAGES};
use crate::error::Error;
use crate::layer::SandboxSettings;
use crate::layer::clean::{Action, RULES as LAYER_RULES};
use crate::plan::{BuildPlan, LOCK_FILE_NAME, Lock, check_local, request};

/// Judges appliance.toml, its layers and its lock. Reads no network and
/// writes nothing. With --sandbox, says which sandbox a build would use.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct CheckArgs {
    /// The appliance.
    #[arg(long, value_name = "FILE", default_value = FILE_NAME)]
    file: PathBuf,
    /// Lists the clean-image rules instead: what an image never has, by name
    /// and with the reason.
    #[arg(long)]
    rules: bool,
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
    if args.rules {
        let text = rules(args.format);
        out.write_all(text.as_bytes()).map_err(output)?;
        return Ok(());
    }
    let appliance = Appliance::open(&args.file)?;
    for layer in &appliance.layers {
        check_local(layer, &appliance)?;
    }
    BuildPlan::check_outputs(&appliance)?;
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

/// A rule for people and programs.
struct ListedRule {
    name: &'static str,
    reason: &'static str,
    does: &'static str,
    paths: Vec<&'static str>,
}

/// Every rule by name: those of layers, those of the finished tree, and what
/// a layer must not bring.
fn all_rules() -> Vec<ListedRule> {
    let mut all: BTreeMap<&str, ListedRule> = BTreeMap::new();
    let mut add = |name, reason, does, paths: &[&'static str]| {
        let rule = all.entry(name).or_insert_with(|| ListedRule {
            name,
            reason,
            does,
            paths: Vec::new(),
        });
        for path in paths {
            if !rule.paths.contains(path) {
                rule.paths.push(path);
            }
        }
    };
    for rule in LAYER_RULES {
        let does = match rule.action {
            Action::Remove => "removed",
            Action::RemoveUnlessShipped => "removed unless a package ships it",
            Action::Empty => "emptied",
        };
        add(rule.name, rule.reason, does, rule.paths);
    }
    for rule in CLEAN_RULES {
        let does = match rule.action {
            CleanAction::Remove => "removed",
            CleanAction::Empty => "emptied",
            CleanAction::Replace => "replaced",
        };
        add(rule.name, rule.reason, does, rule.patterns);
    }
    add(
        "no-private-keys",
        "what all customers share is no secret; `allow_secrets` of layer.toml makes exceptions",
        "refused in any layer, unless a Debian package ships it",
        &["**"],
    );
    add(
        "no-identity",
        "machine ids, host keys and seeds that a layer brings are those of one machine",
        "refused in any layer",
        &[
            "etc/machine-id",
            "etc/ssh/ssh_host_*",
            "var/lib/systemd/random-seed",
        ],
    );
    all.into_values().collect()
}

fn rules(format: ReportFormat) -> String {
    let rules = all_rules();
    if format == ReportFormat::Json {
        let rules = rules.iter().map(|rule| {
            json!({
                "name": rule.name,
                "reason": rule.reason,
                "does": rule.does,
                "paths": rule.paths,
            })
        });
        let rules: Vec<_> = rules.collect();
        return format!("{}\n", json!({ "rules": rules }));
    }
    let mut text = String::new();
    for rule in rules {
        writeln!(text, "{}: {}\n  {}", rule.name, rule.does, rule.reason)
            .expect("a string takes all");
        for path in rule.paths {
            writeln!(text, "  /{path}").expect("a string takes all");
        }
    }
    text
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
            rules: false,
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
    fn every_rule_is_listed_by_name_once_and_with_its_reason() {
        let rules = all_rules();
        for name in [
            "machine-id",
            "ssh-host-keys",
            "random-seed",
            "apt-lists",
            "logs",
            "caches",
            "python-bytecode",
            "user-database-backups",
            "conffile-leftovers",
            "shadow-dates",
            "no-private-keys",
        ] {
            assert_eq!(
                rules.iter().filter(|rule| rule.name == name).count(),
                1,
                "{name}"
            );
        }
        assert!(
            rules
                .iter()
                .all(|rule| !rule.reason.is_empty() && !rule.paths.is_empty())
        );
        let text = super::rules(ReportFormat::Text);
        assert!(
            text.contains("caches: removed unless a package ships it\n"),
            "{text}"
        );
        assert!(text.contains("  /var/cache/ldconfig/aux-cache\n"), "{text}");
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
