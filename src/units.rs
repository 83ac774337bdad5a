//! Quantities with their unit in the type: sizes, times, identifiers.
//!
//! In: numbers and text from outside. Out: values that cannot be confused.
//! Never here: I/O, clocks, chance.

use std::fmt;
use std::str::FromStr;

/// Binary kibibyte, in bytes.
pub const KIB: u64 = 1 << 10;
/// Binary mebibyte, in bytes.
pub const MIB: u64 = 1 << 20;
/// Binary gibibyte, in bytes.
pub const GIB: u64 = 1 << 30;
/// Binary tebibyte, in bytes.
pub const TIB: u64 = 1 << 40;

/// Characters of a text that are compared.
const COMPARED: usize = 60;

/// The one of `known` that `text` was probably meant to be.
#[must_use]
pub fn nearest<'a>(text: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A third of the letters may be wrong, and one always; more is another word.
    let allowed = (text.chars().count().min(COMPARED) / 3).max(1);
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(text, name), name))
        .filter(|(distance, name)| *distance <= allowed && *distance < name.len())
        .min()
        .map(|(_, name)| name)
}

/// A length in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(u64);

impl ByteSize {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// A length of `bytes`.
    #[must_use]
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// A length of `mib` mebibytes.
    ///
    /// # Panics
    ///
    /// When the length does not fit 64 bits; meant for constants.
    #[must_use]
    pub const fn from_mib(mib: u64) -> Self {
        Self(mib * MIB)
    }

    /// The length in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// Whole mebibytes, rounded up.
    #[must_use]
    pub const fn mib_ceil(self) -> u64 {
        self.0.div_ceil(MIB)
    }

    /// The smallest multiple of `unit` bytes that holds this length.
    /// `None` when that does not fit 64 bits, or `unit` is 0.
    #[must_use]
    pub fn round_up(self, unit: u64) -> Option<Self> {
        self.0.checked_next_multiple_of(unit).map(Self)
    }

    /// Parses `8GiB`, `512 MiB`, `4096B`. The unit is part of the value:
    /// B, KiB, MiB, GiB or TiB, in exactly these spellings; fractions
    /// (`1.5GiB`) are allowed where they give whole bytes.
    ///
    /// # Errors
    ///
    /// [`SizeError`] names what is missing or wrong.
    pub fn parse(text: &str) -> Result<Self, SizeError> {
        let text = text.trim();
        let split = text
            .find(|c: char| !(c.is_ascii_digit() || c == '.'))
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let scale = match unit.trim() {
            "" if number.is_empty() => return Err(SizeError::NotANumber),
            "" => return Err(SizeError::NoUnit),
            "B" => 1,
            "KiB" => KIB,
            "MiB" => MIB,
            "GiB" => GIB,
            "TiB" => TIB,
            other => return Err(SizeError::UnknownUnit(other.to_owned())),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() || fraction.len() > 6 || number.ends_with('.') {
            return Err(SizeError::NotANumber);
        }
        let whole: u64 = whole.parse().map_err(|_| SizeError::TooLarge)?;
        let bytes = whole.checked_mul(scale).ok_or(SizeError::TooLarge)?;
        let mut extra = 0;
        if !fraction.is_empty() {
            let digits: u64 = fraction.parse().map_err(|_| SizeError::NotANumber)?;
            let places =
                10_u64.pow(u32::try_from(fraction.len()).expect("at most 6: checked above"));
            let scaled = digits.checked_mul(scale).ok_or(SizeError::TooLarge)?;
            if !scaled.is_multiple_of(places) {
                return Err(SizeError::NotWholeBytes);
            }
            extra = scaled / places;
        }
        bytes
            .checked_add(extra)
            .map(Self)
            .ok_or(SizeError::TooLarge)
    }
}

/// In bytes, for programs.
impl serde::Serialize for ByteSize {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl fmt::Display for ByteSize {
    /// Two or three significant digits in the largest fitting unit; exact
    /// when the size is a whole number of that unit.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, name) = match self.0 {
            TIB.. => (TIB, "TiB"),
            GIB.. => (GIB, "GiB"),
            MIB.. => (MIB, "MiB"),
            KIB.. => (KIB, "KiB"),
            _ => return write!(f, "{} B", self.0),
        };
        let tenths = (u128::from(self.0) * 10 + u128::from(unit) / 2) / u128::from(unit);
        if tenths.is_multiple_of(10) {
            write!(f, "{} {name}", tenths / 10)
        } else {
            write!(f, "{}.{} {name}", tenths / 10, tenths % 10)
        }
    }
}

impl FromStr for ByteSize {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        Self::parse(text)
    }
}

