//! The modules beside us, and the table that says which device asks for which.
//!
//! The table is made by the builder (`src/boot/initramfs/modules.rs`), where
//! its lines are described. Modules stand in the order of loading: each comes
//! after those it needs.

use std::collections::BTreeSet;
use std::fs::{self, File};

use rustix::io::Errno;

use super::problem::Problem;
use super::screen;

const TABLE: &str = "/modules/table";
const TABLE_HEAD: &str = "consign modules 1";

/// What is here and what is loaded.
#[derive(Debug, Default)]
pub struct Modules {
    all: Vec<Module>,
    always: Vec<usize>,
    /// A module, and the pattern of devices that ask for it.
    aliases: Vec<(usize, Pattern)>,
    wanted: BTreeSet<usize>,
    seen: BTreeSet<String>,
}

/// A pattern of `modules.alias`. What it begins with is compared at once: most
/// devices are told apart there.
#[derive(Debug)]
struct Pattern {
    text: String,
    /// Bytes before the first that is not itself.
    plain: usize,
}

impl Pattern {
    fn new(text: &str) -> Self {
        let is_special = |byte: u8| matches!(byte, b'*' | b'?' | b'[');
        Self {
            plain: text.bytes().position(is_special).unwrap_or(text.len()),
            text: text.to_owned(),
        }
    }

    fn fits(&self, modalias: &str) -> bool {
        let (plain, rest) = self.text.as_bytes().split_at(self.plain);
        let tail = modalias.as_bytes().strip_prefix(plain);
        tail.is_some_and(|tail| is_match(rest, tail))
    }
}

#[derive(Debug)]
struct Module {
    name: String,
    needs: Vec<usize>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    /// It was tried once, and is not tried again.
    Tried,
    Loaded,
}

impl Modules {
    /// Reads the table.
    ///
    /// # Errors
    ///
    /// [`Problem::Initramfs`].
    pub fn read() -> Result<Self, Problem> {
        let text = fs::read_to_string(TABLE).map_err(|_| Problem::Initramfs {
            path: TABLE.into(),
            line: 0,
        })?;
        Self::parse(&text).map_err(|line| Problem::Initramfs {
            path: TABLE.into(),
            line,
        })
    }

    /// The number of the line that is wrong is the error.
    fn parse(text: &str) -> Result<Self, usize> {
        let mut modules = Self::default();
        let mut lines = text.lines().zip(1_usize..);
        if lines.next().map(|(line, _)| line) != Some(TABLE_HEAD) {
            return Err(1);
        }
        for (line, number) in lines {
            modules.add_line(line).ok_or(number)?;
        }
        Ok(modules)
    }

    fn add_line(&mut self, line: &str) -> Option<()> {
        let (kind, rest) = line.split_once(' ')?;
        match kind {
            "m" => {
                let mut words = rest.split(' ');
                let name = words.next()?.to_owned();
                let needs = words
                    .map(|word| word.parse().ok().filter(|at| *at < self.all.len()))
                    .collect::<Option<Vec<usize>>>()?;
                self.all.push(Module {
                    name,
                    needs,
                    state: State::Waiting,
                });
            }
            "l" => self.always.push(self.known(rest)?),
            "a" => {
                let (module, pattern) = rest.split_once(' ')?;
                self.aliases
                    .push((self.known(module)?, Pattern::new(pattern)));
            }
            _ => return None,
        }
        Some(())
    }

    fn known(&self, word: &str) -> Option<usize> {
        word.parse().ok().filter(|at| *at < self.all.len())
    }

    /// Loads what every machine needs.
    pub fn load_always(&mut self) {
        for at in self.always.clone() {
            self.load(at);
        }
    }

    /// Remembers what devices with these modaliases ask for.
    pub fn want(&mut self, modaliases: Vec<String>) {
        for modalias in modaliases {
            if self.seen.contains(&modalias) {
                continue;
            }
            let asked = self
                .aliases
                .iter()
                .filter(|(_, pattern)| pattern.fits(&modalias))
                .map(|(at, _)| *at);
            self.wanted.extend(asked);
            self.seen.insert(modalias);
        }
    }

    /// Loads the next module that a device asked for; says whether there was one.
    pub fn load_next(&mut self) -> bool {
        match self.wanted.pop_first() {
            Some(at) => {
                self.load(at);
                true
            }
            None => false,
        }
    }

    /// Loads the module `name` now, if a device asked for it.
    pub fn load_if_wanted(&mut self, name: &str) {
        let is_it = |at: &usize| self.all.get(*at).is_some_and(|module| module.name == name);
        if let Some(at) = self.wanted.iter().copied().find(|at| is_it(at)) {
            self.wanted.remove(&at);
            self.load(at);
        }
    }

