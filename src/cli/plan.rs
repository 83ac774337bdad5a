//! `consign plan`: shows every decision, and what a build would have to do.

use std::io::Write;
use std::path::PathBuf;

use serde_json::json;

use super::draw::ReportFormat;
use super::error::output;
use crate::appliance::FILE_NAME;
use crate::error::Error;
use crate::layer::spec::{LayerSpec, Recipe};
use crate::plan::BuildPlan;
use crate::units::ByteSize;

/// Shows what a build would fetch, make and reuse, and why; sizes, identifiers
/// and the partition table. Makes nothing.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct PlanArgs {
    /// The appliance.
    #[arg(long, value_name = "FILE", default_value = FILE_NAME)]
    pub(super) file: PathBuf,
    /// What to print.
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: ReportFormat,
}

/// What a build would do for one layer, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LayerWork {
    /// The layer's name.
    pub(super) name: String,
    /// What would be done.
    pub(super) work: Work,
}

/// What a build would do for a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// Taken from the cache.
    Reuse,
    /// Made, since the cache has none like it.
    Make,
    /// Made, since a layer below it is made, and it may differ.
    MakeAfterParent,
}

impl Work {
    fn words(self) -> &'static str {
        match self {
            Self::Reuse => "reused, nothing that it is made of has changed",
            Self::Make => "made, the cache has none like it",
            Self::MakeAfterParent => "made, a layer below it is made",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Reuse => "reuse",
            Self::Make | Self::MakeAfterParent => "make",
        }
    }
}

/// What a build would do, by what is in the caches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BuildWork {
    /// Each layer, lowest first, the tools last.
    pub(super) layers: Vec<LayerWork>,
    /// Packages to fetch.
    pub(super) missing_packages: usize,
    /// Their size.
    pub(super) missing_bytes: ByteSize,
    /// One clause about the output folder.
    pub(super) outputs: String,
    /// Where packages would be installed, when there is something to install:
    /// one clause, and as JSON.
    pub(super) sandbox: Option<(String, serde_json::Value)>,
}

impl BuildWork {
    /// Looks at the caches: `is_cached` says whether a layer whose lower
    /// layers are all cached is cached too, `has_package` whether a .deb is.
    pub(super) fn of(
        plan: &BuildPlan,
        mut is_cached: impl FnMut(&LayerSpec) -> bool,
        has_package: impl Fn(&crate::layer::spec::PackagePin) -> bool,
        outputs: String,
    ) -> Self {
        let mut is_parent_made = false;
        let mut layers = Vec::new();
        let mut work_of = |layer: &LayerSpec, below: bool| {
            if below {
                Work::MakeAfterParent
            } else if is_cached(layer) {
                Work::Reuse
            } else {
                Work::Make
            }
        };
        let mut to_make = Vec::new();
        for layer in &plan.layers {
            let work = work_of(layer, is_parent_made);
            is_parent_made |= work != Work::Reuse;
            to_make.push((layer, work));
        }
        to_make.push((&plan.tools, work_of(&plan.tools, false)));
        let mut missing = Vec::new();
        for (layer, work) in to_make {
            if work != Work::Reuse {
                let pins = BuildPlan::pins(layer).iter();
                missing.extend(pins.filter(|pin| !has_package(pin)));
            }
            layers.push(LayerWork {
                name: layer.name.clone(),
                work,
            });
        }
        missing.sort_by_key(|pin| pin.sha256);
        missing.dedup_by_key(|pin| pin.sha256);
        let bytes = missing
            .iter()
            .fold(0_u64, |sum, pin| sum.saturating_add(pin.size));
        Self {
            layers,
            missing_packages: missing.len(),
            missing_bytes: ByteSize::from_bytes(bytes),
            outputs,
            sandbox: None,
        }
    }

    /// Whether a layer has to be made that packages or programs go into.
    pub(super) fn needs_sandbox(&self, plan: &BuildPlan) -> bool {
        let specs = plan.layers.iter().chain([&plan.tools]);
        let mut pairs = specs.zip(&self.layers);
        pairs.any(|(spec, layer)| {
            layer.work != Work::Reuse && !matches!(spec.recipe, Recipe::Files(_))
        })
    }
}

/// Prints the plan, and what a build would do.
///
/// # Errors
///
/// [`Error::Cli`] when `out` takes no text.
pub(super) fn show(
    plan: &BuildPlan,
    work: &BuildWork,
    format: ReportFormat,
    out: &mut dyn Write,
) -> Result<(), Error> {
    let text = match format {
        ReportFormat::Text => format!("{plan}{}", text(work)),
        ReportFormat::Json => {
            let mut report = plan.json();
            report["work"] = json(work);
            format!("{report}\n")
        }
    };
    out.write_all(text.as_bytes()).map_err(output)?;
    Ok(())
}

