//! Hooks: programs of a role that the vendor signed, at certain moments.
//!
//! In: a role's `[[hook]]` tables and the configuration. Out: nothing, or why
//! a hook failed; a step with a hook that failed has failed.
//! Never here: a program that nobody signed, a shell, a secret.
//!
//! Each runs as a unit of systemd's, so that it has a control group of its own
//! that ends with it, a time limit, and no network unless the role says so.
//! What it is to know is JSON on its standard input. A file of the image is
//! signed by the vendor beside it (`FILE.sig`, SSHSIG for `consign-hook`), one
//! of a bundle with the bundle.

use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use consign_schema::hook::{Hook, Program, When};
use consign_schema::{ParamValue, Role, SiteConfig};

use crate::bundle::{CURRENT, RELEASES, VENDOR};
use crate::configure::judge_by;
use crate::generation::Generation;
use crate::image::{Image, ROLES, Vendor};
use crate::item::Item;
use crate::media::SITE_FILE;
use crate::root::{Access, Root};
use crate::systemd::{self, READY_TARGET, Request};
use crate::text::quoted;
use crate::trust::{self, Key};

/// The unit that a hook runs as.
pub const UNIT: &str = "consign-hook.service";
const FOLDER: &str = "/run/systemd/system";
const INPUT: &str = "/run/consign/hook.json";
/// Held while a hook runs: they share one unit and one input.
const LOCK: &str = "/run/consign/hook.lock";
/// No hook takes longer.
const PATIENCE: Duration = Duration::from_mins(11);
const PUPPET: &str = "/usr/bin/puppet";
/// A hook is at most this long, in bytes.
const MAX_SIZE: usize = 4 << 20;

/// Runs the hooks of the configuration's role at a moment, in their order.
/// A folder that stands for a system has none.
///
/// # Errors
///
/// The first one that is not signed or fails.
pub fn run(root: &Root, generation: &Generation, when: When) -> io::Result<()> {
    if generation.role.is_none() || !root.is_system()? {
        return Ok(());
    }
    let Some((role, site)) = due(root, generation, when)? else {
        return Ok(());
    };
    for hook in role.hooks.iter().filter(|hook| hook.when == when) {
        run_one(root, generation, &role, hook, &input(root, &site, when)).map_err(|error| {
            let (what, name) = (hook.file(), &role.name);
            io::Error::other(format!(
                "the {} hook {what} of role {name}: {error}",
                when.name()
            ))
        })?;
    }
    Ok(())
}

/// The role that has hooks for a moment, and what they are told of; nothing
/// when it has none. What cannot be asked has not agreed.
fn due(root: &Root, generation: &Generation, when: When) -> io::Result<Option<(Role, SiteConfig)>> {
    let name = generation.role.as_deref().unwrap_or_default();
    let vendor = Vendor::load(root).map_err(|fault| {
        let file = &fault.file;
        io::Error::other(format!("hooks of role {name} do not run: {file} is faulty"))
    })?;
    let role = vendor.roles.iter().find(|role| role.name == name);
    let role = role.ok_or_else(|| io::Error::other(format!("this image has no role {name}")))?;
    if !role.hooks.iter().any(|hook| hook.when == when) {
        return Ok(None);
    }
    let site = judge_by(&vendor, &generation.site, SITE_FILE).map_err(|_| {
        io::Error::other(format!(
            "the {} hooks of role {name} do not run: this image does not accept the configuration",
            when.name()
        ))
    })?;
    Ok(Some((role.clone(), site)))
}

fn run_one(
    root: &Root,
    generation: &Generation,
    role: &Role,
    hook: &Hook,
    input: &str,
) -> io::Result<()> {
    let path = place(root, generation, role, hook)?;
    let _lock = root.lock_within(LOCK, PATIENCE).map_err(|error| {
        if error.kind() == io::ErrorKind::WouldBlock {
            io::Error::other("another hook does not end; try again later")
        } else {
            error
        }
    })?;
    let unit = format!("{FOLDER}/{UNIT}");
    // Its agent was ended, and it may still run: a start would join it.
    if root.exists(&unit) {
        systemd::ask(Request::Stop(UNIT))?;
    }
    root.put(INPUT, input.as_bytes(), Access::own(0o600))?;
    root.put(
        &unit,
        unit_text(role, hook, &path).as_bytes(),
        Access::own(0o644),
    )?;
    let done = systemd::ask(Request::Reload).and_then(|()| systemd::ask(Request::Start(UNIT)));
    root.remove(&unit)?;
    root.remove(INPUT)?;
    if let Err(error) = systemd::ask(Request::Reload) {
        complain!("{UNIT} stays known: {error}");
    }
    done.map_err(|_| {
        io::Error::other(format!(
            "it failed; `journalctl -b -u {UNIT}` has what it said"
        ))
    })
}

