//! The key of a layer: the digest of everything that can change it, and of
//! nothing else.
//!
//! A layer's name, the place of a folder on the host, where a package was
//! fetched from and why it was chosen change nothing, so they are not in it.

use std::collections::BTreeMap;

use super::clean::RULES_VERSION;
use super::spec::{
    FileRule, FilesRecipe, ImageOrigin, LayerSpec, MemberKind, OciRecipe, PackagePin,
    PackagesRecipe, Recipe, RunRecipe, Selection, TarRecipe, ToolsRecipe,
};
use crate::digest::{DiffId, Hasher, LayerKey};
use crate::tree::TreePath;
use crate::units::Timestamp;

/// Grows whenever consign would make other bytes from the same recipe:
/// unpacking, the sandbox, the database, the tar writer.
pub const FORMAT: u32 = 2;

/// The key of `spec` on top of the layers `parents`, lowest first.
///
/// Only `packages` and `run` layers come out differently on other layers, so
/// the key of all others leaves `parents` out.
#[must_use]
pub fn layer_key(spec: &LayerSpec, parents: &[DiffId], source_date: Timestamp) -> LayerKey {
    let mut hasher = Hasher::new();
    hasher.field(b"consign layer");
    hasher.field(&FORMAT.to_be_bytes());
    hasher.field(&source_date.seconds.to_be_bytes());
    match &spec.recipe {
        Recipe::Packages(recipe) => packages(&mut hasher, recipe, parents),
        Recipe::Files(recipe) => files(&mut hasher, recipe),
        Recipe::Tools(recipe) => tools(&mut hasher, recipe),
        Recipe::Tar(recipe) => tar(&mut hasher, recipe),
        Recipe::Oci(recipe) => oci(&mut hasher, recipe),
        Recipe::Run(recipe) => run(&mut hasher, recipe, parents),
    }
    LayerKey(hasher.finish())
}

fn packages(hasher: &mut Hasher, recipe: &PackagesRecipe, parents: &[DiffId]) {
    hasher.field(b"packages");
    hasher.field(&RULES_VERSION.to_be_bytes());
    list(hasher, parents.iter().map(|parent| &parent.0.bytes()[..]));
    pins(hasher, &recipe.pins);
    list(hasher, recipe.exclude_paths.iter().map(String::as_bytes));
    list(hasher, recipe.include_paths.iter().map(String::as_bytes));
}

fn files(hasher: &mut Hasher, recipe: &FilesRecipe) {
    hasher.field(b"files");
    hasher.field(recipe.digest.bytes());
    rules(hasher, &recipe.rules);
    count(hasher, recipe.entries.len());
    for entry in &recipe.entries {
        hasher.field(entry.path.as_bytes());
        member_kind(hasher, &entry.kind);
        for number in [entry.uid, entry.gid, u32::from(entry.mode)] {
            hasher.field(&number.to_be_bytes());
        }
    }
    list(hasher, recipe.remove.iter().map(TreePath::as_bytes));
    list(hasher, recipe.templates.iter().map(String::as_bytes));
    texts(hasher, &recipe.values);
}

fn member_kind(hasher: &mut Hasher, kind: &MemberKind) {
    let (word, target, device): (&[u8], &[u8], _) = match kind {
        MemberKind::File => (b"file", b"", (0, 0)),
        MemberKind::Directory => (b"directory", b"", (0, 0)),
        MemberKind::Fifo => (b"fifo", b"", (0, 0)),
        MemberKind::Symlink(target) => (b"symlink", target, (0, 0)),
        MemberKind::HardLink(target) => (b"link", target, (0, 0)),
        MemberKind::CharDevice { major, minor } => (b"char", b"", (*major, *minor)),
        MemberKind::BlockDevice { major, minor } => (b"block", b"", (*major, *minor)),
    };
    hasher.field(word);
    hasher.field(target);
    hasher.field(&device.0.to_be_bytes());
    hasher.field(&device.1.to_be_bytes());
}

/// The address of an archive and the place of an image change nothing.
fn tar(hasher: &mut Hasher, recipe: &TarRecipe) {
    hasher.field(b"tar");
    hasher.field(recipe.sha256.bytes());
    selection(hasher, &recipe.selection);
    rules(hasher, &recipe.rules);
}

