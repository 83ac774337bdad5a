//! Layers: from specs to content-addressed, cached file-tree changes.
//!
//! In: [`LayerSpec`]s, lowest first, a [`Store`], and where .debs come from.
//! Out: [`Layer`]s, each with its tar in the store and the change that it
//! makes to the tree. Never here: extraction to the host outside of a root in
//! the making, which only the sandbox enters; decisions, which are the plan's.
//! Checked by: `tests/it/layer.rs` (GNU tar, the target's own dpkg, two users).
//!
//! | file | does |
//! |---|---|
//! | `key` | everything that can change a layer, as one digest |
//! | `store` | layers by key, in the cache folder |
//! | `record` | what the store knows about a layer |
//! | `ahead` | what layers to be made will have |
//! | `proof` | digests of cached layers, beside the work |
//! | `tar` | tar streams, both ways |
//! | `sandbox` | processes and namespaces in which packages are installed |
//! | `package` | .debs into a root, dpkg's database |
//! | `clean` | what a layer does not keep |
//! | `secrets` | keys and identities that a layer must not have |
//! | `upkeep` | listing, verifying and trimming the cache |
//! | `share` | layers from and to a registry |
//! | `files` | folders of the host as layers |
//! | `import` | archives, images and scripts as layers |
//! | `template` | values in files |
//! | `rules` | owners and modes by pattern |
//! | `compression` | gzip, xz and zstd within bounds |
//! | `source` | repositories, resolution, fetching; images, registries |

mod ahead;
pub mod clean;
pub mod compression;
mod error;
pub mod files;
mod import;
pub mod key;
mod package;
mod proof;
mod record;
mod rules;
pub mod sandbox;
pub mod secrets;
pub mod share;
pub mod source;
pub mod spec;
pub mod store;
pub mod tar;
mod template;
pub mod upkeep;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

pub use ahead::large_files_ahead;
pub use error::LayerError;
pub use import::fetch as fetch_foreign;
pub use package::PROVIDED;
pub use proof::Proofs;
pub use sandbox::{Driver, SandboxChoice, SandboxSettings};
pub use store::Store;

use self::key::layer_key;
use self::sandbox::protocol::{DebFile, PackagesJob, Request, ToolsJob};
use self::sandbox::{Session, Watched, remove_abandoned, room_for};
use self::secrets::Secret;
use self::source::deb::SourceError;
use self::source::remote::Remote;
use self::spec::{FilesRecipe, LayerSpec, PackagePin, PackagesRecipe, Recipe, ToolsRecipe};
use self::store::{Abandoned, Record, Workplace};
use self::tar::{TarSum, read_delta};
use crate::digest::{DiffId, LayerKey};
use crate::report::{Outcome, Reporter, Unit};
use crate::tree::{Blob, TreeDelta};
use crate::units::{ByteSize, Timestamp};

/// A finished layer.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Its name in the appliance.
    pub name: String,
    /// Its key in the store.
    pub key: LayerKey,
    /// The digest of its tar.
    pub diff_id: DiffId,
    /// The packages that it brought.
    pub packages: Vec<PackagePin>,
    /// Length of its tar.
    pub size: ByteSize,
    /// The change that it makes; contents point into the store.
    pub delta: TreeDelta,
}

/// Where .debs come from.
pub trait DebSource: std::fmt::Debug + Sync {
    /// Local paths of the packages, in the order of `pins`; what is missing
    /// is fetched. Asked only for layers that are not in the store.
    ///
    /// # Errors
    ///
    /// [`SourceError`] when one of them cannot be had.
    fn fetch(&self, pins: &[PackagePin]) -> Result<Vec<PathBuf>, SourceError>;

    /// The way to archives and images elsewhere.
    ///
    /// # Errors
    ///
    /// [`LayerError`] when there is none.
    fn remote(&self) -> Result<Remote<'_>, LayerError> {
        Err(LayerError::NoRemote)
    }
}

