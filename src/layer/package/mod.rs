//! Packages into a root: unpacked by us, configured by the target's own dpkg.
//!
//! In: .debs in their order, a root. Out: the root with every package
//! `install ok installed`. Never here: dependencies (the lock has them), the
//! network. Checked by: the target's own `dpkg --audit` (`tests/it/layer.rs`).
//!
//! In which order, the packages themselves say (`order`): the lock has them
//! by name. All files are decompressed once, on all cores, into a staging folder on
//! the same file system. Then they are placed package by package, which is
//! only renaming, so that order, diversions and preinst scripts mean what
//! they mean to dpkg. Packages come in waves: the essential ones first, since
//! the scripts of the others count on them, then the rest; a package whose
//! preinst needs one of its own wave configured begins another one, and a very
//! large one (a kernel) comes last with what needs it. A wave waits for its
//! own packages only, so that scripts run while later ones are decompressed.

mod archive;
mod arrivals;
mod control;
mod database;
mod filter;
mod large;
mod order;
mod place;
mod plain;
mod stager;
mod waves;

use std::collections::BTreeSet;

use self::archive::Unpacked;
pub(super) use self::archive::files_of;
pub(crate) use self::archive::inspect;
use self::arrivals::{Arrivals, explain};
use self::control::Control;
use self::database::{Database, write_triggers};
pub(crate) use self::filter::PathFilter;
pub(super) use self::large::large_files;
use self::place::{Owners, place};
pub(super) use self::plain::is_sound as is_sound_plain;
use self::waves::{Wave, waves};
use super::sandbox::protocol::{DebFile, PackagesJob};
use super::sandbox::{Fault, Network, Root, ScriptRunner};
use super::source::deb::Version;
use crate::tree::TreePath;

/// A package that exists in dpkg's database only: it stands for what consign
/// does itself, so that dependencies on it hold for the target's own tools.
const INITRAMFS_STANZA: &str = "\
Package: consign-initramfs
Status: install ok installed
Priority: optional
Section: kernel
Maintainer: consign
Architecture: all
Multi-Arch: foreign
Version: 1
Provides: linux-initramfs-tool
Description: stands for the initramfs that comes with the image
 This package has no files. The initramfs of this image was made outside of
 it, when the image was built, and is replaced together with the kernel.
";

/// Longest `extended_states` that is read.
const MAX_STATES: u64 = 16 << 20;

/// What the synthetic package provides.
pub const PROVIDED: &[&str] = &["linux-initramfs-tool"];

/// Says how far a phase is.
pub(crate) type Watch<'a> = &'a (dyn Fn(&str, u64, u64) + Sync);

/// Installs the packages of `job`; staging happens in `stage`, which is
/// empty and on the root's file system. Gives the paths that the packages
/// brought, for the scan.
pub(crate) fn install(
    root: &mut Root,
    job: &PackagesJob,
    stage: &std::path::Path,
    source_date: i64,
    watch: Watch<'_>,
) -> Result<BTreeSet<TreePath>, Fault> {
    let filter = PathFilter::new(&job.exclude_paths, &job.include_paths);
    let Some(arrivals) = Arrivals::expect(&job.debs) else {
        return Err(explain(&job.debs, stage, &filter));
    };
    let waves = waves(arrivals.controls(), &arrivals.sizes());
    let is_first = |at| waves.first().is_some_and(|wave| wave.place.contains(&at));
    let unpacked = unpack_watch(&job.debs, watch);
    let shipped = arrivals.while_unpacking(stage, &filter, is_first, &unpacked, || {
        install_waves(root, &arrivals, &waves, source_date, watch)
    })?;
    // Every file has been renamed out of the staging folder or left out.
    std::fs::remove_dir_all(stage)
        .map_err(|error| Fault::system("remove", stage.display().to_string(), error))?;
    Ok(shipped)
}

