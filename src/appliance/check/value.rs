//! Single values: names, words of closed lists, sizes, numbers, dates, prose.

use toml::Spanned;
use toml::value::{Datetime, Offset};

use crate::appliance::diagnostic::{Diagnostic, list, nearest, quoted};
use crate::appliance::fields::{Problems, WrittenMoment};
use crate::appliance::model::ALIGNMENT;
use crate::appliance::names::{NameError, PackageName};
use crate::units::{ByteSize, Civil, Timestamp};

/// A name of some kind, or a problem.
pub(in crate::appliance) fn named<T>(
    text: &Spanned<String>,
    kind: &str,
    allowed: &str,
    check: impl Fn(&str) -> Result<T, NameError>,
    problems: &mut Problems,
) -> Option<T> {
    let shown = quoted(text.get_ref());
    let message = match check(text.get_ref()) {
        Ok(name) => return Some(name),
        Err(NameError::Empty) => format!("the {kind} is empty"),
        Err(NameError::TooLong) => format!("the {kind} `{shown}` is too long"),
        Err(NameError::First(c)) => {
            format!(
                "the {kind} `{shown}` begins with `{}`",
                quoted(&c.to_string())
            )
        }
        Err(NameError::Character(c)) => {
            format!(
                "the {kind} `{shown}` has `{}` in it",
                quoted(&c.to_string())
            )
        }
    };
    problems
        .push(Diagnostic::at(text.span(), message).help(format!("a {kind} is made of {allowed}")));
    None
}