/// Why a text is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SizeError {
    /// No digits.
    #[error("a size starts with a number")]
    NotANumber,
    /// A bare number.
    #[error("the size has no unit")]
    NoUnit,
    /// Some other unit, `GB` or `M` for example.
    #[error("`{0}` is not a unit of size")]
    UnknownUnit(String),
    /// A fraction of a byte.
    #[error("the size is not a whole number of bytes")]
    NotWholeBytes,
    /// Above 2^64.
    #[error("the size does not fit 64 bits")]
    TooLarge,
}

impl SizeError {
    /// What the writer of the text can do.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotWholeBytes | Self::TooLarge => "write a size such as \"8GiB\"",
            _ => "write a number and its unit (B, KiB, MiB, GiB or TiB), for example \"8GiB\"",
        }
    }
}

/// A moment: seconds since 1970-01-01 00:00 UTC, and nanoseconds within the
/// second (0 to 999,999,999).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Seconds since the epoch; before it, negative.
    pub seconds: i64,
    /// Nanoseconds after `seconds`.
    pub nanos: u32,
}

impl Timestamp {
    /// A whole second.
    #[must_use]
    pub const fn from_seconds(seconds: i64) -> Self {
        Self { seconds, nanos: 0 }
    }

    /// The moment that `civil` names; `None` when there is no such date or
    /// time of day, or the year is not 0 to 9999.
    #[must_use]
    pub fn from_civil(civil: Civil) -> Option<Self> {
        // Civil date to days: H. Hinnant, "chrono-Compatible Low-Level Date Algorithms".
        if !(0..=9999).contains(&civil.year) || !(1..=12).contains(&civil.month) {
            return None;
        }
        let (month, day) = (i64::from(civil.month), i64::from(civil.day));
        let year = civil.year - i64::from(month <= 2);
        let era = year.div_euclid(400);
        let year_of_era = year.rem_euclid(400);
        let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let days = era * 146_097 + day_of_era - 719_468;
        let clock =
            i64::from(civil.hour) * 3600 + i64::from(civil.minute) * 60 + i64::from(civil.second);
        let moment = Self::from_seconds(days * 86_400 + clock);
        // A field out of its range comes back as another one.
        (moment.civil() == civil).then_some(moment)
    }

    /// Parses what `Display` writes: `2023-11-14T22:13:20Z`, nothing shorter
    /// or longer.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let number = |range: std::ops::Range<usize>| {
            let digits = text.get(range)?;
            let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse().ok().filter(|_: &u16| is_number)
        };
        let small = |range| u8::try_from(number(range)?).ok();
        let moment = Self::from_civil(Civil {
            year: i64::from(number(0..4)?),
            month: small(5..7)?,
            day: small(8..10)?,
            hour: small(11..13)?,
            minute: small(14..16)?,
            second: small(17..19)?,
        })?;
        // The characters between the numbers are judged by writing them again.
        (moment.to_string() == text).then_some(moment)
    }

    /// Year, month (1-12), day (1-31), hour, minute, second in UTC.
    #[must_use]
    pub fn civil(self) -> Civil {
        // Days to civil date: H. Hinnant, "chrono-Compatible Low-Level Date Algorithms".
        let days = self.seconds.div_euclid(86_400);
        let second_of_day = self.seconds.rem_euclid(86_400);
        let z = days + 719_468;
        let era = z.div_euclid(146_097);
        let day_of_era = z.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let month = if shifted < 10 {
            shifted + 3
        } else {
            shifted - 9
        };
        let small = |n: i64| u8::try_from(n).expect("a calendar field is below 60");
        Civil {
            year: year_of_era + era * 400 + i64::from(month <= 2),
            month: small(month),
            day: small(day_of_year - (153 * shifted + 2) / 5 + 1),
            hour: small(second_of_day / 3600),
            minute: small(second_of_day / 60 % 60),
            second: small(second_of_day % 60),
        }
    }
}

/// As `Display` writes it, for programs.
impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC, whole seconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Civil {
            year,
            month,
            day,
            hour,
            minute,
            second,
        } = self.civil();
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
        )
    }
}

/// A date and time of day in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Civil {
    pub year: i64,
    pub month: u8,
    pub day: u8,
    pub hour: u8,
    pub minute: u8,
    pub second: u8,
}

/// A 128-bit identifier, kept in the byte order of its text form (RFC 9562).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guid([u8; 16]);

impl Guid {
    /// The identifier whose text form has these bytes, left to right.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// A constant such as `0xc12a7328_f81f_11d2_ba4b_00a0c93ec93b`.
    #[must_use]
    pub const fn from_u128(value: u128) -> Self {
        Self(value.to_be_bytes())
    }

    /// An identifier made of hash bytes: version 8 (custom), RFC variant.
    #[must_use]
    pub const fn from_hash(mut bytes: [u8; 16]) -> Self {
        bytes[6] = (bytes[6] & 0x0f) | 0x80;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        Self(bytes)
    }