fn install_waves(
    root: &mut Root,
    arrivals: &Arrivals<'_>,
    waves: &[Wave],
    source_date: i64,
    watch: Watch<'_>,
) -> Result<BTreeSet<TreePath>, Fault> {
    let controls = arrivals.controls();
    if let Some(wave) = waves.first() {
        arrivals.wait_for_each(&wave.place)?;
    }
    merge_usr(root, source_date)?;
    Database::create(root)?;
    let mut database = Database::read(root)?;
    check_new(controls, &database)?;
    let interested_before: BTreeSet<String> = database
        .packages
        .iter()
        .map(|installed| installed.database_name.clone())
        .collect();
    // Only packages that are there already have triggers to be set off.
    let new = if interested_before.is_empty() {
        Vec::new()
    } else {
        arrivals.wait_for_all()?
    };
    write_triggers(root, controls, &new, &interested_before)?;
    stand_in(root, controls, &mut database)?;
    let guard = ServiceGuard::put_up(root)?;
    let mut installer = Installer {
        root,
        arrivals,
        owners: Owners::default(),
        database,
        source_date,
        watch,
        configured: 0,
    };
    for wave in waves {
        installer.wave(wave)?;
    }
    let packages = arrivals.wait_for_all()?;
    mark_automatic(root, &packages)?;
    guard.take_down(root)?;
    Ok(shipped_paths(&packages))
}

/// Tells apt which packages came for another's sake, so that the target's own
/// `apt-get autoremove` knows what was asked for.
fn mark_automatic(root: &mut Root, packages: &[&Unpacked]) -> Result<(), Fault> {
    if root.status(&path_of("usr/bin/apt-get"))?.is_none() {
        return Ok(());
    }
    let place = path_of("var/lib/apt/extended_states");
    let mut text = root.read(&place, MAX_STATES)?.unwrap_or_default();
    for package in packages.iter().filter(|package| package.is_automatic) {
        let control = &package.control;
        // apt files packages for all architectures under the system's own.
        let architecture = match control.architecture() {
            "all" => "amd64",
            other => other,
        };
        let stanza = format!(
            "Package: {}\nArchitecture: {architecture}\nAuto-Installed: 1\n\n",
            control.package()
        );
        text.extend_from_slice(stanza.as_bytes());
    }
    root.write(&place, &text, 0o644)
}

/// Unpacks packages into `root` without running a script of theirs.
pub(crate) fn unpack_only(
    root: &mut Root,
    debs: &[DebFile],
    stage: &std::path::Path,
    watch: Watch<'_>,
) -> Result<(), Fault> {
    let filter = PathFilter::default();
    let Some(arrivals) = Arrivals::expect(debs) else {
        return Err(explain(debs, stage, &filter));
    };
    let unpacked = unpack_watch(debs, watch);
    arrivals.while_unpacking(
        stage,
        &filter,
        |_| false,
        &unpacked,
        || arrivals.wait_for_all().map(drop),
    )?;
    merge_usr(root, 0)?;
    let mut owners = Owners::default();
    let mut database = Database::default();
    for at in 0..debs.len() {
        place(root, &arrivals, at, &mut owners, &mut database)?;
    }
    Ok(())
}

/// Tells how far unpacking is, a package at a time.
fn unpack_watch<'a>(debs: &[DebFile], watch: Watch<'a>) -> impl Fn(u64) + Sync + 'a {
    use std::sync::atomic::{AtomicU64, Ordering};
    let total = debs.iter().map(|deb| deb.size).sum();
    let done = AtomicU64::new(0);
    move |size| {
        let done = done.fetch_add(size, Ordering::Relaxed) + size;
        watch("unpack", done, total);
    }
}

fn shipped_paths(packages: &[&Unpacked]) -> BTreeSet<TreePath> {
    packages
        .iter()
        .flat_map(|package| &package.entries)
        .map(|entry| entry.path.clone())
        .collect()
}

/// On a fresh root: the links of a merged /usr, before the first package.
fn merge_usr(root: &mut Root, source_date: i64) -> Result<(), Fault> {
    let path = |text: &str| TreePath::parse(text.as_bytes()).expect("a relative path");
    if root.status(&path("usr"))?.is_some() {
        return Ok(());
    }
    // Of the others, libc6 makes what it needs.
    for name in ["bin", "sbin", "lib", "lib64"] {
        let target = format!("usr/{name}");
        root.make_directories(&path(&target))?;
        let mut meta = crate::tree::Metadata::root_owned(0o777);
        meta.mtime = crate::units::Timestamp::from_seconds(source_date);
        root.place_symlink(&path(name), target.as_bytes(), &meta)?;
    }
    Ok(())
}

fn check_new(packages: &[Control], database: &Database) -> Result<(), Fault> {
    for control in packages {
        let name = control.database_name();
        let below = database
            .packages
            .iter()
            .find(|installed| installed.database_name == name);
        if let Some(below) = below {
            return Err(Fault::AlreadyInstalled {
                package: control.package().to_owned(),
                version: control.version().to_owned(),
                installed: below.stanza.get("Version").unwrap_or_default().to_owned(),
            });
        }
    }
    Ok(())
}

