//! From the appliance's wishes to exact packages: asks the host's
//! repositories and writes down the answer.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::appliance::{Appliance, Mirror, OwnRepository};
use crate::boot::TOOLS_PACKAGES;
use crate::layer::source::deb::{
    self, Access, AptSettings, Base, Client, Held, HostEnvironment, LayerRequest, LocalPackage,
    Network, Offer, OwnSource, Repository, Request, Resolution, SourceError, WantedSource,
};
use crate::layer::source::oci::reference::Reference;
use crate::layer::source::remote::{Logins, Remote, RemoteError};
use crate::layer::spec::{LOCAL, PackageGroup, PackagePin, PackageRequest};
use crate::layer::{DebSource, LayerError};
use crate::plan::{Lock, LockedImage, LockedRelease, clock, request};
use crate::report::Reporter;

/// Dependencies that the build itself satisfies: the initramfs is ours.
const PROVIDED: [&str; 1] = ["linux-initramfs-tool"];
/// The tools' layer, in messages.
const TOOLS: &str = "boot loaders";

/// What the host and the user say about sources.
#[derive(Debug, Clone, Copy)]
pub struct SourceSettings<'a> {
    /// `PATH`.
    pub search_path: &'a OsStr,
    /// `http_proxy`.
    pub http_proxy: Option<&'a str>,
    /// `https_proxy`.
    pub https_proxy: Option<&'a str>,
    /// `no_proxy`.
    pub no_proxy: Option<&'a str>,
    /// Replaces the host's own addresses.
    pub mirror: Option<&'a str>,
    /// Whether the network may be used.
    pub network: Network,
    /// The cache folder.
    pub cache: &'a Path,
    /// Logins for registries.
    pub logins: &'a Logins,
    /// Who is told.
    pub reporter: &'a dyn Reporter,
}

/// The repositories of a suite on this host, asked when they are needed and
/// not before: a build from the cache works on any host.
#[derive(Debug)]
pub struct Sources<'a> {
    /// The suite.
    pub suite: &'a str,
    /// Those of the appliance besides the distribution's.
    pub own: &'a [OwnRepository],
    /// The appliance's folder, below which its package files are.
    pub folder: &'a Path,
    /// How to get there.
    pub settings: SourceSettings<'a>,
}

/// The repositories, found.
struct Open {
    repositories: Vec<Repository>,
    client: Client,
}

impl Sources<'_> {
    fn apt_settings(&self) -> Result<AptSettings, SourceError> {
        let settings = &self.settings;
        deb::read_settings(&HostEnvironment {
            search_path: settings.search_path,
            http_proxy: settings.http_proxy,
            https_proxy: settings.https_proxy,
            no_proxy: settings.no_proxy,
        })
    }

    fn open(&self) -> Result<Open, SourceError> {
        let settings = &self.settings;
        let apt = self.apt_settings()?;
        let mut repositories =
            deb::host_repositories(self.suite, settings.mirror, &apt, settings.reporter)?;
        let own: Vec<OwnSource<'_>> = self.own.iter().map(own_source).collect();
        repositories.extend(deb::own_repositories(&own, settings.mirror, &apt)?);
        Ok(Open {
            repositories,
            client: Client::new(apt, settings.network),
        })
    }

    fn access<'a>(&'a self, open: &'a Open) -> Access<'a> {
        Access {
            client: &open.client,
            cache: self.settings.cache,
            now: clock::now(),
            reporter: self.settings.reporter,
        }
    }

    /// Resolves the appliance's packages anew. The packages of `held` stay
    /// what they are where they can.
    ///
    /// # Errors
    ///
    /// What is wrong with a signature, a name or a dependency; an image or an
    /// archive that cannot be had.
    pub fn lock(&self, appliance: &Appliance, held: &[PackagePin]) -> Result<Lock, LayerError> {
        let wanted = request(appliance, TOOLS_PACKAGES);
        let locals = self.locals(&wanted)?;
        let open = self.open()?;
        let access = self.access(&open);
        let all: Vec<_> = locals.iter().flatten().cloned().collect();
        let offer = Offer::open(&open.repositories, &all, &wanted.architecture, &access)?;
        let held: Vec<Held> = held
            .iter()
            .filter(|pin| pin.suite != LOCAL)
            .map(hold)
            .collect();
        let mut request = system_request(&wanted, held.clone());
        for (layer, locals) in request.layers.iter_mut().zip(&locals) {
            let named = |local: &LocalPackage| format!("{}/{LOCAL}", local.name);
            layer.packages.extend(locals.iter().map(named));
        }
        let system = offer.resolve(&request, self.settings.reporter)?;
        let tools = offer.resolve(&tools_request(&wanted, held), self.settings.reporter)?;
        let releases = system.releases.iter().map(|release| LockedRelease {
            suite: release.suite.clone(),
            date: release.date,
            digest: release.sha256,
        });
        let releases = releases.collect();
        let tools = only(&wanted.tools, tools);
        let layers = system.layers.into_iter().map(|layer| layer.pins).collect();
        Ok(Lock::new(&wanted, releases, layers, tools).with_images(self.images(&wanted)?))
    }

    /// What the images' names stand for today.
    fn images(&self, wanted: &PackageRequest) -> Result<Vec<LockedImage>, LayerError> {
        if wanted.images.is_empty() {
            return Ok(Vec::new());
        }
        let remote = self.remote()?;
        let images = wanted.images.iter().map(|request| {
            let reference =
                Reference::parse(&request.reference).map_err(|why| RemoteError::Reference {
                    reference: request.reference.clone(),
                    why,
                })?;
            Ok(LockedImage {
                request: request.clone(),
                manifest: remote.resolve(&reference)?,
            })
        });
        images.collect()
    }
}

