//! What the machine is, in one file that is replaced whole.
//!
//! The exit codes are those of `appliance status`, frozen.

use std::fmt::Write as _;
use std::io;

use consign_schema::Problem;

use crate::root::{Access, Root};
use crate::text::{number, parse, quoted, quoted_list, string, strings, tables};

/// Where it is.
pub const FILE: &str = "/run/consign/status.toml";
/// It is never longer.
const MAX_SIZE: usize = 1 << 20;

/// What the machine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Configured; whether all came up is not known yet.
    Starting,
    /// Configured, all services run.
    Ready,
    /// Configured, and something failed.
    Degraded,
    /// Never configured; waits for a config disk.
    Waiting,
    /// Configured, but its configuration cannot be put in place; services
    /// stay behind the fence.
    Fenced,
}

impl Standing {
    const NAMES: [(Self, &'static str); 5] = [
        (Self::Starting, "starting"),
        (Self::Ready, "ready"),
        (Self::Degraded, "degraded"),
        (Self::Waiting, "waiting"),
        (Self::Fenced, "fenced"),
    ];

    /// The name in files and on the machine line.
    pub fn name(self) -> &'static str {
        let named = Self::NAMES.iter().find(|(standing, _)| *standing == self);
        named.map_or("unknown", |(_, name)| name)
    }

    fn parse(text: &str) -> Option<Self> {
        let named = Self::NAMES.iter().find(|(_, name)| *name == text);
        named.map(|(standing, _)| *standing)
    }
}

/// Exit codes of `appliance status`.
pub mod code {
    /// Ready.
    pub const READY: u8 = 0;
    /// Waiting for a configuration.
    pub const WAITING: u8 = 10;
    /// The configuration on the medium is wrong.
    pub const INVALID: u8 = 20;
    /// It is not signed by somebody who may decide here.
    pub const SIGNATURE: u8 = 21;
    /// It sets what the vendor does not allow.
    pub const POLICY: u8 = 22;
    /// It is older than the one in use.
    pub const OLDER: u8 = 23;
    /// It could not be put in place or did not work; the one before is in use.
    pub const APPLY_KEPT: u8 = 30;
    /// It could not be put in place; the fence is down.
    pub const APPLY_FAILED: u8 = 31;
    /// Ready but for something that failed.
    pub const DEGRADED: u8 = 41;
    /// A check of the role failed.
    pub const CHECK_FAILED: u8 = 40;
    /// A fault of the image or of the agent.
    pub const INTERNAL: u8 = 70;
    /// Not known yet; never with `--wait`.
    pub const NOT_YET: u8 = 75;
}

/// What is wrong with one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileProblems {
    /// The file, with its medium where it is on one.
    pub file: String,
    /// First digits of its digest; empty where it is not known.
    pub digest: String,
    /// What is wrong, in the file's order.
    pub problems: Vec<SavedProblem>,
}

/// A [`Problem`] as it is kept and shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SavedProblem {
    /// The kind's stable name.
    pub code: String,
    /// Line, from 1.
    pub line: u64,
    /// Column, from 1.
    pub column: u64,
    /// The key.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What would be right; may be empty.
    pub allowed: String,
    /// What to do.
    pub remedy: String,
}

impl From<&Problem> for SavedProblem {
    fn from(problem: &Problem) -> Self {
        Self {
            code: problem.code.slug().to_owned(),
            line: problem.line.into(),
            column: problem.column.into(),
            key: problem.key.clone(),
            message: problem.message.clone(),
            allowed: problem.allowed.clone().unwrap_or_default(),
            remedy: problem.remedy.clone(),
        }
    }
}

impl FileProblems {
    /// The problems of `file`.
    pub fn of(file: &str, problems: &[Problem]) -> Self {
        Self {
            file: file.to_owned(),
            digest: String::new(),
            problems: problems.iter().map(SavedProblem::from).collect(),
        }
    }

    /// One thing wrong with a whole file or medium.
    pub fn whole(file: &str, code: &str, message: &str, remedy: &str) -> Self {
        let problem = SavedProblem {
            code: code.to_owned(),
            line: 1,
            column: 1,
            message: message.to_owned(),
            remedy: remedy.to_owned(),
            ..SavedProblem::default()
        };
        Self {
            file: file.to_owned(),
            digest: String::new(),
            problems: vec![problem],
        }
    }

    /// The lines that a person reads.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for problem in &self.problems {
            let SavedProblem {
                code,
                line,
                column,
                message,
                allowed,
                remedy,
                ..
            } = problem;
            lines.push(format!("{}:{line}:{column}: [{code}] {message}", self.file));
            if !allowed.is_empty() {
                lines.push(format!("    allowed: {allowed}"));
            }
            if !remedy.is_empty() {
                lines.push(format!("    remedy: {remedy}"));
            }
        }
        if !self.digest.is_empty() {
            lines.push(format!("{} has the digest {}", self.file, self.digest));
        }
        lines
    }
}

