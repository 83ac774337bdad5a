//! What the appliance asks of the distribution.

use crate::appliance::{
    Appliance, Kernel, LAYERS_FOLDER, LayerKind, OciSource, OwnRepository, PackageName,
    PackagesLayer, TarSource, VersionPin,
};
use crate::layer::spec::{
    ArchiveRequest, ImageRequest, PackageGroup, PackageLimit, PackageRequest, RepositoryRequest,
};

/// The request that the resolver must answer. `tools` are the packages that
/// the boot room's tools layer needs.
///
/// The kernel joins the lowest layer of packages: one run of the sandbox
/// configures both.
#[must_use]
pub fn request(appliance: &Appliance, tools: &[&str]) -> PackageRequest {
    let mut groups: Vec<PackageGroup> = Vec::new();
    for layer in &appliance.layers {
        if let LayerKind::Packages(recipe) = &layer.kind {
            let kernel = groups
                .is_empty()
                .then(|| kernel_package(appliance.system.kernel));
            groups.push(group(layer.name.as_str(), recipe, kernel));
        }
    }
    let mut tools: Vec<String> = tools.iter().map(|&name| name.to_owned()).collect();
    tools.sort();
    PackageRequest {
        suite: appliance.system.suite.to_string(),
        architecture: appliance.system.architecture.to_string(),
        groups,
        tools,
        repositories: appliance.repositories.iter().map(repository).collect(),
        limits: appliance.pins.iter().map(limit).collect(),
        images: images(appliance),
        archives: archives(appliance),
    }
}

fn repository(own: &OwnRepository) -> RepositoryRequest {
    RepositoryRequest {
        name: own.name.to_string(),
        suite: own.suite.clone(),
        components: own.components.clone(),
        priority: own.priority,
        packages: own.packages.clone(),
    }
}

fn limit(pin: &VersionPin) -> PackageLimit {
    PackageLimit {
        packages: pin.packages.clone(),
        version: pin.version.clone(),
        source: pin.source.clone(),
    }
}

fn images(appliance: &Appliance) -> Vec<ImageRequest> {
    let wanted = appliance.layers.iter().filter_map(|layer| {
        let LayerKind::Oci(oci) = &layer.kind else {
            return None;
        };
        let OciSource::Registry(reference) = &oci.source else {
            return None;
        };
        Some(ImageRequest {
            layer: layer.name.to_string(),
            reference: reference.clone(),
        })
    });
    let mut wanted: Vec<_> = wanted.collect();
    wanted.sort();
    wanted
}

fn archives(appliance: &Appliance) -> Vec<ArchiveRequest> {
    let wanted = appliance.layers.iter().filter_map(|layer| {
        let LayerKind::Tar(tar) = &layer.kind else {
            return None;
        };
        let TarSource::Url { url, sha256 } = &tar.source else {
            return None;
        };
        Some(ArchiveRequest {
            layer: layer.name.to_string(),
            url: url.clone(),
            sha256: *sha256,
        })
    });
    let mut wanted: Vec<_> = wanted.collect();
    wanted.sort();
    wanted
}

fn group(layer: &str, recipe: &PackagesLayer, kernel: Option<&str>) -> PackageGroup {
    let mut packages: Vec<String> = recipe.packages.iter().map(PackageName::to_string).collect();
    packages.extend(kernel.map(str::to_owned));
    packages.sort();
    packages.dedup();
    PackageGroup {
        layer: layer.to_owned(),
        packages,
        recommends: recipe.recommends,
        exclude: recipe.exclude.iter().map(PackageName::to_string).collect(),
        debs: recipe
            .debs
            .iter()
            .map(|path| format!("{LAYERS_FOLDER}/{layer}/{path}"))
            .collect(),
    }
}

/// Debian's metapackage, which follows security updates.
fn kernel_package(kernel: Kernel) -> &'static str {
    match kernel {
        Kernel::Cloud => "linux-image-cloud-amd64",
        _ => "linux-image-amd64",
    }
}
