//! Draws an error for a person, or as one JSON object.

use std::error::Error as StdError;
use std::fmt::Write as _;

use super::config::{problem_lines, problem_objects};
use super::import::{finding_lines, finding_objects};
use crate::appliance::Style;
use crate::error::Error;
use crate::exec::escape;

/// What an error is shown as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum ReportFormat {
    /// For people.
    #[default]
    Text,
    /// For programs: one JSON object on standard output.
    Json,
}

/// What is wrong in a file, drawn in the file; then `error[slug]: message`,
/// each cause on its own line, the hint last.
#[must_use]
pub(super) fn text(error: &Error, style: Style) -> String {
    let mut drawn = match error {
        Error::Appliance(error) => error.draw(style),
        Error::Plan(error) => error.draw(style),
        Error::Factory(error) => lines(&problem_lines(error)),
        Error::Import(error) => lines(&finding_lines(error)),
        _ => String::new(),
    };
    writeln!(
        drawn,
        "error[{}]: {}",
        error.slug(),
        escape(&error.to_string())
    )
    .expect("writing to a string cannot fail");
    for cause in causes(error) {
        writeln!(drawn, "  because: {}", escape(&cause)).expect("writing to a string cannot fail");
    }
    if let Some(hint) = error.hint() {
        writeln!(drawn, "hint: {}", escape(&hint)).expect("writing to a string cannot fail");
    }
    drawn
}

/// The same as one JSON object: `slug`, `message`, `causes`, `hint`,
/// `exit_code`; and `places`, each with `file`, `line`, `column`, `message`
/// and `help`, where the error is about a file.
#[must_use]
pub(super) fn json(error: &Error) -> String {
    serde_json::json!({
        "error": {
            "slug": error.slug(),
            "message": error.to_string(),
            "causes": causes(error),
            "hint": error.hint(),
            "exit_code": error.class().code(),
            "places": places(error),
        }
    })
    .to_string()
}

fn places(error: &Error) -> Vec<serde_json::Value> {
    match error {
        Error::Appliance(error) => error.json(),
        Error::Plan(error) => error.json(),
        Error::Factory(error) => problem_objects(error),
        Error::Import(error) => finding_objects(error),
        _ => Vec::new(),
    }
}

fn lines(lines: &[String]) -> String {
    lines
        .iter()
        .fold(String::new(), |text, line| text + &escape(line) + "\n")
}

/// The chain of sources; a cause that only repeats the one above is left out.
fn causes(error: &Error) -> Vec<String> {
    let mut causes = Vec::new();
    let mut last = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if text != last {
            causes.push(text.clone());
        }
        last = text;
        source = cause.source();
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::{ExecError, Tool};

    #[test]
    fn an_error_says_what_and_what_to_do() {
        let error = Error::from(ExecError::Missing {
            tool: Tool::QemuX86,
        });
        assert_eq!(
            text(&error, Style::Plain),
            "error[tool-missing]: `qemu-system-x86_64` is not installed\n\
             hint: install it: apt-get install qemu-system-x86\n"
        );
        assert!(json(&error).contains("\"exit_code\":4"));
    }
}