/// The whole status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// What the machine is.
    pub standing: Standing,
    /// The exit code of `appliance status`.
    pub code: u8,
    /// One line for people: why it is so.
    pub summary: String,
    /// `config.id`; empty while unconfigured.
    pub id: String,
    /// `config.serial`; 0 while unconfigured.
    pub serial: u64,
    /// First digits of the digest of the customer's file.
    pub config: String,
    /// The role; empty where there is none.
    pub role: String,
    /// Number of the generation; 0 while unconfigured.
    pub generation: u32,
    /// Exit code for a configuration that is attached and not taken; 0 when
    /// there is none. A machine that is ready answers with it.
    pub refused: u8,
    /// What the service manager says of itself; empty while not asked.
    pub system: String,
    /// Units that failed.
    pub failed_units: Vec<String>,
    /// What was noticed and does not stand in the way.
    pub notes: Vec<String>,
    /// What is wrong with files.
    pub files: Vec<FileProblems>,
}

impl Status {
    /// A status without a configuration.
    pub fn new(standing: Standing, code: u8, summary: impl Into<String>) -> Self {
        Self {
            standing,
            code,
            summary: summary.into(),
            id: String::new(),
            serial: 0,
            config: String::new(),
            role: String::new(),
            generation: 0,
            refused: 0,
            system: String::new(),
            failed_units: Vec::new(),
            notes: Vec::new(),
            files: Vec::new(),
        }
    }

    /// Whether it stays until something happens.
    pub fn is_final(&self) -> bool {
        self.standing != Standing::Starting
    }

    /// Writes it.
    ///
    /// # Errors
    ///
    /// What the system reports.
    pub fn save(&self, root: &Root) -> io::Result<()> {
        root.put(FILE, self.toml().as_bytes(), Access::own(0o644))?;
        Ok(())
    }

    /// Reads it; nothing before the agent has run.
    pub fn load(root: &Root) -> Option<Self> {
        let text = root.read_text(FILE, MAX_SIZE).ok()?;
        let table = parse(&text)?;
        let field = |key| string(&table, key).unwrap_or_default();
        let mut files: Vec<FileProblems> = Vec::new();
        for problem in tables(&table, "problem") {
            let field = |key| string(problem, key).unwrap_or_default();
            let saved = SavedProblem {
                code: field("code"),
                line: number(problem, "line").unwrap_or(1),
                column: number(problem, "column").unwrap_or(1),
                key: field("key"),
                message: field("message"),
                allowed: field("allowed"),
                remedy: field("remedy"),
            };
            let file = field("file");
            match files.last_mut().filter(|last| last.file == file) {
                Some(last) => last.problems.push(saved),
                None => files.push(FileProblems {
                    file,
                    digest: field("digest"),
                    problems: vec![saved],
                }),
            }
        }
        Some(Self {
            standing: Standing::parse(&field("state"))?,
            code: u8::try_from(number(&table, "exit")?).ok()?,
            summary: field("summary"),
            id: field("id"),
            serial: number(&table, "serial").unwrap_or(0),
            config: field("config"),
            role: field("role"),
            generation: u32::try_from(number(&table, "generation")?).ok()?,
            refused: number(&table, "refused")
                .and_then(|code| u8::try_from(code).ok())
                .unwrap_or(0),
            system: field("system"),
            failed_units: strings(&table, "failed_units"),
            notes: strings(&table, "notes"),
            files,
        })
    }

    /// Keys and values in the order of the file, already quoted.
    fn fields(&self) -> Vec<(&'static str, String)> {
        let list = |items: &[String]| quoted_list(items.iter().map(String::as_str));
        vec![
            ("schema", "1".to_owned()),
            ("state", quoted(self.standing.name())),
            ("exit", self.code.to_string()),
            ("summary", quoted(&self.summary)),
            ("id", quoted(&self.id)),
            ("serial", self.serial.to_string()),
            ("config", quoted(&self.config)),
            ("role", quoted(&self.role)),
            ("generation", self.generation.to_string()),
            ("refused", self.refused.to_string()),
            ("system", quoted(&self.system)),
            ("failed_units", list(&self.failed_units)),
            ("notes", list(&self.notes)),
        ]
    }

    fn toml(&self) -> String {
        let mut text = String::new();
        for (key, value) in self.fields() {
            let _ = writeln!(text, "{key} = {value}");
        }
        for (file, problem) in problems(&self.files) {
            text.push_str("\n[[problem]]\n");
            for (key, value) in problem_fields(file, problem) {
                let _ = writeln!(text, "{key} = {value}");
            }
        }
        text
    }

    /// The status as one line of JSON.
    pub fn json(&self) -> String {
        json(self.fields(), &self.files)
    }