    fn load(&mut self, at: usize) {
        let is_new = |module: &&mut Module| module.state == State::Waiting;
        let Some(module) = self.all.get_mut(at).filter(is_new) else {
            return;
        };
        module.state = State::Tried;
        let name = module.name.clone();
        for needed in module.needs.clone() {
            self.load(needed);
        }
        // Each module costs the kernel a signature check.
        if SPARE
            .iter()
            .any(|(spare, of)| *spare == name && self.has(of))
        {
            return;
        }
        match insert(&name) {
            Ok(()) | Err(Errno::EXIST) => {
                if let Some(module) = self.all.get_mut(at) {
                    module.state = State::Loaded;
                }
            }
            // Built for other hardware.
            Err(Errno::NODEV) => {}
            Err(errno) => screen::log(&format!("cannot load {name}: {errno}")),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.all
            .iter()
            .any(|module| module.name == name && module.state == State::Loaded)
    }
}

/// Modules that are only needed when a faster one refuses the machine.
const SPARE: [(&str, &str); 1] = [("crc32c_generic", "crc32c_intel")];

fn insert(name: &str) -> Result<(), Errno> {
    let file = File::open(format!("/modules/{name}.ko"))
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    rustix::system::finit_module(&file, c"", 0)
}

/// Whether `text` matches a pattern of `modules.alias`: `*`, `?` and `[...]`
/// as in `fnmatch(3)` without flags. Linear in time but for the last `*`.
fn is_match(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // After the last star: where to go on in the pattern, and in the text.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        let step = match (pattern.get(p), text.get(t)) {
            (None, None) => return true,
            (Some(b'*'), _) => {
                retry = Some((p + 1, t));
                p += 1;
                continue;
            }
            (Some(b'?'), Some(_)) => Some(1),
            (Some(b'['), Some(byte)) => class(pattern.get(p..).unwrap_or_default(), *byte),
            (Some(wanted), Some(byte)) if wanted == byte => Some(1),
            _ => None,
        };
        match (step, &mut retry) {
            (Some(width), _) => {
                p += width;
                t += 1;
            }
            (None, Some((after, from))) if *from < text.len() => {
                *from += 1;
                (p, t) = (*after, *from);
            }
            _ => return false,
        }
    }
}

/// The width of the class that `pattern` begins with, when it has `byte`.
fn class(pattern: &[u8], byte: u8) -> Option<usize> {
    let end = pattern.iter().position(|c| *c == b']')?;
    let mut inner = pattern.get(1..end)?;
    let mut is_in = false;
    while let Some((first, rest)) = inner.split_first() {
        if let [b'-', last, more @ ..] = rest {
            is_in |= (*first..=*last).contains(&byte);
            inner = more;
        } else {
            is_in |= *first == byte;
            inner = rest;
        }
    }
    is_in.then_some(end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "consign modules 1\n\
        m virtio\n\
        m virtio_blk 0\n\
        m ext4\n\
        l 2\n\
        a 1 virtio:d00000002v*\n";

    #[test]
    fn devices_get_the_modules_they_ask_for() {
        let mut modules = Modules::parse(SAMPLE).expect("a table");
        modules.want(vec!["virtio:d00000002v00001AF4".into(), "pci:x".into()]);
        assert_eq!(modules.wanted, BTreeSet::from([1]));
        assert_eq!(modules.all[1].needs, [0]);
        assert_eq!(modules.always, [2]);
    }

    #[test]
    fn a_damaged_table_names_its_line() {
        for (line, text) in [
            (1, "modules"),
            (2, "consign modules 1\nm a 0"),
            (3, "consign modules 1\nm a\nl 1"),
            (2, "consign modules 1\nx y"),
            (2, "consign modules 1\n\nm a"),
        ] {
            assert_eq!(Modules::parse(text).err(), Some(line), "{text}");
        }
    }

    #[test]
    fn patterns_match_as_in_fnmatch() {
        for (pattern, text, expected) in [
            ("virtio:d00000002v*", "virtio:d00000002v00001AF4", true),
            ("virtio:d00000002v*", "virtio:d00000003v00001AF4", false),
            (
                "pci:v*d*sv*sd*bc01sc06i01*",
                "pci:v00008086d00002922sv1sd1bc01sc06i01",
                true,
            ),
            (
                "pci:v*d*sv*sd*bc01sc06i01*",
                "pci:v00008086d00002922sv1sd1bc01sc06i00",
                false,
            ),
            ("usb:v0419dAA[0-9A]*", "usb:v0419dAA7x", true),
            ("usb:v0419dAA[0-9A]*", "usb:v0419dAAAx", true),
            ("usb:v0419dAA[0-9A]*", "usb:v0419dAABx", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*", "", true),
            ("a*b*c", "aXbXbc", true),
            ("a", "ab", false),
            ("[", "x", false),
        ] {
            assert_eq!(
                Pattern::new(pattern).fits(text),
                expected,
                "{pattern} {text}"
            );
        }
    }
}
