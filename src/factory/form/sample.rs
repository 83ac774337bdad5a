//! A sample in which every key stands with its meaning, all but the head
//! commented out.

use std::fmt::Write as _;

use consign_schema::describe::{KEYS, Key, TABLES, Table};
use consign_schema::{Param, Role};

use crate::factory::Shelf;

/// The sample for the roles of `shelf`.
#[must_use]
pub fn sample(shelf: &Shelf) -> String {
    let mut text = "# A site configuration. Take the `#` away from the lines that you need, a\n\
                    # table's name with its keys, and write your own values.\n\n"
        .to_owned();
    for key in KEYS.iter().filter(|key| !key.path.contains('.')) {
        let _ = writeln!(text, "# {}\n{} = {}", key.help, key.path, key.example);
    }
    let roles: Vec<&Role> = shelf.roles().collect();
    for table in TABLES {
        if table.path != "role" || roles.len() > 1 {
            add_table(&mut text, table);
        }
    }
    for role in roles {
        add_role(&mut text, role);
    }
    text
}

fn add_table(text: &mut String, table: &Table) {
    let head = match (table.path.strip_suffix("[]"), table.names) {
        (Some(name), _) => format!("[[{name}]]"),
        (None, Some(names)) => {
            format!("[{}{}]", table.path.trim_end_matches('*'), names.example)
        }
        (None, None) => format!("[{}]", table.path),
    };
    // The head of every file is what it is.
    let mark = if table.path == "config" { "" } else { "#" };
    let _ = write!(text, "\n# {}\n{mark}{head}\n", table.help);
    let prefix = format!("{}.", table.path);
    for key in KEYS {
        if let Some(name) = key.path.strip_prefix(&prefix) {
            let mark = if mark.is_empty() && key.required {
                ""
            } else {
                "#"
            };
            add_key(text, key, name, mark);
        }
    }
}

fn add_key(text: &mut String, key: &Key, name: &str, mark: &str) {
    let line = match name.split_once("[].") {
        Some((list, inner)) => format!("{list} = [{{ {inner} = {} }}]", key.example),
        None => format!("{name} = {}", key.example),
    };
    let _ = writeln!(text, "# {}", key.help);
    for line in line.lines() {
        let _ = writeln!(text, "{mark}{line}");
    }
}

fn add_role(text: &mut String, role: &Role) {
    let _ = write!(text, "\n# {}: {}\n#[app]\n", role.name, role.description);
    for Param {
        name,
        help,
        default,
        ..
    } in &role.params
    {
        if !help.is_empty() {
            let _ = writeln!(text, "# {help}");
        }
        let value = default.as_ref().map(|value| match value {
            consign_schema::ParamValue::Int(_) | consign_schema::ParamValue::Bool(_) => {
                value.to_string()
            }
            text => format!("{:?}", text.to_string()),
        });
        match value {
            Some(value) => {
                let _ = writeln!(text, "#{name} = {value}");
            }
            None => {
                let _ = writeln!(text, "#{name} = # must be given");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use consign_schema::{Policy, check};

    #[test]
    fn the_sample_is_accepted_and_so_is_each_of_its_tables() {
        let text = sample(&Shelf::default());
        check(&text, &[], &Policy::default()).expect("the sample");
        // A table without its marks, of alternatives the first.
        let mut tables = 0;
        for block in text.split("\n\n").skip(2) {
            let mut open: Vec<&str> = Vec::new();
            for line in block.lines() {
                let plain = line.strip_prefix('#').unwrap_or(line);
                let name = |line: &str| line.split(['=', '.', '[']).next().map(str::to_owned);
                let is_other = plain.contains('=')
                    && (plain.starts_with("match.") || plain.starts_with("members"))
                    && open.iter().any(|line| name(line) == name(plain));
                if !line.starts_with("# ") && !is_other {
                    open.push(plain);
                }
            }
            let table = open.join("\n");
            // Shortened examples, and what needs another table.
            if table.contains("...") || table.contains("[vlan") || table.contains("[role") {
                continue;
            }
            let head = "schema = 1\n[config]\nid = \"a\"\nserial = 1\n";
            let whole = if table.contains("[config]") {
                format!("schema = 1\n{table}\n")
            } else {
                format!("{head}{table}\n")
            };
            let judged = check(&whole, &[], &Policy::default());
            assert!(judged.is_ok(), "{whole}\n{:#?}", judged.err());
            tables += 1;
        }
        assert!(tables >= 10, "{tables} tables");
    }
}
