//! Roles: what an image can be on a site, as `role.toml` describes it.

use crate::app::Param;
use crate::document::{Found, Section, parse};
use crate::hook::Hook;
use crate::problem::{Code, Problem};
use crate::report::{Finding, Report};

/// Folders that templates may write below. `/usr` is the vendor's, the state
/// folder the agent's.
const TARGETS: &[&str] = &["/etc/", "/opt/", "/run/", "/srv/", "/var/"];
/// The agent's own folders.
const OWN: &[&str] = &[
    "/var/lib/consign",
    "/run/consign",
    "/etc/passwd",
    "/etc/shadow",
    "/etc/group",
    "/etc/machine-id",
];

/// One role of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// Its name: small letters, digits and `-`.
    pub name: String,
    /// One sentence.
    pub description: String,
    /// The parameters, by name.
    pub params: Vec<Param>,
    /// Units that start when the machine is configured for this role.
    pub services: Vec<String>,
    /// Files that are rendered from the parameters, in the file's order.
    pub templates: Vec<Template>,
    /// Programs that run at certain moments, in the file's order.
    pub hooks: Vec<Hook>,
}

/// A file that a role renders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// Its source: a file name in the role's own folder.
    pub source: String,
    /// The absolute path that is written.
    pub target: String,
    /// How values are escaped.
    pub escape: EscapeKind,
    /// Permission bits, 0o777 at most.
    pub mode: u16,
}

/// How values are written into a template's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EscapeKind {
    /// As HTML text or attribute.
    Html,
    /// As they are.
    Text,
    /// As values of an INI file: comment and quote characters are an error.
    Ini,
    /// As JSON values, quotes included.
    Json,
    /// As arguments of an nginx directive, quoted where needed.
    Nginx,
    /// As TOML values, quotes included.
    Toml,
    /// As XML text or attribute.
    Xml,
    /// As one word of a shell, quotes included.
    Shell,
    /// As values of systemd's `EnvironmentFile=`, quotes included: control
    /// characters are an error.
    Env,
}

impl EscapeKind {
    const NAMES: &[(&str, Self)] = &[
        ("html", Self::Html),
        ("text", Self::Text),
        ("ini", Self::Ini),
        ("json", Self::Json),
        ("nginx", Self::Nginx),
        ("toml", Self::Toml),
        ("xml", Self::Xml),
        ("shell", Self::Shell),
        ("env", Self::Env),
    ];
    /// Kinds of files that say by their names what they are.
    const EXTENSIONS: &[(&str, Self)] = &[
        (".html", Self::Html),
        (".ini", Self::Ini),
        (".json", Self::Json),
        (".toml", Self::Toml),
        (".xml", Self::Xml),
        (".sh", Self::Shell),
        (".env", Self::Env),
    ];

    fn of(target: &str) -> Option<Self> {
        let mut known = Self::EXTENSIONS.iter();
        let found = known.find(|(extension, _)| target.ends_with(extension));
        found.map(|(_, kind)| *kind)
    }
}

impl Role {
    /// Reads a `role.toml`.
    ///
    /// # Errors
    ///
    /// Every problem of the text.
    pub fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        let mut report = Report::new(text);
        let table = parse(text, &mut report);
        let role = table
            .as_ref()
            .and_then(|table| Self::read(Section::root(table), &mut report));
        match role {
            Some(role) if report.is_clean() => Ok(role),
            _ => Err(report.into_problems()),
        }
    }

    fn read(mut root: Section<'_>, report: &mut Report<'_>) -> Option<Self> {
        crate::site::read_schema(&mut root, report);
        let name = root
            .require("name", "name = \"web\"", report)
            .and_then(|found| found.text(report))
            .and_then(|found| crate::address::parsed(found, parse_name, report));
        let description = root
            .require("description", "description = \"A web site\"", report)
            .and_then(|found| found.text(report));
        let params = root
            .table("param", report)
            .map(|params| read_params(&params, report));
        let services = crate::address::all(&mut root, "services", 32, parse_unit, report);
        let templates: Vec<Option<Template>> = root
            .tables("template", 64, report)
            .into_iter()
            .map(|section| Template::read(section, report))
            .collect();
        let hooks: Vec<Option<Hook>> = root
            .tables("hook", 16, report)
            .into_iter()
            .map(|section| Hook::read(section, report))
            .collect();
        root.finish(report);
        Some(Self {
            name: name?.value,
            description: description?.value.to_owned(),
            params: params.unwrap_or_default(),
            services: services.into_iter().map(|found| found.value).collect(),
            templates: templates.into_iter().collect::<Option<_>>()?,
            hooks: hooks.into_iter().collect::<Option<_>>()?,
        })
    }
}