/// Where the file is, which the vendor signed. That of a bundle is in the
/// release that the generation uses, whether it counts already or not.
fn place(root: &Root, generation: &Generation, role: &Role, hook: &Hook) -> io::Result<String> {
    let missing = |path: &str| io::Error::other(format!("{path} is missing"));
    if let Some(bundle) = &hook.bundle {
        let link = format!("{CURRENT}/{bundle}");
        let release = generation.items.iter().find_map(|item| match item {
            Item::Link { path, target } if *path == link => target.rsplit('/').next(),
            _ => None,
        });
        let release = release.ok_or_else(|| {
            io::Error::other(format!(
                "the configuration comes without the bundle {bundle}"
            ))
        })?;
        let path = format!("{RELEASES}/{release}/{}", hook.file());
        return if root.exists(&path) {
            Ok(path)
        } else {
            Err(missing(&path))
        };
    }
    let path = format!("{ROLES}/{}/{}", role.name, hook.file());
    let bytes = root.read(&path, MAX_SIZE)?.ok_or_else(|| missing(&path))?;
    let keys = root.read_text(VENDOR, trust::MAX_SIGNATURE)?;
    let keys = Key::parse_all(&keys).unwrap_or_default();
    let signature = root.read(&format!("{path}.sig"), trust::MAX_SIGNATURE)?;
    trust::verify(&bytes, &signature.unwrap_or_default(), trust::HOOK, &keys)
        .map_err(|error| io::Error::other(format!("it is not signed by the vendor: {error}")))?;
    Ok(path)
}

fn unit_text(role: &Role, hook: &Hook, path: &str) -> String {
    let mut text = format!(
        "[Unit]\nDescription=Hook {} of role {}\nDefaultDependencies=no\nCollectMode=inactive-or-failed\n\
         Before={READY_TARGET}\n\n[Service]\nType=oneshot\nStandardInput=file:{INPUT}\n\
         TimeoutStartSec={}\nKillMode=control-group\nPrivateNetwork={}\n",
        hook.when.name(),
        role.name,
        hook.timeout,
        if hook.network { "no" } else { "yes" },
    );
    let _ = match &hook.program {
        Program::File(_) => writeln!(text, "ExecStart={path}"),
        // Its exit status is 2 when something was changed, and nothing failed.
        Program::Puppet(_) => writeln!(
            text,
            "Environment=FACTER_role={} HOME=/root\nSuccessExitStatus=2\n\
             ExecStart={PUPPET} apply --detailed-exitcodes --color=false {path}",
            role.name
        ),
    };
    text
}

