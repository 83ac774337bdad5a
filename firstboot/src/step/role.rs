//! The role: its files, rendered from the site's parameters, and the units
//! that may start.
//!
//! Templates are minijinja. A name that is not defined is an error, as is
//! running longer than [`FUEL`]; a template reads no other file and calls
//! nothing with effects. Values are escaped for the kind of file, so that a
//! title cannot become a directive.

use consign_schema::{EscapeKind, ParamValue, Problem, SiteConfig};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;
use minijinja::{
    AutoEscape, Environment, Error, ErrorKind, HtmlEscape, Output, State, UndefinedBehavior, Value,
    context,
};

use super::Machine;
use crate::item::Item;
use crate::text::quoted;

/// Instructions that one template may run.
const FUEL: u64 = 200_000;
/// A rendered file is at most this long, in bytes.
const MAX_OUTPUT: usize = 4 << 20;
/// One empty file for each unit that may start; the units' drop-ins ask for it.
pub const SERVICES: &str = "/run/consign/services";

/// The role's files and the permission for its units.
///
/// # Errors
///
/// A template that cannot be rendered with these values.
pub fn decide(site: &SiteConfig, machine: &Machine) -> Result<Vec<Item>, Vec<Problem>> {
    let Some((role, sources)) = &machine.role else {
        return Ok(Vec::new());
    };
    let mut items = Vec::new();
    let mut problems = Vec::new();
    let values = values(site, machine);
    for template in &role.templates {
        let source = sources.get(&template.source).map_or("", String::as_str);
        match render(source, template.escape, &values) {
            Ok(text) => items.push(Item::text(&template.target, template.mode.into(), text)),
            Err(error) => {
                let message = format!(
                    "template `{}` of role `{}` cannot be filled in: {}",
                    template.source,
                    role.name,
                    reason(&error)
                );
                let remedy = "change the value in [app], or ask the vendor of the appliance";
                problems.push(site.problem("app", &message, remedy));
            }
        }
    }
    let stamps = role
        .services
        .iter()
        .map(|unit| Item::text(format!("{SERVICES}/{unit}"), 0o644, ""));
    items.extend(stamps);
    if problems.is_empty() {
        Ok(items)
    } else {
        Err(problems)
    }
}

/// What a template can name.
fn values(site: &SiteConfig, machine: &Machine) -> Value {
    let app = site.app.iter();
    let app = Value::from_pairs(app.map(|(name, value)| (name.clone(), value_of(value))));
    let hostname = site.system.hostname.as_ref().map(ToString::to_string);
    context! {
        app,
        role => site.role.clone(),
        config => context! { id => site.id.as_str(), serial => site.serial },
        system => context! {
            hostname => hostname.unwrap_or_else(|| "localhost".to_owned()),
            timezone => site.system.timezone.as_ref().map_or("UTC", |zone| zone.as_str()),
        },
        image => context! { name => machine.image.name.clone(), version => machine.image.version.clone() },
    }
}

fn value_of(value: &ParamValue) -> Value {
    match value {
        ParamValue::Int(number) => Value::from(*number),
        ParamValue::Bool(value) => Value::from(*value),
        other => Value::from(other.to_string()),
    }
}

/// Why a template failed, without any value of the site.
fn reason(error: &Error) -> String {
    let line = error
        .line()
        .map(|line| format!("line {line}: "))
        .unwrap_or_default();
    let what = match error.kind() {
        ErrorKind::UndefinedError => "a name in it is not defined".to_owned(),
        ErrorKind::OutOfFuel => "it runs too long".to_owned(),
        ErrorKind::BadEscape => "a value cannot stand in this kind of file".to_owned(),
        kind => kind.to_string(),
    };
    format!("{line}{what}")
}

fn render(source: &str, escape: EscapeKind, values: &Value) -> Result<String, Error> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL));
    environment.set_syntax(
        SyntaxConfig::builder()
            .keep_trailing_newline(true)
            .build()?,
    );
    environment.set_auto_escape_callback(move |_| match escape {
        EscapeKind::Html | EscapeKind::Xml => AutoEscape::Html,
        EscapeKind::Text => AutoEscape::None,
        _ => AutoEscape::Custom("typed".into()),
    });
    for (name, kind) in FILTERS {
        environment.add_filter(name, move |value: &Value| {
            escaped(kind, value).map(Value::from_safe_string)
        });
    }
    environment.set_formatter(move |out, state, value| format_value(escape, out, state, value));
    let text = environment
        .template_from_named_str("template", source)?
        .render(values)?;
    if text.len() > MAX_OUTPUT {
        return Err(ErrorKind::OutOfFuel.into());
    }
    Ok(text)
}