pub(crate) fn parse_name(text: &str) -> Result<String, Finding> {
    let is_name = (1..=32).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    if is_name {
        return Ok(text.to_owned());
    }
    Err(Finding::invalid("this is not a role's name")
        .allowed("a small letter, then small letters, digits and `-`, 32 at most")
        .remedy("write a name such as \"web\""))
}

pub(crate) fn parse_unit(text: &str) -> Result<String, Finding> {
    let kinds = [".service", ".socket", ".timer", ".path", ".target"];
    let is_unit = (1..=128).contains(&text.len())
        && kinds
            .iter()
            .any(|kind| text.strip_suffix(kind).is_some_and(|name| !name.is_empty()))
        && !text.starts_with(['.', '-'])
        && text.bytes().all(|byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'@' | b':')
        });
    if is_unit {
        return Ok(text.to_owned());
    }
    Err(Finding::invalid("this is not the name of a unit")
        .allowed(kinds.join(", "))
        .remedy("write a name such as \"nginx.service\""))
}

fn read_params(params: &Section<'_>, report: &mut Report<'_>) -> Vec<Param> {
    params
        .entries()
        .filter_map(|(name, value)| Param::read(&name, value.table(report)?, report))
        .collect()
}

impl Template {
    fn read(mut section: Section<'_>, report: &mut Report<'_>) -> Option<Self> {
        let text = |found: Option<Found<_>>, report: &mut Report<'_>| {
            found.and_then(|found: Found<&toml::de::DeValue<'_>>| found.text(report))
        };
        let source = section.require("source", "source = \"index.html.j2\"", report);
        let source = text(source, report)
            .and_then(|found| crate::address::parsed(found, parse_source, report));
        let target = section.require("target", "target = \"/etc/app.conf\"", report);
        let target = text(target, report)
            .and_then(|found| crate::address::parsed(found, parse_target, report));
        let known = target
            .as_ref()
            .and_then(|target| EscapeKind::of(&target.value));
        let escape = match known {
            Some(kind) if !section.has("type") => Some(kind),
            _ => {
                let escape = section.require("type", "type = \"text\"", report);
                text(escape, report)
                    .and_then(|found| crate::address::parsed(found, parse_escape, report))
                    .map(|found| found.value)
            }
        };
        let mode = text(section.get("mode"), report)
            .map(|found| crate::address::parsed(found, parse_mode, report));
        section.finish(report);
        Some(Self {
            source: source?.value,
            target: target?.value,
            escape: escape?,
            mode: mode.map_or(Some(0o644), |found| found.map(|found| found.value))?,
        })
    }
}

fn parse_source(text: &str) -> Result<String, Finding> {
    let is_name =
        (1..=128).contains(&text.len()) && !text.starts_with('.') && !text.contains(['/', '\\']);
    if is_name {
        return Ok(text.to_owned());
    }
    Err(Finding::invalid("this is not a file of the role's folder")
        .allowed("a file name without a slash")
        .remedy("put the template beside role.toml, and write its name"))
}

pub(crate) fn parse_target(text: &str) -> Result<String, Finding> {
    let is_clean = text
        .split('/')
        .skip(1)
        .all(|part| !matches!(part, "" | "." | ".."));
    let is_own = OWN.iter().any(|own| {
        text == *own
            || text
                .strip_prefix(own)
                .is_some_and(|rest| rest.starts_with('/'))
    });
    if is_clean
        && !is_own
        && text.len() <= 512
        && TARGETS.iter().any(|folder| text.starts_with(folder))
    {
        return Ok(text.to_owned());
    }
    Err(Finding::invalid("a template cannot write here")
        .allowed("files below /etc, /opt, /run, /srv and /var, but not the agent's own")
        .remedy("write an absolute path without `.` and `..`"))
}

fn parse_escape(text: &str) -> Result<EscapeKind, Finding> {
    let names = EscapeKind::NAMES;
    if let Some((_, kind)) = names.iter().find(|(name, _)| *name == text) {
        return Ok(*kind);
    }
    let list: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
    Err(Finding::invalid("this is not a type of template")
        .allowed(list.join(", "))
        .remedy("write how values are to be escaped"))
}

