//! Which modules go into the initramfs, and the table by which `/init` picks.
//!
//! Source: `modules.dep(5)`, kmod's `modules.alias`, `modules.softdep` and
//! `modules.builtin` as depmod writes them: lines of words.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::super::error::BootError;
use super::super::kernel::Kernel;
use super::drivers::{DRIVERS, Driver, Need};
use crate::tree::{Content, FileTree, TreePath};

/// No index of depmod is longer.
const INDEX_LIMIT: u64 = 64 << 20;
/// First line of the table: what it is, and its version.
const TABLE_HEAD: &str = "consign modules 1";

/// What depmod knows about a kernel's modules. Names have `_` for `-`.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Name to path below the kernel's folder, and the names it needs.
    modules: BTreeMap<String, Module>,
    builtin: BTreeSet<String>,
    /// Pattern and name, in depmod's order.
    aliases: Vec<(String, String)>,
    /// Names or aliases to load before, by name.
    before: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Clone)]
struct Module {
    file: String,
    needs: Vec<String>,
}

/// A module that goes into the initramfs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chosen {
    /// Name with `_` for `-`.
    pub(super) name: String,
    /// Path in the tree.
    pub(super) path: TreePath,
    /// Positions of those it needs; all of them are smaller than its own.
    pub(super) needs: Vec<usize>,
    /// Whether every machine loads it.
    pub(super) always: bool,
}

/// The modules in the order of loading, and the table.
#[derive(Debug)]
pub(super) struct Choice {
    pub(super) modules: Vec<Chosen>,
    pub(super) table: String,
}

impl Index {
    /// Reads depmod's files of `kernel`.
    ///
    /// # Errors
    ///
    /// [`BootError::NoModules`], [`BootError::ModuleIndex`], [`BootError::Read`].
    pub(super) fn read(tree: &FileTree, kernel: &Kernel) -> Result<Self, BootError> {
        let mut index = Self::default();
        for (name, parse) in [
            ("modules.dep", Self::dependency as fn(&mut Self, &str) -> _),
            ("modules.builtin", Self::built_in),
            ("modules.alias", Self::alias),
            ("modules.softdep", Self::soft_dependency),
        ] {
            let path = kernel.modules.join(name.as_bytes()).expect("a plain name");
            let text = read_text(tree, kernel, &path)?;
            for (number, line) in text.lines().enumerate() {
                let line = line.trim();
                if !line.is_empty() && !line.starts_with('#') {
                    parse(&mut index, line).ok_or_else(|| BootError::ModuleIndex {
                        path: path.clone(),
                        line: number + 1,
                    })?;
                }
            }
        }
        Ok(index)
    }

    /// `kernel/fs/ext4/ext4.ko: kernel/lib/crc16.ko kernel/fs/mbcache.ko`
    fn dependency(&mut self, line: &str) -> Option<()> {
        let (file, needs) = line.split_once(':')?;
        let needs = needs
            .split_whitespace()
            .map(module_name)
            .collect::<Option<Vec<_>>>()?;
        let module = Module {
            file: file.to_owned(),
            needs,
        };
        self.modules.insert(module_name(file)?, module);
        Some(())
    }

    /// `kernel/fs/ext4/ext4.ko`
    fn built_in(&mut self, line: &str) -> Option<()> {
        self.builtin.insert(module_name(line)?);
        Some(())
    }

    /// `alias virtio:d00000002v* virtio_blk`
    fn alias(&mut self, line: &str) -> Option<()> {
        let rest = line.strip_prefix("alias ")?;
        let (pattern, name) = rest.rsplit_once(' ')?;
        self.aliases.push((pattern.to_owned(), normal(name)));
        Some(())
    }

    /// `softdep ext4 pre: crypto-crc32c post: more`; words before the first
    /// keyword mean nothing, as in kmod.
    fn soft_dependency(&mut self, line: &str) -> Option<()> {
        let mut words = line.strip_prefix("softdep ")?.split_whitespace();
        let name = normal(words.next()?);
        let before = words
            .skip_while(|word| *word != "pre:")
            .skip(1)
            .take_while(|word| *word != "post:")
            .map(str::to_owned);
        self.before.entry(name).or_default().extend(before);
        Some(())
    }