/// Everything that making layers needs besides the specs.
#[derive(Debug)]
pub struct LayerShop<'a> {
    /// The store.
    pub store: Store,
    /// Where .debs come from.
    pub debs: &'a dyn DebSource,
    /// How the sandbox is entered.
    pub sandbox: SandboxSettings,
    /// What takes the place of every time of the build.
    pub source_date: Timestamp,
    /// Roots that are being removed while the build goes on.
    pub removals: Removals,
}

/// Removals under way. Dropped, it waits for them; what one of them leaves
/// is removed at the next start.
#[derive(Debug, Default)]
pub struct Removals(Mutex<Vec<JoinHandle<()>>>);

impl Removals {
    fn begin(&self, removal: impl FnOnce() + Send + 'static) {
        let handle = std::thread::spawn(removal);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(handle);
    }
}

impl Drop for Removals {
    fn drop(&mut self) {
        let all = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        for handle in all.drain(..) {
            // A removal that panicked is a removal that left something.
            drop(handle.join());
        }
    }
}

/// Makes the layers of `specs`, lowest first; those that are in the store
/// are taken from there.
///
/// # Errors
///
/// [`LayerError`], with the layer's name where it is about one.
pub fn build_all(
    specs: &[LayerSpec],
    shop: &LayerShop<'_>,
    reporter: &dyn Reporter,
) -> Result<Vec<Layer>, LayerError> {
    build_with(specs, shop, None, &|_| {}, reporter)
}

/// The same without waiting for the digests of what is in the store: whether
/// the layers are right, `proofs` says in the end. Where they do not hold, an
/// error means nothing, and [`build_all`] makes what has been lost. `watch`
/// gets the layers so far when one was made and others will take a while.
///
/// # Errors
///
/// As [`build_all`].
pub fn build_ahead(
    specs: &[LayerSpec],
    shop: &LayerShop<'_>,
    proofs: &Proofs<'_>,
    watch: &dyn Fn(&[Layer]),
    reporter: &dyn Reporter,
) -> Result<Vec<Layer>, LayerError> {
    build_with(specs, shop, Some(proofs), watch, reporter)
}

fn build_with(
    specs: &[LayerSpec],
    shop: &LayerShop<'_>,
    proofs: Option<&Proofs<'_>>,
    watch: &dyn Fn(&[Layer]),
    reporter: &dyn Reporter,
) -> Result<Vec<Layer>, LayerError> {
    let _in_use = shop.store.in_use()?;
    let abandoned = shop.store.abandoned()?;
    let folders = abandoned.iter().map(Abandoned::folder);
    if let Err(error) = remove_abandoned(folders, &shop.sandbox) {
        // It is in nobody's way but the disk's.
        let message = format!("what a killed build left cannot be removed yet: {error}");
        reporter.warn(message, error.hint().as_deref());
    }
    drop(abandoned);
    let mut layers: Vec<Layer> = Vec::new();
    let all_pins = specs.iter().flat_map(|spec| packages_of(&spec.recipe));
    let mut bench = Bench::for_debs(all_pins.map(|pin| pin.size).sum());
    for spec in specs {
        let step = format!("layer {}", spec.name);
        reporter.started(&step);
        let (layer, is_new) = one_layer(spec, &layers, (shop, proofs), &mut bench, &step, reporter)
            .map_err(|error| error.in_layer(&spec.name))?;
        layers.push(layer);
        let mut left = specs.iter().skip(layers.len());
        if is_new && left.any(|spec| is_slow(&spec.recipe)) {
            watch(&layers);
        }
    }
    bench.clear(&shop.removals);
    Ok(layers)
}