/// Enters the package that stands for our initramfs where a package needs
/// one and none brings one.
fn stand_in(root: &mut Root, packages: &[Control], database: &mut Database) -> Result<(), Fault> {
    let needs = |field| {
        packages.iter().any(|control| {
            let relations = control.relations(field);
            relations
                .iter()
                .flatten()
                .any(|relation| PROVIDED.contains(&relation.name.as_str()))
        })
    };
    let has = |names: &[String]| names.iter().any(|name| PROVIDED.contains(&name.as_str()));
    let is_provided = packages.iter().any(|control| has(&control.names()))
        || database.packages.iter().any(|installed| {
            let control = Control {
                stanza: installed.stanza.clone(),
                ..Control::default()
            };
            has(&control.names())
        });
    if is_provided || !(needs("Depends") || needs("Pre-Depends")) {
        return Ok(());
    }
    let stanza = control::Stanza::parse(INITRAMFS_STANZA).expect("a stanza of our own");
    database.enter_empty(root, "consign-initramfs", stanza)
}

struct Installer<'a> {
    root: &'a mut Root,
    arrivals: &'a Arrivals<'a>,
    owners: Owners,
    database: Database,
    source_date: i64,
    watch: Watch<'a>,
    configured: u64,
}

impl Installer<'_> {
    fn wave(&mut self, wave: &Wave) -> Result<(), Fault> {
        self.arrivals.wait_for_each(&wave.place)?;
        let is_first_ever = self.root.status(&path_of("usr/bin/dpkg"))?.is_none();
        let mut runner = None;
        if is_first_ever {
            // Nothing can run before the shell is there: all files first.
            let placed = self.place_all(&wave.place)?;
            let runner = runner.insert(self.start()?);
            for at in &wave.place {
                self.preinst(runner, *at)?;
            }
            self.enter_all(&placed)?;
        } else {
            let mut placed = Vec::new();
            for at in &wave.place {
                if self.has_preinst(*at) {
                    let runner = match &mut runner {
                        Some(runner) => runner,
                        none => none.insert(self.start()?),
                    };
                    self.preinst(runner, *at)?;
                    self.database.reread_rules(self.root)?;
                }
                placed.push((*at, self.place_one(*at)?));
            }
            self.enter_all(&placed)?;
        }
        self.placeholders()?;
        let mut runner = match runner {
            Some(runner) => runner,
            None => self.start()?,
        };
        self.configure(&mut runner, wave.configure.as_ref())?;
        runner.end()?;
        self.database = Database::read(self.root)?;
        let packages = self.database.unfinished();
        if wave.configure.is_some() || packages.is_empty() {
            Ok(())
        } else {
            Err(Fault::NotConfigured { packages })
        }
    }

    fn start(&mut self) -> Result<ScriptRunner, Fault> {
        for name in ["proc", "dev", "sys"] {
            self.root.make_directories(&path_of(name))?;
        }
        ScriptRunner::start(self.root, self.source_date, Network::Off)
    }

    fn has_preinst(&self, at: usize) -> bool {
        let control = self.arrivals.controls().get(at);
        control.is_some_and(|control| control.files.contains_key("preinst"))
    }

    fn place_one(&mut self, at: usize) -> Result<place::Placed, Fault> {
        place(
            self.root,
            self.arrivals,
            at,
            &mut self.owners,
            &mut self.database,
        )
    }

    fn place_all(&mut self, wave: &[usize]) -> Result<Vec<(usize, place::Placed)>, Fault> {
        let mut placed = Vec::new();
        for at in wave {
            placed.push((*at, self.place_one(*at)?));
        }
        Ok(placed)
    }

    fn enter_all(&mut self, placed: &[(usize, place::Placed)]) -> Result<(), Fault> {
        for (at, placed) in placed {
            let package = self.arrivals.wait_for(*at)?;
            self.database.enter(self.root, package, placed)?;
        }
        self.database.write_status(self.root)
    }

    /// Runs `preinst install`, as dpkg would, from where dpkg keeps it meanwhile.
    fn preinst(&mut self, runner: &mut ScriptRunner, at: usize) -> Result<(), Fault> {
        let package = self.arrivals.wait_for(at)?;
        let Some((script, _)) = package.control.files.get("preinst") else {
            return Ok(());
        };
        let place = path_of("var/lib/dpkg/tmp.ci/preinst");
        self.root.write(&place, script, 0o755)?;
        let name = package.control.package().to_owned();
        let environment = [
            ("DPKG_MAINTSCRIPT_NAME", "preinst"),
            ("DPKG_MAINTSCRIPT_PACKAGE", &name),
            ("DPKG_MAINTSCRIPT_ARCH", package.control.architecture()),
            ("DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT", "1"),
            ("DPKG_ADMINDIR", "/var/lib/dpkg"),
            ("DPKG_ROOT", ""),
        ];
        let environment = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let run = runner.run(vec![format!("/{place}"), "install".to_owned()], environment)?;
        self.root.remove(&path_of("var/lib/dpkg/tmp.ci"))?;
        self.root.forget();
        if run.is_success {
            return Ok(());
        }
        Err(Fault::Script {
            package: name,
            script: "preinst".to_owned(),
            status: run.status,
            output: run.output,
        })
    }

    fn configure(
        &mut self,
        runner: &mut ScriptRunner,
        only: Option<&BTreeSet<usize>>,
    ) -> Result<(), Fault> {
        let fixed = [
            "/usr/bin/dpkg",
            "--force-unsafe-io",
            "--force-confdef",
            "--force-confold",
            "--abort-after=1",
            "--log=/dev/null",
            "--no-pager",
            "--configure",
        ];
        let names = match only {
            None => vec!["-a".to_owned()],
            Some(only) => only
                .iter()
                .filter_map(|at| self.arrivals.controls().get(*at))
                .map(Control::database_name)
                .collect(),
        };
        let total = self.arrivals.controls().len() as u64;
        let watch = self.watch;
        let configured = &mut self.configured;
        let mut last = String::new();
        let argv = fixed.iter().map(|word| (*word).to_owned()).chain(names);
        let run = runner.run_dpkg(argv.collect(), &mut |package| {
            if package != last {
                package.clone_into(&mut last);
                *configured = (*configured + 1).min(total);
                watch("configure", *configured, total);
            }
        })?;
        if run.is_success {
            return Ok(());
        }
        Err(match run.package {
            Some(package) => Fault::Script {
                package,
                script: "postinst".to_owned(),
                status: run.status,
                output: run.output,
            },
            None => Fault::Dpkg {
                status: run.status,
                output: run.output,
            },
        })
    }

    /// Keeps openssh-server from making host keys, which take seconds and
    /// would be thrown away: it leaves files alone that are there. The
    /// placeholders go with the rule `ssh-host-keys`.
    fn placeholders(&mut self) -> Result<(), Fault> {
        if self.root.status(&path_of("usr/sbin/sshd"))?.is_none() {
            return Ok(());
        }
        for kind in ["rsa", "ecdsa", "ed25519"] {
            let path = path_of(&format!("etc/ssh/ssh_host_{kind}_key"));
            if self.root.status(&path)?.is_none() {
                self.root.write(&path, b"", 0o600)?;
            }
        }
        Ok(())
    }
}

