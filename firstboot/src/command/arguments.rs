//! What stands on the command line: the commands, their options, and what is
//! said of a word that is none of them.

use std::process::ExitCode;

use consign_schema::nearest;

/// Exit status of a command line that makes no sense, as in `sysexits.h`.
pub const USAGE: u8 = 64;

pub const HELP: &str = "\
usage: appliance [--root DIR] COMMAND

  status [--json] [--wait]     what this machine is
  validate [--json] FILE       judge a site configuration as this machine would
  plan [FILE]                  what apply would change; nothing is written
  apply [FILE]                 take a newer configuration, and keep it if it works
      --signature FILE           its signature (by ssh-keygen, see below, or minisign)
      --secrets FILE             its secrets.age
      --license FILE             the licence that it names
      --claim                    instead of a signature: the code on the console,
                                 from the terminal or a pipe
      --confirm SECONDS          go back unless `appliance confirm` comes in time,
                                 counted from when it is asked for
  confirm                      keep the configuration that is on trial
  secret NAME                  takes a secret that the configuration wants from here
  rollback                     the configuration before this one
  report                       what the vendor's factory wants to know, as JSON
  facts                        what is known of this machine, as JSON
  schema                       the JSON Schema of this appliance's site.toml
  convert FOLDER               cloud-init's NoCloud files as a site.toml
  support-bundle [FILE]        what support asks for, without secrets, as tar
  factory-reset --yes          as it was delivered; the machine restarts
  --version

Without FILE, plan and apply read the config disk that is attached.
The owner's key, an Ed25519 key of SSH, signs a configuration so:

  ssh-keygen -Y sign -n consign-config -f KEY site.toml

Exit status of `status`: 0 ready, 10 waiting for a configuration, 20 invalid
configuration, 21 not signed, 22 not allowed by the vendor, 23 older than the
one in use, 30 apply failed, previous kept, 31 apply failed, fenced, 40 a check
of the role failed, 41 degraded, 70 internal fault, 75 not known yet (never
with --wait). apply, plan and validate answer with the same numbers.
";

/// A command: its name, the word that stands after it (in brackets where it may
/// be left out), its options.
type Command = (&'static str, &'static str, &'static [&'static str]);

/// What people and programs ask for, then what systemd starts.
const COMMANDS: [Command; 18] = [
    ("status", "", &["--json", "--wait"]),
    ("validate", "FILE", &["--json"]),
    (
        "plan",
        "[FILE]",
        &["--signature", "--secrets", "--license", "--claim"],
    ),
    (
        "apply",
        "[FILE]",
        &[
            "--signature",
            "--secrets",
            "--license",
            "--claim",
            "--confirm",
        ],
    ),
    ("confirm", "", &[]),
    ("secret", "NAME", &[]),
    ("rollback", "", &[]),
    ("report", "", &[]),
    ("facts", "", &[]),
    ("schema", "", &[]),
    ("convert", "FOLDER", &[]),
    ("support-bundle", "[FILE]", &[]),
    ("factory-reset", "", &["--yes"]),
    ("--version", "", &[]),
    ("config", "", &[]),
    ("verify", "", &[]),
    ("resolv", "", &[]),
    (super::trial::COMMAND, "DIGEST", &[]),
];
/// So many of them are for people.
const PUBLIC: usize = 14;

/// Options that take a value.
const WITH_VALUE: [(&str, &str); 4] = [
    ("--signature", "FILE"),
    ("--secrets", "FILE"),
    ("--license", "FILE"),
    ("--confirm", "SECONDS"),
];

/// What stands after a command: words, options with values, flags.
#[derive(Debug, Default)]
pub struct Arguments<'w> {
    pub words: Vec<&'w str>,
    values: Vec<(&'w str, &'w str)>,
    flags: Vec<&'w str>,
}

impl<'w> Arguments<'w> {
    /// What stands after `command`, or what is wrong in one clause. Only names
    /// are told: any other word may be a secret in the wrong place.
    pub fn parse(command: &str, words: &[&'w str]) -> Result<Self, String> {
        let known = COMMANDS.iter().find(|(name, ..)| *name == command);
        let Some((_, operand, options)) = known else {
            return Err(unknown_command(command));
        };
        let mut parsed = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            if !word.starts_with('-') {
                parsed.words.push(word);
                continue;
            }
            let (name, glued) = word.split_once('=').unwrap_or((word, ""));
            if !options.contains(&name) {
                return Err(unknown_option(command, name, options));
            }
            let value = WITH_VALUE.iter().find(|(option, _)| *option == name);
            let Some((_, value)) = value.filter(|_| glued.is_empty()) else {
                if name.len() < word.len() {
                    return Err(format!("write `{name}` without `=`"));
                }
                parsed.flags.push(word);
                continue;
            };
            match words.next().filter(|word| !word.starts_with("--")) {
                Some(given) => parsed.values.push((name, given)),
                None => return Err(format!("after `{name}` its {value} is missing")),
            }
        }
        let least = usize::from(!operand.is_empty() && !operand.starts_with('['));
        let most = usize::from(!operand.is_empty());
        let count = parsed.words.len();
        if count > most && parsed.has("--claim") {
            return Err("the claim code is read from the terminal or a pipe".to_owned());
        }
        if count < least || count > most {
            let operand = if most == 0 { "nothing" } else { operand };
            return Err(format!("`{command}` takes {operand}"));
        }
        Ok(parsed)
    }