    /// The status as people read it.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "state: {} - {}",
            self.standing.name(),
            self.summary
        )];
        if self.generation > 0 {
            let role = if self.role.is_empty() {
                String::new()
            } else {
                format!(", role {}", self.role)
            };
            lines.push(format!(
                "configuration: {} serial {} ({}){role}",
                self.id, self.serial, self.config
            ));
        }
        if !self.failed_units.is_empty() {
            lines.push(format!("failed: {}", self.failed_units.join(", ")));
        }
        lines.extend(self.notes.iter().map(|note| format!("note: {note}")));
        lines.extend(self.files.iter().flat_map(FileProblems::lines));
        lines
    }
}

/// What a file was judged to be, as one line of JSON; its problems are in the
/// form of the status.
pub fn verdict_json(code: u8, files: &[FileProblems]) -> String {
    let fields = vec![("schema", "1".to_owned()), ("exit", code.to_string())];
    json(fields, files)
}

/// A JSON object of fields whose values are quoted already, and of problems.
fn json(fields: Vec<(&str, String)>, files: &[FileProblems]) -> String {
    let object = |fields: Vec<(&str, String)>| {
        let fields: Vec<String> = fields
            .into_iter()
            .map(|(key, value)| format!("{}:{value}", quoted(key)))
            .collect();
        fields.join(",")
    };
    let problems: Vec<String> = problems(files)
        .map(|(file, problem)| format!("{{{}}}", object(problem_fields(file, problem))))
        .collect();
    format!(
        "{{{},\"problems\":[{}]}}",
        object(fields),
        problems.join(",")
    )
}

fn problem_fields(file: &FileProblems, problem: &SavedProblem) -> Vec<(&'static str, String)> {
    vec![
        ("file", quoted(&file.file)),
        ("line", problem.line.to_string()),
        ("column", problem.column.to_string()),
        ("code", quoted(&problem.code)),
        ("key", quoted(&problem.key)),
        ("message", quoted(&problem.message)),
        ("allowed", quoted(&problem.allowed)),
        ("remedy", quoted(&problem.remedy)),
        ("digest", quoted(&file.digest)),
    ]
}

fn problems(files: &[FileProblems]) -> impl Iterator<Item = (&FileProblems, &SavedProblem)> {
    files
        .iter()
        .flat_map(|file| file.problems.iter().map(move |problem| (file, problem)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::testing::Folder;

    fn sample() -> Status {
        let file = |name: &str| FileProblems::whole(name, "x", "a \"b\"", "do");
        let mut first = file("vdb: site.toml");
        first.digest = "1a2b3c4d".into();
        first.problems.push(SavedProblem {
            line: 3,
            column: 7,
            allowed: "1 to 5".into(),
            ..SavedProblem::default()
        });
        Status {
            notes: vec!["one".into()],
            failed_units: vec!["a.service".into(), "b.service".into()],
            files: vec![first, file("vdc: site.toml")],
            ..Status::new(Standing::Waiting, code::INVALID, "the file is wrong")
        }
    }

    #[test]
    fn the_status_is_read_as_it_was_written() {
        let folder = Folder::new();
        assert_eq!(Status::load(&folder.root), None);
        sample().save(&folder.root).expect("saved");
        assert_eq!(Status::load(&folder.root), Some(sample()));
    }

    #[test]
    fn json_has_the_same_fields() {
        let json = Status::new(Standing::Ready, code::READY, "all \\ well").json();
        assert_eq!(
            json,
            "{\"schema\":1,\"state\":\"ready\",\"exit\":0,\"summary\":\"all \\\\ well\",\"id\":\"\",\"serial\":0,\"config\":\"\",\"role\":\"\",\"generation\":0,\"refused\":0,\"system\":\"\",\"failed_units\":[],\"notes\":[],\"problems\":[]}"
        );
        let json = sample().json();
        assert!(json.contains("\"problems\":[{\"file\":\"vdb: site.toml\",\"line\":1,\"column\":1,\"code\":\"x\",\"key\":\"\",\"message\":\"a \\\"b\\\"\""), "{json}");
    }

    #[test]
    fn codes_are_frozen() {
        for (found, number) in [
            (code::READY, 0),
            (code::WAITING, 10),
            (code::INVALID, 20),
            (code::SIGNATURE, 21),
            (code::POLICY, 22),
            (code::OLDER, 23),
            (code::APPLY_KEPT, 30),
            (code::APPLY_FAILED, 31),
            (code::CHECK_FAILED, 40),
            (code::DEGRADED, 41),
            (code::INTERNAL, 70),
            (code::NOT_YET, 75),
        ] {
            assert_eq!(found, number);
        }
    }

    #[test]
    fn people_see_place_and_remedy() {
        let lines = sample().lines();
        assert_eq!(
            lines,
            [
                "state: waiting - the file is wrong",
                "failed: a.service, b.service",
                "note: one",
                "vdb: site.toml:1:1: [x] a \"b\"",
                "    remedy: do",
                "vdb: site.toml:3:7: [] ",
                "    allowed: 1 to 5",
                "vdb: site.toml has the digest 1a2b3c4d",
                "vdc: site.toml:1:1: [x] a \"b\"",
                "    remedy: do",
            ]
        );
    }
}
