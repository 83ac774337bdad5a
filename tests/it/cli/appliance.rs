//! `consign init` and `consign check` from outside: all they print, and
//! their exit codes.

use std::path::Path;
use std::process::Output;

use crate::support::sample::{self, MINIMAL};
use crate::support::{consign, golden, must_run, run, temp_folder};

/// Runs `consign` in `folder`, which no output names.
fn consign_in(folder: &Path, args: &[&str]) -> Output {
    let mut command = consign();
    command.current_dir(folder).args(args);
    run(&mut command)
}

/// The call, its exit code and all it said.
fn transcript(folder: &Path, args: &[&str]) -> String {
    let output = consign_in(folder, args);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    format!(
        "$ consign {}\n--- exit code {}\n--- standard output\n{}--- standard error\n{}",
        args.join(" "),
        output.status.code().expect("no signal"),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn from_nothing_to_a_sound_appliance_and_back_to_a_wrong_one() {
    let folder = temp_folder();
    let mut said = vec![
        transcript(folder.path(), &["check"]),
        transcript(folder.path(), &["init", "my wiki"]),
        transcript(folder.path(), &["init", "wiki"]),
        transcript(folder.path(), &["init", "wiki"]),
        transcript(folder.path(), &["check"]),
        transcript(folder.path(), &["check", "--format", "json"]),
    ];
    let path = folder.path().join("appliance.toml");
    let text = std::fs::read_to_string(&path).expect("the starter");
    let wrong = text.replacen("#: size = \"8GiB\"", "sise = \"8\"", 1);
    std::fs::write(&path, wrong).expect("write");
    std::fs::remove_dir_all(folder.path().join("layers/app/files")).expect("remove");
    said.push(transcript(folder.path(), &["check"]));
    said.push(transcript(folder.path(), &["check", "--format", "json"]));
    golden("cli/appliance.txt", &said.join("\n"));
}

/// What the vendor writes for the agent, and what nobody at a customer's could mend.
#[test]
fn templates_and_policies_name_what_there_is() {
    let folder = temp_folder();
    must_run(consign().args(["init", "wiki"]).current_dir(folder.path()));
    let files = folder.path().join("layers/app/files/usr/lib/consign");
    let role = files.join("roles/wiki");
    std::fs::create_dir_all(&role).expect("folders");
    let write = |path: &Path, text: &str| std::fs::write(path, text).expect("write");
    write(
        &role.join("role.toml"),
        "schema = 1\nname = \"wiki\"\ndescription = \"A wiki.\"\n\
         [param.title]\ntype = \"string\"\n\
         [[template]]\nsource = \"a.j2\"\ntarget = \"/etc/a\"\ntype = \"text\"\n",
    );
    let (template, policy) = (role.join("a.j2"), files.join("policy.toml"));
    for (source, rules, wanted) in [
        ("{{ app.title }}", "forbidden = [\"app.title\"]", ""),
        (
            "{{ app.tilte }}",
            "",
            "`app.tilte` is not defined (did you mean `app.title`?)",
        ),
        ("{% if %}", "", "line 1: syntax error"),
        (
            "",
            "forbidden = [\"app.tilte\"]",
            "no configuration has a key `app.tilte`",
        ),
        ("", "roles = [\"wikki\"]", "did you mean `wiki`?"),
    ] {
        write(&template, source);
        write(&policy, &format!("schema = 1\n{rules}\n"));
        let output = consign_in(folder.path(), &["check"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let code = if wanted.is_empty() { 0 } else { 2 };
        assert_eq!(output.status.code(), Some(code), "{source} {rules}: {said}");
        assert!(said.contains(wanted), "{said}");
    }
}

#[test]
fn a_lock_that_is_none_is_an_error_in_its_own_file() {
    let folder = temp_folder();
    sample::write(folder.path(), MINIMAL);
    std::fs::write(
        folder.path().join("appliance.lock"),
        "format = 1\n<<<<<<< ours\n",
    )
    .expect("write");
    golden("cli/lock.txt", &transcript(folder.path(), &["check"]));
}

#[test]
fn colours_are_for_terminals_only() {
    let folder = temp_folder();
    std::fs::write(folder.path().join("appliance.toml"), "schema = 1\nx = 1\n").expect("write");
    let output = consign_in(folder.path(), &["check"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        !output.stderr.contains(&0x1b),
        "an escape sequence in a pipe"
    );
}

#[test]
fn checking_writes_nothing() {
    let folder = temp_folder();
    sample::write(folder.path(), MINIMAL);
    let list = || {
        let mut paths = Vec::new();
        let mut folders = vec![folder.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in consign::tree::list_folder(&folder).expect("list") {
                if entry.metadata.is_dir() {
                    folders.push(entry.path.clone());
                }
                paths.push(entry.path);
            }
        }
        paths
    };
    let before = list();
    assert_eq!(consign_in(folder.path(), &["check"]).status.code(), Some(0));
    assert_eq!(list(), before);
}
