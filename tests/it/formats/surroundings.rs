//! Every output is the same bytes whoever writes it, and in whatever
//! surroundings: another user, umask, locale, time zone, time, working folder
//! and number of threads.
#![expect(
    clippy::disallowed_types,
    reason = "the test starts consign as another user"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use consign::image::ImageFormat;
use consign::units::MIB;

use super::image::disk;
use super::inspect::write_every;
use crate::support::{
    consign, consign_path, copy_program, is_root, must_run, program, repo_root, temp_folder,
};

const SITE: &str = "schema = 1\n[config]\nid = \"a\"\nserial = 1\n[system]\nhostname = \"a\"\n";

/// Arguments that make each output, and the name of its file.
fn outputs() -> Vec<(Vec<&'static str>, String)> {
    let mut all: Vec<_> = ImageFormat::ALL
        .iter()
        .map(|format| {
            let mut args = vec!["convert", "disk.raw", "-O", format.name()];
            if *format == ImageFormat::Ova {
                args.extend(["--appliance", "appliance.toml"]);
            }
            (args, format!("made.{format}"))
        })
        .collect();
    let zstd = vec!["convert", "disk.raw", "-O", "qcow2", "--zstd", "5"];
    all.push((zstd, "made-zstd.qcow2".into()));
    for (format, ending) in [("fat", "img"), ("iso", "iso")] {
        let disk = vec!["config", "disk", "site.toml", "--roles", "roles"];
        all.push((
            [disk, vec!["--format", format]].concat(),
            format!("made.{ending}"),
        ));
    }
    all
}

/// `consign` as nobody, where this process may become that user.
fn elsewhere(program_copy: &Path) -> Command {
    let surroundings = "umask 077; exec \"$@\"";
    let mut command = if is_root() {
        let mut setpriv = program("setpriv", "util-linux").expect("it is everywhere");
        setpriv.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
        setpriv.args(["sh", "-c", surroundings, "sh"]);
        setpriv
    } else {
        let mut shell = program("sh", "dash").expect("it is everywhere");
        shell.args(["-c", surroundings, "sh"]);
        shell
    };
    command.arg(program_copy);
    command.env_clear().env("PATH", "/usr/bin:/bin");
    command
        .env("TZ", "Pacific/Chatham")
        .env("LC_ALL", "C.UTF-8");
    command
}

#[test]
fn neither_user_nor_umask_nor_locale_nor_time_nor_place_shows_in_any_output() {
    let folder = temp_folder();
    write_every(&disk(12 * MIB), folder.path());
    let at = |name: &str| folder.path().join(name);
    fs::write(at("site.toml"), SITE).expect("write");
    fs::create_dir(at("roles")).expect("make");
    let mut copy = program("cp", "coreutils").expect("it is everywhere");
    copy.arg("-r").arg(repo_root().join("layers"));
    copy.arg(repo_root().join("appliance.toml"));
    must_run(copy.arg(folder.path()));
    copy_program(consign_path(), &at("consign"));

    let other = folder.path().join("an other place");
    fs::create_dir(&other).expect("make");
    for (path, mode) in [(folder.path(), 0o755), (&other, 0o777)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("our folder");
    }
    for (args, name) in outputs() {
        let mut here = consign();
        here.args(&args).args(["-o", &name]);
        must_run(here.current_dir(folder.path()));
    }
    // Times of all inputs change, and the clock goes on.
    let mut touch = program("touch", "coreutils").expect("it is everywhere");
    let inputs = ["disk.raw", "site.toml", "appliance.toml", "roles"].map(at);
    must_run(touch.args(["-d", "2031-02-03 04:05:06"]).args(inputs));
    for (args, name) in outputs() {
        let mut there = elsewhere(&at("consign"));
        for arg in args {
            let input = at(arg);
            if input.exists() {
                there.arg(input);
            } else {
                there.arg(arg);
            }
        }
        if name.starts_with("made.") && !name.ends_with("iso") && !name.ends_with("img") {
            there.args(["--jobs", "7"]);
        }
        must_run(there.args(["-o", &name]).current_dir(&other));
        let (one, two) = (fs::read(at(&name)), fs::read(other.join(&name)));
        assert!(one.expect("read") == two.expect("read"), "{name} differs");
    }
}