    /// Bytes in text order, as file systems store them.
    #[must_use]
    pub const fn bytes(self) -> [u8; 16] {
        self.0
    }

    /// The first 32 bits, for formats whose identifier is that short.
    #[must_use]
    pub const fn short(self) -> u32 {
        u32::from_be_bytes([self.0[0], self.0[1], self.0[2], self.0[3]])
    }
}

impl fmt::Display for Guid {
    /// Lower case, 8-4-4-4-12.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// The exit code of `consign` and `virt-image`, by kind of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExitClass {
    /// A build or a fetch failed.
    Build,
    /// The command line, `appliance.toml`, `site.toml` or a descriptor is wrong.
    Usage,
    /// A digest, a signature or a checker said no.
    Verification,
    /// An external tool is missing or failed.
    Tool,
    /// The guest did not get ready.
    Guest,
    /// A bug in consign.
    Bug,
    /// Ctrl-C.
    Interrupted,
    /// SIGTERM.
    Terminated,
}

impl ExitClass {
    /// The number the shell sees.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Build => 1,
            Self::Usage => 2,
            Self::Verification => 3,
            Self::Tool => 4,
            Self::Guest => 5,
            Self::Bug => 70,
            // As a shell says of a program that a signal ended.
            Self::Interrupted => 130,
            Self::Terminated => 143,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_need_a_unit() {
        assert_eq!(ByteSize::parse("8GiB"), Ok(ByteSize(8 * GIB)));
        assert_eq!(ByteSize::parse("1.5 MiB"), Ok(ByteSize(3 * MIB / 2)));
        assert_eq!(ByteSize::parse("8"), Err(SizeError::NoUnit));
        assert_eq!(
            ByteSize::parse("8GB"),
            Err(SizeError::UnknownUnit("GB".into()))
        );
        assert_eq!(ByteSize::parse("GiB"), Err(SizeError::NotANumber));
        assert_eq!(ByteSize::parse("0.1B"), Err(SizeError::NotWholeBytes));
        assert_eq!(
            ByteSize::parse("99999999999999999999B"),
            Err(SizeError::TooLarge)
        );
        assert_eq!(ByteSize::parse("16777216TiB"), Err(SizeError::TooLarge));
    }

    #[test]
    fn sizes_read_well() {
        assert_eq!(ByteSize(8 * GIB).to_string(), "8 GiB");
        assert_eq!(ByteSize(9_770_000_000).to_string(), "9.1 GiB");
        assert_eq!(ByteSize(17).to_string(), "17 B");
    }

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(
            Timestamp::from_seconds(0).to_string(),
            "1970-01-01T00:00:00Z"
        );
        assert_eq!(
            Timestamp::from_seconds(1_700_000_000).to_string(),
            "2023-11-14T22:13:20Z"
        );
        assert_eq!(
            Timestamp::from_seconds(951_782_399).to_string(),
            "2000-02-28T23:59:59Z"
        );
        assert_eq!(
            Timestamp::from_seconds(951_782_400).to_string(),
            "2000-02-29T00:00:00Z"
        );
        assert_eq!(
            Timestamp::from_seconds(-1).to_string(),
            "1969-12-31T23:59:59Z"
        );
    }

    #[test]
    fn dates_survive_a_round_trip() {
        for seconds in [
            0,
            -1,
            951_782_399,
            951_782_400,
            1_700_000_000,
            253_402_300_799,
        ] {
            let moment = Timestamp::from_seconds(seconds);
            assert_eq!(Timestamp::from_civil(moment.civil()), Some(moment));
        }
        let text = "2023-11-14T22:13:20Z";
        assert_eq!(
            Timestamp::parse(text).map(|moment| moment.to_string()),
            Some(text.into())
        );
        for bad in [
            "",
            "2023-11-14 22:13:20Z",
            "2023-11-14T22:13:20",
            "+023-11-14T22:13:20Z",
        ] {
            assert_eq!(Timestamp::parse(bad), None, "{bad}");
        }
        let civil = |month, day, hour| Civil {
            year: 2023,
            month,
            day,
            hour,
            minute: 0,
            second: 0,
        };
        assert_eq!(Timestamp::from_civil(civil(2, 29, 0)), None);
        assert_eq!(Timestamp::from_civil(civil(13, 1, 0)), None);
        assert_eq!(Timestamp::from_civil(civil(1, 0, 0)), None);
        assert_eq!(Timestamp::from_civil(civil(1, 1, 24)), None);
    }

    #[test]
    fn guids_print_in_text_order() {
        let esp = Guid::from_u128(0xc12a7328_f81f_11d2_ba4b_00a0c93ec93b);
        assert_eq!(esp.to_string(), "c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
        assert_eq!(
            Guid::from_hash([0xff; 16]).to_string(),
            "ffffffff-ffff-8fff-bfff-ffffffffffff"
        );
    }
}