    pub fn value(&self, name: &str) -> Option<&'w str> {
        let found = self.values.iter().find(|(option, _)| *option == name);
        found.map(|(_, value)| *value)
    }

    pub fn has(&self, flag: &str) -> bool {
        self.flags.contains(&flag)
    }
}

/// Whether somebody asks for help, with or without a command.
pub fn is_help(words: &[&str]) -> bool {
    words.first() == Some(&"help") || words.iter().any(|word| matches!(*word, "--help" | "-h"))
}

/// Says what is wrong with the command line.
pub fn misused(wrong: &str) -> ExitCode {
    complain!("appliance: {wrong}; `appliance --help` shows all commands and options");
    ExitCode::from(USAGE)
}

fn unknown_command(word: &str) -> String {
    if word == "--root" {
        return "after `--root` its DIR is missing".to_owned();
    }
    let names = COMMANDS.iter().take(PUBLIC).map(|(name, ..)| *name);
    let names: Vec<&str> = names.chain(["--root"]).collect();
    let kind = if word.starts_with('-') {
        "option"
    } else {
        "command"
    };
    unknown(kind, word, &names)
}

fn unknown_option(command: &str, name: &str, options: &[&str]) -> String {
    if name == "--root" {
        return "`--root DIR` stands before the command".to_owned();
    }
    let is_elsewhere = COMMANDS.iter().any(|(.., all)| all.contains(&name));
    if is_elsewhere {
        return format!("`{name}` means nothing to `{command}`");
    }
    unknown("option", name, options)
}

fn unknown(kind: &str, word: &str, names: &[&str]) -> String {
    let near = nearest(word, names.iter().copied());
    let near = near.map_or(String::new(), |near| format!(", `{near}` is the nearest"));
    format!("there is no {kind} {word:?}{near}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(words: &[&str]) -> String {
        let (command, rest) = words.split_first().expect("a command");
        Arguments::parse(command, rest).expect_err("it is wrong")
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (words, said) in [
            (
                &["valdate", "x"][..],
                "no command \"valdate\", `validate` is",
            ),
            (&["frobnicate"], "there is no command \"frobnicate\""),
            (&["--rot", "x"], "no option \"--rot\", `--root` is"),
            (&["--root"], "after `--root` its DIR is missing"),
            (&["status", "--root", "x"], "before the command"),
            (&["status", "--jsn"], "no option \"--jsn\", `--json` is"),
            (&["\u{1b}[31m"], "no command \"\\u{1b}[31m\""),
            (&["validate"], "`validate` takes FILE"),
            (&["apply", "a", "CANARY"], "`apply` takes [FILE]"),
            (&["secret", "a", "CANARY"], "`secret` takes NAME"),
            (&["rollback", "CANARY"], "`rollback` takes nothing"),
            (
                &["apply", "a", "--claim", "CANARY"],
                "from the terminal or a pipe",
            ),
            (&["apply", "a", "--confirm"], "its SECONDS is missing"),
            (&["apply", "--confirm", "--claim"], "its SECONDS is missing"),
            (&["apply", "--confirm=60"], "`--confirm` without `=`"),
            (&["apply", "--claim=CANARY"], "`--claim` without `=`"),
            (
                &["validate", "f", "--signature", "x"],
                "`--signature` means nothing to `validate`",
            ),
            (&["confirm", "--yes"], "`--yes` means nothing to `confirm`"),
            (
                &["status", "--claim", "x"],
                "`--claim` means nothing to `status`",
            ),
            (&["plan", "x", "--json"], "`--json` means nothing to `plan`"),
            (
                &["plan", "x", "--confirm", "1"],
                "`--confirm` means nothing",
            ),
        ] {
            let found = wrong(words);
            assert!(found.contains(said), "{words:?}: {found}");
            assert!(!found.contains("CANARY"), "{words:?}: {found}");
        }
    }

    #[test]
    fn every_command_and_option_stands_in_the_help() {
        let (public, own) = COMMANDS.split_at(PUBLIC);
        for (name, operand, options) in public {
            let options = options.iter().copied();
            let names = [*name, *operand].into_iter().chain(options);
            for name in names {
                assert!(HELP.contains(name), "{name}");
            }
        }
        assert!(
            own.iter()
                .all(|(name, ..)| !HELP.contains(&format!("  {name} ")))
        );
        for (option, value) in WITH_VALUE {
            assert!(HELP.contains(&format!("{option} {value}")), "{option}");
        }
    }

    /// A signature for anything else does not count: the command has to be right.
    #[test]
    fn the_help_has_the_command_that_signs() {
        let command = format!("ssh-keygen -Y sign -n {} -f KEY", crate::trust::SITE);
        assert!(HELP.contains(&command));
    }

    #[test]
    fn help_is_asked_for_with_or_without_a_command() {
        assert!(is_help(&["help"]) && is_help(&["--help"]) && is_help(&["-h"]));
        assert!(is_help(&["validate", "--help"]) && is_help(&["help", "plan"]));
        assert!(!is_help(&["secret", "help"]) && !is_help(&[]));
    }
}