fn path_of(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).expect("a relative path without dots")
}

/// `policy-rc.d`, which keeps packages from starting services while they are
/// configured (`invoke-rc.d`(8): 101 is "action forbidden by policy").
pub(crate) struct ServiceGuard {
    had_one: bool,
}

const GUARD: &str = "usr/sbin/policy-rc.d";
const GUARD_ASIDE: &str = "usr/sbin/.policy-rc.d.consign";

impl ServiceGuard {
    pub(crate) fn put_up(root: &mut Root) -> Result<Self, Fault> {
        let had_one = root.status(&path_of(GUARD))?.is_some();
        if had_one {
            root.rename(&path_of(GUARD), &path_of(GUARD_ASIDE))?;
        }
        root.write(&path_of(GUARD), b"#!/bin/sh\nexit 101\n", 0o755)?;
        Ok(Self { had_one })
    }

    pub(crate) fn take_down(self, root: &mut Root) -> Result<(), Fault> {
        root.remove(&path_of(GUARD))?;
        if self.had_one {
            root.rename(&path_of(GUARD_ASIDE), &path_of(GUARD))?;
        }
        Ok(())
    }
}

/// Whether `version` is in the relation `operator` to `limit`.
fn satisfies(version: &str, operator: &str, limit: &str) -> bool {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let (Some(version), Some(limit)) = (Version::parse(version), Version::parse(limit)) else {
        return false;
    };
    let order = version.cmp(&limit);
    match operator {
        "<<" => order == Less,
        "<=" => order != Greater,
        "=" => order == Equal,
        ">=" => order != Less,
        ">>" => order == Greater,
        _ => false,
    }
}
