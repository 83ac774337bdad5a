//! The role: its files, rendered from the site's parameters, and the units
//! that may start.
//!
//! How templates are filled in, `consign_schema::template` says.

use consign_schema::template::Values;
use consign_schema::{Problem, SiteConfig};

use super::Machine;
use crate::item::Item;

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
    let values = Values::of(site, &machine.image.name, &machine.image.version);
    for template in &role.templates {
        let source = sources.get(&template.source).map_or("", String::as_str);
        match values.fill(source, template.escape) {
            Ok(text) => items.push(Item::text(&template.target, template.mode.into(), text)),
            Err(error) => {
                let message = format!(
                    "template `{}` of role `{}` cannot be filled in: {}",
                    template.source, role.name, error
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

#[cfg(test)]
mod tests {
    use super::super::testing::{machine, site_with, text_of};
    use super::*;
    use crate::text::quoted;
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