/// One of a closed list of words.
pub(super) fn word<T: Copy>(
    text: &Spanned<String>,
    what: &str,
    all: &[(&'static str, T)],
    problems: &mut Problems,
) -> Option<T> {
    let known = all.iter().find(|(word, _)| word == text.get_ref());
    if let Some((_, value)) = known {
        return Some(*value);
    }
    let words: Vec<_> = all.iter().map(|(word, _)| *word).collect();
    let unknown = Diagnostic::at(
        text.span(),
        format!("unknown {what} `{}`", quoted(text.get_ref())),
    );
    problems.push(match nearest(text.get_ref(), words.iter().copied()) {
        Some(word) => unknown.help(format!("did you mean `{word}`?")),
        None if words.len() == 1 => unknown.help(format!("there is only {}", list(&words, "and"))),
        None => unknown.help(format!("choose from {}", list(&words, "and"))),
    });
    None
}

/// The words of a closed list, each with its value.
macro_rules! table {
    ($name:ident) => {
        &$name::ALL
            .iter()
            .map(|one| (one.word(), *one))
            .collect::<Vec<_>>()
    };
}
pub(super) use table;

/// A list of words without repeats, not empty, in the order written.
pub(super) fn words<T: Copy + PartialEq>(
    texts: &Spanned<Vec<Spanned<String>>>,
    what: &str,
    all: &[(&'static str, T)],
    problems: &mut Problems,
) -> Option<Vec<T>> {
    if texts.get_ref().is_empty() {
        let words: Vec<_> = all.iter().map(|(word, _)| *word).collect();
        problems.push(
            Diagnostic::at(texts.span(), format!("the list has no {what}"))
                .help(format!("choose from {}", list(&words, "and"))),
        );
        return None;
    }
    let mut chosen = Vec::new();
    for text in texts.get_ref() {
        let Some(value) = word(text, what, all, problems) else {
            continue;
        };
        if chosen.contains(&value) {
            problems.push(repeated(text, what));
        }
        chosen.push(value);
    }
    Some(chosen)
}

pub(super) fn repeated(text: &Spanned<String>, what: &str) -> Diagnostic {
    Diagnostic::at(
        text.span(),
        format!("the {what} `{}` stands here twice", quoted(text.get_ref())),
    )
    .help("remove one of the two")
}

/// Text for people: no control characters, and lines only where they fit.
pub(super) fn prose(
    text: Spanned<String>,
    key: &str,
    limit: usize,
    lines: bool,
    problems: &mut Problems,
) -> String {
    let (span, text) = (text.span(), text.into_inner());
    let odd = text
        .chars()
        .find(|c| c.is_control() && !(lines && *c == '\n'));
    if let Some(odd) = odd {
        problems.push(
            Diagnostic::at(
                span.clone(),
                format!("`{key}` has the character `{}` in it", odd.escape_debug()),
            )
            .help(if lines {
                "write text and line breaks only"
            } else {
                "write one line of text"
            }),
        );
    }
    if text.chars().count() > limit {
        problems.push(Diagnostic::at(
            span,
            format!("`{key}` is longer than {limit} characters"),
        ));
    }
    text
}

/// A full date with a zone, from 1980 (the first year FAT knows) to 2099.
pub(super) fn moment(
    written: &Spanned<WrittenMoment>,
    problems: &mut Problems,
) -> Option<Timestamp> {
    let moment = match written.get_ref() {
        WrittenMoment::Seconds(seconds) => i64::try_from(*seconds)
            .map(Timestamp::from_seconds)
            .map_err(|_| "the date is too far away"),
        WrittenMoment::Date(date) => {
            instant(date).ok_or("the date has no time or no zone, or there is no such day")
        }
        WrittenMoment::Nonsense => Err("this is not a date with a time and a zone"),
    };
    let moment = match moment {
        Ok(moment) => moment,
        Err(message) => {
            problems.push(
                Diagnostic::at(written.span(), message)
                    .help("write it like this: 2024-05-01T00:00:00Z"),
            );
            return None;
        }
    };
    if !(1980..2100).contains(&moment.civil().year) {
        problems.push(
            Diagnostic::at(
                written.span(),
                format!("the source date is in the year {}", moment.civil().year),
            )
            .help("choose a date from 1980 to 2099; FAT knows no earlier one"),
        );
        return None;
    }
    Some(moment)
}

pub(super) fn instant(date: &Datetime) -> Option<Timestamp> {
    let (day, time) = (date.date?, date.time?);
    let shift = match date.offset? {
        Offset::Z => 0,
        Offset::Custom { minutes } => i64::from(minutes) * 60,
    };
    let local = Timestamp::from_civil(Civil {
        year: i64::from(day.year),
        month: day.month,
        day: day.day,
        hour: time.hour,
        minute: time.minute,
        second: time.second.unwrap_or(0),
    })?;
    Some(Timestamp::from_seconds(local.seconds - shift))
}

/// A size within `least` and `most`, in whole mebibytes.
pub(super) fn size(
    text: Option<&Spanned<String>>,
    key: &str,
    default: ByteSize,
    (least, most): (ByteSize, ByteSize),
    problems: &mut Problems,
) -> Option<ByteSize> {
    let Some(text) = text else {
        return Some(default);
    };
    let size = match ByteSize::parse(text.get_ref()) {
        Ok(size) => size,
        Err(error) => {
            problems
                .push(Diagnostic::at(text.span(), format!("`{key}`: {error}")).help(error.hint()));
            return None;
        }
    };
    if !size.bytes().is_multiple_of(ALIGNMENT) {
        problems.push(
            Diagnostic::at(text.span(), format!("`{key}` is not a whole number of MiB"))
                .help(format!("write \"{}MiB\"", size.mib_ceil())),
        );
        return None;
    }
    if size < least || size > most {
        problems.push(
            Diagnostic::at(text.span(), format!("`{key}` is {size}"))
                .help(format!("choose from {least} to {most}")),
        );
        return None;
    }
    Some(size)
}

/// A whole number within bounds.
pub(super) fn whole(
    number: Option<&Spanned<u64>>,
    key: &str,
    default: u32,
    (least, most): (u32, u32),
    problems: &mut Problems,
) -> Option<u32> {
    let Some(number) = number else {
        return Some(default);
    };
    match u32::try_from(*number.get_ref()) {
        Ok(number) if (least..=most).contains(&number) => Some(number),
        _ => {
            problems.push(
                Diagnostic::at(number.span(), format!("`{key}` is {}", number.get_ref()))
                    .help(format!("choose from {least} to {most}")),
            );
            None
        }
    }
}

/// A package name, or a problem.
pub(in crate::appliance) fn package(
    text: &Spanned<String>,
    problems: &mut Problems,
) -> Option<PackageName> {
    named(
        text,
        PackageName::KIND,
        PackageName::ALLOWED,
        PackageName::check,
        problems,
    )
}
