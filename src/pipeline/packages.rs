//! From the appliance's wishes to exact packages: asks the host's
//! repositories and writes down the answer.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::appliance::Appliance;
use crate::boot::TOOLS_PACKAGES;
use crate::layer::DebSource;
use crate::layer::source::deb::{
    self, Access, Base, Client, HostEnvironment, LayerRequest, Network, Offer, Repository, Request,
    Resolution, SourceError,
};
use crate::layer::spec::{PackagePin, PackageRequest};
use crate::plan::{Lock, LockedRelease, clock, request};
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
    /// Who is told.
    pub reporter: &'a dyn Reporter,
}

/// The repositories of a suite on this host, asked when they are needed and
/// not before: a build from the cache works on any host.
#[derive(Debug)]
pub struct Sources<'a> {
    /// The suite.
    pub suite: &'a str,
    /// How to get there.
    pub settings: SourceSettings<'a>,
}

/// The repositories, found.
struct Open {
    repositories: Vec<Repository>,
    client: Client,
}

impl Sources<'_> {
    fn open(&self) -> Result<Open, SourceError> {
        let settings = &self.settings;
        let apt = deb::read_settings(&HostEnvironment {
            search_path: settings.search_path,
            http_proxy: settings.http_proxy,
            https_proxy: settings.https_proxy,
            no_proxy: settings.no_proxy,
        })?;
        let repositories =
            deb::host_repositories(self.suite, settings.mirror, &apt, settings.reporter)?;
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

    /// Resolves the appliance's packages anew.
    ///
    /// # Errors
    ///
    /// What is wrong with a signature, a name or a dependency.
    pub fn lock(&self, appliance: &Appliance) -> Result<Lock, SourceError> {
        let wanted = request(appliance, TOOLS_PACKAGES);
        let open = self.open()?;
        let access = self.access(&open);
        let offer = Offer::open(&open.repositories, &wanted.architecture, &access)?;
        let system = offer.resolve(&system_request(&wanted), self.settings.reporter)?;
        let tools = offer.resolve(&tools_request(&wanted), self.settings.reporter)?;
        let releases = system.releases.iter().map(|release| LockedRelease {
            suite: release.suite.clone(),
            date: release.date,
            digest: release.sha256,
        });
        let releases = releases.collect();
        let tools = only(&wanted.tools, tools);
        let layers = system.layers.into_iter().map(|layer| layer.pins).collect();
        Ok(Lock::new(&wanted, releases, layers, tools))
    }
}

impl DebSource for Sources<'_> {
    fn fetch(&self, pins: &[PackagePin]) -> Result<Vec<PathBuf>, SourceError> {
        let open = self.open()?;
        deb::fetch(pins, &open.repositories, &self.access(&open))
    }
}

fn system_request(wanted: &PackageRequest) -> Request {
    let layer = |group: &crate::layer::spec::PackageGroup| LayerRequest {
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
    }
}

/// The programs that make the boot loader, without a system around them.
fn tools_request(wanted: &PackageRequest) -> Request {
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
    }
}

/// The wanted packages alone: what they depend on is for installed systems,
/// and these are only unpacked.
fn only(wanted: &[String], resolution: Resolution) -> Vec<PackagePin> {
    let pins = resolution.layers.into_iter().flat_map(|layer| layer.pins);
    pins.filter(|pin| wanted.contains(&pin.name)).collect()
}
