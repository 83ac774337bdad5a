//! `[[hook]]` of a role: programs of the vendor's that run at certain moments.

use crate::address::parsed;
use crate::disk::choice;
use crate::document::Section;
use crate::report::{Finding, Report};

/// Seconds that a hook may take, where it does not say.
const TIMEOUT: u16 = 60;

/// When a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Before a configuration counts: it is refused when the hook fails.
    PreApply,
    /// When its files are in place, before services may start; again after a
    /// power cut, until it was done.
    PostActivate,
    /// When services have started, at every start of the machine.
    Verify,
}

/// What runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// A program.
    File(String),
    /// A manifest, by `puppet apply`.
    Puppet(String),
}

/// A hook of a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// Its moment.
    pub when: When,
    /// A file in the role's own folder, or in a bundle.
    pub program: Program,
    /// The bundle that has the file.
    pub bundle: Option<String>,
    /// Seconds after which it has failed.
    pub timeout: u16,
    /// Whether it has the network.
    pub network: bool,
}

impl When {
    const NAMES: &[(&str, Self)] = &[
        ("pre-apply", Self::PreApply),
        ("post-activate", Self::PostActivate),
        ("verify", Self::Verify),
    ];

    /// As it stands in `role.toml`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PreApply => "pre-apply",
            Self::PostActivate => "post-activate",
            Self::Verify => "verify",
        }
    }
}

impl Hook {
    /// Its file.
    #[must_use]
    pub fn file(&self) -> &str {
        let (Program::File(file) | Program::Puppet(file)) = &self.program;
        file
    }

    pub(crate) fn read(mut section: Section<'_>, report: &mut Report<'_>) -> Option<Self> {
        let when = section
            .require("when", "when = \"verify\"", report)
            .and_then(|found| found.text(report))
            .and_then(|found| choice(&found, When::NAMES, "moment of a hook", report));
        let mut file = |key| {
            let found = section.get(key)?.text(report)?;
            Some(parsed(found, parse_file, report)?.value)
        };
        let (run, puppet) = (file("run"), file("puppet"));
        let bundle = section.get("bundle").map(|found| {
            let found = found.text(report)?;
            Some(parsed(found, crate::role::parse_name, report)?.value)
        });
        let timeout = section.get("timeout").map(|found| {
            let found = found.integer(&(1..=600), report)?;
            u16::try_from(found.value).ok()
        });
        let network = crate::address::boolean(&mut section, "network", report);
        let program = run.map(Program::File).or(puppet.map(Program::Puppet));
        if section.has("run") == section.has("puppet") {
            let finding = Finding::invalid("a hook is one program or one manifest")
                .allowed("one of run, puppet")
                .remedy("write for example run = \"check\"");
            section.note(report, finding);
        }
        section.finish(report);
        Some(Self {
            when: when?,
            program: program?,
            bundle: bundle
                .unwrap_or(Some(String::new()))
                .map(|name| (!name.is_empty()).then_some(name))?,
            timeout: timeout.unwrap_or(Some(TIMEOUT))?,
            network,
        })
    }
}

fn parse_file(text: &str) -> Result<String, Finding> {
    let is_plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'.' | b'_' | b'-');
    if crate::bundle::is_path(text) && text.bytes().all(is_plain) && !text.starts_with('-') {
        return Ok(text.to_owned());
    }
    Err(Finding::invalid("this is not a file of a hook")
        .allowed("a path inside of the role's folder, or of the bundle: letters, digits, `/`, `.`, `_` and `-`")
        .remedy("put the file beside role.toml, and write its name"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::role::Role;

    const HEAD: &str = "schema = 1\nname = \"web\"\ndescription = \"x\"\n[[hook]]\n";

    #[test]
    fn a_hook_says_when_and_what() {
        let hooks = |text: &str| Role::parse(&format!("{HEAD}{text}")).expect("good").hooks;
        assert_eq!(
            hooks("when = \"verify\"\nrun = \"check\"\n"),
            [Hook {
                when: When::Verify,
                program: Program::File("check".into()),
                bundle: None,
                timeout: 60,
                network: false,
            }]
        );
        let text = "when = \"post-activate\"\npuppet = \"manifests/site.pp\"\nbundle = \"app\"\n\
                    timeout = 600\nnetwork = true\n";
        assert_eq!(
            hooks(text),
            [Hook {
                when: When::PostActivate,
                program: Program::Puppet("manifests/site.pp".into()),
                bundle: Some("app".into()),
                timeout: 600,
                network: true,
            }]
        );
    }

    #[test]
    fn a_wrong_hook_is_refused_with_its_place() {
        for (text, slug, line) in [
            ("when = \"verfy\"\nrun = \"a\"\n", "invalid-value", 5),
            ("run = \"a\"\n", "missing-key", 4),
            ("when = \"verify\"\n", "invalid-value", 4),
            (
                "when = \"verify\"\nrun = \"a\"\npuppet = \"b\"\n",
                "invalid-value",
                4,
            ),
            ("when = \"verify\"\nrun = \"../a\"\n", "invalid-value", 6),
            ("when = \"verify\"\nrun = \"/bin/sh\"\n", "invalid-value", 6),
            ("when = \"verify\"\nrun = \"a%n\"\n", "invalid-value", 6),
            (
                "when = \"verify\"\nrun = \"a\"\ntimeout = 0\n",
                "out-of-range",
                7,
            ),
            (
                "when = \"verify\"\nrun = \"a\"\nbundle = \"B\"\n",
                "invalid-value",
                7,
            ),
            (
                "when = \"verify\"\nrun = \"a\"\nshell = true\n",
                "unknown-key",
                7,
            ),
        ] {
            let problems = Role::parse(&format!("{HEAD}{text}")).expect_err(text);
            let first = &problems[0];
            assert_eq!(
                (first.code.slug(), first.line),
                (slug, line),
                "{text}: {problems:?}"
            );
        }
    }
}