/// What a hook is told.
fn input(root: &Root, site: &SiteConfig, when: When) -> String {
    let image = Image::load(root);
    let app: Vec<String> = site
        .app
        .iter()
        .map(|(name, value)| {
            let value = match value {
                ParamValue::Int(number) => number.to_string(),
                ParamValue::Bool(value) => value.to_string(),
                other => quoted(&other.to_string()),
            };
            format!("{}:{value}", quoted(name))
        })
        .collect();
    let hostname = site.system.hostname.as_ref().map(ToString::to_string);
    format!(
        "{{\"schema\":1,\"moment\":{},\"role\":{},\"id\":{},\"serial\":{},\"image\":{},\
         \"version\":{},\"hostname\":{},\"app\":{{{}}}}}\n",
        quoted(when.name()),
        quoted(site.role.as_deref().unwrap_or_default()),
        quoted(site.id.as_str()),
        site.serial,
        quoted(&image.name),
        quoted(&image.version),
        quoted(hostname.as_deref().unwrap_or("localhost")),
        app.join(","),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::testing::Folder;
    use crate::trust::testing::by_ssh;

    fn role(text: &str) -> Role {
        let head = "schema = 1\nname = \"web\"\ndescription = \"x\"\n";
        Role::parse(&format!("{head}[[hook]]\n{text}")).expect("a role")
    }

    #[test]
    fn only_what_the_vendor_signed_runs() {
        const CHECK: &[u8] = b"#!/bin/true\n";
        let (key, other) = (
            tempfile::tempdir().expect("a folder"),
            tempfile::tempdir().expect("a folder"),
        );
        let sign = |folder: &std::path::Path, text, purpose| {
            by_ssh(folder, text, purpose).expect("ssh-keygen").1
        };
        let good = sign(key.path(), CHECK, trust::HOOK);
        let vendor = std::fs::read(key.path().join("key.pub")).expect("a key");
        let role = role("when = \"verify\"\nrun = \"check\"\n");
        let tried = |vendor: Option<&[u8]>, signature: Option<&[u8]>| {
            let folder = Folder::new();
            let file = format!("{ROLES}/web/check");
            let put = |path: &str, bytes: &[u8]| {
                folder
                    .root
                    .put(path, bytes, Access::own(0o755))
                    .expect("put");
            };
            put(&file, CHECK);
            if let Some(key) = vendor {
                put(VENDOR, key);
            }
            if let Some(signature) = signature {
                put(&format!("{file}.sig"), signature);
            }
            place(&folder.root, &Generation::default(), &role, &role.hooks[0])
                .map_err(|error| error.to_string())
        };
        assert_eq!(
            tried(Some(&vendor), Some(&good)).expect("signed"),
            "/usr/lib/consign/roles/web/check"
        );
        for (vendor, signature) in [
            (Some(vendor.as_slice()), None),
            (Some(&vendor), Some(sign(other.path(), CHECK, trust::HOOK))),
            (Some(&vendor), Some(sign(key.path(), b"other", trust::HOOK))),
            (Some(&vendor), Some(sign(key.path(), CHECK, trust::POLICY))),
            (None, Some(good.clone())),
        ] {
            let error = tried(vendor, signature.as_deref()).expect_err("refused");
            assert!(error.contains("not signed by the vendor"), "{error}");
        }
    }

    #[test]
    fn hooks_that_cannot_be_asked_have_not_agreed() {
        const ROLE: &str = "/usr/lib/consign/roles/web/role.toml";
        let head = "schema = 1\nname = \"web\"\ndescription = \"x\"\n";
        let hook = format!("{head}[[hook]]\nwhen = \"verify\"\nrun = \"check\"\n");
        let generation = |hostname: &str| {
            Generation {
            role: Some("web".into()),
            site: format!(
                "schema = 1\n[config]\nid = \"a\"\nserial = 1\n[system]\nhostname = \"{hostname}\"\n"
            )
            .into_bytes(),
            ..Generation::default()
        }
        };
        let asked = |file: &str, text: &str, hostname: &str| {
            let folder = Folder::with(&[(file, text)]);
            due(&folder.root, &generation(hostname), When::Verify)
                .map(|found| found.is_some())
                .map_err(|error| error.to_string())
        };
        assert_eq!(asked(ROLE, &hook, "web"), Ok(true));
        // Without hooks there is nothing to ask.
        assert_eq!(asked(ROLE, head, "w_b"), Ok(false));
        let error = asked(ROLE, &hook, "w_b").expect_err("refused");
        assert!(error.contains("does not accept"), "{error}");
        let error = asked(ROLE, "rubbish", "web").expect_err("faulty");
        assert!(error.contains("role.toml is faulty"), "{error}");
        let error = asked("/etc/x", "", "web").expect_err("no role");
        assert_eq!(error, "this image has no role web");
    }

    #[test]
    fn a_hook_of_a_bundle_has_to_be_there() {
        let role = role("when = \"verify\"\nrun = \"bin/check\"\nbundle = \"app\"\n");
        let hook = &role.hooks[0];
        // What is in use now is not what judges the next configuration.
        let folder = Folder::with(&[(&format!("{CURRENT}/app/bin/check"), "")]);
        let mut next = Generation::default();
        let error = place(&folder.root, &next, &role, hook).expect_err("no bundle");
        assert!(error.to_string().contains("the bundle app"), "{error}");
        next.items.push(Item::Link {
            path: format!("{CURRENT}/app"),
            target: "../releases/aa".into(),
        });
        let path = format!("{RELEASES}/aa/bin/check");
        let error = place(&folder.root, &next, &role, hook).expect_err("missing");
        assert_eq!(error.to_string(), format!("{path} is missing"));
        folder
            .root
            .put(&path, b"", Access::own(0o755))
            .expect("put");
        assert_eq!(
            place(&folder.root, &next, &role, hook).expect("there"),
            path
        );
    }

    #[test]
    fn a_unit_bounds_what_runs() {
        let text = |text: &str| {
            let role = role(text);
            unit_text(&role, &role.hooks[0], "/p")
        };
        let unit = text("when = \"verify\"\nrun = \"check\"\ntimeout = 7\n");
        for line in [
            "ExecStart=/p\n",
            "TimeoutStartSec=7\n",
            "PrivateNetwork=yes\n",
            "StandardInput=file:/run/consign/hook.json\n",
        ] {
            assert!(unit.contains(line), "{unit}");
        }
        let unit = text("when = \"post-activate\"\npuppet = \"site.pp\"\nnetwork = true\n");
        for line in [
            "ExecStart=/usr/bin/puppet apply --detailed-exitcodes --color=false /p\n",
            "Environment=FACTER_role=web HOME=/root\n",
            "SuccessExitStatus=2\n",
            "PrivateNetwork=no\n",
        ] {
            assert!(unit.contains(line), "{unit}");
        }
    }
}