    /// The modules that `word` means: a name, or an alias without wildcards.
    fn meant_by(&self, word: &str) -> Vec<String> {
        let name = normal(word);
        if self.modules.contains_key(&name) {
            return vec![name];
        }
        let mut names: Vec<String> = self
            .aliases
            .iter()
            .filter(|(pattern, _)| pattern == word)
            .map(|(_, name)| name.clone())
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// Chooses the drivers that this kernel has, with all that they need.
    ///
    /// # Errors
    ///
    /// [`BootError::NoDriver`] without a driver that every root needs,
    /// [`BootError::ModuleMissing`] and [`BootError::ModuleCircle`].
    pub(super) fn choose(&self, kernel: &Kernel, drivers: &[Driver]) -> Result<Choice, BootError> {
        let mut order = Order {
            index: self,
            names: Vec::new(),
            seen: BTreeMap::new(),
        };
        let mut always = BTreeSet::new();
        let mut wanted = BTreeSet::new();
        for driver in drivers {
            if self.modules.contains_key(driver.name) {
                order.add(driver.name)?;
                wanted.insert(driver.name);
            } else if driver.need == Need::Always && !self.builtin.contains(driver.name) {
                return Err(BootError::NoDriver {
                    version: kernel.version.clone(),
                    module: driver.name,
                });
            }
            if driver.need != Need::ByDevice {
                always.insert(driver.name);
            }
        }
        let modules = self.chosen(kernel, &order.names, &always)?;
        let table = self.table(&modules, &wanted);
        Ok(Choice { modules, table })
    }

    fn chosen(
        &self,
        kernel: &Kernel,
        names: &[String],
        always: &BTreeSet<&str>,
    ) -> Result<Vec<Chosen>, BootError> {
        let at: BTreeMap<&str, usize> = names
            .iter()
            .enumerate()
            .map(|(at, name)| (name.as_str(), at))
            .collect();
        let mut modules = Vec::new();
        for name in names {
            let module = &self.modules[name];
            let mut needs: Vec<usize> = self
                .needed_by(name)
                .iter()
                .filter_map(|needed| at.get(needed.as_str()).copied())
                .collect();
            needs.sort_unstable();
            needs.dedup();
            let file = format!("{}/{}", kernel.modules, module.file);
            let path = TreePath::parse(file.as_bytes()).map_err(|_| BootError::ModuleMissing {
                module: name.clone(),
                needed: module.file.clone(),
            })?;
            modules.push(Chosen {
                name: name.clone(),
                path,
                needs,
                always: always.contains(name.as_str()),
            });
        }
        Ok(modules)
    }

    /// Names of the modules to load before `name`, soft wishes included.
    fn needed_by(&self, name: &str) -> Vec<String> {
        let hard = self.modules.get(name).map(|module| module.needs.clone());
        let soft = self
            .before
            .get(name)
            .into_iter()
            .flatten()
            .flat_map(|word| self.meant_by(word))
            .filter(|meant| meant != name);
        hard.into_iter().flatten().chain(soft).collect()
    }

    /// The table that `/init` reads. After the head line:
    ///
    /// ```text
    /// m ext4 0 1 2        a module in the order of loading, and those it needs
    /// l 3                 every machine loads it
    /// a 3 pci:v*          a device with such a modalias asks for it
    /// ```
    fn table(&self, modules: &[Chosen], wanted: &BTreeSet<&str>) -> String {
        let mut table = format!("{TABLE_HEAD}\n");
        let mut at = BTreeMap::new();
        for (number, module) in modules.iter().enumerate() {
            at.insert(module.name.as_str(), number);
            let _ = write!(table, "m {}", module.name);
            for need in &module.needs {
                let _ = write!(table, " {need}");
            }
            table.push('\n');
            if module.always {
                let _ = writeln!(table, "l {number}");
            }
        }
        for (pattern, name) in &self.aliases {
            if let (true, true, Some(number)) = (
                pattern.contains(':'),
                wanted.contains(name.as_str()),
                at.get(name.as_str()),
            ) {
                let _ = writeln!(table, "a {number} {pattern}");
            }
        }
        table
    }
}

/// Puts modules into an order in which each comes after those it needs.
struct Order<'a> {
    index: &'a Index,
    names: Vec<String>,
    /// `false` while what it needs is being added.
    seen: BTreeMap<String, bool>,
}

impl Order<'_> {
    fn add(&mut self, name: &str) -> Result<(), BootError> {
        match self.seen.get(name) {
            Some(true) => return Ok(()),
            Some(false) => {
                return Err(BootError::ModuleCircle {
                    module: name.into(),
                });
            }
            None => {}
        }
        self.seen.insert(name.to_owned(), false);
        for needed in self.index.needed_by(name) {
            if self.index.modules.contains_key(&needed) {
                self.add(&needed)?;
            } else if !self.index.builtin.contains(&needed) {
                return Err(BootError::ModuleMissing {
                    module: name.into(),
                    needed,
                });
            }
        }
        self.seen.insert(name.to_owned(), true);
        self.names.push(name.to_owned());
        Ok(())
    }
}