fn text(work: &BuildWork) -> String {
    let width = work.layers.iter().map(|layer| layer.name.len()).max();
    let width = width.unwrap_or(0);
    let mut lines = vec![
        String::new(),
        "WORK".into(),
        match work.missing_packages {
            0 => "  fetch nothing, all packages that are needed are in the cache".into(),
            count => format!("  fetch {count} packages, {}", work.missing_bytes),
        },
    ];
    for layer in &work.layers {
        lines.push(format!("  {:width$}  {}", layer.name, layer.work.words()));
    }
    if let Some((clause, _)) = &work.sandbox {
        lines.push(format!("  sandbox: {clause}"));
    }
    lines.push(format!("  outputs: {}\n", work.outputs));
    lines.join("\n")
}

fn json(work: &BuildWork) -> serde_json::Value {
    let layer = |layer: &LayerWork| {
        json!({
            "layer": layer.name,
            "work": layer.work.word(),
            "why": layer.work.words(),
        })
    };
    json!({
        "fetch": { "packages": work.missing_packages, "bytes": work.missing_bytes.bytes() },
        "layers": work.layers.iter().map(layer).collect::<Vec<_>>(),
        "outputs": work.outputs,
        "sandbox": work.sandbox.as_ref().map(|(_, report)| report),
    })
}

#[cfg(test)]
mod tests {
    use super::super::init;
    use super::*;
    use crate::appliance::Appliance;
    use crate::boot::TOOLS_PACKAGES;
    use crate::digest::Digest;
    use crate::layer::spec::PackagePin;
    use crate::plan::{Builder, Lock, LockedRelease, Wishes, request};
    use crate::units::{MIB, Timestamp};

    fn plan() -> BuildPlan {
        let folder = init::tests::starter("wiki");
        let appliance = Appliance::open(&folder.path().join(FILE_NAME)).expect("sound");
        let asked = request(&appliance, TOOLS_PACKAGES);
        let pins = |names: &[String]| names.iter().map(|name| pin(name)).collect::<Vec<_>>();
        let layers = asked.groups.iter().map(|group| pins(&group.packages));
        let release = LockedRelease {
            suite: "bookworm".into(),
            date: Timestamp::from_seconds(1_757_000_000),
            digest: Digest::of(b"InRelease"),
        };
        let lock = Lock::new(&asked, vec![release], layers.collect(), pins(&asked.tools));
        let builder = Builder {
            version: "0.1.0".into(),
            agent: Digest::of(b"agent"),
        };
        BuildPlan::resolve(&appliance, &lock, &builder, &Wishes::default()).expect("a plan")
    }

    fn pin(name: &str) -> PackagePin {
        PackagePin {
            name: name.into(),
            version: "1".into(),
            architecture: "amd64".into(),
            suite: "bookworm".into(),
            path: format!("pool/main/{name}.deb"),
            size: MIB,
            sha256: Digest::of(name.as_bytes()),
            source: name.into(),
            reason: "requested".into(),
        }
    }

    fn work(cached: &[&str], is_fetched: bool) -> BuildWork {
        BuildWork::of(
            &plan(),
            |layer| cached.contains(&layer.name.as_str()),
            |_| is_fetched,
            "nothing has changed".into(),
        )
    }

    #[test]
    fn a_layer_above_one_that_is_made_is_made_too() {
        let works = |cached: &[&str]| {
            let work = work(cached, true);
            work.layers
                .iter()
                .map(|layer| layer.work)
                .collect::<Vec<_>>()
        };
        let all = ["base", "app", "boot-tools"];
        assert_eq!(works(&all), [Work::Reuse; 3]);
        assert_eq!(
            works(&["app", "boot-tools"]),
            [Work::Make, Work::MakeAfterParent, Work::Reuse]
        );
        assert_eq!(
            works(&["base", "app"]),
            [Work::Reuse, Work::Reuse, Work::Make]
        );
    }

    #[test]
    fn only_packages_of_layers_that_are_made_are_fetched() {
        let tools = TOOLS_PACKAGES.len();
        assert_eq!(work(&["base", "app"], false).missing_packages, tools);
        assert_eq!(work(&["base", "app"], true).missing_packages, 0);
        assert_eq!(
            work(&["base", "app", "boot-tools"], false).missing_packages,
            0
        );
        assert_eq!(
            work(&["base", "app"], false).missing_bytes,
            ByteSize::from_bytes(tools as u64 * MIB)
        );
    }

    #[test]
    fn the_work_follows_the_plan() {
        let mut out = Vec::new();
        let plan = plan();
        show(&plan, &work(&["base"], false), ReportFormat::Text, &mut out).expect("a string");
        let text = String::from_utf8(out).expect("UTF-8");
        let (decided, work_said) = text.split_once("\nWORK\n").expect("a section");
        assert_eq!(decided, plan.to_string());
        assert_eq!(
            work_said,
            "  fetch 11 packages, 11 MiB\n  \
             base        reused, nothing that it is made of has changed\n  \
             app         made, the cache has none like it\n  \
             boot-tools  made, the cache has none like it\n  \
             outputs: nothing has changed\n"
        );

        let mut out = Vec::new();
        show(&plan, &work(&["base"], false), ReportFormat::Json, &mut out).expect("a string");
        let json: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
        assert_eq!(json["work"]["fetch"]["packages"], 11);
        assert_eq!(json["work"]["layers"][0]["work"], "reuse");
        assert_eq!(json["plan"], plan.digest().to_string());
    }
}
