//! One page of HTML that asks for a site configuration and makes the config
//! disk of it in the browser: no server, no network, nothing leaves it.

use serde_json::json;

use super::json_schema;
use crate::factory::Shelf;

const PAGE: &str = include_str!("page.html");
const SCRIPT: &str = include_str!("page.js");

/// The page for the roles of `shelf`; `name` is the appliance's.
#[must_use]
pub fn page(shelf: &Shelf, name: &str) -> String {
    // Inside of a script element only `<` could end it.
    let embedded = |value: serde_json::Value| value.to_string().replace('<', "\\u003c");
    let order: Vec<&str> = consign_schema::describe::KEYS
        .iter()
        .map(|key| key.path)
        .collect();
    let data = format!(
        "const SCHEMA = {};\nconst ORDER = {};\nconst NAME = {};\nconst DATE = {};",
        embedded(json_schema(shelf)),
        embedded(json!(order)),
        embedded(json!(name)),
        embedded(json!(consign_schema::describe::DATE)),
    );
    PAGE.replace("/*DATA*/", &data)
        .replace("/*SCRIPT*/", SCRIPT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_whole_and_asks_nobody() {
        let page = page(&Shelf::default(), "</script><b>");
        assert!(page.contains("const SCHEMA = {") && page.contains("function fatImage("));
        assert_eq!(page.matches("</script>").count(), 1);
        assert!(!page.contains("/*DATA*/") && !page.contains("/*SCRIPT*/"));
        // The dialect's name is the only address in it.
        let addresses = page.matches("https://").count() + page.matches("http://").count();
        let named = page.matches("https://json-schema.org/").count()
            + page.matches("http://proxy.example.org").count();
        assert_eq!(addresses, named, "no address that a browser would ask");
        assert!(page.contains("default-src 'none'"));
        assert_eq!(page, super::page(&Shelf::default(), "</script><b>"));
    }
}
