//! Text as TOML and JSON write it.

pub use consign_schema::quoted;
use toml::de::DeTable;

/// A list of strings in one line.
pub fn quoted_list<'t>(items: impl IntoIterator<Item = &'t str>) -> String {
    let items: Vec<String> = items.into_iter().map(quoted).collect();
    format!("[{}]", items.join(", "))
}

/// A table of our own files; `None` when it is not one.
pub fn parse(text: &str) -> Option<DeTable<'_>> {
    DeTable::parse(text).ok().map(toml::Spanned::into_inner)
}

/// The string under `key`.
pub fn string(table: &DeTable<'_>, key: &str) -> Option<String> {
    table.get(key)?.get_ref().as_str().map(str::to_owned)
}

/// The number under `key`.
pub fn number(table: &DeTable<'_>, key: &str) -> Option<u64> {
    let number = table.get(key)?.get_ref().as_integer()?;
    u64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// The strings of the list under `key`; none when it is not there.
pub fn strings(table: &DeTable<'_>, key: &str) -> Vec<String> {
    let list = table.get(key).and_then(|value| value.get_ref().as_array());
    let items = list.into_iter().flatten();
    items
        .filter_map(|item| item.get_ref().as_str().map(str::to_owned))
        .collect()
}

/// The tables of `[[key]]`.
pub fn tables<'t, 'd>(table: &'t DeTable<'d>, key: &str) -> impl Iterator<Item = &'t DeTable<'d>> {
    let list = table.get(key).and_then(|value| value.get_ref().as_array());
    let items = list.into_iter().flatten();
    items.filter_map(|item| item.get_ref().as_table())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_text_survives_toml() {
        let text = "a\"b\\c\n\r\t\u{1}\u{7f}\u{85}ü";
        let line = format!("key = {}", quoted(text));
        let table = parse(&line).expect("TOML");
        assert_eq!(string(&table, "key").as_deref(), Some(text));
    }
}
