//! Somebody else's XML as a tree: bounded, without document types, each
//! element with its place.
//!
//! A document type is refused as soon as it begins: nothing that it declares
//! is expanded or fetched. Text, depth and numbers have caps, so what is kept
//! is at most a few times what was read.

use xml::common::Position as _;
use xml::reader::{ErrorKind, EventReader, ParserConfig, XmlEvent};

use super::finding::{Finding, Problem};

/// Longest descriptor that is read; real ones have a few KiB.
pub(super) const MAX_BYTES: u64 = 1 << 20;
/// Elements within elements; real ones have six.
const MAX_DEPTH: usize = 32;
/// Elements of all kinds.
const MAX_ELEMENTS: usize = 20_000;
/// Attributes of one element.
const MAX_ATTRIBUTES: usize = 64;
/// Bytes of one name, one attribute.
const MAX_NAME: usize = 1 << 10;
const MAX_ATTRIBUTE: usize = 64 << 10;

/// Where something stands, both from 1 on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: u64,
    /// The column, in characters.
    pub column: u64,
}

/// An element.
#[derive(Debug, Clone, Default)]
pub(super) struct Element {
    pub(super) name: String,
    pub(super) namespace: Option<String>,
    /// Namespace, name, value.
    attributes: Vec<(Option<String>, String, String)>,
    text: String,
    pub(super) children: Vec<Element>,
    pub(super) place: Place,
}

impl Element {
    /// The value of an attribute without a namespace. An empty one is as
    /// good as none, as in the historic parser.
    pub(super) fn attribute(&self, name: &str) -> Option<&str> {
        self.attribute_of(None, name)
    }

    pub(super) fn attribute_of(&self, namespace: Option<&str>, name: &str) -> Option<&str> {
        self.attributes
            .iter()
            .find(|(space, own, _)| space.as_deref() == namespace && own == name)
            .map(|(_, _, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    /// Its text; `None` when empty.
    pub(super) fn text(&self) -> Option<&str> {
        Some(self.text.as_str()).filter(|text| !text.is_empty())
    }

    /// Children without a namespace.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Element> {
        self.all_of(None, name)
    }

    pub(super) fn all_of<'a>(
        &'a self,
        namespace: Option<&'a str>,
        name: &'a str,
    ) -> impl Iterator<Item = &'a Element> {
        self.children
            .iter()
            .filter(move |child| child.name == name && child.namespace.as_deref() == namespace)
    }

    /// The first child without a namespace.
    pub(super) fn first(&self, name: &str) -> Option<&Element> {
        self.children
            .iter()
            .find(|child| child.name == name && child.namespace.is_none())
    }
}

/// Parses a document. Any finding ends the reading.
pub(super) fn parse(bytes: &[u8]) -> Result<Element, Finding> {
    let config = ParserConfig::new()
        .cdata_to_characters(true)
        .ignore_comments(true)
        .coalesce_characters(true)
        .whitespace_to_characters(true)
        .max_attributes(MAX_ATTRIBUTES)
        .max_name_length(MAX_NAME)
        .max_attribute_length(MAX_ATTRIBUTE)
        .max_entity_expansion_length(0)
        .max_entity_expansion_depth(0);
    let mut reader = EventReader::new_with_config(bytes, config);
    let mut open: Vec<Element> = Vec::new();
    let mut count = 0;
    loop {
        let event = reader.next();
        let place = place_of(reader.position());
        let inner = open.last().map_or("the document", |element| &element.name);
        let inner = inner.to_owned();
        let finding = |problem| Finding {
            place,
            element: inner.clone(),
            problem,
        };
        match event {
            Ok(XmlEvent::Doctype { .. }) => return Err(finding(Problem::DocumentType)),
            Ok(XmlEvent::StartElement {
                name, attributes, ..
            }) => {
                count += 1;
                if open.len() >= MAX_DEPTH {
                    return Err(finding(Problem::TooDeep { most: MAX_DEPTH }));
                }
                if count > MAX_ELEMENTS {
                    return Err(finding(Problem::TooMany {
                        what: "elements",
                        most: MAX_ELEMENTS,
                    }));
                }
                let is_twice = attributes.iter().enumerate().any(|(at, one)| {
                    let before = attributes.iter().take(at);
                    before.into_iter().any(|other| other.name == one.name)
                });
                if is_twice {
                    let words = "an attribute is there twice";
                    return Err(finding(Problem::NotXml(words.into())));
                }
                open.push(Element {
                    name: name.local_name,
                    namespace: name.namespace,
                    attributes: attributes
                        .into_iter()
                        .map(|one| (one.name.namespace, one.name.local_name, one.value))
                        .collect(),
                    place,
                    ..Element::default()
                });
            }
            Ok(XmlEvent::EndElement { .. }) => {
                let Some(done) = open.pop() else {
                    return Err(finding(Problem::NotXml("an element ends twice".into())));
                };
                match open.last_mut() {
                    Some(parent) => parent.children.push(done),
                    // What follows the root has to be well-formed too.
                    None => return rest(&mut reader).map(|()| done),
                }
            }
            Ok(XmlEvent::Characters(text)) => {
                if let Some(element) = open.last_mut() {
                    element.text.push_str(&text);
                }
            }
            Ok(XmlEvent::EndDocument) => {
                return Err(finding(Problem::NotXml("it has no element".into())));
            }
            Ok(_) => {}
            Err(error) => return Err(finding(problem_of(&error))),
        }
    }
}