fn oci(hasher: &mut Hasher, recipe: &OciRecipe) {
    hasher.field(b"oci");
    match &recipe.origin {
        ImageOrigin::Archive(_, image) => {
            hasher.field(b"archive");
            hasher.field(image.as_deref().unwrap_or_default().as_bytes());
        }
        ImageOrigin::Folder(_) | ImageOrigin::Registry(_) => hasher.field(b"manifest"),
    }
    hasher.field(recipe.digest.bytes());
    selection(hasher, &recipe.selection);
    rules(hasher, &recipe.rules);
}

fn run(hasher: &mut Hasher, recipe: &RunRecipe, parents: &[DiffId]) {
    hasher.field(b"run");
    hasher.field(&RULES_VERSION.to_be_bytes());
    list(hasher, parents.iter().map(|parent| &parent.0.bytes()[..]));
    hasher.field(&recipe.script);
    count(hasher, usize::from(recipe.input.is_some()));
    if let Some(input) = &recipe.input {
        files(hasher, input);
    }
    texts(hasher, &recipe.environment);
    hasher.field(&[u8::from(recipe.network)]);
}

fn selection(hasher: &mut Hasher, selection: &Selection) {
    count(hasher, selection.strip);
    hasher.field(selection.into.as_bytes());
    list(hasher, selection.exclude.iter().map(String::as_bytes));
}

fn rules(hasher: &mut Hasher, rules: &[FileRule]) {
    count(hasher, rules.len());
    for rule in rules {
        file_rule(hasher, rule);
    }
}

fn texts(hasher: &mut Hasher, texts: &BTreeMap<String, String>) {
    count(hasher, texts.len());
    for (name, text) in texts {
        hasher.field(name.as_bytes());
        hasher.field(text.as_bytes());
    }
}

fn file_rule(hasher: &mut Hasher, rule: &FileRule) {
    hasher.field(rule.path.as_bytes());
    let numbers = [
        rule.uid,
        rule.gid,
        rule.mode.map(u32::from),
        rule.directory_mode.map(u32::from),
    ];
    for number in numbers {
        match number {
            Some(number) => hasher.field(&number.to_be_bytes()),
            None => hasher.field(b""),
        }
    }
    count(hasher, rule.xattrs.len());
    for (name, value) in &rule.xattrs {
        hasher.field(name.as_bytes());
        hasher.field(value);
    }
}

fn tools(hasher: &mut Hasher, recipe: &ToolsRecipe) {
    hasher.field(b"tools");
    pins(hasher, &recipe.pins);
    count(hasher, recipe.input.len());
    for (path, bytes) in &recipe.input {
        hasher.field(path.as_bytes());
        hasher.field(bytes);
    }
    list(hasher, recipe.command.iter().map(String::as_bytes));
    list(hasher, recipe.keep.iter().map(TreePath::as_bytes));
}

/// The digest says all about a package; its order among the others counts.
fn pins(hasher: &mut Hasher, pins: &[PackagePin]) {
    list(hasher, pins.iter().map(|pin| &pin.sha256.bytes()[..]));
}

fn list<'a>(hasher: &mut Hasher, fields: impl ExactSizeIterator<Item = &'a [u8]>) {
    count(hasher, fields.len());
    for field in fields {
        hasher.field(field);
    }
}