/// The drivers of [`DRIVERS`] that `kernel` has.
///
/// # Errors
///
/// As [`Index::read`] and [`Index::choose`].
pub(super) fn choose(tree: &FileTree, kernel: &Kernel) -> Result<Choice, BootError> {
    Index::read(tree, kernel)?.choose(kernel, DRIVERS)
}

fn read_text(tree: &FileTree, kernel: &Kernel, path: &TreePath) -> Result<String, BootError> {
    let content: &Content = tree
        .get(path)
        .and_then(|node| node.content())
        .ok_or_else(|| BootError::NoModules {
            version: kernel.version.clone(),
            path: path.clone(),
        })?;
    let bytes = content
        .read_all(INDEX_LIMIT)
        .map_err(|source| BootError::Read {
            path: path.clone(),
            source,
        })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// `kernel/fs/ext4/ext4.ko` is `ext4`.
fn module_name(file: &str) -> Option<String> {
    let name = file.rsplit('/').next()?;
    Some(normal(name.strip_suffix(".ko")?))
}

fn normal(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel() -> Kernel {
        Kernel {
            version: "6.1".into(),
            image: Content::from_bytes(*b""),
            modules: TreePath::parse(b"usr/lib/modules/6.1").expect("a path"),
        }
    }

    fn index() -> Index {
        let mut index = Index::default();
        for line in [
            "kernel/fs/ext4.ko: kernel/fs/jbd2.ko kernel/lib/crc16.ko",
            "kernel/fs/jbd2.ko: kernel/lib/crc16.ko",
            "kernel/lib/crc16.ko:",
            "kernel/crypto/crc32c_generic.ko:",
            "kernel/block/virtio-blk.ko: kernel/virtio/virtio.ko",
            "kernel/virtio/virtio.ko:",
            "kernel/net/unwanted.ko:",
        ] {
            index.dependency(line).expect("a good line");
        }
        for line in [
            "alias virtio:d00000002v* virtio_blk",
            "alias crypto-crc32c crc32c_generic",
            "alias fs-ext4 ext4",
            "alias pci:v1 unwanted",
        ] {
            index.alias(line).expect("a good line");
        }
        index
            .soft_dependency("softdep ext4 pre: crypto-crc32c post: later")
            .expect("a good line");
        index
    }

    const WANTED: [Driver; 3] = [
        Driver {
            name: "ext4",
            need: Need::Always,
        },
        Driver {
            name: "virtio_blk",
            need: Need::ByDevice,
        },
        Driver {
            name: "not_in_this_kernel",
            need: Need::ByDevice,
        },
    ];

    #[test]
    fn the_table_has_each_module_after_those_it_needs() {
        let choice = index().choose(&kernel(), &WANTED).expect("a choice");
        assert_eq!(
            choice.table,
            "consign modules 1\n\
             m crc16\n\
             m jbd2 0\n\
             m crc32c_generic\n\
             m ext4 0 1 2\n\
             l 3\n\
             m virtio\n\
             m virtio_blk 4\n\
             a 5 virtio:d00000002v*\n"
        );
        assert_eq!(
            choice.modules[5].path.to_string(),
            "usr/lib/modules/6.1/kernel/block/virtio-blk.ko"
        );
    }

    #[test]
    fn a_driver_may_be_built_in() {
        let mut index = index();
        index.modules.remove("ext4");
        let error = index
            .choose(&kernel(), &WANTED)
            .expect_err("no file system");
        assert_eq!(
            error.to_string(),
            "kernel 6.1 has no `ext4`, neither built in nor as a module"
        );
        index
            .built_in("kernel/fs/ext4/ext4.ko")
            .expect("a good line");
        let choice = index.choose(&kernel(), &WANTED).expect("a choice");
        assert_eq!(choice.modules.len(), 2);
    }

    #[test]
    fn a_missing_or_circular_need_is_an_error() {
        let mut broken = index();
        broken.modules.remove("crc16");
        assert!(matches!(
            broken.choose(&kernel(), &WANTED),
            Err(BootError::ModuleMissing { .. })
        ));
        let mut circle = index();
        circle
            .dependency("kernel/lib/crc16.ko: kernel/fs/ext4.ko")
            .expect("a good line");
        assert!(matches!(
            circle.choose(&kernel(), &WANTED),
            Err(BootError::ModuleCircle { .. })
        ));
    }
}