/// The layer, and whether it was not in the store.
fn one_layer(
    spec: &LayerSpec,
    below: &[Layer],
    (shop, proofs): (&LayerShop<'_>, Option<&Proofs<'_>>),
    bench: &mut Bench,
    step: &str,
    reporter: &dyn Reporter,
) -> Result<(Layer, bool), LayerError> {
    let parents: Vec<DiffId> = below.iter().map(|layer| layer.diff_id).collect();
    let key = layer_key(spec, &parents, shop.source_date);
    let found = match proofs {
        None => shop.store.find(&key, reporter)?,
        Some(proofs) => {
            let found = shop.store.find_unproven(&key, reporter)?;
            if let Some((record, blob)) = &found {
                proofs.begin(record, blob);
            }
            found
        }
    };
    if let Some((record, blob)) = found {
        return Ok((cached(spec, record, &blob, step, reporter)?, false));
    }
    let _lock = shop.store.lock(&key, || {
        reporter.warn("another build is making this layer; waiting for it", None);
    })?;
    // Another build may have made it while this one waited.
    if let Some((record, blob)) = shop.store.find(&key, reporter)? {
        return Ok((cached(spec, record, &blob, step, reporter)?, false));
    }
    let (output, sum) = make(spec, below, (shop, proofs), bench, step, reporter)?;
    let mut record = Record::new(key, sum, packages_of(&spec.recipe));
    let delta = delta_in(&output)?;
    record.secrets = secrets_of(spec, &delta, &output)?;
    shop.store.admit(&record, &output)?;
    let layer = layer(spec, record, delta)?;
    let detail = format!("{} made", layer.size);
    reporter.finished(step, Outcome::Done, detail);
    Ok((layer, true))
}

/// Whether programs run when such a layer is made.
fn is_slow(recipe: &Recipe) -> bool {
    matches!(recipe, Recipe::Packages(_) | Recipe::Run(_))
}

fn cached(
    spec: &LayerSpec,
    record: Record,
    blob: &Arc<Blob>,
    step: &str,
    reporter: &dyn Reporter,
) -> Result<Layer, LayerError> {
    let layer = layer(spec, record, read_delta(blob)?)?;
    reporter.finished(
        step,
        Outcome::Cached,
        format!("{} from the cache", layer.size),
    );
    Ok(layer)
}

/// The change that a tar makes which is not in the store yet.
fn delta_in(output: &Path) -> Result<TreeDelta, LayerError> {
    let blob = Blob::open(output).map_err(unreadable(output))?;
    Ok(read_delta(&blob)?)
}

fn secrets_of(
    spec: &LayerSpec,
    delta: &TreeDelta,
    output: &Path,
) -> Result<Vec<Secret>, LayerError> {
    // What the tools' layer keeps is named in its recipe.
    if matches!(spec.recipe, Recipe::Tools(_)) {
        return Ok(Vec::new());
    }
    secrets::find(delta).map_err(unreadable(output))
}

fn unreadable(output: &Path) -> impl FnOnce(std::io::Error) -> LayerError + '_ {
    move |source| LayerError::Store {
        action: "read",
        path: output.to_owned(),
        source,
    }
}

fn layer(spec: &LayerSpec, record: Record, delta: TreeDelta) -> Result<Layer, LayerError> {
    let is_allowed = |secret: &&Secret| !secret.is_allowed(&spec.allow_secrets);
    let secrets: Vec<Secret> = record.secrets.iter().filter(is_allowed).cloned().collect();
    if !secrets.is_empty() {
        return Err(LayerError::Secrets { secrets });
    }
    Ok(Layer {
        name: spec.name.clone(),
        key: record.key,
        diff_id: record.diff_id,
        packages: record.packages,
        size: ByteSize::from_bytes(record.size),
        delta,
    })
}

fn packages_of(recipe: &Recipe) -> Vec<PackagePin> {
    match recipe {
        Recipe::Packages(recipe) => recipe.pins.clone(),
        Recipe::Tools(recipe) => recipe.pins.clone(),
        Recipe::Files(_) | Recipe::Tar(_) | Recipe::Oci(_) | Recipe::Run(_) => Vec::new(),
    }
}

/// The layers below one, and the proofs that they are right, where those are
/// still being worked out.
type Below<'a> = (&'a [Layer], Option<&'a Proofs<'a>>);

/// Makes the layer's tar in a workplace.
fn make(
    spec: &LayerSpec,
    below: &[Layer],
    (shop, proofs): (&LayerShop<'_>, Option<&Proofs<'_>>),
    bench: &mut Bench,
    step: &str,
    reporter: &dyn Reporter,
) -> Result<(PathBuf, TarSum), LayerError> {
    match &spec.recipe {
        Recipe::Files(recipe) => files_layer(recipe, shop, bench),
        Recipe::Packages(recipe) => {
            packages_layer(recipe, (below, proofs), shop, bench, step, reporter)
        }
        Recipe::Tools(recipe) => tools_layer(recipe, shop, bench, step, reporter),
        Recipe::Tar(recipe) => import::tar_layer(recipe, shop, bench),
        Recipe::Oci(recipe) => import::oci_layer(recipe, shop, bench),
        Recipe::Run(recipe) => {
            import::run_layer(recipe, (below, proofs), shop, bench, step, reporter)
        }
    }
}