fn parse_mode(text: &str) -> Result<u16, Finding> {
    let mode = (text.len() == 4 && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte)))
        .then(|| u16::from_str_radix(text, 8).ok())
        .flatten()
        .filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| {
        Finding::new(Code::InvalidValue, "this is not a file's mode")
            .allowed("\"0000\" to \"0777\"")
            .remedy("write four octal digits, for example \"0644\"")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::{ParamKind, ParamValue};

    const WEB: &str = r#"
schema = 1
name = "web"
description = "Public web site"
services = ["nginx.service"]

[param.title]
type = "string"
max = 80
default = "Welcome"
help = "Shown at the top of the page"

[param.port]
type = "port"
default = 80

[param.mode]
type = "enum"
values = ["open", "closed"]

[[template]]
source = "index.html.j2"
target = "/var/www/html/index.html"
type = "html"

[[template]]
source = "site.conf.j2"
target = "/etc/nginx/conf.d/site.conf"
type = "nginx"
mode = "0640"
"#;

    #[test]
    fn a_role_is_read_whole() {
        let role = Role::parse(WEB).expect("a good role");
        assert_eq!(role.name, "web");
        assert_eq!(role.services, ["nginx.service"]);
        let names: Vec<&str> = role
            .params
            .iter()
            .map(|param| param.name.as_str())
            .collect();
        assert_eq!(names, ["mode", "port", "title"]);
        let title = role.params.get(2).expect("three parameters");
        assert_eq!(title.kind, ParamKind::String { max: 80 });
        assert_eq!(title.default, Some(ParamValue::Text("Welcome".into())));
        assert_eq!(
            role.templates.first().map(|template| template.mode),
            Some(0o644)
        );
        assert_eq!(
            role.templates
                .get(1)
                .map(|template| (template.mode, template.escape)),
            Some((0o640, EscapeKind::Nginx))
        );
    }

    #[test]
    fn a_file_says_by_its_name_how_values_are_escaped() {
        let kind = |target: &str, given: &str| {
            let text = WEB
                .replace("/etc/nginx/conf.d/site.conf", target)
                .replace("type = \"nginx\"", given);
            let role = Role::parse(&text)?;
            Ok::<_, Vec<Problem>>(role.templates.get(1).map(|template| template.escape))
        };
        for (target, expected) in [
            ("/etc/app.toml", EscapeKind::Toml),
            ("/etc/app.xml", EscapeKind::Xml),
            ("/etc/app.sh", EscapeKind::Shell),
            ("/etc/app.env", EscapeKind::Env),
            ("/etc/app.json", EscapeKind::Json),
        ] {
            assert_eq!(kind(target, ""), Ok(Some(expected)), "{target}");
            let text = kind(target, "type = \"text\"");
            assert_eq!(text, Ok(Some(EscapeKind::Text)), "{target}");
        }
        let problems = kind("/etc/app.conf", "").expect_err("nobody knows");
        assert_eq!(
            problems.first().map(|it| it.code.slug()),
            Some("missing-key")
        );
    }

    #[test]
    fn a_wrong_role_is_refused_with_its_place() {
        let cases = [
            (
                "\"/etc/nginx/conf.d/site.conf\"",
                "\"/etc/../usr/x\"",
                "invalid-value",
            ),
            (
                "\"/etc/nginx/conf.d/site.conf\"",
                "\"/var/lib/consign/state\"",
                "invalid-value",
            ),
            ("\"site.conf.j2\"", "\"../site.conf.j2\"", "invalid-value"),
            ("\"0640\"", "\"4755\"", "invalid-value"),
            ("\"0640\"", "416", "wrong-type"),
            ("\"nginx\"", "\"ngnix\"", "invalid-value"),
            ("\"nginx.service\"", "\"nginx\"", "invalid-value"),
            ("type = \"port\"", "type = \"prt\"", "invalid-value"),
            ("default = 80", "default = 70000", "out-of-range"),
            (
                "values = [\"open\", \"closed\"]",
                "values = []",
                "out-of-range",
            ),
            ("max = 80", "maximum = 80", "unknown-key"),
            ("description = \"Public web site\"\n", "", "missing-key"),
            ("name = \"web\"", "name = \"Web!\"", "invalid-value"),
        ];
        for (from, to, slug) in cases {
            let (line, _) = WEB.split_once(from).expect(from);
            // A line that is taken away is missed at the head of the table.
            let line = if to.is_empty() {
                1
            } else {
                line.matches('\n').count() + 1
            };
            let problems = Role::parse(&WEB.replace(from, to)).expect_err(to);
            let found: Vec<_> = problems
                .iter()
                .map(|problem| (problem.code.slug(), usize::try_from(problem.line)))
                .collect();
            assert_eq!(found, [(slug, Ok(line))], "{to}: {problems:?}");
        }
    }
}
