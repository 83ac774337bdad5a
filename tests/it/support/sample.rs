//! A small appliance with its lock, in memory and as files.

use std::path::Path;

use consign::appliance::{Appliance, Shelf, ShelfLayer, Source};
use consign::boot::TOOLS_PACKAGES;
use consign::digest::Digest;
use consign::layer::spec::PackagePin;
use consign::plan::{Lock, LockedRelease, request};
use consign::units::Timestamp;

/// `appliance.toml` of the smallest appliance.
pub(crate) const MINIMAL: &str = r#"schema = 1

[appliance]
name = "wiki"
version = "1.0.0"

[system]
distribution = "debian"
suite = "bookworm"
layers = ["base", "app"]
"#;

/// Its layers.
pub(crate) const LAYERS: [(&str, &str); 3] = [
    (
        "base",
        "kind = \"packages\"\npackages = [\"systemd\", \"udev\"]\n",
    ),
    ("app", "kind = \"files\"\n"),
    ("web", "kind = \"packages\"\npackages = [\"nginx\"]\n"),
];

/// The layers as if they were read from `layers/`.
pub(crate) fn shelf(layers: &[(&str, &str)]) -> Shelf {
    let layers = layers.iter().map(|(name, recipe)| {
        let folder = Path::new("layers").join(name);
        let layer = ShelfLayer {
            recipe: Some(Source::new(folder.join("layer.toml"), recipe)),
            folder,
            folders: ["files".to_owned()].into(),
            debs: std::collections::BTreeSet::new(),
            files: ["app.tar.gz", "image.tar", "setup.sh"]
                .map(str::to_owned)
                .into(),
        };
        ((*name).to_owned(), layer)
    });
    Shelf {
        layers: layers.collect(),
    }
}

/// The appliance as a folder of files.
pub(crate) fn write(folder: &Path, appliance: &str) {
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("mkdir");
        std::fs::write(path, text).expect("write");
    };
    write("appliance.toml", appliance);
    for (name, recipe) in LAYERS {
        write(&format!("layers/{name}/layer.toml"), recipe);
    }
    write("layers/app/files/etc/motd", "hello\n");
}

/// A package that nobody has.
pub(crate) fn pin(name: &str, suite: &str) -> PackagePin {
    PackagePin {
        name: name.into(),
        version: "1:2.3-4+deb12u1".into(),
        architecture: "amd64".into(),
        suite: suite.into(),
        path: format!(
            "pool/main/{}/{name}/{name}_2.3-4+deb12u1_amd64.deb",
            &name[..1]
        ),
        size: 1 << 20,
        sha256: Digest::of(name.as_bytes()),
        source: name.into(),
        reason: "requested".into(),
    }
}

/// A lock that answers what `appliance` asks, with one package for each name.
pub(crate) fn lock(appliance: &Appliance) -> Lock {
    let asked = request(appliance, TOOLS_PACKAGES);
    let layers = asked.groups.iter().map(|group| {
        let pins = group.packages.iter().map(|name| pin(name, "bookworm"));
        pins.collect()
    });
    let tools = asked
        .tools
        .iter()
        .map(|name| pin(name, "bookworm-security"));
    let release = |suite: &str, seconds| LockedRelease {
        suite: suite.into(),
        date: Timestamp::from_seconds(seconds),
        digest: Digest::of(suite.as_bytes()),
    };
    let releases = vec![
        release("bookworm-security", 1_757_500_000),
        release("bookworm", 1_757_000_000),
    ];
    Lock::new(&asked, releases, layers.collect(), tools.collect())
}