fn files_layer(
    recipe: &FilesRecipe,
    shop: &LayerShop<'_>,
    bench: &mut Bench,
) -> Result<(PathBuf, TarSum), LayerError> {
    let output = bench.next_output(&shop.store)?;
    let built = files::write(recipe, shop.source_date, &output)?;
    Ok((output, built))
}

fn packages_layer(
    recipe: &PackagesRecipe,
    below: Below<'_>,
    shop: &LayerShop<'_>,
    bench: &mut Bench,
    step: &str,
    reporter: &dyn Reporter,
) -> Result<(PathBuf, TarSum), LayerError> {
    let debs = deb_files(&recipe.pins, shop)?;
    bench.on_disk_when_full(|bench| {
        let output = bench.next_output(&shop.store)?;
        let root = bench.root_with(below, shop, reporter)?;
        let job = PackagesJob {
            debs: debs.clone(),
            exclude_paths: recipe.exclude_paths.clone(),
            include_paths: recipe.include_paths.clone(),
            output: output.clone(),
        };
        let built = ask(&mut root.session, &Request::Packages(job), step, reporter)?;
        // The root holds this layer too from now on.
        root.layers += 1;
        Ok((output, built))
    })
}

fn tools_layer(
    recipe: &ToolsRecipe,
    shop: &LayerShop<'_>,
    bench: &mut Bench,
    step: &str,
    reporter: &dyn Reporter,
) -> Result<(PathBuf, TarSum), LayerError> {
    let bytes = |path: &crate::tree::TreePath| path.as_bytes().to_vec();
    let output = bench.next_output(&shop.store)?;
    let job = ToolsJob {
        debs: deb_files(&recipe.pins, shop)?,
        input: recipe
            .input
            .iter()
            .map(|(path, content)| (bytes(path), content.clone()))
            .collect(),
        command: recipe.command.clone(),
        keep: recipe.keep.iter().map(bytes).collect(),
        output: output.clone(),
    };
    // A root of its own, with nothing of the appliance in it.
    let mut own = Bench::for_debs(recipe.pins.iter().map(|pin| pin.size).sum());
    let root = own.root_with((&[], None), shop, reporter)?;
    let built = ask(&mut root.session, &Request::Tools(job), step, reporter)?;
    own.clear(&shop.removals);
    Ok((output, built))
}

fn deb_files(pins: &[PackagePin], shop: &LayerShop<'_>) -> Result<Vec<DebFile>, LayerError> {
    let paths = shop.debs.fetch(pins)?;
    Ok(pins
        .iter()
        .zip(paths)
        .map(|(pin, path)| DebFile {
            path,
            plain: shop.store.plain_path(&pin.sha256),
            package: pin.name.clone(),
            sha256: pin.sha256,
            size: pin.size,
            is_automatic: pin.reason.starts_with("needed by"),
        })
        .collect())
}

/// Asks the sandbox for a tar, and tells the reporter how far it is.
fn ask(
    session: &mut Session,
    request: &Request,
    step: &str,
    reporter: &dyn Reporter,
) -> Result<TarSum, LayerError> {
    let built = session.ask(request, &mut |watched| match watched {
        Watched::Progress { phase, done, total } => {
            let unit = if phase == "configure" {
                Unit::Items
            } else {
                Unit::Bytes
            };
            reporter.event(crate::report::Event::Progress {
                step: format!("{step}: {phase}"),
                done,
                total: Some(total),
                unit,
            });
        }
        Watched::Note(note) => reporter.warn(note, None),
    })?;
    built.ok_or_else(|| {
        LayerError::Sandbox(Box::new(sandbox::Fault::Talk {
            reason: "no tar came of the request".to_owned(),
        }))
    })
}