/// Writes one value into the output, as its kind of file needs it.
fn format_value(
    escape: EscapeKind,
    out: &mut Output<'_>,
    state: &mut State<'_, '_>,
    value: &Value,
) -> Result<(), Error> {
    if value.kind() == ValueKind::Bool {
        let text = if value.is_true() { "true" } else { "false" };
        return Ok(out.write_str(text)?);
    }
    if value.is_undefined() {
        return Err(ErrorKind::UndefinedError.into());
    }
    let written = match (escape, value.as_str()) {
        (EscapeKind::Html | EscapeKind::Text | EscapeKind::Xml, _) => {
            return minijinja::escape_formatter(out, state, value);
        }
        // What a filter marked as safe was meant to be as it is.
        (_, Some(text)) if value.is_safe() => text.to_owned(),
        _ => escaped(escape, value)?,
    };
    out.write_str(&written)?;
    Ok(())
}

/// Filters for values that stand in a file of another kind.
const FILTERS: [(&str, EscapeKind); 5] = [
    ("json", EscapeKind::Json),
    ("toml", EscapeKind::Toml),
    ("xml", EscapeKind::Xml),
    ("shell", EscapeKind::Shell),
    ("env", EscapeKind::Env),
];

/// A string or number as a file of this kind needs it.
fn escaped(escape: EscapeKind, value: &Value) -> Result<String, Error> {
    let Some(text) = value.as_str() else {
        return match value.kind() {
            ValueKind::Number | ValueKind::Bool => Ok(value.to_string()),
            _ => Err(ErrorKind::BadEscape.into()),
        };
    };
    match escape {
        EscapeKind::Json | EscapeKind::Toml => Ok(quoted(text)),
        EscapeKind::Nginx => nginx(text),
        EscapeKind::Ini => ini(text),
        EscapeKind::Xml => Ok(HtmlEscape(text).to_string()),
        // Nothing but a quote means anything in quotes.
        EscapeKind::Shell => Ok(format!("'{}'", text.replace('\'', "'\\''"))),
        EscapeKind::Env if !text.contains(char::is_control) => Ok(env(text)),
        _ => Err(ErrorKind::BadEscape.into()),
    }
}

/// Source: systemd.exec(5), `EnvironmentFile=`. A shell reads it alike.
fn env(text: &str) -> String {
    let mut quoted = "\"".to_owned();
    for c in text.chars() {
        if matches!(c, '"' | '\\' | '$' | '`') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted + "\""
}

/// A value as one argument of an nginx directive. A `$` cannot be escaped
/// there, it would name a variable.
fn nginx(text: &str) -> Result<String, Error> {
    if text.contains(|c: char| c == '$' || c.is_control()) {
        return Err(ErrorKind::BadEscape.into());
    }
    let is_bare = |c: char| {
        c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | ':' | '+' | ',' | '@' | '%')
    };
    if !text.is_empty() && text.chars().all(is_bare) {
        return Ok(text.to_owned());
    }
    Ok(format!(
        "\"{}\"",
        text.replace('\\', "\\\\").replace('"', "\\\"")
    ))
}

