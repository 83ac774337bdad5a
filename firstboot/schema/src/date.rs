//! Dates: from when and until when a configuration or a certificate counts.

use std::fmt;

use toml::de::DeValue;
use toml::value::{Date, Datetime, Offset};

use crate::document::Found;
use crate::problem::Code;
use crate::report::{Finding, Report};

const DAY: i64 = 86_400;

/// A moment, in seconds since 1970-01-01 00:00 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(i64);

impl Moment {
    /// The moment so many seconds after 1970-01-01 00:00 UTC.
    #[must_use]
    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds)
    }

    /// Seconds since 1970-01-01 00:00 UTC.
    #[must_use]
    pub const fn seconds(self) -> i64 {
        self.0
    }

    /// The beginning of a day in UTC; `None` for days that no calendar has.
    #[must_use]
    pub fn of_day(year: i64, month: u8, day: u8) -> Option<Self> {
        let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let length = match month {
            4 | 6 | 9 | 11 => 30,
            2 if is_leap => 29,
            2 => 28,
            1..=12 => 31,
            _ => return None,
        };
        if !(1..=length).contains(&day) || !(0..=9999).contains(&year) {
            return None;
        }
        // Days before the year and the month, the year beginning in March.
        let (year, month) = if month > 2 {
            (year, i64::from(month) - 3)
        } else {
            (year - 1, i64::from(month) + 9)
        };
        let before = 365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
        let in_year = (153 * month + 2) / 5 + i64::from(day) - 1;
        Some(Self((before + in_year - 719_468) * DAY))
    }

    /// The moment `seconds` later.
    #[must_use]
    pub const fn plus(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds))
    }
}

impl fmt::Display for Moment {
    /// The day in UTC, such as `2030-01-31`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = self.0.div_euclid(DAY) + 719_468;
        let era = days.div_euclid(146_097);
        let of_era = days.rem_euclid(146_097);
        let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        let month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * month + 2) / 5 + 1;
        let (month, carry) = if month < 10 {
            (month + 3, 0)
        } else {
            (month - 9, 1)
        };
        write!(f, "{:04}-{month:02}-{day:02}", year + era * 400 + carry)
    }
}

/// Which end of a day a bare date means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Its first second.
    First,
    /// Its last second.
    Last,
}

/// Reads a TOML date, or a date and time with an offset.
pub(crate) fn moment(
    found: Found<&DeValue<'_>>,
    end: End,
    report: &mut Report<'_>,
) -> Option<Found<Moment>> {
    let example = "write it without quotes, for example 2030-01-31";
    let DeValue::Datetime(value) = *found.value else {
        let message = format!("`{}` is not a date", found.key);
        let finding = Finding::new(Code::WrongType, message)
            .allowed("a date such as 2030-01-31")
            .remedy(example);
        found.note(report, finding);
        return None;
    };
    let Some(moment) = of_datetime(value, end) else {
        let finding = Finding::invalid("a time needs its date and its offset from UTC")
            .allowed("a date such as 2030-01-31, or 2030-01-31T12:00:00Z")
            .remedy(example);
        found.note(report, finding);
        return None;
    };
    Some(found.replace(moment))
}

fn of_datetime(value: Datetime, end: End) -> Option<Moment> {
    let Date { year, month, day } = value.date?;
    let begin = Moment::of_day(i64::from(year), month, day)?;
    let Some(time) = value.time else {
        return Some(match end {
            End::First => begin,
            End::Last => begin.plus(DAY - 1),
        });
    };
    let offset = match value.offset? {
        Offset::Z => 0,
        Offset::Custom { minutes } => i64::from(minutes) * 60,
    };
    let seconds = i64::from(time.hour) * 3600
        + i64::from(time.minute) * 60
        + i64::from(time.second.unwrap_or(0));
    Some(begin.plus(seconds - offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_as_the_calendar_does() {
        let seconds = |y, m, d| Moment::of_day(y, m, d).map(Moment::seconds);
        assert_eq!(seconds(1970, 1, 1), Some(0));
        assert_eq!(seconds(2000, 2, 29), Some(951_782_400));
        assert_eq!(seconds(2038, 1, 19), Some(2_147_472_000));
        assert_eq!(seconds(1900, 2, 29), None);
        assert_eq!(seconds(2024, 13, 1), None);
        assert_eq!(seconds(2024, 4, 31), None);
        for day in (0..60_000).step_by(7) {
            let text = Moment(day * DAY).to_string();
            let part = |range| {
                text.get(range)
                    .and_then(|part: &str| part.parse::<i64>().ok())
            };
            let small = |range| part(range).and_then(|part| u8::try_from(part).ok());
            let back = Moment::of_day(
                part(0..4).expect("year"),
                small(5..7).expect("month"),
                small(8..10).expect("day"),
            );
            assert_eq!(back, Some(Moment(day * DAY)), "{text}");
        }
    }
}