/// Where layers are made: tars that are not in the store yet, and a root that
/// goes from one `packages` layer to the next, so that nothing is unpacked twice.
#[derive(Debug, Default)]
struct Bench {
    workplace: Option<Workplace>,
    outputs: u32,
    root: Option<BenchRoot>,
    /// Size of a tmpfs for the root; `None`: on the disk.
    memory: Option<u64>,
}

#[derive(Debug)]
struct BenchRoot {
    session: Session,
    /// How many of the lowest layers are in it.
    layers: usize,
}

impl Bench {
    /// A bench for packages whose .debs have so many bytes.
    fn for_debs(bytes: u64) -> Self {
        let mut bench = Self::default();
        bench.memory = room_for(bytes);
        bench
    }

    /// Makes something in the root; where memory was too small for that, once
    /// more on the disk.
    fn on_disk_when_full<T>(
        &mut self,
        mut attempt: impl FnMut(&mut Self) -> Result<T, LayerError>,
    ) -> Result<T, LayerError> {
        match attempt(self) {
            Err(LayerError::Sandbox(fault)) if fault.is_full() && self.memory.is_some() => {
                self.root = None;
                self.memory = None;
                attempt(self)
            }
            result => result,
        }
    }

    fn workplace(&mut self, store: &Store) -> Result<&Workplace, LayerError> {
        if self.workplace.is_none() {
            self.workplace = Some(store.workplace()?);
        }
        Ok(self.workplace.as_ref().expect("made above"))
    }

    /// Where the next tar goes.
    fn next_output(&mut self, store: &Store) -> Result<PathBuf, LayerError> {
        self.outputs += 1;
        let name = format!("layer-{}.tar", self.outputs);
        Ok(self.workplace(store)?.folder().join(name))
    }

    /// The root, with exactly the layers `below` in it, which are proven.
    fn root_with(
        &mut self,
        (below, proofs): Below<'_>,
        shop: &LayerShop<'_>,
        reporter: &dyn Reporter,
    ) -> Result<&mut BenchRoot, LayerError> {
        if self.root.is_none() {
            let folder = self.workplace(&shop.store)?.folder().to_owned();
            let mut session = Session::start(&shop.sandbox)?;
            tell_driver(&session, reporter);
            let begin = Request::Begin {
                folder,
                source_date: shop.source_date.seconds,
                memory: self.memory,
            };
            session.ask(&begin, &mut |_| {})?;
            self.root = Some(BenchRoot { session, layers: 0 });
        }
        let root = self.root.as_mut().expect("made above");
        for layer in below.iter().skip(root.layers) {
            let tar = shop.store.blob_path(&layer.diff_id);
            root.session.ask(&Request::Apply(tar), &mut |_| {})?;
            root.layers += 1;
        }
        // Before a program in them runs.
        if proofs.is_some_and(|proofs| !proofs.hold()) {
            return Err(LayerError::Unproven);
        }
        Ok(root)
    }

    /// Removes all of it, while the build goes on.
    fn clear(&mut self, removals: &Removals) {
        let Some(workplace) = self.workplace.take() else {
            return;
        };
        let root = self.root.take();
        removals.begin(move || remove(&workplace, root));
    }
}

/// Says which driver is used, where it is not the one that comes first.
fn tell_driver(session: &Session, reporter: &dyn Reporter) {
    let (driver, refused) = session.driver();
    if !refused.0.is_empty() {
        let step = "sandbox";
        reporter.started(step);
        reporter.finished(step, Outcome::Done, format!("`{driver}`, {refused}"));
    }
}

/// Removes a workplace. What cannot be removed is left for the next start,
/// which says so if it still cannot.
fn remove(workplace: &Workplace, root: Option<BenchRoot>) {
    let has_ended = root.is_none_or(|root| root.session.end().is_ok());
    if has_ended && workplace.folder().exists() {
        drop(std::fs::remove_dir_all(workplace.folder()));
    }
}

impl Drop for Bench {
    /// After an error.
    fn drop(&mut self) {
        if let Some(workplace) = self.workplace.take() {
            remove(&workplace, self.root.take());
        }
    }
}
