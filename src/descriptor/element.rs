//! XML as a value: an element with its attributes and content, written with
//! one layout and always the same bytes.

use xml::EmitterConfig;
use xml::writer::{EventWriter, XmlEvent};

/// An element before it is written. Names are ours, and well-formed; texts
/// may be anything that XML 1.0 can hold.
pub(super) struct Element {
    name: &'static str,
    namespaces: Vec<(&'static str, &'static str)>,
    attributes: Vec<(&'static str, String)>,
    content: Content,
}

enum Content {
    Nothing,
    Text(String),
    Children(Vec<Element>),
}

impl Element {
    pub(super) fn new(name: &'static str) -> Self {
        Self {
            name,
            namespaces: Vec::new(),
            attributes: Vec::new(),
            content: Content::Nothing,
        }
    }

    /// Declares a prefix for this element and those in it. The empty prefix
    /// is the default namespace.
    pub(super) fn namespace(mut self, prefix: &'static str, name: &'static str) -> Self {
        self.namespaces.push((prefix, name));
        self
    }

    pub(super) fn attr(mut self, name: &'static str, value: impl AsRef<str>) -> Self {
        self.attributes.push((name, value.as_ref().to_owned()));
        self
    }

    /// An attribute that is left out without a value.
    pub(super) fn attr_if(self, name: &'static str, value: Option<impl AsRef<str>>) -> Self {
        match value {
            Some(value) => self.attr(name, value),
            None => self,
        }
    }

    pub(super) fn text(mut self, text: impl AsRef<str>) -> Self {
        self.content = Content::Text(text.as_ref().to_owned());
        self
    }

    pub(super) fn children(mut self, children: impl IntoIterator<Item = Self>) -> Self {
        self.content = Content::Children(children.into_iter().collect());
        self
    }

    /// Adds children behind those that are there.
    pub(super) fn children_more(mut self, more: impl IntoIterator<Item = Self>) -> Self {
        let mut children = match self.content {
            Content::Children(children) => children,
            Content::Nothing | Content::Text(_) => Vec::new(),
        };
        children.extend(more);
        self.content = Content::Children(children);
        self
    }

    /// The whole document, with this element as its root.
    pub(super) fn to_document(&self) -> String {
        let mut bytes = Vec::new();
        let mut writer = EmitterConfig::new()
            .perform_indent(true)
            .pad_self_closing(false)
            .create_writer(&mut bytes);
        self.write(&mut writer)
            .expect("names are well-formed, and memory takes all");
        bytes.push(b'\n');
        String::from_utf8(bytes).expect("the writer writes UTF-8")
    }

    fn write(&self, writer: &mut EventWriter<&mut Vec<u8>>) -> xml::writer::Result<()> {
        let mut start = XmlEvent::start_element(self.name);
        for (prefix, name) in &self.namespaces {
            start = match *prefix {
                "" => start.default_ns(*name),
                prefix => start.ns(prefix, *name),
            };
        }
        for (name, value) in &self.attributes {
            start = start.attr(*name, value);
        }
        writer.write(start)?;
        match &self.content {
            Content::Nothing => {}
            Content::Text(text) => writer.write(XmlEvent::characters(text))?,
            Content::Children(children) => {
                for child in children {
                    child.write(writer)?;
                }
            }
        }
        writer.write(XmlEvent::end_element())
    }
}
