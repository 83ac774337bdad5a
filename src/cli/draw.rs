//! Draws an error for a person, or as one JSON object.

use std::error::Error as StdError;
use std::fmt::Write as _;

use crate::error::Error;
use crate::exec::escape;

/// What an error is shown as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ReportFormat {
    /// For people.
    #[default]
    Text,
    /// For programs: one JSON object on standard output.
    Json,
}

/// `error[slug]: message`, each cause on its own line, the hint last.
#[must_use]
pub fn text(error: &Error) -> String {
    let mut drawn = format!("error[{}]: {}\n", error.slug(), escape(&error.to_string()));
    for cause in causes(error) {
        writeln!(drawn, "  because: {}", escape(&cause)).expect("writing to a string cannot fail");
    }
    if let Some(hint) = error.hint() {
        writeln!(drawn, "hint: {}", escape(&hint)).expect("writing to a string cannot fail");
    }
    drawn
}

/// The same as one JSON object: `slug`, `message`, `causes`, `hint`, `exit_code`.
#[must_use]
pub fn json(error: &Error) -> String {
    serde_json::json!({
        "error": {
            "slug": error.slug(),
            "message": error.to_string(),
            "causes": causes(error),
            "hint": error.hint(),
            "exit_code": error.class().code(),
        }
    })
    .to_string()
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
            text(&error),
            "error[tool-missing]: `qemu-system-x86_64` is not installed\n\
             hint: install it: apt-get install qemu-system-x86\n"
        );
        assert!(json(&error).contains("\"exit_code\":4"));
    }
}