fn rest(reader: &mut EventReader<&[u8]>) -> Result<(), Finding> {
    loop {
        match reader.next() {
            Ok(XmlEvent::EndDocument) => return Ok(()),
            Ok(XmlEvent::Whitespace(_) | XmlEvent::ProcessingInstruction { .. }) => {}
            other => {
                let problem = match other {
                    Ok(_) => Problem::NotXml("something follows the root".into()),
                    Err(error) => problem_of(&error),
                };
                return Err(Finding {
                    place: place_of(reader.position()),
                    element: "the document".into(),
                    problem,
                });
            }
        }
    }
}

fn problem_of(error: &xml::reader::Error) -> Problem {
    match error.kind() {
        ErrorKind::Utf8(_) => Problem::NotXml("it is not UTF-8".into()),
        _ => Problem::NotXml(error.msg()),
    }
}

fn place_of(position: xml::common::TextPosition) -> Place {
    Place {
        line: position.row + 1,
        column: position.column + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(document: &str) -> Finding {
        parse(document.as_bytes()).expect_err("refused")
    }

    #[test]
    fn text_of_all_kinds_is_joined() {
        let root = parse(b"<a>x<!-- y --><![CDATA[<z>]]>&amp;</a>").expect("sound");
        assert_eq!(root.text(), Some("x<z>&"));
    }

    #[test]
    fn a_prefix_is_not_a_name() {
        let root = parse(b"<a xmlns:v='urn:v'><v:b v:c='1' c='2'/><b c='3'/></a>").expect("sound");
        assert_eq!(root.first("b").and_then(|b| b.attribute("c")), Some("3"));
        let ours = root.all_of(Some("urn:v"), "b").next().expect("ours");
        assert_eq!(ours.attribute_of(Some("urn:v"), "c"), Some("1"));
        assert_eq!(
            ours.place,
            Place {
                line: 1,
                column: 20
            }
        );
    }

    #[test]
    fn document_types_are_refused_before_anything_is_expanded() {
        let bomb = "<?xml version='1.0'?>\n<!DOCTYPE a [\n<!ENTITY e 'x'>\n\
                    <!ENTITY f '&e;&e;&e;&e;'>]>\n<a>&f;</a>";
        assert_eq!(refused(bomb).problem, Problem::DocumentType);
        let file = "<!DOCTYPE a SYSTEM 'file:///etc/passwd'><a/>";
        assert_eq!(refused(file).problem, Problem::DocumentType);
        assert!(matches!(refused("<a>&f;</a>").problem, Problem::NotXml(_)));
    }

    #[test]
    fn bombs_of_depth_and_count_are_refused_where_they_are() {
        let deep = format!("<a>\n{}", "<b>".repeat(100_000));
        let finding = refused(&deep);
        assert_eq!(finding.problem, Problem::TooDeep { most: MAX_DEPTH });
        assert_eq!((finding.place.line, finding.element.as_str()), (2, "b"));
        let wide = format!("<a>{}</a>", "<b/>".repeat(100_000));
        assert!(matches!(refused(&wide).problem, Problem::TooMany { .. }));
    }

    #[test]
    fn what_is_not_well_formed_is_refused() {
        for document in [
            "",
            "<a>",
            "<a></b>",
            "<a/><b/>",
            "<a b='1' b='2'/>",
            "\u{0}",
        ] {
            assert!(
                matches!(refused(document).problem, Problem::NotXml(_)),
                "{document}"
            );
        }
        assert!(parse(b"<a>\xff</a>").is_err());
    }
}
