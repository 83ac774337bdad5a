//! Templates of roles: minijinja. A name that is not defined is an error, as is
//! running longer than [`FUEL`]; a template reads no other file and calls
//! nothing with effects. Values are escaped for the kind of file, so that a
//! title cannot become a directive.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;
use minijinja::{
    AutoEscape, Environment, Error, ErrorKind, HtmlEscape, Output, State, UndefinedBehavior, Value,
    context,
};

use crate::app::ParamValue;
#[cfg(any(feature = "describe", test))]
use crate::app::{Param, ParamKind};
use crate::role::EscapeKind;
#[cfg(any(feature = "describe", test))]
use crate::role::Role;
use crate::site::SiteConfig;
use crate::text::quoted;

/// Instructions that one template may run.
const FUEL: u64 = 200_000;
/// A rendered file is at most this long, in bytes.
const MAX_OUTPUT: usize = 4 << 20;

/// What a template can name.
#[derive(Debug, Clone)]
pub struct Values(Value);

impl Values {
    /// Those of a configuration, on an image of this name and version.
    #[must_use]
    pub fn of(site: &SiteConfig, image: &str, version: &str) -> Self {
        let app = site.app.iter();
        let app = Value::from_pairs(app.map(|(name, value)| (name.clone(), value_of(value))));
        let hostname = site.system.hostname.as_ref().map(ToString::to_string);
        Self(context! {
            app,
            role => site.role.clone(),
            config => context! { id => site.id.as_str(), serial => site.serial },
            system => context! {
                hostname => hostname.unwrap_or_else(|| "localhost".to_owned()),
                timezone => site.system.timezone.as_ref().map_or("UTC", |zone| zone.as_str()),
            },
            image => context! { name => image, version => version },
        })
    }

    /// A template, filled in for a kind of file.
    ///
    /// # Errors
    ///
    /// Why that cannot be, without any of the values.
    pub fn fill(&self, source: &str, escape: EscapeKind) -> Result<String, String> {
        render(source, escape, &self.0).map_err(|error| reason(&error))
    }
}

/// Names beside those of the parameters, and functions that minijinja has.
#[cfg(any(feature = "describe", test))]
const NAMES: [&str; 7] = [
    "role",
    "config.id",
    "config.serial",
    "system.hostname",
    "system.timezone",
    "image.name",
    "image.version",
];
#[cfg(any(feature = "describe", test))]
const FUNCTIONS: [&str; 4] = ["debug", "dict", "namespace", "range"];

/// Whether a role's template can be filled in at all: told to the vendor, since
/// a customer could not mend it. What depends on values shows with a sample.
///
/// # Errors
///
/// What is wrong with it.
#[cfg(any(feature = "describe", test))]
pub fn check_template(role: &Role, escape: EscapeKind, source: &str) -> Result<(), String> {
    let environment = environment(escape).map_err(|error| reason(&error))?;
    let template = environment.template_from_named_str("template", source);
    let template = template.map_err(|error| reason(&error))?;
    let params = role
        .params
        .iter()
        .map(|param| format!("app.{}", param.name));
    let known: Vec<String> = params.chain(NAMES.map(str::to_owned)).collect();
    let is_known = |name: &String| {
        // `app`, `app.title` and `app.title.upper`.
        let is_near = |known: &String| {
            known == name
                || known.starts_with(&format!("{name}."))
                || name.starts_with(&format!("{known}."))
        };
        FUNCTIONS.contains(&name.as_str()) || name == "app" || known.iter().any(is_near)
    };
    let mut names: Vec<String> = template.undeclared_variables(true).into_iter().collect();
    names.retain(|name| !is_known(name));
    names.sort();
    if let Some(name) = names.first() {
        let near = crate::nearest::nearest(name, known.iter().map(String::as_str));
        let near = near.map_or_else(String::new, |near| format!(" (did you mean `{near}`?)"));
        return Err(format!("`{name}` is not defined{near}"));
    }
    let app = role
        .params
        .iter()
        .map(|param| (param.name.clone(), sample(param)));
    let values = context! {
        app => Value::from_pairs(app),
        role => role.name.clone(),
        config => context! { id => "sample", serial => 1 },
        system => context! { hostname => "sample", timezone => "UTC" },
        image => context! { name => "sample", version => "1" },
    };
    render(source, escape, &values)
        .map(|_| ())
        .map_err(|error| reason(&error))
}

#[cfg(any(feature = "describe", test))]
fn sample(param: &Param) -> Value {
    match (&param.default, &param.kind) {
        (Some(value), _) => value_of(value),
        (None, ParamKind::Int { min, .. }) => Value::from(*min),
        (None, ParamKind::Port) => Value::from(80),
        (None, ParamKind::Bool) => Value::from(true),
        (None, ParamKind::Enum { values }) => Value::from(values.first().cloned()),
        (None, ParamKind::Ip) => Value::from("192.0.2.1"),
        (None, ParamKind::String { .. } | ParamKind::Hostname) => Value::from("sample"),
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

fn environment(escape: EscapeKind) -> Result<Environment<'static>, Error> {
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
    Ok(environment)
}

fn render(source: &str, escape: EscapeKind, values: &Value) -> Result<String, Error> {
    let environment = environment(escape)?;
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
    use super::*;

    #[test]
    fn a_template_that_nobody_could_fill_in_is_told_to_the_vendor() {
        let role = "schema = 1\nname = \"web\"\ndescription = \"x\"\n\
            [param.title]\ntype = \"string\"\n[param.port]\ntype = \"port\"\n\
            [param.mode]\ntype = \"enum\"\nvalues = [\"a\", \"b\"]\n";
        let role = Role::parse(role).expect("a role");
        let check = |source: &str| check_template(&role, EscapeKind::Html, source);
        for good in [
            "{{ app.title | upper }} {{ app.port + 1 }} {{ role }} {{ system.hostname }}",
            "{% if app.mode == 'b' %}{{ config.serial }}{% else %}{{ image.version }}{% endif %}",
            "{% set x = app.title %}{{ x }}{% for n in range(3) %}{{ n }}{{ loop.index }}{% endfor %}",
            "{% for name in app %}{{ name }}{% endfor %}",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (bad, reason) in [
            (
                "a\n{{ app.tilte }}",
                "`app.tilte` is not defined (did you mean `app.title`?)",
            ),
            (
                "{% if app.mode == 'c' %}{{ nosuch }}{% endif %}",
                "`nosuch` is not defined",
            ),
            ("{{ config.name }}", "`config.name` is not defined"),
            ("a\n{% if %}", "line 2: syntax error"),
            ("{{ app.title | toml2 }}", "line 1: unknown filter"),
            ("{% include 'other' %}", "line 1: syntax error"),
            ("{{ app.title / 2 }}", "line 1: invalid operation"),
        ] {
            assert_eq!(check(bad), Err(reason.to_owned()), "{bad}");
        }
    }
}