impl Sources<'_> {
    /// Brings the files of the wanted sources into `folder`.
    ///
    /// # Errors
    ///
    /// What is wrong with a list, its signature or a file.
    pub fn sources(
        &self,
        wanted: &BTreeSet<WantedSource>,
        folder: &Path,
    ) -> Result<deb::FoundSources, SourceError> {
        let open = self.open()?;
        let access = self.access(&open);
        let (pins, mut missing) = deb::find_sources(wanted, &open.repositories, &access)?;
        let (found, gone) = deb::fetch_sources(pins, &open.repositories, &access, folder)?;
        missing.extend(gone);
        Ok((found, missing))
    }

    /// The package files of each layer.
    fn locals(&self, wanted: &PackageRequest) -> Result<Vec<Vec<LocalPackage>>, SourceError> {
        let open = |path: &String| LocalPackage::open(self.folder, path);
        let groups = wanted.groups.iter();
        groups
            .map(|group| group.debs.iter().map(open).collect())
            .collect()
    }

    /// Where the repositories are; with nothing to fetch, it does not matter
    /// that this host knows none.
    fn open_for(&self, pins: &[PackagePin]) -> Result<Open, SourceError> {
        let is_there = |pin: &PackagePin| deb::is_cached(pin, self.settings.cache);
        match self.open() {
            Err(_) if pins.iter().all(is_there) => Ok(Open {
                repositories: Vec::new(),
                client: Client::new(deb::AptSettings::default(), self.settings.network),
            }),
            result => result,
        }
    }
}

impl DebSource for Sources<'_> {
    fn fetch(&self, pins: &[PackagePin]) -> Result<Vec<PathBuf>, SourceError> {
        let is_remote = |pin: &&PackagePin| pin.suite != LOCAL;
        let remote: Vec<PackagePin> = pins.iter().filter(is_remote).cloned().collect();
        let open = self.open_for(&remote)?;
        let fetched = deb::fetch(&remote, &open.repositories, &self.access(&open))?;
        let mut fetched = fetched.into_iter();
        let mut paths = Vec::new();
        for pin in pins {
            paths.extend(match pin.suite.as_str() {
                LOCAL => Some(self.local_file(pin)?),
                _ => fetched.next(),
            });
        }
        Ok(paths)
    }

    fn remote(&self) -> Result<Remote<'_>, LayerError> {
        let settings = &self.settings;
        let client = Client::new(self.apt_settings()?, settings.network);
        Ok(Remote::new(
            client,
            settings.logins.clone(),
            settings.cache,
            settings.reporter,
        ))
    }
}

impl Sources<'_> {
    /// The file of the appliance that a pin means.
    fn local_file(&self, pin: &PackagePin) -> Result<PathBuf, SourceError> {
        let found = LocalPackage::open(self.folder, &pin.path)?;
        let path = self.folder.join(&pin.path);
        if found.sha256 == pin.sha256 {
            return Ok(path);
        }
        Err(SourceError::FileChanged {
            package: pin.name.clone(),
            path,
        })
    }
}

fn own_source(own: &OwnRepository) -> OwnSource<'_> {
    OwnSource {
        name: own.name.as_str(),
        address: own.url.as_ref().map(Mirror::as_str),
        suite: &own.suite,
        components: &own.components,
        key: own.key.as_deref(),
        priority: own.priority,
        packages: &own.packages,
    }
}

fn hold(pin: &PackagePin) -> Held {
    Held {
        name: pin.name.clone(),
        version: pin.version.clone(),
        sha256: pin.sha256,
    }
}

fn system_request(wanted: &PackageRequest, held: Vec<Held>) -> Request {
    let layer = |group: &PackageGroup| LayerRequest {
        name: group.layer.clone(),
        packages: group.packages.clone(),
        recommends: group.recommends,
    };
    let mut exclude: Vec<String> = wanted
        .groups
        .iter()
        .flat_map(|group| group.exclude.clone())
        .collect();
    exclude.sort();
    exclude.dedup();
    Request {
        architecture: wanted.architecture.clone(),
        base: Base::Essential,
        layers: wanted.groups.iter().map(layer).collect(),
        exclude,
        provided: PROVIDED.map(str::to_owned).to_vec(),
        limits: wanted.limits.clone(),
        held,
    }
}

/// The programs that make the boot loader, without a system around them.
fn tools_request(wanted: &PackageRequest, held: Vec<Held>) -> Request {
    Request {
        architecture: wanted.architecture.clone(),
        base: Base::Nothing,
        layers: vec![LayerRequest {
            name: TOOLS.into(),
            packages: wanted.tools.clone(),
            recommends: false,
        }],
        exclude: Vec::new(),
        provided: Vec::new(),
        limits: wanted.limits.clone(),
        held,
    }
}

/// The wanted packages alone: what they depend on is for installed systems,
/// and these are only unpacked.
fn only(wanted: &[String], resolution: Resolution) -> Vec<PackagePin> {
    let pins = resolution.layers.into_iter().flat_map(|layer| layer.pins);
    pins.filter(|pin| wanted.contains(&pin.name)).collect()
}