fn count(hasher: &mut Hasher, count: usize) {
    hasher.field(&(count as u64).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    fn pin(name: &str) -> PackagePin {
        PackagePin {
            name: name.into(),
            version: "1".into(),
            architecture: "amd64".into(),
            suite: "bookworm".into(),
            path: format!("pool/{name}.deb"),
            size: 1,
            sha256: Digest::of(name.as_bytes()),
            source: name.into(),
            reason: "requested".into(),
        }
    }

    fn packages_spec() -> (LayerSpec, PackagesRecipe) {
        let recipe = PackagesRecipe {
            pins: vec![pin("a"), pin("b")],
            exclude_paths: vec!["/usr/share/doc/*".into()],
            include_paths: vec![],
        };
        (spec(Recipe::Packages(recipe.clone())), recipe)
    }

    fn spec(recipe: Recipe) -> LayerSpec {
        LayerSpec {
            name: "base".into(),
            recipe,
            allow_secrets: vec![],
        }
    }

    fn key(spec: &LayerSpec, parents: &[DiffId]) -> LayerKey {
        layer_key(spec, parents, Timestamp::from_seconds(1))
    }

    #[test]
    fn what_changes_a_packages_layer_changes_its_key() {
        let (base, recipe) = packages_spec();
        let below = DiffId(Digest::of(b"below"));
        let first = key(&base, &[]);
        let mut others = vec![
            key(&base, &[below]),
            layer_key(&base, &[], Timestamp::from_seconds(2)),
        ];
        let mut vary = |change: fn(&mut PackagesRecipe)| {
            let mut recipe = recipe.clone();
            change(&mut recipe);
            others.push(key(&spec(Recipe::Packages(recipe)), &[]));
        };
        vary(|recipe| recipe.pins.truncate(1));
        vary(|recipe| recipe.pins.swap(0, 1));
        vary(|recipe| recipe.pins[0].sha256 = Digest::of(b"other"));
        vary(|recipe| recipe.exclude_paths.clear());
        vary(|recipe| recipe.include_paths.push("/usr/share/doc/*".into()));
        vary(|recipe| {
            recipe.include_paths = std::mem::take(&mut recipe.exclude_paths);
        });
        let all: std::collections::BTreeSet<_> = others.iter().chain([&first]).collect();
        assert_eq!(all.len(), others.len() + 1, "all keys differ");
    }

    #[test]
    fn what_changes_nothing_leaves_the_key_alone() {
        let (base, mut recipe) = packages_spec();
        let first = key(&base, &[]);
        recipe.pins[0].suite = "bookworm-updates".into();
        recipe.pins[0].path = "elsewhere.deb".into();
        recipe.pins[0].reason = "needed by b".into();
        let mut renamed = spec(Recipe::Packages(recipe));
        renamed.name = "other".into();
        assert_eq!(key(&renamed, &[]), first);
    }

    #[test]
    fn a_files_layer_does_not_depend_on_what_is_below_it() {
        let recipe = FilesRecipe {
            folder: "/a".into(),
            digest: Digest::of(b"files"),
            rules: vec![FileRule {
                path: "/etc/**".into(),
                uid: Some(1),
                ..FileRule::default()
            }],
            entries: vec![],
            remove: vec![],
            templates: vec![],
            values: BTreeMap::new(),
        };
        let first = key(&spec(Recipe::Files(recipe.clone())), &[]);
        let below = DiffId(Digest::of(b"below"));
        let mut moved = recipe.clone();
        moved.folder = "/b".into();
        assert_eq!(key(&spec(Recipe::Files(moved)), &[below]), first);
        let mut changed = recipe.clone();
        changed.rules[0].uid = None;
        changed.rules[0].gid = Some(1);
        assert_ne!(key(&spec(Recipe::Files(changed)), &[]), first);
        let mut changed = recipe;
        changed.digest = Digest::of(b"other");
        assert_ne!(key(&spec(Recipe::Files(changed)), &[]), first);
    }

    #[test]
    fn input_and_command_are_in_the_key_of_a_tools_layer() {
        let path = TreePath::parse(b"core.cfg").expect("a path");
        let recipe = ToolsRecipe {
            pins: vec![pin("grub")],
            input: BTreeMap::from([(path.clone(), b"x".to_vec())]),
            command: vec!["/usr/bin/grub-mkimage".into()],
            keep: vec![path],
        };
        let first = key(&spec(Recipe::Tools(recipe.clone())), &[]);
        let mut other = recipe.clone();
        other.command.push("-v".into());
        assert_ne!(key(&spec(Recipe::Tools(other)), &[]), first);
        let mut other = recipe;
        other.input.values_mut().for_each(|bytes| bytes.push(b'y'));
        assert_ne!(key(&spec(Recipe::Tools(other)), &[]), first);
    }
}