/// A value of an INI file. Programs differ in how they escape, so what would
/// need it is refused.
fn ini(text: &str) -> Result<String, Error> {
    let is_trimmed = text.trim() == text;
    let is_clean = !text
        .contains(|c: char| matches!(c, ';' | '#' | '"' | '\'' | '\\' | '%') || c.is_control());
    if is_trimmed && is_clean {
        Ok(text.to_owned())
    } else {
        Err(ErrorKind::BadEscape.into())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{machine, site_with, text_of};
    use super::*;
    use consign_schema::Role;

    fn role(escape: &str) -> Role {
        let text = format!(
            "schema = 1\nname = \"web\"\ndescription = \"x\"\nservices = [\"nginx.service\"]\n\
             [param.title]\ntype = \"string\"\n[param.port]\ntype = \"port\"\ndefault = 80\n\
             [param.open]\ntype = \"bool\"\ndefault = true\n\
             [[template]]\nsource = \"t\"\ntarget = \"/etc/t\"\ntype = \"{escape}\"\n"
        );
        Role::parse(&text).expect("a role")
    }

    /// The file that `template` becomes with this title.
    fn rendered(escape: &str, template: &str, title: &str) -> Result<String, Vec<Problem>> {
        let role = role(escape);
        let site = site_with(
            &format!("[app]\ntitle = {}\n", quoted(title)),
            std::slice::from_ref(&role),
        );
        let sources = [("t".to_owned(), template.to_owned())].into();
        let machine = Machine {
            role: Some((role, sources)),
            ..machine()
        };
        let items = decide(&site, &machine)?;
        assert_eq!(
            text_of(&items, "/run/consign/services/nginx.service"),
            Some("")
        );
        Ok(text_of(&items, "/etc/t").expect("the file").to_owned())
    }

    #[test]
    fn values_are_escaped_for_their_kind_of_file() {
        let cases = [
            (
                "html",
                "<h1>{{ app.title }}</h1>\n",
                "<b> & \"x\"",
                "<h1>&lt;b&gt; &amp; &quot;x&quot;</h1>\n",
            ),
            ("text", "{{ app.title }}", "a <b> $x", "a <b> $x"),
            (
                "json",
                "{\"t\": {{ app.title }}, \"p\": {{ app.port }}, \"o\": {{ app.open }}}",
                "a\"b\\",
                "{\"t\": \"a\\\"b\\\\\", \"p\": 80, \"o\": true}",
            ),
            (
                "nginx",
                "listen {{ app.port }};\nx {{ app.title }};",
                "a; b \"c\"",
                "listen 80;\nx \"a; b \\\"c\\\"\";",
            ),
            (
                "nginx",
                "x {{ app.title }};",
                "web-1.example.org",
                "x web-1.example.org;",
            ),
            ("ini", "t = {{ app.title }}", "plain text", "t = plain text"),
            (
                "toml",
                "t = {{ app.title }}\np = {{ app.port }}\no = {{ app.open }}",
                "a\"\\[x]",
                "t = \"a\\\"\\\\[x]\"\np = 80\no = true",
            ),
            (
                "xml",
                "<t a=\"{{ app.title }}\">{{ app.port }}</t>",
                "\"><b>&",
                "<t a=\"&quot;&gt;&lt;b&gt;&amp;\">80</t>",
            ),
            (
                "shell",
                "t={{ app.title }}; p={{ app.port }}",
                "a'; rm $x `y`",
                "t='a'\\''; rm $x `y`'; p=80",
            ),
            (
                "env",
                "T={{ app.title }}\nP={{ app.port }}",
                "a\"b\\c$d`e",
                "T=\"a\\\"b\\\\c\\$d\\`e\"\nP=80",
            ),
            // One value of another kind than its file.
            (
                "text",
                "{{ app.title }} {{ app.title | shell }} {{ app.title | xml }} {{ app.port | env }}",
                "<'>",
                "<'> '<'\\''>' &lt;&#x27;&gt; 80",
            ),
            ("html", "{{ app.title | toml }}", "<\">", "\"<\\\">\""),
        ];
        for (escape, template, title, expected) in cases {
            assert_eq!(
                rendered(escape, template, title).as_deref(),
                Ok(expected),
                "{escape}"
            );
        }
    }

    #[test]
    fn what_cannot_be_escaped_is_refused_without_showing_it() {
        let cases = [
            ("nginx", "x {{ app.title }};", "CANARY $host"),
            ("ini", "x = {{ app.title }}", "CANARY ; x"),
            ("ini", "x = {{ app.title }}", " CANARY"),
            ("json", "{{ app }}", "CANARY"),
            ("shell", "{{ app }}", "CANARY"),
            ("env", "{{ app.title ~ '\\nX=1' }}", "CANARY"),
            ("text", "{{ app | toml }}", "CANARY"),
            ("text", "{{ app.tilte }}", "CANARY"),
            ("html", "{{ nothing }}", "CANARY"),
            (
                "html",
                "{% for x in range(100000) %}{% for y in range(100000) %}{{ x }}{% endfor %}{% endfor %}",
                "CANARY",
            ),
            ("html", "{% include 'other' %}", "CANARY"),
            ("html", "{% if %}", "CANARY"),
            ("text", "{{ app.title.upper( }}", "CANARY"),
        ];
        for (escape, template, title) in cases {
            let problems = rendered(escape, template, title).expect_err(template);
            let shown = format!("{problems:?}");
            assert!(!shown.contains("CANARY"), "{shown}");
            assert_eq!(
                problems.first().map(|problem| problem.line),
                Some(5),
                "{shown}"
            );
        }
    }

    #[test]
    fn a_template_can_name_the_machine() {
        let text = rendered(
            "text",
            "{{ role }} {{ config.id }} {{ system.hostname }} {{ system.timezone }}",
            "t",
        );
        assert_eq!(text.as_deref(), Ok("web t localhost UTC"));
    }

    #[test]
    fn a_machine_without_a_role_has_no_files() {
        let site = site_with("", &[]);
        assert_eq!(decide(&site, &machine()).expect("decided"), []);
    }

    #[test]
    fn output_is_bounded() {
        let text = "{% for x in range(9999) %}{{ app.title }}{% endfor %}";
        assert!(rendered("text", text, &"x".repeat(1000)).is_err());
    }
}
